"""Denoisers that the errors of a model are measured from, or that have a part of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.geometry import RidgeProjector
from skdiffusion.inspection._ridge_place import RidgePlace
from skdiffusion.models import BaseScoreModel, as_score_model
from skdiffusion.utils.validation import check_number

__all__ = ["HeldModel", "PartOfErrors"]


class HeldModel(BaseScoreModel):
    """The denoiser of a model, held at one level below it.

    Parameters
    ----------
    model : BaseScoreModel
    level : float
    """

    is_conservative = None

    def __init__(self, model: Any, level: float):
        self.model = as_score_model(model)
        self.level = check_number(level, "level", above=0)
        self.n_features = self.model.n_features
        self.is_differentiable = self.model.is_differentiable
        self.sigma_range = (0.0, self.model.sigma_range[1])

    def _denoise(self, x, sigma):
        held = max(sigma, self.level) if np.ndim(sigma) == 0 else sigma.clip(self.level)[:, 0]
        return self.model.denoise(x, held)


class PartOfErrors(BaseScoreModel):
    r"""A reference denoiser with a part of a model's errors, :math:`D + P (D_\theta - D)`.

    ``P`` projects on the normal or the tangent space of the ridge, at the projection of the point
    and at the level of the noise, or of the ridge below it.

    Parameters
    ----------
    model, reference : BaseScoreModel
    ridge : RidgeProjector
        Fitted.
    part : {"normal", "tangential", "none"}
    """

    is_conservative = False

    def __init__(self, model: Any, reference: Any, ridge: RidgeProjector, part: str):
        self.model, self.reference, self.ridge, self.part = model, reference, ridge, part
        self.n_features = model.n_features
        self.sigma_range = model.sigma_range

    def _denoise(self, x, sigma):
        known = self.reference.denoise(x, sigma)
        if self.part == "none":
            return known
        error = self.model.denoise(x, sigma) - known
        place = RidgePlace(self.ridge, x, max(float(np.max(sigma)), self.ridge.bandwidth_))
        across = place.normal(error)
        return known + (across if self.part == "normal" else error - across)
