"""Parameters of nested objects: set where there is an object, a sentence where there is none."""

import pytest
from sklearn.pipeline import make_pipeline

from skdiffusion import (
    ConservativityDecomposer,
    Denoiser,
    DiffusionImputer,
    EDMSchedule,
    GaussianScore,
    IntrinsicDimensionEstimator,
    MarginalEnergy,
    NoiseLevelEstimator,
    RidgeProjector,
    ScoreOutlierDetector,
    VPSchedule,
)
from skdiffusion.samplers import DMCMCSampler, HeunSampler


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
