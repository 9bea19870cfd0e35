r"""What EM needs to know of each form of covariance, and nothing else does.

A form gathers, for responsibilities :math:`\gamma_{ik}` already multiplied by the weights of
the rows,

.. math::
    N_k = \sum_i \gamma_{ik}, \qquad F_k = \sum_i \gamma_{ik} (x_i - \mu_k), \qquad
    S_k = \sum_i \gamma_{ik} (x_i - \mu_k)(x_i - \mu_k)^\top

about the *old* means, so that no digits cancel, and maximises from them: with
:math:`\delta_k = F_k / N_k` and :math:`\bar S_k = S_k - N_k \delta_k \delta_k^\top`,

.. math:: \mu_k \leftarrow \mu_k + \delta_k, \qquad
          C_k \leftarrow \frac{\bar S_k + \nu\, T_k^{1/2} P T_k^{1/2}}{N_k + \nu} + \rho I,

restricted to its form: :math:`\nu` pseudo-rows pull a component towards the common shape
:math:`P` at its own scales :math:`T_k` (:mod:`skdiffusion.estimators._pull`); :math:`\rho` is a
share of the data's variance. Data come standardised, so that both are free of units.

Given the targets :math:`Q_k = T_k^{1/2} P T_k^{1/2}`, this maximises the expected log-likelihood
less :math:`\nu \sum_k \mathrm{KL}(N(0, Q_k) \,\|\, N(0, C_k))`, a conjugate prior, when
:math:`\rho = 0`. The targets maximise a likelihood of their own: EM ends in a point where neither
moves, and its log-likelihood need not rise at every step unless :math:`\nu = \rho = 0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skdiffusion.estimators._mixture_experts import (
    DiagonalExpert,
    TiedExpert,
    TriangularExpert,
)
from skdiffusion.estimators._pull import pulled_covariances
from skdiffusion.models import SpectralCovariance

__all__ = [
    "DiagonalForm",
    "FullForm",
    "Mixture",
    "SphericalForm",
    "Statistics",
    "TiedForm",
    "weighted_rows",
]

DENSE = 0.5
"""Share of rows that matter from which all rows are taken."""


@dataclass
class Mixture:
    """Weights, means and the form's own covariances, in standardised columns."""

    weights: np.ndarray
    means: np.ndarray
    spread: Any

    def but_last(self) -> Mixture:
        """All components but the last, with their weights as they are."""
        return Mixture(self.weights[:-1], self.means[:-1], _each(lambda a: a[:-1], self.spread))

    def and_last(self, other: Mixture, weights: np.ndarray) -> Mixture:
        """These components and those of another mixture, with new weights."""
        means = np.concatenate([self.means, other.means])
        spread = _each(lambda *parts: np.concatenate(parts), self.spread, other.spread)
        return Mixture(weights, means, spread)


@dataclass
class Statistics:
    """Zeroth, first and second moments of the components about ``centres``."""

    count: np.ndarray
    first: np.ndarray
    second: np.ndarray
    centres: np.ndarray

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of both, about the same centres."""
        return Statistics(
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
            self.centres,
        )

    def but_last(self) -> Statistics:
        """The statistics of all components but the last."""
        return Statistics(self.count[:-1], self.first[:-1], self.second[:-1], self.centres[:-1])

    def scaled(self, factor: float) -> Statistics:
        """The statistics of this many times the rows."""
        return Statistics(
            factor * self.count, factor * self.first, factor * self.second, self.centres
        )

    def towards(self, other: Statistics, step: float) -> Statistics:
        """A mean of two statistics about the same centres."""
        return Statistics(
            (1 - step) * self.count + step * other.count,
            (1 - step) * self.first + step * other.first,
            (1 - step) * self.second + step * other.second,
            self.centres,
        )

    def shift(self) -> np.ndarray:
        """Means of the components less ``centres``; zero where nothing was seen."""
        seen = self.count > 0
        return np.where(seen[:, None], self.first / np.where(seen, self.count, 1)[:, None], 0.0)


class FullForm:
    r"""One matrix per component; the other forms say what they do otherwise.

    Parameters
    ----------
    floor : float
        Additive variance :math:`\rho` in standardised columns.
    pull : float
        Pseudo-rows :math:`\nu` of the pooled shape in every component.
    rank : int
        Number of axes, for the low-rank form.

    Attributes
    ----------
    background : Mixture or None
        A last component that stays as it is, but for its weight
        (:mod:`skdiffusion.estimators._background`).
    """

    whitens_columns = True
    """Whether fitting commutes with a scaling of each column."""

    def __init__(self, floor: float = 0.0, pull: float = 0.0, rank: int = 0):
        self.floor, self.pull, self.rank = floor, pull, rank
        self.background: Mixture | None = None

    def enough(self, d: int) -> int:
        """How many rows determine mean and covariance of a component."""
        return d + 1

    def nothing(self, mixture) -> Statistics:
        """Empty statistics about the mixture's means."""
        k, d = mixture.means.shape
        return Statistics(np.zeros(k), np.zeros((k, d)), self._no_second(k, d), mixture.means)

    def maximise(self, statistics: Statistics, old: Mixture | None = None) -> Mixture:
        """The parameters that the statistics ask for."""
        if self.background is None:
            return self._maximised(statistics, old)
        found = self._maximised(statistics.but_last(), old and old.but_last())
        pseudo_row = np.zeros(len(statistics.count))
        pseudo_row[-1] = 1
        weights = (statistics.count + pseudo_row) / (statistics.count.sum() + 1)
        return found.and_last(self.background, weights)

    def _maximised(self, statistics, old):
        shift = statistics.shift()
        return Mixture(
            statistics.count / statistics.count.sum(),
            statistics.centres + shift,
            self._spread(statistics, shift, old),
        )

    def at(self, centres, X, weights) -> Mixture:
        """A mixture at these centres, to gather first statistics about."""
        k = len(centres)
        mixture = Mixture(
            np.full(k, 1 / k), np.array(centres), self._first_spread(centres, X, weights)
        )
        if self.background is None:
            return mixture
        return mixture.and_last(self.background, np.full(k + 1, 1 / (k + 1)))

    def _first_spread(self, centres, X, weights):
        """What statistics of the first assignment need of covariances: nothing."""
        return None

    def recentred(self, statistics: Statistics, centres) -> Statistics:
        """The same statistics about other centres."""
        step = centres - statistics.centres
        moved = statistics.first - statistics.count[:, None] * step
        second = statistics.second + self._moved(step, statistics.first, statistics.count)
        return Statistics(statistics.count, moved, second, centres)

    def _moved(self, step, first, count):
        cross = step[:, :, None] * first[:, None, :]
        outer = count[:, None, None] * step[:, :, None] * step[:, None, :]
        return outer - cross - cross.transpose(0, 2, 1)

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of a mixture of ``k`` components."""
        return k * d + k - 1 + self._n_spread(k, d)

    def expert(self, mixture, dtype):
        """What computes the components' log-densities."""
        return TriangularExpert(mixture.means, mixture.spread, dtype)

    def add(self, statistics, X, gamma, mixture):
        """Take in rows with their responsibilities."""
        for k, scaled in weighted_rows(statistics, X, gamma):
            statistics.second[k] += scaled.T @ scaled

    def add_scatter(self, statistics, k, scatter, mixture):
        """Take in a scatter matrix of one component (first moments are the caller's)."""
        statistics.second[k] += scatter

    def matrices(self, mixture) -> np.ndarray:
        """Covariances as matrices, shape ``(k, d, d)``."""
        return mixture.spread

    def from_matrices(self, matrices, weights):
        """The form's own covariances nearest to matrices."""
        return np.array(matrices)

    def covariances(self, mixture, scale) -> list[SpectralCovariance]:
        """Covariances in the units of the data, whose columns were divided by ``scale``."""
        return [SpectralCovariance.from_matrix(m * np.outer(scale, scale)) for m in mixture.spread]

    def from_covariances(self, covariances, weights, scale):
        """Inverse of :meth:`covariances`, or the nearest of this form."""
        units = np.outer(scale, scale)
        return self.from_matrices(np.stack([c.to_matrix() / units for c in covariances]), weights)

    def _no_second(self, k, d):
        return np.zeros((k, d, d))

    def _spread(self, statistics, shift, old):
        outer = shift[:, :, None] * shift[:, None, :]
        scatter = statistics.second - statistics.count[:, None, None] * outer
        d = shift.shape[1]
        return self._pulled(scatter, statistics.count, d) + self.floor * np.eye(d)

    def _pulled(self, scatter, count, d):
        """Covariances from scatters."""
        return pulled_covariances(scatter, count, self.pull, self.enough(d))

    def _n_spread(self, k, d):
        return k * d * (d + 1) // 2


class TiedForm(FullForm):
    """One matrix for all components."""

    def expert(self, mixture, dtype):
        return TiedExpert(mixture.means, mixture.spread)

    def add(self, statistics, X, gamma, mixture):
        X = np.asarray(X, dtype=np.float64)
        count, first, centres = gamma.sum(axis=0), gamma.T @ X, statistics.centres
        cross = first.T @ centres
        rows = X * np.sqrt(gamma.sum(axis=1))[:, None]
        whole = rows.T @ rows - cross - cross.T + (centres * count[:, None]).T @ centres
        statistics.second += whole
        statistics.count += count
        statistics.first += first - count[:, None] * centres

    def add_scatter(self, statistics, k, scatter, mixture):
        statistics.second += scatter

    def _moved(self, step, first, count):
        return super()._moved(step, first, count).sum(axis=0)

    def matrices(self, mixture):
        return np.broadcast_to(mixture.spread, (len(mixture.weights), *mixture.spread.shape))

    def from_matrices(self, matrices, weights):
        return np.einsum("k,kij->ij", weights, matrices)

    def covariances(self, mixture, scale):
        matrix = mixture.spread * np.outer(scale, scale)
        return [SpectralCovariance.from_matrix(matrix)] * len(mixture.weights)

    def _no_second(self, k, d):
        return np.zeros((d, d))

    def _spread(self, statistics, shift, old):
        count = statistics.count
        scatter = statistics.second - (shift * count[:, None]).T @ shift
        return scatter / count.sum() + self.floor * np.eye(shift.shape[1])

    def _n_spread(self, k, d):
        return d * (d + 1) // 2


class DiagonalForm(FullForm):
    """One diagonal per component."""

    def enough(self, d):
        return 2

    def expert(self, mixture, dtype):
        return DiagonalExpert(mixture.means, mixture.spread)

    def add(self, statistics, X, gamma, mixture):
        X = np.asarray(X, dtype=np.float64)
        count, first, centres = gamma.sum(axis=0), gamma.T @ X, statistics.centres
        second = gamma.T @ (X * X) - 2 * first * centres + count[:, None] * centres**2
        statistics.second += self._reduced(np.maximum(second, 0))
        statistics.count += count
        statistics.first += first - count[:, None] * centres

    def add_scatter(self, statistics, k, scatter, mixture):
        statistics.second[k] += self._reduced(scatter.diagonal())

    def matrices(self, mixture):
        k, d = mixture.means.shape
        return np.reshape(mixture.spread, (k, -1, 1)) * np.eye(d)

    def from_matrices(self, matrices, weights):
        return self._reduced(np.diagonal(matrices, axis1=1, axis2=2))

    def covariances(self, mixture, scale):
        variances = np.reshape(mixture.spread, (len(mixture.weights), -1)) * scale**2
        return [SpectralCovariance(v) for v in variances]

    def from_covariances(self, covariances, weights, scale):
        if any(c.axes is not None for c in covariances):
            return super().from_covariances(covariances, weights, scale)
        return self._reduced(np.stack([c.variances for c in covariances]) / scale**2)

    def _moved(self, step, first, count):
        return self._reduced(count[:, None] * step**2 - 2 * step * first)

    def _reduced(self, diagonals):
        return diagonals

    def _no_second(self, k, d):
        return np.zeros((k, d))

    def _spread(self, statistics, shift, old):
        squares = self._reduced(shift**2)
        count = np.reshape(statistics.count, (-1,) + (1,) * (squares.ndim - 1))
        scatter = np.maximum(statistics.second - count * squares, 0)
        return self._pulled(scatter, statistics.count, shift.shape[1]) + self.floor

    def _n_spread(self, k, d):
        return k * d


class SphericalForm(DiagonalForm):
    """One variance per component."""

    whitens_columns = False

    def expert(self, mixture, dtype):
        variances = np.broadcast_to(mixture.spread[:, None], mixture.means.shape)
        return DiagonalExpert(mixture.means, variances)

    def _reduced(self, diagonals):
        return diagonals.mean(axis=-1)

    def _no_second(self, k, d):
        return np.zeros(k)

    def _n_spread(self, k, d):
        return k


def _each(function, spread, *others):
    """A function of the arrays that make up covariances, of one or more mixtures."""
    if spread is None:
        return None
    if isinstance(spread, tuple):
        return tuple(function(*parts) for parts in zip(spread, *others, strict=True))
    return function(spread, *others)


def weighted_rows(statistics, X, gamma):
    """Per component, the rows that matter: centred, times the roots of their weights.

    Counts and first moments are added on the way.
    """
    centres = statistics.centres.astype(X.dtype, copy=False)
    buffer = None
    for k in range(gamma.shape[1]):
        rows = np.flatnonzero(gamma[:, k])
        if not len(rows):
            continue
        weights = gamma[:, k]
        if len(rows) > DENSE * len(X):  # gathering would cost more than it saves
            buffer = np.empty(X.shape, X.dtype) if buffer is None else buffer
            centred = np.subtract(X, centres[k], out=buffer)
        else:
            weights, centred = weights[rows], X[rows]
            centred -= centres[k]
        statistics.count[k] += weights.sum()
        statistics.first[k] += weights.astype(X.dtype, copy=False) @ centred
        centred *= np.sqrt(weights).astype(X.dtype, copy=False)[:, None]
        yield k, centred
