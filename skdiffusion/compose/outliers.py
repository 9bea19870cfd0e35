r"""ScoreOutlierDetector: rows that a score model finds unlikely, noisy, or hard to denoise.

Four answers to *how far is this row from the law?*, all from one fitted model:

- ``"noise_posterior"``: seen as a clean row with noise of unknown level, how noisy is it? With a
  prior uniform in :math:`\log\sigma` (diffusion time estimation, Livernoche et al. 2024),

  .. math:: p(\sigma \mid x) \propto p_\sigma(x), \qquad -E[\log\sigma \mid x] ;

- ``"log_density"``: :math:`\log p_{\sigma_0}(x)` at a small level, so that atoms and constant
  columns have a density too;
- ``"reconstruction"``: the error of denoising it after noise was added,
  :math:`-E_\varepsilon |D(x + \sigma\varepsilon, \sigma) - x|^2`;
- ``"dimension"``: the dimension of the law around it as the noise sees it (Kamkari et al. 2024),
  :math:`d + \sigma^2 (\operatorname{tr} \nabla s + |s|^2)` with ``s`` the Stein score: near that of
  the data's manifold on it, and large off it; minus that.

A law that is made of the rows themselves, such as the default one, knows each by heart: there a row
is judged by the others, as a new one is.

Larger is more normal, as everywhere in scikit-learn. Columns are put on a common scale first,
otherwise a noise level would mean another thing in each.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from skdiffusion.estimators import EmpiricalScore, GMMScore
from skdiffusion.estimators.mixture import DEFAULT_REGULARISATION
from skdiffusion.models import EmpiricalModel, as_score_model, divergence
from skdiffusion.models.base import check_columns
from skdiffusion.noising import check_spread
from skdiffusion.utils.memory import rows_in_cache
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.random import as_seed, normal_by_row, row_keys
from skdiffusion.utils.rows import check_rows, middle_of
from skdiffusion.utils.validation import check_number, lookup
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["ScoreOutlierDetector"]

SMALL_LEVEL = 0.02
"""Level of the density, in standard deviations of the columns."""
LEVEL = 0.3
"""Level of reconstruction and dimension, likewise: larger than gaps between rows of one group."""
LEVELS = np.geomspace(0.01, 30.0, 33)
"""Levels of the posterior; its density is uniform between them in the logarithm."""
N_DRAWS = 8
FARTHEST = 1e100
"""Beyond the highest level by far, and its square is a number."""
LEAST = -700.0
"""Of exponents: below it exponentials leave the normal numbers, and take twenty times as long."""
CACHED = 2**17
"""Distances held at once: they are gone over at every level."""
WIDTH, MOST_KERNELS = 0.05, 5000
"""Of the kernels of the default law of ``"noise_posterior"``, in standard deviations, and their
number: for levels up to that width a law of so many rows has no more to say."""
ROWS_PER_COMPONENT, MOST_COMPONENTS = 50, 10
FULL_UP_TO = 60
"""Columns up to which the default mixture has full covariances."""


class ScoreOutlierDetector(OutlierMixin, Configurable):
    """Outliers by a score model of the rows that are not.

    Parameters
    ----------
    estimator : score estimator, optional
        The law of normal rows; a clone is fitted to the rows with their columns divided by their
        standard deviations. A ``FrozenEstimator`` is used as it is and in its own units. By
        default, for ``"noise_posterior"``, an :class:`~skdiffusion.EmpiricalScore` of at most 5000
        rows, and for the others a :class:`~skdiffusion.GMMScore` with one component per 50 rows, at
        most 10.
    criterion : {"noise_posterior", "log_density", "reconstruction", "dimension"}
        What makes a row an outlier. The posterior asks for densities at 33 levels: of a network,
        whose density is an integral along the flow, ask one of the others.
    contamination : float
        Share of the training rows that :meth:`predict` calls outliers; above 0, at most 0.5.
    sigma : float, optional
        Noise level of the criterion, in standard deviations of the columns (in the units of a
        frozen estimator): by default 0.02 for the density, 0.3 for reconstruction and dimension.
    random_state : int, None, Generator or RandomState
        Seed of the default estimator and of the noise, which is keyed by the rows.

    Attributes
    ----------
    estimator_ : score estimator
        The fitted law, in the scaled columns.
    offset_ : float
        Score at the border: ``decision_function = score_samples - offset_``.
    scaler_ : StandardScaler or None

    References
    ----------
    V. Livernoche, V. Jain, Y. Hezaveh and S. Ravanbakhsh, "On Diffusion Modeling for Anomaly
    Detection", ICLR 2024.

    H. Kamkari et al., "A Geometric View of Data Complexity: Efficient Local Intrinsic Dimension
    Estimation with Diffusion Models", NeurIPS 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.compose import ScoreOutlierDetector
    >>> X = np.random.default_rng(0).standard_normal((300, 2))
    >>> detector = ScoreOutlierDetector(contamination=0.05).fit(X)
    >>> detector.predict([[0.0, 0.0], [6.0, 6.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        estimator=None,
        *,
        criterion="noise_posterior",
        contamination=0.1,
        sigma=None,
        random_state=0,
    ):
        self.estimator = estimator
        self.criterion = criterion
        self.contamination = contamination
        self.sigma = sigma
        self.random_state = random_state

    @whole_or_not_at_all
    def fit(self, X, y=None):
        """Fit the law of normal rows, and the score at its border.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows, or rows most of which are.
        y : ignored

        Returns
        -------
        ScoreOutlierDetector
        """
        lookup(self.criterion, CRITERIA, "criterion")
        check_number(self.contamination, "contamination", above=0, most=0.5)
        if self.sigma is not None:
            check_number(self.sigma, "sigma", above=0)
        seed = as_seed(self.random_state)
        rows = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        check_spread(float(np.ptp(rows, axis=0).max()))
        frozen = isinstance(self.estimator, FrozenEstimator)
        scaler = None if frozen else StandardScaler().set_output(transform="default").fit(rows)
        scaled = rows if frozen else scaler.transform(rows)
        if self.estimator is None:
            estimator, learned = self._default(rows, scaled, seed)
        else:
            estimator, learned = clone(self.estimator), scaled
        self.scaler_, self.estimator_ = scaler, estimator.fit(learned, None)
        self._seed = seed
        check_columns(as_score_model(self.estimator_), rows)
        self.offset_ = float(np.quantile(self._scores(scaled), self.contamination))
        return self

    def score_samples(self, X):
        """How normal each row is by the criterion: larger is more normal.

        Minus the expected logarithm of the noise level, in standard deviations of the columns, for
        ``"noise_posterior"``; nats in the units of ``X`` for ``"log_density"``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return self._scores(rows if self.scaler_ is None else self.scaler_.transform(rows))

    def decision_function(self, X):
        """Scores relative to the border: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """1 for normal rows, -1 for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of int of shape (n_samples,)
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _scores(self, rows):
        """Scores of scaled rows, a density in the units that they had before."""
        found = CRITERIA[self.criterion](self, self.estimator_, rows)
        if self.criterion != "log_density" or self.scaler_ is None:
            return found
        return found - np.log(self.scaler_.scale_).sum()

    def _default(self, rows, scaled, seed):
        """The law of rows where none is given, and those of them that it learns from."""
        if self.criterion == "noise_posterior":
            # a choice that does not depend on their order
            chosen = np.argsort(row_keys(rows, seed), kind="stable")[:MOST_KERNELS]
            return EmpiricalScore(WIDTH, scaling="none"), scaled[np.sort(chosen)]
        k = int(np.clip(len(rows) // ROWS_PER_COMPONENT, 1, MOST_COMPONENTS))
        form = "full" if rows.shape[1] <= FULL_UP_TO else "low_rank"
        law = GMMScore(k, covariance_type=form, reg_covar=DEFAULT_REGULARISATION, random_state=seed)
        return law, scaled

    # ------------------------------------------------------------------ the criteria

    def _log_density(self, estimator, rows):
        return self._log_density_at(estimator, rows, self.sigma or SMALL_LEVEL)

    def _log_density_at(self, estimator, rows, level):
        model = estimator.model_
        if isinstance(model, EmpiricalModel):
            return model.log_prob(rows, level, exclude=_own_kernels(estimator, rows))
        if model.has_log_prob:  # the names of the columns were checked here
            return model.log_prob(rows, level)
        return estimator.log_density(rows, level)

    def _noise_posterior(self, estimator, rows):
        levels = np.clip(LEVELS, estimator.sigma_min_, estimator.model_.sigma_range[1])
        if _is_of_round_kernels(estimator.model_):
            own = _own_kernels(estimator, rows)
            logits = _kernel_logits(estimator.model_, rows, levels, own)
        else:
            densities = [self._log_density_at(estimator, rows, level) for level in levels]
            logits = np.stack(densities, axis=1)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return -(weights @ np.log(levels)) / weights.sum(axis=1)

    def _reconstruction(self, estimator, rows):
        model, level = as_score_model(estimator), self.sigma or LEVEL
        noise = normal_by_row(rows, N_DRAWS, self._seed)
        scale = level * np.asarray(model.noise_scale)
        errors = [model.denoise(rows + scale * eps, level) - rows for eps in noise]
        return -np.mean([(error**2).sum(axis=1) for error in errors], axis=0)

    def _dimension(self, estimator, rows):
        model, level = as_score_model(estimator), self.sigma or LEVEL
        scale = level * np.asarray(model.noise_scale)
        pull = ((scale * model.score(rows, level)) ** 2).sum(axis=1)
        return -(divergence(model, rows, level, of="denoise") + pull)


def _is_of_round_kernels(model):
    return isinstance(model, EmpiricalModel) and model.kernel.smallest == model.kernel.largest


def _own_kernels(estimator, rows):
    """The point that each row is, or -1: also where it stands for copies of the row."""
    points, row_index = estimator.model_.points, estimator.row_index_
    keys, asked = row_keys(points), row_keys(rows)
    order = np.argsort(keys, kind="stable")
    found = order[np.minimum(np.searchsorted(keys[order], asked), len(order) - 1)]
    alone = np.bincount(row_index[row_index >= 0], minlength=len(points)) == 1
    return np.where((keys[found] == asked) & alone[found] & (len(points) > 1), found, -1)


def _kernel_logits(model, rows, levels, own):
    """Log-densities at all levels, up to a number per row, from distances found once."""
    variances = model.kernel.largest + levels**2
    middle = middle_of(model.points)
    points = model.points - middle
    logits = np.empty((len(rows), len(levels)))
    for batch in gen_batches(len(rows), rows_in_cache(len(model.points), CACHED, fewest=16)):
        near = np.clip(rows[batch] - middle, -FARTHEST, FARTHEST)
        squares = euclidean_distances(near, points, squared=True)
        left_out = np.flatnonzero(own[batch] >= 0)
        squares[left_out, own[batch][left_out]] = np.inf
        nearest = squares.min(axis=1, keepdims=True)
        squares -= nearest
        kernels = np.empty_like(squares)
        for k, variance in enumerate(variances):
            np.multiply(squares, -0.5 / variance, out=kernels)
            np.exp(np.maximum(kernels, LEAST, out=kernels), out=kernels)
            logits[batch, k] = np.log(kernels @ model.weights)
        logits[batch] -= 0.5 * nearest / variances
    return logits - 0.5 * rows.shape[1] * np.log(variances)


CRITERIA = {
    "noise_posterior": ScoreOutlierDetector._noise_posterior,
    "log_density": ScoreOutlierDetector._log_density,
    "reconstruction": ScoreOutlierDetector._reconstruction,
    "dimension": ScoreOutlierDetector._dimension,
}
