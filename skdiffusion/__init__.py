"""skdiffusion: score-based (diffusion) models of vectors with the manners of scikit-learn.

>>> from sklearn.datasets import load_iris
>>> from skdiffusion import GaussianScore
>>> X = load_iris().data
>>> GaussianScore().fit(X).sample(3, random_state=0).shape
(3, 4)

Public names are loaded when they are first used, so that importing the package
is light and the closed-form estimators never import torch.
"""

from importlib import import_module

from skdiffusion._version import __version__

_HOMES = {
    "skdiffusion.compose": [
        "Denoiser",
        "DensityPipeline",
        "DiffusionImputer",
        "ScoreOutlierDetector",
        "TableEncoder",
        "make_density_pipeline",
    ],
    "skdiffusion.discrete_schedule": ["DiscreteSchedule"],
    "skdiffusion.estimators": [
        "BlindScore",
        "EmpiricalScore",
        "GMMScore",
        "GaussianScore",
        "NeuralScore",
        "NoiseLevelEstimator",
        "PretrainedScore",
        "RandomFeatureScore",
        "StackedScore",
    ],
    "skdiffusion.geometry": [
        "ConservativityDecomposer",
        "IntrinsicDimensionEstimator",
        "MarginalEnergy",
        "RidgeProjector",
    ],
    "skdiffusion.models": ["as_score_model"],
    "skdiffusion.schedules": [
        "CosineSchedule",
        "EDMSchedule",
        "FlowMatchingSchedule",
        "SubVPSchedule",
        "VESchedule",
        "VPSchedule",
    ],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_SUBMODULES = [
    "compose",
    "datasets",
    "estimators",
    "geometry",
    "inspection",
    "metrics",
    "models",
    "samplers",
    "schedules",
]

__all__ = ["__version__", *sorted(_HOME_OF), *_SUBMODULES]


def __getattr__(name):
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name in _SUBMODULES:
        value = import_module(f"skdiffusion.{name}")
    else:
        raise AttributeError(f"module 'skdiffusion' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return __all__
