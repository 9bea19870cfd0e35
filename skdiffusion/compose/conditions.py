r"""What is known of a row, said in the coordinates that come out of a pipeline's transformers.

A value or a range of a column stays one under a transformer that acts column by column and does
not fall: its ends are mapped. Under an affine map, :math:`x = b + L z`, a value becomes a linear
measurement, and a measurement another,

.. math:: A x + s e = y \quad\Longleftrightarrow\quad (A L)\, z + s e = y - A b .

The value of a category is known of all columns that encode it, as ones and zeros. Anything else is
refused: what is known would not be known there.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from skdiffusion.compose.encoder import TableEncoder
from skdiffusion.compose.table import TableFormat, is_numeric
from skdiffusion.estimators._condition import check_condition, check_known, column_index, ends_of
from skdiffusion.models import LinearMeasurement

__all__ = ["by_position", "pinned", "translated"]

LINEAR_BY_COLUMN = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
BY_COLUMN = (*LINEAR_BY_COLUMN, PowerTransformer, QuantileTransformer)


def by_position(condition: Any, table: TableFormat) -> Any:
    """A condition with the positions of columns for their names.

    Parameters
    ----------
    condition : mapping or LinearMeasurement
        As in ``sample`` of a score estimator.
    table : TableFormat
        What the rows looked like.

    Returns
    -------
    mapping from int, or LinearMeasurement

    Raises
    ------
    ValueError
        If it is none of rows like these, or of none of their columns, or of one twice, or a range
        is empty.
    """
    names = _Names(table)
    check_condition(condition, names.n_features_in_)
    if not isinstance(condition, Mapping):
        return condition
    found = {column_index(names, column): known for column, known in condition.items()}
    if len(found) < len(condition):
        raise ValueError("condition was given the same column by name and by index.")
    for column, known in condition.items():  # before a step changes their units
        if isinstance(known, (tuple, list)) and all(_is_end(v) for v in known):
            ends_of(known, column)
    return found


def _is_end(value):
    return value is None or isinstance(value, Real)


def pinned(columns: list[np.ndarray], condition: Any) -> list[np.ndarray]:
    """Columns of a table with the numbers that were known of them, free of rounding."""
    if not isinstance(condition, Mapping):
        return columns
    columns = list(columns)
    for j, known in condition.items():
        is_number = isinstance(known, Real) and known == known
        if is_number and columns[j].dtype.kind in "fO" and is_numeric(columns[j]):
            columns[j] = np.full_like(columns[j], known)
    return columns


def translated(condition: Any, steps: list) -> Any:
    """A condition on rows as one on what the steps make of them.

    Parameters
    ----------
    condition : mapping from int, or LinearMeasurement
    steps : list of fitted transformers

    Returns
    -------
    mapping from int, or LinearMeasurement

    Raises
    ------
    ValueError
        If a step mixes columns of which ranges are known, or is not known to keep what is known.
    """
    for step in steps:
        if isinstance(step, TableEncoder) and isinstance(condition, Mapping):
            condition = step.encoded_condition(condition)
        elif isinstance(step, TableEncoder):
            condition = step.encoded_measurement(condition)
        elif isinstance(condition, Mapping) and isinstance(step, BY_COLUMN):
            condition = _mapped(condition, step)
        elif isinstance(step, LINEAR_BY_COLUMN) or _is_square(step):
            condition = _measured(condition, step)
        else:
            raise ValueError(
                f"a condition cannot pass {type(step).__name__}: it does not act on each column "
                "alone, or not linearly on all. Condition a pipeline without it."
            )
    return condition


class _Names:
    """What a column may be called by."""

    def __init__(self, table):
        self.n_features_in_ = len(table.bounds)
        if table.empty is not None:
            self.feature_names_in_ = np.asarray(table.empty.columns, dtype=object)


def _is_square(step):
    return isinstance(step, PCA) and step.n_components_ == step.n_features_in_


def _mapped(condition, step):
    """Values and ranges through a transformer of each column; no bound stays no bound."""
    for j, known in condition.items():
        check_known(known, j)
    columns = list(condition)
    ends = [np.atleast_1d(np.array(known, dtype=np.float64)) for known in condition.values()]
    n = max(len(e) for e in ends)
    rows = np.ones((n, step.n_features_in_))  # a place that every power knows
    for j, e in zip(columns, ends, strict=True):
        rows[:, j] = np.where(np.isfinite(np.resize(e, n)), np.resize(e, n), 1.0)
        if len(e) == 1:
            _check_seen(step, j, float(e[0]))
    names = getattr(step, "feature_names_in_", None)
    mapped = np.asarray(step.transform(_named(rows, names)), dtype=np.float64)
    found = {}
    for j, e in zip(columns, ends, strict=True):
        values = [
            float(v) if np.isfinite(known) else None
            for v, known in zip(mapped[: len(e), j], e, strict=True)
        ]
        found[j] = values[0] if len(e) == 1 else tuple(values)
    return found


def _check_seen(step, j, value):
    """Refuse a value that the step takes for the end of the range that it saw."""
    if isinstance(step, QuantileTransformer):
        low, high = step.quantiles_[[0, -1], j]
    elif isinstance(step, MinMaxScaler) and step.clip:
        low, high = step.data_min_[j], step.data_max_[j]
    else:
        return
    if not low <= value <= high:
        raise ValueError(
            f"{type(step).__name__} saw column {j} from {low:g} to {high:g}, and takes {value:g} "
            "for the nearer end: know a value in between, or take another step."
        )


def _named(rows, names):
    if names is None:
        return rows
    import pandas

    return pandas.DataFrame(rows, columns=names)


def _measured(condition, step):
    """A measurement of rows as one of what an affine step makes of them."""
    d = step.n_features_in_
    if isinstance(condition, Mapping):
        if any(np.ndim(known) for known in condition.values()):
            raise ValueError(
                f"{type(step).__name__} mixes the columns: a range of one is none of what comes "
                "out. Give values, or condition a pipeline without it."
            )
        matrix, values = np.eye(d)[list(condition)], list(condition.values())
        condition = LinearMeasurement(matrix, values)
    centre = np.asarray(step.inverse_transform(np.zeros((1, d))))[0]
    linear = (np.asarray(step.inverse_transform(np.eye(d))) - centre).T
    return LinearMeasurement(
        condition.matrix @ linear, condition.values - condition.matrix @ centre, condition.noise
    )
