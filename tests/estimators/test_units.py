"""Rows in any units and either precision: answers follow them, or a sentence says why not."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, RandomFeatureScore, StackedScore

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-2, 0.5, (50, 2)), RNG.normal(1, 1.0, (70, 2))])
ESTIMATORS = [
    GaussianScore(),
    GaussianScore("low_rank"),
    GMMScore(2, covariance_type="diag", random_state=0),
    EmpiricalScore(),
    RandomFeatureScore(20, n_levels=8, random_state=0),
]


@pytest.mark.parametrize("est", [*ESTIMATORS, StackedScore(random_state=0)], ids=repr)
def test_levels_whose_squares_are_no_numbers_are_refused(est):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="bring X to other units"):
        est.fit(1e-160 * X)


@pytest.mark.parametrize("est", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_float32_rows_whose_squares_float32_cannot_hold(est, scale):
    rows = (scale * X).astype(np.float32)
    plain = est.fit(X).stein_score(X[:5], 0.5), est.log_density(X[:5], 0.5)
    est.fit(rows)
    score = est.stein_score(rows[:5], 0.5 * scale)
    np.testing.assert_allclose(scale * score, plain[0], rtol=1e-5, atol=1e-5)
    log_density = est.log_density(rows[:5], 0.5 * scale) + 2 * np.log(scale)
    np.testing.assert_allclose(log_density, plain[1], rtol=1e-4)
    assert np.isfinite(est.transform(rows[:5])).all()


@pytest.mark.parametrize("covariance", ["empirical", "oas", "ledoit_wolf"])
@pytest.mark.parametrize("exponent", [-300, -220, 220, 300, 450])
def test_fourth_powers_are_not_needed_for_a_covariance(covariance, exponent):
    rows, unit = X[:7], 2.0**exponent
    est, there = GaussianScore(covariance), GaussianScore(covariance)
    if covariance == "ledoit_wolf" and abs(exponent) > 250:  # which is made of them
        with pytest.raises(ValueError, match="fourth powers of the rows"):
            there.fit(unit * rows)
        return
    plain = est.fit(rows).model_.covariance.to_matrix()
    scaled = there.fit(unit * rows).model_.covariance.to_matrix()
    np.testing.assert_allclose(scaled / unit**2, plain, rtol=1e-12)


@pytest.mark.parametrize("est", ESTIMATORS[:4], ids=repr)
@pytest.mark.parametrize("sigma", [1e-25, 1e25])
def test_levels_whose_squares_float32_cannot_hold(est, sigma):
    est.fit(X)
    for field in (est.denoise, est.stein_score, est.predict_noise):
        np.testing.assert_allclose(
            field(X[:5].astype(np.float32), sigma), field(X[:5], sigma), rtol=1e-4
        )


@pytest.mark.parametrize("est", ESTIMATORS, ids=repr)
def test_rows_and_levels_whose_squares_are_no_numbers_are_refused(est):
    with pytest.raises(ValueError, match=r"X holds 1e\+160, .* bring X to other units"):
        est.fit(np.array([[1e160, 0.0], [0.0, 1e10]]))
    est.fit(X)
    with pytest.raises(ValueError, match=r"X holds 1e\+160, .* bring X to other units"):
        est.score_samples([[1e160, 0.0]])
    assert np.isfinite(est.denoise(np.array([[1e30, 0.0]], dtype=np.float32), 1.0)).all()
    for sigma in (1e-200, 1e200):
        with pytest.raises(ValueError, match=r"from 1e-150 to 1e\+150, and finite; got"):
            est.stein_score(X, sigma)


def test_words_are_refused_with_a_way_out():
    table = pd.DataFrame({"size": [1.0, 2.0, 3.0], "colour": ["red", "blue", "red"]})
    with pytest.raises(ValueError, match="X holds words, GaussianScore takes numbers"):
        GaussianScore().fit(table)


@pytest.mark.parametrize("est", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("unit, near", [(1e300, 1e100), (1e308, 1e100), (1e-320, 1e-100)])
def test_weights_of_any_size_are_those_of_very_many_or_very_few_rows(est, unit, near):
    """Pseudo-rows then weigh nothing, or all."""
    shares = np.where(X[:, 0] > 0, 1.0, 0.25)
    expected = est.fit(X, sample_weight=near * shares).log_density(X[:5], 0.5)
    found = est.fit(X, sample_weight=unit * shares).log_density(X[:5], 0.5)
    # the smallest numbers have few digits
    np.testing.assert_allclose(found, expected, rtol=1e-3 if unit < 1 else 1e-9)


@pytest.mark.parametrize("est", [ESTIMATORS[0], ESTIMATORS[2], ESTIMATORS[4]], ids=repr)
def test_a_batch_that_fails_was_never_seen(est, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    expected = clone(est).partial_fit(X[:60]).partial_fit(X[60:])
    found = clone(est).partial_fit(X[:60])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(est), "_set_model", interrupted)
        found.partial_fit(100 * X)
    found.partial_fit(X[60:])
    np.testing.assert_array_equal(found.denoise(X, 0.5), expected.denoise(X, 0.5))


@pytest.mark.parametrize("est", [*ESTIMATORS[3:], EmpiricalScore(0.1, scaling="none")], ids=repr)
def test_far_rows_that_decide_the_scale_are_told_of(est):
    rows = np.vstack([[[0.0, 1e8], [0.0, -1e8]], X])
    with pytest.warns(UserWarning, match=r"scale of 1 of 2 columns \(1\).*Noise levels.*others"):
        clone(est).fit(rows)
    # rows that do not count decide nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        clone(est).fit(rows, sample_weight=np.r_[0, 0, np.ones(len(X))])
        clone(est).fit(np.clip(rows, -100, 100))


@pytest.mark.parametrize("est", [EmpiricalScore(scaling="none"), ESTIMATORS[4]], ids=repr)
def test_far_rows_of_a_small_column_decide_no_common_scale(est):
    small = 1e-6 * RNG.normal(size=(len(X), 1))
    small[0] = 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        clone(est).fit(np.hstack([X, small]))
