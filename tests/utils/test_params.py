"""Parameters of nested objects: set where there is an object, a sentence where there is none."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skdiffusion import (
    ConservativityDecomposer,
    Denoiser,
    DiffusionImputer,
    EDMSchedule,
    FlowMatchingSchedule,
    GaussianScore,
    GMMScore,
    IntrinsicDimensionEstimator,
    MarginalEnergy,
    NoiseLevelEstimator,
    RandomFeatureScore,
    RidgeProjector,
    ScoreOutlierDetector,
    VPSchedule,
    make_density_pipeline,
)
from skdiffusion.samplers import AdamsSampler, DMCMCSampler, HeunSampler


@pytest.mark.parametrize(
    "estimator, name, value",
    [
        (GaussianScore(schedule="vp"), "schedule", "'vp'"),
        (GaussianScore(sampler="heun"), "sampler", "'heun'"),
        (GaussianScore(sigma_min=0.1), "sigma_min", "0.1"),
        (MarginalEnergy(), "schedule", "'ve'"),
        (MarginalEnergy(), "prior", "'uniform'"),
        (MarginalEnergy(), "score_estimator", "None"),
        (DiffusionImputer(sampler="heun"), "sampler", "'heun'"),
        (DiffusionImputer(), "estimator", "None"),
        (Denoiser(), "estimator", "None"),
        (ScoreOutlierDetector(), "estimator", "None"),
        (RidgeProjector(), "score_estimator", "None"),
        (IntrinsicDimensionEstimator(), "score_estimator", "None"),
        (ConservativityDecomposer(), "reference", "None"),
        (HeunSampler(), "teleport", "False"),
        (DMCMCSampler(), "mover", "None"),
        (NoiseLevelEstimator(), "estimator", "None"),
    ],
)
def test_there_is_nothing_to_set_inside_a_short_name(estimator, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}: give {name} as an instance first"):
        estimator.set_params(**{f"{name}__beta_max": 3.0})
    with pytest.raises(ValueError, match="Invalid parameter 'shedule'"):
        estimator.set_params(shedule__beta_max=3.0)


def test_parameters_of_nested_objects_at_any_depth():
    energy = MarginalEnergy().set_params(schedule=VPSchedule(), schedule__beta_max=3.0)
    assert energy.schedule.beta_max == 3.0
    imputer = DiffusionImputer(GaussianScore(schedule=EDMSchedule()))
    pipeline = make_pipeline(imputer)
    pipeline.set_params(diffusionimputer__estimator__schedule__rho=5.0)
    assert imputer.estimator.schedule.rho == 5.0
    with pytest.raises(ValueError, match="sampler is None: give sampler as an instance"):
        pipeline.set_params(diffusionimputer__estimator__sampler__teleport="auto")


def test_a_grid_of_schedules_with_a_parameter_that_one_of_them_has():
    search = GridSearchCV(
        RandomFeatureScore(n_features=20, random_state=0),
        {
            "schedule": [VPSchedule(), FlowMatchingSchedule()],
            "schedule__beta_max": [10.0, 30.0],
            "parameterization": ["data"],
        },
        cv=2,
        error_score="raise",
    ).fit(load_iris().data[::3])
    assert search.cv_results_["mean_test_score"].shape == (4,)
    vp = search.estimator.set_params(schedule=VPSchedule(), schedule__beta_max=30.0).schedule
    assert vp.beta_max == 30.0


def test_a_parameter_for_others_is_one_of_their_kind_and_set_in_the_same_call():
    straight = FlowMatchingSchedule()
    est = GaussianScore().set_params(schedule=straight, schedule__beta_max=3.0)
    assert est.schedule is straight
    pipeline = make_pipeline(est)
    pipeline.set_params(
        gaussianscore__sampler=HeunSampler(), gaussianscore__sampler__order=2
    ).set_params(gaussianscore__sampler=AdamsSampler(), gaussianscore__sampler__order=2)
    assert est.sampler.order == 2
    with pytest.raises(ValueError, match="Invalid parameter 'beta_max'"):
        est.set_params(schedule__beta_max=3.0)
    with pytest.raises(ValueError, match="Invalid parameter 'order'"):
        est.set_params(schedule=straight, schedule__order=3)
    with pytest.raises(ValueError, match="Invalid parameter 'n_components'"):
        imputer = DiffusionImputer()
        imputer.set_params(estimator=GaussianScore(), estimator__n_components=3)


@pytest.mark.parametrize(
    "estimator, name",
    [
        (GMMScore(2), "warm_start"),
        (RandomFeatureScore(8, n_levels=4), "joint"),
        (Denoiser(), "standardize"),
        (Denoiser(), "purify"),
        (DiffusionImputer(), "sample_posterior"),
        (IntrinsicDimensionEstimator(), "conservative_projection"),
        (MarginalEnergy(), "standardize"),
        (make_density_pipeline(GaussianScore()), "round_integers"),
        (make_density_pipeline(GaussianScore()), "clip"),
    ],
    ids=str,
)
def test_flags_are_true_or_false(estimator, name):
    X = load_iris().data
    with pytest.raises(ValueError, match=f"{name} must be True or False; got 'no'"):
        estimator.set_params(**{name: "no"}).fit(X)
    estimator.set_params(**{name: np.False_}).fit(X)
