"""Rows of known dimension, and whether they can show it.

A curve folded closely, or noise that covers its strands, is a sheet to everyone who sees the rows
alone. Where the nearest rows of a row are on other strands of the law than its own, its dimension
teaches nothing and tests nothing.
"""

from typing import NamedTuple

import numpy as np

from skdiffusion.geometry._neighbourhood_statistics import Neighbours

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
    near = Neighbours(law.rows)(law.rows[index], k)[1]
    k = min(NEAR_ON_LAW, len(law.rows) - 1)
    on_law = Neighbours(law.intrinsic)(law.intrinsic[index], k)[1]
    return (near[:, :, None] == on_law[:, None]).any(axis=2).mean(axis=1)
