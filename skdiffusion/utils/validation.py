"""One sentence for every wrong input: what was wrong and what is accepted."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = [
    "as_numbers",
    "check_callback",
    "check_count",
    "check_flag",
    "check_levels",
    "check_number",
    "listed",
    "lookup",
]


def listed(values: Sequence) -> str:
    """The first five of some values, for a message.

    Examples
    --------
    >>> listed(range(7))
    '0, 1, 2, 3, 4, ...'
    """
    return ", ".join(str(value) for value in values[:5]) + ", ..." * (len(values) > 5)


def lookup(
    name: Any,
    registry: Mapping[str, Any],
    what: str,
    or_else: str = "",
    elsewhere: Mapping[str, str] | None = None,
):
    """The entry of a registry under a short name.

    Parameters
    ----------
    name : str
        The short name.
    registry : mapping
        From short names to entries.
    what : str
        What the entries are, for the error.
    or_else : str
        What else the caller accepts, for the error.
    elsewhere : mapping, optional
        From lower-case names that other packages use to names of the registry, for the error.

    Raises
    ------
    ValueError
        If there is no such name.
    """
    if isinstance(name, str) and name in registry:
        return registry[name]
    known = (elsewhere or {}).get(str(name).lower())
    close = [known] if known else difflib.get_close_matches(str(name), registry, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    names = ", ".join(repr(key) for key in registry)
    raise ValueError(
        f"Unknown {what} {name!r}{hint}; accepted are {names}{or_else and ' or ' + or_else}."
    )


def as_numbers(value: Any) -> np.ndarray:
    """A number, or several, as an array of them; an empty one of what is none.

    Examples
    --------
    >>> as_numbers(2), as_numbers("many")
    (array([2.]), array([], dtype=float64))
    """
    try:
        return np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return np.empty(0)


def check_callback(callback: Any) -> None:
    """Raise ``ValueError`` for what is neither ``None`` nor called after every step."""
    if callback is not None and not callable(callback):
        raise ValueError(
            "callback must be a function callback(step, level, x), called after every step; "
            f"got {callback!r}."
        )


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """``value`` as an int of at least ``minimum``, or a ``ValueError`` that says so."""
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= minimum:
        return int(value)
    raise ValueError(f"{name} must be an integer of at least {minimum}; got {value!r}.")


def check_flag(value: Any, name: str) -> bool:
    """``value`` as a bool, or a ``ValueError`` that says so."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{name} must be True or False; got {value!r}.")


def check_levels(value: Any, said: str, *, minimum: int = 1, slope: int = 0) -> np.ndarray:
    """Noise levels above zero, at least so many; rising where ``slope`` is 1, falling at -1.

    Raises
    ------
    ValueError
        For all else, with what is ``said`` of those that are accepted.

    Examples
    --------
    >>> check_levels([0.1, 1], "sigmas must be noise levels above zero, rising", slope=1)
    array([0.1, 1. ])
    """
    levels = as_numbers(value)
    accepted = levels.ndim == 1 and len(levels) >= minimum and np.isfinite(levels).all()
    if not accepted or (levels <= 0).any() or (slope and (slope * np.diff(levels) <= 0).any()):
        raise ValueError(f"{said}; got {value!r}.")
    return levels


def check_number(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
):
    """``value`` as a finite float within bounds, or a ``ValueError`` that says so."""
    bounds = {"above": above, "of at least": least, "of at most": most}
    given = " and ".join(
        f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None
    )
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if (
            number - number == 0  # neither infinite nor NaN
            and (above is None or number > above)
            and (least is None or number >= least)
            and (most is None or number <= most)
        ):
            return number
    raise ValueError(f"{name} must be a finite number{given and ' ' + given}; got {value!r}.")
