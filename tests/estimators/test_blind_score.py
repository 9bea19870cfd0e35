"""BlindScore and NoiseLevelEstimator: plain regression, and what it must find."""

import math
import pickle

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import BlindScore, GaussianScore, MarginalEnergy, NoiseLevelEstimator
from skdiffusion.datasets import make_embedded_circles, make_gaussian
from skdiffusion.models import GaussianModel
from skdiffusion.targets import TARGETS
from skdiffusion.utils.estimator_checks import check_score_estimator

CLOCK = NoiseLevelEstimator(LinearRegression(), n_noise=20)
LINEAR = BlindScore(LinearRegression(), level_estimator=CLOCK, n_noise=20)


@pytest.mark.foreign_state
@parametrize_with_checks([LINEAR, CLOCK])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_score_estimator_contract():
    check_score_estimator(LINEAR)


@pytest.mark.parametrize("target", TARGETS)
def test_regression_finds_the_blind_field(target):
    # the exact field of the Gaussian of the rows, at the rows themselves as points of the path
    X, _ = make_gaussian(400, 2, random_state=0)
    est = BlindScore(
        KNeighborsRegressor(200),
        target=target,
        level_estimator=CLOCK,
        n_noise=200,
        sigma_min=0.3 * float(np.sqrt(X.var(axis=0).mean())),
        random_state=0,
    ).fit(X)
    exact = MarginalEnergy(
        GaussianModel(X.mean(axis=0), np.cov(X.T, ddof=0)),
        schedule=est.schedule,
        prior=_uniform_between(est),
    ).fit(X)
    u = X[:200]
    path = (u - X.mean(axis=0)) / est.scale_
    learned, truth = est.model_.field(path), exact._field(path, target)
    # neighbours average over 200 draws: noise of order 1/14 of the target's spread
    spread = np.sqrt((truth**2).mean()) + 1
    assert np.sqrt(((learned - truth) ** 2).mean()) < 0.2 * spread


def _uniform_between(est):
    from skdiffusion.geometry import UniformPrior

    schedule = est.model_.schedule
    ends = (est.sigma_min_ / est.scale_, est.sigma_max_ / est.scale_)
    return UniformPrior(*(float(schedule.time_of(level)) for level in ends))


def test_the_noise_level_is_read_where_there_is_room_for_noise():
    X, _ = make_embedded_circles(500, 64, random_state=0)
    est = NoiseLevelEstimator(random_state=0).fit(X)
    rng = np.random.default_rng(0)
    for sigma in (0.01, 0.1, 1.0):
        noised = X[:200] + sigma * rng.standard_normal((200, 64))
        # 62 empty columns know the level to 1/sqrt(2 * 62) = 9%; trees are a little rougher
        error = np.log(est.predict_noise_level(noised) / sigma)
        assert abs(error.mean()) < 0.1 and error.std() < 0.25
        assert np.allclose(est.predict(noised), np.log(est.predict_noise_level(noised)))


def test_where_noise_leaves_no_trace_the_level_is_the_one_that_it_is_near():
    X = np.random.default_rng(0).standard_normal((2000, 3))
    est = NoiseLevelEstimator(random_state=0).fit(X)
    noise = np.random.default_rng(1).standard_normal(X.shape)
    for sigma in (0.004, 0.02):
        noised = X + sigma * noise
        # a posteriori all levels between .002, the lowest, and one are alike: this is their mean
        assert abs(np.log(np.median(est.predict_noise_level(noised)) / 0.002**0.5)) < 1.0
        for near in (sigma / 2, sigma):
            found = est.predict_noise_level(noised, near=near)
            assert abs(np.log(np.median(found) / near)) < 0.3
    # high levels show, to 1/sqrt(2 * 3) = .4, and pull the answer to their side
    found = est.predict_noise_level(X + 20 * noise, near=np.full(len(X), 8.0))
    assert 12 < np.median(found) < 20


def test_what_shows_counts_more_than_what_it_is_near():
    X, _ = make_embedded_circles(500, 64, random_state=0)
    est = NoiseLevelEstimator(random_state=0).fit(X)
    noised = X + 0.1 * np.random.default_rng(0).standard_normal(X.shape)
    # precisions 2 * 62 and 1: of an error of log 2 in what it is near, a 125th is left
    for near in (0.05, 0.1, 0.2):
        error = np.log(est.predict_noise_level(noised, near=near) / 0.1)
        assert abs(error.mean()) < 0.05
    with pytest.raises(ValueError, match="near must be positive"):
        est.predict_noise_level(noised, near=0.0)


def test_points_between_parts_of_the_data_do_not_pass_for_clean():
    # as a sampler leaves them: no noise in the empty columns, and off the circles all the same
    X, _, plane = make_embedded_circles(1000, 16, random_state=0, return_plane=True)
    est = NoiseLevelEstimator(random_state=0).fit(X)
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    between = 0.75 * np.c_[np.cos(angles), np.sin(angles)] @ plane.T
    between += 1e-3 * np.random.default_rng(0).standard_normal(between.shape)
    # the empty columns say .001; the distance .25 is that of noise of .06 in all columns
    assert np.median(est.predict_noise_level(between)) > 0.003


def test_levels_follow_the_units_of_the_rows():
    X, _ = make_embedded_circles(200, 16, random_state=0)
    noised = X + 0.2 * np.random.default_rng(1).standard_normal(X.shape)
    one = NoiseLevelEstimator(random_state=0).fit(X).predict_noise_level(noised)
    thousand = NoiseLevelEstimator(random_state=0).fit(1000 * X + 5)
    # histograms of trees move by rounding where the features do
    ratio = thousand.predict_noise_level(1000 * noised + 5) / one
    assert np.median(np.abs(ratio / 1000 - 1)) < 0.05


def test_trees_and_neighbours_generate_near_the_law():
    X, _, plane = make_embedded_circles(400, 16, random_state=0, return_plane=True)
    for regressor in (KNeighborsRegressor(5), ExtraTreesRegressor(20, min_samples_leaf=5)):
        est = BlindScore(regressor, n_noise=20, random_state=0).fit(X)
        samples = est.sample(100, n_steps=40, random_state=1)
        away = np.linalg.norm(samples - samples @ plane @ plane.T, axis=1)
        # means of training rows lie in their plane: what is left of the noise is the last level's
        assert np.median(away) < 0.1
        assert np.median(np.linalg.norm(samples @ plane, axis=1)) < 1.1


def test_it_pickles_searches_and_repeats():
    X, _ = make_gaussian(100, 3, random_state=0)
    est = BlindScore(LinearRegression(), level_estimator=CLOCK, n_noise=10, random_state=0)
    fitted = est.fit(X)
    copied = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copied.denoise(X, 0.5), fitted.denoise(X, 0.5))
    assert np.array_equal(copied.sample(3, random_state=0), fitted.sample(3, random_state=0))
    search = GridSearchCV(est, {"target": ["data", "noise"]}, cv=2, n_jobs=2).fit(X)
    assert math.isfinite(search.best_score_)


@pytest.mark.parametrize(
    "est, message",
    [
        (BlindScore(target="dat"), "Unknown target 'dat'"),
        (BlindScore(schedule="auto"), "Unknown schedule 'auto'"),
        (BlindScore(n_noise=0), "n_noise must be an integer"),
        (BlindScore(level_estimator="trees"), "level_estimator must be a NoiseLevelEstimator"),
        (NoiseLevelEstimator(n_noise=0), "n_noise must be an integer"),
        (NoiseLevelEstimator(sigma_min="low"), "sigma_min must be a finite number above 0"),
        (NoiseLevelEstimator(sigma_min=2.0, sigma_max=1.0), "sigma_min and sigma_max"),
    ],
)
def test_wrong_parameters_are_refused(est, message):
    with pytest.raises(ValueError, match=message):
        est.fit(GaussianScore().fit(np.eye(3) + 1).sample(20, random_state=0))


@pytest.mark.parametrize("est", [BlindScore(), NoiseLevelEstimator()], ids=str)
def test_equal_rows_have_no_variance_however_their_mean_is_rounded(est):
    for value in (0.1, 0.3, 1e8 + 0.1):
        with pytest.raises(ValueError, match="no variance"):
            est.fit(np.full((10, 3), value))
