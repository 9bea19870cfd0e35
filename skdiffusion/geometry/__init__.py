"""Geometry of data by their score: dimension."""

from skdiffusion.geometry.dimension import IntrinsicDimensionEstimator

__all__ = ["IntrinsicDimensionEstimator"]
