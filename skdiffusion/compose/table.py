r"""What a table looks like, so that generated rows can look like it too.

A model works on floats. What it was shown may have been a DataFrame with names, integers,
categories and bounds; :class:`TableFormat` remembers them and puts them back: every column in
its place and type, integers rounded and values clipped to the range seen if asked for.
"""

from __future__ import annotations

from io import BytesIO
from numbers import Real
from typing import Any

import numpy as np

__all__ = [
    "TableFormat",
    "as_table",
    "columns_of",
    "is_numeric",
    "is_temporal",
    "separate",
    "with_names_of",
]


def as_table(X: Any):
    """Lists of rows as an array in which every value keeps its type; anything else as it is."""
    return np.asarray(X, dtype=object) if isinstance(X, (list, tuple)) else X


def is_numeric(column: Any) -> bool:
    """Whether a column of a pandas or polars table, or an array, holds plain numbers."""
    dtype = column.dtype
    if isinstance(dtype, np.dtypes.ObjectDType):  # of arrays that hold other columns too
        values = [value for value in column if value is not None]
        return bool(values) and all(isinstance(v, Real) and not isinstance(v, bool) for v in values)
    numeric = getattr(dtype, "is_numeric", None)  # polars
    if callable(numeric):
        return bool(numeric())
    return getattr(dtype, "kind", "O") in "iuf"  # of NumPy, and nullable ones of pandas


def is_temporal(column: Any) -> bool:
    """Whether a column of a pandas or polars table, or an array, holds dates or durations."""
    temporal = getattr(column.dtype, "is_temporal", None)  # polars
    return bool(temporal()) if callable(temporal) else getattr(column.dtype, "kind", "O") in "mM"


def columns_of(X: Any, indices: Any):
    """Some columns of a table or array, by their positions."""
    if hasattr(X, "columns"):
        return X[[X.columns[j] for j in indices]]
    return np.asarray(X)[:, indices]


def separate(rows: Any) -> list[np.ndarray]:
    """The columns of a table or array, each of its own type."""
    if hasattr(rows, "columns"):
        return [np.asarray(rows[name]) for name in rows.columns]
    return list(np.asarray(rows).T)


def with_names_of(table: Any, X: np.ndarray):
    """An array as a table with the columns of another, if that has any."""
    if not hasattr(table, "columns"):
        return X
    return type(table)(dict(zip(table.columns, X.T, strict=True)))


class TableFormat:
    """Names, types and ranges of the columns of a table.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n, d)
    """

    def __init__(self, X: Any):
        X = as_table(X)
        self.empty = X[:0] if hasattr(X, "columns") else None
        columns = self._columns(X)
        self.dtype = None if self.empty is not None else np.asarray(X).dtype
        self.bounds, self.integer, self.boolean = [], [], []
        for column in columns:
            values = np.asarray(column)
            self.boolean.append(values.dtype.kind == "b")
            # numbers of a categorical column too: a scaler takes them for what they are
            if not (is_numeric(column) or values.dtype.kind in "biuf"):
                self.bounds.append(None)
                self.integer.append(False)
                continue
            values = values.astype(np.float64)
            values = values[np.isfinite(values)]
            self.bounds.append((values.min(), values.max()) if len(values) else None)
            self.integer.append(bool(len(values) and (values == np.round(values)).all()))

    def __getstate__(self):
        """Plain values in place of the table: skops reads no DataFrame."""
        return {**vars(self), "empty": None if self.empty is None else _described(self.empty)}

    def __setstate__(self, state):
        empty = state["empty"]
        vars(self).update(state, empty=None if empty is None else _table(empty))

    def _columns(self, X):
        if self.empty is not None:
            return [X[name] for name in X.columns]
        return list(np.asarray(X).T)

    def restored(self, columns: list[np.ndarray], *, rounded: bool = False, clipped: bool = False):
        """Rows in the form of the table.

        Parameters
        ----------
        columns : list of ndarray of shape (n,)
            In their order, each of its own type.
        rounded : bool
            Whether columns that held integers alone are rounded, and get their integer type.
        clipped : bool
            Whether numeric columns are clipped to the range that was seen.

        Returns
        -------
        ndarray or DataFrame
        """
        columns = [self._restored(c, j, rounded, clipped) for j, c in enumerate(columns)]
        if self.empty is not None:
            return self._frame(columns, rounded)
        if len({column.dtype.kind in "OUS" for column in columns}) > 1:
            columns = [column.astype(object) for column in columns]
        table = np.stack(columns, axis=1)
        return table.astype(self.dtype) if self.dtype.kind == "f" else table

    def _restored(self, column, j, rounded, clipped):
        if self.bounds[j] is None:
            return column
        if self.boolean[j] and column.dtype.kind in "bO":  # decoded, not a number
            return column.astype(bool)
        if self.empty is not None and self.integer[j] and column.dtype.kind in "iu":  # likewise
            return column
        column = column.astype(np.float64)
        if rounded and self.boolean[j]:
            return column > 0.5
        if rounded and self.integer[j]:
            column = np.round(column)
        return np.clip(column, *self.bounds[j]) if clipped else column

    def _frame(self, columns, rounded):
        names = list(self.empty.columns)
        if type(self.empty).__module__.startswith("polars"):
            import polars

            series = []
            for j, (name, column) in enumerate(zip(names, columns, strict=True)):
                found = polars.Series(name, column.tolist(), strict=False)
                if found.dtype.is_float():
                    found = found.fill_nan(None)  # as a value is missing there
                fits = self._fits(j, column, rounded)
                series.append(found.cast(self.empty.schema[name]) if fits else found)
            return polars.DataFrame(series)
        import pandas

        columns = [_own_values(c, t) for c, t in zip(columns, self.empty.dtypes, strict=True)]
        frame = pandas.DataFrame(dict(enumerate(columns)))
        frame.columns = self.empty.columns
        dtypes = {
            name: self.empty.dtypes.iloc[j]
            for j, name in enumerate(names)
            if self._fits(j, columns[j], rounded)
        }
        return frame.astype(dtypes)

    def _fits(self, j, column, rounded):
        """Whether the values fit the column's own type: floats do not fit integers."""
        name = self.empty.columns[j]
        if _is_categorical(self.empty[name].dtype):
            return column.dtype.kind not in "iuf"  # numbers that are none of its values
        if self.boolean[j]:
            return column.dtype.kind == "b"
        kind = str(self.empty[name].dtype).lower().partition("[")[0]  # such as int64[pyarrow]
        if not kind.startswith(("int", "uint")) or column.dtype.kind in "iu":
            return True
        if not (rounded and self.integer[j]):
            return False
        held = np.iinfo(kind)
        outside = column[(column < held.min) | (column > held.max)]
        if len(outside):
            raise ValueError(
                f"column {name!r} is of type {kind}, which holds no {outside[0]:g}: samples keep "
                "to the range that was seen with clip=True, and are floats without round_integers."
            )
        return True


def _is_categorical(dtype):
    """Whether it is the type of a categorical column of pandas."""
    return hasattr(dtype, "ordered")


def _own_values(column, dtype):
    """Values of a categorical column, such as intervals, of which only the words were kept.

    Numbers that were drawn for it, and are none of its values, stay numbers.
    """
    if not _is_categorical(dtype):
        return column
    own = {str(value): value for value in dtype.categories} | {v: v for v in dtype.categories}
    values = np.empty(len(column), dtype=object)
    values[:] = [own.get(value, own.get(str(value))) for value in column.tolist()]
    strange = np.array([value is None for value in values]) & (column == column)
    return column if column.dtype.kind in "iuf" and strange.any() else values


def _described(empty):
    """An empty table in plain values: what holds its names and types."""
    if type(empty).__module__.startswith("polars"):
        file = BytesIO()
        empty.write_ipc(file)
        return file.getvalue()
    types = [
        (list(dtype.categories), bool(dtype.ordered)) if _is_categorical(dtype) else str(dtype)
        for dtype in empty.dtypes
    ]
    return list(empty.columns), types


def _table(described):
    """The empty table of a description."""
    if isinstance(described, bytes):
        import polars

        return polars.read_ipc(BytesIO(described))
    import pandas

    names, types = described
    columns = [
        pandas.Series(dtype=kind if isinstance(kind, str) else pandas.CategoricalDtype(*kind))
        for kind in types
    ]
    table = pandas.DataFrame(dict(enumerate(columns)))
    table.columns = names
    return table
