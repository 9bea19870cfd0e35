r"""The uniform law on an interval or a box: a density with edges.

Per column, with :math:`a = (x - \mathrm{low})/\sigma`, :math:`b = (x - \mathrm{high})/\sigma` and
:math:`\Phi, \varphi` the standard normal distribution and density,

.. math::
    p_\sigma = \frac{\Phi(a) - \Phi(b)}{\mathrm{high} - \mathrm{low}}, \qquad
    s = \frac{\varphi(a) - \varphi(b)}{\sigma\,[\Phi(a) - \Phi(b)]}, \qquad
    s' = -\frac{a\varphi(a) - b\varphi(b)}{\sigma^2 [\Phi(a) - \Phi(b)]} - s^2 .

Given ``x`` the clean value is normal about ``x`` and cut off at both ends: mean and variance of
that (``_truncation``) keep their digits however far a point is from the interval, and however wide
the noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models._truncation import truncated_moments
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.utils.arrays import Parameters, namespace

__all__ = ["UniformModel"]


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
        self._seen = Parameters(centre=(low + high) / 2, half=(high - low) / 2)

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
        near, length = (sign * offset - seen.half) / sigma, 2 * seen.half / sigma
        log_mass, inside, variance = truncated_moments(near, length + 0 * near)
        mean = seen.centre + sign * (seen.half - sigma * inside)
        return log_mass - xp.log(2 * seen.half), mean, sigma**2 * variance

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
