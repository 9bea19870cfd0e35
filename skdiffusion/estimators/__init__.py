"""Score estimators: scikit-learn objects that learn a score model from rows."""

from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.estimators.blind import BlindScore
from skdiffusion.estimators.empirical import EmpiricalScore
from skdiffusion.estimators.gaussian import GaussianScore
from skdiffusion.estimators.mixture import GMMScore
from skdiffusion.estimators.neural import NeuralScore
from skdiffusion.estimators.noise_level import NoiseLevelEstimator
from skdiffusion.estimators.pretrained import PretrainedScore
from skdiffusion.estimators.random_features import RandomFeatureScore
from skdiffusion.estimators.stacked import StackedScore

__all__ = [
    "BaseScoreEstimator",
    "BlindScore",
    "EmpiricalScore",
    "GMMScore",
    "GaussianScore",
    "NeuralScore",
    "NoiseLevelEstimator",
    "PretrainedScore",
    "RandomFeatureScore",
    "StackedScore",
]
