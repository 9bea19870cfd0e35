"""Rows from anything that has ``sample``: ours, and the densities of scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

__all__ = ["draw_rows"]


def draw_rows(estimator: Any, n_samples: int, random_state: Any = None, **options: Any):
    """Rows drawn from a fitted estimator.

    Parameters
    ----------
    estimator : fitted estimator with ``sample``
        Mixtures of scikit-learn draw by a ``random_state`` of their own and return labels too.
    n_samples : int
    random_state : None, int, Generator or RandomState
    **options
        Further arguments of ``sample``.

    Returns
    -------
    array or DataFrame of shape (n_samples, d)

    Raises
    ------
    TypeError
        If the estimator has no ``sample``, or one that takes no such arguments.
    """
    if not hasattr(estimator, "sample"):
        raise TypeError(
            f"{type(estimator).__name__} draws no rows: an estimator with sample is needed."
        )
    taken = inspect.signature(estimator.sample).parameters
    unknown = sorted(set(options) - set(taken))
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        raise TypeError(
            f"sample of {type(estimator).__name__} takes no {' or '.join(unknown)}; score "
            "estimators, such as GMMScore, do."
        )
    if "random_state" in taken:
        if isinstance(random_state, np.random.Generator):  # scikit-learn takes none
            random_state = int(random_state.integers(2**31))
        options["random_state"] = random_state
    drawn = estimator.sample(n_samples, **options)
    return drawn[0] if isinstance(drawn, tuple) else drawn
