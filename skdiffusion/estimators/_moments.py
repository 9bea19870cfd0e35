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

import numpy as np
from sklearn.utils.extmath import randomized_svd

__all__ = ["DiagonalMoments", "FactorMoments", "FullMoments", "oas_share", "shrunk"]

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

    def update(self, X: np.ndarray, weights: np.ndarray) -> None:
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
        merged = self.weight + total
        jump = mean - self.mean if self.weight else np.zeros_like(mean)
        self._merge(X - mean, weights, jump, self.weight * total / merged)
        moved = mean if not self.weight else self.mean + jump * (total / merged)
        self.mean = moved.astype(np.float64)
        self.magnitude = np.maximum(self.magnitude, np.abs(self.mean))
        self.weight = merged
        self.n_rows += len(X)

    def _merge(self, centred, weights, jump, factor):
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

    def _merge(self, centred, weights, jump, factor):
        rows = centred * np.sqrt(weights)[:, None]
        scatter = rows.T @ rows
        squared = np.einsum("ij,ij->i", centred, centred)
        cubic, quartic = (weights * squared) @ centred, weights @ squared**2
        total = float(weights.sum())
        share = total / (self.weight + total)
        old = self._shifted(self.scatter, self.cubic, self.quartic, self.weight, -share * jump)
        new = self._shifted(scatter, cubic, quartic, total, (1 - share) * jump)
        self.cubic, self.quartic = (old[0] + new[0]).astype(np.float64), float(old[1] + new[1])
        scatter = self.scatter + scatter + factor * np.outer(jump, jump)
        self.scatter = scatter.astype(np.float64)

    @staticmethod
    def _shifted(scatter, cubic, quartic, weight, by):
        """Third and fourth moments of ``c + by`` from those of the centred ``c``."""
        squared, trace, turned = by @ by, np.trace(scatter), scatter @ by
        return (
            cubic + trace * by + 2 * turned + weight * squared * by,
            quartic + 4 * (cubic @ by + by @ turned) + 2 * squared * trace + weight * squared**2,
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
        d = len(covariance)
        norm = float(np.sum(covariance**2))
        distance = (norm - np.trace(covariance) ** 2 / d) / d
        noise = (self.quartic / self.weight - norm) / (d * self.weight)
        return shrunk(covariance, min(noise, distance) / distance if distance > 0 else 0.0)

    def oas(self) -> np.ndarray:
        """Covariance shrunk under normality (Chen et al. 2010, as amended by scikit-learn)."""
        covariance = self.covariance()
        return shrunk(covariance, oas_share(covariance, self.weight))


def oas_share(covariance: np.ndarray, weight: float) -> float:
    """Share of a multiple of the identity that is best for normal rows (Chen et al. 2010)."""
    d = len(covariance)
    alpha, mu = float(np.mean(covariance**2)), np.trace(covariance) / d
    distance = (weight + 1) * (alpha - mu**2 / d)
    return min((alpha + mu**2) / distance, 1.0) if distance > 0 else 1.0


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

    def _merge(self, centred, weights, jump, factor):
        scatter = self.scatter + weights @ centred**2 + factor * jump**2
        self.scatter = scatter.astype(np.float64)

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

    def _merge(self, centred, weights, jump, factor):
        super()._merge(centred, weights, jump, factor)
        # centred is this object's own copy: weight it in place, it may be large
        centred *= np.sqrt(weights)[:, None]
        rows = centred.astype(np.float64, copy=False)
        if len(self.factor):
            rows = np.vstack([self.factor, rows, np.sqrt(factor) * jump]).astype(np.float64)
        self.factor = _leading_factor(rows, min(self.n_kept, *rows.shape), self.seed)

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
