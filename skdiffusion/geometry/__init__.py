"""The geometry of a data set, read off its score: ridges."""

from skdiffusion.geometry.ridge import RidgeProjector

__all__ = ["RidgeProjector"]
