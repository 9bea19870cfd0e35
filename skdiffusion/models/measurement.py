r"""Rows of which linear functions were measured: exact posteriors of the closed-form laws.

Measured is :math:`y = A x + s\,e` with standard normal errors ``e``. For a mixture
:math:`\sum_k w_k N(\mu_k, C_k)` the posterior is a mixture again: with
:math:`B_k = A C_k A^\top + s^2 I` and the gain :math:`G_k = C_k A^\top B_k^{-1}`,

.. math:: \gamma_k \propto w_k N(y;\, A\mu_k, B_k), \qquad
          E[x \mid y] = \sum_k \gamma_k\, [\mu_k + G_k (y - A \mu_k)] .

A draw needs no posterior covariance (Matheron's rule): of :math:`x' \sim N(\mu_k, C_k)` and fresh
errors, :math:`x' + G_k (y - A x' - s\,e)` has the posterior law. For rows blurred by one kernel,
:math:`\sum_i w_i N(x_i, K)`, the gain is the same for all of them. Known columns are the case
:math:`A = I` with the other entries of ``y`` missing; rows with the same pattern share their gains.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils import gen_batches

from skdiffusion.models.affine import AffineModel
from skdiffusion.models.conditional import correlation_factor
from skdiffusion.models.empirical import EmpiricalModel
from skdiffusion.models.gaussian import GaussianModel
from skdiffusion.models.mixture import MixtureModel
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["LinearMeasurement", "Posterior", "has_posterior", "posterior"]


@dataclass(frozen=True)
class LinearMeasurement:
    r"""What is known of a row: :math:`y = A x + s\,e`.

    Parameters
    ----------
    matrix : array-like of shape (m, d)
        The linear functions :math:`A`, one per row.
    values : array-like of shape (m,)
        What was measured.
    noise : float
        Standard deviation ``s`` of the errors.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion import GaussianScore
    >>> est = GaussianScore.from_parameters([0.0, 0.0], [1.0, 1.0])
    >>> rows = est.sample(
    ...     3, condition=LinearMeasurement([[1.0, 1.0]], [5.0]), random_state=0
    ... )
    >>> rows.sum(axis=1).round(6)
    array([5., 5., 5.])
    """

    matrix: Any
    values: Any
    noise: float = 0.0

    def __post_init__(self):
        matrix = np.asarray(self.matrix, dtype=np.float64)
        values = np.asarray(self.values, dtype=np.float64)
        if matrix.ndim != 2 or values.shape != matrix.shape[:1]:
            raise ValueError(
                "a measurement needs a matrix of shape (m, d) and m values; "
                f"got shapes {matrix.shape} and {values.shape}."
            )
        if not (np.isfinite(matrix).all() and np.isfinite(values).all()):
            raise ValueError("matrix and values of a measurement must be finite.")
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "noise", check_number(self.noise, "noise", least=0))


class Posterior(NamedTuple):
    """Mean and draws of rows given what was measured of each.

    Attributes
    ----------
    mean : ndarray of shape (n, d)
    draws : ndarray of shape (n_draws, n, d)
    """

    mean: np.ndarray
    draws: np.ndarray


def has_posterior(model: Any) -> bool:
    """Whether a model's posterior given linear measurements is known in closed form."""
    if isinstance(model, AffineModel):
        return has_posterior(model.model)
    return _law.dispatch(type(model)) is not _law.dispatch(object)


def posterior(
    model: Any,
    values: Any,
    matrix: Any = None,
    *,
    noise: float = 0.0,
    n_draws: int = 0,
    random_state: Any = None,
) -> Posterior:
    """Exact mean and draws of rows given linear measurements of each.

    Parameters
    ----------
    model : GaussianModel, MixtureModel, EmpiricalModel, or AffineModel of one
    values : array-like of shape (n, m)
        Measured values, NaN where nothing was measured.
    matrix : array-like of shape (m, d), optional
        The linear functions; by default the columns themselves.
    noise : float
        Standard deviation of the errors of measurement.
    n_draws : int
    random_state : None, int, Generator or RandomState

    Returns
    -------
    Posterior

    Raises
    ------
    ValueError
        If what is measured has a singular covariance under the model and there is no noise.
    NotImplementedError
        If the model has no closed form: see :class:`skdiffusion.models.ConditionedModel`.

    Examples
    --------
    >>> import numpy as np
    >>> law = GaussianModel([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
    >>> posterior(law, np.array([[np.nan, 2.0]])).mean
    array([[1.6, 2. ]])
    """
    d = model.n_features
    matrix = np.eye(d) if matrix is None else np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != d or not np.isfinite(matrix).all():
        raise ValueError(f"matrix must have shape (m, {d}) and be finite; got {matrix.shape}.")
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(matrix) or np.isinf(values).any():
        raise ValueError(
            f"values must be finite, of shape (n, {len(matrix)}), and NaN where nothing was "
            f"measured; got shape {values.shape}."
        )
    noise, n_draws = check_number(noise, "noise", least=0), check_count(n_draws, "n_draws", 0)
    rng, law = as_generator(random_state), _law(model)
    mean, draws = np.empty((len(values), d)), np.empty((n_draws, len(values), d))
    patterns, labels = np.unique(np.isnan(values), axis=0, return_inverse=True)
    for p, missing in enumerate(patterns):
        rows, seen = np.flatnonzero(np.reshape(labels, -1) == p), ~missing
        block = _Measured(matrix[seen], values[np.ix_(rows, seen)], noise)
        mean[rows], draws[:, rows] = law.solve(block, n_draws, rng)
    return Posterior(mean, draws)


class _Measured(NamedTuple):
    """Rows of which the same functions were measured."""

    matrix: np.ndarray
    values: np.ndarray
    noise: float

    def gains(self, covariances):
        """Gains ``C A' B^-1`` of covariances ``(k, d, d)``, and W with ``W' W = B^-1``."""
        cross = covariances @ self.matrix.T
        inner = self.matrix @ cross + self.noise**2 * np.eye(len(self.matrix))
        scale = np.sqrt(np.maximum(np.diagonal(inner, axis1=1, axis2=2), np.finfo(float).tiny))
        # of the correlation: units do not matter then
        factors = correlation_factor(inner / (scale[:, :, None] * scale[:, None, :]))
        if factors is None:
            raise ValueError(
                "what is measured has a singular covariance under the model: give a positive "
                "noise, a millionth of what is measured or more, or measure each thing once."
            )
        whiten = np.linalg.inv(factors) / scale[:, None, :]
        return cross @ np.swapaxes(whiten, 1, 2) @ whiten, whiten

    def errors(self, shape, rng):
        return self.noise * rng.standard_normal(shape) if self.noise else 0.0


class _Mixture:
    """Components with means and covariances of their own."""

    def __init__(self, weights, means, covariances):
        with np.errstate(divide="ignore"):
            self.log_weights = np.log(weights)
        self.means, self.covariances = np.asarray(means), covariances
        self.matrices = np.stack([covariance.to_matrix() for covariance in covariances])

    def solve(self, measured, n_draws, rng):
        (n, m), (k, d) = measured.values.shape, self.means.shape
        gains, whiten = measured.gains(self.matrices)
        log_det = np.log(np.diagonal(whiten, axis1=1, axis2=2)).sum(axis=1)
        seen = (self.means @ measured.matrix.T)[:, None]
        mean, choices = np.empty((n, d)), np.empty((n_draws, n), dtype=int)
        uniform = rng.random(choices.shape)
        for batch in gen_batches(n, rows_in_memory(3 * k * max(m, 1))):
            residuals = measured.values[batch] - seen
            squares = ((residuals @ np.swapaxes(whiten, 1, 2)) ** 2).sum(axis=2)
            gamma = _softmax(self.log_weights + log_det - 0.5 * squares.T)
            mean[batch] = gamma @ self.means
            for shares, residual, gain in zip(gamma.T, residuals, gains, strict=True):
                mean[batch] += shares[:, None] * (residual @ gain.T)
            choices[:, batch] = _choices(gamma, uniform[:, batch])
        draws = np.empty((n_draws, n, d))
        for k in np.unique(choices):
            of_draw, rows = np.nonzero(choices == k)
            x = self.means[k] + _spread(self.covariances[k], rng.standard_normal((len(rows), d)))
            gap = measured.values[rows] - measured.errors((len(rows), m), rng)
            draws[of_draw, rows] = x + (gap - x @ measured.matrix.T) @ gains[k].T
        return mean, draws


class _Kernels:
    """Weighted points, all blurred by one kernel."""

    def __init__(self, model):
        d = model.n_features
        self.points, self.kernel = model.points, model.kernel
        self.matrix = np.zeros((1, d, d)) if self.kernel is None else self.kernel.to_matrix()[None]
        with np.errstate(divide="ignore"):
            self.log_weights = np.log(model.weights)

    def solve(self, measured, n_draws, rng):
        n, d = len(measured.values), self.points.shape[1]
        (gain,), (whiten,) = measured.gains(self.matrix)
        white = self.points @ measured.matrix.T @ whiten.T
        targets = measured.values @ whiten.T
        centres, choices = np.empty((n, d)), np.empty((n_draws, n), dtype=int)
        uniform = rng.random(choices.shape)
        for batch in gen_batches(n, rows_in_memory(3 * len(white))):
            # of differences: squares and products cancel where the points are far from the origin
            squares = cdist(targets[batch], white, "sqeuclidean")
            gamma = _softmax(self.log_weights - 0.5 * squares)
            centres[batch] = gamma @ self.points
            choices[:, batch] = _choices(gamma, uniform[:, batch])
        mean = centres + (measured.values - centres @ measured.matrix.T) @ gain.T
        x = self.points[choices]
        if self.kernel is not None:
            x = x + _spread(self.kernel, rng.standard_normal(x.shape))
        errors = measured.errors((n_draws, *measured.values.shape), rng)
        return mean, x + (measured.values - errors - x @ measured.matrix.T) @ gain.T


class _Turned:
    """An affine change of coordinates ``x = b + L z``: measured is ``y - A b = (A L) z``."""

    def __init__(self, model):
        self.model, self.law = model, _law(model.model)
        self.centre = model._outward(np.zeros((1, model.n_features)))[0]
        self.linear = (model._outward(np.eye(model.n_features)) - self.centre).T

    def solve(self, measured, n_draws, rng):
        values = measured.values - measured.matrix @ self.centre
        inner = _Measured(measured.matrix @ self.linear, values, measured.noise)
        mean, draws = self.law.solve(inner, n_draws, rng)
        return self.model._outward(mean), self.model._outward(draws)


@functools.singledispatch
def _law(model):
    raise NotImplementedError(
        f"{type(model).__name__} has no closed form of its posterior given measurements."
    )


@_law.register
def _(model: GaussianModel):
    return _Mixture([1.0], model.mean[None], [model.covariance])


@_law.register
def _(model: MixtureModel):
    return _Mixture(model.weights, model.means, model.covariances)


_law.register(EmpiricalModel, _Kernels)
_law.register(AffineModel, _Turned)


def _spread(covariance, codes):
    flat = covariance.apply(np.sqrt, codes.reshape(-1, codes.shape[-1]))
    return flat.reshape(codes.shape)


def _softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    gamma = np.exp(logits)
    return gamma / gamma.sum(axis=1, keepdims=True)


def _choices(gamma, uniform):
    """Indices by the rows of ``gamma``, where their sums pass ``uniform``, ``(n_draws, n)``."""
    if not len(uniform):
        return np.empty(uniform.shape, dtype=int)
    cumulative = np.cumsum(gamma, axis=1)
    cumulative /= cumulative[:, -1:]
    found = [
        np.searchsorted(row, u, side="right") for row, u in zip(cumulative, uniform.T, strict=True)
    ]
    last = gamma.shape[1] - 1
    return np.minimum(np.array(found, dtype=int).reshape(uniform.shape[::-1]), last).T
