"""The covariance of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["covariance_of"]


def covariance_of(X: Any) -> np.ndarray:
    """Of the rows themselves, singular or not; a matrix for one column too."""
    return np.cov(X, rowvar=False, bias=True).reshape(X.shape[1], -1)
