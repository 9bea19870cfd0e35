r"""Score models pooled level by level.

.. math:: \nabla\log p_\sigma(x) = \sum_j w_j(\sigma)\, s_j(x, \sigma), \qquad
          D = \sum_j w_j(\sigma)\, D_j, \qquad w_j \ge 0, \quad \sum_j w_j = 1.

Different models are right at different noise levels: a Gaussian far out, a mixture in the
middle, few components near the data. The weights are given on a grid that is uniform in
:math:`\log\sigma`, interpolated linearly between its levels and held constant beyond them.
At every level the pool of gradients is a gradient, but the levels need not fit together as
the noising of one law: there is no exact density, only the flow's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skdiffusion.models._log_grid import LogGrid
from skdiffusion.models.wrapper import Wrapper, check_same_space, several
from skdiffusion.utils.arrays import Parameters, as_levels, namespace, to_numpy

__all__ = ["StackedModel"]


class StackedModel(Wrapper):
    """Convex combination of score models, with weights that depend on the noise level.

    Parameters
    ----------
    models : sequence of BaseScoreModel
    levels : array-like of shape (n_levels,)
        Rising noise levels, uniform in the logarithm; at least two.
    weights : array-like of shape (n_levels, n_models)
        Non-negative; each row sums to one.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> near, far = GaussianModel([0.0], 1.0), GaussianModel([0.0], 4.0)
    >>> model = StackedModel([near, far], levels=[0.1, 10.0], weights=[[1, 0], [0, 1]])
    >>> x = np.array([[1.0]])
    >>> bool(model.score(x, 0.01) == near.score(x, 0.01))
    True
    """

    has_density = has_log_prob = has_sample = has_flow = False

    def __init__(self, models: Sequence[Any], levels: Any, weights: Any):
        models = several(models)
        super().__init__(*models)
        check_same_space(models)
        self._grid = LogGrid(levels)
        levels = self._grid.levels
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (len(levels), len(models)):
            raise ValueError(
                f"weights must have shape ({len(levels)}, {len(models)}), a row per level and a "
                f"column per model; got {weights.shape}."
            )
        if not (weights >= 0).all() or np.abs(weights.sum(1) - 1).max() > 1e-8:
            raise ValueError("weights must be non-negative and sum to one at every level.")
        self._seen = Parameters(weights=weights)

    @property
    def levels(self) -> np.ndarray:
        """Noise levels at which the weights are given."""
        return self._grid.levels

    @property
    def models(self):
        """The pooled models."""
        return self._models

    @property
    def weights(self) -> np.ndarray:
        """Weights at ``levels``, shape ``(n_levels, n_models)``."""
        return self._seen.weights

    def weights_at(self, sigma: Any):
        """Weights at a noise level: shape ``(n_models,)``, or ``(n, n_models)`` for an array."""
        sigma = to_numpy(sigma)
        levels = as_levels(sigma, np.empty((sigma.size, 0)), allow_zero=False)
        return self._interpolated(levels, self._seen.weights)

    def _interpolated(self, sigma, like):
        return self._grid.hats(sigma, like) @ self._seen.like(like).weights

    def _pooled(self, name, x, sigma, condition):
        weights = self._interpolated(sigma, x)
        total = 0.0
        for j, model in enumerate(self._models):
            weight = weights[..., j]
            if isinstance(sigma, float):
                weight = float(weight)
                if weight == 0:  # nothing to add, and nothing to pay for
                    continue
            value = _answer(model, name, x, sigma, self._condition(model, condition))
            if not isinstance(weight, float):
                weight = namespace(x).reshape(weight, (-1,) + (1,) * (value.ndim - 1))
            total = total + weight * value
        return total

    def _score(self, x, sigma, **condition):
        return self._pooled("_score", x, sigma, condition)

    def _denoise(self, x, sigma, **condition):
        return self._pooled("_denoise", x, sigma, condition)

    def _score_jacobian(self, x, sigma, **condition):
        return self._pooled("_score_jacobian", x, sigma, condition)

    def _denoise_jacobian(self, x, sigma, **condition):
        return self._pooled("_denoise_jacobian", x, sigma, condition)

    def _denoise_divergence(self, x, sigma, **condition):
        return self._pooled("_denoise_divergence", x, sigma, condition)

    def _score_divergence(self, x, sigma, **condition):
        return self._pooled("_score_divergence", x, sigma, condition)

    def _denoise_and_divergence(self, x, sigma, **condition):
        both = self._pooled("_denoise_and_divergence", x, sigma, condition)
        return both[:, :-1], both[:, -1]


def _answer(model, name, x, sigma, condition):
    """What a model answers; a denoiser and its divergence as one array."""
    answer = getattr(model, name)(x, sigma, **condition)
    if isinstance(answer, tuple):
        denoised, trace = answer
        return namespace(x).concat([denoised, trace[:, None]], axis=1)
    return answer
