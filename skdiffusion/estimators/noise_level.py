r"""NoiseLevelEstimator: how much noise is in a row, learned by any regressor.

.. math:: x = x_0 + \sigma\varepsilon, \qquad
          g(x) \approx E[\log\sigma \mid x], \qquad \hat\sigma = e^{g(x)} .

Rows are noised at random levels, and the regressor learns the logarithm from the standardised row
and from the energies in its trailing principal axes,
:math:`\tfrac12 \log \tfrac1{d-j}\sum_{k \ge j} y_k^2`: where the data fill fewer dimensions than
they have columns, noise is what is left there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted

from skdiffusion.noising import noise_range
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import check_count

__all__ = ["NoiseLevelEstimator"]

TRAINING_ROWS, FEWEST_DRAWS = 20_000, 4
"""Noised rows to learn from, and draws of the noise per row at least."""
ENERGIES = 16
"""Numbers of leading axes left out, at most, among those whose energies are features."""


class NoiseLevelEstimator(BaseEstimator):
    """Noise level of rows, by a regressor on noised copies of the data.

    Parameters
    ----------
    estimator : regressor, optional
        A clone is fitted; by default gradient-boosted trees.
    sigma_min, sigma_max : float, optional
        Range of noise levels in the units of ``X``, visited evenly in their logarithm; by default
        from the data.
    n_noise : int, optional
        Noised copies of each row; by default as many as make 20000 rows, four at least.
    random_state : None, int, Generator or RandomState
        Of the noise, and of the regressor where it has none of its own.

    Attributes
    ----------
    estimator_ : regressor
        The fitted regressor of the logarithm of the level.
    sigma_min_, sigma_max_ : float
        Range of levels; answers are within it.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.datasets import make_concentric_circles
    >>> from skdiffusion.estimators import NoiseLevelEstimator
    >>> X, _ = make_concentric_circles(300, 32, random_state=0)
    >>> est = NoiseLevelEstimator(random_state=0).fit(X)
    >>> noised = X + 0.3 * np.random.default_rng(0).normal(size=X.shape)
    >>> round(float(np.median(est.predict_noise_level(noised))), 1)
    0.3
    """

    def __init__(
        self, estimator=None, *, sigma_min=None, sigma_max=None, n_noise=None, random_state=None
    ):
        self.estimator = estimator
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.n_noise = n_noise
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None):
        """Learn the level from noised rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Clean rows, at least two.
        y : ignored

        Returns
        -------
        NoiseLevelEstimator

        Raises
        ------
        ValueError
            If ``X`` has no variance or a parameter is out of its range.
        """
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        variances = X.var(axis=0)
        if not variances.any():
            raise ValueError("X has no variance: all of its rows are the same.")
        scale, low, high = noise_range(variances, self.sigma_min, self.sigma_max)
        draws = max(TRAINING_ROWS // len(X), FEWEST_DRAWS)
        draws = draws if self.n_noise is None else check_count(self.n_noise, "n_noise")
        rng = as_generator(self.random_state)
        estimator = HistGradientBoostingRegressor() if self.estimator is None else self.estimator
        estimator = clone(estimator)
        if estimator.get_params().get("random_state", 0) is None:
            estimator.set_params(random_state=int(rng.integers(2**31)))
        center = X.mean(axis=0)
        axes = np.linalg.eigh(np.cov(X.T, ddof=0).reshape(X.shape[1], -1))[1][:, ::-1]
        clean = np.repeat(X, draws, axis=0)
        logs = rng.uniform(np.log(low), np.log(high), len(clean))
        noised = clean + np.exp(logs)[:, None] * rng.standard_normal(clean.shape)
        estimator.fit(_features((noised - center) / scale, axes), logs)
        self.estimator_, self.sigma_min_, self.sigma_max_ = estimator, low, high
        self.center_, self.scale_, self._axes = center, scale, axes
        return self

    def predict(self, X: Any) -> np.ndarray:
        r"""Expected logarithm of the noise level of each row, :math:`E[\log\sigma \mid x]`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with noise of any level.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, dtype=np.float64)
        found = self.estimator_.predict(_features((X - self.center_) / self.scale_, self._axes))
        return np.clip(np.ravel(found), np.log(self.sigma_min_), np.log(self.sigma_max_))

    def predict_noise_level(self, X: Any) -> np.ndarray:
        """Noise level of each row, in the units of ``X``: the exponential of :meth:`predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return np.exp(self.predict(X))


def _features(z, axes):
    """Rows in principal axes, bounded, and logarithms of the energies in the trailing ones."""
    y = z @ axes
    d = y.shape[1]
    tails = np.cumsum((y**2)[:, ::-1], axis=1)[:, ::-1] / np.arange(d, 0, -1)
    left_out = np.unique(np.geomspace(1, d, ENERGIES).astype(int)) - 1
    energies = 0.5 * np.log(tails[:, left_out] + np.finfo(float).tiny)
    return np.hstack([y / np.sqrt(1 + tails[:, :1]), energies])
