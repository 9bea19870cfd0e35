r"""Sampling trajectories to look at: given, or drawn from an estimator or a model.

In coordinates where the noise is isotropic, beside the Gaussian far field :math:`N(\mu, C)` of
their law. Where only the points are known, the moments are those of the end points, and the
denoised point that a step was made with is read off the step,

.. math:: D_k = \frac{x_{k+1} - \rho_k x_k}{1 - \rho_k}, \qquad \rho_k = \sigma_{k+1}/\sigma_k,

exactly for a first-order step and to the order of the method for others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.flow import isotropic_view
from skdiffusion.models import BaseScoreModel, GaussianModel
from skdiffusion.noising import noise_range
from skdiffusion.samplers import check_sampler, run_sampler, spectral_levels
from skdiffusion.utils.covariance import covariance_of
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count

__all__ = ["Paths", "as_paths"]

STEPS = 64


class Paths(NamedTuple):
    """Points ``(K + 1, n, d)`` at falling levels ``(K + 1,)``, their far field, and their model."""

    points: np.ndarray
    levels: np.ndarray
    far_field: GaussianModel
    model: Any = None

    def denoised(self) -> tuple[np.ndarray, np.ndarray]:
        """Denoised points ``(m, n, d)`` and the levels ``(m,)`` they belong to, none of them zero.

        By the model where there is one, else read off the steps: the middle of each is its level.
        """
        if self.model is not None:
            positive = self.levels > 0
            levels = self.levels[positive]
            seen = [
                self.model.denoise(x, float(level))
                for x, level in zip(self.points[positive], levels, strict=True)
            ]
            return np.stack(seen), levels
        ratio = (self.levels[1:] / self.levels[:-1])[:, None, None]
        seen = (self.points[1:] - ratio * self.points[:-1]) / (1 - ratio)
        ends = self.levels[1:].copy()
        if ends[-1] == 0:  # the last step is the denoised point at its beginning
            ends[-1] = self.levels[-2]
        return seen, np.sqrt(self.levels[:-1] * ends)


def as_paths(
    source: Any,
    levels: Any,
    far_field: Any,
    *,
    n_samples: int,
    n_steps: int | None,
    sampler: Any,
    random_state: Any,
) -> Paths:
    """Paths of an estimator or a model, or those given by their points and levels."""
    if isinstance(source, FrozenEstimator):
        source = source.estimator
    how = {"n_samples": n_samples, "n_steps": n_steps, "random_state": random_state}
    if isinstance(source, BaseScoreModel):
        return _of_model(source, levels, far_field, sampler, **how)
    if isinstance(source, BaseScoreEstimator):
        if levels is not None or far_field is not None:
            raise ValueError("an estimator has its own levels and far field: give neither.")
        return _of_estimator(source, sampler, **how)
    try:
        points = np.asarray(source, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 3 or len(points) < 3 or not points.size:
        raise ValueError(
            "a fitted estimator, a score model or a trajectory of shape (n_levels, n_samples, "
            f"n_features) with at least three levels is needed; got {type(source).__name__} of "
            f"shape {np.shape(source)}."
        )
    if not np.isfinite(points).all():
        raise ValueError("a trajectory must be finite.")
    what = f"the {len(points)} falling noise levels of the trajectory"
    levels = _falling(levels, len(points), what)
    return Paths(points, levels, _far_field(far_field, points))


def _falling(levels, n, what):
    """Levels as an array, ``n`` of them or at least two."""
    try:
        values = np.asarray([] if levels is None else levels, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    shaped = values.ndim == 1 and (len(values) > 1 if n is None else len(values) == n)
    if not shaped or not (np.diff(values) < 0).all() or not 0 <= values[-1] < values[0] < np.inf:
        raise ValueError(f"levels must be {what}, the last at least zero; got {levels!r}.")
    return values


def _of_estimator(estimator, sampler, *, n_samples, n_steps, random_state):
    """Paths as the estimator draws them, with the final zero."""
    check_is_fitted(estimator)
    sampler = _plain_flow(estimator._sampler(sampler))
    n_steps = STEPS if n_steps is None else check_count(n_steps, "n_steps", 2)
    _, points = estimator.sample(
        check_count(n_samples, "n_samples"),
        sampler=sampler,
        n_steps=n_steps,
        random_state=random_state,
        return_trajectory=True,
    )
    levels = np.append(estimator.noise_levels(n_steps, sampler), 0.0)
    model, far_field, scale = isotropic_view(estimator.model_, estimator.far_field_)
    return Paths(np.asarray(points, dtype=np.float64) / scale, levels, far_field, model)


def _of_model(model, levels, far_field, sampler, *, n_samples, n_steps, random_state):
    """Paths from draws of the far field, at levels placed by its spectrum."""
    if far_field is None:
        far_field = _own_moments(model)
    far_field = _checked(far_field, model.n_features)
    model, far_field, _ = isotropic_view(model, far_field)
    if levels is None:
        n_steps = STEPS if n_steps is None else check_count(n_steps, "n_steps", 2)
        reach = noise_range(far_field.covariance.diagonal)
        low = max(reach.sigma_min, model.sigma_range[0])
        high = min(reach.sigma_max, model.sigma_range[1])
        levels = np.append(spectral_levels(far_field.covariance, n_steps, low, high), 0.0)
    levels = _falling(levels, None, "at least two falling noise levels")
    rng = as_generator(random_state)
    codes = rng.standard_normal((check_count(n_samples, "n_samples"), model.n_features))
    _, points = run_sampler(
        _plain_flow(check_sampler("adams" if sampler is None else sampler)),
        model,
        far_field.from_latent(codes, levels[0]),
        levels,
        far_field=far_field,
        return_trajectory=True,
    )
    return Paths(points, levels, far_field, model)


def _own_moments(model):
    if isinstance(model, GaussianModel):
        return model
    if not hasattr(model, "gaussian"):
        raise ValueError(
            f"a {type(model).__name__} does not know its own moments: give far_field=."
        )
    return model.gaussian()


def _plain_flow(sampler):
    if sampler.stochastic or sampler.teleport is not False:
        raise ValueError(
            "paths are looked at along the probability flow and from the first level on: the "
            "sampler must neither draw noise nor teleport."
        )
    return sampler


def _far_field(far_field, points):
    if far_field is None:
        ends = points[-1]
        if len(ends) < 2 or not ends.var(axis=0).any():
            raise ValueError("one path has no moments: give far_field=.")
        return GaussianModel(ends.mean(axis=0), covariance_of(ends))
    return _checked(far_field, points.shape[2])


def _checked(far_field, n_features):
    if not isinstance(far_field, GaussianModel) or far_field.n_features != n_features:
        raise ValueError(
            f"far_field must be a GaussianModel of {n_features} columns; "
            f"got {type(far_field).__name__}."
        )
    return far_field
