r"""Laws on a few coordinates, placed in a larger space.

A law known in :math:`\mathbb{R}^k` becomes one in :math:`\mathbb{R}^D` by
:math:`x = Q\,(z, 0)` with an orthogonal :math:`Q`; noise, where there is some, is then
isotropic in :math:`\mathbb{R}^D`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models import AffineModel, GaussianModel, IndependentModel, SmoothedModel
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["embed_model", "embed_points", "random_rotation"]


def random_rotation(d: int, rng: np.random.Generator) -> np.ndarray:
    """An orthogonal matrix from the uniform (Haar) law."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.sign(r.diagonal())


def check_ambient(n_features: Any, own: int) -> int:
    """``n_features``, at least the dimension that the law itself needs."""
    return own if n_features is None else check_count(n_features, "n_features", own)


def check_noise(noise: Any) -> float:
    """A non-negative standard deviation; ``None`` is none."""
    return 0.0 if noise is None else check_number(noise, "noise", least=0)


def embed_model(model: Any, n_features: int, rotation: np.ndarray | None, noise: float = 0.0):
    """The law of ``Q (z, 0) + noise``, for ``z`` of the model."""
    missing = n_features - model.n_features
    if missing:
        model = IndependentModel([model, GaussianModel(np.zeros(missing), 0.0)])
    if rotation is not None:
        model = AffineModel(model, rotation=rotation)
    return SmoothedModel(model, noise) if noise > 0 else model


def embed_points(
    z: np.ndarray,
    n_features: int,
    rotation: np.ndarray | None,
    noise: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws of the same law from draws ``z``."""
    x = np.hstack([z, np.zeros((len(z), n_features - z.shape[1]))])
    x = x if rotation is None else x @ rotation.T
    return x + noise * rng.standard_normal(x.shape) if noise > 0 else x
