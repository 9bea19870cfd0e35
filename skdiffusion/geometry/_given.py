"""The score model that a geometry estimator is given: a model, or an estimator to be fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import has_fit_parameter

from skdiffusion.models import BaseScoreModel, as_score_model

__all__ = ["fitted_model"]


def fitted_model(given: Any, X: np.ndarray, weights: np.ndarray | None = None):
    """The score model of ``given``, and the estimator behind it.

    Parameters
    ----------
    given : BaseScoreModel or estimator
        A clone of an estimator is fitted to X; one in a ``FrozenEstimator`` stays as it is.
    X : ndarray of shape (n, d)
    weights : ndarray of shape (n,), optional
        Weights of the rows, for estimators to be fitted.

    Returns
    -------
    model : BaseScoreModel
    estimator : estimator or None
        ``None`` where a model was given.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If the estimator takes no weights.
    """
    if not isinstance(given, BaseScoreModel) and not hasattr(given, "get_params"):
        raise TypeError(
            "a score estimator, or a score model as as_score_model makes one, is needed; "
            f"got {type(given).__name__}."
        )
    estimator = None if isinstance(given, BaseScoreModel) else clone(given)
    if estimator is not None and not isinstance(estimator, FrozenEstimator):
        if weights is not None and not has_fit_parameter(estimator, "sample_weight"):
            raise ValueError(f"{type(estimator).__name__} takes no sample_weight.")
        estimator.fit(X, **({} if weights is None else {"sample_weight": weights}))
    return as_score_model(given if estimator is None else estimator), estimator
