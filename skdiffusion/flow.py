r"""The probability flow of any score model, in the latent coordinates of its far field.

Let :math:`G = N(\mu, C)` have the moments of the law, :math:`u = \log\sigma` and

.. math::
    z = (C+\sigma^2)^{-1/2}(x-\mu), \qquad
    \frac{dz}{du} = (C+\sigma^2)^{-1/2}\,\big(D_G(x,\sigma) - D(x,\sigma)\big).

The Gaussian's own motion, all growth and all scales of the columns, is gone: a Gaussian stands
still, and any law moves only at the levels where it differs from its Gaussian. Far out, at fixed
``z``, the rate is

.. math:: \frac{dz}{du} = \frac{a}{\sigma} + \frac{b}{\sigma^2} + \frac{c}{\sigma^3} + \dots :

what the law's own mean differs by (the moments may be of a sample, or of all classes), its
covariance, and its third cumulant. The three are read off the rates at the last level
:math:`\sigma_1` and a little below, and with them the rest of the way to the latent code, standard
normal: :math:`a/\sigma_1 + b/2\sigma_1^2 + c/3\sigma_1^3`.

Steps are Dormand and Prince's pair of orders 5 and 4 (1980) on a grid uniform in :math:`u`; a row
whose two orders disagree by more than ``tol`` takes two halves of the step instead, and so on.
Each row decides for itself: it moves alone as in a batch.

Where a row lies between clusters or kernels the way down is unstable: off by :math:`10^{-9}` at
one level is off by one at the next, and no tolerance helps. A displacement carried along,
:math:`dv/du = J v` with the Jacobian of the rate by a difference, says by how much errors grow,
for one evaluation per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.models import AffineModel, GaussianModel
from skdiffusion.utils.arrays import (
    as_levels,
    as_points,
    is_torch,
    labels_of,
    like,
    namespace,
    to_numpy,
)
from skdiffusion.utils.dormand_prince import dormand_prince
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import normal_by_row

__all__ = [
    "Displacement",
    "Motion",
    "WayBeyond",
    "decode",
    "encode",
    "follow",
    "isotropic_view",
    "under_noise_of",
]

STEP = 0.5
"""Longest step in the logarithm of the level."""
HALVINGS = 5
"""How often a step may be halved."""
BELOW = 2**0.5
"""Factor between the levels at which the rate is read to know the way beyond the last."""


def _tail_weights(n_rates):
    """Weights of the rates at levels that fall by ``BELOW``: exact for as many powers of 1/level.

    Of a power p the rest of the way is the rate at the last level over p.
    """
    powers = np.arange(1, n_rates + 1)
    return np.linalg.solve(BELOW ** np.outer(powers, np.arange(n_rates)), 1 / powers)


TAIL, ROUGH_TAIL = _tail_weights(3), _tail_weights(2)
REACHED = 1 / 16
"""Squared width of the law over that of the noise where the powers are those of a far field."""
SMOOTH = 0.15
"""Difference between two and three powers, over the rate, from which it is not of these."""
THIRD_POWER = 1 / 3
"""Share of such a rate: either the third power is all there is, or the errors of a network are."""
THIRD_ERROR, NEAR_ERROR = 1 / 12, 2 / 3
"""Share of a rate counted as error then; where the far field is not reached."""
TINY = float(np.finfo(float).tiny)
SETTLED, ROUNDING = 20, 1e-13
"""Rounds in which codes find where they come from at the last level, at most; when they have."""
DISPLACED = 1e-6
"""Length of a displacement that is carried along."""
MOST_GROWTH = 100.0
"""Logarithm of a growth beyond which it makes no difference."""


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
    way_beyond = WayBeyond(_rates(model, far_field), model, far_field, sigma_max)

    def start(points, level, condition):
        return far_field.to_latent(points, level)

    def finish(motion, level, condition):
        return motion.state + way_beyond(motion.state, motion.rate, level, condition).way

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
    return_error: bool = False,
):
    """Points at level ``sigma_min`` from latent codes: inverse of :func:`encode`.

    Parameters
    ----------
    model, far_field, sigma_min, sigma_max, y, tol
        As in :func:`encode`.
    z : array of shape (n, d)
        Codes.
    return_error : bool
        Whether to return errors too; of NumPy codes.

    Returns
    -------
    x : array of shape (n, d)
    error : ndarray of shape (n,)
        Only if asked for: by how much a point may be off, in standard deviations of the law, as
        the errors of the steps and of the rounding of codes grow on their way. An order of
        magnitude, and beyond one another point altogether.
    """
    far_field = under_noise_of(model, far_field)
    rates = _rates(model, far_field)
    way_beyond = WayBeyond(rates, model, far_field, sigma_max)

    def start(codes, level, condition):
        inner = codes
        for _ in range(SETTLED):  # contracts by how much the way beyond differs, some 1e-3
            rate = rates(inner, level, condition)
            before, inner = inner, codes - way_beyond(inner, rate, level, condition).way
            if not len(inner) or float(namespace(inner).max(abs(inner - before))) < ROUNDING:
                break
        return inner

    def finish(motion, level, condition):
        return far_field.from_latent(motion.state, level)

    ends = sigma_max, sigma_min
    if not return_error:
        return _in_chunks(model, z, far_field, *ends, y, tol, start, finish)
    rounding, growth = np.finfo(z.dtype).eps, []
    made = _in_chunks(model, z, far_field, *ends, y, tol, start, finish, growth)
    grown, errors = (np.concatenate(part) for part in zip(*growth, strict=True))
    codes = np.linalg.norm(z, axis=1)
    return made, (errors + rounding * codes) * np.exp(np.minimum(grown, MOST_GROWTH))


def _in_chunks(model, points, far_field, level, last, y, tol, start, finish, growth=None):
    points = as_float64(points, model.n_features)
    level, last = (as_ends(end, points, "a noise level") for end in (level, last))
    y = labels_of(y, points)
    rates = _rates(model, far_field)
    parts = []
    for rows in chunks(points, 0):
        first, second = pick(level, rows), pick(last, rows)
        condition = {} if y is None else {"y": y[rows]}
        state = start(points[rows], first, condition)
        carried = None if growth is None else Displacement(rates, state, first, condition)
        motion = follow(rates, state, first, second, condition, tol, carried=carried)
        if carried is not None:
            growth.append((carried.growth, motion.error))
        parts.append(finish(motion, second, condition))
    return namespace(points).concat(parts, axis=0)


def _rates(model, far_field):
    def rates(z, level, condition):
        x = far_field.from_latent(z, level)
        shift = far_field.denoise(x, level) - model.denoise(x, level, **condition)
        return far_field.to_latent(x + shift, level) - z

    return rates


class Beyond(NamedTuple):
    """The way beyond the last level, what it may be wrong by, and by how much its rate falls.

    ``falls`` is one where the rate falls with the level or faster, and zero where it does not fall.
    """

    way: Any
    doubt: Any
    falls: Any


class WayBeyond:
    """What is left of the way beyond the last level.

    Three powers are read off three rates where the way by two of them is nearly the same: of an
    exact denoiser whose mean is not that of the far field. If it is, the third power is alone.
    The rates of a network are of its errors more than of its law, and their differences larger.

    Parameters
    ----------
    rates : callable
        As in :func:`follow`.
    model : BaseScoreModel
        That is asked at the levels it knows.
    far_field : GaussianModel
    sigma_max : float
        The last level, or the lowest of several.
    size : callable, optional
        As in :func:`follow`.
    """

    def __init__(
        self,
        rates: Callable,
        model: Any,
        far_field: Any,
        sigma_max: float,
        size: Callable | None = None,
    ):
        self.rates, self.size = rates, size or _norm
        origin = np.zeros((1, model.n_features))
        width = float(far_field.denoise_and_divergence(origin, float(sigma_max))[1][0])
        known = sigma_max / BELOW ** (len(TAIL) - 1) >= model.sigma_range[0]
        self.is_far = known and width <= REACHED

    def __call__(self, state: Any, rate: Any, level: Any, more: dict) -> Beyond:
        """The way from ``state`` and its rate at the last level."""
        if not self.is_far:
            return Beyond(THIRD_POWER * rate, NEAR_ERROR * rate, 0 * rate[:, :1])
        rates = [rate, *(self.rates(state, level / BELOW**k, more) for k in (1, 2))]
        way = _combined(TAIL, rates)
        doubt = way - _combined(ROUGH_TAIL, rates)
        # at one level alone the powers may cancel
        sizes = [self.size(one, state) for one in rates]
        rough = self.size(doubt, state) / (SMOOTH * sum(sizes) / len(rates) + TINY)
        smooth = 1 / (1 + rough[:, None] ** 4)
        # over a factor of two the first power doubles, and what has none stays
        falls = namespace(rate).clip(sizes[-1] / (sizes[0] + TINY) - 1, 0.0, 1.0)
        return Beyond(
            smooth * way + (1 - smooth) * THIRD_POWER * rate,
            smooth * doubt + (1 - smooth) * THIRD_ERROR * rate,
            falls[:, None],
        )


def _combined(weights, rates):
    return sum(float(w) * rate for w, rate in zip(weights, rates, strict=False))


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
    carried: Displacement | None = None,
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
    carried : Displacement, optional
        That is carried along.

    Returns
    -------
    Motion
    """
    u, end = _log(first), _log(last)
    n_steps = max(int(np.ceil(np.max(np.abs(end - u), initial=0.0) / STEP)), 1)
    step = _Step(rates, size or _norm, tol, carried)
    index = None if carried is None else np.arange(len(state))
    rate = rates(state, _level(u), more)
    h, error = (end - u) / n_steps, 0.0
    for k in range(n_steps):
        span = u + k * h, (u + (k + 1) * h if k + 1 < n_steps else end)
        state, rate, made = step(state, rate, *span, more, HALVINGS, index)
        error = error + made
    return Motion(state, rate, error)


class _Step:
    """A step of the embedded pair, halved for the rows that need it."""

    def __init__(self, rates, size, tol, carried=None):
        self.rates, self.size, self.tol, self.carried = rates, size, tol, carried

    def __call__(self, state, rate, start, end, more, halvings, index=None) -> Motion:
        h = end - start
        span = h if isinstance(h, float) else like(h, state)

        def rate_at(point, share):
            return self.rates(point, _level(end if share == 1 else start + share * h), more)

        after, its_rate, difference = dormand_prince(rate_at, state, rate, span)
        error = self.size(difference, after)
        after = Motion(after, its_rate, error)

        rough = error > self.tol
        if not halvings:
            rough = rough & False
        if index is not None:
            self._carry(~rough, index, after, end, h, more)
        if not bool(namespace(rough).any(rough)):
            return after
        middle = (pick(start, rough) + pick(end, rough)) / 2
        inner = {name: values[rough] for name, values in more.items()}
        part = state[rough], rate[rough], pick(start, rough), middle
        rows = None if index is None else index[rough]
        half = self(*part, inner, halvings - 1, rows)
        rest = self(half.state, half.rate, middle, pick(end, rough), inner, halvings - 1, rows)
        after.state[rough], after.rate[rough] = rest.state, rest.rate
        after.error[rough] = half.error + rest.error
        return after

    def _carry(self, done, index, after, end, h, more):
        if done.any():
            inner = {name: values[done] for name, values in more.items()}
            self.carried(
                index[done],
                after.state[done],
                after.rate[done],
                _level(pick(end, done)),
                pick(h, done),
                inner,
            )


class Displacement:
    """A small displacement of every row, carried along its path.

    Parameters
    ----------
    rates, state, level, more
        As in :func:`follow`: where the path begins.

    Attributes
    ----------
    growth : ndarray of shape (n,)
        Logarithm of the largest growth from any point of the path to a later one.
    """

    def __init__(self, rates: Callable, state: np.ndarray, level: Any, more: dict):
        self.rates = rates
        self.direction = _unit(normal_by_row(state, 1)[0])
        self.slope = self._slope(self.direction, state, rates(state, level, more), level, more)
        self.log, self.least, self.growth = np.zeros((3, len(state)))

    def __call__(self, index, state, rate, level, h, more):
        """Go with some rows to the end of a step."""
        old, slope = self.direction[index], self.slope[index]
        new = _unit(old + h * slope)
        its_slope = self._slope(new, state, rate, level, more)
        # exact where the direction stays and its rate of growth changes evenly
        rise = (old * slope).sum(axis=1) + (new * its_slope).sum(axis=1)
        self.log[index] += np.ravel(h) / 2 * rise
        self.least[index] = np.minimum(self.least[index], self.log[index])
        self.growth[index] = np.maximum(self.growth[index], self.log[index] - self.least[index])
        self.direction[index], self.slope[index] = new, its_slope

    def _slope(self, direction, state, rate, level, more):
        return (self.rates(state + DISPLACED * direction, level, more) - rate) / DISPLACED


def _unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)


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


def as_ends(level: Any, x: Any, name: str):
    """Levels at which paths of points begin or end, on the host: a float, or one per row."""
    level = to_numpy(level) if is_torch(level) else level
    as_levels(level, x, name, allow_zero=False)
    return np.asarray(level, dtype=np.float64) if np.ndim(level) else float(level)


def chunks(x: Any, more: int):
    """Slices of rows whose stages, ``d + more`` numbers each, fit the working memory."""
    n, d = x.shape
    # seven slopes and some sums; the halves of all depths hold rows that get fewer and fewer
    return gen_batches(max(n, 1), rows_in_memory(32 * (d + more)))
