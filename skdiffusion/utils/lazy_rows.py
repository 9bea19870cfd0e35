r"""Rows in blocks that lie elsewhere: what is a sum over rows is a sum over blocks.

A closed form sees its data through sums :math:`\sum_i f(x_i, w_i)`: moments, expected statistics of
a mixture, normal equations. Each block of a ``dask`` array is turned into its sum where the block
lies, on any scheduler or cluster, and the sums are added in pairs on the way,

.. math:: S = \big((S_1 + S_2) + (S_3 + S_4)\big) + \dots,

so that no rows travel, and what travels does not grow with their number. dask itself is imported
by whoever brings such an array.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from skdiffusion.utils.rows import check_weights

__all__ = ["LazyRows", "is_lazy"]


def is_lazy(X: Any) -> bool:
    """Whether ``X`` is a dask array or data frame; never imports dask."""
    return type(X).__module__.split(".")[0] in ("dask", "dask_expr") and hasattr(X, "to_delayed")


class LazyRows:
    """The rows of a dask array or data frame, and their weights, block by block.

    Parameters
    ----------
    estimator : BaseEstimator
        Learns the number and, of a data frame, the names of the columns.
    X : dask array of shape (n_samples, n_features), or dask data frame
        Chunks may have unknown lengths. Columns that are in several chunks are put together.
    sample_weight : array of shape (n_samples,), optional
        A dask array with one chunk per block of rows, or an array in memory.

    Raises
    ------
    ValueError
        If ``X`` is not two-dimensional or complex, or the weights do not go with the rows.
    """

    def __init__(self, estimator: Any, X: Any, sample_weight: Any = None):
        names = getattr(X, "columns", None)
        if names is not None:
            X = X.to_dask_array()
        if X.ndim != 2 or X.dtype.kind not in "fiub":
            raise ValueError(
                "a dask X must be a two-dimensional array of real numbers; "
                f"got {X.ndim} dimensions of {X.dtype}."
            )
        if len(X.chunks[1]) > 1:
            X = X.rechunk({1: -1})
        estimator.n_features_in_ = self.n_features = int(X.shape[1])
        estimator.__dict__.pop("feature_names_in_", None)
        if names is not None and all(isinstance(name, str) for name in names):
            estimator.feature_names_in_ = np.asarray(names, dtype=object)
        self._blocks = X.to_delayed()[:, 0].tolist()
        self._weights = self._split(X, sample_weight)

    def _split(self, X, sample_weight):
        """Weights of each block."""
        n_blocks = len(self._blocks)
        if sample_weight is None:
            return [None] * n_blocks
        if is_lazy(sample_weight):
            lengths, chunks = X.chunks[0], sample_weight.chunks[0]
            known = not np.isnan([*lengths, *chunks]).any()
            if known and sum(lengths) != sum(chunks):
                raise ValueError(
                    f"sample_weight must have shape ({sum(lengths)},), one weight per row; "
                    f"got ({sum(chunks)},)."
                )
            if known and lengths != chunks:
                sample_weight = sample_weight.rechunk((lengths,))
            parts = sample_weight.to_delayed().tolist()
            if len(parts) != n_blocks:
                raise ValueError(
                    f"sample_weight must have one chunk per chunk of rows, {n_blocks}; got "
                    f"{len(parts)}. Call compute_chunk_sizes() on both."
                )
            return parts
        if np.isnan(X.chunks[0]).any():
            raise ValueError(
                "sample_weight in memory needs rows of known chunk sizes: call "
                "X.compute_chunk_sizes() first, or pass a dask array."
            )
        weights = check_weights(sample_weight, X.shape[0])
        return np.split(weights, np.cumsum(X.chunks[0])[:-1])

    def total(self, function: Callable, *shared: Any) -> Any:
        """The sum of ``function(rows, weights, *shared)`` over the blocks that have any weight.

        Parameters
        ----------
        function : callable
            Of rows ``(n, d)`` in float32 or float64, finite, and their positive weights. What
            it returns can be added.
        *shared : object
            Sent to the workers once.

        Raises
        ------
        ValueError
            If a value is not finite, a weight is negative, or no row has weight.
        """
        import dask

        shared = [dask.delayed(value, traverse=False) for value in shared]
        parts = self._each(_of_block, function, *shared)
        add = dask.delayed(_added, pure=False)
        while len(parts) > 1:
            pairs = (parts[k : k + 2] for k in range(0, len(parts), 2))
            parts = [add(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        (result,) = dask.compute(parts[0])
        if result is None:
            raise ValueError("X has no row of positive weight.")
        return result

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Random rows and their weights, gathered here: all of them if they are at most ``n``."""
        import dask

        counts = dask.compute(*self._each(_counted))
        ends = np.cumsum(counts)
        chosen = np.sort(rng.permutation(ends[-1])[:n])
        places = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        places = [at - (end - count) for at, end, count in zip(places, ends, counts, strict=True)]
        take = dask.delayed(_taken, pure=False)
        blocks = zip(self._blocks, self._weights, places, strict=True)
        parts = dask.compute(*(take(*block) for block in blocks if len(block[2])))
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def _each(self, function, *shared):
        """A task per block."""
        import dask

        task = dask.delayed(function, pure=False)
        blocks = zip(self._blocks, self._weights, strict=True)
        return [task(block, weights, *shared) for block, weights in blocks]


def _checked(block, weights):
    """The rows of a block that have weight, and their weights."""
    rows = np.asarray(block)
    rows = rows.astype(np.float32 if rows.dtype == np.float32 else np.float64, copy=False)
    if not np.isfinite(rows).all():
        raise ValueError("a dask X must be finite: NaN or infinity was found in a block.")
    if weights is None:
        return rows, np.ones(len(rows))
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(rows),) or not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(
            "sample_weight must be finite and non-negative, one weight per row of each block."
        )
    kept = weights > 0
    return (rows, weights) if kept.all() else (rows[kept], weights[kept])


def _of_block(block, weights, function, *shared):
    rows, weights = _checked(block, weights)
    return function(rows, weights, *shared) if len(rows) else None


def _added(a, b):
    return b if a is None else a if b is None else operator.add(a, b)


def _counted(block, weights):
    return len(_checked(block, weights)[0])


def _taken(block, weights, places):
    rows, weights = _checked(block, weights)
    return rows[places], weights[places]
