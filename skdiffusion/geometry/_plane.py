"""The space of ridges where distances are Euclidean: rows as they are.

A space says how rows become points and back, and how long things are. The other one is the
sphere (:mod:`skdiffusion.geometry.directional`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.estimators import EmpiricalScore
from skdiffusion.estimators._bandwidth import merge_rows
from skdiffusion.geometry._neighbours import neighbour_distance
from skdiffusion.geometry._tangent_spaces import TangentSpaces

__all__ = ["Plane"]


class Plane:
    """Euclidean space of any dimension."""

    unit = 1.0
    """The unit of lengths for the user, in those of the points."""

    def embed(self, X: np.ndarray) -> np.ndarray:
        """Points of rows."""
        return X.astype(np.float64)

    def rows(self, points: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Rows of points, beside the rows ``X`` that they come from."""
        return points

    def components(self, X: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Components in the columns of ``X`` of vectors ``(n, d, k)`` at its rows."""
        return vectors

    def distance(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Distances of points, in the units of the user."""
        return np.linalg.norm(end - start, axis=1)

    def tangent_spaces(self, model: Any, level: float, route: str) -> TangentSpaces:
        """Frames of a model at a level in the units of the points."""
        return TangentSpaces(model, level, route)

    def log_density(self, model: Any, points: np.ndarray, level: float) -> np.ndarray:
        """Log-density of a smoothed law at points."""
        return model.log_prob(points, level)

    def bandwidth(self, rule: str, X: np.ndarray, weights: np.ndarray) -> float:
        """Bandwidth by a rule, in the units of the user."""
        if rule == "knn":
            return neighbour_distance(*merge_rows(X, weights)[:2])
        return EmpiricalScore(rule, scaling="none").fit(X, sample_weight=weights).bandwidth_
