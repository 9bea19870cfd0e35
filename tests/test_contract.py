"""Every public score model and every law with a known answer keeps the one contract."""

import numpy as np
import pytest

from skdiffusion import datasets
from skdiffusion.models import (
    AdditiveGauge,
    AffineModel,
    BlindModel,
    ConditionedModel,
    EmpiricalModel,
    GaussianModel,
    GuidedModel,
    IndependentModel,
    KnownColumnsModel,
    MixtureModel,
    ProductModel,
    RandomFeatureModel,
    RandomFeatures,
    SmoothedModel,
    SpectralCovariance,
    SphereModel,
    StackedModel,
    SuperpositionModel,
    SwitchedModel,
    TemperedModel,
    UniformModel,
    as_score_model,
)
from skdiffusion.schedules import FlowMatchingSchedule
from skdiffusion.utils.estimator_checks import check_score_model

RNG = np.random.default_rng(7)
AXES = np.linalg.qr(RNG.standard_normal((6, 2)))[0]
TURN = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
POINTS = RNG.standard_normal((9, 3))
GAUSSIAN = GaussianModel([1.0, -1.0, 0.0], np.cov(RNG.standard_normal((3, 20))))
MIXTURE = MixtureModel([0.2, 0.8], [[-2.0, 0, 0], [1.0, 1, 1]], [0.3, 0.5])


def as_callable(prediction, schedule):
    """The Gaussian behind the door for models from elsewhere."""
    view = GAUSSIAN.at_time(schedule)
    call = {"noise": view.predict_noise, "velocity": view.velocity, "score": view.score}[prediction]
    return as_score_model(call, prediction=prediction, schedule=schedule, n_features=3)


def towards_zero(x):
    return -0.3 * x


MODELS = {
    "full Gaussian": GAUSSIAN,
    "diagonal Gaussian": GaussianModel([0.0, 5.0], [1.0, 0.01]),
    "low-rank Gaussian": GaussianModel(np.zeros(6), SpectralCovariance([4.0, 1.0], AXES, 0.1)),
    "singular Gaussian": GaussianModel([0.0, 1.0], [1.0, 0.0]),
    "one-dimensional Gaussian": GaussianModel([3.0], 2.0),
    "mixture": MIXTURE,
    "empirical": EmpiricalModel(POINTS),
    "weighted empirical": EmpiricalModel(POINTS, np.arange(1.0, 10.0)),
    "sphere": SphereModel(3, radius=2.0),
    "uniform": UniformModel([0.0, -1.0], [1.0, 3.0]),
    "shifted and scaled": AffineModel(MIXTURE, shift=[1.0, 2.0, 3.0], scale=4.0),
    "scaled by column": AffineModel(MIXTURE, scale=[0.5, 2.0, 7.0]),
    "rotated": AffineModel(MIXTURE, rotation=TURN),
    "smoothed": SmoothedModel(EmpiricalModel(POINTS), 0.7),
    "independent": IndependentModel([SphereModel(2), GAUSSIAN]),
    "superposed": SuperpositionModel([GAUSSIAN, MIXTURE], [0.4, 0.6]),
    "switched": SwitchedModel(GAUSSIAN, MIXTURE, 1.5),
    "product": ProductModel([GAUSSIAN, MIXTURE], [0.5, 1.0]),
    "tempered": TemperedModel(MIXTURE, 0.7),
    "guided": GuidedModel(MIXTURE, gradient=towards_zero),
    "turned": AdditiveGauge(MIXTURE, [[0, 2, 0], [-2, 0, 1], [0, -1, 0]], fade=3.0),
    "conditioned": ConditionedModel(GAUSSIAN, low=[0.0, -3.0, -np.inf]),
    "known columns": KnownColumnsModel(MIXTURE),
    "stacked": StackedModel([GAUSSIAN, MIXTURE], [0.1, 1.0, 10.0], [[0, 1], [0.3, 0.7], [1, 0]]),
    "random features": RandomFeatureModel(
        RandomFeatures(POINTS, np.arange(9.0), parameterization="gaussian"), POINTS.T
    ),
    "blind": BlindModel(towards_zero, 3, FlowMatchingSchedule(), "velocity", scale=2.0),
    "noise callable": as_callable("noise", "vp"),
    "velocity callable": as_callable("velocity", "flow_matching"),
    "score callable": as_callable("score", "cosine"),
}


@pytest.mark.parametrize("name", MODELS)
def test_model(name):
    check_score_model(MODELS[name])


@pytest.mark.parametrize("name", [n for n in datasets.__all__ if n.startswith("make_")])
def test_law_with_a_known_answer(name):
    X, model = getattr(datasets, name)(random_state=0)
    assert X.shape[1] == model.n_features
    check_score_model(model)


def test_every_public_model_is_here():
    from skdiffusion import models

    classes = {
        name
        for name in models.__all__
        if isinstance(getattr(models, name), type)
        and issubclass(getattr(models, name), models.BaseScoreModel)
    }
    tested = {type(model).__name__ for model in MODELS.values()}
    # the barycentric, curve and neural models are tested with what makes them
    assert classes - tested <= {
        "BaseScoreModel",
        "BarycentricModel",
        "LabelGuidedModel",
        "NeuralModel",
    }
