"""Score estimators: scikit-learn objects that learn a score model from rows."""

from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.estimators.gaussian import GaussianScore

__all__ = ["BaseScoreEstimator", "GaussianScore"]
