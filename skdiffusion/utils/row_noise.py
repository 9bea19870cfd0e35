r"""Noise of the rows of a run, whatever the batches they are computed in.

The :math:`k`-th draw of row :math:`i` is a function of :math:`(\text{seed}, k, i)` alone. Rows
are grouped in blocks of 256; draw :math:`k` of block :math:`b` is the beginning of the stream of
a counter-based generator (Philox, Salmon et al. 2011) whose counter starts at
:math:`(0, k, b, 0)`, filled row by row. A batch takes from it the rows it holds: results do not
depend on how rows are batched, and the first rows of a long run are those of a short one.

Where a row is to have the same noise wherever it stands, alone or among others, the run is given a
key of each row (:class:`RowKeys`): draw :math:`k` is then a hash of key and :math:`k`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from skdiffusion.utils.arrays import like
from skdiffusion.utils.random import uniform_by_key

__all__ = ["RowKeys", "RowNoise"]

BLOCK = 256


class RowKeys(np.random.Generator):
    """A generator for a run in which noise belongs to rows by a key, not by their place.

    Parameters
    ----------
    keys : ndarray of uint64 of shape (n,)
        One per row of the run; rows with equal keys have equal noise.

    Examples
    --------
    >>> import numpy as np
    >>> keys = np.array([5, 6, 7], dtype=np.uint64)
    >>> whole = RowNoise(RowNoise.key_from(RowKeys(keys))).normal(np.empty((3, 2)))
    >>> alone = RowNoise(RowNoise.key_from(RowKeys(keys[1:2]))).normal(np.empty((1, 2)))
    >>> bool((whole[1:2] == alone).all())
    True
    """

    def __init__(self, keys: np.ndarray):
        super().__init__(np.random.Philox(0))
        self.keys = np.asarray(keys, dtype=np.uint64)


class RowNoise:
    """Reproducible draws for consecutive rows of a run.

    Parameters
    ----------
    key : array of two uint64, or of uint64 of shape (n, 1)
        Seed of the run, or a key of each of its rows.
    first_row : int
        Position in the run of the first row drawn for.
    scale : float or array of shape (d,)
        Standard deviation of the normal draws per column.

    Examples
    --------
    >>> import numpy as np
    >>> whole = RowNoise([1, 2]).normal(np.empty((300, 3)))
    >>> part = RowNoise([1, 2], first_row=200).normal(np.empty((50, 3)))
    >>> bool((whole[200:250] == part).all())
    True
    """

    def __init__(self, key: Any, first_row: int = 0, scale: Any = 1.0):
        self.key = np.asarray(key, dtype=np.uint64)
        self.first_row = first_row
        self.scale = scale
        self.draw = 0

    @classmethod
    def key_from(cls, rng: np.random.Generator) -> np.ndarray:
        """A key for a run, drawn from a generator, or those of its rows."""
        if isinstance(rng, RowKeys):
            return rng.keys[:, None]
        return rng.integers(2**64, size=2, dtype=np.uint64)

    def normal(self, x: Any):
        """Normal draws of the model's noise at level one, like ``x``."""
        return like(self._rows(len(x), x.shape[1], normal=True) * self.scale, x)

    def uniform(self, x: Any, n_columns: int = 1):
        """Uniform draws in ``[0, 1)`` of shape ``(n, n_columns)``, otherwise like ``x``."""
        return like(self._rows(len(x), n_columns, normal=False), x)

    def _rows(self, n, d, normal):
        of_rows = self._by_key if self.key.ndim == 2 else self._by_place
        found = of_rows(n, d, normal)
        self.draw += 1
        return found

    def _by_key(self, n, d, normal):
        keys = self.key[self.first_row : self.first_row + n, 0]
        uniform = uniform_by_key(keys, d, self.draw)
        return ndtri(uniform) if normal else uniform

    def _by_place(self, n, d, normal):
        parts, last = [], self.first_row + n
        for block in range(self.first_row // BLOCK, -(-last // BLOCK)):
            first = max(self.first_row - block * BLOCK, 0)
            end = min(last - block * BLOCK, BLOCK)
            counter = np.array([0, self.draw, block, 0], dtype=np.uint64)
            rng = np.random.Generator(np.random.Philox(key=self.key, counter=counter))
            fill = rng.standard_normal if normal else rng.random
            parts.append(fill((end, d))[first:])
        return np.concatenate(parts) if parts else np.empty((0, d))
