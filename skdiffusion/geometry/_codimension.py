r"""Codimension from how well the noise level of a row is known.

Near a flat law of codimension :math:`k`, at distance :math:`r`, and with a prior over levels like
:math:`s^q`, the posterior of the level :math:`s` of a row is such that :math:`r/s` has the law
:math:`\chi_K`, :math:`K = k - q - 1`, whatever the distance. The logarithm of the level then
has the variance

.. math:: \operatorname{Var} \log s = \tfrac14\, \psi'(K/2) \approx \frac{1}{2K} .

On levels alone, without prior (:math:`q = -1`), :math:`K` is the codimension itself, and what is
left of the columns is the dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import polygamma

from skdiffusion.geometry._level_density import level_slope
from skdiffusion.utils.random import normal_by_row

__all__ = ["degrees_of_freedom", "noise_posterior"]

REACH = 8.0
"""How far levels are followed on either side, in their logarithm."""
N_LEVELS = 64
"""Levels, most of them where the posterior of all columns would lie."""
STEEP = 100.0
"""Slope, beside four per column, from which a log-density is not followed more exactly."""


def degrees_of_freedom(variance: float) -> float:
    r"""The ``K`` of a variance of the logarithm of the level, :math:`\psi'(K/2)/4`.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(degrees_of_freedom(np.pi**2 / 24)), 9)  # psi'(1) = pi^2 / 6
    2.0
    """
    low, high = 1e-6, 1e12
    target = 4 * variance
    if not polygamma(1, high) < target < polygamma(1, low):
        return 0.0 if target > 1 else np.inf
    return 2 * np.exp(
        brentq(lambda log: np.log(polygamma(1, np.exp(log)) / target), np.log(low), np.log(high))
    )


def noise_posterior(
    model: Any, x: np.ndarray, sigma: float, *, n_noise: int = 2, random_state: Any = 0
):
    r"""Columns less the codimension that the posterior of the noise level of each row tells.

    Parameters
    ----------
    model : BaseScoreModel
    x : ndarray of shape (n, m)
        Clean rows.
    sigma : float
        Level of the noise that they are given, and that has to be found.
    n_noise : int
        Noised copies of each row, whose variances are averaged.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    ndarray of shape (n,)

    References
    ----------
    M. Sahraee-Ardakan, M. Delbracio and P. Milanfar, "The Geometry of Noise: Why Diffusion
    Models Don't Need Noise Conditioning", 2026, lemma 6 and proposition 1.

    Examples
    --------
    >>> from skdiffusion.models import GaussianModel
    >>> plane = GaussianModel(np.zeros(5), np.diag([1.0, 1.0, 0.0, 0.0, 0.0]))
    >>> noise_posterior(plane, np.zeros((1, 5)), 1e-3).round(3)
    array([2.])
    """
    m = x.shape[1]
    scale = sigma * np.asarray(model.noise_scale)
    copies = np.concatenate([x + scale * draw for draw in normal_by_row(x, n_noise, random_state)])
    # offset = unit sinh(place): even places, close levels where all columns are noise
    unit = 0.5 / np.sqrt(2 * m)
    places = np.linspace(-1, 1, N_LEVELS) * np.arcsinh(REACH / unit)
    low, high = np.log(np.maximum(model.sigma_range, 1e-300)) - np.log(sigma)
    offsets = unit * np.sinh(places)
    inside = (offsets >= low) & (offsets <= high)
    places, offsets = places[inside], offsets[inside]
    stretch = unit * np.cosh(places)[:, None]
    slopes = np.stack([level_slope(model, copies, sigma * np.exp(step)) for step in offsets])
    # at levels far below that of the noise the slope is enormous, and splines overshoot: where it
    # is as steep as this, the density is less than exp(-40) of its peak
    slopes = np.minimum(slopes, STEEP + 4 * m)
    log_density = CubicSpline(places, slopes * stretch).antiderivative()(places)
    weights = np.exp(log_density - log_density.max(axis=0)) * stretch
    weights /= weights.sum(axis=0)
    mean = offsets @ weights
    variance = (weights * (offsets[:, None] - mean) ** 2).sum(axis=0)
    variance = variance.reshape(n_noise, len(x)).mean(axis=0)
    return m - np.minimum([degrees_of_freedom(v) for v in variance], m)
