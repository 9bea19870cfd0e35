r"""A denoiser that is linear in random features of the point and the noise level.

.. math:: D(x, \sigma) = c_{skip} x + c_{out} A(\sigma)\, \phi(x, \sigma), \qquad
          \phi_j = \sqrt{2/p}\; g(c_{in} w_j \cdot x + v_j \log\sigma + b_j),

with ``w``, ``v``, ``b`` drawn once, :math:`g` a cosine or a ReLU, and the coefficients of a
parameterization (:mod:`skdiffusion.parameterizations`) around it. ``A`` is one matrix for all
levels, or one per level of a grid, linear in :math:`\log\sigma` between them. Its Jacobian is

.. math:: \partial D/\partial x = c_{skip} + c_{in} c_{out} \sqrt{2/p}\,
          A \,\mathrm{diag}(g')\, W .

It need not be symmetric: a learned denoiser is in general not the gradient of an energy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models._feature_maps import FEATURE_MAPS
from skdiffusion.models._log_grid import LogGrid
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.parameterizations import check_parameterization
from skdiffusion.schedules import check_schedule
from skdiffusion.utils.arrays import Parameters, is_torch, like, namespace
from skdiffusion.utils.blocks import by_blocks
from skdiffusion.utils.memory import rows_in_cache, rows_in_memory
from skdiffusion.utils.validation import lookup

__all__ = ["RandomFeatureModel", "RandomFeatures"]

ARRAYS = 8
"""Arrays of features that are held at once."""
CACHED = 2**18
"""Numbers of one array of features that a core's cache holds beside the others."""
FEWEST_ROWS = 256
"""Below this the products of matrices get slow."""


class RandomFeatures:
    r"""Random features of points and noise levels, and what stands around them in a denoiser.

    Parameters
    ----------
    frequencies : array-like of shape (p, d)
        Vectors :math:`w_j`.
    phases : array-like of shape (p,)
        Offsets :math:`b_j`.
    rates : array-like of shape (p,), optional
        Rates :math:`v_j` of the angles in :math:`\log\sigma`; zero by default.
    feature_map : {"cos", "relu"}
    parameterization : str or Parameterization
        What the features predict.
    schedule : str or NoiseSchedule
        On whose path a prediction is defined.
    variances : array-like of shape (d,), optional
        Variances of the columns of the data; ones by default.
    """

    def __init__(
        self,
        frequencies: Any,
        phases: Any,
        rates: Any = None,
        *,
        feature_map: str = "cos",
        parameterization: Any = "data",
        schedule: Any = "edm",
        variances: Any = None,
    ):
        frequencies = np.asarray(frequencies, dtype=np.float64)
        if frequencies.ndim != 2 or not np.isfinite(frequencies).all():
            raise ValueError("frequencies must be a finite array of shape (p, d).")
        size, n_features = frequencies.shape
        rates = np.zeros(size) if rates is None else rates
        if np.shape(phases) != (size,) or np.shape(rates) != (size,):
            raise ValueError(f"phases and rates must have shape ({size},), one per feature.")
        variances = np.ones(n_features) if variances is None else variances
        self.map = lookup(feature_map, FEATURE_MAPS, "feature_map")()
        self.parameterization = check_parameterization(parameterization)
        self.schedule = check_schedule(schedule)
        self.theta = Parameters(
            frequencies=frequencies, phases=phases, rates=rates, variances=variances
        )
        self.n_features = n_features
        self.size = size
        self.amplitude = float(np.sqrt(2 / size))

    def rows_at_once(self, more: int = 0) -> int:
        """Rows whose features, some eight arrays of them, fit a cache and the working memory.

        Parameters
        ----------
        more : int
            Numbers per row beside the features.
        """
        return rows_in_cache(self.size + more, CACHED, n_arrays=ARRAYS, fewest=FEWEST_ROWS)

    def coefficients(self, sigma: Any, x: Any):
        """Coefficients around the features at levels, like ``x``; they broadcast against it."""
        return self.parameterization.coefficients(
            _column(sigma, x), self.schedule, self.theta.like(x).variances
        )

    def angles(self, x: Any, sigma: Any):
        """Angles of points ``(n, d)``, shape ``(n, p)``."""
        theta = self.theta.like(x)
        level = _column(sigma, x)
        scaled = self.coefficients(sigma, x).input * x
        shift = theta.phases + namespace(x).log(level) * theta.rates
        return scaled @ theta.frequencies.T + shift

    def __call__(self, x: Any, sigma: Any):
        """Features of points ``(n, d)``, shape ``(n, p)``."""
        return self.amplitude * self.map.value(self.angles(x, sigma))

    def slopes(self, x: Any, sigma: Any):
        """Derivative of each feature by its own ``w . x``, shape ``(n, p)``."""
        inward = self.coefficients(sigma, x).input * self.amplitude
        return inward * self.map.slope(self.angles(x, sigma))


class RandomFeatureModel(BaseScoreModel):
    r"""Score model whose denoiser is linear in random features.

    Parameters
    ----------
    features : RandomFeatures
    coefficients : array-like of shape (d, p) or (n_levels, d, p)
        The matrix ``A``, one for all noise levels or one per level.
    levels : array-like of shape (n_levels,), optional
        Rising levels, uniform in the logarithm, if there is one matrix per level.
    sigma_range : tuple of float
        Noise levels that it is made for.

    Examples
    --------
    >>> import numpy as np
    >>> features = RandomFeatures([[1.0], [2.0]], phases=[0.0, 0.0])
    >>> model = RandomFeatureModel(features, coefficients=[[0.5, 0.25]])
    >>> model.denoise(np.array([[0.0]]), 1.0)  # two cosines at their top
    array([[0.75]])
    """

    has_jacobian = True

    def __init__(
        self,
        features: RandomFeatures,
        coefficients: Any,
        levels: Any = None,
        sigma_range: tuple[float, float] = (0.0, float("inf")),
    ):
        coefficients = np.asarray(coefficients, dtype=np.float64)
        self.features = features
        self.n_features = features.n_features
        self.sigma_range = sigma_range
        self._grid = None if levels is None else LogGrid(levels)
        expected = (self.n_features, features.size)
        if levels is not None:
            expected = (len(self._grid.levels), *expected)
        if coefficients.shape != expected:
            raise ValueError(f"coefficients must have shape {expected}; got {coefficients.shape}.")
        self._seen = Parameters(
            # a matrix per level, side by side: all of them at once are one product
            coefficients=np.moveaxis(coefficients, -1, 0).reshape(features.size, -1)
        )

    @property
    def coefficients(self) -> np.ndarray:
        """The matrix ``A``, or one per level."""
        shape = (self.features.size, *(() if self._grid is None else (-1,)), self.n_features)
        return np.moveaxis(self._seen.coefficients.reshape(shape), 0, -1)

    def _combined(self, values, sigma):
        """``A(sigma)`` times each row of ``values``, shape ``(n, d)``."""
        matrix = self._seen.like(values).coefficients
        if self._grid is None:
            return values @ matrix
        xp, d = namespace(values), self.n_features
        hats = self._grid.hats(sigma, values)
        if hats.ndim == 1:  # one level for all rows
            matrix = xp.reshape(matrix, (self.features.size, -1, d))
            return values @ xp.sum(matrix * hats[:, None], axis=1)
        per_level = xp.reshape(values @ matrix, (values.shape[0], len(self._grid.levels), d))
        return xp.sum(per_level * hats[..., None], axis=1)

    def _denoise(self, x, sigma):
        return self._by_blocks(self._denoise_block, x, sigma)

    def _denoise_jvp(self, x, sigma, v):
        return self._by_blocks(self._denoise_jvp_block, x, sigma, v)

    def _denoise_jacobian(self, x, sigma):
        return self._by_blocks(self._denoise_jacobian_block, x, sigma)

    def _denoise_divergence(self, x, sigma):
        return self._by_blocks(self._denoise_divergence_block, x, sigma)

    def _by_blocks(self, function, x, sigma, *rows):
        """``function`` of as many rows at once as are good for features."""
        own_levels = self._grid is not None and np.ndim(sigma)
        more = self._seen.coefficients.shape[1] if own_levels else 0
        if is_torch(x):
            size = rows_in_memory(ARRAYS * (self.features.size + more))
        else:
            size = self.features.rows_at_once(more)
        return by_blocks(function, size, x, sigma, *rows)

    def _denoise_block(self, x, sigma):
        around = self.features.coefficients(sigma, x)
        return around.skip * x + around.out * self._combined(self.features(x, sigma), sigma)

    def _denoise_jvp_block(self, x, sigma, v):
        around = self.features.coefficients(sigma, x)
        inner = self.features.slopes(x, sigma) * (v @ self.features.theta.like(x).frequencies.T)
        return around.skip * v + around.out * self._combined(inner, sigma)

    def _score_jvp(self, x, sigma, v):
        return (self._denoise_jvp(x, sigma, v) - v) / sigma**2

    def _denoise_jacobian_block(self, x, sigma):
        around = self.features.coefficients(sigma, x)
        slopes = self.features.slopes(x, sigma)
        frequencies = self.features.theta.like(x).frequencies
        columns = [
            self._combined(slopes * frequencies[:, j], sigma) for j in range(self.n_features)
        ]
        skip = around.skip[..., None] * self._identity(x)
        return skip + around.out[..., None] * namespace(x).stack(columns, axis=-1)

    def _denoise_divergence_block(self, x, sigma):
        xp = namespace(x)
        around = self.features.coefficients(sigma, x)
        matrix = self._seen.like(x).coefficients
        frequencies = self.features.theta.like(x).frequencies
        # what of A and W meets on the diagonal, per feature and level
        matrix = xp.reshape(matrix, (self.features.size, -1, self.n_features))
        meeting = xp.sum(matrix * frequencies[:, None, :], axis=-1)
        traces = self.features.slopes(x, sigma) @ meeting
        if self._grid is None:
            traces = traces[:, 0]
        else:
            traces = xp.sum(traces * self._grid.hats(sigma, x), axis=-1)
        skip = xp.sum(around.skip + 0 * x, axis=-1)
        return skip + around.out[:, 0] * traces

    def _score_divergence(self, x, sigma):
        variance = (sigma[..., 0] if np.ndim(sigma) else sigma) ** 2
        return (self._denoise_divergence(x, sigma) - self.n_features) / variance


def _column(sigma, x):
    """A level as a column like ``x``: ``(n, 1)``, or ``(1, 1)`` for a single one."""
    if isinstance(sigma, float):
        return like(np.full((1, 1), sigma), x)
    return sigma if sigma.ndim == 2 else namespace(x).reshape(sigma, (1, 1))
