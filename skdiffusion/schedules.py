r"""Noise schedules: the two functions that define a Gaussian path, and what follows from them.

A schedule is an affine path from data to noise,

.. math:: x_t = \alpha(t)\, x_0 + \sigma(t)\, \varepsilon, \qquad \varepsilon \sim N(0, I).

Divided by :math:`\alpha` every schedule is the same family
:math:`x = x_0 + \bar\sigma\, \varepsilon`, indexed by the **noise level**
:math:`\bar\sigma(t) = \sigma(t)/\alpha(t)`: noise over signal, in the units of
the data. The path is also the law of the linear stochastic differential equation

.. math:: dx = f(t)\, x\, dt + g(t)\, dw, \qquad f = \alpha'/\alpha, \qquad
          g^2 = (\sigma^2)' - 2 f \sigma^2 = \alpha^2\, (\bar\sigma^2)'.

So a schedule says how time maps to noise level, how a sampler spaces its levels
(:meth:`~NoiseSchedule.grid`) and which levels training visits
(:meth:`~NoiseSchedule.sample_levels`). Score models never see it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skdiffusion.utils.arrays import as_levels, as_points, functions
from skdiffusion.utils.random import as_generator, normal_like
from skdiffusion.utils.validation import check_count, check_number, lookup

__all__ = [
    "SCHEDULES",
    "CosineSchedule",
    "EDMSchedule",
    "FlowMatchingSchedule",
    "NoiseSchedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
    "check_schedule",
]


MOST_DECAY = 690.0
"""Integral of a rate whose noise level float64 can square."""


class NoiseSchedule(BaseEstimator):
    r"""Base class of the schedules.

    A subclass gives ``alpha(t)``, ``sigma(t)``, ``rates(t)`` and
    ``time_of(level)``, and has ``sigma_min`` and ``sigma_max``, the noise levels
    at which its grids end. Time runs from data to noise. All functions of time
    take a float, a NumPy array or a torch tensor and return the same kind.

    A schedule is a scikit-learn ``BaseEstimator`` without ``fit``: it clones,
    prints, and its parameters can be searched (``schedule__sigma_max``).
    """

    sigma_min: float
    sigma_max: float

    def alpha(self, t: Any):
        r"""Signal coefficient :math:`\alpha(t)`."""
        raise NotImplementedError

    def sigma(self, t: Any):
        r"""Noise coefficient :math:`\sigma(t)`."""
        raise NotImplementedError

    def rates(self, t: Any):
        r"""Exact time derivatives :math:`(\alpha'(t), \sigma'(t))`."""
        raise NotImplementedError

    def time_of(self, level: Any):
        r"""The time :math:`t` at which the noise level is ``level``: inverse of ``noise_level``."""
        raise NotImplementedError

    def noise_level(self, t: Any):
        r"""Noise level :math:`\bar\sigma(t) = \sigma(t)/\alpha(t)`."""
        return self.sigma(t) / self.alpha(t)

    def drift(self, t: Any):
        r"""Coefficient :math:`f(t) = \alpha'/\alpha` of the forward SDE's linear drift."""
        return self.rates(t)[0] / self.alpha(t)

    def squared_diffusion(self, t: Any):
        r"""Squared diffusion :math:`g(t)^2 = 2\sigma\sigma' - 2 f \sigma^2` of the forward SDE."""
        sigma = self.sigma(t)
        return 2 * sigma * (self.rates(t)[1] - self.drift(t) * sigma)

    def grid(
        self, n_steps: int, *, sigma_min: float | None = None, sigma_max: float | None = None
    ) -> np.ndarray:
        """Decreasing noise levels for a sampler, spaced as this schedule spaces them.

        Parameters
        ----------
        n_steps : int
            How many levels. A sampler steps from each to the next and from the
            last one to zero: ``n_steps`` steps in all.
        sigma_min, sigma_max : float, optional
            Last and first level; the schedule's own by default.

        Returns
        -------
        ndarray of shape (n_steps,)
            From ``sigma_max`` down to ``sigma_min``; a single level is ``sigma_max``.

        Raises
        ------
        ValueError
            If ``n_steps`` is not a positive integer or the levels are not ordered.
        """
        n_steps = check_count(n_steps, "n_steps")
        low, high = self._range(sigma_min, sigma_max)
        levels = self._space(np.linspace(0.0, 1.0, n_steps), low, high)
        levels[0] = high
        if n_steps > 1:
            levels[-1] = low
        return levels

    def sample_levels(self, n: int, random_state: Any = None) -> np.ndarray:
        """Noise levels drawn from the distribution that training uses.

        Parameters
        ----------
        n : int
            How many.
        random_state : None, int, Generator or RandomState
            ``None`` is fresh entropy.

        Returns
        -------
        ndarray of shape (n,)
        """
        low, high = self._range()
        uniform = as_generator(random_state).random(check_count(n, "n", 0))
        return self._space(uniform, low, high)

    def perturb(self, x0: Any, t: Any, random_state: Any = None):
        r"""Noised points :math:`x_t = \alpha x_0 + \sigma \varepsilon`, and their noise.

        Parameters
        ----------
        x0 : array of shape (n, d)
            Clean points.
        t : float or array of shape (n,)
            One time for all rows or one per row.
        random_state : None, int, Generator or RandomState

        Returns
        -------
        x_t, noise : arrays of shape (n, d)
            Like ``x0``.
        """
        x0 = as_points(x0, np.shape(x0)[-1], "x0")
        noise = normal_like(x0, random_state)
        alpha, sigma = self.coefficients(t, x0)
        return alpha * x0 + sigma * noise, noise

    def coefficients(self, t: Any, x: Any):
        r"""``alpha(t), sigma(t)`` ready to broadcast against the rows of ``x``.

        Floats for a scalar time, so that ``x`` keeps its dtype; ``(n, 1)`` arrays
        like ``x`` for one time per row.
        """
        t = as_levels(t, x, name="t")
        return self.alpha(t), self.sigma(t)

    def _space(self, u: np.ndarray, low: float, high: float) -> np.ndarray:
        """Levels at fractions ``u`` of the way from ``high`` to ``low``: uniform in time."""
        first, last = self.time_of(high), self.time_of(low)
        return np.asarray(self.noise_level(first + u * (last - first)))

    def _range(self, sigma_min: float | None = None, sigma_max: float | None = None):
        low = self.sigma_min if sigma_min is None else sigma_min
        high = self.sigma_max if sigma_max is None else sigma_max
        low = check_number(low, "sigma_min", above=0)
        high = check_number(high, "sigma_max", above=0)
        if low >= high:
            raise ValueError(f"sigma_min must lie below sigma_max; got {low:g} and {high:g}.")
        return low, high


def _ones_like(t: Any):
    return t * 0 + 1.0


class EDMSchedule(NoiseSchedule):
    r"""Time is the noise level: :math:`\alpha = 1,\ \sigma(t) = t` (Karras et al. 2022).

    The grid is uniform in :math:`\sigma^{1/\rho}`; training levels are log-normal.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Ends of the grid.
    rho : float
        Spacing of the grid: 1 is uniform in the level, large values approach
        uniform in its logarithm.
    p_mean, p_std : float
        Mean and standard deviation of the logarithm of the training levels.

    Examples
    --------
    >>> EDMSchedule().grid(18)[[0, 1, 17]].round(3)
    array([8.0000e+01, 5.7586e+01, 2.0000e-03])
    """

    def __init__(self, sigma_min=0.002, sigma_max=80.0, rho=7.0, p_mean=-1.2, p_std=1.2):
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.rho = rho
        self.p_mean = p_mean
        self.p_std = p_std

    def alpha(self, t):  # noqa: D102
        return _ones_like(t)

    def sigma(self, t):  # noqa: D102
        return t

    def rates(self, t):  # noqa: D102
        one = _ones_like(t)
        return 0 * one, one

    def time_of(self, level):  # noqa: D102
        return level

    def _space(self, u, low, high):
        rho = check_number(self.rho, "rho", above=0)
        return (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho

    def sample_levels(self, n, random_state=None):  # noqa: D102
        z = as_generator(random_state).standard_normal(check_count(n, "n", 0))
        mean = check_number(self.p_mean, "p_mean")
        return np.exp(mean + check_number(self.p_std, "p_std", least=0) * z)


class VESchedule(NoiseSchedule):
    r"""Variance exploding: :math:`\alpha = 1,\ \sigma(t) = \sigma_{\min}^{1-t}\sigma_{\max}^{t}`.

    The geometric schedule of Song et al. (2021): grids and training levels are
    uniform in the logarithm of the level.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Levels at ``t = 0`` and ``t = 1``.

    Examples
    --------
    >>> VESchedule(sigma_min=0.01, sigma_max=1.0).grid(3).round(12)
    array([1.  , 0.1 , 0.01])
    """

    def __init__(self, sigma_min=0.002, sigma_max=80.0):
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def alpha(self, t):  # noqa: D102
        return _ones_like(t)

    def sigma(self, t):  # noqa: D102
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def rates(self, t):  # noqa: D102
        sigma = self.sigma(t)
        return 0 * sigma, sigma * math.log(self.sigma_max / self.sigma_min)

    def time_of(self, level):  # noqa: D102
        log = functions(level).log
        return log(level / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


class _LinearBeta(NoiseSchedule):
    r"""A rate :math:`\beta` linear in time, its integral :math:`B(t)` and the inverse of it."""

    def __init__(self, beta_min=0.1, beta_max=20.0, sigma_min=0.002):
        self.beta_min = beta_min
        self.beta_max = beta_max
        self.sigma_min = sigma_min

    @property
    def sigma_max(self) -> float:
        """Noise level at ``t = 1``."""
        return self.noise_level(1.0)

    def beta(self, t):
        r"""Rate :math:`\beta(t)`."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _integral(self, t):
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def _time_of_integral(self, integral):
        sqrt = functions(integral).sqrt
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + sqrt(self.beta_min**2 + 2 * slope * integral))

    def alpha(self, t):
        r"""Signal coefficient :math:`e^{-B(t)/2}`."""
        return functions(t).exp(-0.5 * self._integral(t))

    def drift(self, t):
        r"""Coefficient :math:`f(t) = -\beta(t)/2`."""
        return -0.5 * self.beta(t)


class VPSchedule(_LinearBeta):
    r"""Variance preserving, linear rate: :math:`\alpha^2 = e^{-B(t)},\ \sigma^2 = 1 - e^{-B(t)}`.

    :math:`B(t) = \beta_{\min} t + \tfrac12(\beta_{\max}-\beta_{\min}) t^2` for
    ``t`` in [0, 1] (Ho et al. 2020, Song et al. 2021). Written with
    :math:`dx = -\beta x\,dt + \sqrt{2\beta}\,dw` the same path has half the
    rates; ``VPSchedule(beta_min=0.2, beta_max=40)`` is that convention at the usual
    numbers, a frequent source of factors of two.

    Parameters
    ----------
    beta_min, beta_max : float
        Rates at ``t = 0`` and ``t = 1``.
    sigma_min : float
        Noise level at which grids end; they start at the level of ``t = 1``.

    Examples
    --------
    >>> schedule = VPSchedule()
    >>> round(schedule.time_of(0.5), 5), round(schedule.sigma_max, 2)
    (0.14481, 152.17)
    """

    def sigma(self, t):  # noqa: D102
        xp = functions(t)
        return xp.sqrt(-xp.expm1(-self._integral(t)))

    def rates(self, t):  # noqa: D102
        alpha, beta = self.alpha(t), self.beta(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / self.sigma(t)

    def noise_level(self, t):  # noqa: D102
        xp = functions(t)
        return xp.sqrt(xp.expm1(self._integral(t)))

    def time_of(self, level):  # noqa: D102
        return self._time_of_integral(functions(level).log1p(level**2))

    def squared_diffusion(self, t):
        r"""Squared diffusion :math:`g(t)^2 = \beta(t)`."""
        return self.beta(t)


class SubVPSchedule(_LinearBeta):
    r"""Sub-variance-preserving: :math:`\alpha = e^{-B(t)/2},\ \sigma = 1 - e^{-B(t)}`.

    Song et al. (2021). The noise level is :math:`2\sinh(B(t)/2)`.

    Parameters
    ----------
    beta_min, beta_max : float
        Rates at ``t = 0`` and ``t = 1``.
    sigma_min : float
        Noise level at which grids end; they start at the level of ``t = 1``.

    Examples
    --------
    >>> schedule = SubVPSchedule()
    >>> round(schedule.noise_level(schedule.time_of(0.5)), 12)
    0.5
    """

    def sigma(self, t):  # noqa: D102
        return -functions(t).expm1(-self._integral(t))

    def rates(self, t):  # noqa: D102
        alpha, beta = self.alpha(t), self.beta(t)
        return -0.5 * beta * alpha, beta * alpha**2

    def noise_level(self, t):  # noqa: D102
        return 2 * functions(t).sinh(0.5 * self._integral(t))

    def time_of(self, level):  # noqa: D102
        return self._time_of_integral(2 * functions(level).asinh(0.5 * level))

    def squared_diffusion(self, t):
        r"""Squared diffusion :math:`g(t)^2 = \beta(t)\,(1 - e^{-2B(t)})`."""
        return -self.beta(t) * functions(t).expm1(-2 * self._integral(t))


class CosineSchedule(NoiseSchedule):
    r"""The trigonometric path :math:`\alpha = \cos(\pi t/2),\ \sigma = \sin(\pi t/2)`.

    Variance preserving (Nichol & Dhariwal 2021, without their offset). The
    noise level is :math:`\tan(\pi t/2)`, so the grid is cut at ``sigma_max``.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Noise levels at which grids end.

    Examples
    --------
    >>> round(CosineSchedule().noise_level(0.5), 12)
    1.0
    """

    def __init__(self, sigma_min=0.002, sigma_max=80.0):
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def alpha(self, t):  # noqa: D102
        return functions(t).cos(t * (math.pi / 2))

    def sigma(self, t):  # noqa: D102
        return functions(t).sin(t * (math.pi / 2))

    def rates(self, t):  # noqa: D102
        return -(math.pi / 2) * self.sigma(t), (math.pi / 2) * self.alpha(t)

    def noise_level(self, t):  # noqa: D102
        return functions(t).tan(t * (math.pi / 2))

    def time_of(self, level):  # noqa: D102
        return functions(level).atan(level) * (2 / math.pi)


class FlowMatchingSchedule(NoiseSchedule):
    r"""The straight path :math:`\alpha = 1 - t,\ \sigma = t` of flow matching.

    Rectified flow (Liu et al. 2023, Lipman et al. 2023). The noise level is
    :math:`t/(1-t)`, so the grid is cut at ``sigma_max``.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Noise levels at which grids end.

    Examples
    --------
    >>> FlowMatchingSchedule().time_of(4.0)
    0.8
    """

    def __init__(self, sigma_min=0.002, sigma_max=80.0):
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def alpha(self, t):  # noqa: D102
        return 1.0 - t

    def sigma(self, t):  # noqa: D102
        return t

    def rates(self, t):  # noqa: D102
        one = _ones_like(t)
        return -one, one

    def time_of(self, level):  # noqa: D102
        return level / (1.0 + level)


SCHEDULES = {
    "edm": EDMSchedule,
    "ve": VESchedule,
    "vp": VPSchedule,
    "sub_vp": SubVPSchedule,
    "cosine": CosineSchedule,
    "flow_matching": FlowMatchingSchedule,
}


def check_schedule(schedule: Any, *, or_else: str = "a NoiseSchedule instance") -> NoiseSchedule:
    """A schedule from its short name or from itself, with its range checked.

    Parameters
    ----------
    schedule : str or NoiseSchedule
        One of ``"edm"``, ``"ve"``, ``"vp"``, ``"sub_vp"``, ``"cosine"``,
        ``"flow_matching"``, or an instance.
    or_else : str
        What else the caller accepts, for the error.

    Returns
    -------
    NoiseSchedule

    Raises
    ------
    ValueError
        If the name is unknown or the schedule's levels are not ordered.

    Examples
    --------
    >>> check_schedule("flow_matching")
    FlowMatchingSchedule()
    """
    if not isinstance(schedule, NoiseSchedule):
        schedule = lookup(schedule, SCHEDULES, "schedule", or_else)()
    if isinstance(schedule, _LinearBeta):
        check_number(schedule.beta_min, "beta_min", above=0)
        check_number(schedule.beta_max, "beta_max", least=schedule.beta_min)
        if schedule._integral(1.0) > MOST_DECAY:
            raise ValueError(
                f"the mean of beta_min and beta_max must not exceed {MOST_DECAY:g}, or no number "
                f"holds the noise level at t = 1; got {schedule.beta_min:g} and "
                f"{schedule.beta_max:g}."
            )
    schedule._range()
    return schedule
