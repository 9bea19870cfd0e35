r"""Labels as vectors: what a conditional network is told of a row.

A class is a unit vector, a number :math:`(y-\bar y)/s` beside a one that says it is there;
"no label" is the zero vector. A model that has seen both knows :math:`p(x \mid y)` and
:math:`p(x)`, and any mixture of their scores (:class:`~skdiffusion.models.LabelGuidedModel`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import type_of_target

__all__ = ["LabelCode"]

ROUNDING = 1e-12
"""Spread of labels, as a share of their mean, up to which they are the same."""


class LabelCode:
    """Code of class labels or of continuous ones.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels seen in training: strings, booleans and whole numbers are classes, of whatever
        type, as everywhere in scikit-learn; other numbers are continuous.
    weights : ndarray of shape (n,), optional
        How often each row counts: the labels of those that do not are not looked at.

    Attributes
    ----------
    classes : ndarray or None
        Sorted class labels; ``None`` for continuous ones.
    n_conditions : int
        Length of the code.

    Examples
    --------
    >>> LabelCode(["b", "a", "b"]).encode(["a", "b"], 2)
    array([[1., 0.],
           [0., 1.]])
    """

    def __init__(self, y: Any, weights: np.ndarray | None = None):
        y = self._flat(y, None if weights is None else len(weights))
        if weights is not None:
            y, weights = y[weights > 0], weights[weights > 0]
        self.classes = None
        if type_of_target(y, input_name="y").startswith("continuous"):
            y = y.astype(np.float64)
            self.mean = float(np.average(y, weights=weights))
            self.scale = _spread(y - self.mean, weights)
            if self.scale <= ROUNDING * abs(self.mean):  # one label has no scale
                self.scale = 1.0
        else:
            self.classes = np.unique(y)

    @property
    def n_conditions(self) -> int:
        """Length of the code."""
        return 2 if self.classes is None else len(self.classes)

    def encode(self, y: Any, n: int, where: np.ndarray | None = None) -> np.ndarray:
        """Codes of ``n`` rows; ``None`` is no label, nor have rows one that are not ``where``.

        Raises
        ------
        ValueError
            If there is not one label per row, or a class is unknown.
        """
        if y is None:
            return np.zeros((n, self.n_conditions))
        y = self._flat(y, n)
        if where is not None and not where.all():
            codes = np.zeros((n, self.n_conditions))
            codes[where] = self.encode(y[where], np.count_nonzero(where))
            return codes
        if self.classes is None:
            value = (y.astype(np.float64) - self.mean) / self.scale
            if not np.isfinite(value).all():
                raise ValueError("labels y must be finite.")
            return np.stack([value, np.ones(n)], axis=1)
        index = np.minimum(np.searchsorted(self.classes, y), len(self.classes) - 1)
        unknown = self.classes[index] != y
        if unknown.any():
            raise ValueError(
                f"unknown class {y[unknown].tolist()[0]!r} in y; the model was fitted with "
                f"{', '.join(map(repr, self.classes[:10].tolist()))}."
            )
        return np.eye(len(self.classes))[index]

    @staticmethod
    def _flat(y, n=None):
        y = np.asarray(y)
        kinds = {isinstance(label, str) for label in y.flat} if y.dtype == object else set()
        if len(kinds) > 1 or (kinds and any(label is None for label in y.flat)):
            raise ValueError("labels y must be all words or all numbers, and none may be missing.")
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1:
            raise ValueError(f"y must be one-dimensional, one label per row; got shape {y.shape}.")
        if n is not None and len(y) != n:
            raise ValueError(f"y must hold one label per row, {n}; got {len(y)}.")
        return y


def _spread(deviations, weights):
    """Root of the mean square, in a unit, a power of two, in which squares are numbers."""
    _, exponent = np.frexp(np.abs(deviations).max())
    mean_square = float(np.average(np.ldexp(deviations, -exponent) ** 2, weights=weights))
    return float(np.ldexp(mean_square**0.5, exponent))
