r"""Dimension from neighbours alone: calibrated, everywhere and overall, with its error.

Statistics of neighbours (:mod:`~skdiffusion.geometry._neighbourhood_statistics`) are taken at
landmarks, some of the rows or all. Their mean over all landmarks gives the dimension of the whole,
that over the landmarks nearest to a point the dimension there; both by the same
calibration (:mod:`~skdiffusion.geometry._dimension_calibration`), which was taught both.

All of it is computed from the middle of the rows, in units of the power of two at the largest
entry: distances then keep their digits whatever the offset, and their fourth powers stay numbers
whatever the units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches, gen_even_slices

from skdiffusion.geometry._dimension_calibration import calibrated
from skdiffusion.geometry._neighbourhood_statistics import (
    NeighbourhoodStatistics,
    RowStatistics,
    WholeStatistics,
    summarise,
)
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.rows import middle_of

__all__ = ["NeighbourDimension"]

MAX_ROWS, MAX_LANDMARKS = 10_000, 1_500
NEAREST = 32
"""Landmarks whose statistics make the dimension at a point."""
TANGENT_NEIGHBOURS = 16
N_BOOTSTRAP = 24


class NeighbourDimension:
    """Calibrated dimension of a set of distinct rows.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Distinct, at least three of them.
    rank : int
        Dimension of their linear span, which no answer exceeds.
    rng : numpy.random.Generator
    n_jobs : int, optional

    Attributes
    ----------
    dimension, std_error : float
    """

    def __init__(self, rows: np.ndarray, rank: int, rng: np.random.Generator, n_jobs: Any = None):
        if len(rows) > MAX_ROWS:
            rows = rows[np.sort(rng.choice(len(rows), MAX_ROWS, replace=False))]
        self._middle = middle_of(rows)
        self._exponent = -int(np.frexp(np.abs(rows - self._middle).max())[1])
        landmarks = rows = self._in_units(rows)
        if len(rows) > MAX_LANDMARKS:
            landmarks = rows[np.sort(rng.choice(len(rows), MAX_LANDMARKS, replace=False))]
        self.rank = rank
        self.measure = NeighbourhoodStatistics(rows)
        self.whole = WholeStatistics.of(rows, landmarks[:256])
        self.statistics = self._measured(landmarks, n_jobs)
        self.nearest = NearestNeighbors(n_neighbors=min(NEAREST, len(landmarks))).fit(landmarks)
        dimension, error = self._answer(np.arange(len(landmarks))[None])
        self.dimension = float(dimension[0])
        draws = rng.integers(len(landmarks), size=(N_BOOTSTRAP, len(landmarks)))
        spread = float(np.std(self._answer(draws)[0], ddof=1))
        self.std_error = float(np.hypot(error[0] * dimension[0], spread))

    def _in_units(self, points):
        return np.ldexp(points - self._middle, self._exponent)

    def _measured(self, landmarks, n_jobs):
        slices = gen_even_slices(len(landmarks), max(1, min(16, len(landmarks) // 64)))
        parts = Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(self.measure)(landmarks[batch]) for batch in slices
        )
        return RowStatistics(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _answer(self, index):
        """Dimension and relative error of sets of landmarks, ``(n_sets, size)``."""
        means, log_distances = (part[index] for part in self.statistics)
        dimension, error = calibrated(summarise(RowStatistics(means, log_distances), self.whole))
        return np.minimum(dimension, self.rank), error

    def local(self, points: np.ndarray) -> np.ndarray:
        """Dimension at each of some points, shape ``(n,)``."""
        index = self.nearest.kneighbors(self._in_units(points), return_distance=False)
        return np.concatenate([self._answer(part)[0] for part in self._parts(index)])

    def _parts(self, index):
        numbers = sum(part[0].size for part in self.statistics) * index.shape[1]
        return [index[batch] for batch in gen_batches(len(index), rows_in_memory(numbers))]

    def tangents(self, points: np.ndarray, n_components: int) -> np.ndarray:
        """Principal axes of the neighbours of each point, ``(n, d, n_components)``."""
        k = min(max(TANGENT_NEIGHBOURS, 3 * n_components), self.measure.reach)
        vectors = self.measure.rows[self.measure.neighbours(self._in_units(points), k)[1]]
        vectors = vectors - vectors.mean(axis=1, keepdims=True)
        axes = np.linalg.svd(vectors, full_matrices=True)[2]
        return axes[:, :n_components].swapaxes(1, 2)
