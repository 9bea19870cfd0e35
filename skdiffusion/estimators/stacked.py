r"""StackedScore: several closed-form score models, weighted level by level.

Which model denoises best depends on the noise level, and rows that were not fitted are a
referee that needs no truth. With the candidates' out-of-fold errors
:math:`e_j = D_j(x_0 + \sigma\varepsilon) - x_0`, the weights at each level minimise

.. math:: \min_w\; w^\top G w, \quad G_{jk} = \textstyle\sum \langle e_j, e_k \rangle, \qquad
          w_j \ge 0, \quad \sum_j w_j = 1,

a non-negative least-squares problem: for any :math:`\rho > 0` the minimiser of
:math:`w^\top G w + \rho^2 (\sum w - 1)^2` over :math:`w \ge 0` points in the same direction.
The candidates are then fitted to all rows.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import scipy.optimize
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import has_fit_parameter

from skdiffusion.estimators._far_rows import FAR_ROWS, told_once
from skdiffusion.estimators._moments import FullMoments
from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.estimators.empirical import EmpiricalScore
from skdiffusion.estimators.gaussian import GaussianScore
from skdiffusion.estimators.mixture import DEFAULT_REGULARISATION, GMMScore
from skdiffusion.models import GaussianModel, as_score_model
from skdiffusion.models.stacked import StackedModel
from skdiffusion.noising import noise_range
from skdiffusion.utils.random import as_generator, normal_by_row, row_keys
from skdiffusion.utils.rows import check_rows, check_weights
from skdiffusion.utils.validation import check_count
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["StackedScore"]


class StackedScore(_BaseComposition, BaseScoreEstimator):
    r"""Convex combination of score models, chosen per noise level on held-out rows.

    Parameters
    ----------
    estimators : list of (str, estimator), optional
        The candidates, parameters by their names: ``gmm=GMMScore(5)``, ``gmm__n_components=5``;
        ``"drop"`` leaves one out. By default a Gaussian, a small and a large mixture, and the rows
        themselves (the empirical law), which denoise well at high noise only.
    cv : int or cross-validation splitter
        How rows are held out. An int deals out distinct rows at random, copies of a row
        together: by the seed and the numbers in a row, so that their order does not matter. The
        same rows in other units, or with the columns in another order, are dealt out anew.
    n_levels : int
        Noise levels at which weights are found, uniform in the logarithm.
    n_noise : int
        Pairs of opposite noise draws per row and level.
    likelihood : {"denoising", "ode"}
        What ``score`` is: the denoising bound, or the mean log-density along the flow.
    schedule, sampler, sigma_min, sigma_max
        As in :class:`GaussianScore`.
    n_jobs : int, optional
        Folds fitted in parallel.
    random_state : None, int, Generator or RandomState
        Folds and noise; noise too is keyed by the numbers in a row.

    Attributes
    ----------
    model_ : StackedModel
        The fitted score model. It has no exact density: ``score_samples`` follows the flow.
    estimators_ : list of estimators
        The candidates that are not dropped, fitted to all rows.
    levels_ : ndarray of shape (n_levels,)
    weights_ : ndarray of shape (n_levels, n_estimators)
        A convex combination per level.
    errors_ : ndarray of shape (n_levels, n_estimators)
        Out-of-fold mean squared denoising error per column of each candidate.
    stacked_errors_ : ndarray of shape (n_levels,)
        The same of the combination (its few weights are fitted to these rows).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GaussianScore, StackedScore
    >>> X = load_iris().data
    >>> est = StackedScore(
    ...     [("full", GaussianScore()), ("diag", GaussianScore("diag"))], random_state=0
    ... ).fit(X)
    >>> bool(est.weights_[0, 0] > 0.7)  # at low noise correlations matter
    True
    """

    def __init__(
        self,
        estimators=None,
        *,
        cv=5,
        n_levels=16,
        n_noise=2,
        likelihood="denoising",
        schedule="auto",
        sampler=None,
        sigma_min=None,
        sigma_max=None,
        n_jobs=None,
        random_state=None,
    ):
        self.estimators = estimators
        self.cv = cv
        self.n_levels = n_levels
        self.n_noise = n_noise
        self.likelihood = likelihood
        self.schedule = schedule
        self.sampler = sampler
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.n_jobs = n_jobs
        self.random_state = random_state

    def get_params(self, deep=True):
        """Parameters, the candidates and theirs included.

        Parameters
        ----------
        deep : bool

        Returns
        -------
        dict
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params):
        """Set parameters, candidates by ``name`` and theirs by ``name__parameter``.

        Returns
        -------
        StackedScore

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        self._set_params("estimators", **params)
        return self

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None):
        """Fit the candidates and find their weights per noise level.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            For candidates and errors alike; every candidate must take weights.

        Returns
        -------
        StackedScore

        Raises
        ------
        ValueError
            If ``X`` has no variance or too few rows to hold some out, no candidate is left, two
            have the same name, one takes no weights, or a parameter is out of its range.
        """
        self._check_parameters()
        check_count(self.n_levels, "n_levels", 2)
        check_count(self.n_noise, "n_noise")
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        weights = check_weights(sample_weight, len(X))
        moments = FullMoments(X.shape[1])
        moments.update(X, weights)
        variances = moments.column_variances()
        if not variances.any():
            raise ValueError("X has no variance: all of its rows are the same.")
        scale, low, high = noise_range(variances, self.sigma_min, self.sigma_max)
        rng = as_generator(self.random_state)
        candidates = self._candidates(int(weights.sum()), scale, rng)
        for name, candidate in candidates:
            if sample_weight is not None and not has_fit_parameter(candidate, "sample_weight"):
                raise ValueError(f"the candidate {name!r} takes no sample_weight.")

        # below a hundredth of the scale every denoiser returns x, beyond ten spreads the mean
        first, last = max(low, 0.01 * scale), min(high, 10 * np.sqrt(variances.sum()))
        if not first < last:  # nothing else was asked for
            first, last = low, high
        levels = np.geomspace(first, last, self.n_levels)
        seed = int(rng.integers(2**62))
        folds = list(_folds(self.cv, X, weights, seed))
        if min(np.count_nonzero(weights[train]) for train, _ in folds) < 2:
            raise ValueError(
                f"X has too few rows for cv={self.cv!r}: a fold leaves no two rows of some weight "
                "to fit the candidates to."
            )
        held_out = sum(weights[test].sum() for _, test in folds)  # once each, or as cv has it
        if not held_out:
            raise ValueError("cv must hold out rows of some weight; those that it does have none.")
        grams = Parallel(n_jobs=self.n_jobs)(
            delayed(_fold_errors)(
                candidates, X, weights, sample_weight is not None, fold, levels, self.n_noise, seed
            )
            for fold in folds
        )
        gram = np.sum(grams, axis=0)
        shares = np.stack([_convex_weights(level_gram) for level_gram in gram])
        fitted = [
            _fitted(candidate, X, weights if sample_weight is not None else None)
            for _, candidate in candidates
        ]
        model = StackedModel([as_score_model(est) for est in fitted], levels, shares)
        far_field = GaussianModel(moments.mean, moments.covariance())
        self._set_model(model, far_field, variances)
        self.estimators_ = fitted
        self.levels_ = levels
        self.weights_ = shares
        total = 2 * self.n_noise * held_out * X.shape[1]
        self.errors_ = gram.diagonal(axis1=1, axis2=2) / total
        self.stacked_errors_ = np.einsum("lj,ljk,lk->l", shares, gram, shares) / total
        return self

    def _candidates(self, n, scale, rng):
        if self.estimators is not None:
            if not _are_pairs(self.estimators):
                raise ValueError(
                    "estimators must be a list of (name, estimator) pairs, such as "
                    f"[('gmm', GMMScore())]; got {self.estimators!r}."
                )
            kept = [pair for pair in self.estimators if not _is_dropped(pair[1])]
            if not kept:
                raise ValueError(
                    "estimators must hold at least one (name, estimator) pair that is not dropped."
                )
            self._validate_names([name for name, _ in self.estimators])
            candidates = [(name, clone(est)) for name, est in kept]
        else:
            few, many = int(np.clip(n // 60, 1, 10)), int(np.clip(n // 25, 1, 50))
            candidates = [
                ("gaussian", GaussianScore("ledoit_wolf")),
                ("few components", GMMScore(few, reg_covar=DEFAULT_REGULARISATION)),
                ("many components", GMMScore(many, reg_covar=DEFAULT_REGULARISATION)),
                # the rows themselves: a blur below all levels at which weights are found
                ("rows", EmpiricalScore(0.001 * scale, scaling="none")),
            ]
        for _, candidate in candidates:
            if candidate.get_params().get("random_state", 0) is None:
                candidate.set_params(random_state=int(rng.integers(2**31)))
        return candidates


def _are_pairs(estimators):
    return isinstance(estimators, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in estimators
    )


def _is_dropped(candidate):
    return isinstance(candidate, str) and candidate == "drop"


def _folds(cv: Any, X: np.ndarray, weights: np.ndarray, seed: int):
    """Pairs of training and held-out rows; by content for an int, so that copies stay together."""
    if not isinstance(cv, Integral):
        folds = list(check_cv(cv).split(X))
        if not folds:
            raise ValueError(f"cv must hold at least one pair of train and test rows; got {cv!r}.")
        yield from folds
        return
    rows = np.flatnonzero(weights)
    _, position = np.unique(row_keys(X[rows], seed), return_inverse=True)
    n_folds = min(check_count(cv, "cv", 2), position.max() + 1)
    for fold in range(n_folds):
        test = position % n_folds == fold
        yield rows[~test], rows[test]


def _fitted(candidate, X, weights):
    options = {} if weights is None else {"sample_weight": weights}
    return clone(candidate).fit(X, None, **options)  # a FrozenEstimator asks for y


def _fold_errors(candidates, X, weights, weighted, fold, levels, n_noise, seed):
    """Gram matrices of the candidates' errors on the held-out rows, one per level."""
    train, test = fold
    with told_once(FAR_ROWS):  # by the candidates of all rows
        models = [
            as_score_model(_fitted(candidate, X[train], weights[train] if weighted else None))
            for _, candidate in candidates
        ]
    clean = np.repeat(X[test], 2 * n_noise, axis=0)
    row_weights = np.repeat(weights[test], 2 * n_noise)
    grams = np.empty((len(levels), len(models), len(models)))
    # Opposite pairs: at low noise errors are sigma eps + sigma^2 s, candidates differ in the
    # second term alone, and its product with the first averages out over a pair. One draw for
    # all levels: their curves then differ by the level alone.
    noise = normal_by_row(X[test], n_noise, seed).transpose(1, 0, 2)
    noise = np.concatenate([noise, -noise], axis=1).reshape(clean.shape)
    for k, level in enumerate(levels):
        noised = clean + level * noise
        errors = np.stack([model.denoise(noised, level) - clean for model in models])
        grams[k] = np.einsum("jnd,knd,n->jk", errors, errors, row_weights, optimize=True)
    return grams


def _convex_weights(gram):
    """Minimiser of ``w' gram w`` over the simplex."""
    values, axes = np.linalg.eigh(gram / np.trace(gram))
    root = np.sqrt(np.maximum(values, 0))[:, None] * axes.T
    m = len(gram)
    weights, _ = scipy.optimize.nnls(
        np.vstack([root, np.ones(m)]), np.concatenate([np.zeros(m), [1.0]])
    )
    return weights / weights.sum()
