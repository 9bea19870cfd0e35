r"""Points at which fields are compared, level by level and batch by batch.

Noised rows :math:`x = x_0 + \sigma\varepsilon`, in opposite pairs :math:`\pm\varepsilon`; draws
from the far field :math:`N(\mu, C + \sigma^2)` of the rows; or points that are given. The noise is
keyed by the row and the same for all levels, so that curves differ by the level alone.
"""

from __future__ import annotations

import numpy as np

from skdiffusion.models import GaussianModel
from skdiffusion.utils.covariance import covariance_of
from skdiffusion.utils.random import normal_by_row
from skdiffusion.utils.validation import as_numbers, lookup

__all__ = ["Probes"]

PROBES = ("noised", "far_field")


class Probes:
    """Points of each level, batch by batch: clean rows with noise, or what was given instead.

    Parameters
    ----------
    probes : {"noised", "far_field"} or array-like of shape (n_levels, n_points, d)
    X : ndarray of shape (n_rows, d)
        Clean rows.
    y : array-like, optional
        Labels of the rows, or of the given points.
    scale : float or ndarray of shape (d,)
        Standard deviation of the noise per column at level one.
    n_levels, n_noise, seed : int
        Levels, pairs of noise per row, and seed of the noise.
    """

    def __init__(self, probes, X, y, scale, n_levels, n_noise, seed):
        self.X, self.scale, self.center = X, scale, X.mean(axis=0)
        self.n_noise, self.seed = n_noise, seed
        self.given = self.far_field = None
        if not isinstance(probes, str):
            self.given = as_numbers(probes)
            shape = (n_levels, X.shape[1])
            if self.given.ndim != 3 or self.given.shape[::2] != shape or not self.given.shape[1]:
                raise ValueError(
                    f"probes must have shape (n_levels, n_points, n_features), here ({n_levels}, "
                    f"n_points, {X.shape[1]}); got {self.given.shape}."
                )
            if not np.isfinite(self.given).all():
                raise ValueError("probes must be finite.")
            self.n_rows, self.draws = self.given.shape[1], 1
            self.y = self._labels(y, self.n_rows, "one label per probe")
            return
        lookup(probes, dict.fromkeys(PROBES), "probes", "an array of points per level")
        self.n_rows, self.draws = len(X), 2 * n_noise
        self.y = self._labels(y, len(X), "one label per row")
        if probes == "far_field":
            inner = X / scale
            self.far_field = GaussianModel(inner.mean(axis=0), covariance_of(inner))

    @property
    def are_noised_rows(self) -> bool:
        """Whether the clean rows behind the points are known."""
        return self.given is None and self.far_field is None

    @staticmethod
    def _labels(y, n, what):
        if y is None:
            return None
        y = np.asarray(y)
        if y.shape != (n,):
            raise ValueError(f"y must hold {what}, shape ({n},); got shape {y.shape}.")
        return y

    def batch(self, k, sigma, rows):
        """Points of level ``k`` for a slice of the rows, clean rows where known, and labels."""
        y = None if self.y is None else np.repeat(self.y[rows], self.draws)
        if self.given is not None:
            return self.given[k, rows], None, y
        X = self.X[rows]
        noise = normal_by_row(X, self.n_noise, self.seed).transpose(1, 0, 2)
        # Opposite pairs: at low noise errors are sigma eps + sigma^2 s, models differ in the
        # second term alone, and its product with the first averages out over a pair.
        noise = np.concatenate([noise, -noise], axis=1).reshape(-1, X.shape[1])
        if self.far_field is not None:
            return self.far_field.from_latent(noise, sigma) * self.scale, None, y
        clean = np.repeat(X, self.draws, axis=0)
        return clean + sigma * noise * self.scale, clean, y
