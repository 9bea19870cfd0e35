r"""The gradient part of a linear field, and of any field as far as quadratic potentials see it.

For :math:`v(x) = M(x - \mu)` under a law with covariance :math:`\Sigma` the projection onto the
gradients of quadratic potentials in :math:`L^2(p)` is :math:`S(x - \mu)`, S symmetric, with

.. math:: \Sigma S + S \Sigma = C + C^\top, \qquad
          C = E[v\,(x-\mu)^\top] \;(= M\Sigma \text{ for a linear field}),

a Lyapunov equation; in the axes of :math:`\Sigma`,
:math:`S_{ij} = (C_{ij} + C_{ji})/(\lambda_i + \lambda_j)`. For an elliptical law it is the whole
gradient part. The symmetric part :math:`(M + M^\top)/2` is the answer for isotropic laws alone.
Where :math:`\lambda_i = \lambda_j = 0` nothing is observed: from a matrix the least change
:math:`(M_{ij} + M_{ji})/2` is taken, from data zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models.covariance import SpectralCovariance

__all__ = ["linear_gradient", "solve_lyapunov"]


def linear_gradient(matrix: Any, covariance: Any) -> np.ndarray:
    r"""Gradient part S of the linear field :math:`x \mapsto M(x - \mu)` under a covariance.

    Parameters
    ----------
    matrix : array-like of shape (d, d)
        M.
    covariance : array-like of shape (d, d)
        Of the law, positive semi-definite; it may be singular.

    Returns
    -------
    ndarray of shape (d, d)
        Symmetric; :math:`(M - S)\Sigma` is antisymmetric: the rest is a gauge field.

    Examples
    --------
    >>> linear_gradient([[0.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 4.0]])
    array([[0. , 0.8],
           [0.8, 0. ]])
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    spectrum = SpectralCovariance.from_matrix(covariance)
    d = spectrum.n_features
    if matrix.shape != (d, d) or not np.isfinite(matrix).all():
        raise ValueError(f"matrix must have shape ({d}, {d}) and be finite; got {matrix.shape}.")
    variances, axes = spectrum.variances, spectrum.axes
    cross = axes.T @ matrix @ axes * variances
    unseen = _unseen(variances)
    free = np.where(unseen, axes.T @ (matrix + matrix.T) @ axes / 2, 0.0)
    return solve_lyapunov(axes @ cross @ axes.T, variances, axes) + axes @ free @ axes.T


def solve_lyapunov(cross: np.ndarray, variances: np.ndarray, axes: np.ndarray) -> np.ndarray:
    r"""Symmetric S of least norm with :math:`\Sigma S + S\Sigma = C + C^\top`.

    Parameters
    ----------
    cross : ndarray of shape (..., d, d)
        C, one or many.
    variances : ndarray of shape (d,)
    axes : ndarray of shape (d, d)
        Eigenvalues and eigenvectors of the covariance.

    Returns
    -------
    ndarray of shape (..., d, d)
    """
    turned = axes.T @ cross @ axes
    sums = np.where(_unseen(variances), np.inf, variances[:, None] + variances)
    return axes @ ((turned + np.swapaxes(turned, -1, -2)) / sums) @ axes.T


def _unseen(variances):
    """Pairs of axes without variance, up to the rounding of a covariance from data."""
    floor = 1e-13 * len(variances) * variances.max(initial=0)
    return variances[:, None] + variances <= floor
