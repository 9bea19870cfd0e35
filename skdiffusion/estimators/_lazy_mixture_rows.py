"""Standardised rows of a mixture that lie elsewhere, as EM sees them."""

from __future__ import annotations

import copy
import functools

import numpy as np

from skdiffusion.estimators._em import Rows
from skdiffusion.estimators._frame import Frame
from skdiffusion.estimators._moments import DiagonalMoments, gathered
from skdiffusion.estimators._seeding import distinct_rows
from skdiffusion.utils.lazy_rows import LazyRows

__all__ = ["LazyMixtureRows"]

FEW = 20_000
"""Rows that are gathered, at random, to find the start of EM from."""


class LazyMixtureRows:
    """What :class:`Rows` is, without the rows: their sums, and a few of them.

    Parameters
    ----------
    rows : LazyRows
    per_column : bool
        Whether each column has its own scale.
    rng : Generator
        Draws the few.

    Attributes
    ----------
    frame : Frame
        Units of the columns.
    total : float
        Weight of all rows.
    """

    def __init__(self, rows: LazyRows, per_column: bool, rng):
        moments = rows.total(gathered, DiagonalMoments(rows.n_features))
        self.frame = Frame(moments.mean, moments.column_variances(), per_column)
        self.total, self.n_rows = moments.weight, moments.n_rows
        self._rows, self._rng, self._in_double = rows, rng, False

    def sums(self, function, *shared):
        """``function(rows, *shared)`` summed over the blocks."""
        return self._rows.total(_standardised, self.frame, self._in_double, function, *shared)

    def in_double(self) -> LazyMixtureRows:
        """These rows in double precision."""
        rows = copy.copy(self)
        rows.few, rows._in_double = self.few.in_double(), True
        return rows

    @functools.cached_property
    def few(self) -> Rows:
        """Random rows, in memory."""
        return self.frame.rows(*distinct_rows(*self._rows.sample(FEW, self._rng)))

    @property
    def seen(self) -> np.ndarray:
        """Weight of the values, by column: none is missing."""
        return np.full(self.frame.n_features, self.total)


def _standardised(X, weights, frame, in_double, function, *shared):
    dtype = np.float64 if in_double else X.dtype
    return function(Rows(frame.inward(X).astype(dtype, copy=False), weights), *shared)
