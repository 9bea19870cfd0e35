r"""Noise of the rows of a run, whatever the batches they are computed in.

The :math:`k`-th draw of row :math:`i` is a function of :math:`(\text{seed}, k, i)` alone. Rows
are grouped in blocks of 256; draw :math:`k` of block :math:`b` is the beginning of the stream of
a counter-based generator (Philox, Salmon et al. 2011) whose counter starts at
:math:`(0, k, b, 0)`, filled row by row. A batch takes from it the rows it holds: results do not
depend on how rows are batched, and the first rows of a long run are those of a short one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.utils.arrays import like

__all__ = ["RowNoise"]

BLOCK = 256


class RowNoise:
    """Reproducible draws for consecutive rows of a run.

    Parameters
    ----------
    key : array of two uint64
        Seed of the run.
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
        """A key for a run, drawn from a generator."""
        return rng.integers(2**64, size=2, dtype=np.uint64)

    def normal(self, x: Any):
        """Normal draws of the model's noise at level one, like ``x``."""
        noise = self._rows(len(x), x.shape[1], lambda rng, shape: rng.standard_normal(shape))
        return like(noise * self.scale, x)

    def uniform(self, x: Any, n_columns: int = 1):
        """Uniform draws in ``[0, 1)`` of shape ``(n, n_columns)``, otherwise like ``x``."""
        return like(self._rows(len(x), n_columns, lambda rng, shape: rng.random(shape)), x)

    def _rows(self, n, d, fill):
        parts, last = [], self.first_row + n
        for block in range(self.first_row // BLOCK, -(-last // BLOCK)):
            first = max(self.first_row - block * BLOCK, 0)
            end = min(last - block * BLOCK, BLOCK)
            counter = np.array([0, self.draw, block, 0], dtype=np.uint64)
            rng = np.random.Generator(np.random.Philox(key=self.key, counter=counter))
            parts.append(fill(rng, (end, d))[first:])
        self.draw += 1
        return np.concatenate(parts) if parts else np.empty((0, d))
