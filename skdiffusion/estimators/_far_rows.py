r"""Whether a few far rows decide what a column is measured in.

A row :math:`a` standard deviations :math:`s` of :math:`n` others away makes that of all about
:math:`s\, a/\sqrt n`. Whatever is then set as a share of it, a floor of variances or a range of
noise levels, takes the other rows for one point.
"""

from __future__ import annotations

import contextlib
import warnings

import numpy as np

from skdiffusion.estimators._singular import SINGULAR
from skdiffusion.utils.validation import listed
from skdiffusion.utils.warning import warn_user

__all__ = ["FAR_ROWS", "QUANTILE_ROWS", "told_once", "warn_of_far_rows"]

QUANTILE_ROWS = 10_000
"""Rows that quantiles are taken of, at most."""
FAR = 50.0
"""How many times as wide as nine rows in ten of a normal law a column is where far rows must have
decided its standard deviation."""
NINE_IN_TEN = 3.29
FAR_ROWS = "a few far rows"
"""How the warning begins."""


def warn_of_far_rows(
    rows: np.ndarray, deviations: np.ndarray, consequence: str, *, shared: bool = False
) -> None:
    """Warn where the standard deviation of a column is that of a few rows.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At most ``QUANTILE_ROWS``, evenly spaced among all; NaN where a value is missing.
    deviations : ndarray of shape (d,)
        Standard deviations of the columns.
    consequence : str
        What comes of it, as the end of the message.
    shared : bool
        Whether all columns are measured in their root mean square: what is less decides nothing.
    """
    low, high = np.nanquantile(rows.astype(np.float64), [0.05, 0.95], axis=0)
    # columns that are nearly always the same, such as indicators of rare categories, are no worse
    least = float(np.sqrt(np.mean(deviations**2))) if shared else 0.0
    told = (high > low) & (deviations > FAR * (high - low) / NINE_IN_TEN) & (deviations >= least)
    columns = np.flatnonzero(told)
    if len(columns):
        j = columns[0]
        warn_user(
            f"{FAR_ROWS} decide the scale of {len(columns)} of {len(deviations)} columns "
            f"({listed(columns)}): in column {j} nine rows in ten lie within "
            f"{high[j] - low[j]:.3g}, the standard deviation is {deviations[j]:.3g}. "
            f"{consequence}: leave the far rows out, clip or transform the column."
        )


@contextlib.contextmanager
def told_once(*beginnings: str):
    """Around fits to rows that another fit warns of: these do not.

    Parameters
    ----------
    *beginnings : str
        Of the warnings; by default of far rows and of rows in a subspace.
    """
    with warnings.catch_warnings():
        for beginning in beginnings or (FAR_ROWS, SINGULAR):
            warnings.filterwarnings("ignore", beginning)
        yield
