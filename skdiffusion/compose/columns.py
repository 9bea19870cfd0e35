r"""A fitted ``ColumnTransformer``, block by block: what goes in, what comes out, and back.

scikit-learn's ``ColumnTransformer`` has no ``inverse_transform``. Where every column is used
exactly once it has one: each block is inverted on its own and put back in its place,

.. math:: T = P_{out}\, (T_1 \oplus T_2 \oplus \dots)\, P_{in} .
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

__all__ = ["blocks_of", "inverted"]


def blocks_of(transformer: ColumnTransformer) -> list[tuple[Any, np.ndarray, slice]]:
    """Blocks of a fitted ``ColumnTransformer`` that uses every column once.

    Returns
    -------
    list of (transformer or None, input columns, output slice)
        ``None`` passes its columns through.

    Raises
    ------
    ValueError
        If it drops a column or uses one twice.
    """
    names = list(getattr(transformer, "feature_names_in_", []))
    n, blocks = transformer.n_features_in_, []
    for name, part, columns in transformer.transformers_:
        indices = _indices(columns, names, n)
        if not len(indices):
            continue
        if part == "drop":
            raise ValueError(f"{_drops(transformer, indices)} Use remainder='passthrough'.")
        part = None if part == "passthrough" else part
        blocks.append((part, indices, transformer.output_indices_[name]))
    used = np.concatenate([indices for _, indices, _ in blocks])
    if len(np.unique(used)) < len(used):
        raise ValueError("the ColumnTransformer uses a column twice: it has no inverse.")
    return blocks


def _drops(transformer, indices):
    """What a transformer drops, as the beginning of a message."""
    names = getattr(transformer, "feature_names_in_", range(transformer.n_features_in_))
    dropped = np.asarray(names, dtype=object)[indices].tolist()
    return (
        f"the {type(transformer).__name__} drops the columns {dropped}: rows cannot be put "
        "together again."
    )


def _indices(columns, names, n):
    if callable(columns):
        raise ValueError("the ColumnTransformer is not fitted.")
    columns = [columns] if isinstance(columns, (str, int, np.integer)) else columns
    if isinstance(columns, slice):
        ends = [names.index(c) if isinstance(c, str) else c for c in (columns.start, columns.stop)]
        if isinstance(columns.stop, str):
            ends[1] += 1  # slices of names include their end
        return np.arange(n)[slice(*ends, columns.step)]
    columns = np.asarray(columns)
    if columns.dtype.kind in "OUST":
        return np.array([names.index(c) for c in columns], dtype=int)
    return np.arange(n)[columns] if columns.size else np.empty(0, dtype=int)


def inverted(transformer: Any, Z: Any) -> np.ndarray:
    """``inverse_transform`` of a step, also where scikit-learn has none.

    Parameters
    ----------
    transformer : fitted transformer, Pipeline or ColumnTransformer
    Z : array-like of shape (n, d_out)

    Returns
    -------
    array of shape (n, d_in)
        Of objects where columns of different kinds meet.
    """
    if isinstance(transformer, Pipeline):
        for _, step in reversed(transformer.steps):
            if step is not None and step != "passthrough":
                Z = inverted(step, Z)
        return Z
    if isinstance(transformer, ColumnTransformer):
        return _assembled(transformer, np.asarray(Z))
    if not hasattr(transformer, "inverse_transform"):
        raise ValueError(
            f"{type(transformer).__name__} has no inverse_transform: samples cannot be taken back "
            "to the rows' own columns."
        )
    if isinstance(transformer, SelectorMixin) and not transformer.get_support().all():
        raise ValueError(_drops(transformer, ~transformer.get_support()))  # it would say zero
    if isinstance(transformer, FunctionTransformer) and _has_no_inverse(transformer):
        raise ValueError(
            "FunctionTransformer has a func and no inverse_func: samples cannot be taken back to "
            "the rows' own columns."
        )
    return transformer.inverse_transform(Z)


def _has_no_inverse(transformer):
    """scikit-learn then takes the identity for it."""
    return transformer.func is not None and transformer.inverse_func is None


def _assembled(transformer, Z):
    parts, columns = [], []
    for part, indices, places in blocks_of(transformer):
        block = Z[:, places]
        parts.append(block if part is None else np.asarray(inverted(part, block)))
        columns.append(indices)
    order = np.argsort(np.concatenate(columns))
    if len({part.dtype.kind in "OUS" for part in parts}) > 1:
        parts = [part.astype(object) for part in parts]
    return np.concatenate(parts, axis=1)[:, order]
