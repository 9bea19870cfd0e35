r"""The empirical score model: the score of the data themselves, blurred.

For points :math:`y_i` with weights :math:`w_i` and a kernel of covariance :math:`K` (zero for
bare points, the squared bandwidth for a kernel density), with :math:`T = K + \sigma^2`, the
noised law is :math:`p_\sigma = \sum_i w_i N(y_i, T)` and all else a moment of one posterior,

.. math::
    \pi_i(x) \propto w_i\, e^{-(x-y_i)^\top T^{-1} (x-y_i)/2}, \quad
    m = \sum_i \pi_i y_i, \quad C = \sum_i \pi_i (y_i - m)(y_i - m)^\top, \\
    \nabla\log p_\sigma = T^{-1}(m - x), \quad
    D = m + K T^{-1} (x - m), \quad
    \nabla^2 \log p_\sigma = T^{-1} C\, T^{-1} - T^{-1} .

Without a kernel it is the score that denoising score matching learns when nothing stops it:
its samples are the training points. Leaving a row's own point out of the sum (``exclude``)
turns the training error into an estimate of the held-out one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skdiffusion.models._kernels import KernelSums
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.covariance import SpectralCovariance
from skdiffusion.utils.arrays import Parameters, functions, like, namespace, to_numpy
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["BarycentricModel", "EmpiricalModel"]

LOG_2PI = math.log(2 * math.pi)
BLOCK = 4096
"""Rows up to which perturbations of a barycentric model are served together."""


class EmpiricalModel(BaseScoreModel):
    r"""Score model of a weighted set of points.

    Parameters
    ----------
    points : array-like of shape (n_points, d)
        Points :math:`y_i`.
    weights : array-like of shape (n_points,), optional
        Non-negative weights, normalised to sum to one; equal by default. A weight of
        two equals a repeated point, a weight of zero its absence.
    kernel : float, array-like of shape (d,) or (d, d), or SpectralCovariance, optional
        Covariance :math:`K` of the kernel around each point: one variance, the diagonal, or
        the matrix. None by default: the law has no density, levels must be above zero.
    sigma_min : float
        Smallest noise level at which the model may be asked. Points that stand for a
        curve or a surface describe it only at levels well above their spacing.

    Attributes
    ----------
    points : ndarray of shape (n_points, d)
    weights : ndarray of shape (n_points,)
        Normalised weights.
    kernel : SpectralCovariance or None

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

    def __init__(
        self, points: Any, weights: Any = None, *, kernel: Any = None, sigma_min: float = 0.0
    ):
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
        self.kernel = (
            None if kernel is None else SpectralCovariance.from_any(kernel, points.shape[1])
        )
        spread, axes = _spectrum(self.kernel)
        self.has_density = bool(np.min(spread) > 0)
        self._kernel = Parameters(spread=spread, axes=axes)
        self._sums = self._new_sums()

    def _new_sums(self):
        # in the axes of the kernel, where it is a product over coordinates
        axes, spread = self._kernel.axes, self._kernel.spread
        points = self.points if axes is None else self.points @ axes
        return KernelSums(points, self.weights, np.sqrt(spread) if np.min(spread) > 0 else 1.0)

    def __getstate__(self):
        # what can be computed anew is not stored
        return {key: value for key, value in self.__dict__.items() if key != "_sums"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        for array in (self.points, self.weights):
            array.setflags(write=False)
        self._sums = self._new_sums()

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

    def _variance(self, x, sigma):
        """Variance of kernel and noise together: a number, ``(n, 1)``, ``(d,)`` or ``(n, d)``."""
        spread = self._kernel.spread
        if not spread.ndim:
            return float(spread) + sigma**2
        return self._kernel.like(x).spread + sigma**2

    def _inward(self, x):
        axes = self._kernel.like(x).axes
        return x if axes is None else x @ axes

    def _outward(self, x):
        axes = self._kernel.like(x).axes
        return x if axes is None else x @ axes.T

    def _turn(self, matrices, x):
        axes = self._kernel.like(x).axes
        return matrices if axes is None else axes @ matrices @ axes.T

    def _denoise(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        mean, shift = self._sums.mean_and_shift(self._inward(x), variance, exclude)
        return self._denoised(mean, shift, variance, sigma)

    def _denoised(self, mean, shift, variance, sigma):
        if self.kernel is not None:
            mean = mean - (1 - sigma**2 / variance) * shift
        return self._outward(mean)

    def _score(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        _, shift = self._sums.mean_and_shift(self._inward(x), variance, exclude)
        return self._outward(shift / variance)

    def _log_prob(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        log_sum = self._sums.log_sum(self._inward(x), variance, exclude)
        log_det = functions(variance).log(variance)
        if np.ndim(log_det) and log_det.shape[-1] > 1:
            log_det = namespace(x).sum(log_det, axis=-1)
        else:
            log_det = self.n_features * (log_det[..., 0] if np.ndim(log_det) else log_det)
        result = log_sum - 0.5 * (self.n_features * LOG_2PI + log_det)
        if exclude is not None:
            kept = np.where(exclude < 0, 1.0, 1.0 - self.weights[exclude])
            result = result - like(np.log(kept), x)
        return like(result, x)

    def _score_jacobian(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        row, column = _sides(variance)
        covariance = self._sums.covariance(self._inward(x), variance, exclude)
        return self._turn((covariance / column - self._identity(x)) / row, x)

    def _denoise_jacobian(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        covariance = self._sums.covariance(self._inward(x), variance, exclude)
        return self._denoised_jacobian(x, covariance, variance, sigma)

    def _denoise_and_jacobian(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        sums = self._sums.mean_shift_covariance(self._inward(x), variance, exclude)
        mean, shift, covariance = sums
        denoised = self._denoised(mean, shift, variance, sigma)
        return denoised, self._denoised_jacobian(x, covariance, variance, sigma)

    def _denoised_jacobian(self, x, covariance, variance, sigma):
        row, column = _sides(variance)
        level = _sides(sigma)[0] ** 2
        inner = level / row * (covariance / column)
        if self.kernel is not None:
            inner = inner + (1 - level / row) * self._identity(x)
        return self._turn(inner, x)

    def _score_jvp(self, x, sigma, v, exclude=None):
        variance = self._variance(x, sigma)
        v = self._inward(v)
        product = self._sums.covariance_product(self._inward(x), variance, v / variance, exclude)
        return self._outward((product - v) / variance)

    def _denoise_jvp(self, x, sigma, v, exclude=None):
        variance = self._variance(x, sigma)
        v = self._inward(v)
        product = self._sums.covariance_product(self._inward(x), variance, v / variance, exclude)
        weight = sigma**2 / variance
        return self._outward(weight * product + (1 - weight) * v)

    def _score_divergence(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        *_, diagonal = self._sums.mean_shift_diagonal(self._inward(x), variance, exclude)
        return namespace(x).sum((diagonal / variance - 1) / variance, axis=-1)

    def _denoise_divergence(self, x, sigma, exclude=None):
        return self._denoise_and_divergence(x, sigma, exclude)[1]

    def _denoise_and_divergence(self, x, sigma, exclude=None):
        variance = self._variance(x, sigma)
        sums = self._sums.mean_shift_diagonal(self._inward(x), variance, exclude)
        mean, shift, diagonal = sums
        trace = namespace(x).sum((diagonal / variance - 1) * (sigma**2 / variance), axis=-1)
        return self._denoised(mean, shift, variance, sigma), self.n_features + trace

    def _draw(self, n_samples, rng):
        drawn = self.points[rng.choice(len(self.points), size=n_samples, p=self.weights)]
        if self.kernel is None:
            return drawn
        return drawn + self.kernel.apply(np.sqrt, rng.standard_normal(drawn.shape))


def _spectrum(kernel):
    """Variances of the kernel and its axes; a single variance if it is isotropic."""
    if kernel is None:
        return 0.0, None
    if kernel.smallest == kernel.largest:
        return kernel.largest, None
    if kernel.n_residual:
        kernel = SpectralCovariance.from_matrix(kernel.to_matrix())
    return kernel.variances, kernel.axes


def _sides(values):
    """``values`` per coordinate, shaped to scale the rows and the columns of Jacobians."""
    if not np.ndim(values):
        return values, values
    return values[..., :, None], values[..., None, :]


class BarycentricModel(BaseScoreModel):
    r"""A score averaged over perturbations of its input: closed-form and not memorising.

    .. math:: \bar s(x, \sigma) = \frac1M \sum_m \nabla\log p_\sigma(x + s_\sigma e_m),
              \qquad s_\sigma = s\,(c + \sigma),

    with fixed standard normal :math:`e_m` in opposite pairs. Towards level zero each
    perturbed input has its own nearest point, so that samples of an empirical model are
    barycentres of :math:`M` neighbours. :math:`s_\sigma` is a perturbation of standard
    deviation :math:`s` in the coordinates :math:`(1-t)\varepsilon + t x/c` of the paper. The
    average is a gradient, but the laws of the levels are not noised versions of one law:
    there is no ``log_prob``.

    Parameters
    ----------
    model : EmpiricalModel
        The model to average; any score model without labels will do.
    smoothing : float
        Standard deviation :math:`s` of the perturbations.
    scale : float
        Scale :math:`c` of the data.
    n_perturbations : int
        Number :math:`M`, even.
    random_state : None, int, Generator or RandomState
        Of the perturbations.

    References
    ----------
    C. Scarvelis, H. Sáez de Ocáriz Borde and J. Solomon, "Closed-Form Diffusion Models",
    TMLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> points = EmpiricalModel([[-1.0], [1.0]])
    >>> model = BarycentricModel(points, smoothing=0.5, n_perturbations=64, random_state=0)
    >>> x = np.array([[0.1]])
    >>> points.denoise(x, 0.05).round(2), model.denoise(x, 0.05).round(1)
    (array([[1.]]), array([[0.2]]))
    """

    def __init__(
        self,
        model: Any,
        smoothing: float,
        scale: float = 1.0,
        n_perturbations: int = 16,
        random_state: Any = None,
    ):
        self.model = model
        self.n_features = model.n_features
        self.sigma_range = model.sigma_range
        self.is_conservative = model.is_conservative
        self.is_differentiable = model.is_differentiable
        self.has_jacobian = model.has_jacobian
        self.noise_scale, self._keeps_library = model.noise_scale, model._keeps_library
        self.smoothing = check_number(smoothing, "smoothing", least=0)
        self.scale = check_number(scale, "scale", above=0)
        if check_count(n_perturbations, "n_perturbations", 2) % 2:
            raise ValueError(f"n_perturbations must be even; got {n_perturbations}.")
        half = as_generator(random_state).standard_normal((n_perturbations // 2, self.n_features))
        self._bank = Parameters(noise=np.concatenate([half, -half]))

    def denoise(self, x: Any, sigma: Any, *, y: Any = None, exclude: Any = None):
        """Denoiser; arguments as in :meth:`EmpiricalModel.score`."""
        x, sigma, _ = self._prepare(x, sigma, y)
        if exclude is None:
            return self._denoise(x, sigma)
        return self._denoise(x, sigma, exclude=self.model._check_exclude(exclude, x))

    def _mean(self, hook, x, sigma, v=None, exclude=None):
        n, d = x.shape
        tile = namespace(x).tile
        noise = self._bank.like(x).noise
        size = self.smoothing * (self.scale + sigma)
        # of few rows, many perturbations in one call
        together = min(max(BLOCK // max(n, 1), 1), len(noise))
        total = 0.0
        for start in range(0, len(noise), together):
            some = noise[start : start + together]
            m = len(some)
            moved = (x + size * some[:, None, :]).reshape(m * n, d)
            level = tile(sigma, (m, 1)) if np.ndim(sigma) else sigma
            more = () if v is None else (tile(v, (m, 1)),)
            condition = {} if exclude is None else {"exclude": np.tile(exclude, m)}
            found = hook(moved, level, *more, **condition)
            total = total + found.reshape(m, n, *found.shape[1:]).sum(0)
        return total / len(noise)

    def _score(self, x, sigma, **condition):
        return self._mean(self.model._score, x, sigma, **condition)

    def _score_jacobian(self, x, sigma, **condition):
        return self._mean(self.model._score_jacobian, x, sigma, **condition)

    def _score_jvp(self, x, sigma, v, **condition):
        return self._mean(self.model._score_jvp, x, sigma, v, **condition)

    def _score_divergence(self, x, sigma, **condition):
        return self._mean(self.model._score_divergence, x, sigma, **condition)

    def _denoise_divergence(self, x, sigma, **condition):
        if np.ndim(self.noise_scale):  # the diagonal is weighted: it takes the whole matrix
            return super()._denoise_divergence(x, sigma, **condition)
        divergence = self._score_divergence(x, sigma, **condition)
        return self.n_features + (sigma[..., 0] if np.ndim(sigma) else sigma) ** 2 * divergence

    def _denoise_jvp(self, x, sigma, v, **condition):
        variance = (sigma * self._noise_scale_like(x)) ** 2
        return v + variance * self._score_jvp(x, sigma, v, **condition)
