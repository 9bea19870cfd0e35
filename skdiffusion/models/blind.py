r"""A score model that is not told the noise level.

A blind field :math:`f^*(u) \approx E[c\,x_0 + d\,\varepsilon \mid u]` sees a point of the path
:math:`u = \alpha x_0 + \sigma\varepsilon` alone. A sampler knows the time, though, and reads the
denoiser off it as it would with any prediction,

.. math:: D(x, \bar\sigma) = \frac{d\,u - \sigma f^*(u)}{\alpha d - \sigma c}, \qquad
          u = \alpha x,

with the coefficients of the time at which the level is :math:`\bar\sigma`. Whether that is the
noise that the point really has is another question: the field answers for the noise that it
believes to see. A sampler with ``clock="estimated"`` therefore asks for the level first
(``skdiffusion.samplers.clock``).

A model that knows what its field believes says so of points of the path. A sampler that holds its
points for those of a level :math:`s` has the point :math:`u = \alpha(s)\,x` of it; if that seems
to be of level :math:`\hat s`, then it is the same point of the path at

.. math:: \hat x = u / \alpha(\hat s) .
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.schedules import NoiseSchedule
from skdiffusion.targets import check_target, target_coefficients
from skdiffusion.utils.arrays import is_torch, like, to_numpy

__all__ = ["BlindModel"]


class BlindModel(BaseScoreModel):
    """A field of points alone, seen as a score model on the path of a schedule.

    Parameters
    ----------
    field : callable
        Predictions ``(n, d)`` at NumPy points ``(n, d)`` of the path.
    n_features : int
    schedule : NoiseSchedule
        The path ``u = alpha z + sigma eps`` of the standardised rows ``z = (x - shift) / scale``.
    target : str
        What the field predicts (:mod:`skdiffusion.targets`), in standardised units.
    shift, scale : float or array of shape (d,), float
        Standardisation.
    noise_level : callable, optional
        Noise levels ``(n,)`` that points ``(n, d)`` seem to have, both in the units of ``x``.
    sigma_range : tuple of float
        Noise levels between which the model may be asked.
    path_level : callable, optional
        Noise levels ``(n,)`` that standardised points ``(n, d)`` of the path seem to have.

    Examples
    --------
    >>> from skdiffusion.schedules import FlowMatchingSchedule
    >>> always_at_zero = BlindModel(np.zeros_like, 2, FlowMatchingSchedule(), "data")
    >>> always_at_zero.denoise(np.ones((1, 2)), 3.0)
    array([[0., 0.]])
    """

    is_differentiable = False

    def __init__(
        self,
        field: Callable[[np.ndarray], np.ndarray],
        n_features: int,
        schedule: NoiseSchedule,
        target: str,
        shift: Any = 0.0,
        scale: float = 1.0,
        noise_level: Callable[[np.ndarray], np.ndarray] | None = None,
        sigma_range: tuple[float, float] = (0.0, float("inf")),
        path_level: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self.field = field
        self.n_features = n_features
        self.schedule = schedule
        self.target = check_target(target)
        self.shift, self.scale = shift, scale
        self.noise_level = noise_level
        self.sigma_range = sigma_range
        self.path_level = path_level

    @property
    def blind_target(self) -> str:
        """What the field predicts."""
        return self.target

    def path_point(self, x: np.ndarray, sigma: Any) -> np.ndarray:
        """The standardised point of the path that ``x`` at a noise level is."""
        sigma = sigma[:, None] if np.ndim(sigma) == 1 else sigma
        return self.schedule.alpha(self.schedule.time_of(sigma / self.scale)) * (
            (x - self.shift) / self.scale
        )

    def at_own_level(self, x: np.ndarray, believed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the path by the level that they seem to have, instead of another.

        Parameters
        ----------
        x : ndarray of shape (n, d)
            Points that are held for those of levels ``believed``.
        believed : ndarray of shape (n,)

        Returns
        -------
        x : ndarray of shape (n, d)
            The same points of the path, divided by the signal of their own levels.
        level : ndarray of shape (n,)
            Their own levels, within ``sigma_range``.
        """
        u = self.path_point(x, believed)
        low = max(self.sigma_range[0], np.finfo(float).tiny ** 0.5)
        level = np.clip(self.scale * self.path_level(u), low, self.sigma_range[1])
        alpha = self.schedule.alpha(self.schedule.time_of(level / self.scale))
        return self.shift + self.scale * u / alpha[:, None], level

    def _denoise(self, x, sigma):
        points = to_numpy(x).astype(np.float64, copy=False)
        time = self.schedule.time_of(np.asarray(to_numpy(sigma), dtype=np.float64) / self.scale)
        alpha, noise = self.schedule.alpha(time), self.schedule.sigma(time)
        c, d = target_coefficients(self.target, alpha, noise, self.schedule.rates(time))
        u = alpha * ((points - self.shift) / self.scale)
        denoised = (d * u - noise * self.field(u)) / (alpha * d - noise * c)
        denoised = self.shift + self.scale * denoised
        return like(denoised, x) if is_torch(x) else denoised.astype(x.dtype, copy=False)
