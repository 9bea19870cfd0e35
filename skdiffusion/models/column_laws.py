r"""Laws of single columns, each by itself: sharp where rows crowd.

.. math:: p_j(v) = \sum_{k=1}^K w_{jk} N(v; q_{jk}, h_{jk}^2), \qquad
          E_j[v_0 \mid v] = v + \sigma^2 \sum_k r_{jk}(v)\, \frac{q_{jk} - v}{h_{jk}^2 + \sigma^2},

with the responsibilities :math:`r_{jk}` of the kernels under noise. Points are seen along the
columns' axes, :math:`v = x A^\top`, orthonormal in the coordinates of the points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.utils.arrays import Parameters, is_torch, namespace
from skdiffusion.utils.blocks import by_blocks

__all__ = ["ColumnLaws"]

NUMBERS = 2**16, 2**26
"""Pairs of row and kernel at once: so many stay near a core; a GPU is busy from there on."""

FAR = 1e14
"""Distance that float32 can square, and divide by the variance of a kernel: none is farther."""


class ColumnLaws:
    """Denoisers of some columns, of each by its own law.

    Parameters
    ----------
    index : array of int, shape (m,)
        The columns.
    weights, centres, widths : array of shape (m, K)
        Of the kernels of each; a kernel of no weight fills up a column that has fewer.
    rotation : array of shape (d, d), optional
        From columns to the coordinates of the points, ``x = v @ rotation``.

    Examples
    --------
    >>> import numpy as np
    >>> coin = ColumnLaws([1], [[0.5, 0.5]], [[-1.0, 1.0]], [[0.01, 0.01]])
    >>> coin.denoise(np.array([[5.0, 0.3], [5.0, 0.0]]), np.array([[0.2], [1.0]])).round(3)
    array([[0.998],
           [0.   ]])
    """

    def __init__(self, index: Any, weights: Any, centres: Any, widths: Any, rotation: Any = None):
        self.index = np.asarray(index)
        self.rotation = rotation
        axes = None if rotation is None else np.asarray(rotation)[self.index]
        self._seen = Parameters(weights=weights, centres=centres, widths=widths, axes=axes)

    def __len__(self):
        return len(self.index)

    @property
    def weights(self) -> np.ndarray:
        """Weights of the kernels, ``(m, K)``."""
        return self._seen.weights

    @property
    def centres(self) -> np.ndarray:
        """Centres of the kernels, ``(m, K)``."""
        return self._seen.centres

    @property
    def widths(self) -> np.ndarray:
        """Standard deviations of the kernels, ``(m, K)``."""
        return self._seen.widths

    def among(self, kept: np.ndarray, rotation: Any = None) -> ColumnLaws:
        """Laws of some of these columns, without kernels that none of them has."""
        needed = self.weights[kept].any(axis=0)
        kernels = (part[kept][:, needed] for part in (self.weights, self.centres, self.widths))
        return ColumnLaws(self.index[kept], *kernels, rotation)

    def along(self, x: Any):
        """What points ``(n, d)`` are in the columns, ``(n, m)``."""
        axes = self._seen.like(x).axes
        return x[:, self.index] if axes is None else x @ axes.T

    def denoise(self, x: Any, sigma: Any):
        """The columns of points ``(n, d)``, each denoised by itself, at levels ``(n, 1)``."""
        on_gpu = is_torch(x) and x.device.type != "cpu"
        size = max(1, NUMBERS[on_gpu] // self.centres.size)
        return by_blocks(self._denoise, size, x, sigma)

    def _denoise(self, x, sigma):
        seen, xp = self._seen.like(x), namespace(x)
        v, levels = xp.clip(self.along(x), min=-FAR, max=FAR), sigma[:, :, None] ** 2
        variances = seen.widths**2 + levels
        steps = seen.centres - v[:, :, None]
        pulls = steps / variances
        heights = steps * pulls
        heights = heights - xp.min(heights, axis=-1, keepdims=True)
        shares = xp.exp(-0.5 * heights) * (seen.weights / xp.sqrt(variances))
        return v + levels[:, :, 0] * (shares * pulls).sum(-1) / shares.sum(-1)
