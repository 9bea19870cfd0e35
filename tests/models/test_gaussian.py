"""The Gaussian in closed form: against scipy, against ODE solvers, against printed values."""

import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from skdiffusion.models import GaussianModel, SpectralCovariance, jacobian
from skdiffusion.schedules import SCHEDULES, EDMSchedule, VPSchedule


def random_axes(d, r=None, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, r or d)))[0]


AXES = random_axes(4)
MEAN = np.array([1.0, -2.0, 0.5, 3.0])
SPECTRUM = np.array([4.0, 1.0, 0.25, 0.04])
FULL = GaussianModel(MEAN, AXES * SPECTRUM @ AXES.T)
MODELS = {
    "full": FULL,
    "diagonal": GaussianModel(MEAN, SPECTRUM),
    "isotropic": GaussianModel(MEAN, 0.7),
    "low rank": GaussianModel(MEAN, SpectralCovariance([4.0, 1.0], AXES[:, :2], 0.1)),
    "singular": GaussianModel(MEAN, [4.0, 1.0, 0.0, 0.0]),
    "point": GaussianModel(MEAN, 0.0),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
POINTS = np.random.default_rng(7).standard_normal((5, 4)) * 2


def matrix(model, sigma=0.0):
    return model.covariance.to_matrix() + sigma**2 * np.eye(model.n_features)


# ------------------------------------------------------------------ density and score


@every_model
@pytest.mark.parametrize("sigma", [0.0, 0.05, 1.0, 80.0])
def test_log_density_of_scipy(model, sigma):
    if sigma == 0 and not model.has_density:
        with pytest.raises(ValueError, match="sigma must be positive"):
            model.log_prob(POINTS, sigma)
        return
    expected = stats.multivariate_normal(MEAN, matrix(model, sigma)).logpdf(POINTS)
    np.testing.assert_allclose(model.log_prob(POINTS, sigma), expected, rtol=1e-10)


@every_model
@pytest.mark.parametrize("sigma", [0.05, 1.0, 80.0])
def test_score_denoiser_and_jacobians_by_linear_algebra(model, sigma):
    noisy, centred = matrix(model, sigma), POINTS - MEAN
    precision = np.linalg.inv(noisy)
    score = -centred @ precision
    scale = np.abs(score).max()
    np.testing.assert_allclose(model.score(POINTS, sigma), score, atol=1e-12 * scale)
    denoised = MEAN + centred @ precision @ matrix(model)
    np.testing.assert_allclose(model.denoise(POINTS, sigma), denoised, atol=1e-11)
    np.testing.assert_allclose(model.predict_noise(POINTS, sigma), -sigma * score, atol=1e-10)
    closed = model.jacobian(POINTS, sigma)
    np.testing.assert_allclose(closed[0], -precision, atol=1e-12 * np.abs(precision).max())
    gain = precision @ matrix(model)
    np.testing.assert_allclose(model.jacobian(POINTS, sigma, of="denoise")[1], gain, atol=1e-12)
    np.testing.assert_allclose(model.divergence(POINTS, sigma), -np.trace(precision), rtol=1e-11)
    posterior = matrix(model) - matrix(model) @ precision @ matrix(model)
    np.testing.assert_allclose(model.posterior_covariance(POINTS, sigma)[2], posterior, atol=1e-9)


@every_model
def test_one_level_per_row_is_each_level_alone(model):
    sigma = np.array([0.1, 0.5, 1.0, 7.0, 60.0])
    target = sigma[::-1]
    alone = [(POINTS[i : i + 1], float(sigma[i])) for i in range(5)]
    for name in ("score", "denoise", "predict_noise", "log_prob", "jacobian", "to_latent"):
        rows = np.concatenate([getattr(model, name)(x, s) for x, s in alone])
        np.testing.assert_allclose(getattr(model, name)(POINTS, sigma), rows, rtol=1e-12)
    rows = np.concatenate(
        [model.flow(x, s, float(t)) for (x, s), t in zip(alone, target, strict=True)]
    )
    np.testing.assert_allclose(model.flow(POINTS, sigma, target), rows, rtol=1e-12)


@every_model
def test_torch_is_numpy_and_autograd_of_the_density_is_the_score(model):
    sigma = np.array([0.1, 0.5, 1.0, 7.0, 60.0])
    point = torch.tensor(POINTS, requires_grad=True)
    log_prob = model.log_prob(point, torch.tensor(sigma))
    (slope,) = torch.autograd.grad(log_prob.sum(), point)
    np.testing.assert_allclose(slope, model.score(POINTS, sigma), rtol=1e-11, atol=1e-13)
    for name in ("score", "denoise", "log_prob", "jacobian", "divergence", "to_latent"):
        exact = getattr(model, name)(POINTS, sigma)
        result = getattr(model, name)(torch.tensor(POINTS), torch.tensor(sigma))
        np.testing.assert_allclose(result, exact, rtol=1e-11, atol=1e-12)
        tolerance = 1e-4 * max(1.0, np.abs(exact).max())
        for single in (POINTS.astype(np.float32), torch.tensor(POINTS, dtype=torch.float32)):
            result = getattr(model, name)(single, sigma)
            assert str(result.dtype).endswith("float32")
            np.testing.assert_allclose(result, exact, atol=tolerance)


def test_gradients_reach_a_learnable_level():
    level = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    FULL.log_prob(torch.tensor(POINTS), level).sum().backward()
    h = 1e-6
    numeric = (FULL.log_prob(POINTS, 0.7 + h) - FULL.log_prob(POINTS, 0.7 - h)).sum() / (2 * h)
    assert float(level.grad) == pytest.approx(numeric, rel=1e-6)


# ------------------------------------------------------------------ the probability flow


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["full", "low rank"])
def test_flow_is_the_ode_of_every_schedule(schedule, name):
    """DOP853 along the velocity of the schedule against the closed form, to 1e-8."""
    model, view = MODELS[name], MODELS[name].at_time(schedule)
    schedule = view.schedule
    low, high = 0.02, 20.0
    start, stop = schedule.time_of(high), schedule.time_of(low)
    x = MEAN + POINTS[:3] * high
    x_t = schedule.alpha(start) * x

    def velocity(t, flat):
        return view.velocity(flat.reshape(x.shape), float(t)).ravel()

    solution = integrate.solve_ivp(
        velocity, (start, stop), x_t.ravel(), method="DOP853", rtol=1e-11, atol=1e-12
    )
    end = solution.y[:, -1].reshape(x.shape) / schedule.alpha(stop)
    np.testing.assert_allclose(end, model.flow(x, high, low), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", ["flow_matching", "vp", "sub_vp", "cosine", "edm"])
def test_the_flow_reaches_the_data_end(schedule):
    """At t = 0 the velocity is its limit, so a solver may stop there."""
    view = FULL.at_time(schedule)
    start = view.schedule.time_of(3.0)
    x_t = view.schedule.alpha(start) * POINTS

    def velocity(t, flat):
        return view.velocity(flat.reshape(x_t.shape), float(t)).ravel()

    solution = integrate.solve_ivp(
        velocity, (start, 0.0), x_t.ravel(), method="DOP853", rtol=1e-11, atol=1e-12
    )
    end = solution.y[:, -1].reshape(x_t.shape)
    np.testing.assert_allclose(end, FULL.flow(POINTS, 3.0, 0.0), rtol=1e-8, atol=1e-8)


@every_model
def test_flow_is_a_semigroup_with_inverse(model):
    x = MEAN + 10 * POINTS
    through = model.flow(model.flow(x, 10.0, 1.0), 1.0, 0.1)
    np.testing.assert_allclose(through, model.flow(x, 10.0, 0.1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.flow(through, 0.1, 10.0), x, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.flow(x, 2.0, 2.0), x, rtol=1e-13)


@every_model
def test_flow_carries_one_law_to_the_other(model):
    """Change of variables: log p_a(x) = log p_b(flow x) + log det of the map."""
    a, b = 3.0, 0.2
    shift = np.zeros((1, 4))
    columns = [model.flow(shift + e, a, b) - model.flow(shift, a, b) for e in np.eye(4)]
    _, log_det = np.linalg.slogdet(np.concatenate(columns))
    pulled = model.log_prob(model.flow(POINTS, a, b), b) + log_det
    np.testing.assert_allclose(model.log_prob(POINTS, a), pulled, rtol=1e-11)


@every_model
@pytest.mark.parametrize("sigma", [0.3, 5.0])
def test_latent_code(model, sigma):
    z = model.to_latent(POINTS, sigma)
    np.testing.assert_allclose(model.from_latent(z, sigma), POINTS, atol=1e-12)
    np.testing.assert_allclose(model.flow(POINTS, sigma, 1e9) / 1e9, z, atol=1e-8)
    # standard normal: its covariance under p_sigma is the identity
    gain = np.concatenate([model.to_latent(MEAN[None] + e, sigma) for e in np.eye(4)])
    np.testing.assert_allclose(gain.T @ matrix(model, sigma) @ gain, np.eye(4), atol=1e-11)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@every_model
def test_samples_have_the_law(model, sigma):
    n = 4000
    x = model.sample(n, sigma, random_state=3)
    np.testing.assert_array_equal(x, model.sample(n, sigma, random_state=3))
    centred, expected = x - MEAN, matrix(model, sigma)
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    # standard errors sqrt(v/n) of the mean, at most sqrt(2/n) scale of the covariance
    assert np.all(np.abs(centred.mean(axis=0)) <= 4 * np.sqrt(expected.diagonal() / n))
    assert np.all(np.abs(centred.T @ centred / n - expected) <= 4 * scale * np.sqrt(2 / n) + 1e-14)
    assert not np.array_equal(model.sample(3, 1.0), model.sample(3, 1.0))


def test_a_seed_is_one_trajectory_over_all_levels():
    high = FULL.sample(6, 5.0, random_state=1)
    low = FULL.sample(6, 0.1, random_state=1)
    np.testing.assert_allclose(FULL.flow(high, 5.0, 0.1), low, atol=1e-12)


# ------------------------------------------------------------------ printed values


def test_gains_of_the_flow_and_of_the_denoised_path():
    """Variances 4, 1, 1/4 from level 80 to 2: sixteen printed digits."""
    variances = np.array([4.0, 1.0, 0.25])
    model = GaussianModel(np.zeros(3), variances)
    x = np.eye(3)
    psi = [0.035344295692180165, 0.027948666314477455, 0.025768906866063084]
    xi = [0.01767214784609008, 0.0055897332628954905, 0.0015158180509448874]
    moved = model.flow(x, 80.0, 2.0)
    np.testing.assert_allclose(moved.diagonal(), psi, rtol=1e-14)
    np.testing.assert_allclose(model.denoise(moved, 2.0).diagonal(), xi, rtol=1e-14)
    np.testing.assert_allclose(
        moved.diagonal() ** 2 * (variances + 80**2), variances + 4, rtol=1e-13
    )


def test_gaussian_of_two_points():
    """Mean 0 and variance 1 at .5 and level .8: shrinkage .5/1.64."""
    found = GaussianModel([0.0], 1.0).denoise(np.array([[0.5]]), 0.8)
    assert found[0, 0] == pytest.approx(0.3048780487804878, rel=1e-15)


@pytest.mark.parametrize(
    ("variance", "gain"), [(4.0, 0.7071067811865476), (0.25, 0.24253562503633297), (0.0, 0.0)]
)
def test_amplification_of_a_perturbation(variance, gain):
    model = GaussianModel([0.0], variance)
    moved = model.flow(np.array([[1.0]]), 2.0, 0.0)
    assert moved[0, 0] == pytest.approx(gain, rel=1e-15)


def test_emergence_levels():
    model = GaussianModel(np.zeros(3), [9.0, 1.0, 0.01])
    variances = model.covariance.variances
    for rho, factor in [(1, 1 / 2), (7, 13 / 8), (np.inf, 2.0)]:
        np.testing.assert_allclose(model.emergence_levels(rho=rho) ** 2, factor * variances)
    half = model.emergence_levels(fraction=0.5)
    np.testing.assert_allclose(half, np.sqrt(3 * variances))
    # at that level the denoised path has half of its final amplitude
    z = np.eye(3)
    final, there = model.flow(z, 1e6, 0.0), z.copy()
    for k in range(3):
        there[k] = model.denoise(model.flow(z[k : k + 1], 1e6, half[k]), half[k])
    np.testing.assert_allclose(there.diagonal(), 0.5 * final.diagonal(), rtol=1e-9)
    for wrong in (0.0, 1.0, -1.0, "half"):
        with pytest.raises(ValueError, match="fraction must"):
            model.emergence_levels(fraction=wrong)
    for wrong in (0.5, "linear", None, -np.inf, [7.0]):
        with pytest.raises(ValueError, match="rho must be a number above 1/2"):
            model.emergence_levels(rho=wrong)


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_emergence_is_where_the_amplitude_changes_fastest(rho):
    """The printed constants .5000 and 1.6249 are this maximum on a grid."""
    tau = np.linspace(0.2, 3, 200_001)
    amplitude = 1 / np.sqrt(1 + tau ** (2 * rho))
    fastest = tau[np.argmax(np.abs(np.gradient(amplitude, tau)))] ** (2 * rho)
    assert fastest == pytest.approx((2 * rho - 1) / (rho + 1), rel=3e-4)


def test_constant_error_of_the_denoiser_is_carried_linearly():
    """Variance 4, levels 80 to 2: final error asinh(1) - asinh(1/40) per unit of error."""
    model = GaussianModel([0.0], 4.0)
    x = np.array([3.0])

    def slope(sigma, at, error):
        return (at - model.denoise(at[:, None], sigma)[:, 0] - error) / sigma

    ends = [
        integrate.solve_ivp(
            slope, (80.0, 2.0), x, method="DOP853", rtol=1e-12, atol=1e-12, args=(error,)
        ).y[0, -1]
        for error in (0.0, 1.0)
    ]
    # the exact flow takes what is left at level 2 to the data
    final = np.diff(ends) * model.flow(np.array([[1.0]]), 2.0, 0.0)[0, 0]
    assert final[0] == pytest.approx(0.8563761904540602, rel=1e-9)


def test_high_noise_and_low_noise_limits():
    np.testing.assert_allclose(FULL.denoise(POINTS, 1e9), np.tile(MEAN, (5, 1)), atol=1e-8)
    np.testing.assert_allclose(FULL.denoise(POINTS, 1e-9), POINTS, atol=1e-8)
    np.testing.assert_array_equal(FULL.denoise(POINTS, 0.0).round(12), POINTS.round(12))
    np.testing.assert_allclose(FULL.denoise(MEAN[None], 1.0), MEAN[None], rtol=1e-15)


def test_equivariance():
    rotation, shift, scale = random_axes(4, seed=5), np.arange(4.0), 3.0
    moved = GaussianModel(
        scale * rotation @ MEAN + shift, scale**2 * rotation @ matrix(FULL) @ rotation.T
    )
    x = scale * POINTS @ rotation.T + shift
    expected = scale * FULL.denoise(POINTS, 0.8) @ rotation.T + shift
    np.testing.assert_allclose(moved.denoise(x, 0.8 * scale), expected, atol=1e-12)
    np.testing.assert_allclose(
        moved.log_prob(x, 0.8 * scale), FULL.log_prob(POINTS, 0.8) - 4 * np.log(scale), rtol=1e-12
    )


def test_full_rank_axes_are_the_matrix():
    spectral = GaussianModel(MEAN, SpectralCovariance(SPECTRUM, AXES, residual=99.0))
    np.testing.assert_allclose(spectral.score(POINTS, 0.3), FULL.score(POINTS, 0.3), rtol=1e-10)


# ------------------------------------------------------------------ geometry of trajectories


def out_of_plane(model, x, levels):
    """Energy outside the plane of the two ends, along the flow in unit-variance coordinates."""
    mean = model.mean
    path = np.stack([(model.flow(x, levels[0], s) - mean) / np.sqrt(1 + s**2) for s in levels])
    ends = np.linalg.qr(np.stack([path[0], path[-1]], axis=-1))[0]
    inside = np.einsum("ndk,nek,tne->tnd", ends, ends, path)
    return ((path - inside) ** 2).sum(axis=-1) / (path**2).sum(axis=-1)


def test_two_distinct_variances_keep_trajectories_in_a_plane():
    rotation = random_axes(4, seed=8)
    levels = EDMSchedule().grid(30)
    x = 80 * POINTS
    for spectrum, planar in [([4, 4, 0.2, 0.2], True), ([1, 1, 1, 1], True), (SPECTRUM, False)]:
        model = GaussianModel(np.zeros(4), rotation * spectrum @ rotation.T)
        energy = out_of_plane(model, x, levels)
        if planar:
            assert energy.max() < 1e-20
        else:
            assert energy.max() > 1e-4


def test_teleportation_is_free_for_a_gaussian():
    """The jump to any level, then the exact flow, ends where the flow alone ends."""
    x = MEAN + 80 * POINTS
    for level in EDMSchedule().grid(8):
        end = FULL.flow(FULL.flow(x, 80.0, level), level, 0.002)
        np.testing.assert_allclose(end, FULL.flow(x, 80.0, 0.002), atol=1e-12)


def test_variance_preserving_denoiser_is_the_same_denoiser():
    schedule = VPSchedule()
    t = 0.37
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    by_hand = MEAN + (POINTS / alpha - MEAN) @ np.linalg.solve(
        matrix(FULL, sigma / alpha), matrix(FULL)
    )
    view = FULL.at_time(schedule)
    np.testing.assert_allclose(view.denoise(POINTS, t), by_hand, rtol=1e-12)
    np.testing.assert_allclose(
        view.score(POINTS, t), (alpha * by_hand - POINTS) / sigma**2, rtol=1e-11
    )


# ------------------------------------------------------------------ as an object


@every_model
def test_pickles(model):
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score(POINTS, 0.4), model.score(POINTS, 0.4))
    assert again.has_density == model.has_density


def test_parameters_are_read_only_copies():
    mean = np.zeros(2)
    model = GaussianModel(mean, 1.0)
    mean[0] = 5.0
    assert model.mean[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        model.mean[0] = 1.0


def test_low_rank_in_high_dimension():
    d, r = 3072, 100
    model = GaussianModel(
        np.zeros(d), SpectralCovariance(np.linspace(5, 1, r), random_axes(d, r), 0.01)
    )
    x = model.sample(20, random_state=0)
    # -2 log p - d log 2 pi - log det is chi-square with d degrees: mean d, sd sqrt(2 d)
    log_det = np.log(np.linspace(5, 1, r)).sum() + (d - r) * np.log(0.01)
    quadratic = -2 * model.log_prob(x) - d * np.log(2 * np.pi) - log_det
    assert np.all(np.abs(quadratic - d) < 5 * np.sqrt(2 * d))
    back = model.from_latent(model.to_latent(x))
    np.testing.assert_allclose(back, x, atol=1e-11)
    v = np.ones_like(x)
    np.testing.assert_allclose(
        model.jvp(x, 0.5, v), model.score(x + v, 0.5) - model.score(x, 0.5), atol=1e-9
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([np.nan, 0.0], 1.0), "mean must be a finite vector"),
        (([[0.0, 0.0]], 1.0), "mean must be a finite vector"),
        (([], 1.0), "mean must be a finite vector"),
        (([0.0, 0.0], [1.0]), "covariance must be a scalar"),
        (([0.0, 0.0], -1.0), "non-negative"),
        (([0.0, 0.0], np.nan), "finite"),
        (([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite"),
    ],
)
def test_bad_parameters(arguments, match):
    with pytest.raises(ValueError, match=match):
        GaussianModel(*arguments)


def test_free_function_takes_the_closed_form():
    np.testing.assert_array_equal(jacobian(FULL, POINTS, 1.0), FULL.jacobian(POINTS, 1.0))
