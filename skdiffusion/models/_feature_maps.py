r"""Random features under Gaussian noise: their exact moments.

A feature is :math:`g(\theta)` of an angle :math:`\theta_j = w_j \cdot x + b_j`. Noise on ``x``
makes the angles jointly normal about their means :math:`\mu_j`, with covariance :math:`K`, and

**cosine**, :math:`g = \cos`, with :math:`C = \cos\mu,\ S = \sin\mu` (no noise is ever drawn):

.. math:: E g_j g_k = \tfrac12 e^{-(K_{jj} - 2 K_{jk} + K_{kk})/2} (C_j C_k + S_j S_k)
                    + \tfrac12 e^{-(K_{jj} + 2 K_{jk} + K_{kk})/2} (C_j C_k - S_j S_k);

**ReLU**, :math:`g = \max(\theta, 0)`, by Mehler's series in the correlation :math:`\rho` of two
angles, with :math:`a_m` the coefficients of ``g`` in normalised Hermite polynomials,

.. math:: E g_j g_k = \sum_m \rho_{jk}^m\, a_m(j)\, a_m(k), \qquad
          a_0 = \mu\Phi(z) + s\varphi(z), \quad a_1 = s\Phi(z), \quad
          a_m = \frac{(-1)^m s\, \mathrm{He}_{m-2}(z)\,\varphi(z)}{\sqrt{m!}},

:math:`s^2 = K_{jj},\ z = \mu/s`. Every term is a matrix product; the diagonal, where the series is
slowest, is known exactly. Both need of ``g`` only that by Stein's lemma
:math:`E[\varepsilon g_j] = \partial\theta_j/\partial\varepsilon\; E[g'_j]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

from skdiffusion.utils.arrays import namespace

__all__ = ["FEATURE_MAPS", "Cosine", "ReLU"]

N_TERMS = 48
"""Terms of Mehler's series: what is left is below 3e-4 of a ReLU's second moment."""


class Cosine:
    """Cosines of the angles: random Fourier features (Rahimi & Recht 2007)."""

    def phases(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Offsets of the angles."""
        return rng.uniform(0, 2 * np.pi, size)

    def value(self, angles: Any):
        """Features at the angles."""
        return namespace(angles).cos(angles)

    def slope(self, angles: Any):
        """Their derivatives."""
        return -namespace(angles).sin(angles)

    def means(self, means: np.ndarray, spread: np.ndarray):
        """Expected features and derivatives at angles of these means and deviations."""
        damping = np.exp(-0.5 * spread**2)
        return damping * np.cos(means), -damping * np.sin(means)

    def gram(self, means: np.ndarray, covariance: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sum over rows of ``w_i E[g_j g_k]``, shape (p, p).

        Parameters
        ----------
        means : ndarray of shape (n, p)
            Mean angles of each row.
        covariance : ndarray of shape (p, p)
            Of the angles, the same for all rows.
        weights : ndarray of shape (n,)
        """
        root = np.sqrt(weights)[:, None]
        cosines, sines = root * np.cos(means), root * np.sin(means)
        cosines, sines = cosines.T @ cosines, sines.T @ sines
        variances = covariance.diagonal()
        half = 0.5 * (variances[:, None] + variances)
        near = np.exp(np.minimum(covariance - half, 0.0))
        far = np.exp(np.minimum(-covariance - half, 0.0))
        return 0.5 * (near * (cosines + sines) + far * (cosines - sines))


class ReLU:
    """Rectified angles: the hidden layer of a two-layer network."""

    def phases(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Offsets of the angles."""
        return rng.standard_normal(size)

    def value(self, angles: Any):
        """Features at the angles."""
        return 0.5 * (angles + namespace(angles).abs(angles))

    def slope(self, angles: Any):
        """Their derivatives."""
        return 0.5 * (1 + namespace(angles).sign(angles))

    def means(self, means: np.ndarray, spread: np.ndarray):
        """Expected features and derivatives at angles of these means and deviations."""
        standard = means / spread
        inside = ndtr(standard)
        return means * inside + spread * _normal_density(standard), inside

    def gram(self, means: np.ndarray, covariance: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sum over rows of ``w_i E[g_j g_k]``, as for :class:`Cosine`."""
        spread = np.sqrt(covariance.diagonal())
        correlation = np.clip(covariance / np.outer(spread, spread), -1.0, 1.0)
        standard = means / spread
        density, inside = _normal_density(standard), ndtr(standard)
        root = np.sqrt(weights)[:, None]

        def term(coefficients):
            coefficients = root * coefficients
            return coefficients.T @ coefficients

        total = term(means * inside + spread * density) + correlation * term(spread * inside)
        # He_m(z) phi(z) / sqrt(m!) by its recurrence
        before, hermite = np.zeros_like(density), density
        power = correlation
        for m in range(2, N_TERMS):
            power = power * correlation
            total += power * term(spread / np.sqrt(m * (m - 1)) * hermite)
            step = standard * hermite - np.sqrt(m - 2) * before
            before, hermite = hermite, step / np.sqrt(m - 1)
        second = (means**2 + spread**2) * inside + means * spread * density
        np.fill_diagonal(total, weights @ second)
        return total


def _normal_density(z):
    return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


FEATURE_MAPS = {"cos": Cosine, "relu": ReLU}
