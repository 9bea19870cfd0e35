r"""Covariances that are functions of themselves: spectral calculus in one place.

A covariance is kept as :math:`C = U \operatorname{diag}(\lambda) U^\top + s_0 (I - U U^\top)`
with orthonormal :math:`U \in \mathbb{R}^{d\times r}`: full (:math:`r = d`), low rank plus
isotropic (:math:`r < d`, probabilistic PCA), or diagonal (:math:`U = I`, not stored).
Every closed form of a Gaussian diffusion is then one function of the variances,

.. math:: f(C)\, v = U f(\lambda)\, U^\top v + f(s_0)\,(v - U U^\top v),
          \qquad \operatorname{tr} f(C) = \textstyle\sum_k f(\lambda_k) + (d-r) f(s_0),

in :math:`O(dr)` per point, never a :math:`d \times d` matrix when :math:`r < d`.

Columns of very different scale (:math:`C = S K S`, :math:`K` a correlation) lose their small
eigenvalues in an ordinary eigensolver, whose error is relative to the largest one.
One-sided Jacobi rotations on the Cholesky factor of :math:`K` times :math:`S` keep all
of them to a relative accuracy set by :math:`K` alone (Demmel & Veselić 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from skdiffusion.utils.arrays import Parameters, as_points, like, namespace, to_numpy

__all__ = ["SpectralCovariance"]

GRADED = 30.0
"""Ratio of column standard deviations above which eigenvalues are found by Jacobi rotations."""


class SpectralCovariance:
    r"""A covariance matrix through its spectrum.

    Parameters
    ----------
    variances : array-like of shape (r,)
        Variances :math:`\lambda` along the axes, non-negative.
    axes : array-like of shape (d, r), optional
        Orthonormal axes :math:`U`; ``None`` means the coordinate axes (``r = d``).
    residual : float
        Variance :math:`s_0` in every direction that is not an axis; no effect if ``r = d``.

    Raises
    ------
    ValueError
        If a variance is negative or not finite, or the axes are not orthonormal.

    Examples
    --------
    >>> import numpy as np
    >>> C = SpectralCovariance.from_matrix(np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> C.variances
    array([3., 1.])
    >>> C.apply(np.sqrt, np.array([[1.0, 1.0]])).round(6)  # C^(1/2) (1, 1)
    array([[1.732051, 1.732051]])
    """

    def __init__(self, variances: Any, axes: Any = None, residual: float = 0.0):
        self._seen = Parameters(variances=variances, axes=axes, residual=residual)
        variances, axes = self._seen.variances, self._seen.axes
        if variances.ndim != 1:
            raise ValueError(f"variances must be one-dimensional; got shape {variances.shape}.")
        smallest = min(variances.min(initial=np.inf), float(residual))
        if not (smallest >= 0 and np.isfinite(variances).all() and np.isfinite(residual)):
            raise ValueError(f"variances must be finite and non-negative; got {smallest:g}.")
        if axes is not None:
            if axes.ndim != 2 or axes.shape[1] != len(variances) or axes.shape[0] < axes.shape[1]:
                raise ValueError(
                    f"axes must have shape (d, {len(variances)}), one column per variance; "
                    f"got {axes.shape}."
                )
            error = np.abs(axes.T @ axes - np.eye(axes.shape[1])).max(initial=0)
            if not error < 1e-8:
                raise ValueError(f"axes must be orthonormal; they are off by {error:g}.")

    # ------------------------------------------------------------------ constructors

    @classmethod
    def from_any(cls, covariance: Any, n_features: int) -> SpectralCovariance:
        """From a scalar, the ``(d,)`` diagonal, a ``(d, d)`` matrix, or itself."""
        if isinstance(covariance, SpectralCovariance):
            result = covariance
        else:
            values = np.asarray(to_numpy(covariance), dtype=np.float64)
            if values.ndim == 0:
                result = cls(np.full(n_features, float(values)))
            elif values.ndim == 1:
                result = cls(values)
            else:
                result = cls.from_matrix(values)
        if result.n_features != n_features:
            raise ValueError(
                f"covariance must be a scalar, a ({n_features},) diagonal or a "
                f"({n_features}, {n_features}) matrix; got one for {result.n_features} features."
            )
        return result

    @classmethod
    def from_matrix(cls, matrix: Any) -> SpectralCovariance:
        """From a symmetric positive semi-definite matrix, largest variance first.

        Raises
        ------
        ValueError
            If the matrix is not square, not finite, not symmetric or clearly indefinite.
        """
        matrix = np.asarray(to_numpy(matrix), dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"covariance must be a square matrix; got shape {matrix.shape}.")
        if not np.isfinite(matrix).all():
            raise ValueError("covariance must be finite.")
        scale = np.sqrt(np.maximum(matrix.diagonal(), 0))
        bound = 1e-8 * np.outer(scale, scale) + 1e-14 * np.abs(matrix).max(initial=0)
        if (np.abs(matrix - matrix.T) > bound).any():
            raise ValueError("covariance must be symmetric.")
        matrix = (matrix + matrix.T) / 2
        varies = matrix.any(axis=0)
        if varies.any() and not varies.all():
            return cls._beside_constants(matrix, varies)
        variances, axes = _graded_eigh(matrix, scale) or np.linalg.eigh(matrix)
        if variances.min(initial=0) < -1e-8 * np.abs(variances).max(initial=0):
            raise ValueError(
                f"covariance must be positive semi-definite; it has eigenvalue {variances.min():g}."
            )
        order = np.argsort(variances, kind="stable")[::-1]
        return cls(np.maximum(variances[order], 0), axes[:, order])

    @classmethod
    def _beside_constants(cls, matrix, varies):
        """From a matrix with coordinates of no variance: axes of their own, exactly."""
        inner, n = cls.from_matrix(matrix[np.ix_(varies, varies)]), int(varies.sum())
        axes = np.zeros(matrix.shape)
        axes[varies, :n] = inner.axes
        axes[~varies, n:] = np.eye(len(matrix) - n)
        return cls(np.append(inner.variances, np.zeros(len(matrix) - n)), axes)

    # ------------------------------------------------------------------ what it is

    @property
    def n_features(self) -> int:
        """Dimension ``d``."""
        return len(self.variances) if self.axes is None else self.axes.shape[0]

    @property
    def variances(self) -> np.ndarray:
        """Variances along the axes, shape ``(r,)``."""
        return self._seen.variances

    @property
    def axes(self) -> np.ndarray | None:
        """Orthonormal axes, shape ``(d, r)``, or ``None`` for the coordinate axes."""
        return self._seen.axes

    @property
    def residual(self) -> float:
        """Variance off the axes."""
        return float(self._seen.residual)

    @property
    def n_residual(self) -> int:
        """Number ``d - r`` of directions off the axes."""
        return self.n_features - len(self.variances)

    @property
    def smallest(self) -> float:
        """Smallest variance in any direction."""
        smallest = float(self.variances.min(initial=np.inf))
        return min(smallest, self.residual) if self.n_residual else smallest

    @property
    def largest(self) -> float:
        """Largest variance in any direction."""
        largest = float(self.variances.max(initial=0))
        return max(largest, self.residual) if self.n_residual else largest

    @property
    def total(self) -> float:
        """Trace: total variance."""
        return float(self.variances.sum()) + self.n_residual * self.residual

    @property
    def diagonal(self) -> np.ndarray:
        """Variance of each coordinate, shape ``(d,)``, without forming the matrix."""
        if self.axes is None:
            return self.variances
        squared = self.axes**2
        rest = np.maximum(1 - squared.sum(axis=1), 0) if self.n_residual else 0
        return squared @ self.variances + self.residual * rest

    # ------------------------------------------------------------------ functions of it

    def apply(self, gain: Callable, v: Any):
        """Rows ``f(C) v_k``.

        Parameters
        ----------
        gain : callable
            The function ``f``, elementwise on variances; per-row parameters of shape
            ``(n, 1)`` broadcast.
        v : array of shape (n, d)

        Returns
        -------
        array of shape (n, d)
            Like ``v``.
        """
        v = as_points(v, self.n_features, "v")
        seen = self._seen.like(v)
        if seen.axes is None:
            return gain(seen.variances) * v
        along = v @ seen.axes
        result = (gain(seen.variances) * along) @ seen.axes.T
        if self.n_residual:
            # v - U U'v, not the difference of the two gains: exact when they differ hugely
            result = result + gain(seen.residual) * (v - along @ seen.axes.T)
        return result

    def quadratic(self, gain: Callable, v: Any):
        """Quadratic forms ``v_k' f(C) v_k``, shape ``(n,)``; arguments as in :meth:`apply`."""
        v = as_points(v, self.n_features, "v")
        xp, seen = namespace(v), self._seen.like(v)
        if seen.axes is None:
            return xp.sum(gain(seen.variances) * v**2, axis=-1)
        along = v @ seen.axes
        result = xp.sum(gain(seen.variances) * along**2, axis=-1)
        if self.n_residual:
            rest = xp.sum((v - along @ seen.axes.T) ** 2, axis=-1, keepdims=True)
            result = result + (gain(seen.residual) * rest)[..., 0]
        return result

    def trace(self, gain: Callable, v: Any):
        """Trace of ``f(C)`` for each row of ``v``, shape ``(n,)``."""
        v = as_points(v, self.n_features, "v")
        xp, seen = namespace(v), self._seen.like(v)
        trace = xp.sum(gain(seen.variances), axis=-1)
        if self.n_residual:
            rest = gain(seen.residual)
            trace = trace + self.n_residual * (rest[..., 0] if np.ndim(rest) else rest)
        return trace + xp.zeros_like(v[:, 0])

    def matrices(self, gain: Callable, v: Any):
        """The matrix ``f(C)`` for each row of ``v``, shape ``(n, d, d)``."""
        v = as_points(v, self.n_features, "v")
        xp, seen = namespace(v), self._seen.like(v)
        n, d = v.shape
        gains = xp.broadcast_to(gain(seen.variances), (n, len(self.variances)))
        identity = like(np.eye(d), v)
        if seen.axes is None:
            return gains[:, :, None] * identity
        result = xp.matmul(seen.axes[None] * gains[:, None, :], seen.axes.T[None])
        if self.n_residual:
            rest = xp.broadcast_to(gain(seen.residual), (n, 1))[:, :, None]
            result = result + rest * (identity - seen.axes @ seen.axes.T)
        return result

    def to_matrix(self) -> np.ndarray:
        """The ``(d, d)`` matrix."""
        return self.matrices(lambda variance: variance, np.zeros((1, self.n_features)))[0]


def _graded_eigh(matrix: np.ndarray, scale: np.ndarray):
    """Eigenpairs of a badly scaled positive definite matrix to high relative accuracy.

    ``None`` where the columns are of similar scale or the correlation is singular:
    there the ordinary solver is as good.
    """
    if len(scale) < 2 or scale.min() <= 0 or scale.max() < GRADED * scale.min():
        return None
    try:
        factor = np.linalg.cholesky(matrix / np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return None
    # joba=0: relative accuracy under column scaling; jobu=3, jobv=0: axes are V, no U
    values, _, axes, work, _, info = scipy.linalg.lapack.dgejsv(
        np.asfortranarray(factor.T * scale), joba=0, jobu=3, jobv=0
    )
    if info != 0:
        return None
    return (values * (work[0] / work[1])) ** 2, axes
