"""Samplers: stateless steps through noise levels, driven by one loop."""

from typing import Any

from skdiffusion.samplers.adaptive import AdaptiveSampler
from skdiffusion.samplers.base import BaseSampler, hyperparameters
from skdiffusion.samplers.dmcmc import DMCMCSampler
from skdiffusion.samplers.driver import run_sampler
from skdiffusion.samplers.langevin import LangevinSampler, MALASampler
from skdiffusion.samplers.ode import EulerSampler, FlowSampler, HeunSampler, RK4Sampler
from skdiffusion.samplers.predictor_corrector import PredictorCorrectorSampler
from skdiffusion.samplers.sde import DDPMSampler, EDMSampler, EulerMaruyamaSampler
from skdiffusion.samplers.search import best_of_n, search_codes
from skdiffusion.samplers.teleport import Teleport, TeleportReport, teleport_report
from skdiffusion.utils.validation import lookup

__all__ = [
    "SAMPLERS",
    "AdaptiveSampler",
    "BaseSampler",
    "DDPMSampler",
    "DMCMCSampler",
    "EDMSampler",
    "EulerMaruyamaSampler",
    "EulerSampler",
    "FlowSampler",
    "HeunSampler",
    "LangevinSampler",
    "MALASampler",
    "PredictorCorrectorSampler",
    "RK4Sampler",
    "Teleport",
    "TeleportReport",
    "best_of_n",
    "check_sampler",
    "hyperparameters",
    "run_sampler",
    "search_codes",
    "teleport_report",
]

SAMPLERS = {
    "euler": EulerSampler,
    "heun": HeunSampler,
    "rk4": RK4Sampler,
    "flow": FlowSampler,
    "adaptive": AdaptiveSampler,
    "ddpm": DDPMSampler,
    "euler_maruyama": EulerMaruyamaSampler,
    "edm": EDMSampler,
    "langevin": LangevinSampler,
    "mala": MALASampler,
    "predictor_corrector": PredictorCorrectorSampler,
    "dmcmc": DMCMCSampler,
}


def check_sampler(sampler: Any) -> BaseSampler:
    """A sampler from its short name or from itself, with its hyper-parameters checked.

    Raises
    ------
    ValueError
        If the name is unknown or a hyper-parameter is out of its range.

    Examples
    --------
    >>> check_sampler("heun")
    HeunSampler()
    """
    if not isinstance(sampler, BaseSampler):
        sampler = lookup(sampler, SAMPLERS, "sampler", "a sampler instance")()
    sampler.check()
    return sampler
