"""Score models: immutable mathematical objects, polymorphic in the array library."""

from skdiffusion.models.affine import AffineModel
from skdiffusion.models.at_time import AtTime
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.blind import BlindModel
from skdiffusion.models.compose import (
    IndependentModel,
    ProductModel,
    SmoothedModel,
    SwitchedModel,
    TemperedModel,
)
from skdiffusion.models.conditioned import ConditionedModel, KnownColumnsModel
from skdiffusion.models.covariance import SpectralCovariance
from skdiffusion.models.empirical import BarycentricModel, EmpiricalModel
from skdiffusion.models.external import CallableModel, as_score_model
from skdiffusion.models.gauge import AdditiveGauge
from skdiffusion.models.gaussian import GaussianModel
from skdiffusion.models.guided import GuidedModel, LabelGuidedModel
from skdiffusion.models.jacobian import (
    denoise_and_divergence,
    denoise_and_jacobian,
    divergence,
    jacobian,
    jvp,
    vjp,
)
from skdiffusion.models.labels import LabelCode
from skdiffusion.models.measurement import LinearMeasurement, posterior
from skdiffusion.models.mixture import MixtureModel
from skdiffusion.models.neural import NeuralModel, Preconditioner
from skdiffusion.models.random_features import RandomFeatureModel, RandomFeatures
from skdiffusion.models.sphere import SphereModel
from skdiffusion.models.stacked import StackedModel
from skdiffusion.models.superposition import SuperpositionModel
from skdiffusion.models.uniform import UniformModel

__all__ = [
    "AdditiveGauge",
    "AffineModel",
    "AtTime",
    "BarycentricModel",
    "BaseScoreModel",
    "BlindModel",
    "CallableModel",
    "ConditionedModel",
    "EmpiricalModel",
    "GaussianModel",
    "GuidedModel",
    "IndependentModel",
    "KnownColumnsModel",
    "LabelCode",
    "LabelGuidedModel",
    "LinearMeasurement",
    "MixtureModel",
    "NeuralModel",
    "Preconditioner",
    "ProductModel",
    "RandomFeatureModel",
    "RandomFeatures",
    "SmoothedModel",
    "SpectralCovariance",
    "SphereModel",
    "StackedModel",
    "SuperpositionModel",
    "SwitchedModel",
    "TemperedModel",
    "UniformModel",
    "as_score_model",
    "denoise_and_divergence",
    "denoise_and_jacobian",
    "divergence",
    "jacobian",
    "jvp",
    "posterior",
    "vjp",
]
