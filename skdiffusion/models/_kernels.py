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
    Metric,
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
TREE_POINTS = 8192
"""Number of points from which leaving groups of them out is."""
TREE_SHARE = 0.2
"""Share of the points that may matter to a query and still leave out enough."""
WIDE = 128
"""Dimension from which matrix products are left as many threads as they are given."""
EXPANSION_ROWS = 512
"""Number of queries of one level from which making the expansion is worth it."""
EXPANSION_POINTS = {np.float32: (0, 5_000), np.float64: (0, 18_000)}
"""Number of points, in one and two dimensions, from which using it is."""
GROUP_OF_QUERIES = 48
LEFT_OUT = {np.float32: 3e-6, np.float64: 1e-11}
"""Share of a kernel sum that far points may carry in and still be left out."""


class KernelSums:
    r"""Gaussian kernel sums over points ``(n, d)`` with weights that sum to one.

    The variance of the kernel is a number, a column ``(m, 1)`` with one per query, a vector
    ``(d,)`` with one per coordinate, or ``(m, d)``.

    Parameters
    ----------
    points : ndarray of shape (n, d)
    weights : ndarray of shape (n,)
    units : float or ndarray of shape (d,)
        In which near points are found: the widths of the kernel where it is narrow.
    """

    def __init__(self, points: np.ndarray, weights: np.ndarray, units: Any = 1.0):
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
        self._routes = _Routes(self._points, self._weights, units)

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
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            return self._nowhere_else(finite, x, variance, want, exclude, v)
        v = None if v is None else np.asarray(v, np.float64)
        per_row = [None if a is None else np.asarray(a) for a in (v, hidden)]
        variance = np.asarray(variance, np.float64)
        q = 1 if variance.shape[-1:] in ((), (1,)) else rows.shape[1]
        metric = Metric.of(np.broadcast_to(variance, (len(x), q)))
        found = None
        with _narrow_products(rows.shape[1]):
            groups = _similar_rows(metric)
            for index in groups:
                task = rows[index], metric[index], want, x.dtype.type
                moments = self._routes.moments(*task, *(_pick(a, index) for a in per_row))
                found = moments if len(groups) == 1 else place(found, moments, index, len(x))
        # the logarithm is rounded once, when constants have been added to it
        rest = (None if m is None else m.astype(x.dtype, copy=False) for m in found[1:])
        return KernelMoments(found.log_sum, *rest)

    def _nowhere_else(self, finite, x, variance, want, exclude, v):
        """Of rows that are not finite no moment is, either; of the others all are as they are."""
        index = np.flatnonzero(finite)
        per_row = [None if a is None else np.asarray(a)[index] for a in (exclude, v)]
        some = variance[index] if np.ndim(variance) == 2 else variance
        part = self._moments(x[index], some, want, *per_row)
        found = KernelMoments(
            *(None if m is None else np.full((len(x), *m.shape[1:]), np.nan, m.dtype) for m in part)
        )
        return place(found, part, index, len(x))


class _Routes:
    """Points in fixed coordinates, whole and in groups of near ones."""

    def __init__(self, points, weights, units):
        self._weights, self._units = weights, units
        self._block = self._new_block(points, weights)
        self._grouped: tuple[PointGroups, Block] | None = None
        self._expansion: tuple = (None, None)

    @staticmethod
    def _new_block(points, weights):
        equal = (weights == weights[0]).all()
        return Block(points, float(np.log(weights[0])) if equal else np.log(weights))

    def moments(self, x, metric, want, dtype, v, hidden):
        options = {"want": want, "dtype": dtype}
        if self._expansion_may_help(x, metric, want, dtype):
            return self._by_expansion(x, metric, hidden, options)
        return self._exact(x, metric, v, hidden, options)

    def _exact(self, x, metric, v, hidden, options):
        want, dtype = options["want"], options["dtype"]
        if self._tree_may_help(len(x)):
            # second moments weigh far points with their squared distance
            share = LEFT_OUT[dtype] if want in ("log_sum", "mean") else 1e-14
            found = self._by_groups(x, metric, v, hidden, np.log(share), options)
            if found is not None:
                return found
        return kernel_moments(self._block, x, metric, v=v, hidden=hidden, **options)

    def _expansion_may_help(self, x, metric, want, dtype):
        points, variance = self._block.points, metric.variance
        many = len(x) >= EXPANSION_ROWS and len(points) * len(x) >= TREE_PAIRS
        made = self._expansion[0] if len(x) >= 8 else None
        if want not in ("log_sum", "mean") or not (many or made):
            return False
        d = points.shape[1]
        if d > 2 or len(points) < EXPANSION_POINTS[dtype][d - 1]:
            return False
        if (variance != variance[0]).any():
            return False
        if made == (variance[0].tobytes(), dtype):
            return True
        return many and Expansion.affordable(points, np.sqrt(variance[0]), dtype)

    def _by_expansion(self, x, metric, hidden, options):
        """By the expansion, and exactly where its error would be too large for the sum."""
        variance, dtype = metric.variance[0], options["dtype"]
        key, made = self._expansion  # once: other threads may ask for other levels
        if key != (variance.tobytes(), dtype):
            made = Expansion(self._block.points, self._weights, np.sqrt(variance), dtype)
            self._expansion = (variance.tobytes(), dtype), made
        sums, accurate = made.sums(x, hidden, of_points=options["want"] == "mean")
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
        part = self._exact(x[rest], metric[rest], None, _pick(hidden, rest), options)
        return place(found, part, rest, len(x))

    def _tree_may_help(self, n_queries):
        n, d = self._block.points.shape
        if d > TREE_UP_TO or n < TREE_POINTS:
            return False
        return n_queries > 0 and (self._grouped is not None or n * n_queries >= TREE_PAIRS)

    def _by_groups(self, x, metric, v, hidden, log_share, options):
        if self._grouped is None:
            groups = PointGroups(self._block.points, self._weights, units=self._units)
            self._grouped = groups, self._new_block(groups.points, groups.weights)
        groups, whole = self._grouped
        if hidden is not None:
            hidden = np.where(hidden < 0, -1, groups.position[hidden])

        def matter(index):
            rows = None if hidden is None else hidden[index]
            return groups.matter(x[index], metric[index].variance, log_share, rows)

        probe = np.arange(0, len(x), -(-len(x) // 32))
        if (matter(probe) @ np.diff(groups.starts)).mean() > TREE_SHARE * len(groups.points):
            return None
        local = not is_well_conditioned(whole.size(x, metric), options["dtype"])
        if not local:  # made once, for all subsets
            whole.columns(options["dtype"], metric)
            whole.features(options["dtype"], options["want"])
        scale = np.sqrt(metric.variance.min(axis=0))
        order, starts = median_groups(x / scale, GROUP_OF_QUERIES)
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
                metric[index],
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


def _similar_rows(metric):
    """Rows of each octave of the variance, so that each tile has one route; all if it is one."""
    octave = np.floor(np.log2(metric.variance.min(axis=1)))
    if (octave == octave[:1]).all():
        return [slice(None)]
    _, which = np.unique(octave, return_inverse=True)
    order = np.argsort(which, kind="stable")
    return np.split(order, np.cumsum(np.bincount(which))[:-1])
