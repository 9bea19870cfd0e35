r"""The probability flow of any score model, in the latent coordinates of its far field.

Let :math:`G = N(\mu, C)` have the moments of the law, :math:`u = \log\sigma` and

.. math::
    z = (C+\sigma^2)^{-1/2}(x-\mu), \qquad
    \frac{dz}{du} = (C+\sigma^2)^{-1/2}\,\big(D_G(x,\sigma) - D(x,\sigma)\big).

The Gaussian's own motion, all growth and all scales of the columns, is gone: a Gaussian stands
still, and any law moves only at the levels where it differs from its Gaussian. Far out that is
:math:`O(\sigma^{-3})`, the third cumulant, so that beyond the last level :math:`\sigma_1` the rest
of the way is a third of the rate there; the end is the latent code, standard normal.

Steps are Dormand and Prince's pair of orders 5 and 4 (1980) on a grid uniform in :math:`u`; a row
whose two orders disagree by more than ``tol`` takes two halves of the step instead, and so on.
Each row decides for itself: it moves alone as in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.models import AffineModel, GaussianModel
from skdiffusion.utils.arrays import as_points, is_torch, like, namespace
from skdiffusion.utils.dormand_prince import dormand_prince
from skdiffusion.utils.memory import rows_in_memory

__all__ = ["Motion", "decode", "encode", "follow", "isotropic_view", "under_noise_of"]

STEP = 0.5
"""Longest step in the logarithm of the level."""
HALVINGS = 5
"""How often a step may be halved."""
TAIL = 1 / 3
"""What is left beyond the last level, in units of the rate there: it falls by the third power."""
TAIL_ERROR = 0.25
"""Share of that remainder counted as error: the next power is smaller by spread over level."""


class Motion(NamedTuple):
    """Where rows came to, the rate of their motion there, and the error made on the way."""

    state: Any
    rate: Any
    error: Any


def encode(
    model: Any,
    x: Any,
    far_field: Any,
    sigma_min: Any,
    sigma_max: float,
    *,
    y: Any = None,
    tol: float = 1e-8,
):
    """Latent code of each row: standard normal if the rows follow the model at ``sigma_min``.

    Parameters
    ----------
    model : BaseScoreModel
    x : array of shape (n, d)
        Points at level ``sigma_min``.
    far_field : GaussianModel
        What the noised law tends to; any model with a closed-form affine flow.
    sigma_min : float or array of shape (n,)
    sigma_max : float
        Level up to which the model is asked.
    y : array of shape (n,), optional
        Labels, for conditional models.
    tol : float
        Error allowed in each step, in units of the code.

    Returns
    -------
    array of shape (n, d)
        Float64, in the library of ``x``.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import MixtureModel
    >>> law = MixtureModel([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.1])
    >>> z = encode(law, np.array([[0.0], [1.0]]), law.gaussian(), 0.01, 20.0)
    >>> bool(abs(z[0, 0]) < 1e-12), bool(abs(z[1, 0] - 0.6745) < 0.01)  # the law's quantiles
    (True, True)
    """
    far_field = under_noise_of(model, far_field)

    def start(points, level):
        return far_field.to_latent(points, level)

    def finish(motion, level):
        return motion.state + TAIL * motion.rate

    return _in_chunks(model, x, far_field, sigma_min, sigma_max, y, tol, start, finish)


def decode(
    model: Any,
    z: Any,
    far_field: Any,
    sigma_min: Any,
    sigma_max: float,
    *,
    y: Any = None,
    tol: float = 1e-8,
):
    """Points at level ``sigma_min`` from latent codes: inverse of :func:`encode`."""
    far_field = under_noise_of(model, far_field)
    rates = _rates(model, far_field)

    def start(codes, level):
        inner = codes
        for _ in range(2):  # a contraction by the remainder itself, some 1e-3
            inner = codes - TAIL * rates(inner, level, {})
        return inner

    def finish(motion, level):
        return far_field.from_latent(motion.state, level)

    return _in_chunks(model, z, far_field, sigma_max, sigma_min, y, tol, start, finish)


def _in_chunks(model, points, far_field, level, last, y, tol, start, finish):
    points = as_float64(points, model.n_features)
    rates = _rates(model, far_field)
    parts = []
    for rows in chunks(points, 0):
        first, second = pick(level, rows), pick(last, rows)
        condition = {} if y is None else {"y": y[rows]}
        state = start(points[rows], first)
        motion = follow(rates, state, first, second, condition, tol)
        parts.append(finish(motion, second))
    return namespace(points).concat(parts, axis=0)


def _rates(model, far_field):
    def rates(z, level, condition):
        x = far_field.from_latent(z, level)
        shift = far_field.denoise(x, level) - model.denoise(x, level, **condition)
        return far_field.to_latent(x + shift, level) - z

    return rates


def under_noise_of(model: Any, far_field: Any):
    """The far field under the model's own noise: as it is, unless the noise differs by column."""
    scale = model.noise_scale
    if not np.ndim(scale) or np.ndim(far_field.noise_scale):
        return far_field
    inner = far_field.covariance.to_matrix() / np.outer(scale, scale)
    return AffineModel(GaussianModel(far_field.mean / scale, inner), scale=scale)


def isotropic_view(model: Any, far_field: Any):
    """A model and its far field in coordinates ``x / scale`` where the noise is isotropic.

    Returns
    -------
    model : BaseScoreModel
    far_field : GaussianModel
    scale : float or array of shape (d,)
        The noise scale of the model; one where its noise is isotropic as it is.
    """
    scale = model.noise_scale
    if not np.ndim(scale):
        return model, far_field, 1.0
    return AffineModel(model, scale=1 / scale), under_noise_of(model, far_field).model, scale


# ---------------------------------------------------------------------- the integrator


def follow(
    rates: Callable,
    state: Any,
    first: Any,
    last: Any,
    more: dict,
    tol: float,
    size: Callable | None = None,
) -> Motion:
    """Follow rows from one level to another.

    Parameters
    ----------
    rates : callable
        ``rates(state, level, more)``, derivatives by the logarithm of the level, ``(n, m)``.
    state : array of shape (n, m)
        Latent coordinates, and in further columns beyond them integrals that run along.
    first, last : float or array of shape (n,)
        Levels.
    more : dict of arrays of length n
        What else the rates of a row depend on.
    tol : float
        Error allowed in each step.
    size : callable, optional
        ``size(difference, state)``, how large a row's error is: the Euclidean norm by default.

    Returns
    -------
    Motion
    """
    u, end = _log(first), _log(last)
    n_steps = max(int(np.ceil(np.max(np.abs(end - u), initial=0.0) / STEP)), 1)
    step = _Step(rates, size or _norm, tol)
    rate = rates(state, _level(u), more)
    h, error = (end - u) / n_steps, 0.0
    for k in range(n_steps):
        span = u + k * h, (u + (k + 1) * h if k + 1 < n_steps else end)
        state, rate, made = step(state, rate, *span, more, HALVINGS)
        error = error + made
    return Motion(state, rate, error)


class _Step:
    """A step of the embedded pair, halved for the rows that need it."""

    def __init__(self, rates, size, tol):
        self.rates, self.size, self.tol = rates, size, tol

    def __call__(self, state, rate, start, end, more, halvings) -> Motion:
        h = end - start
        span = h if isinstance(h, float) else like(h, state)

        def rate_at(point, share):
            return self.rates(point, _level(end if share == 1 else start + share * h), more)

        after, its_rate, difference = dormand_prince(rate_at, state, rate, span)
        error = self.size(difference, after)
        after = Motion(after, its_rate, error)

        rough = error > self.tol
        if not halvings or not bool(namespace(rough).any(rough)):
            return after
        middle = (pick(start, rough) + pick(end, rough)) / 2
        inner = {name: values[rough] for name, values in more.items()}
        part = state[rough], rate[rough], pick(start, rough), middle
        half = self(*part, inner, halvings - 1)
        rest = self(half.state, half.rate, middle, pick(end, rough), inner, halvings - 1)
        after.state[rough], after.rate[rough] = rest.state, rest.rate
        after.error[rough] = half.error + rest.error
        return after


def _norm(error, state):
    return namespace(error).sum(error * error, axis=1) ** 0.5


def _log(level):
    """Logarithm of a level: a float, or a column of one per row."""
    return np.log(level)[:, None] if np.ndim(level) else float(np.log(level))


def _level(u):
    return np.exp(u)[:, 0] if np.ndim(u) else float(np.exp(u))


def pick(values, rows):
    """Rows of what may be one number for all."""
    if not np.ndim(values):
        return values
    return values[np.asarray(rows) if is_torch(rows) else rows]


def as_float64(x: Any, n_features: int):
    """Points in double precision, in their own library."""
    x = as_points(x, n_features)
    return x.double() if is_torch(x) else x.astype(np.float64, copy=False)


def chunks(x: Any, more: int):
    """Slices of rows whose stages, ``d + more`` numbers each, fit the working memory."""
    n, d = x.shape
    # seven slopes and some sums; the halves of all depths hold rows that get fewer and fewer
    return gen_batches(n, rows_in_memory(32 * (d + more)))
