"""Tables in the container the user asked for with ``set_output``."""

from __future__ import annotations

from typing import Any

import sklearn

__all__ = ["in_container"]


def in_container(X: Any, estimator: Any):
    """``X`` as the array, pandas or polars table that ``estimator`` was told to produce.

    ``set_output`` itself reaches ``transform`` alone; this gives other methods that
    produce rows of data the same manners.

    Parameters
    ----------
    X : ndarray of shape (n, n_features_in_)
    estimator : fitted estimator with ``get_feature_names_out``
    """
    config = getattr(estimator, "_sklearn_output_config", {})
    container = config.get("transform", sklearn.get_config()["transform_output"])
    if container == "pandas":
        import pandas

        return pandas.DataFrame(X, columns=estimator.get_feature_names_out())
    if container == "polars":
        import polars

        return polars.DataFrame(X, schema=list(estimator.get_feature_names_out()), orient="row")
    return X
