r"""Denoiser: rows without their noise, or without what an attacker added to them.

The posterior mean :math:`D(x, \sigma) = E[x_0 \mid x]` is the estimate of least squared error of
the clean row. As a transformer it goes before a classifier: noise of training and test is removed
alike. Against perturbations chosen to mislead the classifier, noise is added first and removed
then (**purification**, Nie et al. 2022),

.. math:: x \mapsto D(x + \sigma \varepsilon, \sigma),

which forgets whatever is smaller than :math:`\sigma` and no feature of the law. The noise is keyed
by the row: the same row is purified the same way, alone and in a batch.

Where the level of the noise is not known it is estimated from the rows: with a law :math:`p` of
clean rows, the level whose :math:`p_\sigma` makes the noisy ones most likely,
:math:`\hat\sigma = \operatorname{argmax}_\sigma \sum_i \log p_\sigma(x_i)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.base import OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from skdiffusion.estimators import GMMScore
from skdiffusion.estimators.mixture import DEFAULT_REGULARISATION
from skdiffusion.models import as_score_model
from skdiffusion.models.base import check_columns
from skdiffusion.noising import check_spread
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.random import as_seed, normal_by_row
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import check_flag, check_number
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["Denoiser", "estimate_noise_level"]

DEFAULT_SHARE = 0.25
"""Of the standard deviations, the default noise level."""
PURIFYING_DRAWS = 4


class Denoiser(OneToOneFeatureMixin, TransformerMixin, Configurable):
    """Replaces rows by what a score model expects their clean versions to be.

    Parameters
    ----------
    estimator : score estimator, optional
        The law of clean rows; a clone is fitted, a ``FrozenEstimator`` is used as it is. By
        default a :class:`~skdiffusion.GMMScore` with its number of components by BIC.
    sigma : float, optional
        Level of the noise: in standard deviations of the columns, or in the units of ``X`` without
        ``standardize``. By default a quarter of the standard deviations.
    standardize : bool
        Whether the noise is in proportion to the columns' standard deviations, as in tables, or
        the same in all columns, as in images. The noise of a frozen estimator is its own.
    purify : bool
        Whether noise of that level is added before it is removed.
    random_state : int, None, Generator or RandomState
        Seed of the noise that is added, which is keyed by the rows.

    Attributes
    ----------
    estimator_ : score estimator
        The fitted law, of scaled columns where they are standardised.
    sigma_ : float
        The level that is removed.
    scaler_ : StandardScaler or None

    References
    ----------
    W. Nie et al., "Diffusion Models for Adversarial Purification", ICML 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion.compose import Denoiser
    >>> X = load_iris().data
    >>> noisy = X + np.random.default_rng(0).normal(scale=0.5, size=X.shape)
    >>> denoised = Denoiser(sigma=0.5, standardize=False).fit(X).transform(noisy)
    >>> errors = [float(np.sqrt(np.mean((Z - X) ** 2)).round(2)) for Z in (noisy, denoised)]
    >>> errors[0], errors[1] < 0.35
    (0.5, True)
    """

    def __init__(
        self, estimator=None, *, sigma=None, standardize=True, purify=False, random_state=0
    ):
        self.estimator = estimator
        self.sigma = sigma
        self.standardize = standardize
        self.purify = purify
        self.random_state = random_state

    @whole_or_not_at_all
    def fit(self, X, y=None):
        """Fit the law of clean rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        Denoiser
        """
        if self.sigma is not None:
            check_number(self.sigma, "sigma", above=0)
        check_flag(self.standardize, "standardize")
        check_flag(self.purify, "purify")
        seed = as_seed(self.random_state)
        rows = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        check_spread(float(np.ptp(rows, axis=0).max()))
        default = GMMScore(
            "bic", max_components=20, reg_covar=DEFAULT_REGULARISATION, random_state=0
        )
        estimator = default if self.estimator is None else clone(self.estimator)
        frozen = isinstance(estimator, FrozenEstimator)
        scaler = (
            StandardScaler().set_output(transform="default").fit(rows)
            if self.standardize and not frozen
            else None
        )
        self.estimator_ = estimator.fit(rows if scaler is None else scaler.transform(rows), None)
        check_columns(as_score_model(self.estimator_), rows)
        self.scaler_ = scaler
        # of scaled columns exactly one, whatever columns do not vary
        deviation = self.estimator_.scale_ if scaler is None else 1.0
        self.sigma_ = DEFAULT_SHARE * deviation if self.sigma is None else self.sigma
        self._seed = seed
        return self

    def transform(self, X):
        """Expected clean rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        points = rows.astype(np.float64)
        if self.scaler_ is not None:
            points = self.scaler_.transform(points)
        clean = self._denoised(as_score_model(self.estimator_), points)
        if self.scaler_ is not None:
            clean = self.scaler_.inverse_transform(clean)
        return clean.astype(rows.dtype, copy=False)

    def _denoised(self, model, points):
        if not self.purify:
            return model.denoise(points, self.sigma_)
        scale = self.sigma_ * np.asarray(model.noise_scale)
        noise = normal_by_row(points, PURIFYING_DRAWS, self._seed)
        return np.mean([model.denoise(points + scale * e, self.sigma_) for e in noise], axis=0)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def estimate_noise_level(estimator: Any, X: Any) -> float:
    """Level of the noise in rows, by maximum likelihood under a law of clean rows.

    Parameters
    ----------
    estimator : fitted score estimator
        The law of clean rows.
    X : array-like of shape (n_samples, n_features)
        Noisy rows.

    Returns
    -------
    float
        In the units of ``X``, between ``sigma_min_`` and ``sigma_max_`` of the estimator.

    Raises
    ------
    TypeError
        If ``estimator`` is no score estimator.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion import GaussianScore
    >>> clean = GaussianScore.from_parameters([0.0, 0.0], [1.0, 4.0])
    >>> rows = clean.sample(5000, random_state=0)
    >>> noisy = rows + np.random.default_rng(1).normal(scale=0.7, size=rows.shape)
    >>> round(estimate_noise_level(clean, noisy), 1)
    0.7
    """
    if not hasattr(estimator, "log_density") or not hasattr(estimator, "fit"):
        raise TypeError(
            "a fitted score estimator is needed, of clean rows in the units of X; "
            f"got {type(estimator).__name__}."
        )
    check_is_fitted(estimator)
    low, high = np.log(estimator.sigma_min_), np.log(estimator.sigma_max_)
    found = minimize_scalar(
        lambda level: -np.mean(estimator.log_density(X, float(np.exp(level)))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))
