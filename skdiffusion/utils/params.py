"""Parameters as scikit-learn nests them, with a sentence where there is nothing to nest in."""

from __future__ import annotations

from typing import Any

import sklearn.base

__all__ = ["Configurable"]


class Configurable(sklearn.base.BaseEstimator):
    """Base class of what has objects among its parameters, given by a short name or as such."""

    def set_params(self, **params: Any):
        """Set parameters, those of nested objects as ``schedule__beta_max``.

        Raises
        ------
        ValueError
            If there is no such parameter, or what it is to be set on is not an object with
            parameters: a short name, or a default that ``fit`` makes.
        """
        own = self.get_params(deep=False)
        for name, _, inner in (key.partition("__") for key in params):
            value = params.get(name, own.get(name, self))  # unknown: scikit-learn says so
            if inner and not hasattr(value, "set_params"):
                raise ValueError(
                    f"{name}__{inner} sets a parameter of an object, and {name} is {value!r}: "
                    f"give {name} as an instance first."
                )
        return super().set_params(**params)
