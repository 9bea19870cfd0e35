r"""How many dimensions a score model sees around a row, at one noise level.

With the denoiser :math:`D`, its Jacobian :math:`J = \partial D/\partial x` and
:math:`\hat\varepsilon = (x - D)/\sigma` at a clean row :math:`x` in :math:`\mathbb{R}^m`,

.. math::
    \text{FLIPD} &= m + \partial_{\log\sigma} \log p_\sigma(x)
                  = \operatorname{tr} J + |\hat\varepsilon|^2, \\
    \text{denoising loss} &= E_\varepsilon\,|\hat\varepsilon(x + \sigma\varepsilon)
                            - \varepsilon|^2, \\
    \text{spectrum} &= \#\{\text{eigenvalues of } \tfrac12(J + J^\top) > \tfrac12\}, \\
    \text{normal bundle} &= m - \#\{\text{large singular values of the scores around } x\}.

All tend to the dimension of a smooth manifold for :math:`\sigma \to 0`. On a Gaussian of variances
:math:`\lambda` they are :math:`\sum 1 - (\frac{\sigma^2}{\lambda+\sigma^2})^2` on average,
:math:`\sum \frac{\lambda}{\lambda+\sigma^2}`, and twice :math:`\#\{\lambda > \sigma^2\}`. FLIPD is
taken at clean rows: over noised ones it averages to :math:`m` for any law.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.geometry._level_density import level_slope, seen_noise
from skdiffusion.models import jacobian
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.utils.random import normal_by_row

__all__ = [
    "LeaveOneOutModel",
    "denoising_loss",
    "flipd",
    "lidl",
    "normal_bundle",
    "projector",
    "spectrum",
]

OFFSETS = np.array([-0.7, -0.35, 0.0, 0.35, 0.7])
"""Logarithms of the levels, relative to the one asked for, that LIDL regresses on."""
CEILING, FLOOR, TANGENT = 1.0, 0.25, 0.1
"""Singular values, as shares of pure noise: see `normal_bundle`."""
MIN_NORMALS = 128
"""Fewest noised copies of a row for its normal bundle."""


class LeaveOneOutModel(BaseScoreModel):
    """The empirical law as each of its own rows sees it: without that row.

    Parameters
    ----------
    model : EmpiricalModel
    own : ndarray of int of shape (n,)
        Index of the point that each row does not see. Points come as these rows, or as whole
        copies of them one after the other.
    """

    has_log_prob = True
    has_jacobian = True
    is_conservative = True

    def __init__(self, model: Any, own: np.ndarray):
        self.model, self.own = model, own
        self.n_features = model.n_features
        self.sigma_range = model.sigma_range

    def _hidden(self, x):
        return np.tile(self.own, len(x) // len(self.own))

    def _denoise(self, x, sigma):
        return self.model._denoise(x, sigma, exclude=self._hidden(x))

    def _log_prob(self, x, sigma):
        return self.model._log_prob(x, sigma, exclude=self._hidden(x))

    def _denoise_jacobian(self, x, sigma):
        return self.model._denoise_jacobian(x, sigma, exclude=self._hidden(x))

    def _denoise_and_divergence(self, x, sigma):
        return self.model._denoise_and_divergence(x, sigma, exclude=self._hidden(x))


def flipd(model: Any, x: np.ndarray, sigma: float, *, n_noise: int = 16, random_state: Any = 0):
    r"""FLIPD of each row: :math:`\operatorname{tr} J + |\hat\varepsilon|^2`.

    Parameters
    ----------
    model : BaseScoreModel
    x : ndarray of shape (n, m)
        Clean rows.
    sigma : float
    n_noise : int
        Probes of Hutchinson's trace; used above 128 columns where there is no closed form.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    ndarray of shape (n,)

    References
    ----------
    H. Kamkari et al., "A Geometric View of Data Complexity: Efficient Local Intrinsic Dimension
    Estimation with Diffusion Models", NeurIPS 2024.

    Examples
    --------
    >>> from skdiffusion.models import SphereModel
    >>> x = np.array([[0.0, 0.0, 1.0]])
    >>> flipd(SphereModel(3), x, 0.5).round(6), flipd(SphereModel(3), x, 0.05).round(6)
    (array([1.994631]), array([2.]))
    """
    slope = level_slope(model, x, sigma, n_probes=n_noise, random_state=random_state)
    return x.shape[1] + slope


def denoising_loss(
    model: Any, x: np.ndarray, sigma: float, *, n_noise: int = 16, random_state: int = 0
):
    r"""Denoising loss of each row over :math:`\sigma^2`, a mean over pairs of opposite noise.

    No law denoises better than by its dimension, so it is an upper bound where the model errs.

    Parameters
    ----------
    model, x, sigma
        As in :func:`flipd`.
    n_noise : int
        Pairs of noise per row.
    random_state : int
        Seed of the noise, which is keyed by the rows.

    Returns
    -------
    ndarray of shape (n,)

    References
    ----------
    E. Yeats et al., "Intrinsic Dimension Estimation with Denoising Score Matching", 2025.
    """
    scale = sigma * np.asarray(model.noise_scale)
    noise = normal_by_row(x, n_noise, random_state)
    total = np.zeros(len(x))
    for draw in noise:
        for step in (scale * draw, -scale * draw):
            total += (((model.denoise(x + step, sigma) - x) / scale) ** 2).sum(axis=1)
    # relative to the length of the noise drawn: nothing is left to chance where all of it stays
    return total / (2 * (noise**2).mean(axis=2).sum(axis=0))


def projector(model: Any, x: np.ndarray, sigma: float):
    r"""The denoiser's Jacobian made symmetric: at small noise the projector on the tangent space.

    Returns
    -------
    ndarray of shape (n, m, m)
        In units of the noise per column, where that differs.
    """
    J = jacobian(model, x, sigma, of="denoise")
    scale = np.broadcast_to(np.asarray(model.noise_scale, dtype=float), x.shape[1:])
    J = J * scale / scale[:, None]
    return (J + J.swapaxes(1, 2)) / 2


def spectrum(model: Any, x: np.ndarray, sigma: float):
    r"""Number of eigenvalues of the projector above a half: of directions wider than the noise.

    References
    ----------
    E. Ventura et al., "Manifolds, Random Matrices and Spectral Gaps: The geometric phases of
    generative diffusion", ICLR 2025.
    """
    return (np.linalg.eigvalsh(projector(model, x, sigma)) > 0.5).sum(axis=1).astype(float)


def normal_bundle(
    model: Any, x: np.ndarray, sigma: float, *, n_noise: int | None = None, random_state: int = 0
):
    r"""Dimension left when the normal directions are those that the scores around a row span.

    The scores at noised copies of a row, about their mean and in units of noise, have singular
    values near 1 in normal directions and near :math:`\sigma/\sqrt\lambda` in tangent ones. The
    cut is the widest gap of their logarithms, between 1 at the top (all tangent) and a quarter at
    the bottom (all normal), so that 0 and the dimension of the space can be answers.

    Parameters
    ----------
    model, x, sigma
        As in :func:`flipd`.
    n_noise : int, optional
        Noised copies of each row, more than there are columns; by default four per column and at
        least 128.
    random_state : int
        Seed of the noise, which is keyed by the rows.

    References
    ----------
    J. Stanczuk et al., "Diffusion Models Encode the Intrinsic Dimension of Data Manifolds",
    ICML 2024.
    """
    n, m = x.shape
    copies = max(4 * m, MIN_NORMALS) if n_noise is None else n_noise
    if copies <= m:
        raise ValueError(
            f"n_noise must be above the number of columns, {m}, for scores to span all directions "
            f"across; got {copies}."
        )
    scale = sigma * np.asarray(model.noise_scale)
    noised = (x + scale * normal_by_row(x, copies, random_state)).reshape(-1, m)
    noise = seen_noise(model, noised, sigma, model.denoise(noised, sigma)).reshape(copies, n, m)
    noise = noise.swapaxes(0, 1)
    noise -= noise.mean(axis=1, keepdims=True)
    values = np.linalg.svd(noise, compute_uv=False) / np.sqrt(copies)
    full = np.zeros((n, m))
    full[:, : values.shape[1]] = values
    ladder = np.hstack([np.full((n, 1), CEILING), full, np.full((n, 1), FLOOR)])
    gaps = -np.diff(np.log(np.maximum(ladder, TANGENT)), axis=1)
    return m - gaps.argmax(axis=1).astype(float)


def lidl(model: Any, x: np.ndarray, sigma: float, *, log_prob: Any = None):
    r"""Dimension from the slope of :math:`\log p_\sigma` by :math:`\log\sigma`, by regression.

    The levels run from half to twice ``sigma``. FLIPD is its limit for levels that come together.

    Parameters
    ----------
    model, x, sigma
        As in :func:`flipd`.
    log_prob : callable, optional
        ``log_prob(x, sigma)``, for a model that has no exact one.

    References
    ----------
    P. Tempczyk et al., "LIDL: Local Intrinsic Dimension Estimation Using Approximate Likelihood",
    ICML 2022.
    """
    low, high = model.sigma_range
    levels = np.unique(np.clip(sigma * np.exp(OFFSETS), low, high))
    log_prob = model.log_prob if log_prob is None else log_prob
    log_p = np.stack([log_prob(x, float(level)) for level in levels])
    u = np.log(levels) - np.log(levels).mean()
    return x.shape[1] + u @ log_p / (u @ u)
