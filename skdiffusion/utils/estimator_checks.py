"""The contract of score estimators, as checks for ours and for yours.

:func:`check_score_estimator` tests what users rely on: samples, densities that integrate to
one, fields, latent codes, containers, errors, persistence; and the fitted model by
``check_score_model``.

A failed check raises ``AssertionError`` with one sentence.
"""

from __future__ import annotations

import copy
import importlib.util
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffusion.models import GaussianModel, as_score_model
from skdiffusion.utils.model_checks import (
    assert_close,
    assert_raises,
    assert_same_global_state,
    check_score_model,
)

__all__ = ["check_score_estimator", "check_score_model"]


def check_score_estimator(estimator: Any, X: Any = None, *, random_state: int = 0) -> None:
    """Check a score estimator against the contract that users rely on.

    Parameters
    ----------
    estimator : estimator
        Unfitted; a clone is fitted.
    X : array-like of shape (n, d), optional
        Data to fit; two correlated columns of different scale by default.
    random_state : int
        Seed of what is drawn.

    Raises
    ------
    AssertionError
        If a part of the contract does not hold; the sentence names it.

    Examples
    --------
    >>> from skdiffusion import GaussianScore
    >>> check_score_estimator(GaussianScore())
    """
    if X is None:
        rng = np.random.default_rng(random_state)
        X = rng.standard_normal((150, 2)) @ np.array([[2.0, 1.5], [0.0, 0.3]]) + [10.0, -1.0]
    X = np.asarray(X, dtype=np.float64)
    global_state = np.random.get_state()  # noqa: NPY002
    estimator = clone(estimator)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=random_state)
    _check_unfitted(clone(estimator), X)
    fitted = clone(estimator)
    assert fitted.fit(X) is fitted, "fit must return self."
    for check in _ESTIMATOR_CHECKS:
        check(fitted, X)
    _check_failed_fit(fitted, X)
    _check_frames(clone(estimator), X)
    _check_composition(clone(estimator), X)
    assert_same_global_state(global_state)


def _check_unfitted(estimator, X):
    for call in (
        lambda: estimator.sample(),
        lambda: estimator.score_samples(X),
        lambda: estimator.denoise(X, 1.0),
        lambda: estimator.transform(X),
        lambda: estimator.at_time("vp"),
    ):
        try:
            call()
        except NotFittedError:
            continue
        raise AssertionError("an unfitted estimator must raise NotFittedError.")


def _check_attributes(est, X):
    for name in ("model_", "far_field_", "n_features_in_", "scale_", "sigma_min_", "sigma_max_"):
        assert hasattr(est, name), f"the fitted attribute {name} is missing."
    assert 0 < est.sigma_min_ < est.scale_ < est.sigma_max_, "the noise range must hold the scale."
    check_score_model(est.model_, X[:7])


def _check_samples(est, X):
    a, b = est.sample(4, random_state=3), est.sample(4, random_state=3)
    assert a.shape == (4, X.shape[1]) and np.isfinite(a).all(), "sample must return finite rows."
    assert np.array_equal(a, b), "the same seed must give the same sample."
    assert not np.array_equal(est.sample(4), est.sample(4)), "random_state=None must be fresh."
    rows, path = est.sample(3, n_steps=5, random_state=0, return_trajectory=True)
    assert path.shape == (6, 3, X.shape[1]), "a trajectory has one entry per level and one more."
    assert np.array_equal(path[-1], rows), "a trajectory must end in the sample."
    assert_raises(lambda: est.sample(0), "n_samples = 0")
    assert_raises(lambda: est.sample(1, sampler="no such sampler"), "an unknown sampler")
    assert_raises(lambda: est.at_time("no such schedule"), "an unknown schedule")
    if not est.model_.is_conditional:
        assert_raises(lambda: est.sample(1, y=[0]), "labels y for an unconditional model")


def _fingerprint(est, X):
    """Numbers that another fit would not have: densities, or a field where those cost much."""
    return est.score_samples(X) if est.model_.has_log_prob else est.denoise(X, est.scale_)


def _check_densities(est, X):
    # an integral along the flow costs a thousand evaluations of a model
    closed = est.model_.has_log_prob
    n_draws, n_alone = (4000, 3) if closed else (500, 1)
    wide = GaussianModel(X.mean(0), 2.0 * np.atleast_2d(np.cov(X.T)))
    X = X if closed else X[:20]
    log_density = est.score_samples(X)
    assert log_density.shape == (len(X),), "score_samples must return one number per row."
    alone = np.concatenate([est.score_samples(X[k : k + 1]) for k in range(n_alone)])
    assert_close(alone, log_density[:n_alone], 1e-7, "score_samples of a row alone")
    single = X[:n_alone].astype(np.float32)
    assert np.array_equal(
        est.score_samples(single), est.score_samples(single.astype(np.float64))
    ), "log-densities must be computed in float64, whatever the rows come in."
    if closed:
        mean = log_density.mean()
        assert abs(est.score(X) - mean) < 1e-9, "score must be the mean of score_samples."
    else:
        assert est.score(X) == est.denoising_bound(X).score, "score must be the denoising bound."
    # importance sampling from a wider Gaussian: the density must integrate to one
    draws = wide.sample(n_draws, random_state=0)
    ratios = np.exp(est.score_samples(draws) - wide.log_prob(draws))
    error, bound = abs(ratios.mean() - 1), 5 * ratios.std() / len(draws) ** 0.5 + 1e-3
    assert error < bound, (
        f"exp(score_samples) must integrate to one over the space of X; off by {error:.3g}, "
        f"expected at most {bound:.3g}."
    )


def _check_fields(est, X):
    sigma = est.scale_
    denoised, score = est.denoise(X, sigma), est.stein_score(X, sigma)
    scale = sigma * np.asarray(est.model_.noise_scale)
    slack = 1e-8 * np.abs(X).max()
    assert_close(denoised, X + scale**2 * score, slack, "denoise = x + sigma^2 stein_score")
    noise = est.predict_noise(X, sigma)
    assert_close(X - scale * noise, denoised, slack, "denoise = x - sigma noise")
    assert est.log_density(X[:5], sigma).shape == (5,), "log_density must return one per row."
    view = est.at_time("flow_matching")
    t = view.schedule.time_of(sigma)
    assert_close(view.denoise((1 - t) * X, t), denoised, slack, "at_time agrees with denoise")
    for bad in (0.0, -1.0, np.nan, np.inf, np.full(len(X) + 1, sigma)):
        assert_raises(lambda bad=bad: est.denoise(X, bad), f"sigma = {bad}")
    assert_raises(lambda: est.denoise(X[:, :1], sigma), "a wrong number of columns")


def _check_latent(est, X):
    X = X if est.model_.has_flow else X[:20]
    codes = est.transform(X)
    assert codes.shape == X.shape, "transform must return one code per row."
    slack = 1e-3 * est.scale_  # the flow is integrated where it has no closed form
    assert_close(est.inverse_transform(codes), X, slack, "inverse_transform inverts transform")
    assert est.transform(X.astype(np.float32)).dtype == np.float32, "transform keeps float32."


_ESTIMATOR_CHECKS: list[Callable] = [
    _check_attributes,
    _check_samples,
    _check_densities,
    _check_fields,
    _check_latent,
]


def _check_failed_fit(est, X):
    before = _fingerprint(est, X)
    spoiled = X.copy()
    spoiled[0, 0] = np.inf
    assert_raises(lambda: est.fit(spoiled), "an infinite value in X")
    assert_raises(lambda: est.fit(X[:1]), "a single row")
    assert np.array_equal(_fingerprint(est, X), before), "a failed fit must change nothing."
    assert_raises(lambda: est.fit(np.ones_like(X)), "rows that are all the same")
    if "random_state" in est.get_params():
        bad = clone(est).set_params(random_state="no seed")
        assert_raises(lambda: bad.fit(X), "a random_state that is no seed")
    assert np.array_equal(_fingerprint(est, X), before), "a failed fit must change nothing."


def _check_frames(est, X):
    if importlib.util.find_spec("pandas") is None:
        return
    import pandas

    names = [f"column {j}" for j in range(X.shape[1])]
    frame = pandas.DataFrame(X, columns=names)
    est.set_output(transform="pandas").fit(frame)
    assert list(est.feature_names_in_) == names, "feature_names_in_ must hold the column names."
    for table in (est.sample(2, random_state=0), est.transform(frame)):
        assert isinstance(table, pandas.DataFrame), "set_output('pandas') must give DataFrames."
        assert list(table.columns) == names, "DataFrames must keep their columns."


def _check_composition(est, X):
    fitted = clone(est).fit(X)
    expected = _fingerprint(fitted, X)
    for copied in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert np.array_equal(_fingerprint(copied, X), expected), "a copy must score the same."
    frozen = clone(FrozenEstimator(fitted))
    assert np.array_equal(_fingerprint(frozen, X), expected), "it must work frozen."
    assert as_score_model(frozen) is fitted.model_, "as_score_model must find a frozen model."
    pipeline = make_pipeline(StandardScaler(), clone(est)).fit(X)
    assert np.isfinite(pipeline.score(X[:20])), "it must work at the end of a Pipeline."
    folds = [(np.arange(len(X)), np.arange(len(X))[:20])]
    search = GridSearchCV(clone(est), {"schedule": ["edm", "vp"]}, cv=folds).fit(X)
    assert np.isfinite(search.best_score_), "it must work in GridSearchCV."
