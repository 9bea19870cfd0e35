"""The geometry of data, read off a score: gauge and gradient, dimension, ridges, noise."""

from importlib import import_module

_HOMES = {
    "conservativity": ["ConservativityDecomposer"],
    "diagnostics": [
        "ConservativityReport",
        "conservativity_report",
        "jacobian_asymmetry",
        "loop_integrals",
        "score_fpe_residual",
        "step_inflation",
        "strong_gauge_residual",
    ],
    "dimension": ["IntrinsicDimensionEstimator"],
    "gauge_test": ["kernel_gauge_test", "weak_gauge_residual"],
    "linear": ["linear_gradient"],
    "marginal_energy": ["EnergyDecomposition", "MarginalEnergy"],
    "noise_posterior": ["NoisePath", "NoisePosterior"],
    "noise_prior": [
        "CustomPrior",
        "LogNormalPrior",
        "NoisePrior",
        "PowerPrior",
        "UniformPrior",
    ],
    "ridge": ["RidgeProjector"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'skdiffusion.geometry' has no attribute {name!r}")
    return getattr(import_module(f"skdiffusion.geometry.{_HOME_OF[name]}"), name)


def __dir__():
    return __all__
