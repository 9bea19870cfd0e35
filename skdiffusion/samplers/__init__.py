"""Samplers: stateless steps through noise levels, driven by one loop."""

from typing import Any

from skdiffusion.samplers.base import BaseSampler, run_sampler
from skdiffusion.samplers.ode import EulerSampler, FlowSampler, HeunSampler, RK4Sampler
from skdiffusion.utils.validation import lookup

__all__ = [
    "SAMPLERS",
    "BaseSampler",
    "EulerSampler",
    "FlowSampler",
    "HeunSampler",
    "RK4Sampler",
    "check_sampler",
    "run_sampler",
]

SAMPLERS = {
    "euler": EulerSampler,
    "heun": HeunSampler,
    "rk4": RK4Sampler,
    "flow": FlowSampler,
}


def check_sampler(sampler: Any) -> BaseSampler:
    """A sampler from its short name or from itself.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> check_sampler("heun")
    HeunSampler()
    """
    if isinstance(sampler, BaseSampler):
        return sampler
    return lookup(sampler, SAMPLERS, "sampler", "a sampler instance")()
