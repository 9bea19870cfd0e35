r"""What is fixed before random features are trained: coordinates, features, levels, the start.

Rows are turned to their principal axes and divided by their scale, :math:`z = U^\top (x - m)/s`;
there :math:`\Lambda/s^2` is their covariance. Frequencies are normal vectors over a length, in
points that are scaled to unit variance at every level; levels are uniform in :math:`\log\sigma`.
All of it follows from the moments of the rows, so that batches and blocks share one setting.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.estimators._moments import FullMoments
from skdiffusion.estimators._random_moments import NormalEquations
from skdiffusion.models._feature_maps import FEATURE_MAPS
from skdiffusion.models.random_features import RandomFeatures
from skdiffusion.noising import noise_range
from skdiffusion.schedules import check_schedule
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import lookup

__all__ = ["WEIGHTS", "Setting", "equations_of", "new_setting"]

WEIGHTS = {"data": 0, "noise": 2, "score": 4}
"""Power of the noise level by which the squared error of the denoiser is divided."""


class Setting(NamedTuple):
    """What is fixed before training."""

    column_variances: np.ndarray
    shift: np.ndarray
    scale: float
    axes: np.ndarray
    features: RandomFeatures
    joint: bool
    levels: np.ndarray
    loss_weights: np.ndarray
    start: np.ndarray

    def inward(self, X):
        """Rows in units of their scale, along their principal axes."""
        return (X - self.shift) @ self.axes / self.scale


def new_setting(est: Any, moments: FullMoments) -> Setting:
    """The setting that an estimator's parameters and the moments of its rows ask for.

    Raises
    ------
    ValueError
        If no column varies, or the weights of the levels are not positive numbers.
    """
    variances = moments.column_variances()
    if not variances.any():
        raise ValueError("X has no variance: all of its rows are the same.")
    scale, low, high = noise_range(variances, est.sigma_min, est.sigma_max)
    spread, axes = np.linalg.eigh(moments.covariance() / scale**2)
    rng = as_generator(est.random_state)
    d = len(variances)
    length = typical_length(d) if est.length_scale == "auto" else est.length_scale
    features = RandomFeatures(
        rng.standard_normal((est.n_features, d)) @ axes / length,
        lookup(est.feature_map, FEATURE_MAPS, "feature_map")().phases(rng, est.n_features),
        rng.standard_normal(est.n_features) * (bool(est.joint) / est.level_scale),
        feature_map=est.feature_map,
        parameterization=est.parameterization,
        schedule=est._schedule() or check_schedule("edm"),
        variances=np.maximum(spread, 0.0),
    )
    levels = np.geomspace(low / scale, high / scale, est.n_levels)
    n_matrices = 1 if est.joint else est.n_levels
    # drawn along the columns: the signs of the axes do not matter
    start = axes.T @ rng.standard_normal((n_matrices, d, est.n_features))
    return Setting(
        variances,
        moments.mean,
        scale,
        axes,
        features,
        bool(est.joint),
        levels,
        _loss_weights(est.weight, features, levels, scale),
        est.init_scale * start,
    )


def typical_length(d: int) -> float:
    r"""A length that suits most rows of so many columns.

    Two rows of unit variance are :math:`\sqrt{2d}` apart, so that at this length :math:`l` the mean
    of the products of their features is near :math:`e^{-d/l^2}`: in the plane each has features of
    its own; in 36 columns and more, where few rows are near each other, all share them.
    """
    return min(d / 6, np.sqrt(d))


def equations_of(X: np.ndarray, weights: np.ndarray, setting: Setting) -> NormalEquations:
    """The normal equations of rows in a setting."""
    return NormalEquations.of(
        setting.features,
        setting.inward(X),
        weights,
        setting.levels,
        setting.loss_weights,
        setting.joint,
    )


def _loss_weights(weight, features, levels, scale):
    """Weights of the prediction's squared error at each level, of mean one."""
    around = features.coefficients(levels[:, None], np.empty((len(levels), 1)))
    if callable(weight):
        weights = np.asarray(weight(levels * scale), dtype=np.float64)
        if weights.shape != levels.shape or not (weights > 0).all() or np.isinf(weights).any():
            raise ValueError("weight(levels) must return one positive number per level.")
    elif weight == "auto":
        return around.weight[:, 0] / around.weight.mean()
    else:
        weights = levels ** -float(WEIGHTS[weight])
    weights = weights * around.out[:, 0] ** 2
    return weights / weights.mean()
