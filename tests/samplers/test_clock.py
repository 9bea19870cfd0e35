"""Clocks: what a blind model leaves behind on the schedule's, and not on an estimated one."""

import math
from itertools import pairwise

import numpy as np
import pytest

from skdiffusion import BlindScore, NoiseLevelEstimator
from skdiffusion.models import BlindModel, GaussianModel
from skdiffusion.samplers import (
    SAMPLERS,
    DDPMSampler,
    EulerSampler,
    NesterovSampler,
    RK4Sampler,
    check_sampler,
    run_sampler,
)
from skdiffusion.samplers.clock import Clock
from skdiffusion.schedules import CosineSchedule, FlowMatchingSchedule

D = 16
LEVELS = [*np.geomspace(50.0, 0.01, 30), 0.0]
LENGTH = math.sqrt(2) * math.exp(math.lgamma(D / 2) - math.lgamma((D - 1) / 2))
rng = np.random.default_rng(0)


def noise_of_a_point(u):
    """E[eps | u] for data at zero and b uniform on the half-line: of constant length."""
    return LENGTH * u / np.linalg.norm(u, axis=1, keepdims=True)


def quiet(x):
    return np.linalg.norm(x, axis=1) / math.sqrt(x.shape[1])


def blind(target):
    """The perfect blind model of data at zero on the straight path."""
    fields = {"noise": noise_of_a_point, "velocity": noise_of_a_point, "data": np.zeros_like}
    fields["equilibrium"] = lambda u: u
    return BlindModel(fields[target], D, FlowMatchingSchedule(), target, noise_level=quiet)


class Exactly:
    """A clock that knows: the data are a point at zero."""

    def predict_noise_level(self, x):
        return quiet(x)


@pytest.mark.parametrize("target", ["noise", "velocity", "data"])
def test_an_estimated_clock_leaves_no_noise_behind(target):
    model = blind(target)
    x = LEVELS[0] * rng.standard_normal((40, D))
    by = {
        clock: np.linalg.norm(run_sampler(EulerSampler(clock=clock), model, x, LEVELS), axis=1)
        for clock in ("schedule", "estimated")
    }
    # each step removes its share of what is there: the last level, and 1/4K of the one before
    assert by["estimated"].max() < 0.05
    if target != "data":  # a point that is 1/sqrt(2D) quieter than its level keeps the difference
        assert np.mean(by["schedule"]) > 3 * np.mean(by["estimated"])


@pytest.mark.filterwarnings("ignore:a model that is not told")  # it is what is measured
@pytest.mark.parametrize(
    "delta, noise, data", [(0.1, 1.4883, 0.6719), (0.01, 3.4287, 0.2917), (0.0064, 4.0323, 0.2480)]
)
def test_blind_noise_and_data_change_the_size_of_a_unit_gaussian(delta, noise, data):
    # trigonometric path: all levels look alike, so that both are predicted as 2 u / pi. Noise errs
    # from where there is little signal, a = sin delta, data down to where there is little noise
    sampler = RK4Sampler(clock="schedule")
    by_noise, by_data = (
        BlindModel(lambda u: 2 / np.pi * u, 1, CosineSchedule(), target)
        for target in ("noise", "data")
    )
    levels = [*np.geomspace(1 / np.tan(delta), 1e-3 * delta, 100), 0.0]
    found = run_sampler(sampler, by_noise, np.array([[1 / np.sin(delta)]]), levels)
    np.testing.assert_allclose(found, noise, rtol=1e-4)  # digits as printed
    levels = np.geomspace(1e4, np.tan(delta), 200)
    found = run_sampler(sampler, by_data, np.array([[1e4]]), levels)
    np.testing.assert_allclose(np.cos(delta) * found, data, rtol=3e-4)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"flow", "mala", "dmcmc"}))
def test_every_sampler_goes_by_a_clock(name):
    sampler = check_sampler(name).set_params(clock=Exactly())
    x = LEVELS[0] * rng.standard_normal((10, D))
    found = run_sampler(sampler, blind("noise"), x, LEVELS, random_state=0)
    assert np.abs(found).max() < 1.0 and np.isfinite(found).all()


def test_without_a_clock_the_model_is_never_told_a_level():
    pulls = []

    def field(u):
        pulls.append(u.copy())
        return np.zeros_like(u)

    model = BlindModel(field, D, FlowMatchingSchedule(), "data")
    x = LEVELS[0] * rng.standard_normal((5, D))
    found = run_sampler(EulerSampler(clock=None), model, x, LEVELS)
    assert np.array_equal(found, np.zeros_like(x))
    # it starts where the path does, at unit scale, and each step keeps the share s'/s
    np.testing.assert_allclose(pulls[0], x / 51, rtol=1e-12)
    np.testing.assert_allclose(pulls[-1], x / 51 * LEVELS[-2] / LEVELS[0], rtol=1e-9)


def test_without_a_clock_a_path_begins_where_a_jump_ends():
    far_field, x = GaussianModel(np.full(D, 3.0), 0.5), LEVELS[0] * rng.standard_normal((5, D))
    sampler = EulerSampler(clock=None, teleport=5.0)
    options = {"far_field": far_field, "return_trajectory": True}
    _, path = run_sampler(sampler, blind("data"), x, LEVELS, **options)
    # the flow of the Gaussian down to level 5, which is at t = 5/6 of the straight path
    carried = 3.0 + (x - 3.0) * np.sqrt((0.5 + 25) / (0.5 + LEVELS[0] ** 2))
    np.testing.assert_allclose(path[0], carried / 6, rtol=1e-12)


def test_without_a_clock_noise_is_that_of_the_residual():
    x = LEVELS[0] * rng.standard_normal((20, D))
    model = blind("data")
    found = run_sampler(DDPMSampler(clock=None), model, x, LEVELS, random_state=0)
    assert np.abs(found).max() < 0.05


@pytest.mark.parametrize("momentum", [0.3, 0.6])
def test_momentum_shrinks_errors_by_the_roots_of_its_recurrence(momentum):
    h, n = 0.05, 60
    x = rng.standard_normal((5, D))
    levels = (1 - h) ** np.arange(n + 1)
    _, path = run_sampler(
        NesterovSampler(momentum=momentum), blind("data"), x, levels, return_trajectory=True
    )
    # e'' = (1 - h) ((1 + mu) e' - mu e), from e_0 = 1 and e_1 = 1 - h
    first, second = np.roots([1, -(1 - h) * (1 + momentum), (1 - h) * momentum]).astype(complex)
    share = (1 - h - second) / (first - second)
    steps = np.arange(n + 1)
    factors = (share * first**steps + (1 - share) * second**steps).real
    np.testing.assert_allclose(path, factors[:, None, None] * path[0], atol=1e-12)
    assert abs(factors[-1]) < 0.3 * levels[-1]  # sooner there than without


def test_descent_without_momentum_is_eulers_and_asks_once_a_step():
    asked = []

    def field(u):
        asked.append(len(u))
        return np.tanh(u)

    model = BlindModel(field, D, FlowMatchingSchedule(), "data")
    x = LEVELS[0] * rng.standard_normal((5, D))
    one, other = (
        run_sampler(sampler, model, x, LEVELS)
        for sampler in (NesterovSampler(momentum=0.0), EulerSampler(clock=None))
    )
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert len(asked) == 2 * (len(LEVELS) - 1)


def test_momentum_goes_without_a_clock():
    x = np.ones((1, D))
    with pytest.raises(ValueError, match="without a clock"):
        run_sampler(NesterovSampler(clock="schedule"), blind("data"), x, LEVELS)
    with pytest.raises(ValueError, match="momentum must be a finite number of at least 0"):
        run_sampler(NesterovSampler(momentum=-1.0), blind("data"), x, LEVELS)
    with pytest.raises(ValueError, match="needs a blind model that predicts 'data'"):
        run_sampler(NesterovSampler(), GaussianModel(np.zeros(D), 1.0), x, LEVELS)


def test_equilibrium_and_data_are_one_descent():
    x = LEVELS[0] * rng.standard_normal((5, D))
    one, other = (
        run_sampler(EulerSampler(clock=None), blind(target), x, LEVELS)
        for target in ("data", "equilibrium")
    )
    np.testing.assert_allclose(one, other, atol=1e-10)


def test_models_that_are_told_the_level_keep_the_schedule():
    model = GaussianModel(np.zeros(3), 1.0)
    x = LEVELS[0] * rng.standard_normal((5, 3))
    one, other = (
        run_sampler(EulerSampler(clock=clock), model, x, LEVELS) for clock in ("auto", "schedule")
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "clock, message",
    [
        ("estimated", "does not say which noise level"),
        (None, "needs a blind model that predicts 'data'"),
        ("sundial", "clock must be"),
    ],
)
def test_impossible_clocks_are_refused(clock, message):
    model = GaussianModel(np.zeros(3), 1.0)
    with pytest.raises(ValueError, match=message):
        run_sampler(EulerSampler(clock=clock), model, np.ones((2, 3)), [1.0, 0.0])


def test_blind_noise_on_the_schedules_clock_is_warned_of():
    model, x = blind("noise"), np.ones((2, D))
    with pytest.warns(UserWarning, match="leaves noise behind"):
        run_sampler(EulerSampler(clock="schedule"), model, x, [1.0, 0.0])


def test_a_learned_clock():
    from sklearn.neighbors import KNeighborsRegressor

    X = np.hstack([rng.standard_normal((200, 2)), np.zeros((200, D))])
    est = BlindScore(
        KNeighborsRegressor(20),
        target="noise",
        level_estimator=NoiseLevelEstimator(n_noise=50),
        n_noise=50,
        random_state=0,
    ).fit(X)
    away = {}
    for clock in ("auto", est.level_estimator_):
        samples = est.sample(50, sampler=EulerSampler(clock=clock), n_steps=40, random_state=0)
        away[str(clock)] = np.linalg.norm(samples[:, 2:], axis=1).mean()
    assert len(set(away.values())) == 1  # its own clock is the default


@pytest.mark.parametrize("levels", [np.geomspace(50.0, 0.01, 30), np.geomspace(0.01, 50.0, 30)])
def test_rows_that_are_behind_arrive_with_the_schedule(levels):
    # up and down: rows ahead keep the schedule's ratios, the others take the same share of their
    # way at every step, here a twenty-ninth of the logarithm
    down = levels[0] > levels[-1]
    seen = levels[0] * np.array([1.0, 30.0, 1 / 30.0])
    clock, path = Clock(lambda x: x[:, 0], (0.0, np.inf)), [seen]
    for level, next_level in pairwise(levels.tolist()):
        _, read, after = clock(path[-1][:, None], None, level, next_level, levels[-1])
        np.testing.assert_allclose(read[:, 0], path[-1])
        path.append(after[:, 0])
    same, above, below = np.transpose(path)
    behind, ahead = (above, below) if down else (below, above)
    np.testing.assert_allclose(same, levels, rtol=1e-12)
    np.testing.assert_allclose(behind, np.geomspace(behind[0], levels[-1], 30), rtol=1e-12)
    np.testing.assert_allclose(ahead, ahead[0] / levels[0] * levels, rtol=1e-12)


def test_a_clock_that_asks_is_told_the_level_of_the_schedule():
    told = []

    class Clock:
        def predict_noise_level(self, X, near=None):
            told.append(near)
            return near

    model, x = GaussianModel(np.zeros(2), 1.0), 5.0 * np.ones((3, 2))
    levels = [5.0, 1.0, 0.2, 0.0]
    followed = run_sampler(EulerSampler(clock=Clock()), model, x, levels)
    np.testing.assert_array_equal(np.stack(told), np.tile([[5.0], [1.0], [0.2]], 3))
    # a clock that repeats what it is told is the schedule's
    np.testing.assert_allclose(followed, run_sampler(EulerSampler(), model, x, levels), rtol=1e-14)
