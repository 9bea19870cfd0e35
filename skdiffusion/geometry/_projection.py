r"""Projection of a sampled field onto gradients, and its cross-validation, from sums over rows.

The potential is :math:`\phi = b^\top (x-\mu) + \tfrac12 (x-\mu)^\top S (x-\mu) + \sum_k c_k\psi_k`
and minimises the mean of :math:`|v - \nabla\phi|^2` plus :math:`\alpha\,(\operatorname{tr} G/m)\,
|c|^2`: the linear part is free of penalty. Each of the fields :math:`F_0 = v`,
:math:`F_k = \nabla\psi_k` has its own linear gradient part :math:`P F_k = b_k + S_k (x - \mu)`, and

.. math:: (G + \alpha \tfrac{\operatorname{tr} G}{m} I)\, c = h, \quad
    G_{kl} = E\langle F_k, F_l\rangle - E\langle P F_k, F_l\rangle, \quad
    h_k = E\langle F_k, F_0\rangle - E\langle P F_k, F_0\rangle .

All of it needs only :math:`E x, E xx^\top, E F_k, E F_k x^\top, E\langle F_k, F_l\rangle`.
These sums add: those of the rows outside a fold are the total less the fold's, so one pass over the
rows serves all folds, and an eigendecomposition of G each serves all strengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.geometry._potential import Potential
from skdiffusion.geometry.linear import solve_lyapunov
from skdiffusion.utils.memory import rows_in_cache

__all__ = ["ALPHAS", "Candidate", "Path", "Sums", "cross_validate", "field_sums", "solve"]

ALPHAS = np.geomspace(1e-7, 1e2, 19)
"""Strengths that are tried, in units of the mean squared gradient of a feature."""
CACHED = 2**22
"""Numbers of gradients at a time."""


@dataclass(frozen=True)
class Sums:
    """Weighted sums over rows of points x (about one centre) and fields F."""

    weight: float
    x: np.ndarray
    xx: np.ndarray
    fields: np.ndarray
    cross: np.ndarray
    gram: np.ndarray

    def _pairs(self, other):
        return zip(vars(self).values(), vars(other).values(), strict=True)

    def __add__(self, other):
        return Sums(*(a + b for a, b in self._pairs(other)))

    def __sub__(self, other):
        return Sums(*(a - b for a, b in self._pairs(other)))


@dataclass(frozen=True)
class Path:
    """Coefficients for several strengths of the penalty: ``(n_alphas, ...)`` each."""

    mean: np.ndarray
    constants: np.ndarray
    matrices: np.ndarray
    coefficients: np.ndarray
    dof: np.ndarray

    def gradients(self, x, features):
        """Gradient fields of all strengths at points about the centre, ``(n, n_alphas, d)``.

        ``features`` are the gradients of the potentials there, ``(n, m, d)``.
        """
        linear = np.einsum("aij,nj->nai", self.matrices, x - self.mean) + self.constants
        if not self.coefficients.shape[1]:
            return linear
        return linear + self.coefficients @ features


def batches(n: int, m: int, d: int):
    """Slices of rows whose gradients of ``m`` potentials stay in bounds."""
    return gen_batches(n, rows_in_cache((m + 1) * d, CACHED))


def field_sums(features: Any, centre, X, V, weights) -> Sums:
    """Sums over some rows; ``features`` is a family of potentials or None."""
    total = None
    m, d = _n_features(features, X), X.shape[1]
    for rows in batches(len(X), m, d):
        x, w = X[rows] - centre, weights[rows]
        fields = V[rows][:, None, :]
        if features is not None:
            fields = np.concatenate([fields, features.gradients(X[rows])], axis=1)
        weighted = fields * w[:, None, None]
        k = fields.shape[1]
        part = Sums(
            w.sum(),
            w @ x,
            (x * w[:, None]).T @ x,
            weighted.sum(axis=0),
            (weighted.reshape(len(x), -1).T @ x).reshape(k, d, d),
            np.tensordot(weighted, fields, axes=([0, 2], [0, 2])),
        )
        total = part if total is None else total + part
    return total


def _n_features(features, X):
    return 0 if features is None else features.gradients(X[:1]).shape[1]


def solve(sums: Sums, alphas: np.ndarray) -> Path:
    """Minimisers for several strengths."""
    mean = sums.x / sums.weight
    covariance = sums.xx / sums.weight - np.outer(mean, mean)
    variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    constants = sums.fields / sums.weight
    cross = sums.cross / sums.weight - constants[:, :, None] * mean
    matrices = solve_lyapunov(cross, np.maximum(variances, 0), axes)
    k = len(constants)
    gram = sums.gram / sums.weight - constants @ constants.T
    gram = gram - matrices.reshape(k, -1) @ cross.reshape(k, -1).T
    if k == 1:
        none = np.zeros((len(alphas), 0))
        repeat = [np.repeat(a, len(alphas), axis=0) for a in (constants, matrices)]
        return Path(mean, *repeat, none, np.zeros(len(alphas)))
    inner, towards = gram[1:, 1:], gram[1:, 0]
    values, basis = np.linalg.eigh((inner + inner.T) / 2)
    values = np.maximum(values, 0)
    unit = values.mean() or 1.0
    penalised = values + np.multiply.outer(alphas, np.full(k - 1, unit))
    coefficients = ((basis.T @ towards) / penalised) @ basis.T
    return Path(
        mean,
        constants[0] - coefficients @ constants[1:],
        matrices[0] - np.tensordot(coefficients, matrices[1:], axes=1),
        coefficients,
        (values / penalised).sum(axis=1),
    )


@dataclass(frozen=True)
class Candidate:
    """A family of potentials with the out-of-fold losses of every strength, row by row."""

    name: str
    features: Any
    alphas: np.ndarray
    losses: np.ndarray
    final: Path
    out_of_fold: Callable
    """Of ``k``: the gradient field of strength ``k`` at each row, from the other folds."""

    def potential(self, k: int, centre) -> Potential:
        """The potential of strength ``k``, fitted to all rows."""
        path = self.final
        coefficients = None if self.features is None else path.coefficients[k]
        affine = centre + path.mean, path.constants[k], path.matrices[k]
        return Potential(*affine, self.features, coefficients)


def cross_validate(name, features: Any, alphas, centre, X, V, weights, folds) -> Candidate:
    """Fit to all rows and, for every fold, to the rows outside it.

    Parameters
    ----------
    name : str
    features : family of potentials or None
        None for the linear part alone.
    alphas : ndarray of shape (n_alphas,)
    centre : ndarray of shape (d,)
    X, V : ndarrays of shape (n, d)
    weights : ndarray of shape (n,)
    folds : list of ndarray of int
        The held-out rows of each.
    """
    parts = [field_sums(features, centre, X[rows], V[rows], weights[rows]) for rows in folds]
    total = reduce(add, parts)
    paths = [solve(total - part, alphas) for part in parts]
    losses = np.empty((len(X), len(alphas)))
    for rows, gradients in _held_out(features, paths, centre, X, folds):
        losses[rows] = ((V[rows][:, None] - gradients) ** 2).sum(axis=2)

    def out_of_fold(k):
        result = np.empty_like(X)
        for rows, gradients in _held_out(features, paths, centre, X, folds):
            result[rows] = gradients[:, k]
        return result

    return Candidate(name, features, alphas, losses, solve(total, alphas), out_of_fold)


def _held_out(features, paths, centre, X, folds):
    """Gradient fields of all strengths at the rows of each fold, batch by batch."""
    for test, path in zip(folds, paths, strict=True):
        n_alphas, m = path.coefficients.shape
        for batch in batches(len(test), m + n_alphas, X.shape[1]):
            rows = test[batch]
            gradients = None if features is None else features.gradients(X[rows])
            yield rows, path.gradients(X[rows] - centre, gradients)
