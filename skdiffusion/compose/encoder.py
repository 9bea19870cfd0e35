r"""TableEncoder: tables of numbers and categories as rows of floats, and back.

A category with ``m`` values becomes ``m`` columns, one of which is one and the others zero; back,
the largest wins. That a value is missing is one of the values. Numbers pass through. A score
model of the encoded rows draws new ones, and

.. math:: x \mapsto (x_{\text{numbers}},\ e_{c_1},\ e_{c_2}, \dots) \mapsto
          (x_{\text{numbers}},\ \operatorname{argmax}, \operatorname{argmax}, \dots)

gives tables of the kind that was fitted. Categories have no density, so a pipeline with an encoder
has samples and no ``score_samples``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from skdiffusion.compose.table import TableFormat, as_table, is_numeric, is_temporal
from skdiffusion.estimators._condition import check_known
from skdiffusion.models import LinearMeasurement
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["TableEncoder"]


class TableEncoder(TransformerMixin, BaseEstimator):
    """Encodes the categories of a table so that they can be decoded again.

    Parameters
    ----------
    categorical : "auto" or list of str or int
        Which columns hold categories, by name or position; by default those that are not numbers.

    Attributes
    ----------
    categories_ : dict
        From the position of each categorical column to its values, sorted; ``None``, for those
        that are missing, is last.
    table_ : TableFormat
        What the table looked like.

    See Also
    --------
    skdiffusion.DensityPipeline : decodes what its last step draws.

    Examples
    --------
    >>> import pandas as pd
    >>> from skdiffusion.compose import TableEncoder
    >>> table = pd.DataFrame({"size": [1.0, 2.0, 3.0], "colour": ["red", "blue", "red"]})
    >>> encoder = TableEncoder().fit(table)
    >>> encoder.transform(table)
    array([[1., 0., 1.],
           [2., 1., 0.],
           [3., 0., 1.]])
    >>> encoder.inverse_transform([[2.5, 0.2, 0.7]])
       size colour
    0   2.5    red
    """

    def __init__(self, categorical="auto"):
        self.categorical = categorical

    @whole_or_not_at_all
    def fit(self, X, y=None):
        """Learn the values of the categories.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        TableEncoder

        Raises
        ------
        ValueError
            If a column holds neither finite numbers nor categories, or there is no such column.
        """
        X = as_table(X)
        columns, names = self._columns(X, reset=True)
        chosen = self._chosen(columns, names)
        categories = {}
        for j, column in enumerate(columns):
            if j in chosen:
                categories[j] = _values(column)
            elif not (is_numeric(column) or is_temporal(column)):
                raise ValueError(f"column {names[j]!r} holds no numbers: list it as categorical.")
            else:
                _numbers(column, names[j])
        self.table_ = TableFormat(X)
        self.categories_ = categories
        return self

    def _chosen(self, columns, names):
        if isinstance(self.categorical, str) and self.categorical == "auto":
            kinds = [is_numeric(column) or is_temporal(column) for column in columns]
            return {j for j, passes in enumerate(kinds) if not passes}
        if isinstance(self.categorical, str) or not np.iterable(self.categorical):
            raise ValueError(
                f"categorical must be 'auto' or a list of columns; got {self.categorical!r}."
            )
        chosen = set()
        for name in self.categorical:
            if isinstance(name, (bool, np.bool_)):  # a mask: True is not the position one
                raise ValueError(
                    "categorical must list columns by name or position, and is no mask of them; "
                    f"got {self.categorical!r}."
                )
            if name in names:
                chosen.add(names.index(name))
            elif isinstance(name, (int, np.integer)) and 0 <= name < len(columns):
                chosen.add(int(name))
            else:
                raise ValueError(f"there is no column {name!r}.")
        return chosen

    def transform(self, X):
        """Rows of floats.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_columns)
            Categories that were not seen are all zero.

        Raises
        ------
        ValueError
            If a column of numbers holds others than finite ones, or NaN where they are missing.
        """
        check_is_fitted(self)
        columns, names = self._columns(as_table(X), reset=False)
        parts = []
        for j, column in enumerate(columns):
            if j in self.categories_:
                parts.append((_labels(column)[:, None] == self.categories_[j]).astype(np.float64))
            else:
                parts.append(_numbers(column, names[j])[:, None])
        return np.concatenate(parts, axis=1)

    def inverse_transform(self, Z):
        """Tables from rows of floats: of every category the largest column.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_columns)

        Returns
        -------
        DataFrame or ndarray of shape (n_samples, n_features)
            In the form of the table that was fitted.

        Raises
        ------
        ValueError
            If ``Z`` has other columns, or NaN in those of a category.
        """
        check_is_fitted(self)
        Z = check_array(Z, dtype=np.float64, ensure_all_finite="allow-nan", input_name="Z")
        n_columns = len(self.get_feature_names_out())
        if Z.shape[1] != n_columns:
            raise ValueError(f"Z has {Z.shape[1]} columns; TableEncoder makes {n_columns}.")
        columns = []
        for j, place in enumerate(self._places()):
            block = Z[:, place]
            if j not in self.categories_:
                columns.append(block[:, 0])
                continue
            if np.isnan(block).any():
                raise ValueError(
                    f"Z holds NaN in the columns {place.start} to {place.stop - 1} of a category, "
                    "none of which is then the largest."
                )
            columns.append(self.categories_[j][block.argmax(axis=1)])
        return self.table_.restored(columns)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the encoded columns."""
        check_is_fitted(self)
        names = [f"x{j}" for j in range(self.n_features_in_)]
        if self.table_.empty is not None:
            names = list(self.table_.empty.columns)
        found: list = []
        for j, name in enumerate(names):
            values = self.categories_.get(j)
            found += [name] if values is None else [f"{name}_{value}" for value in values]
        return np.asarray(found, dtype=object)

    def _places(self):
        """Where each column of the table lies among the encoded ones."""
        widths = [len(self.categories_.get(j, [0])) for j in range(self.n_features_in_)]
        ends = np.cumsum(widths)
        return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]

    def encoded_condition(self, condition: Mapping[int, Any]) -> dict[int, Any]:
        """What is known of columns of the table, as what is known of encoded ones.

        Numbers and ranges pass through. The value of a category is known of all its columns.

        Parameters
        ----------
        condition : mapping from int
            From the positions of columns to a value, or a range ``(low, high)`` of numbers.

        Returns
        -------
        dict from int

        Raises
        ------
        ValueError
            If a category has no such value, or what is known of a number is none.
        """
        check_is_fitted(self)
        places, found = self._places(), {}
        for j, known in condition.items():
            name = j if self.table_.empty is None else self.table_.empty.columns[j]
            if j not in self.categories_:
                check_known(known, name)
                found[places[j].start] = known
                continue
            is_value = [_is_value(known, value) for value in self.categories_[j].tolist()]
            if not any(is_value):
                raise ValueError(
                    f"column {name!r} holds one of the values {self.categories_[j].tolist()}; "
                    f"got {known!r}."
                )
            columns = range(places[j].start, places[j].stop)
            found.update(zip(columns, map(float, is_value), strict=True))
        return found

    def encoded_measurement(self, measurement: LinearMeasurement) -> LinearMeasurement:
        """A measurement of the table's numbers as one of encoded columns.

        Parameters
        ----------
        measurement : LinearMeasurement
            Of all columns of the table, those of categories with zeros.

        Returns
        -------
        LinearMeasurement

        Raises
        ------
        ValueError
            If it has other than one column for each of the table's, or measures a category.
        """
        check_is_fitted(self)
        given, places = measurement.matrix, self._places()
        if given.shape[1] != len(places) or given[:, list(self.categories_)].any():
            raise ValueError(
                f"a measurement of this table must have {len(places)} columns, and zeros in those "
                f"of categories, {list(self.categories_)}."
            )
        matrix = np.zeros((len(given), places[-1].stop))
        matrix[:, [place.start for place in places]] = given  # zeros for a category's first
        return LinearMeasurement(matrix, measurement.values, measurement.noise)

    def _columns(self, X, *, reset):
        """Columns of a table, and their names or positions."""
        if hasattr(X, "columns"):  # columns of many kinds: each is looked at on its own
            validate_data(self, X, reset=reset, skip_check_array=True)
            if not len(X):
                raise ValueError("X has no rows.")
            return [X[name] for name in X.columns], list(X.columns)
        rows = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        return list(rows.T), list(range(rows.shape[1]))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.allow_nan = True
        return tags

    def log_abs_det_jacobian(self, X: Any) -> np.ndarray:
        """Zero if there are no categories; an error otherwise: they have no density."""
        check_is_fitted(self)
        if self.categories_:
            raise ValueError("categories have no density: only samples can be drawn.")
        return np.zeros(len(X))


def _numbers(column, name):
    """Values of a column of numbers, NaN where missing."""
    if is_temporal(column):
        raise ValueError(
            f"column {name!r} holds times: give them as numbers, such as days since the first, or "
            "list the column as categorical."
        )
    try:
        values = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"column {name!r} holds no numbers, as it did in fit.") from None
    if np.isinf(values).any():
        raise ValueError(
            f"column {name!r} holds infinity: numbers must be finite, or NaN where missing."
        )
    return values


def _is_gap(value):
    """Whether a value is missing: ``None``, NaN or pandas' ``NA``."""
    same = value == value
    return value is None or not isinstance(same, (bool, np.bool_)) or not same


def _labels(column):
    """Values of a category, ``None`` where missing; numbers and truth values stay what they are."""
    values = np.asarray(column)
    if values.dtype.kind in "OUST":
        if any(isinstance(value, np.ndarray) for value in values):
            raise ValueError("a category is one value, and a column holds lists of them.")
        gaps = [_is_gap(value) for value in values.tolist()]
        values = np.where(gaps, None, values)
        truths = all(isinstance(value, (bool, np.bool_)) for value in values[~np.array(gaps)])
        values = values.astype(bool if truths else str)
    else:
        gaps = values != values
    if not np.any(gaps):
        return values
    values = values.astype(object)
    values[gaps] = None
    return values


def _is_value(known, value):
    """Whether what is known is this value of a category; a gap is ``None`` or NaN."""
    if np.ndim(known):
        return False
    if value is None or _is_gap(known):
        return value is None and _is_gap(known)
    return (str(known) if isinstance(value, str) else known) == value


def _values(column):
    """Distinct values of a category in their order, ``None`` last."""
    labels = _labels(column)
    if labels.dtype != object:
        return np.unique(labels)
    present = [label for label in labels if label is not None]
    return np.array([*np.unique(present).tolist(), None], dtype=object)
