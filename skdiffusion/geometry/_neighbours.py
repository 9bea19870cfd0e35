"""How far neighbours are: a bandwidth that follows the spacing of the data."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from skdiffusion.utils.rows import middle_of

__all__ = ["neighbour_distance"]

NEIGHBOURS = 10


def neighbour_distance(rows: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean over distinct rows of their mean distance to the ten nearest others.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Distinct, at least two.
    weights : ndarray of shape (n,)

    Raises
    ------
    ValueError
        If there is but one row.
    """
    if len(rows) < 2:
        raise ValueError("X has no variance: all of its rows are the same.")
    search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(rows) - 1))
    search.fit(rows - middle_of(rows))
    return float(np.average(search.kneighbors()[0].mean(axis=1), weights=weights))
