r"""At which level there is a ridge, and of which dimension.

Both are read off the ratios at the rows. The gap :math:`r_k - r_{k+1}` vanishes where the level is
too low (every row alone) and where nothing stands out. For the dimension, a direction whose ratio
is near 1 lies along, one whose ratio is near 0 across: the largest relative drop is between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skdiffusion.geometry._ridge import Ridge

__all__ = ["defined_level", "level_with_a_gap", "ridge_dimension"]

REFUSED, ACCEPTED = 0.5, 0.1
"""Share of rows without a gap at which a level is refused, and of a level that would do."""
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


def defined_level(ridge: Ridge, rows: np.ndarray, by_rule: bool) -> Ridge:
    """The ridge at its level, or where a rule chose one without a gap at one that has a gap.

    Raises
    ------
    ValueError
        If the ridge is undefined at most of the rows; it says which level would do.
    """
    lost = ridge.share_without_gap(rows)
    if lost <= (ACCEPTED if by_rule else REFUSED):
        return ridge
    few = rows[::4]
    level = level_with_a_gap(
        lambda level: ridge.at(level).share_without_gap(few) <= ACCEPTED, ridge.level
    )
    if level is None:
        raise ValueError(
            f"the {ridge.k}-dimensional ridge is undefined at {lost:.0%} of the rows, and at any "
            "other level too: the spectrum is flat, no direction stands out; another "
            "n_components may do."
        )
    if not by_rule:
        unit = ridge.space.unit
        raise ValueError(
            f"at level {ridge.level / unit:.3g} the {ridge.k}-dimensional ridge is numerically "
            f"undefined at {lost:.0%} of the rows: the variances on both sides of its tangent "
            f"space are equal to within gap_tol={ridge.gap_tol:g}; level {level / unit:.3g} "
            "would do."
        )
    return ridge.at(level)
