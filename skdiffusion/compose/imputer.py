r"""DiffusionImputer: missing values from the conditional law of a score model.

Given the observed part ``o`` of a row, what is missing has the law

.. math:: p(x_m \mid x_o) = p(x_m, x_o) / p(x_o),

whatever the pattern: one model serves them all, while imputers by regression need one per column.
Its mean is the completion of least squared error; draws from it are multiple imputations, whose
spread is the uncertainty of the completion (Rubin 1987). Gaussians, mixtures and kernels have both
in closed form (:func:`~skdiffusion.models.posterior`). Other models are guided
(:class:`~skdiffusion.models.ConditionedModel`) or repainted
(:class:`~skdiffusion.models.KnownColumnsModel`), and the mean is one over draws.

Values are taken to be missing at random: which are missing may depend on what was observed.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators import GMMScore
from skdiffusion.estimators._condition import guided_rows
from skdiffusion.estimators.mixture import DEFAULT_REGULARISATION
from skdiffusion.models import (
    ConditionedModel,
    GaussianModel,
    KnownColumnsModel,
    as_score_model,
    posterior,
)
from skdiffusion.models.base import check_columns
from skdiffusion.models.measurement import has_posterior
from skdiffusion.noising import check_spread
from skdiffusion.samplers import check_sampler
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.random import as_generator, normal_by_row, row_keys
from skdiffusion.utils.row_noise import RowKeys
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import check_count, check_flag, lookup
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["DiffusionImputer"]

ROWS_PER_COMPONENT, MOST_COMPONENTS = 50, 10
"""Of the default mixture, whose pseudo-rows keep small components regular."""
N_NORMAL_ROUNDS = 3
"""A round takes the error of what is missing down to the share that is missing."""
N_COMPLETIONS = 3
"""Completions of every row that an estimator is fitted to together."""
METHODS = {"exact": None, "guided": ConditionedModel, "repaint": KnownColumnsModel}


class DiffusionImputer(OneToOneFeatureMixin, TransformerMixin, Configurable):
    """Completes rows with missing values by the conditional law of a score model.

    Parameters
    ----------
    estimator : score estimator, optional
        The law of the rows; a clone is fitted, a ``FrozenEstimator`` is used as it is. By default
        a :class:`~skdiffusion.GMMScore` of one component per 50 rows, at most 10. It, and every
        estimator that takes no missing values, is fitted to completions drawn from a normal
        law, then to draws of its own; a ``GMMScore`` that is given runs EM on the gaps instead.
    method : {"auto", "exact", "guided", "repaint"}
        ``"auto"`` is exact where the model has a closed form, else guided.
    sample_posterior : bool
        Whether ``transform`` gives a draw instead of the mean: one of several imputations.
    n_draws : int
        Draws whose mean completes a row where there is no closed form.
    n_rounds : int
        How often an estimator is fitted to completions.
    sampler : str or BaseSampler, optional
        Of guided and repainted rows; ``"time_travel"`` by default.
    n_steps : int, optional
        Noise levels of that sampler.
    random_state : None, int, Generator or RandomState

    Notes
    -----
    Draws are those of the fitted law: that it was fitted to few rows they do not know, so that
    intervals are too narrow where rows are few for the columns (below some 20 rows per column).

    The mean of a row is the same alone as in any batch, also where it is one over draws: their
    noise is keyed by what is known of the row. Single draws (``sample_posterior``, :meth:`impute`)
    are independent from row to row, of equal rows too, and depend on the batch.

    Attributes
    ----------
    estimator_ : score estimator
        The fitted law.
    method_ : str
        How values are found.
    n_features_in_, feature_names_in_
        Of the rows it was fitted to.

    See Also
    --------
    sklearn.impute.IterativeImputer : a regression per column.

    References
    ----------
    D. B. Rubin, "Multiple Imputation for Nonresponse in Surveys", 1987.

    A. Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
    CVPR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion.compose import DiffusionImputer
    >>> X = load_iris().data.copy()
    >>> X[::7, 2] = np.nan  # petal lengths
    >>> imputer = DiffusionImputer(random_state=0).fit(X)
    >>> error = imputer.transform(X)[::7, 2] - load_iris().data[::7, 2]
    >>> float(np.abs(error).mean().round(1))
    0.2
    >>> imputer.impute(X, n_imputations=5).shape
    (5, 150, 4)
    """

    def __init__(
        self,
        estimator=None,
        *,
        method="auto",
        sample_posterior=False,
        n_draws=16,
        n_rounds=3,
        sampler=None,
        n_steps=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.method = method
        self.sample_posterior = sample_posterior
        self.n_draws = n_draws
        self.n_rounds = n_rounds
        self.sampler = sampler
        self.n_steps = n_steps
        self.random_state = random_state

    @whole_or_not_at_all
    def fit(self, X, y=None):
        """Fit the law of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing; every column must have some that are not, unless the law
            is frozen.
        y : ignored

        Returns
        -------
        DiffusionImputer

        Raises
        ------
        ValueError
            If a column has no value to learn from, ``X`` is in units in which squares are no
            numbers, or a parameter is out of its range.
        """
        lookup(self.method, dict.fromkeys(("auto", *METHODS)), "method")
        check_count(self.n_draws, "n_draws")
        check_count(self.n_rounds, "n_rounds")
        check_flag(self.sample_posterior, "sample_posterior")
        if self.sampler is not None:
            check_sampler(self.sampler)
        if self.n_steps is not None:
            check_count(self.n_steps, "n_steps")
        rows = self._rows(X, reset=True)
        rng = as_generator(self.random_state)
        if isinstance(self.estimator, FrozenEstimator):
            estimator = self.estimator
            check_columns(as_score_model(estimator), rows)
        else:
            estimator = self._learned(rows, rng)
        self.method_ = self._method(estimator)
        self.estimator_ = estimator
        self._seed = int(rng.integers(2**31))
        return self

    def transform(self, X):
        """Rows with their missing values completed.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Observed values as they were.
        """
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        if not np.isnan(rows).any():
            return rows
        if self.sample_posterior:
            found = self._draws(self.estimator_, rows, 1, np.random.default_rng(self._seed))[0]
        elif self.method_ == "exact":
            values = rows.astype(np.float64)
            found = posterior(as_score_model(self.estimator_), values).mean
        else:
            found = self._sampled_mean(rows.astype(np.float64))
        return _kept(found, rows)

    def impute(self, X, n_imputations=5, *, random_state=None):
        """Several completions of the rows, drawn from the conditional law.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing.
        n_imputations : int
        random_state : None, int, Generator or RandomState

        Returns
        -------
        ndarray of shape (n_imputations, n_samples, n_features)
        """
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        n = check_count(n_imputations, "n_imputations")
        return _kept(self._draws(self.estimator_, rows, n, as_generator(random_state)), rows)

    def _learned(self, rows, rng):
        """The law of the rows."""
        empty = np.flatnonzero(np.isnan(rows).all(axis=0))
        if len(empty):
            raise ValueError(f"column {empty[0]} has no observed value to learn from.")
        check_spread(float(np.max(np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0))))
        estimator = _default(rows, rng) if self.estimator is None else clone(self.estimator)
        takes_gaps = self.estimator is not None and get_tags(estimator).input_tags.allow_nan
        if takes_gaps or not np.isnan(rows).any():
            return estimator.fit(rows, None)
        return self._fitted_to_completions(estimator, rows, rng)

    def _fitted_to_completions(self, estimator, rows, rng):
        """The estimator fitted to draws of what is missing: EM with its expectation sampled.

        It begins with independent columns and goes on with one normal law.
        """
        values = rows.astype(np.float64)
        variances = np.nanvar(values, axis=0)
        model = GaussianModel(np.nanmean(values, axis=0), np.where(variances > 0, variances, 1.0))
        for _ in range(N_NORMAL_ROUNDS):
            draws = posterior(model, values, n_draws=N_COMPLETIONS, random_state=rng).draws
            model = (
                GMMScore(1, reg_covar=DEFAULT_REGULARISATION).fit(_stacked(draws, values)).model_
            )
        draws = posterior(model, values, n_draws=N_COMPLETIONS, random_state=rng).draws
        law = clone(estimator).fit(_stacked(draws, values))
        for _ in range(self.n_rounds - 1):
            draws = self._draws(law, rows, N_COMPLETIONS, rng)
            law = clone(estimator).fit(_stacked(draws, values))
        return law

    def _draws(self, estimator, rows, n_draws, rng):
        model, values = as_score_model(estimator), rows.astype(np.float64)
        if self._method(estimator) == "exact":
            return posterior(model, values, n_draws=n_draws, random_state=rng).draws
        draws = np.broadcast_to(values, (n_draws, *values.shape)).copy()
        gaps = np.flatnonzero(np.isnan(values).any(axis=1))
        found = self._sampled(estimator, np.tile(values[gaps], (n_draws, 1)), rng)
        draws[:, gaps] = found.reshape(n_draws, len(gaps), -1)
        return draws

    def _sampled_mean(self, values):
        """Mean over draws whose noise belongs to the row: the same alone and in any batch."""
        mean = values.copy()
        gaps = np.flatnonzero(np.isnan(values).any(axis=1))
        given = np.tile(values[gaps], (self.n_draws, 1))
        draw = np.repeat(np.arange(self.n_draws), len(gaps))
        row = np.column_stack([np.nan_to_num(given), np.isnan(given), draw])
        codes = normal_by_row(row, 1, self._seed)[0, :, : values.shape[1]]
        rng = RowKeys(row_keys(row, self._seed + 1))
        found = self._sampled(self.estimator_, given, rng, codes)
        mean[gaps] = found.reshape(self.n_draws, len(gaps), -1).mean(axis=0)
        return mean

    def _sampled(self, estimator, given, rng, codes=None):
        """A draw by the sampler for every row of which something is known."""
        model = METHODS[self._method(estimator)](as_score_model(estimator))
        return guided_rows(estimator, model, given, rng, self.sampler, self.n_steps, codes)

    def _method(self, estimator):
        closed = has_posterior(as_score_model(estimator))
        if self.method == "exact" and not closed:
            raise ValueError(
                f"{type(estimator).__name__} has no closed form of its conditionals: "
                "method must be 'auto', 'guided' or 'repaint'."
            )
        if self.method != "auto":
            return self.method
        return "exact" if closed else "guided"

    def _rows(self, X, *, reset):
        return check_rows(self, X, reset=reset, ensure_all_finite="allow-nan")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.non_deterministic = self.sample_posterior
        return tags


def _default(rows, rng):
    n_components = int(np.clip(len(rows) // ROWS_PER_COMPONENT, 1, MOST_COMPONENTS))
    seed = int(rng.integers(2**31))
    return GMMScore(n_components, reg_covar=DEFAULT_REGULARISATION, random_state=seed)


def _kept(found, rows):
    """Observed values exactly as they were."""
    return np.where(np.isnan(rows), found, rows).astype(rows.dtype, copy=False)


def _stacked(draws, rows):
    """Completions of the rows one after another, without the rounding of observed values."""
    return np.concatenate(_kept(draws, rows))
