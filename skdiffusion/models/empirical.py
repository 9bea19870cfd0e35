r"""The empirical score model: the score of the data themselves, blurred.

For points :math:`y_i` with weights :math:`w_i` the noised law is the kernel density
:math:`p_\sigma = \sum_i w_i N(y_i, \sigma^2 I)`, and everything is a moment of one posterior,

.. math::
    \pi_i(x) \propto w_i\, e^{-|x-y_i|^2/2\sigma^2}, \quad
    D = \sum_i \pi_i y_i, \quad
    C = \sum_i \pi_i (y_i - D)(y_i - D)^\top, \quad
    \frac{\partial D}{\partial x} = \frac{C}{\sigma^2}, \quad
    \nabla^2 \log p_\sigma = \frac{C}{\sigma^4} - \frac{I}{\sigma^2} .

It is the score that denoising score matching learns when nothing stops it, so its samples
are the training points. Leaving a point's own term out of the sum (``exclude``) turns the
training error into an estimate of the held-out one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skdiffusion.models._kernels import KernelSums
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.utils.arrays import like, namespace, to_numpy
from skdiffusion.utils.validation import check_number

__all__ = ["EmpiricalModel"]

LOG_2PI = math.log(2 * math.pi)


class EmpiricalModel(BaseScoreModel):
    r"""Score model of a weighted set of points.

    Parameters
    ----------
    points : array-like of shape (n_points, d)
        Points :math:`y_i`.
    weights : array-like of shape (n_points,), optional
        Non-negative weights, normalised to sum to one; equal by default. A weight of
        two equals a repeated point, a weight of zero its absence.
    sigma_min : float
        Smallest noise level at which the model may be asked. Points that stand for a
        curve or a surface describe it only at levels well above their spacing.

    Attributes
    ----------
    points : ndarray of shape (n_points, d)
    weights : ndarray of shape (n_points,)
        Normalised weights.

    Raises
    ------
    ValueError
        If the points are not a finite two-dimensional array, or the weights are negative,
        not finite, all zero or of the wrong length.

    References
    ----------
    B. Wang and J. J. Vastola, "The Unreasonable Effectiveness of Gaussian Score
    Approximation for Diffusion Models and its Applications", TMLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> model = EmpiricalModel([[-1.0], [1.0]])
    >>> model.denoise(np.array([[0.5]]), 0.8).round(6)  # tanh(0.5 / 0.64)
    array([[0.653424]])
    >>> model.denoise(np.array([[-1.0]]), 0.1, exclude=[0])  # the other point
    array([[1.]])
    """

    has_log_prob = True
    has_jacobian = True
    has_sample = True
    is_conservative = True

    def __init__(self, points: Any, weights: Any = None, sigma_min: float = 0.0):
        points = np.array(to_numpy(points), dtype=np.float64)
        if points.ndim != 2 or not points.size or not np.isfinite(points).all():
            raise ValueError(
                "points must be a finite array of shape (n_points, d), at least one point and "
                f"one column; got shape {points.shape}."
            )
        n = len(points)
        weights = np.ones(n) if weights is None else np.array(to_numpy(weights), dtype=np.float64)
        if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(
                f"weights must hold one finite non-negative number per point ({n}); "
                f"got shape {weights.shape}."
            )
        if not weights.any():
            raise ValueError("weights must not all be zero.")
        weights = weights / weights.max()  # no overflow in the sum
        weights /= weights.sum()
        for array in (points, weights):
            array.setflags(write=False)
        self.points, self.weights = points, weights
        self.sigma_range = (check_number(sigma_min, "sigma_min", least=0), math.inf)
        self.n_features = points.shape[1]
        self._sums = KernelSums(points, weights)

    # ------------------------------------------------------------------ leave-one-out

    def score(self, x: Any, sigma: Any, *, y: Any = None, exclude: Any = None):
        r"""Stein score :math:`\nabla_x \log p_\sigma(x)`.

        Parameters
        ----------
        x : array of shape (n, d)
        sigma : float or array of shape (n,)
            Noise level, above zero.
        y : None
            The model is unconditional.
        exclude : array of int of shape (n,), optional
            Index of the point that each row does not see, -1 for none: the score of the
            law of the other points.

        Returns
        -------
        array of shape (n, d)
            Like ``x``.
        """
        x, sigma, _ = self._prepare(x, sigma, y)
        return self._score(x, sigma, exclude=self._check_exclude(exclude, x))

    def denoise(self, x: Any, sigma: Any, *, y: Any = None, exclude: Any = None):
        r"""Denoiser :math:`D(x, \sigma) = E[x_0 \mid x]`; arguments as in :meth:`score`."""
        x, sigma, _ = self._prepare(x, sigma, y)
        return self._denoise(x, sigma, exclude=self._check_exclude(exclude, x))

    def log_prob(self, x: Any, sigma: Any = 0.0, *, y: Any = None, exclude: Any = None):
        r"""Exact :math:`\log p_\sigma(x)` in nats; arguments as in :meth:`score`.

        Returns
        -------
        array of shape (n,)
        """
        x, sigma, _ = self._prepare(x, sigma, y)
        return self._log_prob(x, sigma, exclude=self._check_exclude(exclude, x))

    def _check_exclude(self, exclude, x):
        if exclude is None:
            return None
        exclude = np.asarray(to_numpy(exclude))
        n = len(self.points)
        valid = exclude.dtype.kind in "iu" and exclude.shape == (x.shape[0],)
        if not valid or (exclude < -1).any() or (exclude >= n).any():
            raise ValueError(
                f"exclude must hold one index of a point per row, from 0 to {n - 1} or -1 for "
                f"none, shape ({x.shape[0]},)."
            )
        if (self.weights[exclude[exclude >= 0]] == 1).any():
            raise ValueError("exclude must leave at least one point with a positive weight.")
        return exclude.astype(np.intp)

    # ------------------------------------------------------------------ the field

    def _denoise(self, x, sigma, exclude=None):
        return self._sums.mean(x, sigma, exclude)

    def _score(self, x, sigma, exclude=None):
        return self._sums.shift(x, sigma, exclude) / sigma**2

    def _log_prob(self, x, sigma, exclude=None):
        log_sum = self._sums.log_sum(x, sigma, exclude)
        xp = namespace(log_sum)
        log_sigma = math.log(sigma) if isinstance(sigma, float) else xp.log(sigma)
        log_sigma = log_sigma[..., 0] if np.ndim(log_sigma) else log_sigma
        result = log_sum - self.n_features * (0.5 * LOG_2PI + log_sigma)
        if exclude is None:
            return result
        kept = np.where(exclude < 0, 1.0, 1.0 - self.weights[exclude])
        return result - like(np.log(kept), x)

    def _denoise_jacobian(self, x, sigma, exclude=None):
        variance = sigma[..., None] ** 2 if np.ndim(sigma) else sigma**2
        return self._sums.covariance(x, sigma, exclude) / variance

    def _denoise_jvp(self, x, sigma, v, exclude=None):
        return self._sums.covariance_product(x, sigma, v, exclude) / sigma**2

    def _score_jvp(self, x, sigma, v, exclude=None):
        return (self._denoise_jvp(x, sigma, v, exclude) - v) / sigma**2

    def _draw(self, n_samples, rng):
        return self.points[rng.choice(len(self.points), size=n_samples, p=self.weights)]
