"""GMMScore: EM against scikit-learn and identities, weights, gaps, batches, conditionals."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion.estimators import _em
from skdiffusion.estimators.gaussian import GaussianScore
from skdiffusion.estimators.mixture import GMMScore
from skdiffusion.models import MixtureModel
from skdiffusion.utils.estimator_checks import check_score_estimator

FORMS = ["full", "tied", "diag", "spherical", "low_rank"]


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 4, 4))
    means = 4 * rng.normal(size=(3, 4))
    rows = [means[k] + rng.normal(size=(60 + 40 * k, 4)) @ roots[k].T for k in range(3)]
    return np.concatenate(rows)[rng.permutation(300)] * [1.0, 10.0, 0.1, 1.0] + [0, 50, 0, -3]


# --------------------------------------------------------------------- the contract


@pytest.mark.foreign_state
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        GMMScore(),
        GMMScore(2, covariance_type="tied"),
        GMMScore(2, covariance_type="low_rank"),
        GMMScore(2, n_averaged=2),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("form", FORMS)
def test_contract(form):
    check_score_estimator(GMMScore(3, covariance_type=form))


def test_grid_search_over_its_parameters(X):
    grid = {"n_components": [1, 3], "covariance_type": ["full", "diag"], "shrinkage": [0, 2.0]}
    search = GridSearchCV(GMMScore(random_state=0), grid, cv=3).fit(X)
    assert search.best_params_["n_components"] == 3


# --------------------------------------------------------------------- EM


def start_of(est):
    """The precisions of a fitted mixture in scikit-learn's shapes."""
    inverses = [np.linalg.inv(c.to_matrix()) for c in est.model_.covariances]
    return {
        "full": np.array(inverses),
        "tied": inverses[0],
        "diag": np.array([p.diagonal() for p in inverses]),
        "spherical": np.array([p[0, 0] for p in inverses]),
    }[est.covariance_type]


@pytest.mark.parametrize("form", FORMS[:4])
def test_same_path_as_scikit_learn(X, form):
    X = StandardScaler().fit_transform(X)
    start = GMMScore(3, covariance_type=form, init="random", max_iter=1, tol=0, random_state=1)
    start.fit(X)
    ours = clone(start).set_params(warm_start=True, shrinkage=0.0, reg_covar=1e-6, max_iter=7)
    ours = _continued(start, ours).fit(X)
    theirs = GaussianMixture(
        3,
        covariance_type=form,
        weights_init=start.weights_,
        means_init=start.means_,
        precisions_init=start_of(start),
        reg_covar=1e-6,
        max_iter=7,
        tol=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(X)
    # the same arithmetic, except for the order of sums and responsibilities below 1e-11
    np.testing.assert_allclose(ours.weights_, theirs.weights_, rtol=1e-7)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-6, atol=1e-8)
    assert ours.score(X) == pytest.approx(theirs.score(X), abs=1e-8)


def _continued(fitted, est):
    """``est`` with the fitted state of another, to start from."""
    for name, value in vars(fitted).items():
        if name.endswith("_") or name.startswith("_step"):
            setattr(est, name, value)
    return est


@pytest.mark.parametrize("form", FORMS)
def test_likelihood_never_falls(X, form):
    est = GMMScore(
        4, covariance_type=form, rank=2, shrinkage=0.0, reg_covar=1e-9, tol=0, max_iter=60,
        init="random", random_state=0,
    ).fit(X)  # fmt: skip
    assert np.diff(est.lower_bounds_).min() > -1e-7
    assert est.lower_bound_ == pytest.approx(est.score(X), abs=1e-9)


def test_low_rank_in_many_columns_rises_to_the_same_optimum(monkeypatch):
    # 30 columns by both routes: whole scatters, and products with the axes only
    from skdiffusion.estimators import _low_rank_form

    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(2, 30, 3))
    rows = [6 * k + rng.normal(size=(400, 3)) @ loadings[k].T for k in range(2)]
    X = np.concatenate(rows) + 0.5 * rng.normal(size=(800, 30))
    options = dict(covariance_type="low_rank", rank=3, shrinkage=0.0, tol=1e-7, max_iter=500)
    exact = GMMScore(2, **options, random_state=0).fit(X)
    monkeypatch.setattr(_low_rank_form.LowRankForm, "matrix_up_to", 5)
    products = GMMScore(2, **options, random_state=0).fit(X)
    assert np.diff(products.lower_bounds_).min() > -1e-8
    assert products.lower_bound_ == pytest.approx(exact.lower_bound_, abs=2e-5)
    ours, theirs = (np.sort([c.residual for c in e.model_.covariances]) for e in (products, exact))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_low_rank_recovers_the_noise():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2)) @ rng.normal(size=(2, 12)) + 0.3 * rng.normal(size=(4000, 12))
    est = GMMScore(1, covariance_type="low_rank", rank=2, shrinkage=0.0).fit(X)
    assert est.model_.covariances[0].residual == pytest.approx(0.09, rel=0.03)
    gaussian = GaussianScore(covariance="low_rank", rank=2).fit(X)
    assert est.score(X) == pytest.approx(gaussian.score(X), abs=1e-4)


@pytest.mark.parametrize("form", ["full", "tied"])
def test_one_component_is_the_gaussian(X, form):
    est = GMMScore(1, covariance_type=form, reg_covar=0.0, shrinkage=0.0).fit(X)
    gaussian = GaussianScore().fit(X)
    for name in ("score_samples", "transform"):
        np.testing.assert_allclose(
            getattr(est, name)(X), getattr(gaussian, name)(X), rtol=2e-3, atol=2e-3
        )
    np.testing.assert_allclose(est.stein_score(X, 0.5), gaussian.stein_score(X, 0.5), rtol=1e-8)


def test_single_precision_follows_double(X):
    double = GMMScore(3, random_state=0, tol=1e-5).fit(X)
    single = GMMScore(3, random_state=0, tol=1e-5).fit(X.astype(np.float32))
    assert single.lower_bound_ == pytest.approx(double.lower_bound_, abs=1e-3)
    assert single.means_.dtype == np.float64


def test_single_precision_where_columns_are_narrow_and_wide():
    # most pixels at the border of the digits are zero and a few are not: scatters in single
    # precision have no Cholesky factor, and EM goes on in double
    digits = load_digits().data[:600]
    double = GMMScore(20, random_state=0, max_iter=20, tol=0).fit(digits)
    single = GMMScore(20, random_state=0, max_iter=20, tol=0).fit(digits.astype(np.float32))
    assert single.score(digits) == pytest.approx(double.score(digits), abs=5)
    chosen = GMMScore("held_out", max_components=5, random_state=0).fit(digits.astype(np.float32))
    assert np.isfinite([row[-1] for row in chosen.selection_]).all()


def test_units_do_not_matter(X):
    factors = np.array([1e-6, 1.0, 1e4, 3.0])
    for form in ("full", "tied", "diag"):
        one = GMMScore(3, covariance_type=form, random_state=0).fit(X)
        other = GMMScore(3, covariance_type=form, random_state=0).fit(X * factors + 7)
        np.testing.assert_allclose(
            other.score_samples(X * factors + 7),
            one.score_samples(X) - np.log(factors).sum(),
            atol=1e-5,
        )


def test_warm_start_goes_on(X):
    with pytest.warns(ConvergenceWarning):
        est = GMMScore(3, max_iter=2, tol=1e-9, warm_start=True, init="random", random_state=3).fit(
            X
        )
    before = est.lower_bound_
    est.set_params(max_iter=200).fit(X)
    assert est.lower_bound_ > before
    assert est.lower_bounds_[0] == pytest.approx(before, abs=1e-9)
    with pytest.raises(ValueError, match="warm_start"):
        est.set_params(n_components=2).fit(X)


def test_several_starts_find_the_clusters_that_one_start_misses():
    rng = np.random.default_rng(0)
    centres = 12.0 * np.stack(np.meshgrid(range(3), range(2)), axis=-1).reshape(-1, 2)
    rows = np.repeat(centres, 60, axis=0) + rng.standard_normal((360, 2))
    truth = GMMScore.from_parameters(np.full(6, 1 / 6), centres, np.ones(6)).score(rows)

    def reached(seed, n_init):
        est = GMMScore(6, init="random", n_init=n_init, shrinkage=0, random_state=seed).fit(rows)
        assert est.n_iter_ == len(est.lower_bounds_) - 1  # short run and rest are one run
        assert np.diff(est.lower_bounds_).min() > -1e-12
        return est.lower_bound_ > truth  # maximum likelihood is above the truth's

    assert sum(reached(seed, 1) for seed in range(6)) <= 3
    assert all(reached(seed, 30) for seed in range(6))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("background", [False, True])
def test_average_of_mixtures(X, form, background):
    if form == "tied" and background:
        pytest.skip("tied components have no background")
    options = {"covariance_type": form, "background": background, "max_iter": 5, "tol": 0}
    options["init"] = "random"
    rng = np.random.default_rng(3)
    singles = [GMMScore(4, n_init=1, random_state=rng, **options).fit(X) for _ in range(3)]
    densities = [est.score_samples(X) for est in singles]
    rng = np.random.default_rng(3)
    est = GMMScore(4, n_averaged=3, random_state=rng, **options).fit(X)
    assert np.ptp([d.mean() for d in densities]) > 0.01  # they differ
    np.testing.assert_allclose(
        est.score_samples(X), np.logaddexp.reduce(densities) - np.log(3), rtol=1e-10
    )
    assert est.n_components_ == len(est.covariances_) == 12 + background
    assert est.weights_.sum() == pytest.approx(1)
    assert est.lower_bound_ == pytest.approx(np.mean(densities))
    assert est.score(X) > est.lower_bound_  # Jensen


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_averages_are_better_densities(load):
    # by Jensen an average is better than the mean of its members wherever they differ: on rows
    # that were not seen by tenths of a nat, whatever their number of components
    X = StandardScaler().fit_transform(load().data)
    gains = []
    for train, test in ShuffleSplit(4, test_size=0.3, random_state=0).split(X):
        one, five = (
            GMMScore(10, n_averaged=m, random_state=0).fit(X[train]).score(X[test]) for m in (1, 5)
        )
        gains.append(five - one)
    assert np.mean(gains) > 0.05


def test_averages_with_a_chosen_number_of_components(X):
    est = GMMScore("held_out", n_averaged=3, max_components=4, random_state=0).fit(X)
    chosen = max(est.selection_, key=lambda row: row[-1])[0]
    found, rest = divmod(est.n_components_ - est.background_, chosen)
    assert rest == 0 and 1 <= found <= 3


@pytest.mark.parametrize("background", [False, True])
def test_every_mixture_of_an_average_goes_on_by_itself(X, background):
    rows, more = X[::2], X
    short = {"max_iter": 3, "tol": 0, "background": background, "init": "random"}
    rng = np.random.default_rng(3)
    singles = [GMMScore(4, n_init=1, random_state=rng, **short).fit(rows) for _ in range(3)]
    rng = np.random.default_rng(3)
    est = GMMScore(4, n_averaged=3, random_state=rng, **short).fit(rows)
    for one in (*singles, est):
        one.set_params(warm_start=True).fit(more)
    expected = np.logaddexp.reduce([one.score_samples(more) for one in singles]) - np.log(3)
    # a background goes on from the mean of its three weights, which three iterations nearly forget
    np.testing.assert_allclose(est.score_samples(more), expected, atol=0.01 if background else 1e-9)
    with pytest.raises(ValueError, match="number of columns and components of the last fit"):
        est.set_params(n_averaged=2).fit(more)


def test_a_choice_stays_where_a_fit_goes_on(X):
    est = GMMScore("held_out", n_averaged=3, max_components=4, random_state=0).fit(X)
    before = clone(est).fit(X)
    est.set_params(warm_start=True).fit(X)
    assert est.selection_ == before.selection_
    for name in ("n_components_", "reg_covar_", "shrinkage_", "background_"):
        assert getattr(est, name) == getattr(before, name)
    assert est.lower_bound_ >= before.lower_bound_ - est.tol
    assert est.n_iter_ <= 3  # it had been found


def test_starts_that_end_in_the_same_optimum_count_once():
    rows = np.random.default_rng(0).normal(size=(60, 2)) + np.repeat([[0, 0], [99, 0]], 30, axis=0)
    one, five = (GMMScore(2, n_averaged=m, random_state=0).fit(rows) for m in (1, 5))
    assert five.n_components_ == 2
    five.set_params(warm_start=True).fit(rows)
    assert five.n_components_ == 2
    np.testing.assert_allclose(five.score_samples(rows), one.score_samples(rows), rtol=1e-9)


def test_interruption_averages_what_there_is(X, monkeypatch):
    calls, one_pass = [], _em.one_pass

    def interrupted(*args):
        calls.append(0)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return one_pass(*args)

    monkeypatch.setattr(_em, "one_pass", interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        est = GMMScore(3, n_averaged=5, tol=0, max_iter=20, random_state=0).fit(X)
    assert est.n_components_ == 6
    assert np.isfinite(est.score(X))


def test_an_average_is_not_updated(X):
    est = GMMScore(2, n_averaged=2, random_state=0)
    assert not hasattr(est, "partial_fit")
    with pytest.raises(ValueError, match="init must be a name"):
        clone(est).set_params(init=X[:2]).fit(X)
    with pytest.raises(ValueError, match="n_averaged"):
        clone(est).set_params(n_averaged=0).fit(X)


def test_means_to_start_from(X):
    means = X[[0, 100, 200]]
    est = GMMScore(3, init=means).fit(X)
    assert est.lower_bound_ == clone(est).fit(X).lower_bound_
    with pytest.raises(ValueError, match=r"means of shape \(3, 4\)"):
        GMMScore(3, init=means[:, :2]).fit(X)


def test_interruption_keeps_what_there_is(X, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return one_pass(*arguments)

    one_pass = _em.one_pass
    monkeypatch.setattr(_em, "one_pass", interrupted)
    with pytest.warns(UserWarning, match="interrupted: the parameters after 2 iterations"):
        est = GMMScore(3, tol=0, random_state=0).fit(X)
    assert est.n_iter_ == 2 and not est.converged_
    assert np.isfinite(est.score(X))


def test_progress(X, capsys):
    GMMScore(2, verbose=True).fit(X)
    assert "EM" in capsys.readouterr().err


# --------------------------------------------------------------------- weights


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random"])
def test_weights_are_repetitions(X, form, init):
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, size=len(X))
    repeated = np.repeat(X, weights, axis=0)[rng.permutation(weights.sum())]
    options = dict(covariance_type=form, rank=2, init=init, tol=1e-6, random_state=0)
    weighted = GMMScore(3, **options).fit(X, sample_weight=weights)
    plain = GMMScore(3, **options).fit(repeated)
    np.testing.assert_allclose(weighted.weights_, plain.weights_, rtol=1e-8)
    np.testing.assert_allclose(
        weighted.score_samples(X), plain.score_samples(X), rtol=1e-7, atol=1e-7
    )
    assert weighted.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-10)


@pytest.mark.parametrize("criterion", ["bic", "held_out"])
def test_choices_see_weights_as_repetitions(X, criterion):
    weights = np.random.default_rng(0).integers(0, 3, size=len(X))
    options = dict(max_components=4, random_state=0)
    weighted = GMMScore(criterion, **options).fit(X, sample_weight=weights)
    plain = GMMScore(criterion, **options).fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.selection_, plain.selection_, rtol=1e-8)
    assert weighted.n_components_ == plain.n_components_


# --------------------------------------------------------------------- choosing


@pytest.mark.parametrize("criterion", ["bic", "held_out"])
def test_finds_the_number_of_components(X, criterion):
    est = GMMScore(criterion, max_components=8, random_state=0, n_init=3).fit(X)
    assert est.n_components_ == 3 and est.weights_.shape == (3,)
    assert max(est.selection_, key=lambda row: row[-1])[0] == 3


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_no_accidents_on_small_tables(load):
    # mean held-out nats per standardised column: what one Gaussian reaches, less 0.3
    X = load().data
    for train, test in ShuffleSplit(2, test_size=0.3, random_state=0).split(X):
        scaler = StandardScaler().fit(X[train])
        A, B = scaler.transform(X[train]), scaler.transform(X[test])
        floor = GaussianScore("ledoit_wolf").fit(A).score(B) - 0.3
        for n_components in (10, "bic", "held_out"):
            assert GMMScore(n_components, random_state=0).fit(A).score(B) > floor


def test_shrinkage_pulls_to_the_tied_covariance(X):
    strong = GMMScore(3, shrinkage=1e9, reg_covar=0.0, random_state=0).fit(X)
    matrices = strong.covariances_
    np.testing.assert_allclose(matrices[0], matrices[1], rtol=1e-5)


# --------------------------------------------------------------------- missing values


@pytest.mark.parametrize("form", FORMS)
def test_gaps_at_random_change_little(X, form):
    rng = np.random.default_rng(1)
    X = StandardScaler().fit_transform(X)
    gappy = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    gappy[:3] = np.nan  # rows that tell nothing
    options = dict(covariance_type=form, rank=2, random_state=0, n_init=3)
    whole, part = GMMScore(3, **options).fit(X), GMMScore(3, **options).fit(gappy)
    assert part.score(X) > whole.score(X) - 0.15


@pytest.mark.parametrize("form", FORMS)
def test_likelihood_with_gaps_never_falls(X, form):
    rng = np.random.default_rng(1)
    gappy = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    gappy = gappy[~np.isnan(gappy).all(axis=1)]
    est = GMMScore(
        3, covariance_type=form, rank=2, shrinkage=0.0, reg_covar=1e-9, tol=0, max_iter=40,
        random_state=0,
    ).fit(gappy)  # fmt: skip
    assert np.diff(est.lower_bounds_).min() > -1e-7
    assert est.lower_bound_ == pytest.approx(est.score(gappy), abs=1e-8)


def test_one_gaussian_with_gaps_in_one_column():
    # monotone gaps: the maximum-likelihood moments are those of the regression (Little 1974)
    rng = np.random.default_rng(0)
    A = rng.multivariate_normal([1.0, 2.0], [[1.0, 0.8], [0.8, 2.0]], size=400)
    A[250:, 1] = np.nan
    est = GMMScore(1, reg_covar=0.0, shrinkage=0.0, tol=0, max_iter=200).fit(A)
    seen = A[:250]
    slope = np.cov(seen.T, bias=True)[0, 1] / seen[:, 0].var()
    mean = seen[:, 1].mean() + slope * (A[:, 0].mean() - seen[:, 0].mean())
    np.testing.assert_allclose(est.means_[0], [A[:, 0].mean(), mean], rtol=1e-8)
    cross = slope * A[:, 0].var()
    rest = np.var(seen[:, 1] - slope * seen[:, 0])
    expected = [[A[:, 0].var(), cross], [cross, rest + slope * cross]]
    np.testing.assert_allclose(est.covariances_[0], expected, rtol=1e-7)


def test_gaps_at_prediction_time(X):
    est = GMMScore(3, random_state=0).fit(X)
    gappy = X[:6].copy()
    gappy[1, 0] = gappy[2, 1] = gappy[2, 3] = np.nan
    gappy[3] = np.nan
    seen = est.model_.marginal([0, 2])
    np.testing.assert_allclose(est.score_samples(gappy)[2], seen.log_prob(X[2:3, [0, 2]])[0])
    np.testing.assert_allclose(est.responsibilities(gappy)[3], est.weights_)
    levels = np.linspace(0.1, 2.0, 6)
    by_row = est.responsibilities(gappy, levels)
    np.testing.assert_allclose(by_row[2], seen.responsibilities(X[2:3, [0, 2]], levels[2])[0])
    for wrong in (levels[:2], np.append(levels, 1.0)):
        with pytest.raises(ValueError, match=r"one level per row, shape \(6,\)"):
            est.responsibilities(gappy, wrong)
    assert est.score_samples(gappy)[3] == 0
    assert np.isfinite(est.transform(gappy)).all()
    # the completion of a row is the mean of its conditional
    given = est.condition({1: X[1, 1], 2: X[1, 2], 3: X[1, 3]})
    completed = X[1:2].copy()
    completed[0, 0] = given.weights_ @ given.means_[:, 0]
    np.testing.assert_allclose(est.transform(gappy)[1], est.transform(completed)[0], rtol=1e-9)
    with pytest.raises(ValueError, match="NaN"):
        est.denoise(gappy, 0.5)


# --------------------------------------------------------------------- batches


@pytest.mark.parametrize("form", FORMS)
def test_batches_come_close_to_the_whole(form):
    rng = np.random.default_rng(0)
    truth = MixtureModel([0.3, 0.7], [[-2.0] * 4, [2.0] * 4], [np.diag([1, 0.5, 2, 1]), np.eye(4)])
    X = truth.sample(6000, random_state=rng)
    options = dict(covariance_type=form, rank=2, random_state=0)
    est = GMMScore(2, **options)
    for batch in np.split(X, 30):
        est.partial_fit(batch)
    assert est.score(X) > GMMScore(2, **options).fit(X).score(X) - 0.02


def test_weights_in_batches(X):
    weights = np.random.default_rng(0).integers(0, 3, size=len(X))
    one, other = GMMScore(3, random_state=0), GMMScore(3, random_state=0)
    for part in (slice(0, 200), slice(200, 300)):
        one.partial_fit(X[part], sample_weight=weights[part])
        other.partial_fit(np.repeat(X[part], weights[part], axis=0))
    np.testing.assert_allclose(one.score_samples(X), other.score_samples(X), rtol=1e-7)
    pickle.loads(pickle.dumps(one)).partial_fit(X[:5])
    assert one.fit(X).n_iter_ > 1  # starts over


# --------------------------------------------------------------------- known parameters


@pytest.mark.parametrize("form", FORMS[:4])
def test_from_scikit_learn(X, form):
    frame = pd.DataFrame(X, columns=list("abcd"))
    theirs = GaussianMixture(3, covariance_type=form, random_state=0).fit(frame)
    ours = GMMScore.from_sklearn(theirs)
    np.testing.assert_allclose(ours.score_samples(frame), theirs.score_samples(frame), rtol=1e-9)
    np.testing.assert_array_equal(ours.predict(frame), theirs.predict(frame))
    np.testing.assert_allclose(ours.responsibilities(frame), theirs.predict_proba(frame), atol=1e-8)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-10, atol=1e-12)
    assert list(ours.feature_names_in_) == list("abcd")


def test_from_bayesian_mixture(X):
    theirs = BayesianGaussianMixture(n_components=3, random_state=0).fit(X)
    assert np.isfinite(GMMScore.from_sklearn(theirs).score(X))
    with pytest.raises(NotFittedError):
        GMMScore.from_sklearn(GaussianMixture())


def test_from_parameters():
    est = GMMScore.from_parameters([0.5, 0.5], np.eye(2), np.eye(2), covariance_type="tied")
    np.testing.assert_allclose(est.covariances_, np.eye(2))
    assert est.n_components == est.n_components_ == 2
    assert est.predict([[2.0, 0.0], [0.0, 2.0]]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="one covariance per component"):
        GMMScore.from_parameters([1.0], [[0.0]], [1.0, 1.0])


# --------------------------------------------------------------------- conditionals


def test_conditional_estimator(X):
    frame = pd.DataFrame(X, columns=list("abcd"))
    est = GMMScore(3, random_state=0).fit(frame).set_output(transform="pandas")
    given = est.condition({"b": 50.0, 3: -3.0})
    rest, whole = frame[["a", "c"]][:20], frame[:20].copy()
    whole["b"], whole["d"] = 50.0, -3.0
    known = est.model_.marginal([1, 3]).log_prob(np.array([[50.0, -3.0]]))
    ratio = est.score_samples(whole) - known
    np.testing.assert_allclose(given.score_samples(rest), ratio, rtol=1e-10, atol=1e-10)
    assert list(given.feature_names_in_) == ["a", "c"]
    assert given.sample(3, random_state=0).shape == (3, 2)
    assert np.isfinite(given.transform(rest)).all()
    for wrong in (
        {"z": 0.0},
        {4: 0.0},
        {"b": 0.0, 1: 0.0},
        {"b": np.nan},
        dict.fromkeys(range(4), 0),
    ):
        with pytest.raises(ValueError):
            est.condition(wrong)


# --------------------------------------------------------------------- hard cases


@pytest.mark.parametrize("form", FORMS)
def test_degenerate_tables(form):
    rng = np.random.default_rng(0)
    constant = np.c_[rng.normal(size=40), np.full(40, 3.0), rng.normal(size=40)]
    duplicated = np.repeat(rng.normal(size=(4, 3)), 10, axis=0)
    collinear = rng.normal(size=(40, 1)) * [1.0, 2.0, 3.0]
    few = rng.normal(size=(3, 3))
    for table in (constant, duplicated, collinear, few):
        est = GMMScore(4, covariance_type=form, random_state=0).fit(table)
        assert np.isfinite(est.score_samples(table)).all()
        assert np.isfinite(est.denoise(table, 1e-3)).all()
    line = GMMScore(2, covariance_type=form).fit(rng.normal(size=(20, 1)))
    assert np.isfinite(line.score_samples([[0.0]])).all()


def test_offsets_cost_no_digits(X):
    near, far = (GMMScore(3, random_state=0).fit(X + shift) for shift in (0.0, 2.0**20))
    np.testing.assert_allclose(far.score_samples(X + 2.0**20), near.score_samples(X), atol=1e-4)


def test_predictions_at_levels(X):
    est = GMMScore(3, random_state=0).fit(X)
    gamma = est.responsibilities(X, np.full(len(X), 0.5))
    np.testing.assert_allclose(gamma, est.responsibilities(X, 0.5), rtol=1e-12)
    np.testing.assert_allclose(gamma.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(est.predict(X), est.responsibilities(X).argmax(axis=1))
    assert est.jacobian(X[:2], 0.5).shape == (2, 4, 4)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"n_components": 0}, "n_components must be an integer of at least 1"),
        ({"n_components": "aic"}, "Unknown n_components 'aic'"),
        ({"covariance_type": "ful"}, "did you mean 'full'"),
        ({"init": "means"}, "Unknown init"),
        ({"reg_covar": -1.0}, "reg_covar must be a finite number of at least 0"),
        ({"shrinkage": "none"}, "shrinkage must be a finite number"),
        (
            {"covariance_type": "low_rank", "rank": 4},
            "rank must be less than the number of columns",
        ),
        ({"tol": -1}, "tol must be"),
        ({"n_init": 1.5}, "n_init must be an integer"),
        ({"init": {"means": 0}}, "init must be a name or finite means"),
        ({"n_init": "many"}, "accepted are 'auto' or an integer"),
        ({"n_components": "bic", "init": np.zeros((2, 4))}, "integer n_components"),
        ({"sampler": "huen"}, "sampler"),
        ({"sigma_min": -1.0}, "sigma_min"),
    ],
)
def test_wrong_parameters(X, params, message):
    with pytest.raises(ValueError, match=message):
        GMMScore(**params).fit(X)


def test_wrong_rows(X):
    with pytest.raises(ValueError, match="column 1 of X has no value"):
        GMMScore(2).fit(np.c_[X[:, 0], np.full(len(X), np.nan)])
    with pytest.raises(ValueError, match="no variance"):
        GMMScore(2).fit(np.ones((5, 2)))
    with pytest.raises(ValueError, match="infinity"):
        GMMScore(2).fit(np.where(X > 60, np.inf, X))
    with pytest.raises(NotFittedError):
        GMMScore().condition({0: 1.0})
    with pytest.raises(
        ValueError, match=r"mapping from columns to their known values; got \[1.0\]"
    ):
        GMMScore.from_parameters([1.0], [[0.0, 1.0]], [1.0]).condition([1.0])


def test_singular_without_regularisation():
    with pytest.raises(ValueError, match="increase reg_covar"):
        GMMScore(2, reg_covar=0.0, shrinkage=0.0).fit(np.arange(12.0)[:, None] * [1.0, 2.0])


def test_nearly_constant_columns_do_not_widen_the_rest():
    """Digits have pixels that are inked in a handful of rows: total variance stays the data's."""
    from sklearn.datasets import load_digits

    X = load_digits().data / 8 - 1
    est = GMMScore(20, random_state=0).fit(X)
    # EM keeps the total variance but for the pull of small components
    assert est.far_field_.covariance.total == pytest.approx(X.var(0).sum(), rel=0.05)


def test_codes_of_tables_with_gaps(rng):
    X = rng.standard_normal((60, 3))
    X[rng.random(X.shape) < 0.2] = np.nan
    frame = pd.DataFrame(X, columns=list("abc"), index=[f"row {i}" for i in range(60)])
    est = GMMScore(2, random_state=0).fit(frame)
    codes = est.transform(frame)
    with_nulls = pl.from_pandas(frame)
    assert with_nulls.null_count().sum_horizontal().item() == np.isnan(X).sum()
    np.testing.assert_array_equal(est.transform(with_nulls), codes)
    est.set_output(transform="pandas")
    pd.testing.assert_frame_equal(
        est.transform(frame), pd.DataFrame(codes, columns=frame.columns, index=frame.index)
    )
    est.set_output(transform="polars")
    assert est.transform(with_nulls).columns == list("abc")


def test_far_rows_that_decide_the_scale_are_told_of():
    X = np.random.default_rng(0).normal(size=(300, 2))
    X[5, 0], X[0, 1], X[1, 1] = np.nan, 1e8, -1e8
    with pytest.warns(UserWarning, match=r"scale of 1 of 2 columns \(1\).*share of its square"):
        GMMScore(2, random_state=0).fit(X)
    # rows that do not count decide nothing, nor do those that a background is made for
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        GMMScore(2, random_state=0).fit(X, sample_weight=np.r_[0, 0, np.ones(298)])
        GMMScore(2, random_state=0).fit(np.clip(X, -100, 100))


@pytest.mark.parametrize(
    "form, rank", [("full", None), ("tied", None), ("diag", None), ("low_rank", 2)]
)
def test_rows_in_a_subspace_are_told_of(form, rank, rng):
    free, dtypes = rng.standard_normal((60, 3)), (np.float64, np.float32)
    frame = pd.DataFrame(free, columns=list("abc")).assign(d=2.0)
    est = GMMScore(2, covariance_type=form, rank=rank, random_state=0)
    regular = est if form != "low_rank" else clone(est).set_params(rank=1)
    if form != "low_rank":  # whose rest covers a constant column, but not all but its axes
        with pytest.warns(UserWarning, match=r"span 3 of 4 directions, 1 column is constant \(d\)"):
            est.fit(frame)
    for dtype in dtypes:
        dependent = np.column_stack([free[:, :2], free[:, :2].sum(axis=1)]).astype(dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "the covariance")
            regular.fit(free.astype(dtype))
            regular.set_params(reg_covar=1e-6).fit(dependent)  # by name
            regular.set_params(reg_covar="auto")
        if form != "diag":
            with pytest.warns(UserWarning, match=r"span 2 of 3 directions\).* reg_covar, 1e-06"):
                est.fit(dependent)


def test_fewer_rows_than_columns_are_told_of_unless_held_out_rows_chose(rng):
    X = rng.standard_normal((20, 30))
    with pytest.warns(UserWarning, match="span 19 of 30"):
        GMMScore(1).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GMMScore("held_out", random_state=0).fit(X).reg_covar_ > 1e-6


@pytest.mark.parametrize("k", [3, 10])
def test_as_many_components_as_distinct_rows_are_told_of(k, rng):
    X = np.repeat(rng.standard_normal((3, 2)), 20, axis=0)
    with pytest.warns(UserWarning, match=f"n_components={k} for 3 distinct rows"):
        est = GMMScore(k, random_state=0).fit(X)
    # three atoms of equal weight, as wide as reg_covar in each column
    widths = np.sqrt(1e-6 * X.var(axis=0))
    at_a_row = -np.log(3) - np.log(2 * np.pi) - np.log(widths).sum()
    np.testing.assert_allclose(est.score_samples(X), at_a_row, rtol=1e-6)
    with pytest.warns(UserWarning, match="for 3 distinct rows"):
        GMMScore(k).fit(np.vstack([X, [[9, 9]]]), sample_weight=np.r_[np.ones(60), 0])


def test_held_out_rows_ask_for_a_wide_component_where_columns_are_more_than_rows(rng):
    X, Z = rng.normal(size=(60, 100)), rng.normal(size=(300, 100))
    est = GMMScore("held_out", random_state=0).fit(X)
    # the exact law costs 142 nats; a twentieth of the variance on the directions that 60 rows leave
    # open costs 60 more
    assert est.score(Z) > norm.logpdf(Z).sum(axis=1).mean() - 20
