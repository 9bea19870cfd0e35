r"""The density of points at every noise level, from a score model that does not know it.

At a fixed point :math:`x` the heat equation says how the density moves with :math:`\ell = \log s`,

.. math:: \partial_\ell \log p_s(x) = \operatorname{tr} J + |\hat\varepsilon|^2 - d,
          \qquad J = \frac{\partial D}{\partial x}, \quad \hat\varepsilon = \frac{x - D}{s},

and along a path :math:`u = a x_0 + b\varepsilon`, where :math:`x = u/a` moves too,

.. math:: \partial_\ell \log p(u \mid \ell) = \operatorname{tr} J + |\hat\varepsilon|^2 - d
          + \frac{d\log a}{d\ell} \Big(\frac{\langle x, \hat\varepsilon\rangle}{s} - d\Big).

It is integrated downwards from a level at which the law is its Gaussian far field. One pass over
the levels serves all of them: no flow has to be followed from each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from sklearn.utils import gen_batches

from skdiffusion.geometry.noise_prior import path_coefficients
from skdiffusion.models import denoise_and_divergence
from skdiffusion.models.jacobian import hutchinson_probes
from skdiffusion.utils.memory import rows_in_memory

__all__ = ["LevelDensity", "level_slope", "seen_noise"]

SPACING = 0.125
"""Of the levels in their logarithm: of codimension k, cubic splines then err by 1e-5 k nats."""


def seen_noise(model: Any, x: np.ndarray, sigma: float, denoised: np.ndarray) -> np.ndarray:
    """What the model takes for noise, in units of its standard deviation."""
    return (x - denoised) / (sigma * np.asarray(model.noise_scale))


def level_slope(
    model: Any,
    x: np.ndarray,
    level: float,
    growth: float = 0.0,
    *,
    n_probes: int = 16,
    random_state: Any = 0,
) -> np.ndarray:
    r"""How the log-density of points on a path changes with the logarithm of the level.

    Parameters
    ----------
    model : BaseScoreModel
    x : ndarray of shape (n, d)
        Points divided by their signal coefficient.
    level : float
    growth : float
        Derivative of the logarithm of the signal coefficient.
    n_probes : int
        Of Hutchinson's trace; used above 128 columns where there is no closed form.
    random_state : None, int, Generator or RandomState
        Of the probes.

    Returns
    -------
    ndarray of shape (n,)
    """
    probes = hutchinson_probes(model, x, "auto", n_probes, random_state)
    denoised, trace = denoise_and_divergence(model, x, level, probes=probes)
    if trace.ndim == 2:
        trace = trace.mean(axis=1)
    d, noise = x.shape[1], seen_noise(model, x, level, denoised)
    slope = trace + (noise**2).sum(axis=1) - d
    return slope + growth * ((x * noise / (level * model.noise_scale)).sum(axis=1) - d)


class LevelDensity:
    """Log-densities of some points at all levels of a path, by integration over the level.

    Parameters
    ----------
    model : BaseScoreModel
    schedule : NoiseSchedule
    ends : tuple of float
        Logarithms of the lowest and the highest level; at the highest the law is its far field.
    far_field : GaussianModel
        What the law tends to at high levels.
    u : ndarray of shape (n, d)
        Points of the path.
    rescaled : bool
        Whether points are divided by their signal coefficient already.
    """

    def __init__(self, model, schedule, ends, far_field, u, rescaled):
        levels = np.linspace(*ends, int(np.ceil((ends[1] - ends[0]) / SPACING)) + 3)
        alpha, growth = np.ones_like(levels), np.zeros_like(levels)
        if not rescaled:
            alpha, sigma, (alpha_rate, sigma_rate) = path_coefficients(schedule, levels)
            growth = alpha_rate * sigma / (sigma_rate * alpha - alpha_rate * sigma)
        slopes = np.empty((len(levels), len(u)))
        for rows in gen_batches(len(u), rows_in_memory(64 * u.shape[1])):
            for k, log_level in enumerate(levels):
                x = u[rows] / alpha[k]
                slopes[k, rows] = level_slope(model, x, float(np.exp(log_level)), growth[k])
        top = far_field.log_prob(u / alpha[-1], float(np.exp(levels[-1])))
        top = top - u.shape[1] * np.log(alpha[-1])
        integral = CubicSpline(levels, slopes).antiderivative()
        self.levels, self.pieces = levels, integral.c
        self.offset = top - integral(levels[-1])

    def __call__(self, index: np.ndarray, log_levels: np.ndarray) -> np.ndarray:
        """Log-densities of the points at their levels, ``(len(index), m)``.

        Parameters
        ----------
        index : ndarray of int of shape (k,)
            Which points.
        log_levels : ndarray of shape (1, m) or (k, m)
        """
        at = np.clip(
            np.searchsorted(self.levels, log_levels, side="right") - 1, 0, len(self.levels) - 2
        )
        step = log_levels - self.levels[at]
        value, rows = 0.0, index[:, None]
        for coefficients in self.pieces:  # highest power first
            value = value * step + coefficients[at, rows]
        return value + self.offset[rows]
