r"""How transformers stretch space: log-determinants for the change of variables.

If :math:`z = T(x)` has density :math:`q`, then

.. math:: \log p(x) = \log q(T(x)) + \log |\det \partial T / \partial x| .

:func:`~skdiffusion.compose.log_abs_det_jacobian` dispatches on the type of the transformer: a sum
of logarithms for what acts column by column, the spectrum for a square PCA, sums of parts for
what is composed, central differences of error :math:`O(h^4)` for the rest. A transformer of your
own answers by a method ``log_abs_det_jacobian(X)``, a type of somebody else's is added by
``@log_abs_det_jacobian.register(Type)``, and a function inside a ``FunctionTransformer`` by an
attribute ``function.log_abs_det_jacobian``.

What changes the number of columns has no Jacobian determinant, and what maps an interval to a point
no density: both are errors here, never a number in other units.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special, stats
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, FastICA
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from skdiffusion.compose.columns import blocks_of
from skdiffusion.compose.table import columns_of, with_names_of

__all__ = ["log_abs_det_jacobian", "numerical_log_det", "sized_log_det", "sizes_of"]


WIDE, NARROW = np.finfo(np.float64).eps ** (1 / 5), np.finfo(np.float64).eps ** (1 / 3)
"""Steps, as shares of a column's size, that balance rounding with an error of fourth and second
order."""
KINK = 2e-5
"""Share of the slope by which differences over two steps may disagree where a map is smooth."""
CUT = 1e-7
"""Share of either tail that a QuantileTransformer to normal columns cuts off."""


def log_abs_det_jacobian(transformer: Any, X: Any) -> np.ndarray:
    r"""Log-determinant :math:`\log|\det \partial T/\partial x|` of a transformer at each row.

    Parameters
    ----------
    transformer : fitted transformer
        Of as many columns as it is given.
    X : array-like of shape (n, d)
        What goes into it.

    Returns
    -------
    ndarray of shape (n,)
        Minus infinity where it is flat.

    Raises
    ------
    ValueError
        If it changes the number of columns or maps to discrete values.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> X = np.array([[0.0, 0.0], [4.0, 0.5]])
    >>> log_abs_det_jacobian(MinMaxScaler().fit(X), X).round(6)  # -log 4 - log 0.5
    array([-0.693147, -0.693147])
    """
    return sized_log_det(transformer, X)


def sized_log_det(transformer: Any, X: Any, sizes: Any = None) -> np.ndarray:
    """:func:`log_abs_det_jacobian`, given the sizes of columns that :func:`sizes_of` found."""
    own = getattr(transformer, "log_abs_det_jacobian", None)
    if callable(own):
        found = own(X)
    else:
        found = _log_det(transformer, X) if sizes is None else _log_det(transformer, X, sizes)
    return np.broadcast_to(np.asarray(found, dtype=np.float64), (len(X),)).copy()


@functools.singledispatch
def _log_det(transformer, X, scale=1.0):
    return numerical_log_det(transformer, X, scale)


log_abs_det_jacobian.register = _log_det.register


def numerical_log_det(transformer: Any, X: Any, scale: Any = 1.0) -> np.ndarray:
    """Log-determinant by central differences in float64: ``4 d`` transforms of the rows.

    Differences over two steps are extrapolated to step zero. Steps are shares of the numbers, or
    of the columns' size where those are larger; where the two disagree, as behind an offset, of
    the columns' size; where they disagree again, near a kink or the end of a domain, it is a single
    small step.

    Parameters
    ----------
    transformer : fitted transformer
    X : array-like of shape (n, d)
    scale : float or array-like of shape (d,)
        Typical size of the columns, of which the step is a small share.

    Returns
    -------
    ndarray of shape (n,)
    """
    table, X = X, np.asarray(X, dtype=np.float64)
    scale = np.broadcast_to(scale, X.shape)
    found, unsure = _extrapolated(transformer, X, table, np.maximum(np.abs(X), scale))
    rows = np.flatnonzero(unsure)
    if len(rows):
        found[rows], unsure = _extrapolated(transformer, X[rows], table, scale[rows])
        rows = rows[unsure]
    if len(rows):
        found[rows] = _differences(transformer, X[rows], table, NARROW * scale[rows])
    return np.linalg.slogdet(found)[1]


def _extrapolated(transformer, X, table, size):
    """Jacobians at step zero, and the rows whose differences over two steps disagree."""
    smooth = _differences(transformer, X, table, WIDE * size)
    wider = _differences(transformer, X, table, 2 * WIDE * size)
    with np.errstate(invalid="ignore"):  # beyond the largest numbers
        agree = np.abs(smooth - wider) <= KINK * np.abs(smooth).max(axis=(1, 2), keepdims=True)
        return (4 * smooth - wider) / 3, ~agree.all(axis=(1, 2))


def _differences(transformer, X, table, steps):
    """Jacobians by central differences: one pair of transforms per column."""
    n, d = X.shape
    columns = []
    for j in range(d):
        ahead, behind = X.copy(), X.copy()
        ahead[:, j] += steps[:, j]
        behind[:, j] -= steps[:, j]
        step = (ahead[:, j] - behind[:, j])[:, None]  # as rounded
        with np.errstate(all="ignore"):
            change = _transformed(transformer, ahead, table) - _transformed(
                transformer, behind, table
            )
        if change.shape != (n, d):
            raise ValueError(_not_square(transformer, d, change.shape[1]))
        columns.append(change / step)
    return np.stack(columns, axis=2)


def _transformed(transformer, X, table):
    Z = transformer.transform(with_names_of(table, X))
    return np.asarray(Z.toarray() if hasattr(Z, "toarray") else Z, dtype=np.float64)


def _not_square(transformer, n_in, n_out):
    return (
        f"{type(transformer).__name__} maps {n_in} columns to {n_out}: a density of those is in "
        "other units and no density of the rows. Keep all columns, or let a "
        "PCA(k) be completed by DensityPipeline(..., noise='residual')."
    )


# --------------------------------------------------------------------- column by column


def _minus_log(scale):
    return 0.0 if scale is None else -np.log(np.abs(scale)).sum()


@_log_det.register(StandardScaler)
@_log_det.register(MaxAbsScaler)
@_log_det.register(RobustScaler)
def _(transformer, X):
    return _minus_log(transformer.scale_)  # None without scaling


@_log_det.register(MinMaxScaler)
def _(transformer, X):
    log_det = np.full(len(X), -_minus_log(transformer.scale_))
    if transformer.clip:
        X = np.asarray(X)
        outside = (transformer.data_min_ > X) | (transformer.data_max_ < X)
        log_det[outside.any(axis=1)] = -np.inf
    return log_det


@_log_det.register(PowerTransformer)
def _(transformer, X):
    X, powers = np.asarray(X, dtype=np.float64), transformer.lambdas_
    if transformer.method == "box-cox":
        log_slope = (powers - 1) * np.log(X)
    else:
        log_slope = (powers - 1) * np.sign(X) * np.log1p(np.abs(X))
    return log_slope.sum(axis=1) - _log_spread(transformer, powers)


def _log_spread(transformer, powers):
    """Logarithm of the standard deviations that a PowerTransformer divides by, in all.

    They are private. The rows that it maps to 0 and 1 (or -1: the image of a power may end
    on one side) differ by one of them before the division.
    """
    if not transformer.standardize:
        return 0.0
    sides = np.where(powers < 1, -1.0, 1.0)
    rows = transformer.inverse_transform(np.stack([0 * sides, sides]))
    power = special.boxcox if transformer.method == "box-cox" else stats.yeojohnson
    raw = np.array(
        [
            [float(power(np.array([x]), p)[0]) for x, p in zip(row, powers, strict=True)]
            for row in rows
        ]
    )
    return np.log(np.abs(raw[1] - raw[0])).sum()


@_log_det.register(QuantileTransformer)
def _(transformer, X):
    """The slope of a distribution function that is linear between quantiles, flat beyond them."""
    X, shares = np.asarray(X, dtype=np.float64), transformer.references_
    log_det = np.zeros(len(X))
    for j, (x, knots) in enumerate(zip(X.T, transformer.quantiles_.T, strict=True)):
        widths = np.diff(knots)
        if not (widths > 0).all():
            raise ValueError(
                f"QuantileTransformer finds equal quantiles in column {j}: values that come again "
                "and again have no density. Take fewer n_quantiles, or another step."
            )
        segment = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(widths) - 1)
        log_slope = np.log(np.diff(shares)[segment] / widths[segment])
        if transformer.output_distribution == "normal":
            share = np.interp(x, knots, shares)
            log_slope -= stats.norm.logpdf(stats.norm.ppf(share))
            # the transformer cuts its tails off
            x = np.where((share < CUT) | (share > 1 - CUT), np.nan, x)
        inside = (x >= knots[0]) & (x <= knots[-1])
        log_det += np.where(inside, log_slope, -np.inf)
    return log_det


@_log_det.register(FastICA)
def _(transformer, X):
    n_out, n_in = transformer.components_.shape
    if n_out != n_in:
        raise ValueError(_not_square(transformer, n_in, n_out))
    return np.linalg.slogdet(transformer.components_)[1]


# of functions that act on each number; a function of yours has the attribute of that name
_ELEMENTWISE: dict[Callable, Callable] = {
    np.log: lambda x: -np.log(x),
    np.log1p: lambda x: -np.log1p(x),
    np.log2: lambda x: -np.log(x) - np.log(np.log(2)),
    np.log10: lambda x: -np.log(x) - np.log(np.log(10)),
    np.exp: lambda x: x,
    np.expm1: lambda x: x,
    np.sqrt: lambda x: -np.log(2) - np.log(x) / 2,
    np.cbrt: lambda x: -np.log(3) - 2 * np.log(np.abs(x)) / 3,
    np.square: lambda x: np.log(2) + np.log(np.abs(x)),
    np.arcsinh: lambda x: -np.log1p(x**2) / 2,
    np.sinh: lambda x: np.logaddexp(x, -x) - np.log(2),
    np.tanh: lambda x: 2 * (np.log(2) - np.logaddexp(x, -x)),
    np.arctanh: lambda x: -np.log1p(-(x**2)),
    special.logit: lambda x: -np.log(x) - np.log1p(-x),
    special.expit: lambda x: -np.logaddexp(0, x) - np.logaddexp(0, -x),
}


def _is_known(transformer):
    """Whether a FunctionTransformer is of a function whose slope is known."""
    function = transformer.func
    if function is None or hasattr(function, "log_abs_det_jacobian"):
        return True
    return function in _ELEMENTWISE and not transformer.kw_args


@_log_det.register(FunctionTransformer)
def _(transformer, X, scale=1.0):
    function = transformer.func
    if function is None:
        return 0.0
    if hasattr(function, "log_abs_det_jacobian"):
        return function.log_abs_det_jacobian(X, **(transformer.kw_args or {}))
    if not _is_known(transformer):
        return numerical_log_det(transformer, X, scale)
    with np.errstate(divide="ignore"):
        return _ELEMENTWISE[function](np.asarray(X, dtype=np.float64)).sum(axis=1)


# --------------------------------------------------------------------- all columns at once


@_log_det.register(PCA)
def _(transformer, X):
    if transformer.n_components_ != transformer.n_features_in_:
        raise ValueError(
            _not_square(transformer, transformer.n_features_in_, transformer.n_components_)
        )
    return -0.5 * np.log(transformer.explained_variance_).sum() if transformer.whiten else 0.0


# --------------------------------------------------------------------- compositions


@_log_det.register(Pipeline)
@_log_det.register(ColumnTransformer)
def _composed(transformer, X, sizes=None):
    total = np.zeros(len(X))
    parts = _parts(transformer, X)
    for (part, Z), size in zip(parts, sizes or itertools.repeat(None), strict=False):
        total += sized_log_det(part, Z, size)
    return total


def _parts(transformer, X):
    """The parts of what is composed, each with what goes into it."""
    if isinstance(transformer, ColumnTransformer):
        for part, columns, _ in blocks_of(transformer):
            if part is not None:
                yield part, columns_of(X, columns)
        return
    for _, step in transformer.steps:
        if step is not None and step != "passthrough":
            yield step, X
            X = step.transform(X)


def sizes_of(transformer: Any, X: Any) -> Any:
    """Sizes of columns, for the steps of differences, wherever a transformer needs them.

    Parameters
    ----------
    transformer : fitted transformer
    X : array-like of shape (n, d)
        What goes into it.

    Returns
    -------
    ndarray of shape (d,), list or None
        Standard deviations where only differences are known; of what is composed a list, one for
        each part; ``None`` where nothing is differentiated, or can be.
    """
    if callable(getattr(transformer, "log_abs_det_jacobian", None)):
        return None
    slope = _log_det.dispatch(type(transformer))
    if slope is _composed:
        try:
            return [sizes_of(part, Z) for part, Z in _parts(transformer, X)]
        except ValueError:  # no density, as it says when it is asked for one
            return None
    if slope is _log_det.dispatch(FunctionTransformer):
        differentiated = not _is_known(transformer)
    else:
        differentiated = slope is _log_det.dispatch(object)
    return _spread(X) if differentiated else None


def _spread(X):
    """Standard deviations of the columns, one where there is none; ``None`` of words."""
    try:
        spread = np.asarray(X, dtype=np.float64).std(axis=0)
    except (TypeError, ValueError):
        return None
    return np.where(spread > 0, spread, 1.0)


# --------------------------------------------------------------------- no densities


def _no_density(transformer, X):
    raise ValueError(
        f"{type(transformer).__name__} maps to discrete values or loses a dimension: there is no "
        "density of the rows behind it. Samples can be drawn where it has an inverse."
    )


for _discrete in (
    OneHotEncoder,
    OrdinalEncoder,
    KBinsDiscretizer,
    Binarizer,
    Normalizer,
    FeatureUnion,
):
    _log_det.register(_discrete, _no_density)
