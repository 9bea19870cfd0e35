r"""The components of a mixture by their matrices: half the arithmetic, where rounding allows.

With :math:`P_k = (C_k + \sigma^2)^{-1}` made once for a level, one product of many rows with all
:math:`P_k`, and with :math:`P_k m_k` beside them, gives

.. math:: y_k = P_k (x - m_k), \qquad
          (x-m_k)^\top P_k (x-m_k) = x^\top y_k - m_k^\top y_k ,

and a weighted sum over components, less the score, reads the :math:`y_k` in a cache; the denoiser
follows by Tweedie's formula. Axes need a second product
to come back from. The differences lose digits in the ratio of the largest to the smallest width of
a component, and in that of the noise to the data, so axes remain for what is narrow and for the
highest levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skdiffusion.utils.arrays import Parameters, is_torch, namespace

__all__ = ["ComponentMatrices", "Precision", "Shrinkage", "Vectors", "with_ones"]

LOST = 0.25
"""Share of the digits that the differences may lose."""
ROWS = 2
"""Rows per column from which on it pays to make matrices for a level."""


@dataclass(frozen=True)
class Precision:
    """One over variance and noise; equal levels make equal functions, which can be keys."""

    level: Any

    def __call__(self, variance):  # noqa: D102
        return 1 / (variance + self.level)


@dataclass(frozen=True)
class Shrinkage:
    """The share of the variance in variance and noise; a key like :class:`Precision`."""

    level: Any

    def __call__(self, variance):  # noqa: D102
        return variance / (variance + self.level)


class Vectors(NamedTuple):
    """Where rows lie, by the vectors :math:`y_k` of shape ``(n, k, d)``."""

    vectors: Any


class ComponentMatrices:
    """Rows against the matrices of all components.

    Parameters
    ----------
    centres : ndarray of shape (k, d)
    variances : ndarray
        All that components have, along axes and off them.
    """

    def __init__(self, centres: np.ndarray, variances: np.ndarray):
        self._seen = Parameters(centres=centres)
        self._smallest, self._largest = float(variances.min()), float(variances.max())
        self._farthest = float((centres**2).sum(axis=1).max())

    def serve(self, x: Any, level: Any) -> bool:
        """Whether rows are many enough for matrices, and these lose few digits."""
        if not isinstance(level, float) or x.shape[0] < ROWS * x.shape[1]:
            return False
        ratio = float(namespace(x).finfo(x.dtype).eps) ** -LOST
        reach = self._largest + self._farthest + level
        return reach <= ratio * (self._smallest + level) and level <= ratio * self._largest

    def side_by_side(self, precisions: Any):
        """The matrix of shape ``(d + 1, k d + k)`` that rows and a one are multiplied with.

        Parameters
        ----------
        precisions : array of shape (k, d, d)
        """
        xp = namespace(precisions)
        centres = self._seen.like(precisions).centres
        k, d = centres.shape
        pulls = xp.matmul(precisions, centres[:, :, None])[:, :, 0]
        above = [xp.reshape(xp.permute_dims(precisions, (1, 0, 2)), (d, k * d)), pulls.T]
        below = [-xp.reshape(pulls, (1, k * d)), -xp.sum(centres * pulls, axis=1)[None]]
        return xp.concat([xp.concat(above, axis=1), xp.concat(below, axis=1)], axis=0)

    def locate(self, x: Any, matrices: Any) -> tuple[Vectors, Any]:
        """Where rows lie, and the quadratic forms of their components."""
        xp, (k, d) = namespace(x), self._seen.centres.shape
        product = with_ones(x) @ matrices
        vectors = xp.reshape(product[:, : k * d], (x.shape[0], k, d))
        quadratic = xp.matmul(vectors, x[:, :, None])[:, :, 0] - product[:, k * d :]
        return Vectors(vectors), quadratic

    def pull(self, where: Vectors, weights: Any) -> Any:
        """Weighted sum over components of the :math:`y_k`, shape ``(n, d)``.

        Parameters
        ----------
        where : Vectors
        weights : array of shape (n, k)
        """
        return namespace(weights).matmul(weights[:, None, :], where.vectors)[:, 0, :]


def with_ones(x: Any):
    """Rows with a one behind them, for products that include an offset."""
    if is_torch(x):
        return namespace(x).concat([x, namespace(x).ones_like(x[:, :1])], axis=1)
    result = np.empty((x.shape[0], x.shape[1] + 1), dtype=x.dtype)
    result[:, :-1] = x
    result[:, -1] = 1
    return result
