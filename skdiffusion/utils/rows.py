"""Rows and their weights, as every estimator takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, validate_data

__all__ = ["check_rows", "check_weights"]


def check_rows(
    estimator, X: Any, *, reset: bool | None, dtype=(np.float64, np.float32), **options
) -> np.ndarray:
    """Rows as a finite two-dimensional float array.

    ``reset=True`` learns the number and names of the columns, ``False`` insists on them,
    ``None`` insists on the number alone.
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
    return validate_data(estimator, X, reset=reset, dtype=dtype, **options)


def check_weights(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Weights of the rows as a ``(n_samples,)`` float array; ones for ``None``.

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
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("sample_weight must be finite, non-negative and not all zero.")
    return weights
