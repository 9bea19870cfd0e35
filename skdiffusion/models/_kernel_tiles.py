r"""Gaussian kernel sums on one block of points, by the cheapest of two exact routes.

With :math:`L_i = (x\cdot y_i - |y_i|^2/2)/\sigma^2 + \log w_i`, one matrix product, the kernel
weights are the softmax of :math:`L`; :math:`|x|^2` cancels, so far queries are no problem.
A query has a variance :math:`\sigma^2` of its own, or one per coordinate
(:class:`Metric`).

**Stream.** Tiles that stay in the cache: product, exponential in place, product with the
features whose means are wanted. The shift that keeps the exponential in range is one more
column of the first product, so nothing else touches a pair.

**Shortlist.** A pair whose :math:`L_i` lies :math:`\log n + 30` below the row's largest
carries less than :math:`e^{-30}` of the mass with all others like it. Where few pairs
survive, only they are exponentiated, from coordinates relative to the row's best point
:math:`y_*`,

.. math:: L_i - L_* = (y_i - y_*)\cdot(x - y_* - \tfrac12 (y_i - y_*))/\sigma^2 + \log w_i/w_*,

which has no cancellation: exact for any :math:`\sigma`, and the matrix product may be float32.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Block", "KernelMoments", "Metric", "is_well_conditioned", "kernel_moments"]

NEGLIGIBLE = 30.0
"""Minus the log of the share of a row's mass that the shortlist may leave out."""
REACH = {np.float32: 75.0, np.float64: 500.0}
"""Exponents of this size neither overflow a sum nor become denormal, which are 20 times slower."""
WELL_CONDITIONED = {np.float32: 3e3, np.float64: 1e5}
"""Largest size of the terms of ``L`` for which the stream keeps its promised accuracy."""
PAIRED_UP_TO = 16
"""Dimension up to which the stream takes the products of all pairs of columns as features."""
PAIRED_SIZE = 2**24
"""Rows times columns squared up to which it does in more columns: 64 MiB of features."""
TILE = 2**19
"""Bytes of a tile of kernel values: about a level-two cache."""
PROBE = (8, 4096)
"""Rows and points from which the share of pairs that matter is guessed."""


class KernelMoments(NamedTuple):
    """Log kernel sum, mean of the points, the same minus ``x``, and a second moment.

    Each of the two is accurate where the other has cancelled.
    """

    log_sum: np.ndarray
    mean: np.ndarray | None
    shift: np.ndarray | None
    second: np.ndarray | None


class Metric:
    r"""Variances of the kernel at each row, and what the squares of the points weigh in them.

    :math:`\tfrac12 |y|^2` in the metric of a row is a product of weights of that row with half
    squares of the points: of one term if all coordinates, or all rows, share their variance, and
    else of one per coordinate.

    Parameters
    ----------
    variance : ndarray of shape (m, 1), (m, d) or (1, d)
        Of each row, of each row and coordinate, or of each coordinate for all rows; of levels
        that are similar.
    is_shared : bool
        Whether all rows share the one row of several variances.
    """

    def __init__(self, variance: np.ndarray, is_shared: bool):
        self.variance = variance
        self.is_shared = is_shared
        # of half squares: (m, 1), (m, d) or (1, 1)
        self.weights = np.ones((1, 1)) if is_shared else 1 / variance

    @classmethod
    def of(cls, variance: np.ndarray) -> Metric:
        """Metric of ``m`` rows of shape ``(m, 1)`` or ``(m, d)``."""
        is_shared = len(variance) > 0 and variance.shape[1] > 1
        is_shared = is_shared and bool((variance == variance[0]).all())
        return cls(variance[:1] if is_shared else variance, is_shared)

    def __getitem__(self, rows) -> Metric:
        return self if self.is_shared else Metric(self.variance[rows], False)

    @property
    def key(self) -> bytes | int:
        """Equal where half squares are."""
        return self.variance.tobytes() if self.is_shared else self.variance.shape[1]


class HalfSquares(NamedTuple):
    """``|y|^2/2`` but for the weights of a metric, ``(n, 1)`` or ``(n, d)``, and their units."""

    values: np.ndarray
    unit: np.ndarray


class Block:
    """Points, ideally centred, with log-weights, as the kernel sums need them.

    Parameters
    ----------
    points : ndarray of shape (n, d)
    log_weights : float or ndarray of shape (n,)
        A float if they are all equal.
    unit : ndarray of shape (d,), optional
        Powers of two of about the size of the columns, if known.
    """

    def __init__(self, points: np.ndarray, log_weights: float | np.ndarray, unit: Any = None):
        self.points = points
        self.log_weights = log_weights
        self.is_weighted = isinstance(log_weights, np.ndarray)
        self.weight_range = float(np.ptp(log_weights)) if self.is_weighted else 0.0
        self.unit = _power_of_two(np.abs(points).max(axis=0)) if unit is None else unit
        self._half_squares: dict = {}
        self._columns: dict = {}
        self._features: dict = {}

    def half_squares(self, metric) -> HalfSquares:
        """Half squares of the points in a metric."""
        return _kept(self._half_squares, metric.is_shared, metric.key, self._new_squares, metric)

    def _new_squares(self, metric):
        if metric.is_shared:
            by_column = self.half_squares(Metric(metric.variance, False))
            half = by_column.values @ (1 / metric.variance.T)
        elif metric.variance.shape[1] == 1:
            half = 0.5 * np.einsum("ij,ij->i", self.points, self.points)[:, None]
        else:
            return HalfSquares(0.5 * self.points**2, self.unit**2)
        return HalfSquares(half, _power_of_two(half.max(axis=0)))

    def _unit(self, metric):
        # of one number where that will do: rows of few columns are slowly multiplied by others
        return self.unit if metric.variance.shape[1] > 1 else self.unit.max()

    def columns(self, dtype, metric) -> np.ndarray:
        """Right factor of ``L``: rows ``(y, -|y|^2/2, 1)``, and ``log w`` where they differ.

        In units in which all columns are of order one, whatever those of the points are.
        """
        slot = metric.is_shared, dtype
        return _kept(self._columns, slot, metric.key, self._new_columns, dtype, metric)

    def _new_columns(self, dtype, metric):
        half = self.half_squares(metric)
        (n, d), q = self.points.shape, len(half.unit)
        columns = np.empty((n, d + q + 1 + self.is_weighted), dtype)
        np.multiply(self.points, 1 / self._unit(metric), out=columns[:, :d], casting="same_kind")
        np.multiply(half.values, -1 / half.unit, out=columns[:, d : d + q], casting="same_kind")
        columns[:, d + q] = 1
        if self.is_weighted:
            columns[:, d + q + 1] = self.log_weights
        return columns

    def rows(self, x, metric, dtype) -> np.ndarray:
        """Left factor of ``L``: ``(x/sigma^2, 1/sigma^2, 0, 1)``; a shift replaces the 0."""
        unit = self.half_squares(metric).unit
        d, q = x.shape[1], len(unit)
        rows = np.empty((len(x), d + q + 1 + self.is_weighted), dtype)
        rows[:, :d] = x / metric.variance * self._unit(metric)
        rows[:, d : d + q] = metric.weights * unit
        rows[:, d + q] = 0
        if self.is_weighted:
            rows[:, d + q + 1] = 1
        return rows

    def features(self, dtype, want) -> np.ndarray:
        """What the kernel weights average: ones, the points, their products by pairs."""
        kind = "mean" if want == "product" else want
        if (dtype, kind) not in self._features:
            parts = [np.ones((len(self.points), 1))]
            if kind != "log_sum":
                parts.append(self.points)
            if kind == "diagonal":
                parts.append(self.points**2)
            if kind == "covariance":
                i, j = np.triu_indices(self.points.shape[1])
                parts.append(self.points[:, i] * self.points[:, j])
            self._features[dtype, kind] = np.hstack(parts).astype(dtype)
        return self._features[dtype, kind]

    def size(self, x, metric) -> np.ndarray:
        """Size of the terms of ``L`` in each row: what its rounding is relative to."""
        half, weights = self.half_squares(metric), metric.weights
        if len(half.unit) == 1:
            radius = np.sqrt(2 * half.values.max() * weights[:, 0])
        else:  # levels are similar: the largest weights serve all rows
            radius = np.sqrt(2 * (half.values @ weights.max(axis=0, initial=0.0)).max())
        return (np.sqrt(_inner(x, x, metric.variance)) + radius) * radius + self.weight_range

    def subset(self, runs) -> Block:
        """The points of some runs ``(start, stop)`` of consecutive ones."""

        def pick(array):
            return np.concatenate([array[start:stop] for start, stop in runs])

        part = object.__new__(Block)
        part.__dict__.update(self.__dict__)
        part.points = pick(self.points)
        if self.is_weighted:
            part.log_weights = pick(self.log_weights)
        # copies: other threads may add to what is kept
        part._half_squares = {
            slot: (key, half._replace(values=pick(half.values)))
            for slot, (key, half) in self._half_squares.copy().items()
        }
        columns, features = self._columns.copy(), self._features.copy()
        part._columns = {slot: (key, pick(value)) for slot, (key, value) in columns.items()}
        part._features = {key: pick(value) for key, value in features.items()}
        return part

    def recentred(self, centre) -> Block:
        """The same points in coordinates relative to ``centre``."""
        return Block(self.points - centre, self.log_weights, self.unit)


def _inner(a, b, variance):
    """Inner products of rows, over their variances."""
    if variance.shape[1] == 1:
        return np.einsum("ij,ij->i", a, b) / variance[:, 0]
    return np.einsum("ij,ij->i", a / variance, b)


def _power_of_two(values):
    """Powers of two of the size of positive values, by which to divide is exact; one for zero."""
    return np.exp2(np.floor(np.log2(np.where(values > 0, values, 1.0))))


def _kept(cache, slot, key, make, *args):
    """What was made for this key, unless another has been asked for since."""
    kept = cache.get(slot)
    if kept is None or kept[0] != key:
        kept = cache[slot] = key, make(*args)
    return kept[1]


def kernel_moments(block, x, metric, want, *, dtype=np.float64, v=None, hidden=None):
    """Kernel sums of a block at the rows ``x``.

    Parameters
    ----------
    block : Block
    x : ndarray of shape (m, d)
        In float64, in the coordinates of the block.
    metric : Metric
        Of these rows.
    want : {"log_sum", "mean", "covariance", "diagonal", "product"}
        How much to compute: the last three are the second moments.
    dtype : {numpy.float32, numpy.float64}
        Accuracy to aim for; second moments are always float64.
    v : ndarray of shape (m, d), optional
        What ``"product"`` multiplies the covariance by.
    hidden : ndarray of int of shape (m,), optional
        Index of the point of the block that each row does not see, or -1.

    Returns
    -------
    KernelMoments
    """
    if want not in ("log_sum", "mean"):
        dtype = np.float64
    n, d = block.points.shape
    size = block.size(x, metric)
    shortlist = want == "covariance" and d > PAIRED_UP_TO and n * d**2 > PAIRED_SIZE
    shortlist = shortlist or _few_matter(block, x, metric, size, hidden, dtype)
    parts = []
    tall = 256 if d > 128 else 128
    for start in range(0, max(len(x), 1), tall):
        rows = slice(start, start + tall)
        task = [block, x[rows], metric[rows], size[rows], want]
        task += [None if per_row is None else per_row[rows] for per_row in (v, hidden)]
        stream_dtype = dtype if is_well_conditioned(size[rows], dtype) else np.float64
        if shortlist or not is_well_conditioned(size[rows], stream_dtype):
            parts.extend(_shortlist(*task))
        else:
            parts.append(_stream(*task, stream_dtype))
    fields = zip(*parts, strict=True)
    return KernelMoments(*(None if f[0] is None else np.concatenate(f) for f in fields))


def is_well_conditioned(size, dtype) -> bool:
    """Whether the stream is accurate for terms of this size."""
    return size.max(initial=0.0) <= WELL_CONDITIONED[dtype]


def _few_matter(block, x, metric, size, hidden, dtype):
    """Whether so few pairs matter that the shortlist is the cheaper route."""
    n, d = block.points.shape
    if n < 256 or size.max(initial=0.0) < NEGLIGIBLE:
        return False
    rows = slice(None, None, -(-len(x) // PROBE[0]))
    some = slice(None, None, -(-n // PROBE[1]))
    probe = metric[rows]
    logits = (x[rows] / probe.variance) @ block.points[some].T
    logits -= probe.weights @ block.half_squares(metric).values[some].T
    if block.is_weighted:
        logits += block.log_weights[some]
    if hidden is not None:
        # the own point would hide how flat the rest is: the largest value is not counted
        logits[np.arange(len(logits)), logits.argmax(axis=1)] = -np.inf
    cut = NEGLIGIBLE + np.log(n)
    share = np.count_nonzero(logits >= logits.max(axis=1, keepdims=True) - cut) / logits.size
    # measured nanoseconds a pair: what the exponential and half of the product cost, against
    # gathering d coordinates; the share among some of the points is about twice that among all
    single = dtype == np.float32 and is_well_conditioned(size, dtype)
    return share * (150 + 2 * d) < (1 if single else 4 + 0.025 * d)


# ------------------------------------------------------------------ stream


def _stream(block, x, metric, size, want, v, hidden, dtype):
    (n, d), q = block.points.shape, metric.weights.shape[1]
    left, right = block.rows(x, metric, dtype), block.columns(dtype, metric)
    features = block.features(dtype, want)
    reach = REACH[dtype]
    in_range = hidden is None and size.max(initial=0.0) < reach
    shift = np.zeros(len(x))
    unset = np.ones(len(x), bool)
    sums = np.zeros((len(x), features.shape[1]))
    along_sums = np.zeros_like(sums)
    for part, tile in _tiles(len(x), n, dtype, TILE if d <= 128 else 4 * TILE):
        np.matmul(left, right[part].T, out=tile)
        _hide(tile, hidden, part.start)
        if part.start == 0 or not in_range:
            top = tile.max(axis=1).astype(np.float64)
            raised = np.isfinite(top) & (unset | (top > reach / 2))
            if raised.any():
                change = np.where(raised, shift + top, shift).astype(dtype) - shift
                tile -= change.astype(dtype)[:, None]
                decay = np.exp(-np.where(unset, 0.0, change))[:, None]
                sums *= decay
                along_sums *= decay
                shift = shift + change
                unset &= ~raised
                left[:, d + q] = -shift
            if not in_range:
                # an array, since NumPy's maximum with a scalar is three times slower
                np.maximum(tile, np.full(tile.shape[1], -reach, dtype), out=tile)
        _exp(tile)
        if want == "log_sum":
            sums[:, 0] += tile @ features[part, 0]
            continue
        sums += tile @ features[part]
        if v is not None:
            tile *= v @ block.points[part].T
            along_sums += tile @ features[part]
    total = sums[:, :1]
    log_sum = shift + np.log(total[:, 0]) - 0.5 * _inner(x, x, metric.variance)
    if not block.is_weighted:
        log_sum += block.log_weights
    if want == "log_sum":
        return KernelMoments(log_sum, None, None, None)
    mean = sums[:, 1 : d + 1] / total
    second = None
    if want == "product":
        second = (along_sums[:, 1:] - along_sums[:, :1] * mean) / total
    if want == "diagonal":
        second = np.maximum(sums[:, d + 1 :] / total - mean**2, 0)
    if want == "covariance":
        i, j = np.triu_indices(d)
        second = np.empty((len(x), d, d))
        second[:, i, j] = sums[:, d + 1 :] / total - mean[:, i] * mean[:, j]
        second[:, j, i] = second[:, i, j]
    return KernelMoments(log_sum, mean, mean - x, second)


def _tiles(m, n, dtype, n_bytes):
    """Consecutive slices of the points, each with a contiguous tile for ``m`` rows of values."""
    width = int(min(n, max(64, n_bytes // (max(m, 1) * np.dtype(dtype).itemsize))))
    buffer = np.empty(m * width, dtype)
    for start in range(0, n, width):
        stop = min(start + width, n)
        yield slice(start, stop), buffer[: m * (stop - start)].reshape(m, stop - start)


def _hide(tile, hidden, start):
    if hidden is not None:
        rows = np.flatnonzero((hidden >= start) & (hidden < start + tile.shape[1]))
        tile[rows, hidden[rows] - start] = -np.inf


def _exp(tile):
    """Exponential in place; by torch's vectorised kernel if torch is here anyway."""
    torch = sys.modules.get("torch")
    if hasattr(torch, "from_numpy"):
        torch.from_numpy(tile).exp_()
    else:
        np.exp(tile, out=tile)


# ------------------------------------------------------------------ shortlist


def _shortlist(block, x, metric, size, want, v, hidden):
    d = block.points.shape[1]
    row, column, best = _survivors(block, x, metric, size, hidden)
    counts = np.bincount(row, minlength=len(x))
    ends = np.cumsum(counts)
    first = 0
    # as many rows at once as keep the gathered coordinates in the cache
    while first < len(x):
        before = ends[first - 1] if first else 0
        room = before + TILE // (8 * d)
        last = max(first + 1, int(np.searchsorted(ends, room, side="right")))
        part, pairs = slice(first, last), slice(before, ends[last - 1])
        yield _anchored(
            block,
            x[part],
            metric[part],
            want,
            None if v is None else v[part],
            best[part],
            row[pairs] - first,
            column[pairs],
        )
        first = last


def _survivors(block, x, metric, size, hidden):
    """Rows and columns of the pairs that may matter, and the best point of each row."""
    (n, d), q = block.points.shape, metric.weights.shape[1]
    # rounding of a product of k terms is at most k units in the last place of their size
    bound = (d + q + 3) * size
    dtype = np.float32 if bound.max(initial=0.0) * 2.0**-24 < 2.0 else np.float64
    slack = 2 * bound * (2.0**-24 if dtype == np.float32 else 2.0**-53)
    cut = NEGLIGIBLE + np.log(n) + slack
    left, right = block.rows(x, metric, dtype), block.columns(dtype, metric)
    threshold = np.full(len(x), -np.inf)
    pairs, values = [], []
    for part, tile in _tiles(len(x), n, dtype, TILE if d <= 128 else 4 * TILE):
        np.matmul(left, right[part].T, out=tile)
        _hide(tile, hidden, part.start)
        top = tile.max(axis=1)
        threshold = np.maximum(threshold, top - cut)
        rows = np.flatnonzero(top >= threshold)
        if len(rows) < len(x):
            tile = tile[rows]
        tile = tile.ravel()
        width = part.stop - part.start
        keep = np.flatnonzero(tile.reshape(-1, width) >= threshold[rows, None].astype(dtype))
        values.append(tile[keep])
        keep = rows[keep // width] * n + keep % width + part.start
        pairs.append(keep)
    pairs, values = np.concatenate(pairs), np.concatenate(values)
    # earlier tiles were judged by an earlier threshold
    keep = values >= threshold[pairs // n].astype(dtype)
    pairs, values = pairs[keep], values[keep]
    order = np.argsort(pairs)
    pairs, values = pairs[order], values[order]
    row, column = np.divmod(pairs, n)
    starts = np.searchsorted(row, np.arange(len(x)))
    best = np.lexsort((values, row))[np.append(starts[1:], len(row)) - 1]
    return row, column, column[best]


def _anchored(block, x, metric, want, v, best, row, column):
    """Moments from the listed pairs, in coordinates relative to each row's best point."""
    starts = np.searchsorted(row, np.arange(len(x)))
    anchor = block.points[best]
    lag = x - anchor
    offset = block.points[column]
    offset -= anchor[row]
    variance = metric.variance if metric.is_shared else metric.variance[row]
    exponent = _inner(lag[row] - 0.5 * offset, offset, variance)
    constant = block.log_weights
    if block.is_weighted:
        exponent += block.log_weights[column] - block.log_weights[best][row]
        constant = block.log_weights[best]
    peak = np.maximum.reduceat(exponent, starts)
    weight = np.exp(exponent - peak[row])
    total = np.add.reduceat(weight, starts)
    log_sum = np.log(total) + peak + constant
    log_sum -= 0.5 * _inner(lag, lag, metric.variance)
    if want == "log_sum":
        return KernelMoments(log_sum, None, None, None)
    weight /= total[row]
    mean = np.add.reduceat(weight[:, None] * offset, starts)
    second = None
    if want == "product":
        offset -= mean[row]
        along = weight * np.einsum("ij,ij->i", offset, v[row])
        second = np.add.reduceat(along[:, None] * offset, starts)
    if want == "diagonal":
        second = np.add.reduceat(weight[:, None] * (offset - mean[row]) ** 2, starts)
    if want == "covariance":
        offset = (offset - mean[row]) * np.sqrt(weight)[:, None]
        second = np.stack([part.T @ part for part in np.split(offset, starts[1:])])
    return KernelMoments(log_sum, anchor + mean, mean - lag, second)
