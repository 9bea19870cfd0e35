r"""Ridges on the sphere: directions, and places on the earth.

For unit vectors :math:`|x - x_i|^2 = 2 - 2 x\cdot x_i`, so the Gaussian kernel of level
:math:`\sigma` restricted to the sphere is the von Mises-Fisher kernel of concentration
:math:`\kappa = 1/\sigma^2`. With the posterior mean :math:`m` and covariance :math:`C` of the
points, :math:`f = \log\sum_i w_i e^{\kappa x\cdot x_i}` has on the sphere, with
:math:`P = I - x x^\top`, the gradient and the Hessian

.. math:: \kappa P m, \qquad \kappa P \left( C/\sigma^2 - (x\cdot m) I \right) P .

So directional subspace-constrained mean shift (Zhang & Chen 2023) is the one in the plane with
the shift :math:`u = P m` and the ratios of :math:`P C P / \sigma^2 + (1 - x\cdot m) P`, and a step
is followed by a return to the sphere. Flat where :math:`\sigma \to 0`: then :math:`x\cdot m \to 1`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from skdiffusion.estimators._bandwidth import merge_rows
from skdiffusion.geometry._neighbours import neighbour_distance
from skdiffusion.geometry._tangent_spaces import Frames
from skdiffusion.models import EmpiricalModel, denoise_and_jacobian
from skdiffusion.utils.memory import rows_in_memory

__all__ = ["Sphere", "SphericalSpaces"]

LOO_ROWS = 2000
"""Rows at which the leave-one-out likelihood is evaluated, evenly spaced."""


class SphericalSpaces:
    """Frames of the kernel density of points on the unit sphere, at points on it.

    Parameters
    ----------
    model : EmpiricalModel
        Of unit vectors.
    sigma : float
        Level, in radians.
    """

    exact = True

    def __init__(self, model: Any, sigma: float):
        self.model, self.sigma = model, float(sigma)

    def rows_per_block(self, k: int) -> int:
        """Rows whose frames fit the working memory."""
        floats = 8 * self.model.n_features**2
        return rows_in_memory(floats)

    def move(self, points: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Points after a step in the tangent plane, back on the sphere."""
        moved = points + step
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    def __call__(self, points: np.ndarray, k: int, start=None, accuracy=None) -> Frames:
        """Frames at unit vectors: all ``n_features - 1`` directions of the tangent plane."""
        mean, jacobian = denoise_and_jacobian(self.model, points, self.sigma)
        plane = tangent_plane(points)
        across = np.einsum("md,mdi->mi", mean, plane)
        inner = np.swapaxes(plane, 1, 2) @ jacobian @ plane
        ratios, axes = np.linalg.eigh(0.5 * (inner + np.swapaxes(inner, 1, 2)))
        sagged = 1 - np.einsum("md,md->m", points, mean)
        return Frames(
            np.einsum("mdi,mi->md", plane, across),
            ratios[:, ::-1] + sagged[:, None],
            plane @ axes[:, :, ::-1],
        )


def tangent_plane(points: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the tangent plane at unit vectors, ``(m, D, D - 1)``.

    The reflection that takes a pole to the point takes the other axes to such a basis.
    """
    d = points.shape[1]
    mirror = points.copy()
    mirror[:, -1] += np.where(points[:, -1] < 0, -1.0, 1.0)
    mirror /= np.linalg.norm(mirror, axis=1, keepdims=True)
    return np.eye(d)[:, :-1] - 2 * mirror[:, :, None] * mirror[:, None, :-1]


class Sphere:
    """The earth: latitudes and longitudes in degrees to unit vectors and back."""

    unit = np.pi / 180
    """A degree, in radians."""

    @classmethod
    def of(cls, X: np.ndarray) -> Sphere:
        """The sphere of some rows, which must be latitudes and longitudes."""
        sphere = cls()
        sphere.check(X)
        return sphere

    def check(self, X: np.ndarray) -> None:
        """Raise ``ValueError`` unless the rows are latitudes and longitudes."""
        if X.shape[1] != 2 or np.abs(X[:, 0]).max() > 90:
            raise ValueError(
                "metric='haversine' takes two columns, latitude (-90 to 90) and longitude in "
                f"degrees; got {X.shape[1]} columns, the first from {X[:, 0].min():g} to "
                f"{X[:, 0].max():g}."
            )

    def embed(self, X: np.ndarray) -> np.ndarray:
        """Unit vectors of latitudes and longitudes, ``(n, 3)``."""
        X = np.asarray(X, dtype=np.float64)
        self.check(X)
        latitude, longitude = np.radians(X).T
        flat = np.cos(latitude)
        return np.stack(
            [flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=1
        )

    def rows(self, points: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Latitudes and longitudes of unit vectors, within half a turn of the rows of ``X``."""
        x, y, z = points.T
        latitude = np.degrees(np.arctan2(z, np.hypot(x, y)))
        longitude = np.degrees(np.arctan2(y, x))
        longitude += 360 * np.round((X[:, 1] - longitude) / 360)
        return np.stack([latitude, longitude], axis=1)

    def components(self, X: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Components to the north and to the east of vectors ``(n, 3, k)`` at rows of ``X``."""
        latitude, longitude = np.radians(np.asarray(X, dtype=np.float64)).T
        east = np.stack([-np.sin(longitude), np.cos(longitude), 0 * longitude], axis=1)
        upright = np.stack([np.cos(longitude), np.sin(longitude)], axis=1)
        north = np.column_stack([-np.sin(latitude)[:, None] * upright, np.cos(latitude)])
        return np.einsum("cnd,ndk->nck", np.stack([north, east]), vectors)

    def distance(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Degrees of the great circle between unit vectors."""
        chord = np.linalg.norm(end - start, axis=1)
        return np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1.0)))

    def tangent_spaces(self, model: EmpiricalModel, level: float, route: str) -> SphericalSpaces:
        """Frames of a kernel density at a level in radians; there is but one route."""
        return SphericalSpaces(model, level)

    def log_density(self, model: EmpiricalModel, points, sigma: float, exclude=None):
        """Log-density per steradian of the mixture of von Mises-Fisher kernels."""
        kappa = 1 / sigma**2
        in_space = model.log_prob(points, sigma, exclude=exclude)
        kernel = np.log(kappa / (2 * np.pi)) - np.log1p(-np.exp(-2 * kappa))
        return in_space + 1.5 * np.log(2 * np.pi * sigma**2) + kernel

    def bandwidth(self, rule: str, X, weights) -> float:
        """Bandwidth in degrees by a rule: ``"loo"``, ``"silverman"`` or ``"knn"``."""
        points, weights, _ = merge_rows(self.embed(X), weights)
        if len(points) < 2:
            raise ValueError("X has no variance: all of its rows are the same place.")
        if rule == "silverman":
            return float(np.degrees(rule_of_thumb(points, weights)))
        near = neighbour_distance(points, weights)  # chords, as good as angles where they are short
        if rule == "knn":
            return float(np.degrees(near))
        model = EmpiricalModel(points, weights)
        rows = np.arange(0, len(points), -(-len(points) // LOO_ROWS))

        def loss(log_sigma):
            found = self.log_density(model, points[rows], np.exp(log_sigma), exclude=rows)
            return -np.average(found, weights=weights[rows])

        grid = np.linspace(np.log(near / 20), np.log(max(1.0, 2 * near)), 24)
        best = int(np.argmin([loss(value) for value in grid]))
        around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-3})
        return float(np.degrees(np.exp(found.x)))


def rule_of_thumb(points: np.ndarray, weights: np.ndarray) -> float:
    """Level that is optimal for a von Mises-Fisher law with the resultant of the points.

    E. García-Portugués, "Exact risk improvement of bandwidth selectors for kernel density
    estimation with directional data", EJS 2013, for the sphere in three dimensions; numerator and
    denominator are scaled so that neither overflows.
    """
    length = np.linalg.norm(weights @ points) / weights.sum()
    kappa = length * (3 - length**2) / (1 - length**2)
    double, fourth = np.exp(-2 * kappa), np.exp(-4 * kappa)
    above = 8 * (1 - double) ** 2
    below = 2 * ((1 + 4 * kappa**2) * (1 - fourth) - 2 * kappa * (1 + fourth))
    return float(min((above / (kappa * weights.sum() * below)) ** (1 / 6), 1.0))
