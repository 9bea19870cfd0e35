"""Rows that are held out of the training of a network, and what they say of it.

They choose among its weights by their denoising bound, and how much of it is kept beside a mixture
(:mod:`skdiffusion.estimators._neural_gain`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.denoising_bound import denoising_bound
from skdiffusion.estimators._neural_gain import gain
from skdiffusion.estimators._neural_survey import Survey
from skdiffusion.estimators._training_rows import is_streamed, read_rows
from skdiffusion.models import GaussianModel
from skdiffusion.models.neural import NeuralModel
from skdiffusion.utils.random import row_keys

__all__ = ["HeldOut", "Referee", "split"]

MAX_VALIDATION = 300
"""Rows to validate on: at three pairs of noise and thirty levels they are what follows."""
BOUND_EVALUATIONS = 40_000
"""Rows that the network denoises for one validation bound, roughly."""


class HeldOut(NamedTuple):
    """Distinct rows to validate on, how often each counts, and the positions of all rows."""

    index: np.ndarray
    weights: np.ndarray
    everyone: np.ndarray


def split(X: Any, weights: np.ndarray | None, seed: int, fraction: float | None):
    """Training rows in the order of their content, and rows held out, by their content too.

    Rows that are read when they are needed keep their own order, and are held out at random.

    Parameters
    ----------
    X : ndarray, memmap or Dataset
    weights : ndarray of shape (n,), optional
    seed : int
    fraction : float or None
        Share of the distinct rows that is held out; of too few rows none is.

    Returns
    -------
    order : ndarray of int
    held_out : HeldOut or None
    """
    n = len(X)
    if is_streamed(X):
        order = np.arange(n)
        keys = np.random.default_rng(seed).integers(2**63, size=n, dtype=np.uint64)
    else:
        order = np.argsort(row_keys(X), kind="stable")
        keys = row_keys(X, seed + 1)
    if weights is not None:
        order = order[weights[order] > 0]
    if fraction is None:
        return order, None
    kept, first, copy_of = np.unique(keys[order], return_index=True, return_inverse=True)
    n_held = min(int(np.ceil(fraction * len(kept))), MAX_VALIDATION)
    if len(kept) - n_held < 2:
        return order, None
    counts = np.bincount(copy_of, None if weights is None else weights[order])
    held_out = HeldOut(order[first[:n_held]], counts[:n_held].astype(float), order)
    return order[copy_of >= n_held], held_out


class Referee:
    """What held-out rows say of a network.

    Parameters
    ----------
    X : ndarray, memmap or Dataset
    codes : ndarray of shape (n, n_conditions), optional
        Of the labels of all rows.
    held_out : HeldOut
    found : Survey
    """

    def __init__(self, X: Any, codes: np.ndarray | None, held_out: HeldOut, found: Survey):
        self.rows = found.coordinates.inward(read_rows(X, held_out.index)).double().numpy()
        self.weights = held_out.weights
        self.codes = None if codes is None else codes[held_out.index]
        self.labels = None if codes is None else _Encoded(codes.shape[1])
        self.levels = found.low, found.high
        self.far_field = GaussianModel(np.zeros(len(found.variances)), found.variances)
        self.n_noise = int(np.clip(BOUND_EVALUATIONS // (2 * 30 * len(self.rows)), 3, 64))
        # in the units of X: the log-determinant of the coordinates
        scale = np.broadcast_to(found.coordinates.scale, len(found.variances))
        self.shift = float(np.log(scale).sum())

    def bound(self, model: NeuralModel) -> float:
        """Mean denoising bound, in nats; the labels of the model are :attr:`labels`."""
        rows = denoising_bound(
            model, self.rows, self.far_field, *self.levels, y=self.codes, n_noise=self.n_noise
        ).bound
        return float(np.average(rows, weights=self.weights)) - self.shift

    def gain(self, model: NeuralModel, mixture: Any) -> float:
        """How much to keep of what the model adds to the mixture."""
        return gain(model, mixture, self.rows, self.weights, self.codes, self.n_noise)


class _Encoded:
    """Labels that are codes already."""

    def __init__(self, n_conditions):
        self.n_conditions = n_conditions

    def encode(self, y, n):
        return np.zeros((n, self.n_conditions)) if y is None else y
