"""Rows and their weights, as every estimator takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from skdiffusion.utils.arrays import LARGEST, SMALLEST

__all__ = [
    "check_points",
    "check_rows",
    "check_squares",
    "check_weights",
    "evenly_spaced",
    "middle_of",
]

WORDS = "could not convert string"
"""What NumPy says where it finds them."""
MIDDLE_ROWS = 1000
"""Rows that a middle is taken of, at most."""


def check_rows(
    estimator, X: Any, *, reset: bool | None, dtype=(np.float64, np.float32), **options
) -> np.ndarray:
    """Rows as a finite two-dimensional float array.

    ``reset=True`` learns the number and names of the columns, ``False`` insists on them,
    ``None`` insists on the number alone.

    Raises
    ------
    ValueError
        If it is none, or holds numbers whose squares float64 cannot hold. Those that float32
        cannot hold make float64 of it.
    """
    if isinstance(dtype, tuple):
        dtype = list(dtype)
    if reset is None:
        X = check_array(X, dtype=dtype, input_name="Z")
        if X.shape[1] != estimator.n_features_in_:
            raise ValueError(
                f"Z has {X.shape[1]} columns, but {type(estimator).__name__} is expecting "
                f"{estimator.n_features_in_}."
            )
        return X
    try:
        X = validate_data(estimator, X, reset=reset, dtype=dtype, **options)
    except ValueError as error:
        if WORDS not in str(error):
            raise
        raise ValueError(
            f"X holds words, {type(estimator).__name__} takes numbers ({error}): TableEncoder "
            "makes numbers of tables, as the first step of make_density_pipeline."
        ) from error
    if X.dtype == np.float32 and _largest(X) > float(np.finfo(np.float32).max) ** 0.5:
        return X.astype(np.float64)
    check_squares(X, "X")
    return X


def check_points(
    X: Any, n_features: int | None = None, *, name: str = "X", **options: Any
) -> np.ndarray:
    """Rows that no estimator was fitted to, as a finite float64 array.

    Raises
    ------
    ValueError
        If they are none, have other than ``n_features`` columns, or hold numbers whose squares
        float64 cannot hold.
    """
    try:
        X = check_array(X, dtype=np.float64, input_name=name, **options)
    except ValueError as error:
        if WORDS not in str(error):
            raise
        raise ValueError(
            f"{name} holds words, where numbers are needed ({error}): TableEncoder makes numbers "
            "of tables."
        ) from error
    if n_features is not None and X.shape[1] != n_features:
        raise ValueError(f"{name} must have {n_features} columns; got {X.shape[1]}.")
    check_squares(X, name)
    return X


def _largest(X: np.ndarray) -> float:
    """Largest absolute value of an array, whatever is missing in it."""
    return float(max(np.fmax.reduce(X, axis=None), -np.fmin.reduce(X, axis=None)))


def check_squares(X: np.ndarray, name: str) -> None:
    """Raise ``ValueError`` for numbers whose squares float64 cannot hold."""
    largest = _largest(X)
    if largest > LARGEST:
        raise ValueError(
            f"{name} holds {largest:.3g}, and float64 no square of numbers above {LARGEST:g}: "
            f"bring {name} to other units."
        )


def check_weights(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Weights of the rows as a ``(n_samples,)`` float array; ones for ``None``.

    Where float64 could not square their sum they are brought to other units.

    Raises
    ------
    ValueError
        If they have another shape, are negative or not finite, or are all zero.
    """
    if sample_weight is None:
        return np.ones(n_samples)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.ndim == 0:
        weights = np.full(n_samples, float(weights))
    if weights.shape != (n_samples,):
        raise ValueError(
            f"sample_weight must have shape ({n_samples},), one weight per row; "
            f"got {weights.shape}."
        )
    largest = weights.max(initial=0.0)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and largest > 0):
        raise ValueError("sample_weight must be finite, non-negative and not all zero.")
    # no digit tells so many rows from infinitely many, or so few from none
    unit = np.clip(largest, SMALLEST, LARGEST / n_samples)
    return weights if unit == largest else weights / largest * unit


def evenly_spaced(index: np.ndarray, most: int) -> np.ndarray:
    """Of the positions of rows all, or as many as ``most``, at even distances."""
    last = len(index) - 1
    return index[np.unique(np.linspace(0, last, min(len(index), most)).astype(int))]


def middle_of(rows: np.ndarray) -> np.ndarray:
    """A point amid rows, from which squares of distances lose no digits to a common offset.

    The median by column of some of them, which no far row moves.
    """
    return np.median(rows[:: -(-len(rows) // MIDDLE_ROWS)], axis=0)
