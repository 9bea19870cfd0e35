r"""NoiseLevelEstimator: how much noise is in a row, learned by any regressor.

.. math:: x = x_0 + \sigma\varepsilon, \qquad
          g(x) \approx E[\log\sigma \mid x], \qquad \hat\sigma = e^{g(x)} .

Rows are noised at random levels, and the regressor learns the logarithm from what they show of it
(:mod:`skdiffusion.estimators._noise_features`).

Where the data fill all columns, noise below their own variation leaves no trace, and :math:`g` is
what the levels are on average. A sampler knows better: by its schedule the points have the level
:math:`s`, within a factor or so. How :math:`g` is spread at each level,
:math:`N(m(\ell), v(\ell))`, is measured on fresh noise, and the level of a row **near** :math:`s`
is the most probable one,

.. math:: \hat\ell = \operatorname*{argmin}_\ell\;
          \frac{(g(x) - m(\ell))^2}{v(\ell)} + \log v(\ell)
          + \frac{(\ell - \log s)^2}{\tau^2}, \qquad \tau = 1:

the row's own where it shows one, and :math:`s` where it does not. (The mean would fall below
:math:`s` there: the row says that its noise is not higher.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._moments import DiagonalMoments
from skdiffusion.estimators._noise_features import NoiseFeatures
from skdiffusion.noising import noise_range
from skdiffusion.utils.arrays import as_levels
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import check_count, check_number
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["NoiseLevelEstimator", "log_nearness", "near_levels"]

TRAINING_ROWS, FEWEST_DRAWS = 20_000, 4
"""Noised rows to learn from, and draws of the noise per row at least."""
NODES = 400
"""Levels that are weighed against each other."""
BIN = 500
"""Noised rows from which mean and variance of the answers at a level are taken."""
TRUST = 1.0
"""Standard deviation of the logarithm of a level that is known to be near another."""


def near_levels(near: Any, rows: np.ndarray) -> np.ndarray:
    """Levels that rows ``(n, d)`` are near, one per row, from one for all or one per row.

    Raises
    ------
    ValueError
        If they are others than positive numbers.
    """
    levels = as_levels(near, rows, "near", allow_zero=False)
    return np.broadcast_to(np.ravel(levels), len(rows))


def log_nearness(log_levels: np.ndarray, near: np.ndarray) -> np.ndarray:
    r"""Log-density, up to a constant, of levels that are known to be near others.

    Parameters
    ----------
    log_levels : ndarray
        Logarithms of levels.
    near : ndarray
        Levels, of a shape that meets ``log_levels``.

    Returns
    -------
    ndarray
        :math:`-(\ell - \log s)^2 / 2\tau^2`.

    Raises
    ------
    ValueError
        If a level is not positive.

    Examples
    --------
    >>> log_nearness(np.zeros(1), np.array([np.e]))
    array([-0.5])
    """
    if not (near > 0).all():
        raise ValueError(f"near must be positive noise levels; got {near.min()!r}.")
    return -0.5 * ((log_levels - np.log(near)) / TRUST) ** 2


class NoiseLevelEstimator(Configurable):
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

    @whole_or_not_at_all
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
        for name in ("sigma_min", "sigma_max"):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, above=0)
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        variances = DiagonalMoments(X.shape[1]).update(X, np.ones(len(X))).column_variances()
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
        features, ends = NoiseFeatures(X, scale, rng), np.log([low, high])
        origin = np.repeat(np.arange(len(X)), draws)
        learned, fresh = (_noised(X, origin, ends, rng) for _ in range(2))
        estimator.fit(features(learned.rows, origin), learned.logs)
        self._features, self.estimator_ = features, estimator
        self.sigma_min_, self.sigma_max_ = low, high
        self._spread = _spread(fresh.logs, self._answers(features(fresh.rows, origin)), ends)
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
        return self._answers(self._features(X))

    def predict_noise_level(self, X: Any, near: Any = None) -> np.ndarray:
        """Noise level of each row, in the units of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        near : float or array-like of shape (n_samples,), optional
            Level that the rows have within a factor of e or so, as a sampler knows. Without it
            nothing is known but the range: the answer is the exponential of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If ``near`` is no positive number, or not one per row.
        """
        found = self.predict(X)
        if near is None:
            return np.exp(found)
        near = near_levels(near, found[:, None])
        levels, mean, variance = self._spread
        cost = (found[:, None] - mean) ** 2 / variance + np.log(variance)
        cost -= 2 * log_nearness(levels, near[:, None])
        return np.exp(_lowest(levels, cost))

    def _answers(self, features):
        found = np.ravel(self.estimator_.predict(features))
        return np.clip(found, np.log(self.sigma_min_), np.log(self.sigma_max_))


class _Noised(NamedTuple):
    """Noised rows and the logarithms of their levels."""

    rows: np.ndarray
    logs: np.ndarray


def _noised(X, origin, ends, rng):
    logs = rng.uniform(*ends, len(origin))
    noise = rng.standard_normal((len(origin), X.shape[1]))
    return _Noised(X[origin] + np.exp(logs)[:, None] * noise, logs)


def _spread(logs, answers, ends):
    """Levels, and mean and variance of the answers there."""
    parts = np.array_split(np.argsort(logs), max(len(logs) // BIN, 2))
    centres, means, variances = (
        np.array([moment(values[part]) for part in parts])
        for moment, values in ((np.mean, logs), (np.mean, answers), (np.var, answers))
    )
    levels = np.linspace(*ends, NODES)
    # answers are known no better than the levels are spaced, even if they are all the same
    variances = np.maximum(variances, (levels[1] - levels[0]) ** 2)
    return levels, np.interp(levels, centres, means), np.interp(levels, centres, variances)


def _lowest(levels, cost):
    """Where each row is lowest: the vertex of a parabola about its lowest node."""
    rows, at = np.arange(len(cost)), np.clip(cost.argmin(axis=1), 1, len(levels) - 2)
    left, middle, right = (cost[rows, at + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / np.where(bend > 0, bend, np.inf)
    return levels[at] + np.clip(shift, -1, 1) * (levels[1] - levels[0])
