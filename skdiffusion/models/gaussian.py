r"""The Gaussian score model: every diffusion quantity in closed form.

For :math:`p_0 = N(\mu, C)` the noised law is :math:`p_\sigma = N(\mu, C + \sigma^2 I)` and,
with :math:`r = x - \mu`, all that diffusion asks for is a function of :math:`C`
(Wang & Vastola 2024, section 2):

.. math::
    D = \mu + \tfrac{C}{C+\sigma^2}\, r, \quad
    \nabla\log p_\sigma = -(C+\sigma^2)^{-1} r, \quad
    \partial D/\partial x = \tfrac{C}{C+\sigma^2}, \quad
    \Phi_{a\to b}(x) = \mu + \big(\tfrac{C+b^2}{C+a^2}\big)^{1/2} r .

:math:`\Phi` is the exact probability-flow map; it is a semigroup and carries
:math:`p_a` to :math:`p_b`. As :math:`b \to \infty`, :math:`\Phi/b` tends to the latent code
:math:`(C+a^2)^{-1/2} r`, standard normal. A feature of variance :math:`\lambda` emerges
along the flow as :math:`\xi/\sqrt\lambda = (1 + \sigma^2/\lambda)^{-1/2}`, a sigmoid in
:math:`\log \sigma`: large variances first.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.covariance import SpectralCovariance
from skdiffusion.utils.arrays import Parameters, namespace, to_numpy

__all__ = ["GaussianModel", "log_normal_density"]

LOG_2PI = math.log(2 * math.pi)


class GaussianModel(BaseScoreModel):
    r"""Score model of a normal law, for any covariance including singular ones.

    Parameters
    ----------
    mean : array-like of shape (d,)
    covariance : float, array-like of shape (d,) or (d, d), or SpectralCovariance
        Variance of every column, the diagonal, the matrix, or its spectral form
        (low rank plus isotropic).

    Attributes
    ----------
    mean : ndarray of shape (d,)
    covariance : SpectralCovariance

    References
    ----------
    B. Wang and J. J. Vastola, "The Unreasonable Effectiveness of Gaussian Score
    Approximation for Diffusion Models and its Applications", TMLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> model = GaussianModel(mean=[0.0, 0.0], covariance=[4.0, 0.25])
    >>> x = np.array([[2.0, 1.0]])
    >>> model.score(x, sigma=1.0)
    array([[-0.4, -0.8]])
    >>> model.flow(model.flow(x, 1.0, 80.0), 80.0, 1.0).round(12)
    array([[2., 1.]])
    """

    has_log_prob = True
    has_jacobian = True
    has_sample = True
    has_flow = True
    is_conservative = True

    def __init__(self, mean: Any, covariance: Any):
        self._seen = Parameters(mean=mean)
        if self.mean.ndim != 1 or not self.mean.size or not np.isfinite(self.mean).all():
            raise ValueError(
                f"mean must be a finite vector of shape (d,); got shape {self.mean.shape}."
            )
        self.n_features = len(self.mean)
        self.covariance = SpectralCovariance.from_any(covariance, self.n_features)
        self.has_density = self.covariance.smallest > 0

    @property
    def mean(self) -> np.ndarray:
        """Mean, shape ``(d,)``."""
        return self._seen.mean

    def emergence_levels(self, *, fraction: float | None = None, rho: float = 7.0) -> np.ndarray:
        r"""Noise level at which each principal axis emerges along the reverse flow.

        Parameters
        ----------
        fraction : float in (0, 1), optional
            Level at which the denoised trajectory has reached this fraction of its final
            amplitude: :math:`\sigma = \sqrt{\lambda\,(\mathrm{fraction}^{-2} - 1)}`; one
            half gives :math:`\sqrt{3\lambda}`.
        rho : float
            Without ``fraction``: level at which the amplitude changes fastest as seen by a
            clock uniform in :math:`\sigma^{1/\rho}`,
            :math:`\sigma^2 = \lambda (2\rho - 1)/(\rho + 1)`. 1 is linear in the level, 7
            the EDM grid, ``inf`` logarithmic. A schedule's own time is ``time_of(level)``.

        Returns
        -------
        ndarray of shape (r,)
            One level per variance of ``covariance``.

        Raises
        ------
        ValueError
            If ``fraction`` is not strictly between 0 and 1 or ``rho`` is not above 1/2.
        """
        if fraction is not None:
            if not (isinstance(fraction, Real) and 0 < fraction < 1):
                raise ValueError(f"fraction must lie between 0 and 1; got {fraction!r}.")
            factor = fraction**-2 - 1
        else:
            if not (isinstance(rho, Real) and rho > 0.5):
                raise ValueError(f"rho must be a number above 1/2; got {rho!r}.")
            factor = 2.0 if math.isinf(rho) else (2 * rho - 1) / (rho + 1)
        return np.sqrt(factor * self.covariance.variances)

    def _centred(self, x):
        return x - self._seen.like(x).mean

    def _denoise(self, x, sigma):
        gain = _shrinkage(sigma)
        return self._seen.like(x).mean + self.covariance.apply(gain, self._centred(x))

    def _score(self, x, sigma):
        return -self.covariance.apply(_precision(sigma), self._centred(x))

    def _log_prob(self, x, sigma):
        return log_normal_density(self._centred(x), self.covariance, sigma)

    def _score_jacobian(self, x, sigma):
        return -self.covariance.matrices(_precision(sigma), x)

    def _denoise_jacobian(self, x, sigma):
        return self.covariance.matrices(_shrinkage(sigma), x)

    def _score_jvp(self, x, sigma, v):
        return -self.covariance.apply(_precision(sigma), v)

    def _denoise_jvp(self, x, sigma, v):
        return self.covariance.apply(_shrinkage(sigma), v)

    def _score_divergence(self, x, sigma):
        return -self.covariance.trace(_precision(sigma), x)

    def _denoise_divergence(self, x, sigma):
        return self.covariance.trace(_shrinkage(sigma), x)

    def _flow(self, x, sigma_from, sigma_to):
        def gain(variance):
            ratio = (variance + sigma_to**2) / (variance + sigma_from**2)
            return namespace(ratio).sqrt(ratio)

        return self._seen.like(x).mean + self.covariance.apply(gain, self._centred(x))

    def _to_latent(self, x, sigma):
        def gain(variance):
            return 1 / namespace(variance).sqrt(variance + sigma**2)

        return self.covariance.apply(gain, self._centred(x))

    def _from_latent(self, z, sigma):
        def gain(variance):
            return namespace(variance).sqrt(variance + sigma**2)

        return self._seen.like(z).mean + self.covariance.apply(gain, z)

    def _sample(self, n_samples, sigma, rng):
        # the code z is drawn, so that one seed gives one trajectory over all levels
        return to_numpy(self._from_latent(rng.standard_normal((n_samples, self.n_features)), sigma))


def log_normal_density(centred: Any, covariance: SpectralCovariance, sigma: Any):
    r"""Log-density of :math:`N(0, C + \sigma^2 I)` at each row, shape ``(n,)``."""

    def log_variance(variance):
        variance = variance + sigma**2
        return namespace(variance).log(variance)

    quadratic = covariance.quadratic(_precision(sigma), centred)
    log_det = covariance.trace(log_variance, centred)
    return -0.5 * (quadratic + log_det + covariance.n_features * LOG_2PI)


def _precision(sigma):
    return lambda variance: 1 / (variance + sigma**2)


def _shrinkage(sigma):
    return lambda variance: variance / (variance + sigma**2)
