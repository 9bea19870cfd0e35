r"""Linear interpolation on a grid of noise levels that is uniform in the logarithm.

What is known at the levels :math:`\sigma_1 < \dots < \sigma_L` is known between them by hats,

.. math:: h_l(\sigma) = \max\big(0, 1 - |u - l|\big), \qquad
          u = \frac{\log(\sigma/\sigma_1)}{\log(\sigma_2/\sigma_1)} \in [1, L],

which sum to one; beyond the grid its ends are held.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skdiffusion.utils.arrays import Parameters, functions, namespace

__all__ = ["LogGrid"]


class LogGrid:
    """Rising noise levels and the hats between them.

    Parameters
    ----------
    levels : array-like of shape (n_levels,)
        Rising noise levels, uniform in the logarithm; at least two.

    Raises
    ------
    ValueError
        If they are not.
    """

    def __init__(self, levels: Any):
        levels = np.asarray(levels, dtype=np.float64)
        if levels.ndim != 1 or len(levels) < 2 or levels[0] <= 0:
            raise ValueError("levels must hold at least two positive noise levels.")
        steps = np.diff(np.log(levels))
        if not (steps > 0).all() or np.ptp(steps) > 1e-6 * steps.mean():
            raise ValueError("levels must rise uniformly in the logarithm.")
        self.levels = levels
        self._first, self._step = math.log(levels[0]), float(steps.mean())
        self._seen = Parameters(index=np.arange(len(levels)))

    def hats(self, sigma: Any, x: Any):
        """Weights of the levels, like ``x``: ``(n_levels,)``, or ``(n, n_levels)`` per row."""
        index = self._seen.like(x).index
        last = len(self.levels) - 1
        position = (functions(sigma).log(sigma) - self._first) / self._step
        if isinstance(position, float):
            position = min(max(position, 0.0), float(last))
        else:
            position = namespace(position).clip(position, 0.0, float(last))
        xp = namespace(index)
        return xp.clip(1 - xp.abs(position - index), 0.0, 1.0)
