"""Composition: pipelines with densities, imputation, denoising and outlier detection."""

from skdiffusion.compose.denoiser import Denoiser, estimate_noise_level
from skdiffusion.compose.encoder import TableEncoder
from skdiffusion.compose.imputer import DiffusionImputer
from skdiffusion.compose.jacobians import log_abs_det_jacobian
from skdiffusion.compose.outliers import ScoreOutlierDetector
from skdiffusion.compose.pipeline import DensityPipeline, make_density_pipeline

__all__ = [
    "Denoiser",
    "DensityPipeline",
    "DiffusionImputer",
    "ScoreOutlierDetector",
    "TableEncoder",
    "estimate_noise_level",
    "log_abs_det_jacobian",
    "make_density_pipeline",
]
