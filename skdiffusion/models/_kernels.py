r"""Sums of Gaussian kernels over a weighted set of points, for NumPy and torch queries.

With :math:`\pi_i(x) \propto w_i \exp(-|x-y_i|^2/2\sigma^2)` these are
:math:`\log \sum_i w_i e^{-|x-y_i|^2/2\sigma^2}` and the mean and covariance of
:math:`y` under :math:`\pi(x)`, row by row.

NumPy queries take the routes of ``_kernel_tiles``, after ``_kernel_tree`` has said which
points can matter where that leaves out enough of them; many queries of one level in one or
two dimensions are expanded (``_kernel_expansion``). Torch queries stay on their device
with their autograd graph (``_kernel_torch``).
"""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import numpy as np

from skdiffusion.models._kernel_expansion import Expansion
from skdiffusion.models._kernel_tiles import (
    Block,
    KernelMoments,
    is_well_conditioned,
    kernel_moments,
)
from skdiffusion.models._kernel_torch import torch_moments
from skdiffusion.models._kernel_tree import PointGroups, median_groups
from skdiffusion.utils.arrays import Parameters, is_torch
from skdiffusion.utils.blocks import one_blas_thread

__all__ = ["KernelSums"]

TREE_UP_TO = 16
"""Dimension up to which boxes around groups of points can be expected to help."""
TREE_PAIRS = 2**22
"""Number of pairs from which building the groups is worth it."""
WIDE = 128
"""Dimension from which matrix products are left as many threads as they are given."""
EXPANSION_ROWS = 512
"""Number of queries of one level from which making the expansion is worth it."""
GROUP_OF_QUERIES = 48
LEFT_OUT = {np.float32: 3e-6, np.float64: 1e-11}
"""Share of a kernel sum that far points may carry in and still be left out."""


class KernelSums:
    r"""Gaussian kernel sums over points ``(n, d)`` with weights that sum to one.

    The variance of the kernel is a number, a column ``(m, 1)`` with one per query, a vector
    ``(d,)`` with one per coordinate, or ``(m, d)``.
    """

    def __init__(self, points: np.ndarray, weights: np.ndarray):
        kept = np.flatnonzero(weights > 0)
        self._position = np.full(len(points), -1, np.intp)
        self._position[kept] = np.arange(len(kept))
        self._weights = weights[kept]
        # centred, so that rounding is relative to the spread and not to the offset
        self._centre = self._weights @ points[kept]
        self._points = points[kept] - self._centre
        self._seen = Parameters(
            centre=self._centre, points=self._points, log_weights=np.log(self._weights)
        )
        self._routes = _Routes(self._points, self._weights)
        self._scaled: tuple = (None, None)

    def log_sum(self, x: Any, variance: Any, exclude: Any = None):
        """Logarithm of the kernel sum, shape ``(m,)``; float64 for any NumPy queries."""
        return self._moments(x, variance, "log_sum", exclude).log_sum

    def mean_and_shift(self, x: Any, variance: Any, exclude: Any = None):
        """Mean of the points under the kernel weights, and the same minus ``x``: ``(m, d)``."""
        found = self._moments(x, variance, "mean", exclude)
        return found.mean + self._seen.like(x).centre, found.shift

    def covariance(self, x: Any, variance: Any, exclude: Any = None):
        """Covariance of the points under the kernel weights, shape ``(m, d, d)``."""
        return self._moments(x, variance, "covariance", exclude).second

    def mean_shift_covariance(self, x: Any, variance: Any, exclude: Any = None):
        """Mean, the same minus ``x``, and the covariance, in one pass."""
        found = self._moments(x, variance, "covariance", exclude)
        return found.mean + self._seen.like(x).centre, found.shift, found.second

    def mean_shift_diagonal(self, x: Any, variance: Any, exclude: Any = None):
        """Mean, the same minus ``x``, and the diagonal of the covariance: each ``(m, d)``."""
        found = self._moments(x, variance, "diagonal", exclude)
        return found.mean + self._seen.like(x).centre, found.shift, found.second

    def covariance_product(self, x: Any, variance: Any, v: Any, exclude: Any = None):
        """Covariance times the rows of ``v``, shape ``(m, d)``."""
        return self._moments(x, variance, "product", exclude, v).second

    def _moments(self, x, variance, want, exclude, v=None):
        hidden = None if exclude is None else np.where(exclude < 0, -1, self._position[exclude])
        if is_torch(x):
            return torch_moments(self._seen.like(x), x, variance, want, v, hidden)
        rows = np.asarray(x, np.float64) - self._centre
        v = None if v is None else np.asarray(v, np.float64)
        per_row = [None if a is None else np.asarray(a) for a in (v, hidden)]
        variance = np.asarray(variance, np.float64)
        if variance.shape[-1:] in ((), (1,)):
            variance = np.broadcast_to(variance, (len(x), 1))
            # rows of similar level together, so that each tile has one route
            kinds = np.floor(np.log2(variance[:, 0]))
            part = self._isotropic
        else:
            variance = np.broadcast_to(variance, rows.shape)
            kinds = variance
            part = self._by_column
        found = None
        with _narrow_products(rows.shape[1]):
            for index in _equal_rows(kinds):
                task = rows[index], variance[index], want, x.dtype.type
                moments = part(*task, *(_pick(values, index) for values in per_row))
                found = moments if len(index) == len(x) else place(found, moments, index, len(x))
        # the logarithm is rounded once, when constants have been added to it
        rest = (None if m is None else m.astype(x.dtype, copy=False) for m in found[1:])
        return KernelMoments(found.log_sum, *rest)

    def _isotropic(self, x, variance, want, dtype, v, hidden):
        return self._routes.moments(x, variance, want, dtype, v, hidden)

    def _by_column(self, x, variance, want, dtype, v, hidden):
        """One variance per coordinate: isotropic again where each is measured in its own."""
        key, scale = variance[:1].tobytes(), np.sqrt(variance[0]) if len(x) else 1.0
        if self._scaled[0] != key:
            self._scaled = key, _Routes(self._points / scale, self._weights)
        routes = self._scaled[1]
        v = None if v is None else v * scale
        log_sum, mean, shift, second = routes.moments(
            x / scale, np.ones((len(x), 1)), want, dtype, v, hidden
        )
        if second is not None:
            second = second * (scale**2 if want == "diagonal" else scale)
            second = second * scale[:, None] if want == "covariance" else second
        return KernelMoments(
            log_sum,
            None if mean is None else mean * scale,
            None if shift is None else shift * scale,
            second,
        )


class _Routes:
    """Points in fixed coordinates, whole and in groups of near ones."""

    def __init__(self, points, weights):
        self._weights = weights
        self._block = self._new_block(points, weights)
        self._groups: PointGroups | None = None
        self._expansion: tuple = (None, None)

    @staticmethod
    def _new_block(points, weights):
        equal = (weights == weights[0]).all()
        return Block(points, float(np.log(weights[0])) if equal else np.log(weights))

    def moments(self, x, variance, want, dtype, v, hidden):
        options = {"want": want, "dtype": dtype}
        if self._expansion_may_help(x, variance, want, dtype):
            return self._by_expansion(x, variance, hidden, options)
        return self._exact(x, variance, v, hidden, options)

    def _exact(self, x, variance, v, hidden, options):
        want, dtype = options["want"], options["dtype"]
        if self._tree_may_help(len(x)):
            # second moments weigh far points with their squared distance
            share = LEFT_OUT[dtype] if want in ("log_sum", "mean") else 1e-14
            found = self._by_groups(x, variance, v, hidden, np.log(share), options)
            if found is not None:
                return found
        return kernel_moments(self._block, x, variance, v=v, hidden=hidden, **options)

    def _expansion_may_help(self, x, variance, want, dtype):
        points = self._block.points
        if want not in ("log_sum", "mean") or not len(x) or np.ptp(variance) > 0:
            return False
        if self._expansion[0] == (variance[0, 0], dtype):
            return len(x) >= 8
        many = len(x) >= EXPANSION_ROWS and len(points) * len(x) >= TREE_PAIRS
        return many and Expansion.affordable(points, np.sqrt(variance[0, 0]), dtype)

    def _by_expansion(self, x, variance, hidden, options):
        """By the expansion, and exactly where its error would be too large for the sum."""
        key = variance[0, 0], options["dtype"]
        if self._expansion[0] != key:
            made = Expansion(self._block.points, self._weights, np.sqrt(key[0]), key[1])
            self._expansion = key, made
        sums, accurate = self._expansion[1].sums(x, hidden, of_points=options["want"] == "mean")
        found = None
        rows = np.flatnonzero(accurate)
        if len(rows):
            total = sums[rows]
            mean = total[:, 1:] / total[:, :1] if options["want"] == "mean" else None
            shift = None if mean is None else mean - x[rows]
            part = KernelMoments(np.log(total[:, 0]), mean, shift, None)
            if len(rows) == len(x):
                return part
            found = place(None, part, rows, len(x))
        rest = np.flatnonzero(~accurate)
        part = self._exact(x[rest], variance[rest], None, _pick(hidden, rest), options)
        return place(found, part, rest, len(x))

    def _tree_may_help(self, n_queries):
        n, d = self._block.points.shape
        if d > TREE_UP_TO or n < 2048:
            return False
        return n_queries > 0 and (self._groups is not None or n * n_queries >= TREE_PAIRS)

    def _by_groups(self, x, variance, v, hidden, log_share, options):
        if self._groups is None:
            self._groups = PointGroups(self._block.points, self._weights)
            self._grouped_block = self._new_block(self._groups.points, self._groups.weights)
        groups, whole = self._groups, self._grouped_block
        if hidden is not None:
            hidden = np.where(hidden < 0, -1, groups.position[hidden])

        def matter(index):
            rows = None if hidden is None else hidden[index]
            return groups.matter(x[index], variance[index], log_share, rows)

        probe = np.arange(0, len(x), -(-len(x) // 32))
        if (matter(probe) @ np.diff(groups.starts)).mean() > 0.6 * len(groups.points):
            return None
        local = not is_well_conditioned(whole.size(x, variance), options["dtype"])
        if not local:  # made once, for all subsets
            whole.columns(options["dtype"])
            whole.features(options["dtype"], options["want"])
        order, starts = median_groups(x, GROUP_OF_QUERIES)
        found = None
        for start, stop in pairwise(starts):
            index = order[start:stop]
            runs = groups.runs(matter(index).any(axis=0))
            block, origin = whole.subset(runs), 0.0
            if local:
                origin = x[index].mean(axis=0)
                block = block.recentred(origin)
            part = kernel_moments(
                block,
                x[index] - origin,
                variance[index],
                v=None if v is None else v[index],
                hidden=None if hidden is None else groups.within(runs, hidden[index]),
                **options,
            )
            if part.mean is not None:
                part.mean[...] += origin
            found = place(found, part, index, len(x))
        return found


def _narrow_products(d):
    """One thread for products of few columns.

    They are bound by memory, and threads that wait for each other within each small tile
    are ten times slower than one where other processes want the processor too.
    """
    return one_blas_thread() if d < WIDE else contextlib.nullcontext()


def place(found, part, index, length):
    """Write the moments of some rows among those of all."""
    if found is None:
        empty = (None if m is None else np.empty((length, *m.shape[1:])) for m in part)
        found = KernelMoments(*empty)
    for target, values in zip(found, part, strict=True):
        if target is not None:
            target[index] = values
    return found


def _pick(values, index):
    return None if values is None else values[index]


def _equal_rows(kinds):
    """Indices of the rows of each kind; all of them, in order, where there is but one."""
    if not len(kinds) or (kinds == kinds[0]).all():
        return [np.arange(len(kinds))]
    _, which = np.unique(kinds, axis=0, return_inverse=True)
    order = np.argsort(which, kind="stable")
    return np.split(order, np.cumsum(np.bincount(which.ravel()))[:-1])
