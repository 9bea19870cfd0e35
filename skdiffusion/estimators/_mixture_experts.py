r"""Log-densities of all components at all rows: the E-step, one form of covariance each.

.. math:: \log N(x_i; \mu_k, C_k) = -\tfrac12 \big( q_{ik} + \log\det C_k + d \log 2\pi \big),
          \qquad q_{ik} = \| L_k^{-1} (x_i - \mu_k) \|^2, \quad C_k = L_k L_k^\top .

Matrices: :math:`L_k^{-1}` is triangular, so column block :math:`b` of all components is one
product with the first columns of the data, 5/8 of the arithmetic in four blocks. The other
forms expand the square, in double precision: columns are standardised and variances
bounded from below by the regularisation, which bounds what cancels.

An expert is made once per iteration and asked block by block of rows.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

__all__ = [
    "DiagonalExpert",
    "LowRankExpert",
    "TiedExpert",
    "TriangularExpert",
    "cholesky",
    "inverse_factors",
    "log_weights",
    "normalised",
    "weighted_log_densities",
]

LOG_2PI = math.log(2 * math.pi)
BUFFER = 2**17
"""Numbers per product: it stays in a cache until its squares are summed."""
SINGLE_OK = 1e-4
"""Least variance of a low-rank rest for which single precision resolves the squares."""


class TriangularExpert:
    """One matrix per component.

    Parameters
    ----------
    means : ndarray of shape (k, d)
    covariances : ndarray of shape (k, d, d)
    dtype : dtype
        Precision of the products.
    """

    def __init__(self, means, covariances, dtype):
        k, d = means.shape
        inverses, log_dets = inverse_factors(covariances)
        self.constants = _constants(log_dets, d)
        width = -(-d // (4 if d >= 32 else 1))
        self.blocks = []
        for low in range(0, d, width):
            high = min(low + width, d)
            rows = inverses[:, low:high, :high]  # zero beyond these columns
            offsets = np.einsum("kwh,kh->kw", rows, means[:, :high]).reshape(-1, 1)
            basis = np.hstack([-offsets, rows.reshape(-1, high)])
            self.blocks.append(np.ascontiguousarray(basis, dtype=dtype))
        self.n_components = k
        self.step = max(BUFFER // (k * width), 64)

    def log_density(self, X):
        """Log-density of each row under each component, shape ``(n, k)``, float64."""
        (n, d), k = X.shape, self.n_components
        result = np.empty((n, k))
        with_one = np.ones((self.step, d + 1), dtype=X.dtype)  # its products subtract the means
        for start in range(0, n, self.step):
            rows = X[start : start + self.step]
            with_one[: len(rows), 1:] = rows
            columns = with_one[: len(rows)].T
            quadratic = np.zeros((k, len(rows)), dtype=X.dtype)
            for basis in self.blocks:
                # rows of X along the last axis: sums of squares over the others are fast
                white = (basis @ columns[: basis.shape[1]]).reshape(k, -1, len(rows))
                quadratic += np.einsum("kwn,kwn->kn", white, white)
            result[start : start + self.step] = quadratic.T
        return self.constants - 0.5 * result


class TiedExpert:
    """One matrix for all components: in its white coordinates, distances to the means."""

    def __init__(self, means, covariance):
        factor = cholesky(covariance)
        self.factor = factor
        self.means = scipy.linalg.solve_triangular(factor, means.T, lower=True)
        self.squares = (self.means**2).sum(axis=0)
        self.constants = _constants(2 * np.log(factor.diagonal()).sum(), len(factor))

    def log_density(self, X):
        """Log-density of each row under each component, shape ``(n, k)``, float64."""
        white = scipy.linalg.solve_triangular(self.factor, np.float64(X).T, lower=True)
        squares = (white**2).sum(axis=0)[:, None] - 2 * white.T @ self.means + self.squares
        return self.constants - 0.5 * np.maximum(squares, 0)


class DiagonalExpert:
    """One diagonal per component."""

    def __init__(self, means, variances):
        self.precisions = (1 / variances).T
        self.linear = (means / variances).T
        self.squares = (means**2 / variances).sum(axis=1)
        self.constants = _constants(np.log(variances).sum(axis=1), means.shape[1])

    def log_density(self, X):
        """Log-density of each row under each component, shape ``(n, k)``, float64."""
        X = np.asarray(X, dtype=np.float64)
        squares = (X * X) @ self.precisions - 2 * (X @ self.linear) + self.squares
        return self.constants - 0.5 * np.maximum(squares, 0)


class LowRankExpert:
    """Axes plus isotropic rest per component: never a matrix."""

    def __init__(self, means, variances, axes, residuals, dtype):
        k, d, r = axes.shape
        if r < d and residuals.min() < SINGLE_OK:
            dtype = np.float64
        self.dtype, self.shape = dtype, (k, r)
        self.basis = np.ascontiguousarray(axes.transpose(1, 0, 2).reshape(d, k * r), dtype=dtype)
        self.offsets = np.einsum("kd,kdr->kr", means, axes)
        self.means = means.T
        self.squares = (means**2).sum(axis=1)
        self.rest = 1 / residuals if r < d else np.zeros(k)
        self.gain = self.rest[:, None] - 1 / variances
        log_det = np.log(variances).sum(axis=1)
        if r < d:
            log_det = log_det + (d - r) * np.log(residuals)
        self.constants = _constants(log_det, d)
        self.step = max(BUFFER // max(k * r, 1), 64)

    def log_density(self, X):
        """Log-density of each row under each component, shape ``(n, k)``, float64."""
        result = np.empty((len(X), self.shape[0]))
        for start in range(0, len(X), self.step):
            rows = X[start : start + self.step]
            along = (rows.astype(self.dtype, copy=False) @ self.basis).reshape(
                len(rows), *self.shape
            )
            along = along - self.offsets
            rows = rows.astype(np.float64, copy=False)
            squares = np.einsum("nd,nd->n", rows, rows)[:, None] - 2 * rows @ self.means
            quadratic = np.maximum(squares + self.squares, 0) * self.rest
            quadratic -= np.einsum("nkr,nkr,kr->nk", along, along, self.gain)
            result[start : start + self.step] = np.maximum(quadratic, 0)
        return self.constants - 0.5 * result


def weighted_log_densities(expert, mixture, X) -> np.ndarray:
    """``log w_k N(x_i; mu_k, C_k)``, shape ``(n, k)``."""
    return expert.log_density(X) + log_weights(mixture)


def log_weights(mixture) -> np.ndarray:
    """Logarithms of the weights, minus infinity for none."""
    with np.errstate(divide="ignore"):
        return np.log(mixture.weights)


def normalised(logits):
    """Responsibilities, in place, and the log-normaliser of each row."""
    highest = logits.max(axis=1, keepdims=True)
    logits -= highest
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    logits /= total
    return logits, (highest + np.log(total))[:, 0]


class SingularCovariance(ValueError):
    """A covariance has no Cholesky factor."""


def cholesky(matrices):
    """Lower Cholesky factors, or a ``SingularCovariance`` that says what to do."""
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        raise SingularCovariance(
            "a component's covariance is singular: increase reg_covar or shrinkage, or use "
            "fewer components."
        ) from None


def inverse_factors(covariances):
    """Inverses of the Cholesky factors of ``(k, d, d)`` covariances, and log-determinants."""
    factors = cholesky(covariances)
    inverses = np.stack([scipy.linalg.lapack.dtrtri(factor, lower=1)[0] for factor in factors])
    return inverses, 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)


def _constants(log_det, d):
    return -0.5 * (log_det + d * LOG_2PI)
