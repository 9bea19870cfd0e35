"""Fits that happen whole or not at all."""

from __future__ import annotations

import functools
from collections.abc import Callable

__all__ = ["whole_or_not_at_all"]


def whole_or_not_at_all(fit: Callable) -> Callable:
    """A method of an estimator that leaves its attributes as they were if it fails.

    Examples
    --------
    >>> class Estimator:
    ...     @whole_or_not_at_all
    ...     def fit(self, X):
    ...         self.n_features_in_ = len(X[0])
    ...         self.first_ = X[1]
    >>> est = Estimator()
    >>> est.fit([[1.0, 2.0]])
    Traceback (most recent call last):
    IndexError: list index out of range
    >>> vars(est)
    {}
    """

    @functools.wraps(fit)
    def method(self, *args, **kwargs):
        before = dict(vars(self))
        try:
            return fit(self, *args, **kwargs)
        except BaseException:  # an interrupt too
            vars(self).clear()
            vars(self).update(before)
            raise

    return method
