"""Composition: pipelines with densities, imputation, denoising and outlier detection."""
