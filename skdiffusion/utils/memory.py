r"""How many rows fit scikit-learn's ``working_memory``.

Work on :math:`n` rows that holds :math:`m` numbers in double precision for each of them is done in
batches of :math:`\max(1, \lfloor M / 8m \rfloor)` rows, :math:`M` the working memory in bytes.
"""

from __future__ import annotations

import sklearn

__all__ = ["rows_in_memory"]


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
