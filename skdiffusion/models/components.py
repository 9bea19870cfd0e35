r"""The components of a mixture as stacked arrays: one matrix product in, one out.

Component ``k`` has centre :math:`m_k` and covariance :math:`C_k = U_k \Lambda_k U_k^\top
+ s_k (I - U_k U_k^\top)`. Its coordinates of a point are

.. math:: c_k = U_k^\top (x - m_k) \in \mathbb{R}^r, \qquad
          e_k = (x - m_k) - U_k c_k \in \mathbb{R}^d \ (\text{only if } r < d),

and every function of :math:`C_k` acts on them by multiplication:
:math:`f(C_k)(x-m_k) = U_k f(\Lambda_k) c_k + f(s_k) e_k`. Two layouts give them for all
components at once: :class:`SpectralStack` by one product with all the axes side by side,
:class:`DiagonalStack` by at most one common rotation (diagonal and tied covariances).

A weighted sum for many rows at one level takes half the arithmetic by matrices, where rounding
allows (:class:`~skdiffusion.models.component_matrices.ComponentMatrices`); rows with levels of
their own share a division and few logarithms
(:func:`~skdiffusion.models.component_levels.locate_by_row`).

The residual :math:`e_k` is formed, not inferred from :math:`\|x-m_k\|^2 - \|c_k\|^2`: the
difference of squares is lost to rounding where :math:`s_k + \sigma^2` is small. Squares are
expanded only for diagonals whose centres are not far apart in units of their widths, where
all components then cost two small products.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models.component_levels import Pulls, locate_by_row
from skdiffusion.models.component_matrices import (
    ComponentMatrices,
    Precision,
    Shrinkage,
    Vectors,
    with_ones,
)
from skdiffusion.models.covariance import SpectralCovariance
from skdiffusion.utils.arrays import Parameters, is_torch, like, namespace

__all__ = ["DiagonalStack", "SpectralStack", "squared_norms", "stack_components"]

EXPANDS_UP_TO = 2000.0
"""Squared distance of the centres, in widths, up to which squares may be expanded."""

NEGLIGIBLE = {np.dtype(t): np.finfo(t).eps ** 2 for t in (np.float32, np.float64)}
"""Weights below this move no digit of a sum over components."""
SPARSE = 0.2
"""Share of weights that are not negligible up to which small products beat a large one."""
SMALL_PRODUCT = 2**12
"""Multiplications a row below which a large product is cheap anyway."""


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

    def locate(self, x, level, pulls=False):
        """Where rows lie (for ``pull``, ``vectors``); ``(x-m)' (C + level)^-1 (x-m)``; log-det."""
        xp, seen = namespace(x), self._seen.like(x)
        turned, log_det = self._turned(x), self.trace(_log_of_sum(level), x)
        if self._expands(level):
            precision = 1 / (seen.variances + level)
            squares = (turned * turned) @ precision.T
            cross = turned @ (seen.offsets * precision).T
            quadratic = squares - 2 * cross + xp.sum(seen.offsets**2 * precision, axis=-1)
            return (turned, None), quadratic, log_det
        c = turned[:, None, :] - seen.offsets
        white = c / xp.sqrt(seen.variances + level)
        return (turned, c), squared_norms(white), log_det

    def pull(self, where, weights, function):
        """Weighted sum over components of ``f(C) (x - m)``, shape ``(n, d)``."""
        xp, (turned, c) = namespace(weights), where
        seen = self._seen.like(weights)
        gain = function(seen.variances)
        if c is None:
            return self._returned(turned * (weights @ gain) - weights @ (gain * seen.offsets))
        return self._returned(xp.sum(weights[:, :, None] * gain * c, axis=1))

    def vectors(self, where, function):
        """The vectors ``f(C) (x - m)`` of all components, shape ``(n, k, d)``."""
        turned, c = where
        seen = self._seen.like(turned)
        c = turned[:, None, :] - seen.offsets if c is None else c
        return self._returned(function(seen.variances) * c)

    def squares(self, where, function):
        """Squared lengths of ``f(C) (x - m)``, shape ``(n, k)``; expanded where ``locate`` did."""
        xp, (turned, c) = namespace(where[0]), where
        seen = self._seen.like(turned)
        gain = function(seen.variances)
        if c is not None:
            return squared_norms(gain * c)
        offsets, square = gain * seen.offsets, gain * gain
        cross = turned @ (gain * offsets).T
        return (turned * turned) @ square.T - 2 * cross + xp.sum(offsets**2, axis=-1)

    def apply(self, weights, function, v):
        """Weighted sum over components of ``f(C) v``, shape ``(n, d)``."""
        gain = function(self._seen.like(v).variances)
        return self._returned(
            namespace(v).sum(weights[:, :, None] * gain, axis=1) * self._turned(v)
        )

    def trace(self, function, x):
        """Trace of ``f(C)`` of each component: ``(k,)``, or ``(n, k)`` if levels are by row."""
        return namespace(x).sum(function(self._seen.like(x).variances), axis=-1)

    def matrices(self, weights, function):
        """Weighted sums over components of the matrices ``f(C)``: shape ``(n, d, d)``."""
        xp, seen = namespace(weights), self._seen.like(weights)
        diagonal = xp.sum(weights[:, :, None] * function(seen.variances), axis=1)
        if seen.rotation is None:
            return diagonal[:, :, None] * like(np.eye(self.n_features), weights)
        return xp.matmul(seen.rotation[None] * diagonal[:, None, :], seen.rotation.T[None])

    def _expands(self, level):
        """Whether expanded squares lose no more than three digits to cancellation.

        What cancels is the square of a centre in units of the component's width: a far
        point makes the whole result large with it.
        """
        if not isinstance(level, float):
            return False
        widths = self._seen.variances + level
        return (
            bool((widths > 0).all())
            and float((self._seen.offsets**2 / widths).sum(axis=1).max()) < EXPANDS_UP_TO
        )

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
        self._shared: dict = {}
        # the rest off few axes costs passes over as many vectors as there are components
        self._few_columns = d <= (3 * r if residuals is None else 3 * r + 64)
        self.has_rest = residuals is not None
        every = variances if residuals is None else np.append(variances, residuals)
        self._matrices = ComponentMatrices(centres, every)
        self.width = k * (r + 2 * d * self.has_rest)
        self.span = k * r

    def locate(self, x, level, pulls=False):
        """Where rows lie (for ``pull``, ``vectors``); ``(x-m)' (C + level)^-1 (x-m)``; log-det.

        With ``pulls`` all that follows is a pull by the precision of this level. Where every row
        has a level of its own, ``pull`` and ``squares`` are of these levels, whichever is asked.
        """
        xp, seen = namespace(x), self._seen.like(x)
        if isinstance(level, np.ndarray) and not self.has_rest:
            return locate_by_row(x, level[:, 0, 0], seen)
        log_det = self._log_det(level, x)
        if pulls and self._few_columns and self._matrices.serve(x, level):
            where = self._matrices.locate(x, self._once("all", level, x, self._side_by_side))
            return *where, log_det
        if isinstance(level, float) and not self.has_rest:
            # one level: white coordinates straight from the product, centres included
            basis, width = self._once("white", level, x, self._white)
            c = self._along(with_ones(x), basis)
            return (c, None, width), squared_norms(c), log_det
        root = 1 / xp.sqrt(seen.variances + level)
        c = self._along(x, seen.basis) - seen.offsets
        quadratic = squared_norms(c * root)
        if not self.has_rest:
            return (c, None, None), quadratic, log_det
        e = x[:, None, :] - seen.centres - self._embedded(c)
        rest = 1 / xp.sqrt(seen.residuals[:, None] + level)
        return (c, e, None), quadratic + squared_norms(e * rest), log_det

    def pull(self, where, weights, function):
        """Weighted sum over components of ``f(C) (x - m)``, shape ``(n, d)``."""
        if isinstance(where, Vectors):
            return self._matrices.pull(where, weights)
        if isinstance(where, Pulls):
            basis = self._seen.like(weights).basis
            if isinstance(function, Shrinkage):
                basis = self._once("shrunk", None, weights, self._shrunk)
            return where.back(weights, basis)
        xp, (c, e, width) = namespace(weights), where
        gain, rest = self._gains(function, weights)
        if gain.ndim == 2:
            made = (function, width is None)
            back = self._once("back", made, c, lambda *_: self._back(gain, width))
            along = self._drawn_back(c, weights, back)
        else:
            gain = gain if width is None else gain * width
            along = self._flat(weights[:, :, None] * gain * c) @ self._seen.like(c).basis.T
        return along if e is None else along + xp.sum(weights[:, :, None] * rest * e, axis=1)

    def vectors(self, where, function):
        """The vectors ``f(C) (x - m)`` of all components, shape ``(n, k, d)``."""
        c, e, width = _rows_first(where)
        gain, rest = self._gains(function, c)
        along = self._embedded((gain if width is None else gain * width) * c)
        return along if e is None else along + rest * e

    def squares(self, where, function):
        """Squared lengths of ``f(C) (x - m)``, shape ``(n, k)``."""
        if isinstance(where, Pulls):
            return where.squares()
        c, e, width = where
        gain, rest = self._gains(function, c)
        total = squared_norms((gain if width is None else gain * width) * c)
        return total if e is None else total + squared_norms(rest * e)

    def apply(self, weights, function, v):
        """Weighted sum over components of ``f(C) v``, shape ``(n, d)``."""
        c = self._along(v, self._seen.like(v).basis)
        e = v[:, None, :] - self._embedded(c) if self.has_rest else None
        return self.pull((c, e, None), weights, function)

    def trace(self, function, x):
        """Trace of ``f(C)`` of each component: ``(k,)``, or ``(n, k)`` if levels are by row."""
        gain, rest = self._gains(function, x)
        total = namespace(x).sum(gain, axis=-1)
        return total if rest is None else total + (self.n_features - self.rank) * rest[..., 0]

    def matrices(self, weights, function):
        """Weighted sums over components of the matrices ``f(C)``: shape ``(n, d, d)``."""
        xp, seen = namespace(weights), self._seen.like(weights)
        n, d = weights.shape[0], self.n_features
        gain, rest = self._gains(function, weights)
        excess = gain if rest is None else gain - rest
        if gain.ndim == 2:  # the same for all rows: one matrix per component
            each = xp.matmul(seen.axes * excess[:, None, :], xp.matrix_transpose(seen.axes))
            result = xp.reshape(weights @ xp.reshape(each, (-1, d * d)), (n, d, d))
        else:
            flat = self._flat(weights[:, :, None] * excess)[:, None, :]
            result = xp.matmul(seen.basis[None] * flat, seen.basis.T[None])
        if rest is None:
            return result
        isotropic = xp.sum(weights * rest[..., 0], axis=-1)[:, None, None]
        return result + isotropic * like(np.eye(d), weights)

    def _log_det(self, level, x):
        if not isinstance(level, float):
            return self.trace(_log_of_sum(level), x)
        return self._once("log_det", level, x, lambda *_: self.trace(_log_of_sum(level), x))

    def _shrunk(self, _, x):
        seen = self._seen.like(x)
        return seen.basis * seen.variances.reshape(-1)

    def _side_by_side(self, level, x):
        each = self.matrices(like(np.eye(self.n_components), x), Precision(level))
        return self._matrices.side_by_side(each)

    def _white(self, level, x):
        """Axes and centres divided by the widths at a level, stacked; and the widths."""
        xp, seen = namespace(x), self._seen.like(x)
        width = xp.sqrt(seen.variances + level)
        root = self._flat(1 / width[None])
        return xp.concat([seen.basis, -self._flat(seen.offsets[None])], axis=0) * root, width

    def _back(self, gain, width):
        """Axes times a gain per axis, transposed: from coordinates to vectors."""
        gain = gain if width is None else gain * width
        return (self._seen.like(gain).basis * self._flat(gain[None])).T

    def _drawn_back(self, c, weights, back):
        """``sum_k w_k c_k B_k``: one product, or one per component where few have any weight."""
        if is_torch(c):
            return self._flat(weights[:, :, None] * c) @ back
        active = weights > NEGLIGIBLE[c.dtype]
        if back.size < SMALL_PRODUCT or np.count_nonzero(active) > SPARSE * active.size:
            c *= weights[:, :, None]  # a fresh array would cost more than the product
            return self._flat(c) @ back
        along = np.zeros((len(c), self.n_features), dtype=c.dtype)
        for k, piece in enumerate(back.reshape(self.n_components, self.rank, -1)):
            rows = np.flatnonzero(active[:, k])
            along[rows] += (weights[rows, k, None] * c[rows, k]) @ piece
        return along

    def _once(self, name, key, x, make):
        """What depends on the level alone, made once for all blocks of rows (NumPy only)."""
        if is_torch(x):
            return make(key, x)
        seen, found = (key, x.dtype), self._shared.get(name)
        if found is None or found[0] != seen:
            found = self._shared[name] = seen, make(key, x)
        return found[1]

    def __getstate__(self):
        return {**self.__dict__, "_shared": {}}

    def _gains(self, function, x):
        seen = self._seen.like(x)
        rest = function(seen.residuals[:, None]) if self.has_rest else None
        return function(seen.variances), rest

    def _along(self, x, basis):
        c = x @ basis
        return namespace(c).reshape(c, (x.shape[0], self.n_components, self.rank))

    def _flat(self, c):
        return namespace(c).reshape(c, (c.shape[0], self.n_components * self.rank))

    def _embedded(self, c):
        xp = namespace(c)
        axes = xp.matrix_transpose(self._seen.like(c).axes)
        by_component = xp.matmul(xp.permute_dims(c, (1, 0, 2)), axes)
        return xp.permute_dims(by_component, (1, 0, 2))


def _log_of_sum(level):
    return lambda variance: namespace(variance).log(variance + level)


def _rows_first(where):
    return (where.rows_first(), None, None) if isinstance(where, Pulls) else where


def squared_norms(vectors):
    """Squared lengths along the last axis of ``(n, k, r)`` arrays."""
    if is_torch(vectors):
        return (vectors * vectors).sum(-1)
    return np.einsum("nkr,nkr->nk", vectors, vectors)  # one pass, no temporary
