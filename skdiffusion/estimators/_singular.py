r"""Whether rows lie where no density is, or a density is all regularisation, in words.

Rows in a subspace have a singular covariance: the density across it is that of whatever was
added. A mixture of as many components as distinct rows has a component for each of them, whose
width is again what was added.
"""

from __future__ import annotations

import numpy as np

from skdiffusion.estimators._mixture_forms import Mixture
from skdiffusion.utils.validation import listed
from skdiffusion.utils.warning import warn_user

__all__ = ["SINGULAR", "warn_of_many_components", "warn_of_singular_rows", "where_singular"]

SINGULAR = "the covariance of X is singular"
"""How such warnings begin."""
WIDE = 1024
"""Columns up to which a covariance is formed to look at it."""


def where_singular(estimator, constant: np.ndarray, n_directions: int) -> str:
    """How many directions rows span, and which columns are constant.

    Parameters
    ----------
    estimator : estimator
        With the names of the columns, if they have any.
    constant : ndarray of bool of shape (d,)
    n_directions : int
    """
    words = f"{SINGULAR} (the rows span {n_directions} of {len(constant)} directions"
    columns = np.flatnonzero(constant)
    if len(columns):
        names = getattr(estimator, "feature_names_in_", np.arange(len(constant)))[columns]
        words += f", {len(columns)} column{'s are' * (len(columns) > 1) or ' is'} constant"
        words += f" ({listed(names)})"
    return words + ")"


def warn_of_singular_rows(estimator, constant: np.ndarray, rows, form) -> None:
    """Warn where one component of standardised rows would be singular.

    Parameters
    ----------
    estimator : GMMScore
    constant : ndarray of bool of shape (d,)
        Columns that do not vary.
    rows : Rows
        Where values are missing, what is imputed hides dependence, and only that.
    form : FullForm
    """
    X, d = rows.imputed(), len(constant)
    if d > WIDE:
        return
    eps = max(np.finfo(np.float64).eps, float(np.finfo(X.dtype).eps) ** 2)
    X = X * np.sqrt(rows.all_weights / rows.total)[:, None]
    scatter = X.T @ X
    scatter[constant] = scatter[:, constant] = 0
    spread = form.from_matrices(scatter[None], np.ones(1))
    one = Mixture(np.ones(1), np.zeros((1, d)), spread)
    if form.covariances(one, np.ones(d))[0].smallest > 10 * d * eps:
        return
    n_directions = int((np.linalg.eigvalsh(scatter) > 10 * d * eps).sum())
    warn_user(
        f"{where_singular(estimator, constant, n_directions)}: the density in the others is "
        f"that of reg_covar, {form.floor:g} of each column's variance; set it to choose otherwise."
    )


def warn_of_many_components(k: int, rows) -> None:
    """Warn where every distinct row can have a component of its own."""
    n = len(rows.all_X)
    if k >= n:
        warn_user(
            f"n_components={k} for {n} distinct rows: each becomes a component of its own, as wide "
            "as reg_covar; take fewer components than rows."
        )
