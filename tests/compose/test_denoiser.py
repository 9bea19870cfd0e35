"""Denoiser: the posterior mean as a transformer, and purification."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import GaussianScore, GMMScore
from skdiffusion.compose import Denoiser, estimate_noise_level


@pytest.mark.foreign_state
@parametrize_with_checks([Denoiser(), Denoiser(GaussianScore(), purify=True)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_of_a_gaussian_it_is_the_wiener_filter(rng):
    law = GaussianScore.from_parameters([1.0, 0.0], [4.0, 1.0])
    X = rng.standard_normal((5, 2))
    found = Denoiser(FrozenEstimator(law), sigma=2.0).fit(X).transform(X)
    np.testing.assert_allclose(found, [1, 0] + (X - [1, 0]) * [0.5, 0.2], atol=1e-12)


def test_it_errs_as_little_as_any_estimate_can(rng):
    # mean squared error of the best estimate: the trace of C s^2 / (C + s^2)
    law = GaussianScore.from_parameters([0.0, 0.0], [4.0, 0.25])
    X = law.sample(20_000, random_state=1)
    noisy = X + 0.5 * rng.standard_normal(X.shape)
    denoised = Denoiser(FrozenEstimator(law), sigma=0.5).fit(X).transform(noisy)
    truth = 4 * 0.25 / 4.25 + 0.25 * 0.25 / 0.5
    assert ((denoised - X) ** 2).sum(1).mean() == pytest.approx(truth, rel=0.03)


def test_units_of_the_columns_do_not_matter(rng):
    X = rng.standard_normal((80, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    units = np.array([1e-4, 1e3])
    law = GaussianScore()
    plain = Denoiser(law).fit(X).transform(X)
    scaled = Denoiser(law).fit(X * units).transform(X * units)
    np.testing.assert_allclose(scaled, plain * units, rtol=1e-9)


def test_columns_that_do_not_vary_are_no_reason_to_remove_less_noise():
    X = load_iris().data
    more = np.column_stack([X, np.ones((len(X), 12))])
    law = GMMScore(1)
    few, many = Denoiser(law).fit(X), Denoiser(law).fit(more)
    assert few.sigma_ == many.sigma_ == 0.25
    # as exact as the floor of the variances, a millionth, is small
    np.testing.assert_allclose(many.transform(more)[:, :4], few.transform(X), atol=1e-5)


def test_purified_rows_are_the_same_alone_and_in_a_batch(rng):
    X = rng.standard_normal((50, 3))
    denoiser = Denoiser(GaussianScore(), sigma=0.5, purify=True).fit(X)
    np.testing.assert_allclose(denoiser.transform(X[:1]), denoiser.transform(X)[:1], atol=1e-12)
    assert not np.allclose(denoiser.transform(X), denoiser.set_params(purify=False).transform(X))


@pytest.mark.parametrize("level", [0.2, 1.0, 3.0])
def test_the_level_of_the_noise_is_found(level, rng):
    law = GMMScore.from_parameters([0.5, 0.5], [[-2.0, 0.0], [2.0, 1.0]], [[0.3, 0.5], [0.2, 0.2]])
    X = law.sample(4000, random_state=1)
    noisy = X + level * rng.standard_normal(X.shape)
    # the variance s^2 is found as one of s^2 + 0.2, the narrowest of the law, is: to within
    # (s^2 + 0.2) / sqrt(2000) in the worst direction
    error = (level**2 + 0.2) / np.sqrt(2000)
    assert estimate_noise_level(law, noisy) ** 2 == pytest.approx(level**2, abs=3 * error)


def test_it_helps_a_classifier_that_meets_noise():
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    noisy = X[1000:] + 5 * rng.standard_normal((797, 64))
    plain = LogisticRegression(max_iter=200).fit(X[:1000], y[:1000])
    denoiser = Denoiser(GMMScore(10, random_state=0), sigma=5.0, standardize=False)
    ours = make_pipeline(denoiser, LogisticRegression(max_iter=200)).fit(X[:1000], y[:1000])
    # the accuracy of 797 rows has a standard error of 1.5 percent
    assert ours.score(noisy, y[1000:]) > plain.score(noisy, y[1000:]) + 0.05
