r"""Any score model given measurements and ranges: the posterior of a normal, at every level.

Behind a noised row the clean one has mean ``D`` and covariance :math:`V = \sigma^2\,\partial D /
\partial x`, whatever the law. As if it were normal, measurements :math:`y = A x_0 + s\,e` move its
mean to

.. math:: \tilde D = D + V A^\top (A V A^\top + s^2 I)^{-1} (y - A D),

(moment projection: Boys et al. 2024; with :math:`V = r^2 I`: Song et al. 2023). A column known to
lie in a range replaces its normal by the truncated one, and the others follow it by regression.
Both are exact for a Gaussian, at every level, but for ranges of several columns that hang together,
which are taken one after the other. For other laws they become so as the level falls and
the posterior narrows, and what they get wrong above is which mode is chosen, and how wide.

Simpler, and right only if it is given time: to put the noised known values in the place of what
the model has there at every level (:class:`KnownColumnsModel`), and to go up and down repeatedly
so that the other columns can settle beside them (Lugmayr et al. 2022).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.models._truncation import truncated_moments
from skdiffusion.models.jacobian import jacobian
from skdiffusion.models.wrapper import Wrapper
from skdiffusion.utils.arrays import like, namespace, to_numpy
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.validation import check_number

__all__ = ["ConditionedModel", "KnownColumnsModel", "truncated_normal"]

MATRICES = 8
"""Matrices per row that are held at a time."""
SMALLEST_SHARE = 1e-10
"""Of the largest variance of what is measured, each in its own unit, the least that a direction is
taken to have."""

SMALLEST_SLOPE = 0.02
"""Least eigenvalue of the derivative of a learned denoiser: smaller ones are of its errors, and
to divide by them would throw rows away. It hides what columns say of each other from levels above
seven of their deviations."""


class ConditionedModel(Wrapper):
    """A model given linear measurements of each row, and ranges of columns.

    Parameters
    ----------
    model : BaseScoreModel
    matrix : array-like of shape (m, d), optional
        The linear functions that are measured; by default the columns themselves. The values are
        the labels: ``denoise(x, sigma, y=values)`` with ``values`` of shape ``(n, m)``, NaN where
        nothing was measured.
    noise : float
        Standard deviation of the errors of measurement.
    low, high : array-like of shape (d,), optional
        Ranges of the columns; infinite where there is none.

    References
    ----------
    B. Boys et al., "Tweedie Moment Projected Diffusions for Inverse Problems", TMLR 2024;
    J. Song et al., "Pseudoinverse-Guided Diffusion Models for Inverse Problems", ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> law = GaussianModel([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
    >>> given = ConditionedModel(law)
    >>> values = np.array([[np.nan, 2.0]])
    >>> given.denoise(np.zeros((1, 2)), 1e6, y=values).round(6)  # E[x_0 | second column is 2]
    array([[1.6, 2. ]])
    """

    has_density = has_log_prob = has_jacobian = has_sample = has_flow = False
    is_differentiable = False
    is_conservative = None
    is_conditional = True

    def __init__(
        self,
        model: Any,
        matrix: Any = None,
        *,
        noise: float = 0.0,
        low: Any = None,
        high: Any = None,
    ):
        super().__init__(model)
        d = self.n_features
        self.matrix = np.eye(d) if matrix is None else np.asarray(matrix, dtype=np.float64)
        if self.matrix.ndim != 2 or self.matrix.shape[1] != d or not np.isfinite(self.matrix).all():
            raise ValueError(
                f"matrix must have shape (m, {d}) and be finite; got {self.matrix.shape}."
            )
        self.noise = check_number(noise, "noise", least=0)
        self.low = np.full(d, -np.inf) if low is None else np.asarray(low, dtype=np.float64)
        self.high = np.full(d, np.inf) if high is None else np.asarray(high, dtype=np.float64)
        if self.low.shape != (d,) or self.high.shape != (d,) or not (self.low < self.high).all():
            raise ValueError(f"low and high must have shape ({d},) and low must be below high.")

    @property
    def model(self) -> Any:
        """The inner model."""
        return self._models[0]

    def _denoise(self, x, sigma, y=None):
        y = None if y is None else _known_values(y, x, len(self.matrix))
        size = rows_in_memory(MATRICES * self.n_features**2)
        if len(x) <= size:
            return self._denoise_block(x, sigma, y)
        parts = [
            self._denoise_block(
                x[rows], sigma[rows] if np.ndim(sigma) else sigma, None if y is None else y[rows]
            )
            for rows in gen_batches(len(x), size)
        ]
        return namespace(x).concat(parts, axis=0)

    def _denoise_block(self, x, sigma, y):
        level = sigma[:, 0] if np.ndim(sigma) else sigma
        mean = self.model._denoise(x, sigma)
        covariance = self._covariance(x, sigma, level)
        ranged = np.flatnonzero(np.isfinite(self.low) | np.isfinite(self.high))
        # what is left of a variance when a column is known is rounding
        share = max(SMALLEST_SHARE, 100 * float(namespace(x).finfo(x.dtype).eps))
        least = [share * to_numpy(covariance[:, j, j]) for j in ranged]
        if y is not None:
            mean, covariance = self._measured(mean, covariance, y)
        for j, rounding in zip(ranged, least, strict=True):
            mean, covariance = self._truncated(mean, covariance, j, rounding)
        return mean

    def _covariance(self, x, sigma, level):
        """Posterior covariance as the model has it: symmetric, and not negative."""
        xp, scale = namespace(x), self._noise_scale_like(x)
        slope = jacobian(self.model, x, level, of="denoise")
        if np.ndim(scale):  # in coordinates of isotropic noise it is symmetric
            slope = slope * scale / scale[:, None]
        slope = (slope + xp.matrix_transpose(slope)) / 2
        if not self.model.has_jacobian:
            values, vectors = xp.linalg.eigh(slope)
            kept = xp.where(values > SMALLEST_SLOPE, values, SMALLEST_SLOPE * xp.ones_like(values))
            slope = (vectors * kept[:, None, :]) @ xp.matrix_transpose(vectors)
        if np.ndim(scale):
            slope = slope * scale * scale[:, None]
        return slope * (sigma[:, :, None] if np.ndim(sigma) else sigma) ** 2

    def _measured(self, mean, covariance, values):
        xp, matrix = namespace(mean), like(self.matrix, mean)
        seen = ~xp.isnan(values)
        here = like(to_numpy(seen), mean)
        residual = xp.where(seen, values - mean @ matrix.T, xp.zeros_like(values))
        cross = covariance @ matrix.T * here[:, None, :]
        inner = here[:, :, None] * (matrix @ cross)
        inner = inner + like(np.eye(len(self.matrix)), mean) * self.noise**2 * here[:, :, None]
        gain = cross @ _pseudo_inverse(inner)
        moved = mean + (gain @ residual[:, :, None])[:, :, 0]
        return moved, covariance - gain @ xp.matrix_transpose(cross)

    def _truncated(self, mean, covariance, j, rounding):
        centre, variance = to_numpy(mean[:, j]), to_numpy(covariance[:, j, j])
        known = variance <= rounding
        spread = np.sqrt(np.where(known, 1.0, variance))
        expected, left = truncated_normal(centre, spread, self.low[j], self.high[j])
        expected, left = np.where(known, centre, expected), np.where(known, 1.0, left)
        slope = covariance[:, :, j] / like(spread**2, mean)[:, None]
        moved = mean + slope * like(expected - centre, mean)[:, None]
        lost = like((1 - left) * spread**2, mean)[:, None, None]
        return moved, covariance - lost * slope[:, :, None] * slope[:, None, :]


class KnownColumnsModel(Wrapper):
    """A model some columns of which are known: they are put in place at every level.

    The labels are the rows with NaN where nothing is known. The denoiser of a known column is its
    value; the others are denoised with it in place, but do not know how far the values there are
    from what the model expects. With a sampler that goes up and down
    (:class:`~skdiffusion.samplers.TimeTravelSampler`) this is RePaint.

    Parameters
    ----------
    model : BaseScoreModel

    References
    ----------
    A. Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
    CVPR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> law = KnownColumnsModel(GaussianModel([0.0, 0.0], 1.0))
    >>> law.denoise(np.array([[3.0, 1.0]]), 1.0, y=np.array([[5.0, np.nan]]))
    array([[5. , 0.5]])
    """

    has_density = has_log_prob = has_jacobian = has_sample = has_flow = False
    is_conservative = None
    is_conditional = True

    @property
    def model(self) -> Any:
        """The inner model."""
        return self._models[0]

    def _denoise(self, x, sigma, y=None):
        denoised = self.model._denoise(x, sigma)
        if y is None:
            return denoised
        xp, values = namespace(x), _known_values(y, x, self.n_features)
        return xp.where(xp.isnan(values), denoised, values)


def _known_values(y, x, m):
    """What is known of each row, ``(n, m)`` like ``x``; NaN where nothing is."""
    try:
        values = like(y, x)
    except (TypeError, ValueError):
        values = None
    shape = None if values is None else tuple(values.shape)
    if shape != (len(x), m) or bool(namespace(values).any(namespace(values).isinf(values))):
        raise ValueError(
            f"y must hold what is known of each row, finite numbers of shape ({len(x)}, {m}), and "
            f"NaN where nothing is; got {type(y).__name__} of shape {np.shape(y)}."
        )
    return values


def truncated_normal(mean: Any, spread: Any, low: float, high: float):
    r"""Mean of :math:`N(m, s^2)` between two bounds, and its variance over :math:`s^2`.

    Parameters
    ----------
    mean, spread : ndarray
    low, high : float

    Returns
    -------
    mean, share : ndarray

    Examples
    --------
    >>> import numpy as np
    >>> truncated_normal(np.zeros(1), np.ones(1), 0.0, np.inf)[0].round(6)  # sqrt(2 / pi)
    array([0.797885])
    """
    if np.isinf(low) and np.isinf(high):
        return mean, np.ones_like(mean)
    below, above = (low - mean) / spread, (mean - high) / spread
    from_high = above > below  # from the end that is nearest to the mean
    length = np.broadcast_to((high - low) / spread, below.shape)
    _, inside, share = truncated_moments(np.maximum(below, above), length)
    with np.errstate(invalid="ignore"):  # an infinite end is not the nearest
        expected = np.where(from_high, high - spread * inside, low + spread * inside)
    return expected, share


def _pseudo_inverse(matrices):
    """Inverse of symmetric matrices where they are not zero; learned ones may be indefinite.

    What is zero is told from the matrices with a diagonal of ones: units do not matter then.
    """
    xp = namespace(matrices)
    scale = xp.sqrt(xp.abs(xp.linalg.diagonal(matrices)))
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    scale = scale[:, :, None] * scale[:, None, :]
    values, vectors = xp.linalg.eigh(matrices / scale)
    size = xp.abs(values)
    largest = xp.max(size, axis=-1, keepdims=True)
    kept = size > SMALLEST_SHARE * largest
    inverse = xp.where(kept, 1 / xp.where(kept, size, xp.ones_like(size)), xp.zeros_like(size))
    return (vectors * inverse[:, None, :]) @ xp.matrix_transpose(vectors) / scale
