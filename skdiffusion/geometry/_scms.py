r"""Subspace-constrained mean shift with Newton's step: points on their way to a ridge.

The ``k``-dimensional ridge of a smoothed law is where the mean shift has no normal part,

.. math:: R_\sigma = \{ y : N^\top u(y) = 0,\; r_{k+1}(y) < 1 \}, \quad N \perp T = (v_1 \dots v_k),

with ratios and directions from :mod:`skdiffusion.geometry._tangent_spaces`. Mean shift in the
normal space (Ozertem & Erdogmus 2011) contracts by :math:`r_{k+1}` a step. As
:math:`\partial u/\partial y = J - I`, Newton's step divides by what is left:

.. math:: \Delta y = \sum_{j>k} v_j \frac{v_j^\top u}{1 - r_j},

exact at once for a Gaussian; what remains is the turning of the frame. No step is longer than
:math:`\sigma`, where the picture of the density changes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

__all__ = ["Projection", "project"]

SHALLOW = 0.05
"""Least ``1 - r`` that Newton's step divides by."""
OVERSHOT = 0.5
"""Share of the slope along a step that may be left after it, the other way; then steps halve."""


@dataclass
class Projection:
    """Where points came to rest, and what was found there.

    Attributes
    ----------
    points : ndarray of shape (m, D)
    residual : ndarray of shape (m,)
        Length of the normal part of the mean shift.
    shift : ndarray of shape (m,)
        Length of the mean shift.
    ratios : ndarray of shape (m, p)
        Leading eigenvalues of the denoiser's Jacobian.
    axes : ndarray of shape (m, D, p)
    gap : ndarray of shape (m,)
        Ratio of the last tangent direction minus that of the first normal one.
    converged : ndarray of bool of shape (m,)
    n_iter : ndarray of int of shape (m,)
    """

    points: np.ndarray
    residual: np.ndarray
    shift: np.ndarray
    ratios: np.ndarray
    axes: np.ndarray
    gap: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray

    @classmethod
    def concatenate(cls, parts: list) -> Projection:
        """Projections of consecutive blocks of rows as one."""
        values = {f.name: [getattr(part, f.name) for part in parts] for f in fields(cls)}
        return cls(**{name: np.concatenate(arrays) for name, arrays in values.items()})


def gaps(ratios: np.ndarray, k: int) -> np.ndarray:
    """Ratio of the last tangent direction minus that of the first normal one; else infinite."""
    if 0 < k < ratios.shape[1]:
        return ratios[:, k - 1] - ratios[:, k]
    return np.full(len(ratios), np.inf)


def project(
    spaces: Any,
    points: np.ndarray,
    k: int,
    *,
    max_iter: int = 200,
    tol: float = 1e-6,
    gap_tol: float = 1e-3,
    newton: bool = True,
) -> Projection:
    """Move points to the ridge.

    A point stops where the normal part of its mean shift is below ``tol`` noise levels, and where
    the gap falls below ``gap_tol``: beyond that its normal directions are arbitrary.

    Parameters
    ----------
    spaces : TangentSpaces
        Also gives the level and how to ``move``.
    points : ndarray of shape (m, D)
    k : int
        Dimension of the ridge.
    max_iter : int
    tol, gap_tol : float
    newton : bool
        Whether to take Newton's step rather than the mean shift.

    Returns
    -------
    Projection
    """
    m, sigma = len(points), spaces.sigma
    points = np.array(points, dtype=np.float64)
    residual, length, gap = np.empty(m), np.empty(m), np.empty(m)
    converged, n_iter = np.zeros(m, bool), np.zeros(m, int)
    damping, accuracy = np.ones(m), np.full(m, 0.0 if spaces.exact else 1e-2)
    ratios = axes = None
    rows, last, rise = np.arange(m), np.zeros_like(points), np.zeros(m)
    for iteration in range(max_iter + 1):
        start = None if axes is None else axes[rows]
        frames = spaces(points[rows], k, start, accuracy[rows])
        if axes is None:
            ratios = np.empty((m, frames.ratios.shape[1]))
            axes = np.empty((m, *frames.axes.shape[1:]))
        ratios[rows], axes[rows], gap[rows] = frames.ratios, frames.axes, gaps(frames.ratios, k)
        normal = frames.shift - _along(frames.axes[:, :, :k], frames.shift)
        size = np.linalg.norm(normal, axis=1)
        # the turning frame can make full steps overshoot
        over = np.einsum("md,md->m", normal, last) < -OVERSHOT * rise
        damping[rows] = np.where(over, 0.5 * damping[rows], np.minimum(1.5 * damping[rows], 1))
        residual[rows], length[rows] = size, np.linalg.norm(frames.shift, axis=1)
        n_iter[rows] = iteration
        small = size <= tol * sigma
        sharp = accuracy[rows] <= tol
        converged[rows] = small & sharp & (gap[rows] >= gap_tol)
        if not spaces.exact:
            accuracy[rows] = np.where(
                small, 0.1 * tol, np.clip(0.1 * size / sigma, 0.1 * tol, 1e-2)
            )
        going = ~converged[rows] & (gap[rows] >= gap_tol)
        if iteration == max_iter or not going.any():
            break
        step = _newton_step(frames, normal, k) if newton else normal
        reach = np.linalg.norm(step, axis=1)
        step *= (damping[rows] * sigma / np.maximum(reach, sigma))[:, None]
        rows, last = rows[going], step[going]
        rise = np.einsum("md,md->m", normal[going], last)
        points[rows] = spaces.move(points[rows], last)
    return Projection(points, residual, length, ratios, axes, gap, converged, n_iter)


def _along(axes, vectors):
    """Part of each vector in the span of its row's axes."""
    return np.einsum("mdk,mk->md", axes, np.einsum("mdk,md->mk", axes, vectors))


def _newton_step(frames, normal, k):
    axes, ratios = frames.axes[:, :, k:], frames.ratios[:, k:]
    left = 1 - ratios
    # uphill also where the density is convex; directions without a known ratio: r = 0
    gain = np.where(left > 0, 1 / np.maximum(left, SHALLOW), 1.0) - 1
    return normal + np.einsum(
        "mdk,mk->md", axes, gain * np.einsum("mdk,md->mk", axes, frames.shift)
    )


def returns(spaces: Any, points: np.ndarray, axes: np.ndarray, k: int) -> np.ndarray:
    """Whether points beside a ridge move back to it under the projected mean shift.

    Its Jacobian, by central differences, has ``k`` vanishing eigenvalues on a ridge; those of its
    block in the known normal directions must have negative real parts.

    Parameters
    ----------
    spaces : TangentSpaces
    points : ndarray of shape (m, D)
    axes : ndarray of shape (m, D, p)
        The first ``k`` tangent, the others normal.
    k : int

    Returns
    -------
    ndarray of bool of shape (m,)
    """
    normals = axes[:, :, k:]
    block = np.empty((len(points), normals.shape[2], normals.shape[2]))
    h = 1e-4 * spaces.sigma
    for j in range(normals.shape[2]):
        ahead, behind = (
            _normal_shift(spaces, spaces.move(points, sign * h * normals[:, :, j]), axes, k)
            for sign in (1, -1)
        )
        block[:, :, j] = np.einsum("mdi,md->mi", normals, (ahead - behind) / (2 * h))
    return np.linalg.eigvals(block).real.max(axis=1, initial=-np.inf) < 0


def _normal_shift(spaces, points, start, k):
    frames = spaces(points, k, start)
    return frames.shift - _along(frames.axes[:, :, :k], frames.shift)
