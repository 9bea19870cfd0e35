r"""Blocks of rows, and who computes them.

Work on :math:`n` independent rows is done in blocks that fit a cache. With :math:`T` threads to
use, it is better to give each thread blocks of its own than to let all of them share every
matrix product: what is done between the products, a memory-bound third of the time or more, is
then shared too, and no thread waits for another within a product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from skdiffusion.utils.arrays import is_torch, namespace

__all__ = ["blas_threads", "by_blocks", "map_blocks", "one_blas_thread"]


@functools.cache
def _pools():
    return ThreadpoolController().select(user_api="blas")


def blas_threads() -> int:
    """Number of threads that matrix products may use now."""
    return max((pool.num_threads for pool in _pools().lib_controllers), default=1)


def one_blas_thread():
    """Context in which matrix products use one thread."""
    return _pools().limit(limits=1)


def map_blocks(function: Callable[[slice], Any], n: int, size: int) -> list:
    """Results of ``function(rows)`` for consecutive slices of ``n`` rows, in order.

    Parameters
    ----------
    function : callable
        Of a slice; must not write to what the blocks share.
    n, size : int
        Number of rows, and rows per block.

    Returns
    -------
    list
    """
    blocks = [slice(start, start + size) for start in range(0, n, size)]
    n_threads = min(blas_threads(), len(blocks))
    if n_threads < 2:
        return [function(rows) for rows in blocks]
    with one_blas_thread(), ThreadPoolExecutor(n_threads) as threads:
        return list(threads.map(function, blocks))


def by_blocks(function: Callable, size: int, x: Any, sigma: Any, *rows: Any):
    """``function(x, sigma, *rows)`` of so many rows at once, put together.

    Tensors keep to one thread of ours: torch has its own, and follows what it computes.

    Parameters
    ----------
    function : callable
        Of points, levels and what else there is of the points.
    size : int
        Rows at once.
    x : array of shape (n, d)
    sigma : float or array of n levels
    *rows : arrays of n rows

    Returns
    -------
    array of n rows
    """
    n = x.shape[0]
    if n <= size:
        return function(x, sigma, *rows)

    def part(block):
        level = sigma[block] if np.ndim(sigma) else sigma
        return function(x[block], level, *(v[block] for v in rows))

    if is_torch(x):
        parts = [part(slice(start, start + size)) for start in range(0, n, size)]
    else:
        parts = map_blocks(part, n, size)
    return namespace(x).concat(parts, axis=0)
