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
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

from skdiffusion.utils.rows import middle_of

__all__ = [
    "NeighbourhoodStatistics",
    "Neighbours",
    "RowStatistics",
    "WholeStatistics",
    "summarise",
    "typical_variances",
]

RANKS = (2, 4, 8, 16, 32, 64, 128)
"""Numbers of neighbours whose distances are used."""
ANGLE_RANKS = (8, 16, 32, 64)
"""Numbers of neighbours whose angles are used."""
SPECTRA = {16: (1, 2, 3, 4, 6, 8, 12), 64: (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)}
"""Where the cumulated spectrum of that many neighbours is read."""
GLOBAL_AXES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Where the cumulated spectrum of all rows is read."""
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Shares of all rows at whose distances the whole is looked at."""
KEPT = 0.99
"""Share of the rows, those nearest to the mean, whose covariance is taken."""
CLOSE = 8
"""Neighbours whose distances are computed from differences."""
MOST_OTHERS, MOST_ROWS = 1000, 128
"""Rows whose distances are looked at; rows of a set, beyond which calibration has seen none."""
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


class Neighbours:
    """The nearest of a set of distinct rows; a point that is one of them is not its own neighbour.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    """

    def __init__(self, rows: np.ndarray):
        self.rows, self.middle = rows, middle_of(rows)
        self.search = NearestNeighbors().fit(rows - self.middle)

    def __call__(self, points: np.ndarray, k: int):
        """Distances and indices of the ``k`` nearest, at most ``n - 1``, both ``(n_points, k)``."""
        distances, index = self.search.kneighbors(points - self.middle, k + 1)
        # the search may lose the smallest distances to rounding
        first = index[:, :CLOSE]
        distances[:, :CLOSE] = np.linalg.norm(self.rows[first] - points[:, None], axis=2)
        order = np.argsort(distances, axis=1)
        own = np.take_along_axis(distances, order[:, :1], axis=1) == 0
        order = np.take_along_axis(order, np.arange(k) + own, axis=1)
        distances, index = (np.take_along_axis(a, order, axis=1) for a in (distances, index))
        return np.maximum(distances, np.finfo(np.float64).tiny), index


class NeighbourhoodStatistics:
    """Statistics of any rows among a set of distinct ones.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Distinct rows, at least three.
    """

    def __init__(self, rows: np.ndarray):
        self.rows = rows
        self.neighbours = Neighbours(rows)
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
        distances, index = self.neighbours(points, self.reach)
        k = min(self.reach, ANGLE_RANKS[-1])
        log_r = np.log(distances)
        vectors = self.rows[index[:, :k]] - points[:, None]
        gram = vectors @ vectors.swapaxes(1, 2)
        columns = [*self._ratios(log_r), *self._angles(gram)]
        for rank, positions in SPECTRA.items():
            columns.extend(_spectrum(vectors[:, :rank], gram[:, :rank, :rank], positions))
        kept = [min(rank, self.reach) - 1 for rank in RANKS]
        return RowStatistics(np.stack(columns, axis=1), log_r[:, kept])

    def _ratios(self, log_r):
        for rank in RANKS:
            k = min(rank, self.reach)
            yield (log_r[:, k - 1] - log_r[:, : k - 1].mean(axis=1)) if k > 1 else log_r[:, 0] * 0

    def _angles(self, gram):
        for rank in ANGLE_RANKS:
            g = gram[:, : min(rank, self.reach), : min(rank, self.reach)]
            k = g.shape[1]
            squared = np.einsum("nii->ni", g)
            share = 1 / np.maximum(squared, 1e-300)
            cosines = np.einsum("ni,ni->n", share, (g**2 @ share[:, :, None])[:, :, 0])
            yield (cosines - k) / max(k * (k - 1), 1)
            total, middle = squared.sum(axis=1), g.mean(axis=(1, 2))
            yield k * middle / total  # |mean|^2 over mean squared length
            centred, trace = _centred(g), np.maximum(total - k * middle, 1e-150)
            yield np.einsum("nij,nij->n", centred, centred) / trace**2


def _centred(gram):
    """Gram matrices of vectors about their mean."""
    mean = gram.mean(axis=2)
    return gram - mean[:, :, None] - (mean - mean.mean(axis=1, keepdims=True))[:, None, :]


def _spectrum(vectors, gram, positions):
    """Shares of variance beyond the first principal axes, on average finite logarithms."""
    k, d = vectors.shape[1:]
    if d < k:
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        matrix = centred.swapaxes(1, 2) @ centred
    else:
        matrix = _centred(gram)
    values = np.maximum(np.linalg.eigvalsh(matrix)[:, ::-1], 0)
    shares = values.cumsum(axis=1) / np.maximum(values.sum(axis=1, keepdims=True), 1e-300)
    for position in positions:
        rest = 1 - shares[:, min(position, shares.shape[1]) - 1]
        yield np.log(np.maximum(rest, SMALL))


N_RATIOS, N_ANGLES = len(RANKS), 3 * len(ANGLE_RANKS)


class WholeStatistics(NamedTuple):
    """Statistics of all rows together.

    Attributes
    ----------
    log_scale : float
        Logarithm of the root mean square distance from the mean, without outliers.
    values : ndarray of shape (n_statistics,)
    """

    log_scale: float
    values: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, some: np.ndarray) -> WholeStatistics:
        """From distinct rows, and some of them whose distances to others are typical."""
        spectrum = typical_variances(rows)
        log_scale = 0.5 * np.log(spectrum.sum())
        share = spectrum / spectrum.sum()
        beyond = [np.log(max(1 - share[:j].sum(), SMALL)) for j in GLOBAL_AXES]
        size = [-np.log((share**2).sum()), np.log((share > SMALL).sum()), np.log(len(rows))]
        others = rows[:: -(-len(rows) // MOST_OTHERS)]
        squared = euclidean_distances(some, others, squared=True)
        quantiles = np.quantile(squared, SHARES, axis=1)
        far = 0.5 * np.log(np.maximum(quantiles, 1e-300)) - log_scale
        values = [*beyond, *size, *far.mean(axis=1), far.std(axis=1)[len(SHARES) // 2]]
        return cls(log_scale, np.array(values))


def typical_variances(rows: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance without the rows farthest from the mean, largest first."""
    if len(rows) >= 10:
        squared = ((rows - rows.mean(axis=0)) ** 2).sum(axis=1)
        rows = rows[squared <= np.quantile(squared, KEPT)]
    centred = rows - rows.mean(axis=0)
    small = centred.T @ centred if rows.shape[1] <= len(rows) else centred @ centred.T
    return np.maximum(np.linalg.eigvalsh(small)[::-1], 0) / len(rows)


def summarise(statistics: RowStatistics, whole: WholeStatistics) -> np.ndarray:
    """The vector that stands for a set of rows, all of them or a neighbourhood.

    Parameters
    ----------
    statistics : RowStatistics
        Of the rows to sum up, along the last axis but one: one set or a stack of sets.
    whole : WholeStatistics
        Of all rows.

    Returns
    -------
    ndarray of shape (..., n_summaries)
    """
    means, log_r = statistics
    n_logs = N_RATIOS + N_ANGLES
    averages = means.mean(axis=-2)
    logs = np.log(np.maximum(averages[..., :n_logs], SMALL))
    low, middle, high = np.quantile(log_r, [0.16, 0.5, 0.84], axis=-2)
    ratios = means[..., 3:N_RATIOS].std(axis=-2)
    ratio_spread = ratios / np.maximum(averages[..., 3:N_RATIOS], SMALL)
    of_all = np.append(whole.values, np.log(min(means.shape[-2], MOST_ROWS)))
    return np.concatenate(
        [
            logs,
            averages[..., n_logs:],
            np.log(np.maximum((high - low)[..., [1, 3, 5]], SMALL)),
            np.log(np.maximum(ratio_spread, SMALL)),
            middle - whole.log_scale,
            np.broadcast_to(of_all, (*averages.shape[:-1], len(of_all))),
        ],
        axis=-1,
    )
