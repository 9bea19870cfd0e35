r"""The mixture of any laws whose noised densities are known.

For :math:`p_0 = \sum_k w_k\, p_k` every level is again the mixture of the noised
components, and with the responsibilities

.. math:: r_k(x) = \frac{w_k\, p_{k,\sigma}(x)}{\sum_j w_j\, p_{j,\sigma}(x)}, \qquad
          D = \sum_k r_k D_k, \qquad s = \nabla\log p_\sigma = \sum_k r_k s_k,

where :math:`\nabla r_k = r_k (s_k - s)` gives the derivatives

.. math:: \partial s = \sum_k r_k\,[\partial s_k + (s_k - s)(s_k - s)^\top], \qquad
          \partial D = \sum_k r_k\,[\partial D_k + (D_k - D)(s_k - s)^\top].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.wrapper import Wrapper, check_same_space, several
from skdiffusion.utils.arrays import like, namespace

__all__ = ["SuperpositionModel"]


class SuperpositionModel(Wrapper):
    r"""The mixture :math:`\sum_k w_k\, p_k` of score models, exact at every level.

    For Gaussian components :class:`~skdiffusion.models.MixtureModel` is faster.

    Parameters
    ----------
    models : sequence of BaseScoreModel
        Components; each needs an exact ``log_prob``.
    weights : sequence of float, optional
        Positive weights, normalised to sum to one; equal by default.

    Attributes
    ----------
    weights : tuple of float
        They sum to one.

    Raises
    ------
    ValueError
        If there is no component, one has no ``log_prob`` or another dimension, or a weight
        is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> two_points = SuperpositionModel([GaussianModel([-1.0], 0.0), GaussianModel([1.0], 0.0)])
    >>> two_points.denoise(np.array([[0.5]]), 0.8).round(6)  # tanh(.5 / .64)
    array([[0.653424]])
    """

    has_flow = False

    def __init__(self, models: Sequence[Any], weights: Sequence[float] | None = None):
        models = several(models)
        super().__init__(*models)
        check_same_space(models)
        without = [type(model).__name__ for model in models if not model.has_log_prob]
        if without:
            raise ValueError(
                f"every model of a superposition needs an exact log_prob; {without[0]} has none."
            )
        weights = np.ones(len(models)) if weights is None else np.asarray(weights, dtype=float)
        if weights.shape != (len(models),) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError(
                f"weights must hold one positive number per model ({len(models)}); "
                f"got {weights.tolist()!r}."
            )
        self.weights = tuple((weights / weights.sum()).tolist())

    @property
    def models(self) -> tuple[BaseScoreModel, ...]:
        """The components."""
        return self._models

    def _each(self, name, x, sigma, *arguments, condition):
        """One hook of every component, stacked along a new first axis."""
        return namespace(x).stack(
            [
                getattr(model, name)(x, sigma, *arguments, **self._condition(model, condition))
                for model in self._models
            ]
        )

    def _joint(self, x, sigma, condition):
        """Log-densities of the components and their weights at each row, shape ``(k, n)``."""
        log_prob = self._each("_log_prob", x, sigma, condition=condition)
        return log_prob + like(np.log(self.weights), x)[:, None]

    def _responsibilities(self, x, sigma, condition):
        xp, joint = namespace(x), self._joint(x, sigma, condition)
        shares = xp.exp(joint - xp.max(joint, axis=0, keepdims=True))
        return shares / xp.sum(shares, axis=0, keepdims=True)

    def _log_prob(self, x, sigma, **condition):
        xp, joint = namespace(x), self._joint(x, sigma, condition)
        top = xp.max(joint, axis=0)
        return top + xp.log(xp.sum(xp.exp(joint - top[None]), axis=0))

    def _averaged(self, name, x, sigma, condition):
        xp, shares = namespace(x), self._responsibilities(x, sigma, condition)
        fields = self._each(name, x, sigma, condition=condition)
        return xp.sum(shares[..., None] * fields, axis=0)

    def _score(self, x, sigma, **condition):
        return self._averaged("_score", x, sigma, condition)

    def _denoise(self, x, sigma, **condition):
        return self._averaged("_denoise", x, sigma, condition)

    def _spread(self, field, x, sigma, condition):
        """Responsibilities, deviations of the field and of the score from their averages."""
        xp, shares = namespace(x), self._responsibilities(x, sigma, condition)[..., None]
        scores = self._each("_score", x, sigma, condition=condition)
        tilt = scores - xp.sum(shares * scores, axis=0)
        if field == "score":
            return shares, tilt, tilt
        fields = self._each("_denoise", x, sigma, condition=condition)
        return shares, fields - xp.sum(shares * fields, axis=0), tilt

    def _jacobian_of(self, field, x, sigma, condition):
        xp = namespace(x)
        shares, spread, tilt = self._spread(field, x, sigma, condition)
        inner = self._each(f"_{field}_jacobian", x, sigma, condition=condition)
        outer = spread[..., :, None] * tilt[..., None, :]
        return xp.sum(shares[..., None] * (inner + outer), axis=0)

    def _jvp_of(self, field, x, sigma, v, condition):
        xp = namespace(x)
        shares, spread, tilt = self._spread(field, x, sigma, condition)
        inner = self._each(f"_{field}_jvp", x, sigma, v, condition=condition)
        along = xp.sum(tilt * v, axis=-1, keepdims=True)
        return xp.sum(shares * (inner + spread * along), axis=0)

    def _divergence_of(self, field, x, sigma, condition):
        xp = namespace(x)
        shares, spread, tilt = self._spread(field, x, sigma, condition)
        inner = self._each(f"_{field}_divergence", x, sigma, condition=condition)
        return xp.sum(shares[..., 0] * (inner + xp.sum(spread * tilt, axis=-1)), axis=0)

    def _score_jacobian(self, x, sigma, **condition):
        return self._jacobian_of("score", x, sigma, condition)

    def _denoise_jacobian(self, x, sigma, **condition):
        return self._jacobian_of("denoise", x, sigma, condition)

    def _score_jvp(self, x, sigma, v, **condition):
        return self._jvp_of("score", x, sigma, v, condition)

    def _denoise_jvp(self, x, sigma, v, **condition):
        return self._jvp_of("denoise", x, sigma, v, condition)

    def _score_divergence(self, x, sigma, **condition):
        return self._divergence_of("score", x, sigma, condition)

    def _denoise_divergence(self, x, sigma, **condition):
        return self._divergence_of("denoise", x, sigma, condition)

    def _sample(self, n_samples, sigma, rng):
        labels = rng.choice(len(self._models), size=n_samples, p=self.weights)
        x = np.empty((n_samples, self.n_features))
        for k, model in enumerate(self._models):
            rows = labels == k
            level = sigma if np.ndim(sigma) == 0 else sigma[rows]
            x[rows] = model._sample(int(rows.sum()), level, rng)
        return x
