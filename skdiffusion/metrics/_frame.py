r"""Two samples in one frame: the same columns, in units that do not matter.

Distances between rows mean little where one column counts metres and another millimetres.
Columns are therefore divided by a standard deviation,

.. math:: x_j \mapsto (x_j - m_j) / s_j,

that of the *real* rows alone: what is generated must not choose the units it is judged in. A
permutation test is exact only if nothing knows which row came from which sample, so there both
samples together set :math:`m` and :math:`s`.

All distances together are one product of matrices, :math:`|x|^2 - 2 x \cdot y + |y|^2`. It leaves
:math:`10^{-8} |x|` of equal rows, and tables have many: where it cancels the difference itself is
taken, and equal rows are at distance zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.rows import check_points, middle_of
from skdiffusion.utils.validation import check_flag

__all__ = ["distance_chunks", "distances", "in_one_frame", "nearest", "pairwise_sum"]

CANCELLED = 1e-3
"""Distance of two rows over their lengths up to which it is that of their difference."""


def in_one_frame(
    real: Any,
    generated: Any,
    *others: Any,
    standardize: bool = True,
    pooled: bool = False,
    names: tuple[str, ...] = ("real", "generated"),
    least: int = 2,
) -> list[np.ndarray]:
    """Samples as float64 arrays of the same columns, in common units.

    Parameters
    ----------
    real, generated, *others : array-like of shape (n_i, d)
    standardize : bool
        Whether to centre and scale the columns by the moments of ``real``. Otherwise they are
        moved to its middle, which no distance sees but by the digits that it keeps.
    pooled : bool
        Whether by those of all samples together instead.
    names : tuple of str
        What the samples are called in messages.
    least : int
        Rows that every sample must have.

    Returns
    -------
    list of ndarray

    Raises
    ------
    ValueError
        If a sample is not numeric, finite and two-dimensional, has too few rows, or has other
        columns than ``real``.
    """
    check_flag(standardize, "standardize")
    samples = (real, generated, *others)
    arrays = [
        check_points(sample, name=name, ensure_min_samples=least)
        for sample, name in zip(samples, names, strict=True)
    ]
    columns = getattr(real, "columns", None)
    for sample, array, name in zip(samples[1:], arrays[1:], names[1:], strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"{name} must have the {arrays[0].shape[1]} columns of {names[0]}; "
                f"got {array.shape[1]}."
            )
        theirs = getattr(sample, "columns", None)
        if columns is not None and theirs is not None and list(columns) != list(theirs):
            raise ValueError(f"{name} must have the columns of {names[0]} in the same order.")
    if not standardize:
        middle = middle_of(arrays[0])
        return [array - middle for array in arrays]
    reference = np.concatenate(arrays) if pooled else arrays[0]
    centre, spread = reference.mean(axis=0), reference.std(axis=0)
    # what does not vary, up to rounding, keeps its units
    spread[spread <= 1e-12 * np.abs(centre)] = 1.0
    return [(array - centre) / spread for array in arrays]


def distances(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Distances of all rows of ``A`` from those of ``B``; zero for equal rows."""
    found = euclidean_distances(A, B)
    lengths = np.linalg.norm(A, axis=1)[:, None] + np.linalg.norm(B, axis=1)
    i, j = np.nonzero(found <= CANCELLED * lengths)
    for some in gen_batches(max(len(i), 1), rows_in_memory(3 * A.shape[1])):
        found[i[some], j[some]] = np.linalg.norm(A[i[some]] - B[j[some]], axis=1)
    return found


def distance_chunks(A: np.ndarray, B: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of ``A`` and their distances from those of ``B``, in chunks of the working memory."""
    for rows in gen_batches(len(A), rows_in_memory(4 * len(B))):
        yield rows, distances(A[rows], B)


def pairwise_sum(function, A: np.ndarray, B: np.ndarray) -> float:
    """Sum of ``function(distances)`` over all pairs, in chunks of the working memory."""
    return float(sum(function(found).sum() for _, found in distance_chunks(A, B)))


def nearest(rows: np.ndarray, n: int, queries: np.ndarray | None = None) -> np.ndarray:
    """Distances ``(m, n)`` of queries from the ``n`` nearest rows, of the rows from the others."""
    index = NearestNeighbors(n_neighbors=n).fit(rows).kneighbors(queries, return_distance=False)
    queries = rows if queries is None else queries
    return np.sort([np.linalg.norm(queries - rows[one], axis=1) for one in index.T], axis=0).T
