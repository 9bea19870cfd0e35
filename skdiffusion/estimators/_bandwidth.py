r"""How wide and of what shape the kernel of a kernel density should be.

**Width.** With kernel :math:`N(0, b^2 S)` and in coordinates where :math:`S = I`, the width
maximises the leave-one-out likelihood

.. math:: \ell(b) = \sum_i w_i \log \frac{1}{1 - w_i} \sum_{j \ne i} w_j N(z_i; z_j, b^2 I),
          \qquad \frac{d\ell}{d\log b} = \sum_i w_i E_{\pi_{-i}}\frac{|z_i - z_j|^2}{b^2} - d .

The nearest neighbour bounds each expectation from below and the unweighted mean from above,
so the optimum lies between :math:`b^2 = \overline{\min_j |z_i-z_j|^2}/d` and
:math:`2 \operatorname{tr} C/(d (1 - \max w))`: a coarse grid there, then a line search.

**Shape.** :math:`S` is isotropic, or :math:`s\,((1-\gamma) R + \gamma I)\,s` with the standard
deviations :math:`s` and the correlation :math:`R` of the columns: whitened at
:math:`\gamma = 0`, scaled columns at :math:`\gamma = 1`. Leaving out one row is no fair judge
of it, as that row has helped to estimate :math:`R`; five-fold cross-validation is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from skdiffusion.estimators._moments import DiagonalMoments, FullMoments
from skdiffusion.models import EmpiricalModel

__all__ = ["KernelShape", "choose_shape", "leave_one_out_width", "merge_rows", "rule_of_thumb"]

PAIRS = 2**24
"""Pairs of rows that a likelihood looks at; of more, evenly spaced rows of the sorted table."""
SHAPE_ROWS = 1000
"""Rows from which the shape is chosen, evenly spaced."""
SORTED_BY = 8
FOLDS = 5
MIXED = (0.3, 0.1, 0.03, 0.01, 0.0)
"""Values of ``gamma`` below 1 that are tried."""
CORRELATED_UP_TO = 128
"""Columns up to which shapes with correlations are tried."""
SINGULAR = 1e-6
"""Smallest ``gamma`` where the correlation is singular."""


def merge_rows(X: np.ndarray, weights: np.ndarray):
    """Distinct rows in lexicographic order, their total weights, and who is who.

    The order depends neither on the order of ``X`` nor on the units of its columns, so what is
    done with evenly spaced rows does not either.

    Returns
    -------
    rows : ndarray of shape (n_distinct, d)
    weights : ndarray of shape (n_distinct,)
        Sums of the weights of equal rows.
    index : ndarray of int of shape (n,)
        Which distinct row each row is, -1 for rows of weight zero.
    """
    kept = np.flatnonzero(weights > 0)
    rows = np.ascontiguousarray(X[kept]) + 0.0  # -0.0 is 0.0
    keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    # by the leading columns; the order of the bytes decides between rows equal in these
    order = np.lexsort(rows[first, :SORTED_BY].T[::-1])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    which = place[which.ravel()]
    index = np.full(len(X), -1)
    index[kept] = which
    return rows[first[order]], np.bincount(which, weights[kept]), index


class KernelShape(NamedTuple):
    """Covariance ``S`` of a kernel of width one, and the coordinates in which it is isotropic."""

    name: str
    gamma: float
    matrix: np.ndarray
    to_unit: np.ndarray
    log_det: float

    @classmethod
    def fit(cls, name: str, gamma: float, X: np.ndarray, weights: np.ndarray) -> KernelShape:
        """The shape of a name, from weighted rows that are not all the same."""
        correlated = name == "whiten"
        moments = (FullMoments if correlated else DiagonalMoments)(X.shape[1])
        moments.update(X, weights)
        variances = moments.column_variances()
        constant = variances <= 0
        # a constant column has no scale of its own
        variances[constant] = variances[~constant].mean() if not constant.all() else 1.0
        if name == "none":
            variances[:] = variances[~constant].mean() if not constant.all() else 1.0
        deviations = np.sqrt(variances)
        if not correlated:
            return cls(name, gamma, variances, 1 / deviations, float(np.log(variances).sum()))
        correlation = moments.covariance() / np.outer(deviations, deviations)
        np.fill_diagonal(correlation, 1.0)
        values, axes = np.linalg.eigh(correlation)
        if values[0] < 1e-10:
            gamma = max(gamma, SINGULAR)
        values = (1 - gamma) * np.maximum(values, 0) + gamma
        matrix = (axes * values) @ axes.T * np.outer(deviations, deviations)
        to_unit = axes / np.sqrt(values) / deviations[:, None]
        log_det = float(np.log(variances).sum() + np.log(values).sum())
        return cls(name, gamma, matrix, to_unit, log_det)

    @property
    def unit(self) -> float:
        """Geometric mean of the kernel's standard deviations at width one, in the data's units."""
        return float(np.exp(0.5 * self.log_det / len(self.matrix)))

    def coordinates(self, X: np.ndarray) -> np.ndarray:
        """Rows in the coordinates where the kernel is isotropic, of unit width."""
        return X * self.to_unit if self.to_unit.ndim == 1 else X @ self.to_unit


def rule_of_thumb(name: str, n: float, d: int) -> float:
    """Width by the rules of Scott and Silverman, relative to the spread of the data."""
    exponent = -1.0 / (d + 4)
    return n**exponent if name == "scott" else (n * (d + 2) / 4) ** exponent


def leave_one_out_width(Z: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Width of largest leave-one-out likelihood, and the mean log-likelihood per row there.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
        Distinct rows, at least two.
    weights : ndarray of shape (n,)
        Their weights.
    """
    n, d = Z.shape
    model = EmpiricalModel(Z, weights)
    rows = np.arange(0, n, max(1, -(-n // max(256, PAIRS // n))))
    share = model.weights[rows] / model.weights[rows].sum()

    def loss(log_width):
        log_prob = model.log_prob(Z[rows], float(np.exp(log_width)), exclude=rows)
        return -float(share @ log_prob)

    centre = model.weights @ Z
    total = float(model.weights @ ((Z - centre) ** 2).sum(axis=1))
    # with next to no noise the denoised row is its nearest neighbour
    nearest = model.denoise(Z[rows], 1e-7 * np.sqrt(total / d), exclude=rows)
    low = 0.5 * np.log(max(share @ ((Z[rows] - nearest) ** 2).sum(axis=1), 1e-28 * total) / d)
    high = 0.5 * np.log(2 * total / d / (1 - model.weights.max()))
    grid = np.linspace(low, max(high, low), 2 + int((high - low) / np.log(1.6)))
    losses = [loss(point) for point in grid]
    best = int(np.argmin(losses))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-3})
    if found.fun > losses[best]:
        return float(np.exp(grid[best])), -losses[best]
    return float(np.exp(found.x)), -float(found.fun)


def choose_shape(X: np.ndarray, weights: np.ndarray, width=None) -> KernelShape:
    """The shape of largest cross-validated likelihood, fitted to all rows.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Distinct rows, at least two.
    weights : ndarray of shape (n,)
    width : callable, optional
        From a shape to the width of the kernel; leave-one-out by default.
    """
    some = np.arange(0, len(X), max(1, -(-len(X) // SHAPE_ROWS)))
    rows, shares = X[some], weights[some]
    candidates = [("none", 1.0), ("columns", 1.0)]
    if X.shape[1] == 1:
        candidates = candidates[:1]
    elif X.shape[1] <= CORRELATED_UP_TO:
        candidates += [("whiten", gamma) for gamma in MIXED]
    scores = []
    for candidate in candidates:
        shape = KernelShape.fit(*candidate, rows, shares)
        if width is None:
            size = leave_one_out_width(shape.coordinates(rows), shares)[0]
        else:
            size = width(shape)
        scores.append(_cross_validated(candidate, size, rows, shares))
    return KernelShape.fit(*candidates[int(np.argmax(scores))], X, weights)


def _cross_validated(candidate, width, X, weights):
    fold = np.arange(len(X)) % min(FOLDS, len(X))
    total = 0.0
    for k in range(fold.max() + 1):
        inside, outside = fold != k, fold == k
        shape = KernelShape.fit(*candidate, X[inside], weights[inside])
        model = EmpiricalModel(shape.coordinates(X[inside]), weights[inside])
        log_prob = model.log_prob(shape.coordinates(X[outside]), width) - 0.5 * shape.log_det
        total += float(weights[outside] @ log_prob)
    return total
