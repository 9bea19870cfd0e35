r"""PretrainedScore: a network trained elsewhere, with the manners of an estimator.

The weights are what they are. What an estimator needs besides the denoiser is learnt from rows:

.. math:: \mu,\ C \quad\text{(the Gaussian that the noised law tends to)}, \qquad
          [\sigma_{\min}, \sigma_{\max}] \quad\text{(where there is something to denoise)},

the latter cut to the levels that the network was made for. Samples, densities, fields and
latent codes then are those of every score estimator.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._moments import DiagonalMoments
from skdiffusion.estimators._own_clock import (
    OwnClock,
    check_level_estimator,
    fitted_level_estimator,
    some_rows,
)
from skdiffusion.estimators._sampling import DEFAULT_STEPS
from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.estimators.gaussian import FULL_UP_TO, GaussianScore
from skdiffusion.models import GaussianModel, as_score_model
from skdiffusion.models.external import check_shape, labels_beside
from skdiffusion.noising import noise_range, perturb
from skdiffusion.schedules import check_schedule
from skdiffusion.utils.rows import check_rows, check_weights
from skdiffusion.utils.warning import warn_user
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["PretrainedScore"]

REGULARISATION = 1e-6
"""Share of each column's variance added to the covariance of the far field."""
SMALLEST_BATCH, NUMBERS_PER_BATCH = 256, 2**18
N_TRIED = 64
"""Rows on which ``fit`` tries the model."""


class PretrainedScore(OwnClock, BaseScoreEstimator):
    r"""Score estimator around a model that was trained elsewhere.

    Parameters
    ----------
    model : torch.nn.Module, callable, diffusers pipeline, score model or fitted estimator
        The denoiser in whatever form :func:`skdiffusion.as_score_model` takes. It is
        never copied: clones of the estimator share it.
    schedule : str, NoiseSchedule, diffusers scheduler or None
        The schedule the model was trained with, that of its arguments ``(x_t, t)``; ``None``
        means ``(x, sigma)`` at noise levels. Default of ``at_time``, too.
    prediction : {"noise", "data", "velocity", "v", "score", "edm"}, optional
        What the model returns. Schedulers of diffusers say so themselves.
    input_shape : tuple of int, optional
        Shape of a row as the model takes it, ``(channels, height, width)`` for images.
    sigma_data : float
        For ``prediction="edm"``: the standard deviation in EDM's coefficients.
    backend : {"torch", "numpy", None}
        What the model computes with (modules: torch).
    sigma_range : tuple of float, optional
        The noise levels the model was trained at; it is asked at no others. By default all, or
        those its scheduler was made for.
    noise_conditioning : bool
        Whether the model is told the noise level. If not it is called with ``x_t`` alone, on the
        path of its schedule, and samplers go by the level that their points seem to have
        (``clock="estimated"``), unless theirs is another clock.
    level_estimator : NoiseLevelEstimator, optional
        What reads that level; by default one of boosted trees, fitted to ``X``.
    batch_size : int, optional
        Largest number of rows in one call of the model, which bounds its memory; by default as
        many as hold a quarter of a million numbers, and 256 at least.
    conditional : bool, optional
        Whether the model takes labels as a third argument where there are some: class-conditional
        networks of diffusers and EDM say so themselves.
    likelihood : {"denoising", "ode"}
        What ``score`` is: the denoising bound, or the mean log-density along the flow.
    spacing : "auto", str or NoiseSchedule
        Spacing of noise levels for samplers and trajectories: evenly in the time of a schedule, at
        its own levels, or ``"auto"``, by the spectrum of the data where that suits the sampler.
    sampler : str, BaseSampler or None
        Default of ``sample``; ``None`` is Adams' multistep method.
    sigma_min, sigma_max : float, optional
        Range of noise levels in the units of ``X``; by default from the data and the model.

    Attributes
    ----------
    model_ : BaseScoreModel
        The score model around ``model``.
    far_field_ : GaussianModel
        The Gaussian with the moments of the data, the covariance shrunk (Ledoit & Wolf), of low
        rank above 1024 columns.
    level_estimator_ : NoiseLevelEstimator
        Only where the model is not told the level, and there were rows to learn from.
    scale_, sigma_min_, sigma_max_ : float
        Scale of the data and range of noise levels.

    See Also
    --------
    skdiffusion.models.AffineModel : for a model of data in other units,
        ``PretrainedScore(AffineModel(as_score_model(...), shift, scale))``.

    Notes
    -----
    ``fit`` tries the model on a few noised rows, at the scale of the data, and warns where
    leaving the rows as they are would be the better denoiser: the usual sign of a wrong
    schedule, prediction or unit.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GaussianScore, PretrainedScore
    >>> X = load_iris().data
    >>> network = GaussianScore().fit(X).at_time("vp").predict_noise  # as good as any
    >>> est = PretrainedScore(network, schedule="vp", prediction="noise").fit(X)
    >>> est.sample(2, random_state=0).shape
    (2, 4)
    >>> bool(abs(est.score(X) - GaussianScore().fit(X).score(X)) < 0.01)
    True
    """

    def __init__(
        self,
        model,
        *,
        schedule=None,
        prediction=None,
        input_shape=None,
        sigma_data=0.5,
        backend=None,
        sigma_range=None,
        noise_conditioning=True,
        level_estimator=None,
        batch_size=None,
        conditional=None,
        likelihood="denoising",
        spacing="auto",
        sampler=None,
        sigma_min=None,
        sigma_max=None,
    ):
        self.model = model
        self.schedule = schedule
        self.prediction = prediction
        self.input_shape = input_shape
        self.sigma_data = sigma_data
        self.backend = backend
        self.sigma_range = sigma_range
        self.noise_conditioning = noise_conditioning
        self.level_estimator = level_estimator
        self.batch_size = batch_size
        self.conditional = conditional
        self.likelihood = likelihood
        self.spacing = spacing
        self.sampler = sampler
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None):
        """Learn what the data say besides the model: far field, scale and noise range.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows, in the units the model was trained in.
        y : array-like of shape (n_samples,), optional
            Labels, with which a conditional model is tried; ignored by others.
        sample_weight : array-like of shape (n_samples,), optional
            A weight of 2 equals a repeated row, a weight of 0 its absence.

        Returns
        -------
        PretrainedScore

        Raises
        ------
        ValueError
            If ``X`` is not finite, has fewer than two rows or no variance, the model does not
            take rows of its width, or a parameter is out of its range.

        Warns
        -----
        UserWarning
            If the model denoises the rows worse than by leaving them as they are.
        """
        self._check_parameters()
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        weights = check_weights(sample_weight, len(X))
        moments = DiagonalMoments(X.shape[1])
        moments.update(X, weights)
        form = "ledoit_wolf" if X.shape[1] <= FULL_UP_TO else "low_rank"
        gaussian = GaussianScore(form, reg_covar=REGULARISATION, random_state=0)
        gaussian.fit(X, sample_weight=weights)
        model = self._score_model(X.shape[1])
        tried = np.flatnonzero(weights)[:N_TRIED]
        labels = None
        if model.is_conditional and y is not None:
            labels = labels_beside(X, y)[tried]
        _try(model, X[tried], labels, gaussian.scale_)
        self._set_model(model, gaussian.far_field_, moments.column_variances())
        self._set_clock(X, weights)
        return self

    @classmethod
    def from_parameters(cls, model, mean, covariance, **params):
        """A fitted estimator without data, from the moments that the data are known to have.

        Parameters
        ----------
        model : torch.nn.Module, callable, diffusers pipeline or score model
        mean : array-like of shape (n_features,)
        covariance : float, array-like of shape (n_features,) or (n_features, n_features)
            One variance for all columns, the diagonal, or the matrix.
        **params
            Constructor parameters.

        Returns
        -------
        PretrainedScore

        Examples
        --------
        >>> est = PretrainedScore.from_parameters(
        ...     lambda x, sigma: x / (1 + sigma[:, None] ** 2), [0.0, 0.0], 1.0, prediction="data")
        >>> est.denoise([[2.0, 4.0]], sigma=1.0)
        array([[1., 2.]])
        """
        self = cls(model, **params)
        self._check_parameters()
        far_field = GaussianModel(mean, covariance)
        score_model = self._score_model(far_field.n_features)
        self.n_features_in_ = far_field.n_features
        self._set_model(score_model, far_field, far_field.covariance.diagonal)
        return self

    def _check_parameters(self):
        super()._check_parameters()
        check_level_estimator(self.level_estimator)

    def _set_clock(self, X, weights):
        """Learn to read the level of rows, where the model is not told it."""
        if hasattr(self, "level_estimator_"):
            del self.level_estimator_
        if not self.noise_conditioning:
            rows = np.unique(X[some_rows(np.flatnonzero(weights), X.shape[1])], axis=0)
            self.level_estimator_ = fitted_level_estimator(
                self.level_estimator, rows, self.sigma_min_, self.sigma_max_, 0
            )

    def _score_model(self, n_features):
        shape = (n_features,) if self.input_shape is None else check_shape(self.input_shape)
        if math.prod(shape) != n_features:
            raise ValueError(
                f"X has {n_features} columns, but input_shape {shape} holds "
                f"{math.prod(shape)} numbers."
            )
        batch_size = self.batch_size
        if batch_size is None:
            batch_size = max(SMALLEST_BATCH, NUMBERS_PER_BATCH // n_features)
        model = as_score_model(
            self.model,
            schedule=self.schedule,
            prediction=self.prediction,
            n_features=n_features,
            input_shape=self.input_shape,
            sigma_data=self.sigma_data,
            backend=self.backend,
            sigma_range=self.sigma_range,
            noise_conditioning=self.noise_conditioning,
            batch_size=batch_size,
            conditional=self.conditional,
        )
        if model.n_features != n_features:
            raise ValueError(f"X has {n_features} columns, but the model {model.n_features}.")
        return model

    def _set_model(self, model, far_field, column_variances):
        low, high = model.sigma_range
        for name in ("sigma_min", "sigma_max"):
            level = getattr(self, name)
            if level is not None and not low <= level <= high:
                raise ValueError(
                    f"{name} must lie within the noise levels of the model, {low:g} to {high:g}; "
                    f"got {level:g}."
                )
        _, first, last = noise_range(column_variances, self.sigma_min, self.sigma_max)
        if max(first, low) >= min(last, high):
            raise ValueError(
                f"the data ask for noise levels from {first:.3g} to {last:.3g}, the model knows "
                f"those from {low:.3g} to {high:.3g}: X must be in the units it was trained in."
            )
        super()._set_model(model, far_field, column_variances)
        self.sigma_min_, self.sigma_max_ = max(first, low), min(last, high)

    # ------------------------------------------------------------------ what differs

    def at_time(self, schedule: Any = None):
        """The ``(x_t, t)`` view of the model in a schedule's coordinates.

        Parameters
        ----------
        schedule : str or NoiseSchedule, optional
            By default the one the model was trained with.

        Returns
        -------
        AtTime
            With ``score``, ``velocity``, ``predict_noise``, ``drift``, ``diffusion``.
        """
        check_is_fitted(self)
        return self.model_.at_time(schedule or getattr(self.model_, "schedule", "edm"))

    def noise_levels(self, n_steps: int | None = None, sampler: Any = None) -> np.ndarray:
        """Decreasing noise levels of a sampler, in the units of ``X``, without the final zero.

        Parameters
        ----------
        n_steps : int, optional
            How many; 32 by default.
        sampler : str or BaseSampler, optional
            Which sampler they are for; by default the one that :meth:`sample` takes.

        Returns
        -------
        ndarray of shape (n_steps,)
        """
        check_is_fitted(self)
        schedule = self._schedule()
        if schedule is None:
            return super().noise_levels(n_steps, sampler)
        n_steps = DEFAULT_STEPS if n_steps is None else n_steps
        # not in units of scale_: the model knows its schedule at the levels it was trained at
        return schedule.grid(n_steps, sigma_min=self.sigma_min_, sigma_max=self.sigma_max_)

    def _schedule(self):
        if isinstance(self.spacing, str) and self.spacing == "auto":
            return None
        return check_schedule(self.spacing, or_else="'auto' or a NoiseSchedule instance")

    def __sklearn_clone__(self):
        # what cannot be trained need not be copied, and may be large
        light = copy.copy(self)
        light.model = None
        clone = BaseEstimator.__sklearn_clone__(light)
        clone.model = self.model
        return clone


def _try(model, rows, y, scale):
    """Warn of a model that makes noised rows worse."""
    level = float(np.clip(scale, *model.sigma_range))
    _, noise = perturb(rows, level, 0)
    noise = level * np.asarray(model.noise_scale) * noise
    error, before = model.denoise(rows + noise, level, y=y) - rows, np.mean(noise**2)
    if not np.mean(error**2) <= before:
        warn_user(
            f"at noise level {level:.3g} the model denoises rows of X worse than by leaving them "
            f"as they are (mean squared error {np.mean(error**2):.3g} after, {before:.3g} before): "
            "are schedule, prediction and the units of X those it was trained with?",
        )
