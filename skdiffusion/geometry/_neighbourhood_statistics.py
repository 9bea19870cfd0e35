r"""What the neighbours of a row tell about dimension, at several scales.

With the distances :math:`r_1 \le r_2 \le \dots` from a row to its neighbours, the vectors
:math:`v_j` to them, and their Gram matrix about their mean with eigenvalues :math:`\lambda`,
each number of neighbours :math:`k` gives, where the law is flat and even around the row,

.. math::
    E\,\frac1{k-1}\sum_{j<k} \log\frac{r_k}{r_j} = \frac1d, \qquad
    E \cos^2\angle(v_i, v_j) = \frac1d, \qquad
    \frac{(\sum\lambda)^2}{\sum\lambda^2} \to d, \qquad
    \Big|\frac1k \sum_j v_j\Big| = 0 .

Curvature, uneven density, borders and noise bias each of them in its own way and at its own
scale, which is why all are kept: :mod:`skdiffusion.geometry._dimension_calibration` learns from
laws of known dimension what they say together. All are the same in any units and axes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

__all__ = ["NeighbourhoodStatistics", "RowStatistics", "summarise"]

RANKS = (2, 4, 8, 16, 32, 64, 128)
"""Numbers of neighbours whose distances are used."""
ANGLE_RANKS = (8, 16, 32, 64)
"""Numbers of neighbours whose angles are used."""
SPECTRA = {16: (1, 2, 3, 4, 6, 8, 12), 64: (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)}
"""Where the cumulated spectrum of that many neighbours is read."""
GLOBAL_AXES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Where the cumulated spectrum of all rows is read."""
SMALL = 1e-5
"""Shares of variance below it are taken for zero."""


class RowStatistics(NamedTuple):
    """Statistics of rows: what is averaged, and the logarithms of distances, whose spread counts.

    Attributes
    ----------
    means : ndarray of shape (n, n_statistics)
    log_distances : ndarray of shape (n, n_ranks)
    """

    means: np.ndarray
    log_distances: np.ndarray


class NeighbourhoodStatistics:
    """Statistics of any rows among a set of distinct ones.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Distinct rows, at least three.
    """

    def __init__(self, rows: np.ndarray):
        self.rows = rows
        self.search = NearestNeighbors().fit(rows)
        self.reach = min(RANKS[-1], len(rows) - 1)

    def __call__(self, points: np.ndarray) -> RowStatistics:
        """Statistics of points; one of the rows themselves is not its own neighbour."""
        parts = [self._of(points[batch]) for batch in gen_batches(len(points), self._batch)]
        return RowStatistics(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    @property
    def _batch(self):
        k = min(self.reach, ANGLE_RANKS[-1])
        return max(int(2e6 / (k * (k + self.rows.shape[1]))), 1)

    def _of(self, points):
        distances, index = self.neighbours(points)
        k = min(self.reach, ANGLE_RANKS[-1])
        log_r = np.log(distances)
        vectors = self.rows[index[:, :k]] - points[:, None]
        gram = vectors @ vectors.swapaxes(1, 2)
        columns = [*self._ratios(log_r), *self._angles(gram)]
        for rank, positions in SPECTRA.items():
            columns.extend(_spectrum(vectors[:, :rank], gram[:, :rank, :rank], positions))
        kept = [min(rank, self.reach) - 1 for rank in RANKS]
        return RowStatistics(np.stack(columns, axis=1), log_r[:, kept])

    def neighbours(self, points: np.ndarray):
        """Distances and indices of the neighbours, the point itself left out if it is a row."""
        distances, index = self.search.kneighbors(points, self.reach + 1)
        own = (self.rows[index[:, 0]] == points).all(axis=1)
        pick = np.arange(self.reach) + own[:, None]
        rows = np.arange(len(points))[:, None]
        distances, index = distances[rows, pick], index[rows, pick]
        # the search may lose close neighbours to rounding
        exact = np.linalg.norm(self.rows[index[:, :8]] - points[:, None], axis=2)
        distances[:, :8] = exact
        distances.sort(axis=1)
        return np.maximum(distances, np.finfo(np.float64).tiny), index

    def _ratios(self, log_r):
        for rank in RANKS:
            k = min(rank, self.reach)
            yield (log_r[:, k - 1] - log_r[:, : k - 1].mean(axis=1)) if k > 1 else log_r[:, 0] * 0

    def _angles(self, gram):
        for rank in ANGLE_RANKS:
            g = gram[:, : min(rank, self.reach), : min(rank, self.reach)]
            k = g.shape[1]
            squared = np.einsum("nii->ni", g)
            cosines = (g**2 / (squared[:, :, None] * squared[:, None, :])).sum((1, 2))
            yield (cosines - k) / max(k * (k - 1), 1)
            mean = g.mean(axis=2)
            total, middle = squared.sum(axis=1), mean.mean(axis=1)
            yield k * middle / total  # |mean|^2 over mean squared length
            centred = g - mean[:, :, None] - mean[:, None, :] + middle[:, None, None]
            trace = np.einsum("nii->n", centred)
            yield (centred**2).sum((1, 2)) / np.maximum(trace, 1e-300) ** 2


def _spectrum(vectors, gram, positions):
    """Shares of variance beyond the first principal axes, on average finite logarithms."""
    k, d = vectors.shape[1:]
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    matrix = centred.swapaxes(1, 2) @ centred if d < k else centred @ centred.swapaxes(1, 2)
    values = np.maximum(np.linalg.eigvalsh(matrix)[:, ::-1], 0)
    shares = values.cumsum(axis=1) / np.maximum(values.sum(axis=1, keepdims=True), 1e-300)
    for position in positions:
        rest = 1 - shares[:, min(position, shares.shape[1]) - 1]
        yield np.log(np.maximum(rest, SMALL))


N_RATIOS, N_ANGLES = len(RANKS), 3 * len(ANGLE_RANKS)


def summarise(statistics: RowStatistics, spectrum: np.ndarray, n_rows: int) -> np.ndarray:
    """The vector that stands for a whole set of rows, or for a part of it.

    Parameters
    ----------
    statistics : RowStatistics
        Of the rows to sum up.
    spectrum : ndarray
        Eigenvalues of the covariance of the whole set, largest first.
    n_rows : int
        Distinct rows in the whole set.

    Returns
    -------
    ndarray of shape (n_summaries,)
    """
    means, log_r = statistics
    n_logs = N_RATIOS + N_ANGLES
    averages = means.mean(axis=0)
    logs = np.log(np.maximum(averages[:n_logs], SMALL))
    spread = log_r[:, [1, 3, 5]].std(axis=0)
    ratio_spread = means[:, 3:N_RATIOS].std(axis=0) / np.maximum(averages[3:N_RATIOS], SMALL)
    share = spectrum / spectrum.sum()
    reach = log_r.mean(axis=0) - 0.5 * np.log(spectrum.sum())
    beyond = [
        np.log(max(1 - share[:j].sum(), SMALL)) for j in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
    ]
    return np.concatenate(
        [
            logs,
            averages[n_logs:],
            np.log(np.maximum(spread, SMALL)),
            np.log(np.maximum(ratio_spread, SMALL)),
            reach[[0, 3, 6]],
            beyond,
            [-np.log((share**2).sum()), np.log((share > SMALL).sum()), np.log(n_rows)],
        ]
    )
