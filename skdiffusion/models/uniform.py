r"""The uniform law on an interval or a box: a density with edges.

Per column, with :math:`a = (x - \mathrm{low})/\sigma`, :math:`b = (x - \mathrm{high})/\sigma` and
:math:`\Phi, \varphi` the standard normal distribution and density,

.. math::
    p_\sigma = \frac{\Phi(a) - \Phi(b)}{\mathrm{high} - \mathrm{low}}, \qquad
    s = \frac{\varphi(a) - \varphi(b)}{\sigma\,[\Phi(a) - \Phi(b)]}, \qquad
    s' = -\frac{a\varphi(a) - b\varphi(b)}{\sigma^2 [\Phi(a) - \Phi(b)]} - s^2 .

By symmetry only points above the middle are computed. Where the noise is wider than the interval,
and for points outside it, the differences cancel: there, with :math:`t \ge 0` the distance of
:math:`x_0` from the edge nearest to ``x``, in units of the noise, and ``a`` that of ``x``, mean and
variance are Gauss-Legendre sums of

.. math:: p(t \mid x) \propto e^{-at - t^2/2}, \qquad
          p_\sigma = \frac{\varphi(a)}{\mathrm{high} - \mathrm{low}} \int e^{-at - t^2/2}\, dt,

as far as the exponent is above -36, so that they keep their relative accuracy however far out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.utils.arrays import Parameters, is_torch, namespace

__all__ = ["UniformModel"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
LEAST = 36.0
"""Minus the exponent from which on the rest of a posterior is less than rounding."""


class UniformModel(BaseScoreModel):
    """Score model of independent uniform columns.

    The noised law is defined at levels above zero; ``sample`` draws at zero too.

    Parameters
    ----------
    low, high : array-like of shape (d,)
        Ends of each column's interval.

    Examples
    --------
    >>> import numpy as np
    >>> model = UniformModel([0.0], [2.0])
    >>> x = np.array([[1.0], [5.0]])
    >>> model.denoise(x, 0.01).round(4)  # inside stays, outside falls on the edge
    array([[1.],
           [2.]])
    """

    has_log_prob = True
    has_jacobian = True
    has_sample = True
    is_conservative = True

    def __init__(self, low: Any, high: Any):
        low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        ordered = low.shape == high.shape and low.ndim == 1 and low.size and (low < high).all()
        if not (ordered and np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(
                "low and high must be finite vectors of one shape (d,), low below high; "
                f"got {low.tolist()!r} and {high.tolist()!r}."
            )
        self.n_features = len(low)
        self._seen = Parameters(
            centre=(low + high) / 2,
            half=(high - low) / 2,
            nodes=(NODES + 1) / 2,
            weights=WEIGHTS / 2,
        )

    @property
    def low(self) -> np.ndarray:
        """Lower ends, shape ``(d,)``."""
        return self._seen.centre - self._seen.half

    @property
    def high(self) -> np.ndarray:
        """Upper ends, shape ``(d,)``."""
        return self._seen.centre + self._seen.half

    def _columns(self, x, sigma):
        """Per entry: log-density, posterior mean and posterior variance, from the centre."""
        xp, seen = namespace(x), self._seen.like(x)
        offset = x - seen.centre
        # the mirror image above the middle; its derivative there is one, as it should be
        sign = xp.where(offset < 0, x * 0 - 1, x * 0 + 1)
        distance = sign * offset
        wide = (sigma >= seen.half) | (distance > seen.half)
        sums = _by_quadrature(xp.where(wide, distance, 0 * distance + seen.half), sigma, seen)
        tails = _by_tails(xp.where(wide, 0 * distance, distance), sigma, seen.half)
        log_prob, mean, variance = (xp.where(wide, a, b) for a, b in zip(sums, tails, strict=True))
        return log_prob, seen.centre + sign * mean, variance

    def _denoise(self, x, sigma):
        return self._columns(x, sigma)[1]

    def _log_prob(self, x, sigma):
        return namespace(x).sum(self._columns(x, sigma)[0], axis=-1)

    def _denoise_jacobian(self, x, sigma):
        return (self._columns(x, sigma)[2] / sigma**2)[..., None] * self._identity(x)

    def _denoise_jvp(self, x, sigma, v):
        return self._columns(x, sigma)[2] / sigma**2 * v

    def _score_jvp(self, x, sigma, v):
        return (self._denoise_jvp(x, sigma, v) - v) / sigma**2

    def _denoise_divergence(self, x, sigma):
        return namespace(x).sum(self._columns(x, sigma)[2] / sigma**2, axis=-1)

    def _score_divergence(self, x, sigma):
        return namespace(x).sum((self._columns(x, sigma)[2] / sigma**2 - 1) / sigma**2, axis=-1)

    def _draw(self, n_samples, rng):
        return rng.uniform(self.low, self.high, (n_samples, self.n_features))


def _log_cdf(x):
    if is_torch(x):
        import torch

        return torch.special.log_ndtr(x)
    return scipy.special.log_ndtr(x)


def _by_tails(distance, sigma, half):
    """By upper tails ``Q(near) - Q(far)`` of the two edges; accurate inside if ``sigma < half``."""
    xp = namespace(distance)
    near, far = (distance - half) / sigma, (distance + half) / sigma
    log_near, log_far = _log_cdf(-near), _log_cdf(-far)
    # at most 0 + log(1 - tiny): the cap only rounds, where the interval is lost in the noise
    gap = xp.minimum(log_far - log_near, log_near * 0 - 1e-30)
    log_mass = log_near + xp.log(-xp.expm1(gap))
    hazard_near = xp.exp(-0.5 * near**2 - HALF_LOG_2PI - log_mass)
    hazard_far = xp.exp(-0.5 * far**2 - HALF_LOG_2PI - log_mass)
    pull = hazard_far - hazard_near  # sigma times the score
    slope = near * hazard_near - far * hazard_far - pull**2  # sigma^2 times its derivative
    log_prob = log_mass - xp.log(2 * half)
    return log_prob, distance + sigma * pull, sigma**2 * (1 + slope)


def _by_quadrature(distance, sigma, seen):
    """By sums over nodes from the near edge inwards; exact for an integrand this smooth."""
    xp = namespace(distance)
    near = (distance - seen.half) / sigma
    outside = xp.maximum(near, 0 * near)
    # where a t + t^2/2 = LEAST, or the other edge
    reach = 2 * LEAST / (outside + xp.sqrt(outside**2 + 2 * LEAST))
    reach = xp.minimum(reach, 2 * seen.half / sigma)
    t = reach[..., None] * seen.nodes
    shares = seen.weights * xp.exp(-(near[..., None] + 0.5 * t) * t)
    total = xp.sum(shares, axis=-1)
    log_prob = xp.log(total * reach / (2 * seen.half)) - 0.5 * near**2 - HALF_LOG_2PI
    shares = shares / total[..., None]
    mean = xp.sum(shares * t, axis=-1)
    variance = xp.sum(shares * (t - mean[..., None]) ** 2, axis=-1)
    return log_prob, seen.half - sigma * mean, sigma**2 * variance
