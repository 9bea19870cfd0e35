r"""Least squares in random features, for rows with infinitely many draws of noise.

At level :math:`\sigma` the target of the features is :math:`F = k_0 z_0 + k_1 \varepsilon`, what is
left of :math:`z_0` beyond the skip connection, and the loss is, with weights of rows inside ``E``,

.. math:: L(A) = E|A\phi - F|^2 = \operatorname{tr}(A U A^\top) - 2\operatorname{tr}(A V^\top) + T,
          \qquad U = E\phi\phi^\top,\quad V = E F\phi^\top,\quad T = E|F|^2 .

All three are sums over rows of closed forms (:mod:`skdiffusion.models._feature_maps`). Gradient
flow :math:`\dot A = -\nabla (L + \alpha |A|^2)` has, from one :math:`U = Q \Lambda Q^\top`, at
every time the solution

.. math:: A(\tau) = \Big[ A_0 Q\, e^{-2\tau(\Lambda+\alpha)}
          + V Q\, \frac{1 - e^{-2\tau(\Lambda+\alpha)}}{\Lambda+\alpha} \Big] Q^\top ,

the ridge solution at infinite time; without :math:`\alpha` directions that no feature vector has
stay where they began. A model with one ``A`` for all levels has the sums over levels.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.models.random_features import RandomFeatures

__all__ = ["NormalEquations", "Spectrum"]

NULL = 1e-10
"""Share of the largest eigenvalue up to which one counts as zero: the rounding of a moment,
1e-16, can change the loss by its ratio to the eigenvalue."""


class NormalEquations(NamedTuple):
    """Sums over rows, one entry per matrix ``A``; divided by ``total`` they are expectations."""

    total: float
    gram: np.ndarray  # (n_groups, p, p)
    cross: np.ndarray  # (n_groups, d, p)
    second: np.ndarray  # (n_groups,)

    @classmethod
    def of(
        cls,
        features: RandomFeatures,
        rows: np.ndarray,
        weights: np.ndarray,
        levels: np.ndarray,
        loss_weights: np.ndarray,
        joint: bool,
    ) -> NormalEquations:
        """Of rows ``(n, d)`` at all levels, each with its weight in the loss."""
        parts = (
            [weight * part[None] for part in _at_level(features, rows, weights, level)]
            for level, weight in zip(levels.tolist(), loss_weights, strict=True)
        )
        if joint:
            summed = functools.reduce(
                lambda a, b: [x + y for x, y in zip(a, b, strict=True)], parts
            )
            summed = [values / len(levels) for values in summed]
        else:
            summed = [np.concatenate(values) for values in zip(*parts, strict=True)]
        return cls(float(weights.sum()), *summed)

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(*(a + b for a, b in zip(self, other, strict=True)))

    def loss(self, coefficients: np.ndarray) -> float:
        """Mean loss of matrices ``(n_groups, d, p)``."""
        fitted = np.einsum("gdp,gpq,gdq->g", coefficients, self.gram, coefficients, optimize=True)
        crossed = np.einsum("gdp,gdp->g", coefficients, self.cross)
        return float(np.mean(fitted - 2 * crossed + self.second)) / self.total

    def spectrum(self) -> Spectrum:
        """Eigenvalues and axes of every Gram matrix."""
        values, axes = np.linalg.eigh(self.gram / self.total)
        values = np.where(values > NULL * values[:, -1:], values, 0.0)
        cross = np.einsum("gdp,gpq->gdq", self.cross / self.total, axes)
        return Spectrum(values, axes, np.where(values[:, None] > 0, cross, 0.0))


class Spectrum(NamedTuple):
    """One eigendecomposition per matrix ``A``: every training time and every penalty."""

    values: np.ndarray  # (n_groups, p), rising
    axes: np.ndarray  # (n_groups, p, p)
    cross: np.ndarray  # (n_groups, d, p)

    def coefficients(self, time: float, alpha: float, start: np.ndarray) -> np.ndarray:
        """Matrices ``A`` after a time of training, shape (n_groups, d, p)."""
        rate = (self.values + alpha)[:, None]
        decay = 2 * np.where(rate > 0, time, 0.0) * rate  # zero times infinity is zero
        gain = -np.expm1(-decay) / np.where(rate > 0, rate, 1.0)
        turned = np.matmul(start, self.axes) * np.exp(-decay) + self.cross * gain
        return np.matmul(turned, self.axes.transpose(0, 2, 1))

    def equations(self, total: float, second: np.ndarray) -> NormalEquations:
        """The normal equations again, of rows of this total weight."""
        back = self.axes.transpose(0, 2, 1)
        gram = np.matmul(self.axes * self.values[:, None], back)
        return NormalEquations(total, total * gram, total * np.matmul(self.cross, back), second)


def targets(features: RandomFeatures, level: float):
    """Coefficients ``k_0``, ``k_1`` of clean row and noise in what the features predict."""
    around = features.coefficients(level, np.empty((1, features.n_features)))
    return (1 - around.skip[0]) / around.out[0], -around.skip[0] * level / around.out[0]


def _at_level(features, rows, weights, level):
    """Sums over rows of Gram matrix, cross moments and squared targets at one level."""
    clean, noise = targets(features, level)
    scale = features.amplitude
    inward = features.coefficients(level, rows[:1]).input[0]
    lines = level * inward * features.theta.frequencies  # how noise moves the angles
    covariance = lines @ lines.T
    spread = np.sqrt(covariance.diagonal())
    gram, cross = 0.0, 0.0
    for chunk in gen_batches(len(rows), features.rows_at_once()):
        part, its = rows[chunk], weights[chunk]
        angles = features.angles(part, level)
        values, slopes = features.map.means(angles, spread)
        gram = gram + features.map.gram(angles, covariance, its)
        cross = cross + clean[:, None] * ((its[:, None] * part).T @ values)
        cross = cross + noise[:, None] * (lines.T * (its @ slopes))
    second = np.sum(clean**2 * (weights @ rows**2) + noise**2 * weights.sum())
    return scale**2 * gram, scale * cross, np.asarray(second)
