"""Samplers: stateless steps through noise levels, driven by one loop."""

from typing import Any

from skdiffusion.samplers.adaptive import AdaptiveSampler
from skdiffusion.samplers.base import BaseSampler, hyperparameters
from skdiffusion.samplers.dmcmc import DMCMCSampler
from skdiffusion.samplers.driver import run_sampler
from skdiffusion.samplers.langevin import LangevinSampler, MALASampler
from skdiffusion.samplers.multistep import (
    AdamsSampler,
    DPMSolver3Sampler,
    DPMSolverSampler,
    SDEDPMSolverSampler,
    UniPCSampler,
)
from skdiffusion.samplers.nesterov import NesterovSampler
from skdiffusion.samplers.ode import EulerSampler, FlowSampler, HeunSampler, RK4Sampler
from skdiffusion.samplers.predictor_corrector import PredictorCorrectorSampler
from skdiffusion.samplers.sde import DDPMSampler, EDMSampler, EulerMaruyamaSampler
from skdiffusion.samplers.search import best_of_n, search_codes
from skdiffusion.samplers.spectrum import SpectralClock, spectral_levels
from skdiffusion.samplers.teleport import Teleport, TeleportReport, teleport_report
from skdiffusion.samplers.time_travel import TimeTravelSampler
from skdiffusion.utils.validation import lookup

__all__ = [
    "SAMPLERS",
    "AdamsSampler",
    "AdaptiveSampler",
    "BaseSampler",
    "DDPMSampler",
    "DMCMCSampler",
    "DPMSolver3Sampler",
    "DPMSolverSampler",
    "EDMSampler",
    "EulerMaruyamaSampler",
    "EulerSampler",
    "FlowSampler",
    "HeunSampler",
    "LangevinSampler",
    "MALASampler",
    "NesterovSampler",
    "PredictorCorrectorSampler",
    "RK4Sampler",
    "SDEDPMSolverSampler",
    "SpectralClock",
    "Teleport",
    "TeleportReport",
    "TimeTravelSampler",
    "UniPCSampler",
    "best_of_n",
    "check_sampler",
    "hyperparameters",
    "run_sampler",
    "search_codes",
    "spectral_levels",
    "teleport_report",
]

SAMPLERS = {
    "euler": EulerSampler,
    "heun": HeunSampler,
    "rk4": RK4Sampler,
    "flow": FlowSampler,
    "adams": AdamsSampler,
    "unipc": UniPCSampler,
    "dpmpp_2m": DPMSolverSampler,
    "dpmpp_3m": DPMSolver3Sampler,
    "dpmpp_2m_sde": SDEDPMSolverSampler,
    "adaptive": AdaptiveSampler,
    "ddpm": DDPMSampler,
    "euler_maruyama": EulerMaruyamaSampler,
    "edm": EDMSampler,
    "time_travel": TimeTravelSampler,
    "langevin": LangevinSampler,
    "mala": MALASampler,
    "predictor_corrector": PredictorCorrectorSampler,
    "dmcmc": DMCMCSampler,
}

ELSEWHERE = {"ddim": "euler", "ancestral": "ddpm", "dpmpp": "dpmpp_2m", "dopri5": "adaptive"}


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
        sampler = lookup(sampler, SAMPLERS, "sampler", "a sampler instance", ELSEWHERE)()
    sampler.check()
    return sampler
