r"""The uniform law on a sphere: the exact score of a curved manifold.

For the uniform law on :math:`\{|x_0| = R\} \subset \mathbb{R}^m` (two points for
:math:`m = 1`, a ring for :math:`m = 2`), with :math:`r = |x|,\ n = x/r` and
:math:`z = rR/\sigma^2`, the posterior of :math:`x_0` is von Mises-Fisher and

.. math::
    D = R\,A(z)\,n, \qquad A(z) = \frac{I_{m/2}(z)}{I_{m/2-1}(z)}, \qquad
    \log p_\sigma = -\tfrac m2\log 2\pi\sigma^2 - \frac{(r-R)^2}{2\sigma^2}
                    + \int_0^z A - z,

    \frac{\partial D}{\partial x} = \frac{R^2}{\sigma^2}
        \Big[A'(z)\, n n^\top + \frac{A(z)}{z}\,(I - n n^\top)\Big].

The density has its ridge at the radius :math:`r^* = R\,A(r^* R/\sigma^2)`, inside the sphere
by about :math:`(m-1)\sigma^2/2R`, and none if :math:`\sigma^2 \ge R^2/m`.
"""

from __future__ import annotations

import math

import numpy as np

from skdiffusion.models._bessel import bessel_ratio
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.utils.arrays import namespace
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["SphereModel"]

LOG_2PI = math.log(2 * math.pi)


class SphereModel(BaseScoreModel):
    r"""Score model of the uniform law on a sphere around the origin.

    Parameters
    ----------
    n_features : int
        Dimension ``m`` of the space around it; the sphere has dimension ``m - 1``.
    radius : float

    References
    ----------
    K. V. Mardia and P. E. Jupp, *Directional Statistics*, Wiley 2000, chapter 9.

    Examples
    --------
    >>> import numpy as np
    >>> ring = SphereModel(2)
    >>> x = np.array([[0.979360888562, 0.0]])  # the density's ridge at level 0.2
    >>> bool(np.abs(ring.score(x, 0.2)).max() < 1e-9)
    True
    >>> ring.posterior_covariance(x, 0.2).round(4)  # along the ring, not across
    array([[[0.0009, 0.    ],
            [0.    , 0.04  ]]])
    """

    has_log_prob = True
    has_jacobian = True
    has_sample = True
    is_conservative = True

    def __init__(self, n_features: int, radius: float = 1.0):
        self.n_features = check_count(n_features, "n_features")
        self.radius = check_number(radius, "radius", above=0)

    def ridge_radius(self, sigma: float) -> float:
        r"""Radius of the ridge of :math:`p_\sigma`; zero if its only mode is the centre.

        Parameters
        ----------
        sigma : float
            Noise level above zero.

        Returns
        -------
        float
            The positive root of :math:`r = R A(rR/\sigma^2)`, if there is one.

        Examples
        --------
        >>> round(SphereModel(3).ridge_radius(0.5), 12)
        0.599839320129
        >>> SphereModel(3).ridge_radius(0.6)
        0.0
        """
        from scipy.optimize import brentq

        sigma = check_number(sigma, "sigma", above=0)
        if sigma**2 * self.n_features >= self.radius**2:
            return 0.0

        def pull(r):  # D/r - 1: without the root at the centre
            return float(self._quotient(np.asarray(r), sigma)) - 1

        # |D| < R, and A(z)/z falls from 1/m, so the root is bracketed
        low = self.radius * 1e-9
        if pull(low) <= 0:
            return 0.0
        return float(brentq(pull, low, self.radius, xtol=1e-300, rtol=1e-15))

    def _radius_of(self, x):
        """Norms ``(n, 1)``; the smallest number inside keeps their gradient finite at zero."""
        xp = namespace(x)
        return xp.sqrt(xp.sum(x**2, axis=-1, keepdims=True) + float(xp.finfo(x.dtype).tiny))

    def _bessel(self, r, sigma, *want):
        return bessel_ratio(self.n_features / 2 - 1, r * (self.radius / sigma**2), want)

    def _quotient(self, r, sigma):
        """The factor ``|D|/r``."""
        return (self.radius / sigma) ** 2 * self._bessel(r, sigma, "quotient").quotient

    def _gains(self, r, sigma):
        """Eigenvalues of the denoiser's Jacobian along the sphere and across it."""
        ratio = self._bessel(r, sigma, "quotient", "slope")
        scale = (self.radius / sigma) ** 2
        return scale * ratio.quotient, scale * ratio.slope

    def _denoise(self, x, sigma):
        return self._quotient(self._radius_of(x), sigma) * x

    def _log_prob(self, x, sigma):
        r = self._radius_of(x)
        log_mean = self._bessel(r, sigma, "log_mean_exp").log_mean_exp
        log_mean = log_mean - 0.5 * ((r - self.radius) / sigma) ** 2
        log = math.log if isinstance(sigma, float) else namespace(x).log
        return (log_mean - self.n_features * (0.5 * LOG_2PI + log(sigma)))[..., 0]

    def _denoise_jacobian(self, x, sigma):
        r = self._radius_of(x)
        tangential, radial = self._gains(r, sigma)
        n = x / r
        outer = n[..., :, None] * n[..., None, :]
        tangential, radial = tangential[..., None], radial[..., None]
        return tangential * self._identity(x) + (radial - tangential) * outer

    def _denoise_jvp(self, x, sigma, v):
        r = self._radius_of(x)
        tangential, radial = self._gains(r, sigma)
        n = x / r
        along = namespace(x).sum(n * v, axis=-1, keepdims=True)
        return tangential * v + (radial - tangential) * along * n

    def _score_jvp(self, x, sigma, v):
        return (self._denoise_jvp(x, sigma, v) - v) / sigma**2

    def _denoise_divergence(self, x, sigma):
        tangential, radial = self._gains(self._radius_of(x), sigma)
        return ((self.n_features - 1) * tangential + radial)[..., 0]

    def _score_divergence(self, x, sigma):
        tangential, radial = self._gains(self._radius_of(x), sigma)
        excess = (self.n_features - 1) * (tangential - 1) + (radial - 1)
        return (excess / sigma**2)[..., 0]

    def _draw(self, n_samples, rng):
        x = rng.standard_normal((n_samples, self.n_features))
        return self.radius * x / np.linalg.norm(x, axis=1, keepdims=True)
