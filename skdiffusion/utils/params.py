"""Parameters as scikit-learn nests them, with a sentence where there is nothing to nest in."""

from __future__ import annotations

from typing import Any

import sklearn.base

__all__ = ["Configurable"]


class Configurable(sklearn.base.BaseEstimator):
    """Base class of what has objects among its parameters, given by a short name or as such."""

    def set_params(self, **params: Any):
        """Set parameters, those of nested objects as ``schedule__beta_max``.

        A grid may hold several schedules, parameterizations or samplers and a parameter that only
        some of them have: set in one call with an object that lacks it, such a parameter is for
        the others.

        Raises
        ------
        ValueError
            If there is no such parameter, or what it is to be set on is not an object with
            parameters: a short name, or a default that ``fit`` makes.
        """
        own, kept = self.get_params(deep=False), {}
        for key, given in params.items():
            name, _, inner = key.partition("__")
            value = params.get(name, own.get(name, self))  # unknown: scikit-learn says so
            if inner and not hasattr(value, "set_params"):
                raise ValueError(
                    f"{name}__{inner} sets a parameter of an object, and {name} is {value!r}: "
                    f"give {name} as an instance first."
                )
            if not (inner and name in params and _is_for_others(inner, value)):
                kept[key] = given
        return super().set_params(**kept)


def _is_for_others(name: str, value: Any) -> bool:
    """Whether a parameter is one of other objects of the same kind, not of this one."""
    name = name.partition("__")[0]
    if hasattr(value, "fit") or name in value.get_params(deep=False):
        return False
    kinds = [
        kind
        for kind in type(value).__mro__
        if issubclass(kind, sklearn.base.BaseEstimator) and kind not in Configurable.__mro__
    ]
    return any(name in other._get_param_names() for other in _subclasses(kinds[-1]))


def _subclasses(kind: type):
    for other in kind.__subclasses__():
        yield other
        yield from _subclasses(other)
