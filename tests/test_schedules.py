"""Every schedule is two functions of time; everything else must follow from them."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone

from skdiffusion.schedules import (
    SCHEDULES,
    CosineSchedule,
    EDMSchedule,
    FlowMatchingSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    check_schedule,
)

ALL = [
    EDMSchedule(),
    VESchedule(),
    VPSchedule(),
    VPSchedule(beta_min=0.2, beta_max=40.0),
    VPSchedule(beta_min=3.0, beta_max=3.0),
    SubVPSchedule(),
    CosineSchedule(),
    FlowMatchingSchedule(),
]
every_schedule = pytest.mark.parametrize("schedule", ALL, ids=repr)


def inner_times(schedule, n=25):
    """Times between a small and a large noise level, the ends excluded."""
    return np.asarray(schedule.time_of(np.geomspace(1e-2, 50.0, n)))


# ------------------------------------------------------------------ time and noise level


@every_schedule
def test_noise_level_inverts_time_of(schedule):
    levels = np.geomspace(1e-6, 1e6, 97)
    back = schedule.noise_level(schedule.time_of(levels))
    # near t = 1 the cosine and straight paths have alpha = 1/level, so that rounding of t
    # in the last place is a relative error of level * 2^-53: 1e-10 at the largest level
    tolerance = 1e-14 + 2 * np.finfo(float).eps * (1 + levels)
    if isinstance(schedule, (VESchedule, VPSchedule, SubVPSchedule)):
        tolerance = 1e-12  # exponentials of numbers up to 30: a few dozen roundings
    assert np.all(np.abs(back / levels - 1) <= tolerance)


@every_schedule
def test_noise_level_grows_with_time(schedule):
    levels = schedule.noise_level(np.linspace(0.001, 0.999, 500))
    assert np.all(np.diff(levels) > 0)


@every_schedule
def test_noise_level_is_noise_over_signal(schedule):
    t = inner_times(schedule)
    np.testing.assert_allclose(
        schedule.noise_level(t), schedule.sigma(t) / schedule.alpha(t), rtol=1e-11
    )


def test_noise_level_table_of_variance_preserving_and_straight_paths():
    """Five-decimal table of times and levels; tolerance is its last printed digit."""
    levels = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
    vp = [0.00092, 0.00306, 0.01159, 0.02699, 0.05796, 0.14481]
    straight = [0.0099, 0.0196, 0.0476, 0.0909, 0.1667, 0.3333]
    np.testing.assert_allclose(VPSchedule().time_of(levels), vp, atol=5.1e-6)
    np.testing.assert_allclose(FlowMatchingSchedule().time_of(levels), straight, atol=5.1e-5)
    times = np.array([1e-4, 0.01, 0.05, 0.1, 0.3, 0.5])
    expected = [0.00318, 0.0447, 0.1741, 0.3402, 1.234, 3.413]
    np.testing.assert_allclose(VPSchedule().noise_level(times), expected, rtol=1e-3)


def test_closed_forms_of_each_path():
    t = np.array([0.1, 0.5, 0.9])
    integral = 0.1 * t + 0.5 * 19.9 * t**2
    np.testing.assert_allclose(VPSchedule().alpha(t), np.exp(-integral / 2), rtol=1e-14)
    np.testing.assert_allclose(VPSchedule().sigma(t) ** 2, 1 - np.exp(-integral), rtol=1e-13)
    np.testing.assert_allclose(SubVPSchedule().sigma(t), 1 - np.exp(-integral), rtol=1e-13)
    cosine = CosineSchedule()
    np.testing.assert_allclose(cosine.alpha(t) ** 2 + cosine.sigma(t) ** 2, 1, rtol=1e-15)
    straight = FlowMatchingSchedule()
    np.testing.assert_array_equal(straight.alpha(t) + straight.sigma(t), 1)
    geometric = VESchedule(sigma_min=0.01, sigma_max=100.0)
    np.testing.assert_allclose(geometric.sigma(t), 0.01 * 1e4**t, rtol=1e-14)


def test_double_speed_convention_is_the_same_path_at_double_rate():
    """Signal exp(-int beta) is the usual linear schedule with both rates doubled."""
    t = np.linspace(0.01, 1, 20)
    usual, double = VPSchedule(), VPSchedule(beta_min=0.2, beta_max=40.0)
    np.testing.assert_allclose(double.alpha(t), usual.alpha(t) ** 2, rtol=1e-13)


# ------------------------------------------------------------------ rates and the SDE


def richardson(f, t, h=1e-3):
    """Derivative by two steps of Richardson extrapolation: error O(h^6)."""

    def central(step):
        return (f(t + step) - f(t - step)) / (2 * step)

    fine = (4 * central(h / 2) - central(h)) / 3
    finer = (4 * central(h / 4) - central(h / 2)) / 3
    return (16 * finer - fine) / 15


@every_schedule
def test_rates_are_the_derivatives(schedule):
    t = np.linspace(0.05, 0.95, 19)
    alpha_rate, sigma_rate = schedule.rates(t)
    # truncation (h/t)^6 ~ 1e-10 in the least smooth case, rounding eps/h ~ 1e-12
    for rate, f in [(alpha_rate, schedule.alpha), (sigma_rate, schedule.sigma)]:
        np.testing.assert_allclose(rate + 0 * t, richardson(f, t, h=5e-4), rtol=1e-8, atol=1e-9)


@every_schedule
def test_drift_and_diffusion_follow_from_the_path(schedule):
    t = np.linspace(0.05, 0.95, 19)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    alpha_rate, sigma_rate = schedule.rates(t)
    drift = alpha_rate / alpha
    np.testing.assert_allclose(schedule.drift(t), drift, rtol=1e-12)
    np.testing.assert_allclose(
        schedule.squared_diffusion(t), 2 * sigma * (sigma_rate - drift * sigma), rtol=1e-11
    )
    # the other form, alpha^2 d(level^2)/dt, through differences
    level_rate = richardson(lambda s: schedule.noise_level(s) ** 2, t, h=5e-4)
    np.testing.assert_allclose(schedule.squared_diffusion(t), alpha**2 * level_rate, rtol=1e-6)


@every_schedule
def test_forward_equation_reproduces_the_marginal_variance(schedule):
    """d Var/dt = 2 f Var + g^2 has the solution alpha^2 v + sigma^2."""
    t, v = np.linspace(0.05, 0.95, 19), 0.7
    variance = schedule.alpha(t) ** 2 * v + schedule.sigma(t) ** 2
    rate = richardson(lambda s: schedule.alpha(s) ** 2 * v + schedule.sigma(s) ** 2, t, 5e-4)
    expected = 2 * schedule.drift(t) * variance + schedule.squared_diffusion(t)
    np.testing.assert_allclose(rate, expected, rtol=1e-7, atol=1e-8)


# ------------------------------------------------------------------ grids


def test_karras_grid_of_eighteen_and_forty_levels():
    printed = [80, 57.586, 40.7856, 28.3746, 19.3525, 12.9101, 8.4009, 5.3152, 3.2568, 1.9233]
    printed += [1.0882, 0.5853, 0.2964, 0.1395, 0.0599, 0.0229, 0.0075, 0.002]
    # four printed decimals
    np.testing.assert_allclose(EDMSchedule().grid(18), printed, atol=6e-5)
    forty = EDMSchedule().grid(40)
    np.testing.assert_allclose(
        forty[[5, 10, 15, 20]], [38.2665, 16.7799, 6.5901, 2.2404], atol=6e-5
    )


@pytest.mark.parametrize("k", [1, 5, 11, 16])
def test_a_grid_restarted_inside_is_the_tail_of_the_whole_one(k):
    whole = EDMSchedule().grid(18)
    tail = EDMSchedule().grid(18 - k, sigma_max=whole[k])
    np.testing.assert_allclose(tail, whole[k:], rtol=1e-13)


@every_schedule
def test_a_grid_decreases_between_its_exact_ends(schedule):
    for n in (2, 7, 100):
        grid = schedule.grid(n)
        assert grid.shape == (n,) and grid.dtype == np.float64
        assert grid[0] == schedule.sigma_max and grid[-1] == schedule.sigma_min
        assert np.all(np.diff(grid) < 0)
    assert schedule.grid(1).tolist() == [schedule.sigma_max]
    narrow = schedule.grid(5, sigma_min=0.1, sigma_max=3.0)
    assert narrow[0] == 3.0 and narrow[-1] == 0.1 and np.all(np.diff(narrow) < 0)


@pytest.mark.parametrize(
    "schedule", [VESchedule(), VPSchedule(), SubVPSchedule(), CosineSchedule()], ids=repr
)
def test_grids_are_uniform_in_time(schedule):
    steps = np.diff(schedule.time_of(schedule.grid(11)))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)


def test_edm_grid_tends_to_the_geometric_one():
    geometric = VESchedule().grid(12)
    np.testing.assert_allclose(EDMSchedule(rho=1e6).grid(12), geometric, rtol=2e-5)
    np.testing.assert_allclose(np.diff(EDMSchedule(rho=1).grid(12), 2), 0, atol=1e-12)


# ------------------------------------------------------------------ training levels, noising


def test_training_levels_of_edm_are_log_normal():
    schedule = EDMSchedule(p_mean=-0.5, p_std=0.8)
    logs = np.log(schedule.sample_levels(4000, random_state=0))
    assert stats.kstest(logs, stats.norm(-0.5, 0.8).cdf).pvalue > 0.01
    np.testing.assert_array_equal(EDMSchedule(p_std=0.0).sample_levels(3, 0), np.exp(-1.2))


@pytest.mark.parametrize("schedule", ALL[1:], ids=repr)
def test_training_levels_are_uniform_in_time(schedule):
    levels = schedule.sample_levels(4000, random_state=1)
    assert levels.min() >= schedule.sigma_min and levels.max() <= schedule.sigma_max
    first, last = schedule.time_of(schedule.sigma_min), schedule.time_of(schedule.sigma_max)
    u = (schedule.time_of(levels) - first) / (last - first)
    assert stats.kstest(u, "uniform").pvalue > 0.01


@every_schedule
def test_training_levels_repeat_with_a_seed(schedule):
    np.testing.assert_array_equal(schedule.sample_levels(5, 3), schedule.sample_levels(5, 3))
    assert not np.array_equal(schedule.sample_levels(5), schedule.sample_levels(5))
    assert schedule.sample_levels(0, 3).shape == (0,)


@every_schedule
def test_perturb_is_the_affine_path_with_standard_noise(schedule):
    x0 = np.full((20_000, 2), 3.0)
    t = schedule.time_of(2.0)
    x_t, noise = schedule.perturb(x0, t, random_state=0)
    np.testing.assert_array_equal(x_t, schedule.alpha(t) * x0 + schedule.sigma(t) * noise)
    # 40,000 normal numbers: standard errors .005 of the mean and .0071 of the variance
    assert abs(noise.mean()) < 4 * 0.005 and abs(noise.var() - 1) < 4 * 0.0071


def test_perturb_takes_one_time_per_row_and_both_libraries():
    schedule, x0, t = VPSchedule(), np.ones((3, 2), np.float32), np.array([0.1, 0.5, 0.9])
    x_t, noise = schedule.perturb(x0, t, random_state=0)
    assert x_t.dtype == noise.dtype == np.float32
    expected = schedule.alpha(t)[:, None] * x0 + schedule.sigma(t)[:, None] * noise
    np.testing.assert_allclose(x_t, expected, rtol=1e-6)
    in_torch, torch_noise = schedule.perturb(torch.tensor(x0), torch.tensor(t), random_state=0)
    assert in_torch.dtype == torch.float32
    np.testing.assert_array_equal(torch_noise.numpy(), noise)
    np.testing.assert_allclose(in_torch.numpy(), x_t, rtol=1e-6)


def test_perturb_refuses_what_is_not_points_or_times():
    with pytest.raises(ValueError, match="shape"):
        VPSchedule().perturb(np.ones(3), 0.5)
    with pytest.raises(ValueError, match="t must be non-negative"):
        VPSchedule().perturb(np.ones((3, 2)), -0.5)
    with pytest.raises(ValueError, match="one level per row"):
        VPSchedule().perturb(np.ones((3, 2)), np.array([0.5, 0.5]))


# ------------------------------------------------------------------ array libraries


FUNCTIONS = ["alpha", "sigma", "noise_level", "time_of", "drift", "squared_diffusion", "rates"]


@every_schedule
@pytest.mark.parametrize("name", FUNCTIONS)
def test_floats_numpy_and_torch_agree(schedule, name):
    f = getattr(schedule, name)
    times = np.array([0.05, 0.3, 0.8])
    for i, t in enumerate(times):
        scalar = f(float(t))
        whole, tensor = f(times), f(torch.tensor(times))
        scalars = scalar if name == "rates" else (scalar,)
        arrays = whole if name == "rates" else (whole,)
        tensors = tensor if name == "rates" else (tensor,)
        for a, b, c in zip(scalars, arrays, tensors, strict=True):
            assert isinstance(a, float)
            assert torch.is_tensor(c) and c.dtype == torch.float64
            assert a == pytest.approx(b[i], rel=1e-14, abs=1e-300)
            assert a == pytest.approx(float(c[i]), rel=1e-13, abs=1e-300)


@every_schedule
@pytest.mark.parametrize("name", FUNCTIONS)
def test_single_precision_stays_single(schedule, name):
    f = getattr(schedule, name)
    times = np.array([0.05, 0.3, 0.8])
    exact = f(times)
    for t in (times.astype(np.float32), torch.tensor(times, dtype=torch.float32)):
        results = f(t) if name == "rates" else (f(t),)
        for value, reference in zip(results, exact if name == "rates" else (exact,), strict=True):
            assert str(value.dtype).endswith("float32")
            # times of the steep schedules have condition number up to ~20
            np.testing.assert_allclose(np.asarray(value), reference, rtol=2e-5, atol=1e-12)


def test_autograd_of_sigma_is_the_rate():
    t = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    for schedule in ALL:
        for f, rate in zip((schedule.alpha, schedule.sigma), schedule.rates(t), strict=True):
            value = f(t)
            if not value.requires_grad:
                continue
            (slope,) = torch.autograd.grad(value.sum(), t)
            torch.testing.assert_close(slope, rate + 0 * t, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------ as hyper-parameter objects


@every_schedule
def test_clones_and_sets_its_parameters(schedule):
    again = clone(schedule)
    assert again.get_params() == schedule.get_params() and again is not schedule
    again.set_params(sigma_min=0.1)
    assert again.grid(3)[-1] == 0.1
    assert eval(repr(again)).get_params() == again.get_params()


@pytest.mark.parametrize("name", SCHEDULES)
def test_short_names(name):
    assert isinstance(check_schedule(name), SCHEDULES[name])
    schedule = SCHEDULES[name]()
    assert check_schedule(schedule) is schedule


@pytest.mark.parametrize("wrong", ["vpp", "VP", None, 3, VPSchedule])
def test_an_unknown_name_is_one_sentence(wrong):
    with pytest.raises(ValueError, match="Unknown schedule") as caught:
        check_schedule(wrong)
    message = str(caught.value)
    assert "'flow_matching'" in message and message.endswith(".") and "\n" not in message
    assert not re.search(r"\.\s", message[:-1])


def test_a_near_miss_is_guessed():
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        check_schedule("cosin")


@pytest.mark.parametrize(
    "schedule",
    [
        EDMSchedule(sigma_min=0.0),
        EDMSchedule(sigma_min=-1.0),
        EDMSchedule(sigma_min=5.0, sigma_max=5.0),
        EDMSchedule(sigma_max=math.inf),
        EDMSchedule(sigma_max=math.nan),
        EDMSchedule(sigma_max="80"),
        VESchedule(sigma_min=3.0, sigma_max=1.0),
        VPSchedule(beta_min=0.0),
        VPSchedule(beta_min=2.0, beta_max=1.0),
        VPSchedule(sigma_min=1e9),
        VPSchedule(beta_max=2000.0),
        SubVPSchedule(beta_min=2000.0, beta_max=2000.0),
        SubVPSchedule(beta_min=-1.0),
        CosineSchedule(sigma_min=100.0),
        FlowMatchingSchedule(sigma_min=True),
    ],
    ids=repr,
)
def test_a_bad_range_is_one_sentence(schedule):
    with pytest.raises(ValueError, match=r"(must|lie)") as caught:
        check_schedule(schedule)
    assert "\n" not in str(caught.value)


def test_bad_grids():
    for n in (0, -1, 2.0, True, "3"):
        with pytest.raises(ValueError, match="n_steps must be an integer of at least 1"):
            EDMSchedule().grid(n)
    with pytest.raises(ValueError, match="sigma_min must lie below sigma_max"):
        EDMSchedule().grid(3, sigma_min=1.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="rho"):
        EDMSchedule(rho=0).grid(3)
    with pytest.raises(ValueError, match="p_std"):
        EDMSchedule(p_std=-1.0).sample_levels(3)
    with pytest.raises(ValueError, match="p_mean must be a finite number"):
        EDMSchedule(p_mean=math.nan).sample_levels(3)
