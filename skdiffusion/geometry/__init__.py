"""The geometry of learned scores: gauge and gradient."""

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
    "gauge_test": ["kernel_gauge_test", "weak_gauge_residual"],
    "linear": ["linear_gradient"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'skdiffusion.geometry' has no attribute {name!r}")
    return getattr(import_module(f"skdiffusion.geometry.{_HOME_OF[name]}"), name)


def __dir__():
    return __all__


"""The geometry of a data set, read off its score: ridges."""
from skdiffusion.geometry.ridge import RidgeProjector

__all__ = ["RidgeProjector"]
"""Geometry of data by their score: dimension."""
from skdiffusion.geometry.dimension import IntrinsicDimensionEstimator

__all__ = ["IntrinsicDimensionEstimator"]
