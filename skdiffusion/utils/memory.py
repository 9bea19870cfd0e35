r"""How many rows fit scikit-learn's ``working_memory``, and a cache.

Work on :math:`n` rows that holds :math:`m` numbers in double precision for each of them is done in
batches of :math:`\max(1, \lfloor M / 8m \rfloor)` rows, :math:`M` the working memory in bytes.
Where the same arrays are gone over many times, batches whose arrays stay in a cache are faster.
"""

from __future__ import annotations

import sklearn

__all__ = ["rows_in_cache", "rows_in_memory"]


def rows_in_memory(numbers_per_row: float) -> int:
    """Rows of so many float64 numbers that fit the working memory; at least one.

    Examples
    --------
    >>> from sklearn import config_context
    >>> with config_context(working_memory=1):
    ...     rows_in_memory(1000)
    131
    """
    return max(int(sklearn.get_config()["working_memory"] * 2**20 / (8 * numbers_per_row)), 1)


def rows_in_cache(
    numbers_per_row: float, cached: float, *, n_arrays: float = 1, fewest: int = 1
) -> int:
    """Rows of which one array has at most so many numbers, and all fit the working memory.

    Parameters
    ----------
    numbers_per_row : float
        Of one array.
    cached : float
        Numbers of one array that a cache holds beside the others.
    n_arrays : float
        How many such arrays the work holds at once.
    fewest : int
        Rows of a batch below which it is no longer worth while; the working memory still counts.

    Examples
    --------
    >>> rows_in_cache(100, 2**20)
    10485
    >>> rows_in_cache(100_000, 2**20, fewest=256)
    256
    """
    small = max(int(cached / numbers_per_row), fewest)
    return min(rows_in_memory(n_arrays * numbers_per_row), small)
