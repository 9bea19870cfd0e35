r"""The view of a score model in a schedule's own coordinates ``(x_t, t)``.

With :math:`x = x_t/\alpha` and :math:`\bar\sigma = \sigma/\alpha` everything is the
noise-level model again:

.. math::
    D(x_t, t) = D(x_t/\alpha, \bar\sigma), \qquad
    \nabla \log p_t(x_t) = \tfrac1\alpha \nabla \log p_{\bar\sigma}(x_t/\alpha), \qquad
    \frac{dx_t}{dt} = \alpha' D + \sigma'\, \frac{x_t - \alpha D}{\sigma}
    = f x_t - \tfrac12 g^2 \nabla \log p_t .
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.schedules import check_schedule
from skdiffusion.utils.arrays import as_levels, as_points, functions, is_torch

__all__ = ["AtTime"]


class AtTime:
    """A score model seen at the times of a schedule.

    Parameters
    ----------
    model : BaseScoreModel
    schedule : str or NoiseSchedule

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> view = GaussianModel(mean=[0.0], covariance=1.0).at_time("flow_matching")
    >>> view.velocity(np.array([[1.0]]), 0.5)  # alpha^2 + sigma^2 is at its minimum
    array([[0.]])
    """

    def __init__(self, model: Any, schedule: Any):
        self.model = model
        self.schedule = check_schedule(schedule)
        self.n_features = model.n_features

    def score(self, x_t: Any, t: Any, *, y: Any = None):
        r"""Score :math:`\nabla \log p_t(x_t)`, shape ``(n, d)``.

        Parameters
        ----------
        x_t : array of shape (n, d)
            Points of the path at time ``t``.
        t : float or array of shape (n,)
        y : array of shape (n,), optional
            Labels, for conditional models.
        """
        x, level, alpha, _, _ = self._gauge(x_t, t)
        return self.model.score(x, level, y=y) / alpha

    def denoise(self, x_t: Any, t: Any, *, y: Any = None):
        r"""Denoiser :math:`E[x_0 \mid x_t]`."""
        x, level, _, _, _ = self._gauge(x_t, t)
        return self.model.denoise(x, level, y=y)

    def predict_noise(self, x_t: Any, t: Any, *, y: Any = None):
        r"""Expected noise :math:`E[\varepsilon \mid x_t] = (x_t - \alpha D)/\sigma`."""
        x, level, _, _, _ = self._gauge(x_t, t)
        return self.model.predict_noise(x, level, y=y)

    def velocity(self, x_t: Any, t: Any, *, y: Any = None):
        r"""Velocity :math:`dx_t/dt` of the probability flow."""
        x, level, alpha, _, times = self._gauge(x_t, t)
        # through the score, not (x - D)/sigma: that is 0/0 at the data and rounding near them
        score = self.model._noise_scale_like(x) ** 2 * self.model.score(x, level, y=y)
        squared = self.schedule.squared_diffusion(times)
        return self.schedule.drift(times) * (alpha * x) - (0.5 * squared / alpha) * score

    def log_prob(self, x_t: Any, t: Any, *, y: Any = None):
        r"""Exact :math:`\log p_t(x_t)` where the model has one."""
        x, level, alpha, _, _ = self._gauge(x_t, t)
        log_alpha = functions(alpha).log(alpha)
        log_alpha = log_alpha[..., 0] if np.ndim(log_alpha) else log_alpha
        return self.model.log_prob(x, level, y=y) - self.n_features * log_alpha

    def drift(self, x_t: Any, t: Any):
        r"""Drift :math:`f(t)\, x_t` of the forward stochastic differential equation."""
        x_t = as_points(x_t, self.n_features, "x_t")
        times = as_levels(t, x_t, "t")
        self._check_signal(self.schedule.alpha(times), times)
        return self.schedule.drift(times) * x_t

    def diffusion(self, t: Any):
        r"""Diffusion coefficient :math:`g(t)` of the forward stochastic differential equation."""
        t = np.asarray(t, dtype=np.float64) if isinstance(t, (list, tuple)) else t
        if not is_torch(t):  # times of any shape, for no points
            as_levels(np.ravel(t), np.empty((np.size(t), 0)), "t")
        self._check_signal(self.schedule.alpha(t), t)
        squared = self.schedule.squared_diffusion(t)
        return functions(squared).sqrt(squared)

    def _gauge(self, x_t, t):
        """Noise-level coordinates of ``(x_t, t)``, and the coefficients that led there."""
        x_t = as_points(x_t, self.n_features, "x_t")
        times = as_levels(t, x_t, "t")
        alpha, sigma = self.schedule.coefficients(t, x_t)
        self._check_signal(alpha, times)
        level = self.schedule.noise_level(times)
        return x_t / alpha, level[..., 0] if np.ndim(level) else level, alpha, sigma, times

    def _check_signal(self, alpha, times):
        if not is_torch(alpha) and np.min(alpha, initial=np.inf) <= 0:
            raise ValueError(
                f"{type(self.schedule).__name__} has no signal left at t = {np.max(times):g}: "
                "times must have alpha(t) > 0."
            )
