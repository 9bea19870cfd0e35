r"""Singular values of the probability flow, and how fast they shrink with the noise.

Along the flow :math:`dx/d\log\sigma = x - D(x, \sigma)` a small displacement obeys
:math:`\dot Y = (I - J)\,Y`. With :math:`Y = U S V^\top`, started as the identity at high noise,

.. math:: \frac{d \log s_i}{d \log\sigma} = u_i^\top \Big(I - \tfrac12(J + J^\top)\Big) u_i

needs no symmetry and no commutation: 0 along the manifold and 1 across it, so that the dimension
is the number of slopes below a half. A Gaussian has
:math:`s_i \propto \sqrt{\lambda_i + \sigma^2}` and slopes :math:`\sigma^2/(\lambda_i + \sigma^2)`,
whatever gauge field is added to its score.

In the logarithm of the level nothing is stiff. Rows are followed upwards by fourth-order steps,
then their displacements downwards, orthogonalised at each step.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from skdiffusion.models import jacobian

__all__ = ["FlowSpectrum", "flow_spectrum"]

STEP = 1 / 8
"""Longest step in the logarithm of the level."""


class FlowSpectrum(NamedTuple):
    """Singular values of the flow and their slopes.

    Attributes
    ----------
    slopes : ndarray of shape (n_levels, n, m)
        Derivatives of the logarithms of the singular values by that of the level.
    singular_values : ndarray of shape (n_levels, n, m)
        Of the map from noise of unit variance at ``sigma_max`` to the level, largest first; in
        units of the noise per column, where that differs.
    """

    slopes: np.ndarray
    singular_values: np.ndarray


def flow_spectrum(model: Any, x: np.ndarray, levels: np.ndarray, sigma_max: float) -> FlowSpectrum:
    """Follow rows from the lowest level to the highest and their displacements back.

    Parameters
    ----------
    model : BaseScoreModel
    x : ndarray of shape (n, m)
        Rows at the lowest level.
    levels : ndarray of shape (n_levels,)
        Increasing noise levels at which to report.
    sigma_max : float
        Where the displacements start; above all levels.

    Returns
    -------
    FlowSpectrum

    Examples
    --------
    >>> from skdiffusion.models import GaussianModel
    >>> model = GaussianModel(np.zeros(3), [2.0, 1.0, 0.0])
    >>> found = flow_spectrum(model, np.ones((1, 3)), np.array([0.01]), 1000.0)
    >>> found.singular_values.round(3), np.abs(found.slopes).round(3)
    (array([[[1.414, 1.   , 0.01 ]]]), array([[[0., 0., 1.]]]))
    """
    ends = np.append(np.log(levels), np.log(sigma_max))
    counts = np.maximum(np.ceil(np.diff(ends) / STEP).astype(int), 1)
    grid = [
        np.linspace(a, b, 2 * k, endpoint=False)
        for (a, b), k in zip(pairwise(ends), counts, strict=True)
    ]
    grid = np.append(np.concatenate(grid), ends[-1])  # whole and half steps
    path = _upwards(model, x, grid)
    marks = np.append(0, 2 * np.cumsum(counts))

    n, m = x.shape
    Q = np.broadcast_to(np.eye(m), (n, m, m)).copy()
    triangle, found = Q.copy(), []
    rate = _rate(model, path[-1], grid[-1])
    for k in range(len(grid) - 1, 0, -2):
        h = grid[k - 2] - grid[k]
        middle, last = (_rate(model, path[j], grid[j]) for j in (k - 1, k - 2))
        Q, R = np.linalg.qr(_advance(Q, rate, middle, last, h))
        triangle, rate = R @ triangle, last
        if k - 2 in marks:
            turn, values, _ = np.linalg.svd(triangle)
            U = Q @ turn
            slopes = np.einsum("nji,njk,nki->ni", U, rate, U)
            found.append((slopes, values * sigma_max))
    return FlowSpectrum(*(np.stack(part[::-1]) for part in zip(*found, strict=True)))


def _upwards(model, x, grid):
    def velocity(x, u):
        return x - model.denoise(x, float(np.exp(u)))

    path = [x]
    for u, v in pairwise(grid):
        h = v - u
        k1 = velocity(x, u)
        k2 = velocity(x + h / 2 * k1, u + h / 2)
        k3 = velocity(x + h / 2 * k2, u + h / 2)
        k4 = velocity(x + h * k3, v)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(x)
    return path


def _rate(model, x, u):
    """Where the noise differs by column, of displacements in its units."""
    scale = np.broadcast_to(model.noise_scale, x.shape[1])
    slope = jacobian(model, x, float(np.exp(u)), of="denoise") * scale / scale[:, None]
    return np.eye(x.shape[1]) - slope


def _advance(Y, first, middle, last, h):
    k1 = first @ Y
    k2 = middle @ (Y + h / 2 * k1)
    k3 = middle @ (Y + h / 2 * k2)
    k4 = last @ (Y + h * k3)
    return Y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
