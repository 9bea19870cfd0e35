r"""A normal law that is cut off on both sides: mass, mean and variance to nearly full precision.

In units of the standard deviation, let :math:`t \ge 0` be the distance from the end that is nearest
to the mean, which lies :math:`a` beyond that end (inside the interval for negative ``a``), and
``L`` the length of the interval:

.. math:: p(t) \propto e^{-at - t^2/2}, \quad 0 \le t \le L, \qquad
          \text{mass} = \varphi(a) \int_0^L e^{-at - t^2/2}\, dt .

Inside a long interval the moments are those of the two tails :math:`Q(a),\ Q(a+L)` that are cut
off; else differences of tails cancel, and they are Gauss-Legendre sums as far as the exponent is
above -36.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special

from skdiffusion.utils.arrays import is_torch, like, namespace

__all__ = ["truncated_moments"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
LEAST = 36.0
"""Minus the exponent from which on the rest of a law is less than rounding."""
LONG = 2.0
"""Length from which on the tails of an interval are apart."""
FAR = 40.0
"""Distance of an end from which on nothing is cut off: a tail is less than the smallest number."""


def truncated_moments(near: Any, length: Any) -> tuple[Any, Any, Any]:
    """Log-mass of the interval, and mean and variance of the distance from its nearest end.

    Parameters
    ----------
    near : array
        How far the mean is beyond the end that is nearest to it, at least ``-length / 2``.
    length : array
        Of the interval; may be infinite.

    Returns
    -------
    log_mass, mean, variance : arrays like ``near``

    Examples
    --------
    >>> log_mass, mean, variance = truncated_moments(np.array([0.0]), np.array([np.inf]))
    >>> mean.round(6), variance.round(6)  # of a half normal: sqrt(2 / pi), 1 - 2 / pi
    (array([0.797885]), array([0.36338]))
    """
    xp = namespace(near)
    by_sums = (near > 0) | (length <= LONG)
    # each where it is accurate, and in between somewhere where it is finite
    sums = _by_sums(xp.where(by_sums, near, 0 * near), length)
    tails = _by_tails(xp.where(by_sums, 0 * near - 1, near), xp.where(by_sums, LONG, length))
    return tuple(xp.where(by_sums, one, other) for one, other in zip(sums, tails, strict=True))


def _by_sums(near, length):
    xp = namespace(near)
    outside = xp.maximum(near, 0 * near)
    # where a t + t^2/2 = LEAST, or the other end
    reach = 2 * LEAST / (outside + xp.sqrt(outside**2 + 2 * LEAST))
    reach = xp.minimum(reach, length)
    t = reach[..., None] * like((NODES + 1) / 2, near)
    shares = like(WEIGHTS / 2, near) * xp.exp(-(near[..., None] + 0.5 * t) * t)
    total = xp.sum(shares, axis=-1)
    log_mass = xp.log(total * reach) - 0.5 * near**2 - HALF_LOG_2PI
    shares = shares / total[..., None]
    mean = xp.sum(shares * t, axis=-1)
    return log_mass, mean, xp.sum(shares * (t - mean[..., None]) ** 2, axis=-1)


def _by_tails(near, length):
    xp = namespace(near)
    # ends so far away that nothing is cut off there
    a = xp.maximum(near, 0 * near - FAR)
    b = xp.minimum(near + length, 0 * near + FAR)
    log_near, log_far = _log_cdf(-a), _log_cdf(-b)
    log_mass = log_near + xp.log1p(-xp.exp(log_far - log_near))
    hazard_near = xp.exp(-0.5 * a**2 - HALF_LOG_2PI - log_mass)
    hazard_far = xp.exp(-0.5 * b**2 - HALF_LOG_2PI - log_mass)
    pull = hazard_far - hazard_near
    return log_mass, -near - pull, 1 + a * hazard_near - b * hazard_far - pull**2


def _log_cdf(x):
    if is_torch(x):
        import torch

        return torch.special.log_ndtr(x)
    return scipy.special.log_ndtr(x)
