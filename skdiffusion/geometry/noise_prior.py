r"""How often each noise level occurs: the prior of a marginal energy.

A prior is a density over the logarithm :math:`\ell = \log(b/a)` of the noise level of a path
:math:`u = a x_0 + b\varepsilon`. A density over time becomes one by

.. math:: \frac{dt}{d\ell} = \frac{ab}{b'a - a'b},

a power :math:`p(s) \propto s^q` of the level by :math:`s^{q+1}`. Near the data only the power
counts: a law of codimension :math:`k` has a posterior as if it had
:math:`K = k - q - 1` (:mod:`~skdiffusion.geometry.marginal_energy`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from skdiffusion.discrete_schedule import DiscreteSchedule
from skdiffusion.schedules import EDMSchedule, NoiseSchedule
from skdiffusion.utils.validation import check_number, lookup

__all__ = [
    "PRIORS",
    "CustomPrior",
    "LogNormalPrior",
    "NoisePrior",
    "PowerPrior",
    "Support",
    "UniformPrior",
    "check_prior",
    "path_coefficients",
]

REACH = 13 * math.log(10)
"""How far an unbounded support is followed: to levels of 1e-13 and 1e13."""
STANDARD_DEVIATIONS = 12
NORMALISING_NODES = 4096


class Support(NamedTuple):
    """Logarithms of the lowest and highest level, and whether they are only where we stop."""

    low: float
    high: float
    open_below: bool = False
    open_above: bool = False


def path_coefficients(schedule: NoiseSchedule, log_level: Any):
    """Signal and noise coefficients and their rates at noise levels, accurate at both ends.

    Parameters
    ----------
    schedule : NoiseSchedule
    log_level : ndarray
        Natural logarithms of ``b/a``.

    Returns
    -------
    alpha, sigma : ndarray
    rates : pair of ndarray
        Derivatives by time.
    """
    level = np.exp(log_level)
    time = np.asarray(schedule.time_of(level), dtype=np.float64)
    # the coefficient that is near one is accurate, and the level gives the other
    quiet = level < 1
    alpha = np.where(quiet, schedule.alpha(time), schedule.sigma(time) / level)
    sigma = alpha * level
    one = np.ones_like(level)
    alpha_rate, sigma_rate = schedule.rates(time)
    return alpha, sigma, (alpha_rate * one, sigma_rate * one)


class NoisePrior(BaseEstimator):
    """Base class of the priors: a density over the logarithm of the noise level."""

    def support(self, schedule: NoiseSchedule) -> Support:
        """Range of the logarithm of the level."""
        raise NotImplementedError

    def log_density(self, log_level: np.ndarray, schedule: NoiseSchedule) -> np.ndarray:
        """Logarithm of the density over the logarithm of the level."""
        raise NotImplementedError


class UniformPrior(NoisePrior):
    """Uniform in the time of the schedule.

    Parameters
    ----------
    t_min, t_max : float, optional
        Range of times; by default from 0 to 1, or from ``sigma_min`` to ``sigma_max`` for a
        schedule whose time is the level.

    Examples
    --------
    >>> from skdiffusion.schedules import FlowMatchingSchedule
    >>> UniformPrior().log_density(np.zeros(1), FlowMatchingSchedule())  # log 1/4 at t = 1/2
    array([-1.38629436])
    """

    def __init__(self, t_min=None, t_max=None):
        self.t_min = t_min
        self.t_max = t_max

    def _times(self, schedule):
        ends = 0.0, 1.0
        if isinstance(schedule, (EDMSchedule, DiscreteSchedule)):
            ends = schedule.time_of(schedule.sigma_min), schedule.time_of(schedule.sigma_max)
        low = ends[0] if self.t_min is None else check_number(self.t_min, "t_min", least=0)
        high = ends[1] if self.t_max is None else check_number(self.t_max, "t_max")
        if not low < high <= max(ends[1], 1.0):
            raise ValueError(
                f"t_min must lie below t_max, and that at most at {max(ends[1], 1.0):g}, where the "
                f"schedule ends; got {low:g} and {high:g}."
            )
        return low, high

    def support(self, schedule):  # noqa: D102
        low, high = self._times(schedule)
        first = float(schedule.time_of(math.exp(-REACH)))
        last = float(schedule.time_of(math.exp(REACH)))
        return Support(
            -REACH if low <= first else math.log(schedule.noise_level(low)),
            REACH if high >= last else math.log(schedule.noise_level(high)),
            bool(low <= first),
            bool(high >= last),
        )

    def log_density(self, log_level, schedule):  # noqa: D102
        low, high = self._times(schedule)
        alpha, sigma, (alpha_rate, sigma_rate) = path_coefficients(schedule, log_level)
        speed = sigma_rate * alpha - alpha_rate * sigma
        return np.log(alpha) + np.log(sigma) - np.log(speed) - math.log(high - low)


class LogNormalPrior(NoisePrior):
    """Normal in the logarithm of the level, as EDM is trained (Karras et al. 2022).

    Parameters
    ----------
    p_mean, p_std : float

    Examples
    --------
    >>> LogNormalPrior(0.0, 1.0).log_density(np.zeros(1), None)
    array([-0.91893853])
    """

    def __init__(self, p_mean=-1.2, p_std=1.2):
        self.p_mean = p_mean
        self.p_std = p_std

    def support(self, schedule):  # noqa: D102
        spread = STANDARD_DEVIATIONS * check_number(self.p_std, "p_std", above=0)
        mean = check_number(self.p_mean, "p_mean")
        # at a data point in d columns the posterior lies d p_std^2 below the mean
        low = min(mean - spread, -REACH)
        return Support(low, max(mean + spread, REACH), True, False)

    def log_density(self, log_level, schedule):  # noqa: D102
        z = (log_level - self.p_mean) / self.p_std
        return -0.5 * z**2 - math.log(self.p_std * math.sqrt(2 * math.pi))


class PowerPrior(NoisePrior):
    r"""A power :math:`p(s) \propto s^q` of the level between two levels.

    ``-1`` is uniform in the logarithm of the level, ``-3`` uniform in :math:`s^{-2}` (blind
    denoising diffusion), ``0`` uniform in the level.

    Parameters
    ----------
    exponent : float
    sigma_min, sigma_max : float

    Examples
    --------
    >>> PowerPrior(-1.0, 0.1, 10.0).log_density(np.zeros(1), None).round(6)  # -log log 100
    array([-1.52718])
    """

    def __init__(self, exponent=-1.0, sigma_min=0.002, sigma_max=80.0):
        self.exponent = exponent
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def support(self, schedule):  # noqa: D102
        low = check_number(self.sigma_min, "sigma_min", above=0)
        high = check_number(self.sigma_max, "sigma_max", above=low)
        return Support(math.log(low), math.log(high))

    def log_density(self, log_level, schedule):  # noqa: D102
        q = check_number(self.exponent, "exponent") + 1
        low, high, _, _ = self.support(schedule)
        width = high - low
        if q == 0:
            return np.full_like(log_level, -math.log(width))
        # the integral of e^(q l), scaled by its larger end
        top = q * (high if q > 0 else low)
        return q * log_level - top - math.log(-math.expm1(-abs(q) * width) / abs(q))


class CustomPrior(NoisePrior):
    """Any density of the level between two levels; it need not be normalised.

    Parameters
    ----------
    log_density_of_level : callable
        Logarithm of the density at an array of levels.
    sigma_min, sigma_max : float

    Examples
    --------
    >>> prior = CustomPrior(lambda level: -np.log(level), 0.1, 10.0)
    >>> prior.log_density(np.zeros(1), None).round(6)
    array([-1.52718])
    """

    def __init__(self, log_density_of_level, sigma_min=0.002, sigma_max=80.0):
        self.log_density_of_level = log_density_of_level
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    support = PowerPrior.support

    def log_density(self, log_level, schedule):  # noqa: D102
        if not callable(self.log_density_of_level):
            raise ValueError(
                "log_density_of_level must be a function of an array of levels; got "
                f"{self.log_density_of_level!r}."
            )
        low, high, _, _ = self.support(schedule)
        nodes, weights = np.polynomial.legendre.leggauss(64)
        edges = np.linspace(low, high, NORMALISING_NODES // 64 + 1)
        half = np.diff(edges)[:, None] / 2
        grid = edges[:-1, None] + half * (1 + nodes)
        mass = self.log_density_of_level(np.exp(grid)) + grid
        top = mass.max()
        if not np.isfinite(top):
            raise ValueError(
                "log_density_of_level must return numbers, or minus infinity, but not everywhere "
                f"from {self.sigma_min:g} to {self.sigma_max:g}; the highest is {top}."
            )
        total = top + np.log((np.exp(mass - top) * weights * half).sum())
        return self.log_density_of_level(np.exp(log_level)) + log_level - total


PRIORS = {"uniform": UniformPrior, "log_normal": LogNormalPrior, "power": PowerPrior}


def check_prior(prior: Any) -> NoisePrior:
    """A prior from its short name or from itself.

    Parameters
    ----------
    prior : {"uniform", "log_normal", "power"} or NoisePrior

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> check_prior("log_normal")
    LogNormalPrior()
    """
    if isinstance(prior, NoisePrior):
        return prior
    return lookup(prior, PRIORS, "prior", "a NoisePrior instance")()
