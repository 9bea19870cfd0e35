"""A broad component that stays as it is: its law, its price, and what it is for."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import GMMScore
from skdiffusion.utils.estimator_checks import check_score_estimator

FORMS = ["full", "diag", "spherical", "low_rank"]


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    clusters = [rng.normal(size=(80, 3)) @ rng.normal(size=(3, 3)) + m for m in (-8, 0, 8)]
    return np.concatenate(clusters) * [1.0, 20.0, 0.05] + [3.0, 0.0, 1.0]


@pytest.mark.foreign_state
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([GMMScore(2, background=True)])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("form", FORMS)
def test_own_checks(form):
    check_score_estimator(GMMScore(2, covariance_type=form, rank=1, background=True))


def test_its_law(X):
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 4, size=len(X))
    est = GMMScore(3, background=True, tol=1e-12, max_iter=500, random_state=0)
    est.fit(X, sample_weight=weights)
    total, e = weights.sum(), X.shape[1] + 1
    mean, S = np.average(X, axis=0, weights=weights), np.cov(X.T, fweights=weights, ddof=0)
    assert est.n_components_ == 4 and est.background_
    np.testing.assert_allclose(est.means_[-1], mean, rtol=1e-10)
    expected = 9 * (total * S + e * np.diag(np.diag(S))) / (total + e)
    np.testing.assert_allclose(est.covariances_[-1], expected, rtol=1e-10)
    # a fixed point of EM with one pseudo-row of the background
    counts = weights @ est.responsibilities(X)
    counts[-1] += 1
    np.testing.assert_allclose(est.weights_, counts / (total + 1), rtol=1e-5)


def test_its_price_is_one_row(X):
    # EM maximises n L + log w_0: no less than where the components are as without, w_0 = 1/(n+1)
    options = dict(shrinkage=0.0, tol=1e-9, max_iter=500, random_state=0)
    without = GMMScore(3, **options).fit(X)
    beside = GMMScore(3, background=True, **options).fit(X)
    n, w = len(X), beside.weights_[-1]
    price = n * np.log1p(1 / n) + np.log(w * (n + 1))
    assert n * (without.score(X) - beside.score(X)) < price + 1e-4
    assert w < 3 / n and price < 2.5


@pytest.mark.parametrize("form", FORMS)
def test_far_rows_are_its_own(X, form):
    est = GMMScore(3, covariance_type=form, rank=1, background=True, random_state=0).fit(X)
    far = X.mean(axis=0) + 30 * X.std(axis=0) * np.array([[1.0, -1.0, 1.0], [0.0, 1.0, 1.0]])
    covariance = np.asarray(est.covariances_[-1])
    covariance = covariance * np.eye(3) if covariance.ndim < 2 else covariance
    law = multivariate_normal(est.means_[-1], covariance)
    expected = np.log(est.weights_[-1]) + law.logpdf(far)
    np.testing.assert_allclose(est.score_samples(far), expected, rtol=1e-10)
    np.testing.assert_array_equal(est.predict(far), 3)


def test_a_gross_error_leaves_the_components_alone(X):
    centres = [X[:80].mean(axis=0), X[80:160].mean(axis=0), X[160:].mean(axis=0)]
    options = dict(init=centres, shrinkage=0.0, tol=1e-9, max_iter=500)
    wrong = np.vstack([X, X.mean(axis=0) + 15 * X.std(axis=0) * [1.0, -1.0, 1.0]])
    clean = GMMScore(3, **options).fit(X)
    robust = GMMScore(3, background=True, **options).fit(wrong)
    # in widths: what a pseudo-row more or less of some eighty does
    widths = np.sqrt(np.diagonal(clean.covariances_, axis1=1, axis2=2))
    assert (np.abs(robust.means_[:3] - clean.means_) < 0.05 * widths).all()
    spoilt = GMMScore(3, **options).fit(wrong)
    assert (np.abs(spoilt.means_ - clean.means_) > widths).any()


def test_streams_gaps_and_warm_starts_keep_it(X):
    params = dict(background=True, random_state=0)
    stream = GMMScore(3, **params)
    for rows in np.array_split(np.random.default_rng(0).permutation(X), 3):
        stream.partial_fit(rows)
    gappy = np.where(np.random.default_rng(1).random(X.shape) < 0.05, np.nan, X)
    gaps = GMMScore(3, **params).fit(gappy)
    warm = GMMScore(3, warm_start=True, **params).fit(X)
    before = warm.score(X)
    assert warm.fit(X).score(X) >= before - 1e-3 and warm.n_iter_ <= 3
    for est in (stream, gaps):
        assert est.n_components_ == 4
        assert 1 / (len(X) + 1) <= est.weights_[-1] < 5 / len(X)
        assert est.score(X) == pytest.approx(warm.score(X), abs=0.15)


def test_held_out_rows_decide(X):
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(2, size=(600, 3))
    options = dict(max_components=4, random_state=0)
    assert GMMScore("held_out", **options).fit(heavy).background_
    est = GMMScore("held_out", **options).fit(X)
    assert not est.background_ and est.n_components_ == 3


def test_a_truth_value_of_numpy_is_one(X):
    """As in a grid that is an array."""
    for flag in np.array([True, False]):
        assert GMMScore(2, background=flag, random_state=0).fit(X).background_ == flag


def test_what_is_refused(X):
    for wrong in (1, 3, "yes", np.ones(2)):
        with pytest.raises(ValueError, match="background must be 'auto', True or False; got "):
            GMMScore(2, background=wrong).fit(X)
    for flag in (True, np.True_):
        with pytest.raises(ValueError, match="cannot be 'tied'"):
            GMMScore(2, covariance_type="tied", background=flag).fit(X)
