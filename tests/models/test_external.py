"""Callables of every prediction on every schedule are one denoiser."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler

from skdiffusion.models import (
    GaussianModel,
    MixtureModel,
    SmoothedModel,
    SwitchedModel,
    as_score_model,
    divergence,
    jacobian,
)
from skdiffusion.parameterizations import (
    PREDICTIONS,
    denoised_from_prediction,
    prediction_target,
)
from skdiffusion.schedules import SCHEDULES, VPSchedule, check_schedule

D = 2
EXACT = MixtureModel([0.4, 0.6], [[-2.0, 0.0], [1.0, 1.0]], [0.3, 0.1])
RNG = np.random.default_rng(51)
POINTS = RNG.standard_normal((5, D)) * 2
LEVELS = np.array([0.05, 0.4, 1.0, 3.0, 20.0])


def oracle(schedule, prediction):
    """What a perfect network returns at (x_t, t), straight from the definitions."""
    schedule = check_schedule(schedule)

    def fn(x_t, t):
        assert t.shape == (len(x_t),)
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        x0 = EXACT.denoise(x_t / alpha, schedule.noise_level(t))
        noise = (x_t - alpha * x0) / sigma
        alpha_rate, sigma_rate = (r[:, None] for r in schedule.rates(t))
        return {
            "data": x0,
            "noise": noise,
            "score": -noise / sigma,
            "velocity": alpha_rate * x0 + sigma_rate * noise,
            "v": alpha * noise - sigma * x0,
        }[prediction]

    return fn


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_prediction_on_every_schedule_is_the_denoiser(schedule, prediction):
    model = as_score_model(
        oracle(schedule, prediction), schedule=schedule, prediction=prediction, n_features=D
    )
    # predictions other than the data divide by alpha: digits lost are the level's
    for sigma in (0.05, 1.0, 20.0, LEVELS):
        np.testing.assert_allclose(
            model.denoise(POINTS, sigma), EXACT.denoise(POINTS, sigma), rtol=1e-8, atol=1e-9
        )
        np.testing.assert_allclose(
            model.score(POINTS, sigma), EXACT.score(POINTS, sigma), rtol=1e-6, atol=1e-6
        )
        in_torch = model.denoise(torch.tensor(POINTS), torch.as_tensor(sigma))
        np.testing.assert_allclose(in_torch, EXACT.denoise(POINTS, sigma), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_and_its_inversion(prediction):
    """r = c x0 + d eps, and x0 back from it, at coefficients of no particular schedule."""
    x0, noise = POINTS, RNG.standard_normal(POINTS.shape)
    alpha, sigma, rates = 0.8, 0.3, (-0.7, 1.1)
    c, d = prediction_target(prediction, alpha, sigma, rates)
    output = c * x0 + d * noise
    found = denoised_from_prediction(
        prediction, output, alpha * x0 + sigma * noise, alpha, sigma, rates
    )
    np.testing.assert_allclose(found, x0, rtol=1e-12)


def test_unknown_predictions():
    for wrong in ("epsilon", None, 3):
        with pytest.raises(ValueError, match="Unknown prediction"):
            prediction_target(wrong, 1.0, 1.0, (0.0, 1.0))


def test_without_a_schedule_the_callable_sees_noise_levels():
    seen = []

    def fn(x, sigma):
        seen.append(sigma)
        return EXACT.denoise(x, sigma)

    model = as_score_model(fn, prediction="data", n_features=D)
    model.denoise(POINTS, 0.7), model.denoise(POINTS, LEVELS)
    np.testing.assert_array_equal(seen[0], np.full(5, 0.7))
    np.testing.assert_array_equal(seen[1], LEVELS)


# ------------------------------------------------------------------ torch modules


class Shrink(torch.nn.Module):
    """The denoiser of a standard normal law, with a weight."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(D, dtype=dtype))

    def forward(self, x, sigma):
        return self.gain * x / (1 + sigma[:, None] ** 2)


UNIT = GaussianModel(np.zeros(D), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_take_numpy_and_keep_the_dtype_of_the_points(dtype):
    module = Shrink(dtype)
    model = as_score_model(module, prediction="data", n_features=D)
    assert model.backend == "torch"
    for sigma in (0.7, LEVELS, LEVELS[::-1]):
        found = model.denoise(POINTS[::-1], sigma)
        assert isinstance(found, np.ndarray) and found.dtype == np.float64
        np.testing.assert_allclose(found, UNIT.denoise(POINTS[::-1], sigma), rtol=1e-5)
    assert model.denoise(POINTS.astype(np.float32), 1.0).dtype == np.float32
    assert module.gain.grad is None


def test_modules_in_torch_keep_the_graph():
    module = Shrink()
    model = as_score_model(module, prediction="data", n_features=D)
    x = torch.tensor(POINTS, requires_grad=True)
    out = model.denoise(x, 0.5)
    assert out.dtype == torch.float64
    out.sum().backward()
    np.testing.assert_allclose(x.grad, np.full((5, D), 0.8), rtol=1e-6)
    np.testing.assert_allclose(module.gain.grad, 0.8 * POINTS.sum(axis=0), rtol=1e-5)


def test_derivatives_of_modules():
    model = as_score_model(Shrink(torch.float64), prediction="data", n_features=D)
    np.testing.assert_allclose(
        jacobian(model, POINTS, LEVELS), UNIT.jacobian(POINTS, LEVELS), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        divergence(model, POINTS, 0.5), UNIT.divergence(POINTS, 0.5), rtol=1e-9
    )


def test_numpy_functions_by_differences():
    def fn(x, sigma):
        assert isinstance(x, np.ndarray) and isinstance(sigma, np.ndarray)
        return x / (1 + sigma[:, None] ** 2)

    model = as_score_model(fn, prediction="data", n_features=D, backend="numpy")
    assert not model.is_differentiable
    np.testing.assert_allclose(
        jacobian(model, POINTS, LEVELS), UNIT.jacobian(POINTS, LEVELS), rtol=1e-6, atol=1e-6
    )
    found = model.denoise(torch.tensor(POINTS, dtype=torch.float32), 0.5)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, UNIT.denoise(POINTS, 0.5), rtol=1e-6)


def test_functions_of_unknown_library_are_differentiated_in_that_of_the_points():
    """Without a backend NumPy points are differenced, for the function may not know torch."""
    only_numpy = as_score_model(
        lambda x, sigma: np.divide(x, 1 + sigma[:, None] ** 2, out=np.empty_like(x)),
        prediction="data",
        n_features=D,
    )
    exact = UNIT.jacobian(POINTS, LEVELS)
    for model in (only_numpy, SmoothedModel(only_numpy, 1e-9)):
        found = jacobian(model, POINTS, LEVELS)
        np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6)
    either = as_score_model(
        lambda x, sigma: x / (1 + sigma[:, None] ** 2), prediction="data", n_features=D
    )
    x = torch.tensor(POINTS, requires_grad=True)
    found = jacobian(either, x, torch.tensor(LEVELS))
    np.testing.assert_allclose(found.detach(), exact, rtol=1e-10, atol=1e-10)
    mixed = SwitchedModel(
        EXACT, as_score_model(lambda x, s: x, prediction="data", n_features=D, backend="numpy"), 1.0
    )
    assert mixed.is_differentiable is False


def test_torch_functions_that_are_not_modules():
    def fn(x, sigma):
        assert torch.is_tensor(x) and torch.is_tensor(sigma)
        return x / (1 + sigma[:, None] ** 2)

    model = as_score_model(fn, prediction="data", n_features=D, backend="torch")
    np.testing.assert_allclose(model.denoise(POINTS, LEVELS), UNIT.denoise(POINTS, LEVELS))
    np.testing.assert_allclose(jacobian(model, POINTS, 0.5), UNIT.jacobian(POINTS, 0.5))


def test_modules_pickle():
    model = pickle.loads(
        pickle.dumps(as_score_model(Shrink(), prediction="data", n_features=D, schedule="vp"))
    )
    np.testing.assert_allclose(model.denoise(POINTS, 0.5).shape, (5, D))


# ------------------------------------------------------------------ other things that hold a model


class Fitted(BaseEstimator):
    def fit(self, X, y=None):
        self.model_ = EXACT
        return self


def test_models_and_estimators():
    assert as_score_model(EXACT) is EXACT
    assert as_score_model(Fitted().fit(None)) is EXACT
    assert as_score_model(FrozenEstimator(Fitted().fit(None))) is EXACT
    for unfitted in (Fitted(), FrozenEstimator(Fitted())):
        with pytest.raises(NotFittedError, match="call fit before"):
            as_score_model(unfitted)
    for other in (StandardScaler().fit(np.eye(2)), VPSchedule()):
        with pytest.raises(TypeError, match="which is no score estimator"):
            as_score_model(other)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_model_that_is_not_told_the_level_is_one_that_does_not_look(prediction):
    """On its path: the answers of ``fn(x_t, t, y)`` that uses ``x_t`` and ``y`` alone."""
    options = {"schedule": "flow_matching", "prediction": prediction, "n_features": D}

    def answer(x_t, y):
        return np.tanh(x_t) + y[:, None]

    blind = as_score_model(answer, noise_conditioning=False, conditional=True, **options)
    told = as_score_model(lambda x_t, t, y: answer(x_t, y), conditional=True, **options)
    y = np.arange(5)
    found, expected = (m.denoise(POINTS, LEVELS, y=y) for m in (blind, told))
    np.testing.assert_array_equal(found, expected)
    assert (blind.blind_target, told.blind_target) == (prediction, None)
    alone = as_score_model(np.tanh, noise_conditioning=False, **options)
    assert np.isfinite(alone.denoise(POINTS, LEVELS)).all()


def test_refusals():
    fn = oracle("vp", "data")
    for cls in (torch.nn.Linear, StandardScaler):
        with pytest.raises(TypeError, match=f"the class {cls.__name__}: give an instance of it"):
            as_score_model(cls, prediction="data", n_features=2)
    with pytest.raises(TypeError, match="got int"):
        as_score_model(3)
    with pytest.raises(ValueError, match=r"prediction= .* and n_features="):
        as_score_model(fn, n_features=2)
    with pytest.raises(ValueError, match=r"prediction= .* and n_features="):
        as_score_model(fn, prediction="data")
    with pytest.raises(ValueError, match="Unknown prediction 'epsilon'"):
        as_score_model(fn, prediction="epsilon", n_features=2)
    with pytest.raises(ValueError, match="Unknown schedule 'ddpm'"):
        as_score_model(fn, prediction="data", n_features=2, schedule="ddpm")
    with pytest.raises(ValueError, match="backend must be"):
        as_score_model(fn, prediction="data", n_features=2, backend="jax")
    with pytest.raises(ValueError, match="n_features must be an integer"):
        as_score_model(fn, prediction="data", n_features=0)
    for wrong in ((1.0, 1.0), (-1.0, 2.0), (2.0, 1.0), 3.0, ("low", "high")):
        with pytest.raises(ValueError, match="sigma_range must be two rising noise levels"):
            as_score_model(fn, prediction="data", n_features=2, sigma_range=wrong)
    flat = as_score_model(lambda x, t: x[:, 0], prediction="data", n_features=2)
    with pytest.raises(ValueError, match=r"must return shape \(5, 2\); got \(5,\)"):
        flat.denoise(POINTS, 1.0)
    listed = as_score_model(lambda x, t: x.tolist(), prediction="data", n_features=2)
    with pytest.raises(TypeError, match="must return an array; got list"):
        listed.denoise(POINTS, 1.0)
    with pytest.raises(ValueError, match="scales its input by the noise level"):
        as_score_model(fn, prediction="edm", n_features=2, noise_conditioning=False)
    ranged = as_score_model(fn, prediction="data", n_features=2, sigma_range=(0.1, 10.0))
    with pytest.raises(ValueError, match=r"from 0\.1 to 10"):
        ranged.denoise(POINTS, 20.0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        ranged.denoise(POINTS, 0.0)
