r"""Weighted mean and scatter that grow batch by batch.

With :math:`m, S, w` the mean, scatter :math:`\sum_i w_i (x_i - m)(x_i - m)^\top` and total
weight of what was seen, and :math:`m', S', w'` those of a new batch (Chan et al. 1983),

.. math:: S \leftarrow S + S' + \frac{w w'}{w + w'} (m' - m)(m' - m)^\top .

Three forms of the scatter: the whole matrix, its diagonal, or its leading
right-singular factor :math:`F` with :math:`S \approx F^\top F`, which never forms a
:math:`d \times d` matrix; a batch is then merged by one SVD of the stacked rows
:math:`[F;\ \sqrt{w_i}(x_i - m');\ \sqrt{w w'/(w+w')}\,(m'-m)]`. All three share one fit:
a fit is the first batch.
"""

from __future__ import annotations

import copy

import numpy as np
from sklearn.utils.extmath import randomized_svd

__all__ = ["DiagonalMoments", "FactorMoments", "FullMoments", "gathered", "oas_share", "shrunk"]

FEW_PRODUCTS = 1_000_000
"""Products ``n d^2`` up to which sums are taken in extended precision: where rows are fewer than
columns the last digits of a sum decide directions, and must not depend on the order of rows."""


class _Moments:
    """Mean and total weight; a subclass holds the scatter."""

    def __init__(self, n_features: int):
        self.weight = 0.0
        self.n_rows = 0
        self.mean = np.zeros(n_features)
        self.magnitude = np.zeros(n_features)

    def update(self, X: np.ndarray, weights: np.ndarray) -> _Moments:
        """Take in a batch of rows."""
        kept = weights > 0
        if not kept.all():
            X, weights = X[kept], weights[kept]
        if len(X) * X.shape[1] ** 2 <= FEW_PRODUCTS:
            X, weights = X.astype(np.longdouble), weights.astype(np.longdouble)
        total = float(weights.sum())
        mean = weights @ X / total
        # a second pass removes the rounding error of the first: constant columns stay constant
        mean = mean + weights @ (X - mean) / total
        batch = self._empty()
        batch.weight, batch.n_rows = total, len(X)
        batch.mean = mean.astype(np.float64)
        batch.magnitude = np.abs(batch.mean)
        batch._gather(X - mean, weights)
        return self.merge(batch)

    def merge(self, other: _Moments) -> _Moments:
        """Take in what was gathered elsewhere."""
        merged = self.weight + other.weight
        jump = other.mean - self.mean if self.weight else np.zeros_like(self.mean)
        self._merge(other, jump, self.weight * other.weight / merged)
        self.mean = self.mean + jump * (other.weight / merged) if self.weight else other.mean
        self.magnitude = np.maximum(self.magnitude, other.magnitude)
        self.magnitude = np.maximum(self.magnitude, np.abs(self.mean))
        self.weight = merged
        self.n_rows += other.n_rows
        return self

    def __add__(self, other: _Moments) -> _Moments:
        return copy.deepcopy(self).merge(other)

    def _empty(self):
        """Moments of the same kind of no rows."""
        return type(self)(len(self.mean))

    def _gather(self, centred, weights):
        """Fill empty moments from centred rows."""
        raise NotImplementedError

    def _merge(self, other, jump, factor):
        raise NotImplementedError

    def column_variances(self) -> np.ndarray:
        """Variance of each column; exactly zero where it is within rounding of constant."""
        variances = self._scatter_diagonal() / self.weight
        rounding = 8 * np.finfo(np.float64).eps * self.magnitude
        return np.where(variances > rounding**2, variances, 0.0)

    def _scatter_diagonal(self):
        raise NotImplementedError


class FullMoments(_Moments):
    r"""The whole scatter matrix, and what shrinkage needs of higher moments.

    With :math:`c = x - m`: the vector :math:`\sum w |c|^2 c` and the scalar
    :math:`\sum w |c|^4`, which follow the mean exactly when batches move it.
    """

    def __init__(self, n_features: int):
        super().__init__(n_features)
        self.scatter = np.zeros((n_features, n_features))
        self.cubic = np.zeros(n_features)
        self.quartic = 0.0

    def _gather(self, centred, weights):
        rows = centred * np.sqrt(weights)[:, None]
        self.scatter = (rows.T @ rows).astype(np.float64)
        squared = np.einsum("ij,ij->i", centred, centred)
        with np.errstate(over="ignore", under="ignore"):  # who needs them looks at them
            self.cubic = ((weights * squared) @ centred).astype(np.float64)
            self.quartic = float(weights @ squared**2)

    def _merge(self, other, jump, factor):
        share = other.weight / (self.weight + other.weight)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            cubic, quartic = self._shifted(self, -share * jump)
            its_cubic, its_quartic = self._shifted(other, (1 - share) * jump)
            self.cubic, self.quartic = cubic + its_cubic, float(quartic + its_quartic)
        self.scatter = self.scatter + other.scatter + factor * np.outer(jump, jump)

    @staticmethod
    def _shifted(of, by):
        """Third and fourth moments of ``c + by`` from those of the centred ``c``."""
        squared, trace, turned = by @ by, np.trace(of.scatter), of.scatter @ by
        return (
            of.cubic + trace * by + 2 * turned + of.weight * squared * by,
            of.quartic
            + 4 * (of.cubic @ by + by @ turned)
            + 2 * squared * trace
            + of.weight * squared**2,
        )

    def _scatter_diagonal(self):
        return self.scatter.diagonal()

    def covariance(self) -> np.ndarray:
        """Maximum-likelihood covariance, with exact zeros for constant columns."""
        covariance = self.scatter / self.weight
        constant = self.column_variances() == 0
        covariance[constant] = 0
        covariance[:, constant] = 0
        return covariance

    def ledoit_wolf(self) -> np.ndarray:
        """Covariance shrunk towards a multiple of the identity (Ledoit & Wolf 2004)."""
        covariance = self.covariance()
        seen, exponent = _in_units(covariance)
        d = len(covariance)
        quartic = float(np.ldexp(self.quartic, -2 * exponent))
        if seen.any() and not 0 < quartic < np.inf:
            raise ValueError(
                "Ledoit and Wolf's shrinkage takes fourth powers of the rows, and float64 holds "
                "none of these: bring X to other units, or use covariance='oas'."
            )
        norm = float(np.sum(seen**2))
        distance = (norm - np.trace(seen) ** 2 / d) / d
        noise = (quartic / self.weight - norm) / (d * self.weight)
        return shrunk(covariance, min(noise, distance) / distance if distance > 0 else 0.0)

    def oas(self) -> np.ndarray:
        """Covariance shrunk under normality (Chen et al. 2010, as amended by scikit-learn)."""
        covariance = self.covariance()
        return shrunk(covariance, oas_share(covariance, self.weight))


def gathered(X: np.ndarray, weights: np.ndarray, empty: _Moments) -> _Moments:
    """Moments of rows, of the kind of some that are empty and stay so."""
    return copy.deepcopy(empty).update(X.astype(np.float64, copy=False), weights)


def oas_share(covariance: np.ndarray, weight: float) -> float:
    """Share of a multiple of the identity that is best for normal rows (Chen et al. 2010)."""
    covariance, d = _in_units(covariance)[0], len(covariance)
    alpha, mu = float(np.mean(covariance**2)), np.trace(covariance) / d
    distance = (weight + 1) * (alpha - mu**2 / d)
    return min((alpha + mu**2) / distance, 1.0) if distance > 0 else 1.0


def _in_units(covariance):
    """A covariance whose squares are numbers, and the power of two that it was divided by."""
    exponent = int(np.frexp(np.trace(covariance))[1])
    return np.ldexp(covariance, -exponent), exponent


def shrunk(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """Covariance moved by a share towards a multiple of the identity."""
    d = len(covariance)
    target = np.trace(covariance) / d
    return (1 - shrinkage) * covariance + shrinkage * target * np.eye(d)


class DiagonalMoments(_Moments):
    """The diagonal of the scatter matrix."""

    def __init__(self, n_features: int):
        super().__init__(n_features)
        self.scatter = np.zeros(n_features)

    def _gather(self, centred, weights):
        self.scatter = (weights @ centred**2).astype(np.float64)

    def _merge(self, other, jump, factor):
        self.scatter = self.scatter + other.scatter + factor * jump**2

    def _scatter_diagonal(self):
        return self.scatter


class FactorMoments(DiagonalMoments):
    """The leading factor of the scatter matrix, and its exact diagonal.

    Parameters
    ----------
    n_features : int
    n_kept : int
        How many directions are kept between batches. What is dropped stays in the
        diagonal, hence in the total variance.
    seed : int
        Seed of the randomised SVD.
    """

    def __init__(self, n_features: int, n_kept: int, seed: int):
        super().__init__(n_features)
        self.n_kept = n_kept
        self.seed = seed
        self.factor = np.zeros((0, n_features))

    def _empty(self):
        return FactorMoments(len(self.mean), self.n_kept, self.seed)

    def _gather(self, centred, weights):
        super()._gather(centred, weights)
        # centred is this object's own copy: weight it in place, it may be large
        centred *= np.sqrt(weights)[:, None]
        self.factor = self._leading(centred.astype(np.float64, copy=False))

    def _merge(self, other, jump, factor):
        super()._merge(other, jump, factor)
        if len(self.factor):
            stacked = np.vstack([self.factor, other.factor, np.sqrt(factor) * jump])
            self.factor = self._leading(stacked)
        else:
            self.factor = other.factor

    def _leading(self, rows):
        return _leading_factor(rows, min(self.n_kept, *rows.shape), self.seed)

    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Leading variances and their axes, shapes ``(k,)`` and ``(d, k)``."""
        lengths = np.linalg.norm(self.factor, axis=1)
        nonzero = lengths > np.finfo(np.float64).eps * lengths.max(initial=0)
        return lengths[nonzero] ** 2 / self.weight, (
            self.factor[nonzero] / lengths[nonzero, None]
        ).T


def _leading_factor(rows, k, seed):
    """``diag(s) V'`` of the leading singular triples of ``rows``."""
    if min(rows.shape) <= max(2 * k, 500):
        _, s, vt = np.linalg.svd(rows, full_matrices=False)
        s, vt = s[:k], vt[:k]
    else:
        _, s, vt = randomized_svd(rows, k, n_oversamples=20, n_iter=6, random_state=seed)
    return s[:, None] * vt
