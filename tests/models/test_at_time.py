"""The view in a schedule's coordinates is the noise-level model, re-read."""

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion.models import AtTime, EmpiricalModel, GaussianModel, MixtureModel, SphereModel
from skdiffusion.schedules import SCHEDULES, EDMSchedule, FlowMatchingSchedule, VPSchedule

RNG = np.random.default_rng(31)
GAUSSIAN = GaussianModel([1.0, -1.0], [[2.0, 0.5], [0.5, 0.3]])
MODELS = {
    "gaussian": GAUSSIAN,
    "mixture": MixtureModel([0.4, 0.6], [[-2.0, 0.0], [1.0, 1.0]], [0.3, 0.1]),
    "ring": SphereModel(2, 1.5),
    "rows": EmpiricalModel([[-1.0, 0.5], [0.3, -0.2], [1.2, 1.0]]),
}
X_T = RNG.standard_normal((5, 2))
TIMES = np.array([0.05, 0.2, 0.5, 0.8, 0.95])

every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


@every_model
@every_schedule
@pytest.mark.parametrize("t", [0.3, TIMES], ids=["one", "rows"])
def test_every_view_follows_from_the_denoiser(model, name, t):
    view = model.at_time(name)
    schedule = view.schedule
    times = np.reshape(t, (-1, 1))
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    alpha_rate, sigma_rate = schedule.rates(times)
    level = schedule.noise_level(t)
    denoised = model.denoise(X_T / alpha, level)
    score = (alpha * denoised - X_T) / sigma**2
    scale = 1e-9 * max(1, np.abs(score).max())
    np.testing.assert_allclose(view.denoise(X_T, t), denoised, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(view.score(X_T, t), score, atol=scale)
    noise = (X_T - alpha * denoised) / sigma
    np.testing.assert_allclose(view.predict_noise(X_T, t), noise, rtol=1e-8, atol=1e-9)
    velocity = alpha_rate * denoised + sigma_rate * noise
    np.testing.assert_allclose(view.velocity(X_T, t), velocity, rtol=1e-8, atol=1e-8)
    # the same velocity by the forward equation: f x - g^2/2 score
    drift, squared = schedule.drift(times), schedule.squared_diffusion(times)
    by_sde = drift * X_T - 0.5 * squared * score
    np.testing.assert_allclose(view.velocity(X_T, t), by_sde, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(view.drift(X_T, t), drift * X_T, rtol=1e-12)
    np.testing.assert_allclose(view.diffusion(t) ** 2, schedule.squared_diffusion(t), rtol=1e-12)


@every_model
@every_schedule
def test_log_density_in_the_coordinates_of_the_path(model, name):
    view = model.at_time(name)
    for t in (0.3, TIMES):
        log_prob = view.log_prob(X_T, t)
        alpha = view.schedule.alpha(np.broadcast_to(t, 5))
        level = view.schedule.noise_level(t)
        expected = model.log_prob(X_T / alpha[:, None], level) - 2 * np.log(alpha)
        np.testing.assert_allclose(log_prob, expected, rtol=1e-10, atol=1e-10)
        # differences of fourth order: a step of a hundredth of the noise, rounding of 1e-16 over it
        h = 0.01 * view.schedule.sigma(np.broadcast_to(t, (1, 5)))
        ends = np.stack(
            [[view.log_prob(X_T + k * h.T * e, t) for k in (-2, -1, 1, 2)] for e in np.eye(2)]
        )
        slope = np.einsum("k,dkn->nd", [1, -8, 8, -1], ends) / (12 * h.T)
        score = view.score(X_T, t)
        np.testing.assert_allclose(slope, score, atol=1e-6 * np.abs(score).max())


def test_log_density_of_a_gaussian_path():
    t, schedule = 0.4, VPSchedule()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    law = stats.multivariate_normal(
        alpha * GAUSSIAN.mean, alpha**2 * GAUSSIAN.covariance.to_matrix() + sigma**2 * np.eye(2)
    )
    np.testing.assert_allclose(
        GAUSSIAN.at_time(schedule).log_prob(X_T, t), law.logpdf(X_T), rtol=1e-12
    )


@every_model
@every_schedule
def test_one_denoiser_for_all_schedules(model, name):
    """D(x_t, t) = D_EDM(x_t / alpha, sigma / alpha)."""
    view, edm = model.at_time(name), model.at_time("edm")
    schedule = view.schedule
    for t in (0.1, 0.5, 0.9):
        alpha, level = schedule.alpha(t), schedule.noise_level(t)
        np.testing.assert_allclose(
            view.denoise(X_T, t), edm.denoise(X_T / alpha, level), rtol=1e-12
        )


@every_schedule
def test_torch_and_single_precision(name):
    view = GAUSSIAN.at_time(name)
    for method in ("score", "denoise", "predict_noise", "velocity", "log_prob", "drift"):
        for t in (0.3, TIMES):
            exact = getattr(view, method)(X_T, t)
            tensor_t = t if isinstance(t, float) else torch.tensor(t)
            found = getattr(view, method)(torch.tensor(X_T), tensor_t)
            assert found.dtype == torch.float64
            np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-10)
            for single in (X_T.astype(np.float32), torch.tensor(X_T, dtype=torch.float32)):
                found = getattr(view, method)(single, t)
                assert str(found.dtype).endswith("float32")
                scale = np.abs(exact).max()
                np.testing.assert_allclose(found, exact, atol=1e-3 * max(1, scale))


def test_a_scalar_tensor_of_time():
    view = GAUSSIAN.at_time("vp")
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    velocity = view.velocity(torch.tensor(X_T), t)
    np.testing.assert_allclose(velocity.detach(), view.velocity(X_T, 0.3), rtol=1e-12)
    log_prob = view.log_prob(torch.tensor(X_T), t)
    np.testing.assert_allclose(log_prob.detach(), view.log_prob(X_T, 0.3), rtol=1e-12)
    (slope,) = torch.autograd.grad(log_prob.sum(), t)
    h = 1e-6
    numeric = (view.log_prob(X_T, 0.3 + h) - view.log_prob(X_T, 0.3 - h)).sum() / (2 * h)
    assert float(slope) == pytest.approx(numeric, rel=1e-6)


# ------------------------------------------------------------------ the ends of the path


@pytest.mark.parametrize("name", ["edm", "vp", "sub_vp", "cosine", "flow_matching"])
def test_the_data_end_of_a_law_with_a_density(name):
    """At t = 0 every quantity is finite and the limit of t -> 0."""
    view = GAUSSIAN.at_time(name)
    near = view.schedule.time_of(1e-7)
    with np.errstate(all="raise"):
        for method in ("score", "denoise", "velocity", "log_prob"):
            at_zero = getattr(view, method)(X_T, 0.0)
            assert np.isfinite(at_zero).all()
            limit = getattr(view, method)(X_T, near)
            if method == "velocity":  # near zero it divides rounding by the level
                np.testing.assert_allclose(at_zero, limit, rtol=1e-4, atol=1e-4)
            else:
                np.testing.assert_allclose(at_zero, limit, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(view.predict_noise(X_T, 0.0), 0)
        rows = view.velocity(X_T, np.array([0.0, 0.0, 0.3, 0.3, 0.0]))
    np.testing.assert_allclose(rows[0], view.velocity(X_T, 0.0)[0], rtol=1e-12)
    np.testing.assert_allclose(rows[2], view.velocity(X_T, 0.3)[2], rtol=1e-10)


@pytest.mark.parametrize("t", [0.0, np.array([0.0, 0.1, 0.1, 0.1, 0.1])], ids=["one", "rows"])
def test_the_data_end_of_a_law_without_one(t):
    for method in ("score", "denoise", "velocity", "log_prob"):
        with pytest.raises(ValueError, match="positive"):
            getattr(MODELS["ring"].at_time("flow_matching"), method)(X_T, t)


@pytest.mark.parametrize("t", [1.0, 1.5, np.array([0.1, 0.1, 1.0, 0.1, 0.1])])
def test_no_signal_left(t):
    view = GAUSSIAN.at_time("flow_matching")
    for method in ("score", "denoise", "velocity", "log_prob", "predict_noise", "drift"):
        with pytest.raises(ValueError, match="no signal left"):
            getattr(view, method)(X_T, t)
    with pytest.raises(ValueError, match="no signal left"):
        view.diffusion(t)


def test_other_refusals():
    view = GAUSSIAN.at_time("vp")
    with pytest.raises(ValueError, match="x_t must have shape"):
        view.score(np.ones((3, 5)), 0.3)
    with pytest.raises(ValueError, match="t must be non-negative"):
        view.score(X_T, -0.1)
    with pytest.raises(ValueError, match="unconditional"):
        view.velocity(X_T, 0.3, y=np.zeros(5))
    with pytest.raises(ValueError, match="Unknown schedule"):
        GAUSSIAN.at_time("ddpm")
    with pytest.raises(ValueError, match="sigma_min"):
        AtTime(GAUSSIAN, EDMSchedule(sigma_min=-1.0))


@pytest.mark.parametrize("t", [-1.0, np.nan, [0.5, np.inf]])
def test_times_that_are_none_have_no_diffusion(t):
    with pytest.raises(ValueError, match="t must be non-negative and finite"):
        GAUSSIAN.at_time("flow_matching").diffusion(t)


def test_the_view_keeps_what_it_was_given():
    schedule = FlowMatchingSchedule()
    view = AtTime(GAUSSIAN, schedule)
    assert view.schedule is schedule and view.model is GAUSSIAN and view.n_features == 2
