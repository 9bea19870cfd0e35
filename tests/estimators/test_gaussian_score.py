"""GaussianScore: what it fits, and that every closed form is the truth about it."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.covariance import OAS, LedoitWolf, MinCovDet
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import GaussianScore, VPSchedule
from skdiffusion.samplers import HeunSampler
from skdiffusion.utils.estimator_checks import check_score_estimator

FORMS = ["empirical", "ledoit_wolf", "oas", "low_rank", "diag", "isotropic"]
IRIS = load_iris().data


@pytest.fixture
def correlated(rng):
    return rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5)) + np.arange(5)


# ------------------------------------------------------------------ the contract


@pytest.mark.foreign_state
@parametrize_with_checks([GaussianScore(form) for form in FORMS])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("form", [*FORMS, LedoitWolf()], ids=str)
def test_score_estimator_contract(form):
    check_score_estimator(GaussianScore(form))


# ------------------------------------------------------------------ what is fitted


def test_log_density_is_that_of_the_fitted_normal_law():
    est = GaussianScore().fit(IRIS)
    law = scipy.stats.multivariate_normal(IRIS.mean(0), np.cov(IRIS.T, bias=True))
    np.testing.assert_allclose(est.score_samples(IRIS), law.logpdf(IRIS), rtol=0, atol=1e-10)
    for sigma in (1e-3, 0.7, 50.0):
        noised = scipy.stats.multivariate_normal(
            law.mean, law.cov_object.covariance + sigma**2 * np.eye(4)
        )
        np.testing.assert_allclose(
            est.log_density(IRIS, sigma), noised.logpdf(IRIS), rtol=0, atol=1e-10
        )


def test_columns_of_very_different_scale_keep_their_density():
    # standardising first and adding the log-determinant is exact and well conditioned;
    # an ordinary eigensolver on the raw covariance is wrong by tenths of nats here
    X = load_breast_cancer().data
    scaler = StandardScaler().fit(X)
    reference = GaussianScore().fit(scaler.transform(X)).score_samples(scaler.transform(X))
    reference -= np.log(scaler.scale_).sum()
    # cond(correlation) is 1e6: ten digits of it remain in the quadratic form
    np.testing.assert_allclose(GaussianScore().fit(X).score_samples(X), reference, atol=1e-7)


@pytest.mark.parametrize("name, peer", [("ledoit_wolf", LedoitWolf()), ("oas", OAS())])
def test_shrunk_covariances_are_those_of_scikit_learn(correlated, name, peer):
    expected = peer.fit(correlated).covariance_
    np.testing.assert_allclose(
        GaussianScore(name).fit(correlated).covariance_, expected, rtol=1e-12
    )
    np.testing.assert_allclose(
        GaussianScore(peer).fit(correlated).covariance_, expected, rtol=1e-12
    )


def test_a_robust_covariance_estimator_brings_its_own_mean(correlated):
    est = GaussianScore(MinCovDet(random_state=0)).fit(correlated)
    np.testing.assert_array_equal(est.mean_, est.covariance_estimator_.location_)
    np.testing.assert_allclose(est.covariance_, est.covariance_estimator_.covariance_, rtol=1e-9)


def test_low_rank_is_probabilistic_pca():
    X = load_digits().data
    est = GaussianScore("low_rank", rank=20).fit(X)
    pca = PCA(20).fit(X)
    ml = (len(X) - 1) / len(X)  # PCA divides by n - 1
    np.testing.assert_allclose(est.explained_variance_, ml * pca.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(est.noise_variance_, ml * pca.noise_variance_, rtol=1e-10)
    np.testing.assert_allclose(est.covariance_, ml * pca.get_covariance(), atol=1e-9)


def test_rank_by_information_criterion_finds_the_planted_rank(rng):
    X = rng.standard_normal((2000, 7)) * 3 @ rng.standard_normal((7, 40))
    X += 0.5 * rng.standard_normal(X.shape)
    assert len(GaussianScore("low_rank").fit(X).components_) == 7


def test_high_dimension_never_forms_a_square_matrix(rng):
    import tracemalloc

    d, rank = 3000, 12
    factor = rng.standard_normal((rank, d)) * np.linspace(5, 1, rank)[:, None]
    X = rng.standard_normal((400, rank)) @ factor + 0.1 * rng.standard_normal((400, d))
    tracemalloc.start()
    est = GaussianScore("low_rank", rank=rank, random_state=0).fit(X)
    est.score_samples(X), est.sample(10), est.denoise(X, 1.0), est.transform(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * d * d  # one matrix of float64
    centred = X - X.mean(0)
    exact = np.linalg.eigvalsh(centred @ centred.T / len(X))[::-1][:rank]
    np.testing.assert_allclose(est.explained_variance_, exact, rtol=1e-8)
    total = (centred**2).sum() / len(X)
    np.testing.assert_allclose(est.noise_variance_, (total - exact.sum()) / (d - rank), rtol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_repetitions(correlated, form):
    weights = np.arange(60) % 4
    weighted = GaussianScore(form).fit(correlated, sample_weight=weights)
    repeated = GaussianScore(form).fit(np.repeat(correlated, weights, axis=0))
    np.testing.assert_allclose(weighted.mean_, repeated.mean_, atol=1e-12)
    np.testing.assert_allclose(weighted.covariance_, repeated.covariance_, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_batches_add_up_to_the_whole(correlated, form):
    weights = np.linspace(0.5, 2, 60)
    est = GaussianScore(form)
    for part in (slice(0, 7), slice(7, 8), slice(8, 60)):
        est.partial_fit(correlated[part] + 100, sample_weight=weights[part])
    whole = GaussianScore(form).fit(correlated + 100, sample_weight=weights)
    np.testing.assert_allclose(est.mean_, whole.mean_, rtol=1e-13)
    # the offset of 100 costs four digits of the fourth moments
    np.testing.assert_allclose(est.covariance_, whole.covariance_, atol=1e-10)
    assert est.n_samples_seen_ == 60


def test_batches_in_high_dimension_keep_the_leading_axes(rng):
    d, rank = 1500, 5
    factor = rng.standard_normal((rank, d)) * np.linspace(4, 2, rank)[:, None]
    X = rng.standard_normal((900, rank)) @ factor + 0.01 * rng.standard_normal((900, d)) + 3
    est = GaussianScore("low_rank", rank=rank, random_state=0)
    for part in np.array_split(X, 3):
        est.partial_fit(part)
    whole = GaussianScore("low_rank", rank=rank, random_state=0).fit(X)
    # what earlier batches dropped is the noise floor, 1e-4 of the leading variances
    np.testing.assert_allclose(est.explained_variance_, whole.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(est.noise_variance_, whole.noise_variance_, rtol=1e-3)


def test_batches_go_on_from_their_own_kind_alone(correlated):
    est = GaussianScore().fit(correlated)
    before = est.covariance_
    with pytest.raises(ValueError, match="covariance='diag' cannot go on from what was gathered"):
        est.set_params(covariance="diag").partial_fit(correlated)
    np.testing.assert_array_equal(est.covariance_, before)
    # all full matrices are of the same moments
    est.set_params(covariance="ledoit_wolf").partial_fit(correlated)
    twice = GaussianScore("ledoit_wolf").fit(np.repeat(correlated, 2, axis=0))
    np.testing.assert_allclose(est.covariance_, twice.covariance_, atol=1e-12)


def test_rows_of_a_fit_before_the_last_are_forgotten(correlated):
    est = GaussianScore().fit(correlated + 100).set_params(covariance=LedoitWolf()).fit(correlated)
    est.set_params(covariance="empirical").partial_fit(correlated)
    np.testing.assert_allclose(est.mean_, correlated.mean(axis=0), atol=1e-12)
    assert est.n_samples_seen_ == len(correlated) and not hasattr(est, "covariance_estimator_")


def test_partial_fit_is_absent_where_it_cannot_be():
    assert not hasattr(GaussianScore(LedoitWolf()), "partial_fit")


def test_affine_equivariance(correlated, rng):
    A, b = rng.standard_normal((5, 5)), rng.standard_normal(5)
    est, moved = GaussianScore().fit(correlated), GaussianScore().fit(correlated @ A.T + b)
    log_det = np.linalg.slogdet(A)[1]
    np.testing.assert_allclose(
        moved.score_samples(correlated @ A.T + b),
        est.score_samples(correlated) - log_det,
        atol=1e-9,
    )


# ------------------------------------------------------------------ samples and codes


def test_samples_have_the_fitted_moments():
    est = GaussianScore().fit(IRIS)
    X = est.sample(200_000, random_state=0)
    # standard errors of means and covariances at this n are below 0.005
    np.testing.assert_allclose(X.mean(0), est.mean_, atol=0.02)
    np.testing.assert_allclose(np.cov(X.T), est.covariance_, atol=0.04)


def test_one_seed_is_one_trajectory():
    est = GaussianScore().fit(IRIS)
    exact = est.sample(6, random_state=3)
    rows, path = est.sample(6, random_state=3, return_trajectory=True, n_steps=9)
    np.testing.assert_allclose(rows, exact, atol=1e-10)
    levels = est.noise_levels(9)
    assert path.shape == (10, 6, 4)
    for level, state in zip(levels, path, strict=False):
        np.testing.assert_allclose(est.flow(state, level, 0.0), exact, atol=1e-9)
        np.testing.assert_allclose(
            est.model_.to_latent(state, level), est.transform(exact), atol=1e-8
        )


@pytest.mark.parametrize("sampler, tolerance", [("euler", 0.2), ("heun", 2e-2), ("rk4", 1e-3)])
def test_samplers_approach_the_closed_form_flow(sampler, tolerance):
    est = GaussianScore().fit(IRIS)
    exact = est.sample(50, random_state=0)
    solved = est.sample(50, random_state=0, sampler=sampler, n_steps=60)
    assert np.abs(solved - exact).max() < tolerance


def test_codes_of_the_training_rows_are_white():
    est = GaussianScore().fit(IRIS)
    codes = est.transform(IRIS)
    np.testing.assert_allclose(codes.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(codes.T @ codes / len(IRIS), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(est.inverse_transform(codes), IRIS, atol=1e-12)


def test_emergence_levels_are_times_in_any_schedule():
    est = GaussianScore.from_parameters(np.zeros(3), [4.0, 1.0, 0.25])
    np.testing.assert_allclose(est.emergence_levels(fraction=0.5), np.sqrt([12, 3, 0.75]))
    np.testing.assert_allclose(est.emergence_levels(rho=1) ** 2, [2, 0.5, 0.125])
    np.testing.assert_allclose(est.emergence_levels() ** 2, 13 / 8 * np.array([4, 1, 0.25]))
    times = VPSchedule().time_of(est.emergence_levels())
    assert (np.diff(times) < 0).all()  # large variances appear first on the way from noise


def test_from_parameters():
    axes = np.eye(6)[:2]
    est = GaussianScore.from_parameters(
        np.ones(6), components=axes, explained_variance=[9.0, 4.0], noise_variance=0.5, rank=2
    )
    np.testing.assert_allclose(est.covariance_, np.diag([9, 4, 0.5, 0.5, 0.5, 0.5]))
    law = scipy.stats.multivariate_normal(np.ones(6), est.covariance_)
    x = np.arange(12.0).reshape(2, 6)
    np.testing.assert_allclose(est.score_samples(x), law.logpdf(x), atol=1e-12)
    assert est.sample(3).shape == (3, 6)


# ------------------------------------------------------------------ among its peers


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_grid_search_over_covariances(load):
    X = StandardScaler().fit_transform(load().data)
    search = GridSearchCV(GaussianScore(), {"covariance": FORMS}, n_jobs=2, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.sample(10).shape == (10, X.shape[1])


def test_grid_search_over_parameters_of_a_schedule():
    est = GaussianScore(schedule=VPSchedule(), sampler=HeunSampler())
    search = GridSearchCV(est, {"schedule__beta_max": [10.0, 20.0]}, cv=2).fit(IRIS)
    assert search.best_params_["schedule__beta_max"] in (10.0, 20.0)


def test_pipeline_frozen_and_persistence(tmp_path):
    pipe = make_pipeline(StandardScaler(), GaussianScore()).fit(IRIS)
    assert np.isfinite(pipe.score(IRIS))
    np.testing.assert_allclose(np.cov(pipe.transform(IRIS).T, bias=True), np.eye(4), atol=1e-10)
    est = GaussianScore("low_rank", rank=2).fit(IRIS)
    expected = est.score_samples(IRIS)
    assert np.array_equal(FrozenEstimator(est).score_samples(IRIS), expected)
    joblib.dump(est, tmp_path / "est.joblib")
    for copied in (pickle.loads(pickle.dumps(est)), joblib.load(tmp_path / "est.joblib")):
        assert np.array_equal(copied.score_samples(IRIS), expected)
        copied.partial_fit(IRIS)  # a stored estimator goes on learning


def test_skops_round_trip():
    import skops.io

    est = GaussianScore().fit(IRIS)
    stored = skops.io.dumps(est)
    trusted = skops.io.get_untrusted_types(data=stored)
    assert all(name.startswith("skdiffusion.") for name in trusted)
    loaded = skops.io.loads(stored, trusted=trusted)
    assert np.array_equal(loaded.score_samples(IRIS), est.score_samples(IRIS))


def test_data_frames_in_and_out():
    frame = load_iris(as_frame=True).data
    est = GaussianScore().set_output(transform="pandas").fit(frame)
    sample = est.sample(3, random_state=0)
    assert list(sample.columns) == list(frame.columns)
    assert isinstance(est.transform(frame), pd.DataFrame)
    est.set_output(transform="polars")
    assert est.sample(3, random_state=0).columns == list(frame.columns)
    est.set_output(transform="default")
    np.testing.assert_array_equal(est.sample(3, random_state=0), sample)
    with pytest.raises(ValueError, match="feature names"):
        est.score_samples(frame[frame.columns[::-1]])


# ------------------------------------------------------------------ what goes wrong


def test_singular_data_get_a_density_and_a_sentence():
    frame = load_digits(as_frame=True).data
    with pytest.warns(UserWarning, match=r"span 61 of 64 .* 3 columns are constant \(pixel_0_0, "):
        est = GaussianScore().fit(frame)
    assert np.isfinite(est.score_samples(frame)).all()
    assert np.isfinite(est.sample(10)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianScore("ledoit_wolf").fit(frame)
        GaussianScore(reg_covar=1e-3).fit(frame)


def test_fewer_rows_than_columns(rng):
    X = rng.standard_normal((5, 9))
    with pytest.warns(UserWarning, match="span 4 of 9 directions"):
        est = GaussianScore().fit(X)
    assert np.isfinite(est.score(X))
    with pytest.warns(UserWarning, match="span 4 of 9 directions"):
        GaussianScore("low_rank", rank=6).fit(X)


def test_a_law_without_density_says_so():
    est = GaussianScore.from_parameters([0.0, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match=r"no density: .* log_density\(X, sigma\) is"):
        est.score_samples([[0.0, 0.0]])
    assert np.isfinite(est.log_density([[0.0, 0.0]], 0.1)).all()
    with pytest.raises(ValueError, match=r"no density: .* model_.to_latent\(X, sigma\) has"):
        est.transform([[0.0, 0.0]])
    np.testing.assert_allclose(est.model_.to_latent([[0.0, 0.1]], 0.1), [[0.0, 1.0]])
    with pytest.raises(ValueError, match="sigma_from must be positive"):
        est.flow([[0.0, 0.0]], 0.0, 1.0)


@pytest.mark.parametrize(
    "params, message",
    [
        (
            {"schedule": "vpp"},
            r"Unknown schedule 'vpp' \(did you mean 'vp'\?\); accepted are 'edm'",
        ),
        ({"covariance": "empiric"}, "Unknown covariance 'empiric'.*'ledoit_wolf'"),
        ({"covariance": 3}, "covariance must be a name or a scikit-learn covariance estimator"),
        ({"sampler": "hein"}, r"Unknown sampler 'hein' \(did you mean 'heun'\?\)"),
        ({"reg_covar": -1.0}, "reg_covar must be a finite number of at least 0; got -1.0"),
        ({"covariance": "low_rank", "rank": 0}, "rank must be an integer of at least 1; got 0"),
        ({"covariance": "low_rank", "rank": 9}, "rank must be at most the number of columns, 4"),
        ({"sigma_min": -1.0}, "sigma_min must be a finite number above 0"),
        ({"sigma_min": 5.0, "sigma_max": 1.0}, "0 < sigma_min < sigma_max"),
        ({"schedule": VPSchedule(beta_max=-1.0)}, "beta_max must be a finite number"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        GaussianScore(**params).fit(IRIS)


@pytest.mark.parametrize(
    "X, message",
    [
        ([[1.0, np.nan], [0.0, 1.0]], "NaN"),
        ([[1.0, np.inf], [0.0, 1.0]], "infinity"),
        ([[1.0, 2.0]], "minimum of 2 is required"),
        ([[1.0, 2.0]] * 5, "X has no variance: all of its rows are the same"),
        ([1.0, 2.0], "Expected 2D array"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_bad_data(X, message, form):
    with pytest.raises(ValueError, match=message):
        GaussianScore(form).fit(X)


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.ones(3), r"sample_weight must have shape \(150,\)"),
        (-np.ones(150), "non-negative"),
        (np.zeros(150), "not all zero"),
        (np.full(150, np.nan), "finite"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        GaussianScore().fit(IRIS, sample_weight=weights)
    with pytest.raises(ValueError, match="LedoitWolf takes no sample_weight"):
        GaussianScore(LedoitWolf()).fit(IRIS, sample_weight=np.ones(150))


def test_bad_requests():
    est = GaussianScore().fit(IRIS)
    for sigma in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="sigma must be positive and finite"):
            est.denoise(IRIS, sigma)
    with pytest.raises(ValueError, match=r"one level per row, shape \(150,\)"):
        est.stein_score(IRIS, np.ones(4))
    with pytest.raises(ValueError, match="X has 3 features"):
        est.score_samples(IRIS[:, :3])
    with pytest.raises(ValueError, match="Z has 3 columns"):
        est.inverse_transform(IRIS[:, :3])
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1; got 0"):
        est.sample(0)
    with pytest.raises(ValueError, match="GaussianScore is unconditional"):
        est.sample(2, y=[0, 1])
    with pytest.raises(ValueError, match="Unknown schedule 'linear'"):
        est.at_time("linear")
    with pytest.raises(ValueError, match="random_state must be"):
        est.sample(2, random_state="seed")
    with pytest.raises(NotFittedError):
        GaussianScore().sample()
    with pytest.raises(ValueError, match="exactly one of covariance and components"):
        GaussianScore.from_parameters([0.0])
    with pytest.raises(ValueError, match="must be positive semi-definite"):
        GaussianScore.from_parameters([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])
