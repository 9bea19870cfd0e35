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

from threadpoolctl import ThreadpoolController

__all__ = ["blas_threads", "map_blocks", "one_blas_thread"]


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
