"""Estimators given to those of `compose` and to ridges: a sentence where they do not fit."""

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler

from skdiffusion import (
    Denoiser,
    DiffusionImputer,
    GaussianScore,
    RidgeProjector,
    ScoreOutlierDetector,
    make_density_pipeline,
)
from skdiffusion.compose import estimate_noise_level

X = np.random.default_rng(0).normal(size=(30, 3))
GAPS = np.where(np.arange(90).reshape(30, 3) % 11 == 3, np.nan, X)
TAKERS = [
    lambda est, X: Denoiser(est, sigma=0.3).fit(X),
    lambda est, X: ScoreOutlierDetector(est).fit(X),
    lambda est, X: DiffusionImputer(est).fit(X),
    lambda est, X: DiffusionImputer(est).fit(np.where(np.isnan(GAPS), np.nan, X)),
    lambda est, X: RidgeProjector(score_estimator=est, sigma=0.3).fit(X),
]


@pytest.mark.parametrize("fit", TAKERS)
def test_a_frozen_model_of_other_columns(fit):
    with pytest.raises(ValueError, match="the score model has 2 columns, but X has 3"):
        fit(FrozenEstimator(GaussianScore().fit(X[:, :2])), X)


@pytest.mark.parametrize("fit", TAKERS)
def test_what_is_no_score_estimator(fit):
    with pytest.raises(TypeError, match="got StandardScaler, which is no score estimator"):
        fit(StandardScaler(), X)


@pytest.mark.parametrize("fit", TAKERS[:4])
@pytest.mark.parametrize("unit", [1e-200, 1e160, 1e300])
def test_rows_whose_squares_are_no_numbers(fit, unit):
    with pytest.raises(ValueError, match="bring X to other units"):
        fit(GaussianScore(), X * unit)


@pytest.mark.parametrize("api", ["pandas", "polars"])
def test_what_transformers_return_does_not_matter_inside(api):
    est = GaussianScore()
    plain = ScoreOutlierDetector(est).fit(X).score_samples(X), Denoiser(est).fit(X).transform(X)
    with sklearn.config_context(transform_output=api):
        detector, denoiser = ScoreOutlierDetector(est).fit(X), Denoiser(est).fit(X)
        np.testing.assert_array_equal(detector.score_samples(X), plain[0])
        np.testing.assert_array_equal(np.asarray(denoiser.transform(X)), plain[1])
        assert not hasattr(denoiser.estimator_, "feature_names_in_")
        ScoreOutlierDetector().fit(X).predict(X)


def test_a_noise_level_is_estimated_by_score_estimators():
    for other in (
        StandardScaler(),
        GaussianScore().fit(X).model_,
        make_density_pipeline(GaussianScore()),
    ):
        with pytest.raises(
            TypeError, match=f"score estimator is needed.*got {type(other).__name__}"
        ):
            estimate_noise_level(other, X)
    with pytest.raises(NotFittedError):
        estimate_noise_level(GaussianScore(), X)
