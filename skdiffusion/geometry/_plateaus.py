r"""Scales at which the dimension does not depend on the scale.

A law with structure at several scales has several dimensions: a tube around a line has 1 from
afar and 2 or 3 from near. On the curve :math:`d(\sigma)` each shows as a plateau,

.. math::
    \Big| \frac{\partial d}{\partial \log\sigma} \Big| \le \tau \max(d, 1)
    \quad\text{over a factor of 2 in } \sigma,

and where there is none no single number answers the question. The value of a plateau is that at its
flattest level, where the scales before it and after it matter least.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["DimensionCurve", "Plateau", "find_plateaus"]

TOLERANCE = 0.15
"""Change per e-fold of the level, relative to the dimension, that still counts as none."""
SHORTEST = np.log(2.0)
"""Length of a plateau in the logarithm of the level."""


@dataclass(frozen=True)
class Plateau:
    """A range of noise levels at which the dimension stands still.

    Attributes
    ----------
    dimension : float
        At the flattest level.
    sigma : float
        That level.
    low, high : float
        The range.
    """

    dimension: float
    sigma: float
    low: float
    high: float

    def __str__(self):
        return f"{self.dimension:.2f} from sigma = {self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class DimensionCurve:
    """Dimension against noise level.

    Attributes
    ----------
    levels : ndarray of shape (n_levels,)
        Increasing.
    dimension : ndarray of shape (n_levels,)
        Mean over rows.
    std_error : ndarray of shape (n_levels,)
        Of that mean, from the spread of the rows.
    """

    levels: np.ndarray
    dimension: np.ndarray
    std_error: np.ndarray = field(repr=False)

    @classmethod
    def from_rows(cls, levels: Any, values: np.ndarray) -> DimensionCurve:
        """From the dimension of each row at each level, ``(n_levels, n)``."""
        spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
        return cls(
            np.asarray(levels, dtype=float),
            values.mean(axis=1),
            spread / np.sqrt(values.shape[1]),
        )


def find_plateaus(levels: Any, dimension: Any) -> list[Plateau]:
    """Plateaus of a curve, from low levels to high ones.

    Parameters
    ----------
    levels : array-like of shape (n_levels,)
        Increasing.
    dimension : array-like of shape (n_levels,)

    Returns
    -------
    list of Plateau
        Empty where there is none, or fewer than three levels.

    Examples
    --------
    >>> levels = np.geomspace(0.01, 10, 40)
    >>> tube = 1 + 1 / (1 + (levels / 0.3) ** 4)
    >>> [round(plateau.dimension) for plateau in find_plateaus(levels, tube)]
    [2, 1]
    """
    levels, d = np.asarray(levels, dtype=float), np.asarray(dimension, dtype=float)
    u = np.log(levels)
    if len(u) < 3:
        return []
    slope = np.abs(np.gradient(d, u)) / np.maximum(np.abs(d), 1)
    flat = np.flatnonzero(slope <= TOLERANCE)
    found = []
    for run in np.split(flat, np.flatnonzero(np.diff(flat) > 1) + 1):
        if len(run) and u[run[-1]] - u[run[0]] >= SHORTEST:
            # a plateau ends in a cliff: of equally flat levels the inner one is safer
            inner = np.minimum(run - run[0], run[-1] - run)
            best = run[np.lexsort((-inner, slope[run].round(3)))[0]]
            found.append(
                Plateau(float(d[best]), *(float(levels[j]) for j in (best, run[0], run[-1])))
            )
    return found
