r"""Where training gets its rows from, and in which order.

Rows stand in an order of their content, and an epoch is a random permutation of
:math:`N = \max(n, \sum w)` equal slices of the cumulative weight: with whole weights a row of
weight two is drawn exactly when two copies of it would be. Position ``p`` of the endless stream
of rows is a function of the seed and ``p`` alone, so that training can go on from any step.

Coordinates are those of the network: :math:`z = (x - b)/s\,Q`, in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = [
    "Coordinates",
    "RowStream",
    "effective_rows",
    "is_dataset",
    "is_streamed",
    "read_rows",
    "repeated_rows",
]

IN_MEMORY = 2**31
"""Bytes of float32 rows up to which they are standardised once and kept on the device."""
LONGEST_EPOCH = 2**24
"""Rows that weights may stand for, at most, unless there are more."""


class Coordinates:
    """The affine map between the units of ``X`` and what the network sees.

    Parameters
    ----------
    shift : ndarray of shape (d,)
    scale : float or ndarray of shape (d,)
    rotation : ndarray of shape (d, d), optional
    """

    def __init__(self, shift: Any, scale: Any, rotation: Any = None):
        # rounded once: sums of the same rows in another order then give the same coordinates
        self.scale = _rounded(scale)
        self.shift = _rounded(shift)
        # where the offset is large, its digits are few: the rest in 4096ths of the scale
        self.shift += np.round((shift - self.shift) / self.scale * 2**12) / 2**12 * self.scale
        self.rotation = rotation

    def inward(self, rows: np.ndarray) -> torch.Tensor:
        """Float32 tensor of rows in the network's coordinates."""
        z = (np.asarray(rows, dtype=np.float64) - self.shift) / self.scale
        if self.rotation is not None:
            z = z @ self.rotation
        return torch.from_numpy(np.ascontiguousarray(z, dtype=np.float32))


def _rounded(values: Any) -> np.ndarray:
    """Numbers to the digits of float32, in the range of float64: units may be any."""
    digits, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    return np.ldexp(digits.astype(np.float32).astype(np.float64), exponent)


def is_dataset(X: Any) -> bool:
    """Whether ``X`` is a torch dataset, which must be map-style: rows are read in any order."""
    if not isinstance(X, torch.utils.data.Dataset):
        return False
    if isinstance(X, torch.utils.data.IterableDataset) or not hasattr(X, "__len__"):
        raise ValueError(
            "a Dataset must be map-style, with __getitem__ and __len__, for its rows are read in "
            f"any order; got {type(X).__name__}."
        )
    return True


class RowStream:
    """An endless shuffled stream of rows, a pure function of seed and position.

    Parameters
    ----------
    X : ndarray, memmap or map-style Dataset of rows
    order : ndarray of int
        Positions of the training rows, in an order that depends on their content.
    coordinates : Coordinates
    conditions : ndarray of shape (n, n_conditions), optional
    weights : ndarray of shape (n,), optional
    seed : int
    device : torch.device
    """

    def __init__(self, X, order, coordinates, conditions, weights, seed, device):
        self.X, self.order, self.coordinates = X, order, coordinates
        self.seed, self.device = seed, device
        self.conditions = None
        if conditions is not None:
            self.conditions = torch.as_tensor(conditions, dtype=torch.float32)
        self.kept = self.cumulative = None
        if not is_streamed(X) and 4 * X.size <= IN_MEMORY:
            self.kept = coordinates.inward(X[order]).to(device)
        self.length = len(order)
        if weights is not None:
            self.cumulative = np.cumsum(weights[order])
            self.length = effective_rows(weights[order])
        self._deck = None, None

    def __len__(self):
        """Rows of an epoch, for callbacks that ask."""
        return self.length

    def batch(self, start: int, stop: int):
        """Rows and conditions at positions ``start`` to ``stop`` of the stream, on the device."""
        index = self._index(start, stop)
        if self.kept is not None:
            rows = self.kept[torch.from_numpy(index).to(self.device)]
        else:
            rows = self.coordinates.inward(read_rows(self.X, self.order[index])).to(self.device)
        if self.conditions is None:
            return rows, None
        return rows, self.conditions[torch.from_numpy(self.order[index])].to(self.device)

    def _index(self, start, stop):
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.length)
            n = min(stop - start, self.length - offset)
            parts.append(self._epoch(epoch)[offset : offset + n])
            start += n
        slices = np.concatenate(parts)
        if self.cumulative is None:
            return slices
        share = (slices + 0.5) * (self.cumulative[-1] / self.length)
        return np.searchsorted(self.cumulative, share, side="right")

    def _epoch(self, epoch):
        if self._deck[0] != epoch:
            deck = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            self._deck = epoch, deck
        return self._deck[1]


def is_streamed(X: Any) -> bool:
    """Whether rows are read when they are needed, and never all at once."""
    return is_dataset(X) or isinstance(X, np.memmap)


def read_rows(X: Any, index: np.ndarray) -> np.ndarray:
    """Rows at some positions of an array, a memory-mapped file or a dataset."""
    if is_dataset(X):
        return np.stack([_row(X[int(i)]) for i in index])
    order = np.argsort(index, kind="stable")  # a file is read front to back
    rows = np.empty((len(index), X.shape[1]), dtype=X.dtype)
    rows[order] = X[index[order]]
    return rows


def effective_rows(weights: np.ndarray) -> int:
    """Slices of an epoch: the rows that whole weights stand for, and no fewer than there are."""
    return max(int(np.count_nonzero(weights)), round(float(weights.sum())))


def repeated_rows(weights: np.ndarray) -> np.ndarray:
    """Weights as numbers of copies: those that stand for fewer rows than there are, or for more
    than an epoch can hold, tell only how rows compare, and are brought to that many.
    """
    largest = float(weights.max())
    compared = weights / largest
    total, least = float(compared.sum()) * largest, int(np.count_nonzero(weights))
    wanted = min(max(total, least), max(least, LONGEST_EPOCH))
    return weights if wanted == total else compared * (wanted / compared.sum())


def _row(item: Any) -> np.ndarray:
    """The row of a dataset's item: the item itself, or its first part."""
    if isinstance(item, (tuple, list)):
        item = item[0]
    try:
        row = np.asarray(item)
        # digits beyond float32 count where the offset is large
        row = row if row.dtype == np.float32 else row.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "an item of a Dataset must be a row of numbers, or a tuple that begins with one; got "
            f"{type(item).__name__}."
        ) from error
    return row.reshape(-1)
