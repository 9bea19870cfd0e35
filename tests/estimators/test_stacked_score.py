"""StackedScore: the weights are optimal, and held-out rows are denoised better for it."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RepeatedKFold, ShuffleSplit, train_test_split
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, StackedScore
from skdiffusion.datasets import make_gaussian, make_ring
from skdiffusion.estimators.stacked import _convex_weights
from skdiffusion.models import GaussianModel
from skdiffusion.utils.estimator_checks import check_score_estimator

CANDIDATES = [("full", GaussianScore()), ("mixture", GMMScore(3))]
GAUSSIANS = [("full", GaussianScore()), ("diagonal", GaussianScore("diag"))]


@pytest.mark.foreign_state
@parametrize_with_checks([StackedScore(GAUSSIANS, cv=2, n_levels=3)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_score_estimator_contract():
    check_score_estimator(StackedScore(GAUSSIANS, cv=2, n_levels=4))


def test_convex_weights_are_optimal(rng):
    for _ in range(20):
        errors = rng.standard_normal((4, 30)) * rng.uniform(0.3, 2, 4)[:, None]
        gram = errors @ errors.T
        weights = _convex_weights(gram)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
        value = weights @ gram @ weights
        # first-order condition on the simplex: no direction to a vertex descends
        slopes = 2 * (gram @ weights) - 2 * value
        assert slopes.min() > -1e-9 * value
        assert value <= gram.diagonal().min() * (1 + 1e-12)


def test_the_true_family_takes_all_the_weight():
    X, _ = make_gaussian(400, 3, spectrum=[9.0, 1.0, 0.1], random_state=0)
    est = StackedScore(
        [("true", GaussianScore()), ("far too few directions", GaussianScore("isotropic"))],
        n_levels=6,
        n_noise=8,
        random_state=0,
    ).fit(X)
    assert (est.weights_[:3, 0] > 0.95).all()


def test_each_level_prefers_who_is_right_there():
    X, law = make_ring(600, noise=0.05, random_state=0)
    est = StackedScore(
        [("gaussian", GaussianScore()), ("rows", EmpiricalScore(0.06, scaling="none"))],
        random_state=0,
    ).fit(X)
    near = est.levels_ < 0.1
    assert (est.weights_[near, 1] > 0.7).all()
    # against the truth, which the weights have not seen
    rows, _ = make_ring(500, noise=0.05, random_state=1)
    noised = rows + 0.3 * np.random.default_rng(0).standard_normal(rows.shape)
    truth = law.denoise(noised, 0.3)
    singles = [np.mean((e.denoise(noised, 0.3) - truth) ** 2) for e in est.estimators_]
    assert np.mean((est.denoise(noised, 0.3) - truth) ** 2) < 1.05 * min(singles)


def test_digits_are_denoised_better_than_by_any_candidate():
    X = load_digits().data / 8 - 1
    train, test = train_test_split(X, test_size=0.3, random_state=0)
    est = StackedScore(
        [
            ("gaussian", GaussianScore("ledoit_wolf")),
            ("mixture", GMMScore(10, random_state=0)),
            ("rows", EmpiricalScore(0.001, scaling="none")),
        ],
        cv=2,
        n_levels=8,
        random_state=0,
    ).fit(train)
    noise = np.random.default_rng(1).standard_normal(test.shape)
    for sigma in (0.35, 0.5, 0.75):
        noised = test + sigma * noise
        error = np.mean((est.denoise(noised, sigma) - test) ** 2)
        singles = [np.mean((e.denoise(noised, sigma) - test) ** 2) for e in est.estimators_]
        assert error < 0.97 * min(singles)


def test_flow_density_of_a_stack_of_one_is_its_own(rng):
    X = rng.standard_normal((100, 2)) @ [[1.0, 0.5], [0.0, 0.4]]
    single = GaussianScore().fit(X)
    est = StackedScore([("only", GaussianScore())], cv=2, n_levels=3).fit(X)
    np.testing.assert_array_equal(est.weights_, 1)
    # the flow starts at sigma_min, not zero: a millionth of the variances
    np.testing.assert_allclose(est.score_samples(X), single.score_samples(X), atol=1e-3)


def test_weights_of_rows_count(rng):
    X = rng.standard_normal((60, 2))
    ones = StackedScore(CANDIDATES, cv=2, random_state=0).fit(X, sample_weight=np.ones(60))
    none = StackedScore(CANDIDATES, cv=2, random_state=0).fit(X)
    np.testing.assert_allclose(ones.weights_, none.weights_, atol=1e-6)


def test_a_search_reaches_into_the_candidates():
    X, _ = make_ring(300, noise=0.05, random_state=0)
    est = StackedScore(
        [("gaussian", GaussianScore()), ("gmm", GMMScore(1))], n_levels=6, random_state=0
    )
    grid = [{"gmm__n_components": [1, 20]}, {"gaussian": ["drop", GaussianScore("diag")]}]
    search = GridSearchCV(est, grid, cv=2).fit(X)
    # two equal normal laws say nothing of a ring
    assert search.best_params_ == {"gmm__n_components": 20}
    named = dict(search.best_estimator_.estimators)
    by_hand = clone(est).set_params(estimators=list(named.items())).fit(X)
    np.testing.assert_array_equal(search.best_estimator_.weights_, by_hand.weights_)
    assert est.get_params()["gmm__n_components"] == 1  # what was searched is left alone


@pytest.mark.parametrize(
    "cv",
    [ShuffleSplit(20, test_size=0.1, random_state=0), RepeatedKFold(n_repeats=3, random_state=0)],
)
def test_errors_are_means_over_rows_however_often_these_are_held_out(cv):
    X, law = make_gaussian(400, 3, spectrum=[4.0, 1.0, 0.25], random_state=0)
    est = StackedScore([("true", GaussianScore())], cv=cv, n_levels=4, random_state=0).fit(X)
    variances, levels = law.covariance.variances, est.levels_[:, None]
    exact = np.mean(variances / (1 + variances / levels**2), axis=1)
    # a twentieth of the errors of 400 rows by chance, and a hundredth for the fitted covariance
    np.testing.assert_allclose(est.errors_[:, 0], exact, rtol=0.2)
    np.testing.assert_allclose(est.stacked_errors_, est.errors_[:, 0])


@pytest.mark.parametrize("sigma_min, sigma_max", [(1e-4, 1e-3), (50.0, 100.0)])
def test_levels_where_all_denoise_alike_may_be_asked_for(sigma_min, sigma_max, rng):
    X = rng.standard_normal((40, 2))
    est = StackedScore(GAUSSIANS, sigma_min=sigma_min, sigma_max=sigma_max).fit(X)
    assert est.levels_[[0, -1]] == pytest.approx([sigma_min, sigma_max])


def test_a_number_of_folds_is_one_in_any_type(rng):
    X = rng.standard_normal((40, 2))
    found, expected = (
        StackedScore(GAUSSIANS, cv=cv, random_state=0).fit(X) for cv in (np.int64(3), 3)
    )
    assert np.array_equal(found.errors_, expected.errors_)


def test_candidates_are_replaced_dropped_and_named_once(rng):
    X = rng.standard_normal((40, 2))
    est = StackedScore(GAUSSIANS, n_levels=3, random_state=0)
    est.set_params(diagonal="drop", full__covariance="oas").fit(X)
    assert len(est.estimators_) == 1 and est.estimators_[0].covariance == "oas"
    np.testing.assert_array_equal(est.weights_, np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"at least one .* that is not dropped"):
        clone(est).set_params(full="drop").fit(X)
    with pytest.raises(ValueError, match="Names provided are not unique"):
        StackedScore([GAUSSIANS[0], GAUSSIANS[0]]).fit(X)
    with pytest.raises(ValueError, match="Invalid parameter 'other'"):
        est.set_params(other__covariance="oas")
    with pytest.raises(ValueError, match="give schedule as an instance first"):
        est.set_params(schedule__beta_max=3)


def test_bad_requests(rng):
    X = rng.standard_normal((20, 2))
    with pytest.raises(ValueError, match="at least one"):
        StackedScore([]).fit(X)
    with pytest.raises(ValueError, match="n_levels must be an integer of at least 2"):
        StackedScore(n_levels=1).fit(X)
    with pytest.raises(ValueError, match="X has no variance"):
        StackedScore(CANDIDATES).fit(np.ones((9, 2)))


def test_a_weight_is_a_repetition(rng):
    X = rng.standard_normal((50, 2)) @ [[1.0, 0.8], [0.0, 0.5]]
    weights = np.arange(50) % 3
    weighted = StackedScore(GAUSSIANS, random_state=0).fit(X, sample_weight=weights)
    repeated = StackedScore(GAUSSIANS, random_state=0).fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.weights_, repeated.weights_, atol=1e-6)
    np.testing.assert_allclose(weighted.errors_, repeated.errors_, rtol=1e-10)


def test_score_is_a_bound_that_candidates_can_be_compared_by():
    X, law = make_gaussian(400, 2, spectrum=[4.0, 0.5], random_state=0)
    train, test = X[:200], X[200:]
    exact = GaussianScore().fit(train)
    options = {"cv": 2, "n_levels": 4, "random_state": 0}
    pool = StackedScore([("full", GaussianScore())], **options).fit(train)
    # one candidate is the candidate itself: its bound is its likelihood, exactly for a Gaussian
    assert pool.score(test) == pytest.approx(exact.score(test), abs=1e-4)
    ode = StackedScore([("full", GaussianScore())], likelihood="ode", **options).fit(train)
    assert ode.score(test) == pytest.approx(exact.score(test), abs=1e-4)

    found = StackedScore(GAUSSIANS, **options).fit(train).denoising_bound(test)
    assert found.score < law.log_prob(test).mean() + 3 * found.score_std_error
    # the levels that samplers use are no part of the bound
    other = StackedScore(GAUSSIANS, sigma_max=1e3, **options).fit(train)
    same = StackedScore(GAUSSIANS, sigma_max=2e3, **options).fit(train)
    assert other.score(test) == pytest.approx(same.score(test), abs=1e-12)


def test_search_ranks_classes_by_one_number():
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    X = load_digits().data[:300, 18:22]
    mixture = GMMScore(3, random_state=0)
    pool = StackedScore([("mixture", mixture)], cv=2, n_levels=3, random_state=0)
    search = GridSearchCV(
        Pipeline([("law", mixture)]), {"law": [GaussianScore(), mixture, pool]}, cv=2
    ).fit(X)
    gaussian, closed, bound = search.cv_results_["mean_test_score"]
    # 300 rows: the bound is known to about a hundredth of a nat
    assert bound == pytest.approx(closed, abs=0.04)
    assert min(bound, closed) > gaussian + 0.1


def test_likelihood_is_a_name():
    with pytest.raises(ValueError, match="Unknown likelihood 'exact'"):
        StackedScore(GAUSSIANS, likelihood="exact").fit(load_digits().data[:20])


def test_a_flow_that_cannot_be_followed_warns():
    X, _ = make_gaussian(100, 1, spectrum=[1.0], random_state=0)
    est = StackedScore([("full", GaussianScore())], cv=2, n_levels=3).fit(X)

    class Rough(GaussianModel):
        has_log_prob = False
        has_jacobian = False
        is_differentiable = False

        def _denoise(self, x, sigma):
            return np.sign(np.sin(30 * x / np.hypot(1, sigma)))

    est.model_ = Rough([0.0], 1.0)
    with pytest.warns(UserWarning, match=r"2 of 2 rows \(0, 1\) are uncertain by up to"):
        est.score_samples([[0.3], [0.4]])


def test_too_few_rows_to_hold_some_out_are_refused():
    X = np.random.default_rng(0).standard_normal((3, 2))
    candidates = [("gaussian", GaussianScore()), ("rows", EmpiricalScore(0.5))]
    with pytest.raises(ValueError, match="X has too few rows for cv=2: a fold leaves no two rows"):
        StackedScore(candidates, cv=2).fit(X)
    with pytest.raises(ValueError, match="a fold leaves no two rows of some weight"):
        folds = [([0, 1], [2])]
        StackedScore(candidates, cv=folds).fit(X, sample_weight=[1, 0, 1])
    with pytest.warns(UserWarning, match="singular"):
        assert np.isfinite(StackedScore(candidates, cv=3).fit(X).denoise(X, 1.0)).all()


@pytest.mark.parametrize(
    "given",
    [[GMMScore(1), GaussianScore()], {"gmm": GMMScore(1)}, "gmm", GMMScore(1), [("a", 1, 2)]],
)
def test_candidates_without_names_are_refused(given, rng):
    with pytest.raises(ValueError, match=r"must be a list of \(name, estimator\) pairs"):
        StackedScore(given).fit(rng.standard_normal((30, 2)))


def test_no_folds_are_refused(rng):
    with pytest.raises(ValueError, match="cv must hold at least one pair"):
        StackedScore(cv=[]).fit(rng.standard_normal((30, 2)))
    folds, weights = [(np.arange(20), np.arange(20, 30))], np.r_[np.ones(20), np.zeros(10)]
    with pytest.raises(ValueError, match="cv must hold out rows of some weight"):
        StackedScore(cv=folds).fit(rng.standard_normal((30, 2)), sample_weight=weights)


def test_a_frozen_candidate_stays_as_it_is(rng):
    X = rng.standard_normal((80, 2))
    law = GaussianScore().fit(X[:40])
    est = StackedScore([("frozen", FrozenEstimator(law))], random_state=0).fit(X[40:])
    np.testing.assert_array_equal(est.denoise(X, 0.5), law.denoise(X, 0.5))
    with pytest.raises(ValueError, match=r"must have shape \(n, 2\)"):
        StackedScore([("frozen", FrozenEstimator(law))]).fit(rng.standard_normal((30, 3)))


def test_every_candidate_tells_of_a_far_row_once(rng):
    X = rng.normal(size=(80, 2))
    X[3] = 1e6
    mixtures = [("one", GMMScore(1)), ("two", GMMScore(2))]
    with pytest.warns(UserWarning, match="a few far rows") as told:
        StackedScore(mixtures, n_levels=2, random_state=0).fit(X)
    assert sum("a few far rows" in str(w.message) for w in told) == 2
