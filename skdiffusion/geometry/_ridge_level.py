r"""At which level there is a ridge, and of which dimension.

Both are read off the ratios at the rows. The gap :math:`r_k - r_{k+1}` vanishes where the level is
too low (every row alone) and where nothing stands out. For the dimension, a direction whose ratio
is near 1 lies along, one whose ratio is near 0 across: the largest relative drop is between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["level_with_a_gap", "ridge_dimension"]

THIN = 0.05
"""Ratio below which a direction counts as having no variance."""
STEP, STEPS, HALVINGS = 1.5, 17, 4
"""Factor between levels that are tried, how often, and how often the last step is halved."""


def ridge_dimension(ratios: np.ndarray) -> int:
    """Position of the largest relative drop in the median spectrum.

    Parameters
    ----------
    ratios : ndarray of shape (n_rows, p)
        Leading ratios, ``p > 1``, descending.
    """
    # beyond 1 a direction is no more along the ridge, near 0 no more across
    steps = np.log(np.clip(np.median(ratios, axis=0), 0, 1) + THIN)
    return int(np.argmin(np.diff(steps))) + 1


def level_with_a_gap(is_defined: Callable[[float], bool], level: float) -> float | None:
    """The nearest level above one without a ridge, or else below, at which there is one.

    Parameters
    ----------
    is_defined : callable
        From a level to whether the ridge is defined there.
    level : float

    Returns
    -------
    float or None
        To 3 percent; ``None`` if there is none within a factor of a thousand.
    """
    for factor in (STEP, 1 / STEP):
        bad, good = level, level * factor
        for _ in range(STEPS):
            if is_defined(good):
                break
            bad, good = good, good * factor
        else:
            continue
        for _ in range(HALVINGS):
            middle = float(np.sqrt(bad * good))
            bad, good = (bad, middle) if is_defined(middle) else (middle, good)
        return good
    return None
