r"""Score models made of score models.

============================ ========================================== =====================
wrapper                      law at level :math:`\sigma`                 exact?
============================ ========================================== =====================
:class:`AffineModel`         :math:`x = b + S z` for :math:`z \sim p`   yes, with Jacobian
:class:`SmoothedModel`       :math:`p \star N(0, s^2 I)`                yes
:class:`IndependentModel`    :math:`p_1 \otimes p_2 \otimes \dots`     yes
:class:`SuperpositionModel`  :math:`\sum_i w_i\, p_i`                  yes, with Jacobian
:class:`SwitchedModel`       one model above a level, another below     teleportation
:class:`TemperedModel`       score divided by a temperature             at level 0 only
:class:`ProductModel`        :math:`\prod_i p_{i,\sigma}^{w_i}`        at level 0 only
============================ ========================================== =====================

The last two multiply densities level by level: their path ends in the tempered or
product density but is not the noising of it, so they have no ``log_prob``.
Each wrapper is itself a score model: wrap as deep as you like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.wrapper import Wrapper, check_same_space, several
from skdiffusion.utils.arrays import functions, like, namespace
from skdiffusion.utils.validation import check_number

__all__ = [
    "IndependentModel",
    "ProductModel",
    "SmoothedModel",
    "SwitchedModel",
    "TemperedModel",
]


class SmoothedModel(Wrapper):
    r"""The inner law blurred once more: :math:`p_0 \star N(0, s^2 I)`.

    Its score at level :math:`\sigma` is the inner score at
    :math:`\sqrt{\sigma^2 + s^2}`; its data always have a density. Where the noise of the inner
    model differs by column, the blur does as well.

    Parameters
    ----------
    model : BaseScoreModel
    noise : float
        Standard deviation :math:`s > 0` of the blur.
    """

    has_density = True

    def __init__(self, model: Any, noise: float):
        super().__init__(model)
        self.noise = check_number(noise, "noise", above=0)
        if self.noise > model.sigma_range[1]:
            raise ValueError(
                f"noise must not exceed the model's largest noise level, "
                f"{model.sigma_range[1]:g}; got {self.noise:g}."
            )

    @property
    def model(self) -> BaseScoreModel:
        """The inner model."""
        return self._models[0]

    @property
    def sigma_range(self):
        """Noise levels between which the model may be asked."""
        low, high = self.model.sigma_range
        return max(low**2 - self.noise**2, 0.0) ** 0.5, (high**2 - self.noise**2) ** 0.5

    def _level(self, sigma):
        return functions(sigma).sqrt(sigma**2 + self.noise**2)

    def _weight(self, sigma):
        return sigma**2 / (sigma**2 + self.noise**2)

    def _score(self, x, sigma, **condition):
        return self.model._score(x, self._level(sigma), **condition)

    def _denoise(self, x, sigma, **condition):
        weight = self._weight(sigma)
        return (1 - weight) * x + weight * self.model._denoise(x, self._level(sigma), **condition)

    def _log_prob(self, x, sigma, **condition):
        return self.model._log_prob(x, self._level(sigma), **condition)

    def _score_jacobian(self, x, sigma, **condition):
        return self.model._score_jacobian(x, self._level(sigma), **condition)

    def _denoise_jacobian(self, x, sigma, **condition):
        weight = self._weight(sigma)
        weight = weight[..., None] if np.ndim(weight) else weight
        inner = self.model._denoise_jacobian(x, self._level(sigma), **condition)
        return (1 - weight) * self._identity(x) + weight * inner

    def _score_jvp(self, x, sigma, v, **condition):
        return self.model._score_jvp(x, self._level(sigma), v, **condition)

    def _denoise_jvp(self, x, sigma, v, **condition):
        weight = self._weight(sigma)
        inner = self.model._denoise_jvp(x, self._level(sigma), v, **condition)
        return (1 - weight) * v + weight * inner

    def _score_divergence(self, x, sigma, **condition):
        return self.model._score_divergence(x, self._level(sigma), **condition)

    def _denoise_divergence(self, x, sigma, **condition):
        weight = self._weight(sigma)
        weight = weight[..., 0] if np.ndim(weight) else weight
        inner = self.model._denoise_divergence(x, self._level(sigma), **condition)
        return (1 - weight) * self.n_features + weight * inner

    def _flow(self, x, sigma_from, sigma_to):
        return self.model._flow(x, self._level(sigma_from), self._level(sigma_to))

    def _to_latent(self, x, sigma):
        return self.model._to_latent(x, self._level(sigma))

    def _from_latent(self, z, sigma):
        return self.model._from_latent(z, self._level(sigma))

    def _sample(self, n_samples, sigma, rng):
        return self.model._sample(n_samples, self._level(sigma), rng)


class IndependentModel(Wrapper):
    r"""Independent blocks of consecutive columns: :math:`p_1 \otimes p_2 \otimes \dots`

    Parameters
    ----------
    models : sequence of BaseScoreModel
        One per block, in the order of the columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> line_in_space = IndependentModel(
    ...     [GaussianModel([0.0], 1.0), GaussianModel([0.0, 0.0], 0.0)]
    ... )
    >>> line_in_space.denoise(np.array([[1.0, 1.0, 1.0]]), 1.0)
    array([[0.5, 0. , 0. ]])
    """

    def __init__(self, models: Sequence[Any]):
        models = several(models)
        super().__init__(*models)
        ends = np.cumsum([model.n_features for model in models])
        self._slices = [
            slice(end - model.n_features, end) for model, end in zip(models, ends, strict=True)
        ]
        self.n_features = int(ends[-1])

    @property
    def models(self) -> tuple[BaseScoreModel, ...]:
        """The blocks."""
        return self._models

    @property
    def noise_scale(self):
        """Standard deviation of the noise per column at level one."""
        scales = [m.noise_scale for m in self._models]
        if all(isinstance(s, float) for s in scales):
            return 1.0
        return np.concatenate(
            [np.broadcast_to(s, m.n_features) for s, m in zip(scales, self._models, strict=True)]
        )

    def _blocks(self, name, x, *arguments, **condition):
        return [
            getattr(model, name)(x[:, columns], *arguments, **self._condition(model, condition))
            for model, columns in zip(self._models, self._slices, strict=True)
        ]

    def _joined(self, name, x, *arguments, **condition):
        return namespace(x).concat(self._blocks(name, x, *arguments, **condition), axis=1)

    def _score(self, x, sigma, **condition):
        return self._joined("_score", x, sigma, **condition)

    def _denoise(self, x, sigma, **condition):
        return self._joined("_denoise", x, sigma, **condition)

    def _log_prob(self, x, sigma, **condition):
        return sum(self._blocks("_log_prob", x, sigma, **condition))

    def _block_diagonal(self, name, x, sigma, **condition):
        xp = namespace(x)
        rows = []
        for block, columns in zip(
            self._blocks(name, x, sigma, **condition), self._slices, strict=True
        ):
            n, d = x.shape[0], block.shape[-1]
            empty = like(np.zeros((1, 1, 1)), x)
            left = xp.broadcast_to(empty, (n, d, columns.start))
            right = xp.broadcast_to(empty, (n, d, self.n_features - columns.stop))
            rows.append(xp.concat([left, block, right], axis=2))
        return xp.concat(rows, axis=1)

    def _score_jacobian(self, x, sigma, **condition):
        return self._block_diagonal("_score_jacobian", x, sigma, **condition)

    def _denoise_jacobian(self, x, sigma, **condition):
        return self._block_diagonal("_denoise_jacobian", x, sigma, **condition)

    def _joined_jvp(self, name, x, sigma, v, condition):
        return namespace(x).concat(
            [
                getattr(model, name)(
                    x[:, columns], sigma, v[:, columns], **self._condition(model, condition)
                )
                for model, columns in zip(self._models, self._slices, strict=True)
            ],
            axis=1,
        )

    def _score_jvp(self, x, sigma, v, **condition):
        return self._joined_jvp("_score_jvp", x, sigma, v, condition)

    def _denoise_jvp(self, x, sigma, v, **condition):
        return self._joined_jvp("_denoise_jvp", x, sigma, v, condition)

    def _score_divergence(self, x, sigma, **condition):
        return sum(self._blocks("_score_divergence", x, sigma, **condition))

    def _denoise_divergence(self, x, sigma, **condition):
        return sum(self._blocks("_denoise_divergence", x, sigma, **condition))

    def _flow(self, x, sigma_from, sigma_to):
        return self._joined("_flow", x, sigma_from, sigma_to)

    def _to_latent(self, x, sigma):
        return self._joined("_to_latent", x, sigma)

    def _from_latent(self, z, sigma):
        return self._joined("_from_latent", z, sigma)

    def _sample(self, n_samples, sigma, rng):
        return np.hstack([model._sample(n_samples, sigma, rng) for model in self._models])


class SwitchedModel(Wrapper):
    r"""One model from a noise level upwards, another below it.

    With a Gaussian above and a learned model below this is the hybrid of analytical
    teleportation (Wang & Vastola 2024, section 5).

    Parameters
    ----------
    high, low : BaseScoreModel
        Models for levels at or above ``sigma`` and below it.
    sigma : float
        The level of the hand-over.
    """

    has_density = property(lambda self: self.low.has_density)
    has_log_prob = has_sample = has_flow = False

    def __init__(self, high: Any, low: Any, sigma: float):
        super().__init__(high, low)
        check_same_space(self._models)
        self.sigma = check_number(sigma, "sigma", above=0)
        if not high.sigma_range[0] <= self.sigma <= low.sigma_range[1]:
            raise ValueError(
                f"the hand-over must be a noise level of both models: high starts at "
                f"{high.sigma_range[0]:g}, low ends at {low.sigma_range[1]:g}; got {self.sigma:g}."
            )

    @property
    def high(self) -> BaseScoreModel:
        """Model at and above the hand-over."""
        return self._models[0]

    @property
    def low(self) -> BaseScoreModel:
        """Model below the hand-over."""
        return self._models[1]

    @property
    def sigma_range(self):
        """Noise levels between which the model may be asked."""
        return self.low.sigma_range[0], self.high.sigma_range[1]

    def _pick(self, name, x, sigma, *arguments, condition):
        low_condition = self._condition(self.low, condition)
        high_condition = self._condition(self.high, condition)
        if isinstance(sigma, float):
            if sigma >= self.sigma:
                return getattr(self.high, name)(x, sigma, *arguments, **high_condition)
            return getattr(self.low, name)(x, sigma, *arguments, **low_condition)
        xp = namespace(x)
        # both sides are evaluated, each at a level it is defined for
        at_or_above = xp.where(sigma >= self.sigma, sigma, self.sigma)
        below = xp.where(sigma < self.sigma, sigma, self.sigma)
        high = getattr(self.high, name)(x, at_or_above, *arguments, **high_condition)
        low = getattr(self.low, name)(x, below, *arguments, **low_condition)
        pick = xp.reshape(sigma >= self.sigma, (-1,) + (1,) * (high.ndim - 1))
        return xp.where(pick, high, low)

    def _score(self, x, sigma, **condition):
        return self._pick("_score", x, sigma, condition=condition)

    def _denoise(self, x, sigma, **condition):
        return self._pick("_denoise", x, sigma, condition=condition)

    def _score_jacobian(self, x, sigma, **condition):
        return self._pick("_score_jacobian", x, sigma, condition=condition)

    def _denoise_jacobian(self, x, sigma, **condition):
        return self._pick("_denoise_jacobian", x, sigma, condition=condition)

    def _score_jvp(self, x, sigma, v, **condition):
        return self._pick("_score_jvp", x, sigma, v, condition=condition)

    def _denoise_jvp(self, x, sigma, v, **condition):
        return self._pick("_denoise_jvp", x, sigma, v, condition=condition)

    def _score_divergence(self, x, sigma, **condition):
        return self._pick("_score_divergence", x, sigma, condition=condition)

    def _denoise_divergence(self, x, sigma, **condition):
        return self._pick("_denoise_divergence", x, sigma, condition=condition)


class ProductModel(Wrapper):
    r"""Weighted product of experts: the score is :math:`\sum_i w_i \nabla \log p_{i,\sigma}`.

    At level zero the field of :math:`\prod_i p_i^{w_i}`; above it not the noising of
    that density, so samples are approximate (Du et al. 2023).

    Parameters
    ----------
    models : sequence of BaseScoreModel
    weights : sequence of float, optional
        Exponents :math:`w_i`; ones by default.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> a, b = GaussianModel([0.0], 1.0), GaussianModel([2.0], 1.0)
    >>> ProductModel([a, b]).score(np.array([[1.0]]), 0.0)
    array([[0.]])
    """

    has_log_prob = has_sample = has_flow = False

    def __init__(self, models: Sequence[Any], weights: Sequence[float] | None = None):
        models = several(models)
        super().__init__(*models)
        check_same_space(models)
        weights = [1.0] * len(models) if weights is None else [float(w) for w in weights]
        if len(weights) != len(models) or not np.isfinite(weights).all():
            raise ValueError(
                f"weights must hold one finite number per model ({len(models)}); got {weights!r}."
            )
        self.weights = tuple(weights)

    @property
    def models(self) -> tuple[BaseScoreModel, ...]:
        """The factors."""
        return self._models

    def _weighted(self, name, x, sigma, *arguments, condition):
        return sum(
            weight * getattr(model, name)(x, sigma, *arguments, **self._condition(model, condition))
            for weight, model in zip(self.weights, self._models, strict=True)
        )

    def _score(self, x, sigma, **condition):
        return self._weighted("_score", x, sigma, condition=condition)

    def _score_jacobian(self, x, sigma, **condition):
        return self._weighted("_score_jacobian", x, sigma, condition=condition)

    def _score_jvp(self, x, sigma, v, **condition):
        return self._weighted("_score_jvp", x, sigma, v, condition=condition)

    def _score_divergence(self, x, sigma, **condition):
        return self._weighted("_score_divergence", x, sigma, condition=condition)


class TemperedModel(ProductModel):
    r"""The score divided by a temperature: :math:`\nabla \log p_\sigma / T`.

    Parameters
    ----------
    model : BaseScoreModel
    temperature : float
        Below one sharpens, above one flattens.
    """

    def __init__(self, model: Any, temperature: float):
        temperature = check_number(temperature, "temperature", above=0)
        super().__init__([model], [1.0 / temperature])
        self.temperature = temperature
