r"""What the wrappers of score models share: they can do what all of their inner models can.

A wrapper is exact, differentiable, conservative, ... if every model inside is, and it is
defined on the noise levels where all of them are,

.. math:: [\sigma_{\min}, \sigma_{\max}] = \textstyle\bigcap_i [\sigma_{\min,i}, \sigma_{\max,i}].

A wrapper whose own mathematics allows less says so in its own flags.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel

__all__ = ["Wrapper", "check_same_space", "several"]


class Wrapper(BaseScoreModel):
    """Takes over from one or several inner models what all of them can do."""

    def __init__(self, *models: BaseScoreModel):
        if not models:
            raise ValueError("models must hold at least one score model.")
        for model in models:
            if not isinstance(model, BaseScoreModel):
                raise TypeError(
                    f"a score model is needed; got {type(model).__name__}: as_score_model makes "
                    "one of fitted estimators, modules and callables."
                )
        self._models = models
        self.n_features = models[0].n_features

    def _all(self, flag):
        return all(getattr(model, flag) for model in self._models)

    has_density = property(lambda self: self._all("has_density"))
    has_log_prob = property(lambda self: self._all("has_log_prob"))
    has_jacobian = property(lambda self: self._all("has_jacobian"))
    has_sample = property(lambda self: self._all("has_sample"))
    has_flow = property(lambda self: self._all("has_flow"))
    is_differentiable = property(lambda self: self._all("is_differentiable"))
    _keeps_library = property(lambda self: any(m._keeps_library for m in self._models))
    is_conditional = property(lambda self: any(m.is_conditional for m in self._models))
    noise_scale = property(lambda self: self._models[0].noise_scale)
    blind_target = property(lambda self: self._models[0].blind_target)

    @property
    def is_conservative(self):
        """Whether the score is known to be a gradient; ``None`` is unknown."""
        return True if self._all("is_conservative") else None

    @property
    def sigma_range(self):
        """Noise levels between which the model may be asked."""
        lows, highs = zip(*(model.sigma_range for model in self._models), strict=True)
        return max(lows), min(highs)

    def _condition(self, model, condition):
        return condition if model.is_conditional else {}


def several(models: Any) -> tuple:
    """Models as a tuple, or a ``TypeError`` for one alone."""
    if isinstance(models, BaseScoreModel) or not isinstance(models, Iterable):
        raise TypeError(f"models must be a sequence of score models; got {type(models).__name__}.")
    return tuple(models)


def check_same_space(models):
    """Raise unless the models live on points of one width with one kind of noise."""
    widths = {model.n_features for model in models}
    if len(widths) > 1:
        raise ValueError(f"models must have the same number of features; got {sorted(widths)}.")
    if any(np.ndim(model.noise_scale) for model in models):
        scales = [np.broadcast_to(m.noise_scale, m.n_features) for m in models]
        if not all(np.allclose(scales[0], s) for s in scales[1:]):
            raise ValueError("models must share one noise_scale.")
