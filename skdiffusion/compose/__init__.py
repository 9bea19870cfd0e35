"""Composition: pipelines with densities, imputation, denoising and outlier detection."""

from skdiffusion.compose.jacobians import log_abs_det_jacobian
from skdiffusion.compose.pipeline import DensityPipeline, make_density_pipeline

__all__ = ["DensityPipeline", "log_abs_det_jacobian", "make_density_pipeline"]
