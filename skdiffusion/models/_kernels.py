r"""Sums of Gaussian kernels over a weighted set of points.

With :math:`\pi_i(x) \propto w_i \exp(-|x-y_i|^2/2\sigma^2)` these are
:math:`\log \sum_i w_i e^{-|x-y_i|^2/2\sigma^2}` and the mean and covariance of
:math:`y` under :math:`\pi(x)`, row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn

from skdiffusion.utils.arrays import Parameters, like, namespace

__all__ = ["KernelSums"]


class KernelSums:
    """Gaussian kernel sums over the points ``(n, d)`` with weights that sum to one."""

    def __init__(self, points: np.ndarray, weights: np.ndarray):
        kept = np.flatnonzero(weights > 0)
        self._kept = None if len(kept) == len(points) else kept
        points, weights = points[kept], weights[kept]
        centre = weights @ points
        points = points - centre
        self._seen = Parameters(
            centre=centre,
            points=points,
            half_squares=0.5 * np.einsum("ij,ij->i", points, points),
            log_weights=np.log(weights),
        )

    def log_sum(self, x: Any, sigma: Any, exclude: Any = None):
        """Logarithm of the kernel sum, shape ``(m,)``."""
        return self._map(lambda x, p, log_sum: log_sum, x, sigma, exclude)

    def mean(self, x: Any, sigma: Any, exclude: Any = None):
        """Mean of the points under the kernel weights, shape ``(m, d)``."""
        return self.shift(x, sigma, exclude) + x

    def shift(self, x: Any, sigma: Any, exclude: Any = None):
        """Mean minus ``x``, shape ``(m, d)``."""
        points = self._seen.like(x).points
        return self._map(lambda x, p, _: p @ points - x, x, sigma, exclude)

    def covariance(self, x: Any, sigma: Any, exclude: Any = None):
        """Covariance of the points under the kernel weights, shape ``(m, d, d)``."""
        points = self._seen.like(x).points
        xp = namespace(x)

        def covariance(x, p, _):
            centred = points[None] - (p @ points)[:, None]
            return xp.matmul(xp.permute_dims(centred * p[..., None], (0, 2, 1)), centred)

        return self._map(covariance, x, sigma, exclude, copies=2 * x.shape[1])

    def covariance_product(self, x: Any, sigma: Any, v: Any, exclude: Any = None):
        """Covariance times the rows of ``v``, shape ``(m, d)``."""
        points = self._seen.like(x).points
        xp = namespace(x)

        def product(x, p, _, v):
            along = v @ points.T
            along = p * (along - xp.sum(p * along, axis=1, keepdims=True))
            return along @ points

        return self._map(product, x, sigma, exclude, v)

    def _map(self, function, x, sigma, exclude, *more, copies=2):
        seen, xp = self._seen.like(x), namespace(x)
        m, n = x.shape[0], len(self._seen.points)
        x = x - seen.centre
        if exclude is not None and self._kept is not None:
            position = np.full(int(max(exclude.max(), self._kept.max())) + 1, -1)
            position[self._kept] = np.arange(n)
            exclude = np.where(exclude < 0, -1, position[exclude])
        budget = sklearn.get_config()["working_memory"] * 2**20 / 8
        rows = max(1, int(budget / (n * (copies + 2))))
        results = []
        for start in range(0, max(m, 1), rows):
            part = slice(start, start + rows)
            level = sigma[part] if np.ndim(sigma) else sigma
            variance = level**2
            logits = (x[part] @ seen.points.T - seen.half_squares) / variance + seen.log_weights
            if exclude is not None:
                hidden = exclude[part][:, None] == np.arange(n)
                bars = np.where(hidden & (exclude[part] >= 0)[:, None], -np.inf, 0.0)
                logits = logits + like(bars, x)
            top = xp.max(logits, axis=1, keepdims=True)
            p = xp.exp(logits - top)
            total = xp.sum(p, axis=1, keepdims=True)
            log_sum = (
                top + xp.log(total) - 0.5 * xp.sum(x[part] ** 2, axis=1, keepdims=True) / variance
            )[:, 0]
            results.append(function(x[part], p / total, log_sum, *(o[part] for o in more)))
        return results[0] if len(results) == 1 else xp.concat(results, axis=0)
