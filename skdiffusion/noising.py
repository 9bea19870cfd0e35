r"""Adding noise, and how much of it a data set asks for.

.. math:: x = x_0 + \sigma\,\varepsilon, \qquad \varepsilon \sim N(0, I).

The levels that matter are set by the data alone: the largest is twenty times the
root-mean-square distance :math:`\sqrt{\operatorname{tr} C}` of a row from the mean (there
the noised law is its Gaussian far field up to the third cumulant over
:math:`\sigma^3`), the smallest a five-hundredth of the narrowest column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.utils.arrays import LARGEST, SMALLEST, as_levels, as_points
from skdiffusion.utils.random import normal_like

__all__ = ["FAR", "NoiseRange", "check_spread", "noise_range", "perturb"]

FAR = 20.0
"""Widths of the data, in standard deviations, from which a noised law is its Gaussian far field."""


class NoiseRange(NamedTuple):
    """Typical scale of the data and the noise levels between which it is diffused."""

    scale: float
    sigma_min: float
    sigma_max: float


def noise_range(
    column_variances: Any,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    unit: float = 1.0,
) -> NoiseRange:
    """Scale and noise range of data from the variances of its columns.

    Parameters
    ----------
    column_variances : array-like of shape (d,)
        At least one must be positive; columns of zero variance do not count.
    sigma_min, sigma_max : float, optional
        What the user asked for instead.
    unit : float
        What level one is to the user, for the error.

    Returns
    -------
    NoiseRange
        ``scale`` is the root mean square of the columns' standard deviations.

    Raises
    ------
    ValueError
        If no variance is positive, the levels are not positive and ordered, or no number can hold
        their squares.

    Examples
    --------
    >>> noise_range([1.0, 1.0, 1.0, 1.0])
    NoiseRange(scale=1.0, sigma_min=0.002, sigma_max=40.0)
    """
    variances = np.asarray(column_variances, dtype=np.float64)
    if not (variances > 0).any():
        raise ValueError("a law without variance has no noise levels: all of it is one point.")
    narrowest = float(np.sqrt(variances[variances > 0].min()))
    low = 0.002 * narrowest if sigma_min is None else sigma_min
    high = FAR * float(np.sqrt(variances.sum())) if sigma_max is None else sigma_max
    if not 0 < low < high < np.inf:
        raise ValueError(
            f"sigma_min and sigma_max must satisfy 0 < sigma_min < sigma_max; "
            f"got {low * unit:.9g} and {high * unit:.9g}."
        )
    _check_squares(low, high)
    return NoiseRange(float(np.sqrt(variances.mean())), float(low), float(high))


def check_spread(spread: float) -> None:
    """Raise ``ValueError`` for a spread of rows whose noise levels float64 cannot square."""
    if spread:
        _check_squares(0.002 * spread, FAR * spread)


def _check_squares(low, high):
    if not SMALLEST < low < high < LARGEST:
        raise ValueError(
            f"noise levels run from {low:.3g} to {high:.3g}, but float64 holds the squares of "
            f"those between {SMALLEST:g} and {LARGEST:g}: bring X to other units."
        )


def perturb(x0: Any, sigma: Any, random_state: Any = None):
    """Points at a noise level: ``x0 + sigma * noise``.

    Parameters
    ----------
    x0 : array of shape (n, d)
    sigma : float or array of shape (n,)
    random_state : None, int, Generator or RandomState

    Returns
    -------
    x, noise : arrays of shape (n, d)
        Like ``x0``.
    """
    x0 = as_points(x0, np.shape(x0)[-1], "x0")
    noise = normal_like(x0, random_state)
    return x0 + as_levels(sigma, x0) * noise, noise
