r"""The components of a mixture as stacked arrays: one matrix product in, one out.

Component ``k`` has centre :math:`m_k` and covariance :math:`C_k = U_k \Lambda_k U_k^\top
+ s_k (I - U_k U_k^\top)`. Its coordinates of a point are

.. math:: c_k = U_k^\top (x - m_k) \in \mathbb{R}^r, \qquad
          e_k = (x - m_k) - U_k c_k \in \mathbb{R}^d \ (\text{only if } r < d),

and every function of :math:`C_k` acts on them by multiplication:
:math:`f(C_k)(x-m_k) = U_k f(\Lambda_k) c_k + f(s_k) e_k`. Two layouts give them for all
components at once: :class:`SpectralStack` by one product with all the axes side by side,
:class:`DiagonalStack` by at most one common rotation (diagonal and tied covariances).

The residual :math:`e_k` is formed, not inferred from :math:`\|x-m_k\|^2 - \|c_k\|^2`: the
difference of squares is lost to rounding where :math:`s_k + \sigma^2` is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models.covariance import SpectralCovariance
from skdiffusion.utils.arrays import Parameters, like, namespace

__all__ = ["DiagonalStack", "SpectralStack", "stack_components"]


def stack_components(centres: np.ndarray, covariances: list[SpectralCovariance]):
    """The cheapest layout that holds these components.

    Parameters
    ----------
    centres : ndarray of shape (k, d)
    covariances : list of k SpectralCovariance

    Returns
    -------
    DiagonalStack or SpectralStack
    """
    d = centres.shape[1]
    first = covariances[0]
    if all(c is first for c in covariances) and first.axes is not None and not first.n_residual:
        variances = np.broadcast_to(first.variances, centres.shape)
        return DiagonalStack(centres, variances, first.axes)
    diagonals = [_as_diagonal(c) for c in covariances]
    if all(diagonal is not None for diagonal in diagonals):
        return DiagonalStack(centres, np.stack(diagonals))

    rank = max(len(c.variances) for c in covariances)
    variances = np.empty((len(covariances), rank))
    axes = np.zeros((len(covariances), d, rank))
    for k, covariance in enumerate(covariances):
        r = len(covariance.variances)
        variances[k, :r] = covariance.variances
        # a missing axis of variance s_k: zero if the residual covers it, else completed
        variances[k, r:] = covariance.residual
        axes[k, :, :r] = np.eye(d) if covariance.axes is None else covariance.axes
        if rank == d and r < d:
            axes[k, :, r:] = np.linalg.qr(axes[k, :, :r], mode="complete")[0][:, r:]
    residuals = None if rank == d else np.array([c.residual for c in covariances])
    return SpectralStack(centres, variances, axes, residuals)


def _as_diagonal(covariance):
    if covariance.axes is None:
        return covariance.variances
    if len(covariance.variances) == 0:
        return np.full(covariance.n_features, covariance.residual)
    return None


class DiagonalStack:
    """Components whose axes are the coordinates, or one rotation of them.

    Parameters
    ----------
    centres : ndarray of shape (k, d)
    variances : ndarray of shape (k, d)
    rotation : ndarray of shape (d, d), optional
        Common axes, one per column.
    """

    def __init__(self, centres: Any, variances: Any, rotation: Any = None):
        offsets = centres if rotation is None else centres @ rotation
        self._seen = Parameters(offsets=offsets, variances=variances, rotation=rotation)
        self.n_components, self.n_features = offsets.shape
        self.width = offsets.size  # numbers per row in the coordinates of all components
        self.span = self.n_features  # and in the axes that make up a matrix

    def coordinates(self, x):
        """Coordinates ``(c, e)`` of each row in each component: ``(n, k, d)`` and ``None``."""
        return self._turned(x)[:, None, :] - self._seen.like(x).offsets, None

    def directions(self, v):
        """Coordinates of vectors rather than points: without the centres."""
        return self._turned(v)[:, None, :], None

    def gains(self, function, x):
        """A function of the variances on and off the axes."""
        return function(self._seen.like(x).variances), None

    def total(self, values, rest):
        """Sum over all directions of values on the axes (and off them), per component."""
        return namespace(values).sum(values, axis=-1)

    def combine(self, c, e):
        """Sum over components of the vectors with coordinates ``(c, e)``: shape ``(n, d)``."""
        return self._returned(namespace(c).sum(c, axis=1))

    def vectors(self, c, e):
        """The vectors with coordinates ``(c, e)``: shape ``(n, k, d)``."""
        return self._returned(c)

    def matrices(self, weights, gain, rest):
        """Weighted sums of the matrices with these gains: shape ``(n, d, d)``."""
        xp = namespace(weights)
        diagonal = xp.sum(weights[:, :, None] * gain, axis=1)
        rotation = self._seen.like(weights).rotation
        if rotation is None:
            return diagonal[:, :, None] * like(np.eye(self.n_features), weights)
        return xp.matmul(rotation[None] * diagonal[:, None, :], rotation.T[None])

    def _turned(self, x):
        rotation = self._seen.like(x).rotation
        return x if rotation is None else x @ rotation

    def _returned(self, c):
        rotation = self._seen.like(c).rotation
        return c if rotation is None else c @ rotation.T


class SpectralStack:
    """Components with axes of their own, full or low rank plus isotropic.

    Parameters
    ----------
    centres : ndarray of shape (k, d)
    variances : ndarray of shape (k, r)
    axes : ndarray of shape (k, d, r)
        Orthonormal columns, or zero columns for axes that are not used.
    residuals : ndarray of shape (k,), optional
        Variances off the axes; ``None`` if ``r = d``.
    """

    def __init__(self, centres: Any, variances: Any, axes: Any, residuals: Any = None):
        k, d, r = axes.shape
        self._seen = Parameters(
            centres=centres,
            variances=variances,
            residuals=residuals,
            axes=axes,
            basis=axes.transpose(1, 0, 2).reshape(d, k * r),
            offsets=np.einsum("kd,kdr->kr", centres, axes),
        )
        self.n_components, self.n_features, self.rank = k, d, r
        self.has_rest = residuals is not None
        self.width = k * (r + 2 * d * self.has_rest)
        self.span = k * r

    def coordinates(self, x):
        """Coordinates ``(c, e)`` of each row: ``(n, k, r)`` and ``(n, k, d)`` or ``None``."""
        seen = self._seen.like(x)
        c = self._along(x) - seen.offsets
        return c, self._rest(x[:, None, :] - seen.centres, c) if self.has_rest else None

    def directions(self, v):
        """Coordinates of vectors rather than points: without the centres."""
        c = self._along(v)
        return c, self._rest(v[:, None, :], c) if self.has_rest else None

    def gains(self, function, x):
        """A function of the variances on and off the axes."""
        seen = self._seen.like(x)
        rest = function(seen.residuals[:, None]) if self.has_rest else None
        return function(seen.variances), rest

    def total(self, values, rest):
        """Sum over all directions of values on the axes (and off them), per component."""
        total = namespace(values).sum(values, axis=-1)
        if rest is None:
            return total
        return total + (self.n_features - self.rank) * rest[..., 0]

    def combine(self, c, e):
        """Sum over components of the vectors with coordinates ``(c, e)``: shape ``(n, d)``."""
        xp = namespace(c)
        flat = xp.reshape(c, (c.shape[0], self.n_components * self.rank))
        along = flat @ self._seen.like(c).basis.T
        return along if e is None else along + xp.sum(e, axis=1)

    def vectors(self, c, e):
        """The vectors with coordinates ``(c, e)``: shape ``(n, k, d)``."""
        along = self._embedded(c)
        return along if e is None else along + e

    def matrices(self, weights, gain, rest):
        """Weighted sums of the matrices with these gains: shape ``(n, d, d)``."""
        xp, seen = namespace(weights), self._seen.like(weights)
        n, d = weights.shape[0], self.n_features
        identity = like(np.eye(d), weights)
        excess = gain if rest is None else gain - rest
        if gain.ndim == 2:  # the same for all rows: one matrix per component
            each = xp.matmul(seen.axes * excess[:, None, :], xp.matrix_transpose(seen.axes))
            result = xp.reshape(weights @ xp.reshape(each, (-1, d * d)), (n, d, d))
        else:
            flat = xp.reshape(weights[:, :, None] * excess, (n, 1, -1))
            result = xp.matmul(seen.basis[None] * flat, seen.basis.T[None])
        if rest is None:
            return result
        return result + xp.sum(weights * rest[..., 0], axis=-1)[:, None, None] * identity

    def _along(self, x):
        c = x @ self._seen.like(x).basis
        return namespace(c).reshape(c, (x.shape[0], self.n_components, self.rank))

    def _rest(self, v, c):
        return v - self._embedded(c)

    def _embedded(self, c):
        xp = namespace(c)
        axes = xp.matrix_transpose(self._seen.like(c).axes)
        by_component = xp.matmul(xp.permute_dims(c, (1, 0, 2)), axes)
        return xp.permute_dims(by_component, (1, 0, 2))
