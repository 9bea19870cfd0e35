"""Rows of known dimension, and whether they can show it.

A curve folded closely, or noise that covers its strands, is a sheet to everyone who sees the rows
alone. Where the nearest rows of a row are on other strands of the law than its own, its dimension
teaches nothing and tests nothing.
"""

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEAR, NEAR_ON_LAW = 16, 64


class Law(NamedTuple):
    """Rows, and what is known of them.

    Attributes
    ----------
    rows : ndarray of shape (n, D)
    dimensions : ndarray of shape (n,)
    kind : str
    intrinsic : ndarray of shape (n, d'), optional
        Coordinates on the law itself, where strands are as far apart as they are along it.
    """

    rows: np.ndarray
    dimensions: np.ndarray
    kind: str
    intrinsic: np.ndarray | None = None


def visible(law, index):
    """Share of the nearest rows of some that are near on the law too: folds and noise hide laws."""
    if law.intrinsic is None:
        return np.ones(len(index))
    k = min(NEAR, len(law.rows) - 1)
    near = nearest(law.rows, index, k)
    on_law = nearest(law.intrinsic, index, min(NEAR_ON_LAW, len(law.rows) - 1))
    return (near[:, :, None] == on_law[:, None]).any(axis=2).mean(axis=1)


def nearest(rows, index, k):
    """Indices of the ``k`` nearest others."""
    found = NearestNeighbors().fit(rows).kneighbors(rows[index], k + 1, return_distance=False)
    own = found == index[:, None]
    own[~own.any(axis=1), -1] = True
    return found[~own].reshape(len(index), k)
