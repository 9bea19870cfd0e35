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
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import sklearn
from sklearn.utils import gen_batches

from skdiffusion.models.affine import AffineModel
from skdiffusion.models.empirical import EmpiricalModel
from skdiffusion.models.gaussian import GaussianModel
from skdiffusion.models.mixture import MixtureModel
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_number

__all__ = ["LinearMeasurement", "Posterior", "has_posterior", "posterior"]

LOG_2PI = math.log(2 * math.pi)


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
    return _solve.dispatch(type(model)) is not _solve.dispatch(object)


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
    values = np.asarray(values, dtype=np.float64)
    rng = as_generator(random_state)
    mean, draws = np.empty((len(values), d)), np.empty((n_draws, len(values), d))
    patterns, labels = np.unique(np.isnan(values), axis=0, return_inverse=True)
    for p, missing in enumerate(patterns):
        rows, seen = np.flatnonzero(np.reshape(labels, -1) == p), ~missing
        block = _Measured(matrix[seen], values[np.ix_(rows, seen)], noise)
        mean[rows], draws[:, rows] = _solve(model, block, n_draws, rng)
    return Posterior(mean, draws)


class _Measured(NamedTuple):
    """Rows of which the same functions were measured."""

    matrix: np.ndarray
    values: np.ndarray
    noise: float

    def gain(self, covariance):
        """Gain ``C A' B^-1``, and the triangular factor of B."""
        cross = covariance @ self.matrix.T
        inner = self.matrix @ cross + self.noise**2 * np.eye(len(self.matrix))
        scale = np.sqrt(np.maximum(inner.diagonal(), np.finfo(float).tiny))
        try:  # the correlation: units do not matter then
            factor = np.linalg.cholesky(inner / np.outer(scale, scale)) * scale[:, None]
        except np.linalg.LinAlgError:
            raise ValueError(
                "what is measured has a singular covariance under the model: give a positive "
                "noise, or measure each thing once."
            ) from None
        return scipy.linalg.cho_solve((factor, True), cross.T).T, factor

    def errors(self, shape, rng):
        return self.noise * rng.standard_normal(shape) if self.noise else 0.0


@functools.singledispatch
def _solve(model, measured, n_draws, rng):
    raise NotImplementedError(
        f"{type(model).__name__} has no closed form of its posterior given measurements."
    )


@_solve.register
def _(model: GaussianModel, measured, n_draws, rng):
    return _mixture([1.0], model.mean[None], [model.covariance], measured, n_draws, rng)


@_solve.register
def _(model: MixtureModel, measured, n_draws, rng):
    return _mixture(model.weights, model.means, model.covariances, measured, n_draws, rng)


@_solve.register
def _(model: AffineModel, measured, n_draws, rng):
    # x = b + L z: measured is y - A b = (A L) z
    centre = model._outward(np.zeros((1, model.n_features)))[0]
    linear = (model._outward(np.eye(model.n_features)) - centre).T
    inner = _Measured(
        measured.matrix @ linear, measured.values - measured.matrix @ centre, measured.noise
    )
    mean, draws = _solve(model.model, inner, n_draws, rng)
    return model._outward(mean), model._outward(draws)


@_solve.register
def _(model: EmpiricalModel, measured, n_draws, rng):
    d = model.n_features
    kernel = np.zeros((d, d)) if model.kernel is None else model.kernel.to_matrix()
    gain, factor = measured.gain(kernel)
    white = scipy.linalg.solve_triangular(factor, measured.matrix @ model.points.T, lower=True).T
    seen = scipy.linalg.solve_triangular(factor, measured.values.T, lower=True).T
    with np.errstate(divide="ignore"):
        log_weights = np.log(model.weights) - 0.5 * (white**2).sum(1)
    n = len(seen)
    centres, choices = np.empty((n, d)), np.empty((n_draws, n), dtype=int)
    size = int(sklearn.get_config()["working_memory"] * 2**20 / (24 * len(white)))
    for batch in gen_batches(n, max(size, 1)):
        gamma = _softmax(seen[batch] @ white.T + log_weights)
        centres[batch] = gamma @ model.points
        choices[:, batch] = _choices(gamma, n_draws, rng)
    mean = centres + (measured.values - centres @ measured.matrix.T) @ gain.T
    x = model.points[choices]
    if model.kernel is not None:
        x = x + _spread(model.kernel, rng.standard_normal(x.shape))
    errors = measured.errors((n_draws, *measured.values.shape), rng)
    return mean, x + (measured.values - errors - x @ measured.matrix.T) @ gain.T


def _mixture(weights, means, covariances, measured, n_draws, rng):
    n, d = len(measured.values), means.shape[1]
    gains, logits = [], np.empty((n, len(weights)))
    residuals = measured.values[:, None] - means @ measured.matrix.T
    for k, covariance in enumerate(covariances):
        gain, factor = measured.gain(covariance.to_matrix())
        white = scipy.linalg.solve_triangular(factor, residuals[:, k].T, lower=True)
        gains.append(gain)
        logits[:, k] = -0.5 * (white**2).sum(0) - np.log(factor.diagonal()).sum()
    with np.errstate(divide="ignore"):
        gamma = _softmax(logits + np.log(weights))
    moves = [residuals[:, k] @ gain.T for k, gain in enumerate(gains)]
    mean = gamma @ means + sum(gamma[:, k, None] * move for k, move in enumerate(moves))
    draws = np.empty((n_draws, n, d))
    choices = _choices(gamma, n_draws, rng)
    for k in np.unique(choices):
        of_draw, rows = np.nonzero(choices == k)
        x = means[k] + _spread(covariances[k], rng.standard_normal((len(rows), d)))
        errors = measured.errors((len(rows), len(measured.matrix)), rng)
        gap = measured.values[rows] - errors - x @ measured.matrix.T
        draws[of_draw, rows] = x + gap @ gains[k].T
    return mean, draws


def _spread(covariance, codes):
    flat = covariance.apply(np.sqrt, codes.reshape(-1, codes.shape[-1]))
    return flat.reshape(codes.shape)


def _softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    gamma = np.exp(logits)
    return gamma / gamma.sum(axis=1, keepdims=True)


def _choices(gamma, n_draws, rng):
    """Indices drawn by the rows of ``gamma``, shape ``(n_draws, n)``."""
    cumulative = np.cumsum(gamma, axis=1)
    cumulative /= cumulative[:, -1:]
    uniform = rng.random((n_draws, len(gamma)))
    found = [
        np.searchsorted(row, u, side="right") for row, u in zip(cumulative, uniform.T, strict=True)
    ]
    last = gamma.shape[1] - 1
    return np.minimum(np.array(found, dtype=int).reshape(len(gamma), n_draws), last).T
