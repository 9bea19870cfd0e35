r"""Why a denoiser in random features is not the exact one: two parts that add up.

With :math:`A_*` the best coefficients for some rows, :math:`A` the trained ones, :math:`F_*` the
prediction of the exact denoiser and a direction :math:`v`,

.. math:: E\,(v \cdot (A\phi - F_*))^2 = \underbrace{E\,(v \cdot (A_*\phi - F_*))^2}_{architecture}
          + \underbrace{v^\top (A - A_*)\, U\, (A - A_*)^\top v}_{optimisation},
          \qquad U = E\phi\phi^\top ,

because the error of :math:`A_*` is orthogonal to all features (He, Qiu & Tao 2026).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skdiffusion.estimators._random_moments import NormalEquations
from skdiffusion.estimators._random_setting import Setting
from skdiffusion.models import EmpiricalModel
from skdiffusion.utils.random import normal_by_row

__all__ = ["ErrorDecomposition", "architecture_part", "optimisation_part"]


class ErrorDecomposition(NamedTuple):
    """Excess of the loss over that of the exact denoiser, in parts that add up.

    Attributes
    ----------
    architecture : ndarray of shape (n_matrices, n_directions)
        What the features cannot express.
    optimisation : ndarray of shape (n_matrices, n_directions) or (n_times, ...)
        The rest.
    levels : ndarray of shape (n_matrices,) or None
        Noise levels of the rows of both; ``None`` for the one row of a joint model.
    """

    architecture: np.ndarray
    optimisation: np.ndarray
    levels: np.ndarray | None


def optimisation_part(
    equations: NormalEquations, trained: np.ndarray, best: np.ndarray, directions: np.ndarray
) -> np.ndarray:
    """Excess loss of coefficients ``(..., n_matrices, d, p)`` over the best, by direction."""
    missing = directions @ (trained - best)
    return np.sum(np.matmul(missing, equations.gram) * missing, axis=-1) / equations.total


def architecture_part(
    setting: Setting,
    rows: np.ndarray,
    best: np.ndarray,
    directions: np.ndarray,
    n_noise: int,
    seed: int,
) -> np.ndarray:
    """Mean squared difference of the best prediction from that of the exact denoiser.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        In the coordinates of the setting.
    best : ndarray of shape (n_matrices, d, p)
    directions : ndarray of shape (n_directions, d)
    n_noise : int
        Pairs of opposite noise per row and level.
    """
    exact = EmpiricalModel(rows)
    noise = normal_by_row(rows, n_noise, seed)
    noise = np.concatenate([noise, -noise])
    errors, features = [], setting.features
    for k, level in enumerate(setting.levels.tolist()):
        matrix = best[0 if setting.joint else k]
        squared = 0.0
        for draw in noise:
            noised = rows + level * draw
            around = features.coefficients(level, noised)
            aim = (exact.denoise(noised, level) - around.skip * noised) / around.out
            gap = (features(noised, level) @ matrix.T - aim) @ directions.T
            squared = squared + np.mean(gap**2, axis=0)
        errors.append(setting.loss_weights[k] * squared / len(noise))
    return np.mean(errors, axis=0, keepdims=True) if setting.joint else np.stack(errors)
