r"""BlindScore: a score model from any regressor, by not telling it the noise level.

.. math:: u = \alpha x_0 + \sigma\varepsilon, \qquad r = c\,x_0 + d\,\varepsilon, \qquad
          f = \operatorname{argmin} E |f(u) - r|^2 = E[r \mid u],

is regression of one table on another, without a time: trees, neighbours and networks of any library
will do. What is lost is the noise level. In many columns a point shows it anyway; a sampler reads
it from there (``clock="estimated"``), by a second regressor that is fitted alongside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.neural_network import MLPRegressor

from skdiffusion.estimators._moments import FullMoments
from skdiffusion.estimators._own_clock import check_level_estimator, fitted_level_estimator
from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.models import BlindModel, GaussianModel
from skdiffusion.noising import noise_range
from skdiffusion.schedules import check_schedule
from skdiffusion.targets import check_target, target_coefficients
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import check_count
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["BlindScore"]

TRAINING_ROWS, FEWEST_DRAWS = 50_000, 4
"""Noised rows to learn from, and draws of the noise per row at least."""


class BlindScore(BaseScoreEstimator):
    """Score model without noise conditioning, learned by any regressor.

    Parameters
    ----------
    estimator : regressor, optional
        That takes several outputs; a clone is fitted. By default a perceptron.
    target : {"data", "noise", "velocity", "v", "score", "edm", "equilibrium"}
        What it learns to predict (:mod:`skdiffusion.targets`). Data, the default, is the one whose
        errors a sampler does not amplify.
    schedule : str or NoiseSchedule
        The path of the points, and the spacing of noise levels.
    level_estimator : NoiseLevelEstimator, optional
        What reads the noise level off points, for samplers with an estimated clock; a clone is
        fitted.
    n_noise : int, optional
        Noised copies of each row; by default as many as make 50000 rows, four at least.
    likelihood, sampler, sigma_min, sigma_max
        As in :class:`GaussianScore`.
    random_state : None, int, Generator or RandomState
        Of the noise, and of the regressors where they have none of their own.

    Attributes
    ----------
    model_ : BlindModel
        The fitted score model.
    estimator_ : regressor
        The fitted regressor, from standardised points of the path to standardised targets.
    level_estimator_ : NoiseLevelEstimator
    scale_, sigma_min_, sigma_max_ : float
        Scale of the data and range of noise levels.
    far_field_ : GaussianModel
        The Gaussian with the same moments.

    References
    ----------
    M. Sahraee-Ardakan, M. Delbracio and P. Milanfar, "The Geometry of Noise: Why Diffusion
    Models Don't Need Noise Conditioning", 2026, equations 4 to 6.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from skdiffusion import BlindScore
    >>> from skdiffusion.datasets import make_concentric_circles
    >>> X, _ = make_concentric_circles(200, 16, random_state=0)
    >>> est = BlindScore(KNeighborsRegressor(10), n_noise=20, random_state=0).fit(X)
    >>> est.sample(3, random_state=0).shape
    (3, 16)
    """

    def __init__(
        self,
        estimator=None,
        *,
        target="data",
        schedule="flow_matching",
        level_estimator=None,
        n_noise=None,
        likelihood="denoising",
        sampler=None,
        sigma_min=None,
        sigma_max=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.target = target
        self.schedule = schedule
        self.level_estimator = level_estimator
        self.n_noise = n_noise
        self.likelihood = likelihood
        self.sampler = sampler
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.random_state = random_state

    def _schedule(self):
        return check_schedule(self.schedule)

    def _sampler(self, sampler=None):
        # levels that are read off points are too rough for what gains from many of them
        return super()._sampler("euler" if sampler is None and self.sampler is None else sampler)

    @whole_or_not_at_all
    def fit(self, X: Any, y: Any = None):
        """Noise the rows and fit the regressors.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows.
        y : ignored

        Returns
        -------
        BlindScore

        Raises
        ------
        ValueError
            If ``X`` has no variance or a parameter is out of its range.
        """
        self._check_parameters()
        check_target(self.target)
        check_level_estimator(self.level_estimator)
        schedule = self._schedule()
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        moments = FullMoments(X.shape[1])
        moments.update(X, np.ones(len(X)))
        variances = moments.column_variances()
        if not variances.any():
            raise ValueError("X has no variance: all of its rows are the same.")
        scale, low, high = noise_range(variances, self.sigma_min, self.sigma_max)
        draws = max(TRAINING_ROWS // len(X), FEWEST_DRAWS)
        draws = draws if self.n_noise is None else check_count(self.n_noise, "n_noise")
        rng = as_generator(self.random_state)

        estimator = MLPRegressor(hidden_layer_sizes=(128, 128), early_stopping=True)
        estimator = clone(estimator if self.estimator is None else self.estimator)
        if estimator.get_params().get("random_state", 0) is None:
            estimator.set_params(random_state=int(rng.integers(2**31)))
        data = np.repeat((X - moments.mean) / scale, draws, axis=0)
        times = schedule.time_of(low / scale), schedule.time_of(high / scale)
        estimator.fit(*_training_pairs(data, schedule, times, self.target, rng))

        seed = int(rng.integers(2**31))
        levels = fitted_level_estimator(self.level_estimator, X, low, high, seed)

        model = BlindModel(
            _Prediction(estimator),
            X.shape[1],
            schedule,
            self.target,
            moments.mean,
            scale,
            levels.predict_noise_level,
        )
        self._set_model(model, GaussianModel(moments.mean, moments.covariance()), variances)
        self.estimator_, self.level_estimator_ = estimator, levels
        return self


class _Prediction:
    """The field of a fitted regressor: one row of targets per point, even of one column."""

    def __init__(self, estimator):
        self.estimator = estimator

    def __call__(self, u):
        return np.asarray(self.estimator.predict(u), dtype=np.float64).reshape(len(u), -1)


def _training_pairs(data, schedule, times, target, rng):
    """Points of the path at random times, and what is to be said of them."""
    noise = rng.standard_normal(data.shape)
    time = rng.uniform(*times, (len(data), 1))
    alpha, sigma = schedule.alpha(time), schedule.sigma(time)
    c, d = target_coefficients(target, alpha, sigma, schedule.rates(time))
    targets = c * data + d * noise
    return alpha * data + sigma * noise, targets[:, 0] if targets.shape[1] == 1 else targets
