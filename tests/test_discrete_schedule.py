"""The schedule of numbered timesteps: its table at the timesteps, one smooth path between them."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skdiffusion import DiscreteSchedule
from skdiffusion.models import MixtureModel, as_score_model
from skdiffusion.schedules import check_schedule

COSINE = np.cos(np.linspace(0.01, 1.55, 50)) ** 2
SCHEDULES = [DiscreteSchedule(), DiscreteSchedule(COSINE), DiscreteSchedule([0.9, 0.2])]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["ddpm", "cosine", "two steps"])
def test_the_table_at_the_timesteps(schedule):
    table = schedule.alphas_cumprod
    if table is None:
        table = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    table = np.asarray(table)
    steps = np.arange(float(len(table)))
    np.testing.assert_allclose(schedule.alpha(steps), table**0.5, rtol=1e-12)
    np.testing.assert_allclose(schedule.sigma(steps), (1 - table) ** 0.5, rtol=1e-12)
    np.testing.assert_allclose(schedule.time_of(schedule.noise_level(steps)), steps, atol=1e-9)
    assert schedule.sigma_min == pytest.approx(((1 - table[0]) / table[0]) ** 0.5, rel=1e-12)
    assert schedule.sigma_max == pytest.approx(((1 - table[-1]) / table[-1]) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["ddpm", "cosine", "two steps"])
def test_between_the_timesteps(schedule, rng):
    last = schedule.time_of(schedule.sigma_max)
    t = np.sort(rng.uniform(0, last, 50))
    t = t[np.abs(t - np.round(t)) > 0.01]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-13)
    np.testing.assert_allclose(schedule.time_of(sigma / alpha), t, atol=1e-9)
    low, high = np.floor(t), np.ceil(t)
    mean = schedule.noise_level(low) ** (high - t) * schedule.noise_level(high) ** (t - low)
    np.testing.assert_allclose(schedule.noise_level(t), mean, rtol=1e-12)
    h = 1e-5
    for rate, function in zip(schedule.rates(t), (schedule.alpha, schedule.sigma), strict=True):
        difference = (function(t + h) - function(t - h)) / (2 * h)
        np.testing.assert_allclose(rate, difference, rtol=1e-6, atol=1e-9)  # O(h^2)


def test_floats_arrays_and_tensors_agree_and_keep_their_kind():
    schedule = DiscreteSchedule(COSINE)
    t = np.array([0.0, 0.3, 7.0, 48.9, 49.0])
    for name in ("alpha", "sigma", "noise_level"):
        function = getattr(schedule, name)
        expected = [function(float(value)) for value in t]
        assert all(isinstance(value, float) for value in expected)
        np.testing.assert_allclose(function(t), expected, rtol=1e-13)
        np.testing.assert_allclose(function(t[:, None])[:, 0], expected, rtol=1e-13)
        tensor = function(torch.tensor(t))
        assert torch.is_tensor(tensor)
        np.testing.assert_allclose(tensor, expected, rtol=1e-13)
        assert function(torch.tensor(t[:, None], dtype=torch.float32)).dtype == torch.float32
        assert function(torch.tensor(3.5)).ndim == 0
    level = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.time_of(level).sum(), level)
    difference = (schedule.time_of(0.5 + 1e-6) - schedule.time_of(0.5 - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_a_model_seen_at_its_times_and_read_back(prediction, rng):
    schedule = DiscreteSchedule()
    law = MixtureModel([0.4, 0.6], [[-2.0, 0.0], [1.0, 1.0]], [0.3, 0.1])
    view = law.at_time(schedule)
    network = {"noise": view.predict_noise, "velocity": view.velocity}[prediction]
    model = as_score_model(network, schedule=schedule, prediction=prediction, n_features=2)
    x, levels = rng.standard_normal((5, 2)), np.array([0.02, 0.4, 1.0, 3.0, 100.0])
    np.testing.assert_allclose(model.denoise(x, levels), law.denoise(x, levels), atol=1e-8)


def test_no_signal_at_all_has_no_level():
    """Zero terminal signal (Lin et al. 2024): the last timestep is left out."""
    schedule = DiscreteSchedule([0.9, 0.5, 0.1, 0.0])
    assert schedule.sigma_max == pytest.approx(3.0)
    np.testing.assert_allclose(schedule.grid(3), DiscreteSchedule([0.9, 0.5, 0.1]).grid(3))


def test_grid_and_clone():
    schedule = DiscreteSchedule()
    grid = schedule.grid(1000)
    np.testing.assert_allclose(schedule.time_of(grid), np.arange(999.0, -1, -1), atol=1e-6)
    assert check_schedule(clone(schedule)).sigma_max == schedule.sigma_max


@pytest.mark.parametrize("table", [[0.5], [0.5, 0.9], [1.0, 0.5], [0.5, -0.1], [[0.9], [0.1]], 0.5])
def test_refusals(table):
    with pytest.raises(ValueError, match="alphas_cumprod must be a decreasing table"):
        check_schedule(DiscreteSchedule(table))


def test_whole_timesteps_in_arrays():
    """They are what networks are trained at; tables of levels are not whole."""
    schedule, steps = DiscreteSchedule(), np.arange(0, 1000, 111)
    for name in ("alpha", "sigma", "noise_level", "drift", "squared_diffusion"):
        function = getattr(schedule, name)
        expected = [function(int(step)) for step in steps]
        np.testing.assert_allclose(function(steps), expected, rtol=1e-14)
        found = function(torch.tensor(steps))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)
    levels = np.array([1, 2, 100])
    np.testing.assert_allclose(schedule.time_of(levels), [schedule.time_of(int(s)) for s in levels])
