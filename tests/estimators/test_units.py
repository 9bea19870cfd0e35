"""Rows in any units and either precision: answers follow them, or a sentence says why not."""

import numpy as np
import pytest

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
