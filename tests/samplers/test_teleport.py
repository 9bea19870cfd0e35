"""Jumps over the far field: exact for a Gaussian, and of known cost for everything else."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdiffusion import GaussianScore, GMMScore
from skdiffusion.models import AffineModel, BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import (
    EulerSampler,
    FlowSampler,
    HeunSampler,
    RK4Sampler,
    Teleport,
    run_sampler,
    teleport_report,
)
from skdiffusion.samplers.teleport import plan_jump, respaced
from skdiffusion.schedules import EDMSchedule

COVARIANCE = np.array([[2.0, 0.8], [0.8, 0.5]])
GAUSSIAN = GaussianModel([1.0, -1.0], COVARIANCE)
MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])
FAR = MIXTURE.gaussian()
LEVELS = [*EDMSchedule(sigma_min=0.01, sigma_max=80.0).grid(40).tolist(), 0.0]


@pytest.fixture(scope="module")
def paths():
    """Points far out and where the exact flow of the mixture takes them."""
    x = FAR.sample(600, 80.0, random_state=1)
    # fourth order at h = .04 in the logarithm: errors below 1e-6
    return x, run_sampler(RK4Sampler(), MIXTURE, x, fine(80.0))


def fine(level):
    n_steps = int(25 * np.log(level / 1e-3))
    return [*np.geomspace(level, 1e-3, n_steps).tolist(), 0.0]


class Counting(BaseScoreModel):
    """Counts the rows at which a model is asked."""

    def __init__(self, model):
        self.model, self.n_features, self.n_asked = model, model.n_features, 0

    def _denoise(self, x, sigma):
        self.n_asked += len(x)
        return self.model._denoise(x, sigma)


@pytest.mark.parametrize("level", [40.0, 3.0, 0.01])
def test_a_gaussian_may_be_teleported_anywhere(level):
    x = GAUSSIAN.sample(20, 80.0, random_state=0)
    sampler = FlowSampler(teleport=level)
    there = run_sampler(sampler, GAUSSIAN, x, LEVELS, far_field=GAUSSIAN)
    # two maps that are equal in exact arithmetic, applied to points of size 200
    np.testing.assert_allclose(there, GAUSSIAN.flow(x, 80.0, 0.0), rtol=0, atol=1e-12)


def test_auto_takes_a_gaussian_all_the_way_and_asks_once():
    model = Counting(GAUSSIAN)
    jump = plan_jump("auto", model, LEVELS, GAUSSIAN)
    assert jump.level == 0.01 and jump.levels == [0.01, 0.0]
    np.testing.assert_allclose(jump.report.quantile, 0, atol=1e-12)
    model.n_asked = 0
    x = GAUSSIAN.sample(20, 80.0, random_state=0)
    there = run_sampler(EulerSampler(teleport=0.01), model, x, LEVELS, far_field=GAUSSIAN)
    assert model.n_asked == 20
    # what is left is the denoiser in place of the flow below .01: (1/2) sigma^2 / lambda_min
    np.testing.assert_allclose(there, GAUSSIAN.flow(x, 80.0, 0.0), atol=0.01**2 / 0.15 * 3)


def test_a_constant_error_of_the_denoiser_arrives_as_the_closed_form_says():
    class Shifted(BaseScoreModel):
        n_features = 1

        def _denoise(self, x, sigma):
            return law._denoise(x, sigma) + 0.3

    law = GaussianModel([0.0], 4.0)
    report = teleport_report(Shifted(), law, (80.0, 2.0))
    # in units of the scale, sqrt(4); the integrand is a sigmoid in log sigma, for which a
    # trapezoid of step h = log(10)/12 is off by h^2/12 times its change of slope: 2e-4
    exact = 0.3 * (np.arcsinh(1) - np.arcsinh(0.025)) / 2
    assert exact == pytest.approx(0.3 * 0.8563761904540602 / 2, rel=1e-12)
    assert report.error_at(2.0)[0] == pytest.approx(exact, rel=2e-3)
    assert report.error_at(2.0)[0] == pytest.approx(report.error_at(2.0)[1], rel=1e-9)


def errors_of_a_jump(paths, level):
    x, exact = paths
    jumped = run_sampler(RK4Sampler(), MIXTURE, FAR.flow(x, 80.0, level), fine(level))
    return np.linalg.norm(jumped - exact, axis=1) / FAR.covariance.total**0.5


@pytest.mark.parametrize("level", [20.0, 10.0, 5.0])
def test_the_expected_error_is_the_one_that_is_made(level, paths):
    errors = errors_of_a_jump(paths, level)
    median, quantile = teleport_report(MIXTURE, FAR, (80.0, 1.0), n_probes=600).error_at(level)
    # the true response is the mixture's, here within half of the Gaussian's in the bulk
    assert median == pytest.approx(np.median(errors), rel=0.5)
    assert quantile == pytest.approx(np.quantile(errors, 0.9), rel=0.5)


def test_auto_keeps_its_tolerance(paths):
    last = 80.0
    for tol in (0.003, 0.01, 0.03):
        jump = Teleport(tol=tol).plan(MIXTURE, LEVELS, FAR)
        assert jump.level < last
        last = jump.level
        assert np.quantile(errors_of_a_jump(paths, jump.level), 0.9) < 2 * tol


def test_auto_jumps_nowhere_if_it_can_keep_its_tolerance_nowhere():
    """From a first level that is too low for any Gaussian."""
    levels = [2.0, 1.0, 0.1, 0.0]
    assert Teleport(tol=1e-6).plan(MIXTURE, levels, FAR) is None
    assert teleport_report(MIXTURE, FAR, (2.0, 0.1)).level(1e-6) == np.inf
    x = FAR.sample(5, 2.0, random_state=0)
    careful = HeunSampler(teleport=Teleport(tol=1e-6))
    there = run_sampler(careful, MIXTURE, x, levels, far_field=FAR)
    np.testing.assert_array_equal(there, run_sampler(HeunSampler(), MIXTURE, x, levels))


def test_a_mixture_that_is_the_model_loses_nothing_and_asks_nothing():
    report = teleport_report(MIXTURE, FAR, (80.0, 0.01), law=MIXTURE)
    assert report.quantile.max() < 1e-12
    x = FAR.sample(50, 80.0, random_state=0)
    model = Counting(MIXTURE)
    sampler = EulerSampler(teleport=Teleport(0.01, law=MIXTURE))
    there = run_sampler(sampler, model, x, LEVELS, far_field=FAR)
    assert model.n_asked == 50
    exact = run_sampler(RK4Sampler(), MIXTURE, x, [*np.geomspace(80.0, 0.01, 300), 0.0])
    # 32 fourth-order steps per decade
    np.testing.assert_allclose(there, exact, atol=1e-4)


def test_a_draw_at_the_hand_over_has_the_law_of_the_gaussian():
    sampler = FlowSampler(teleport=Teleport(3.0, start="draw"))
    x = np.zeros((4000, 2))  # would be carried to one point
    there = run_sampler(sampler, GAUSSIAN, x, [80.0, 3.0], far_field=GAUSSIAN, random_state=0)
    standard_error = np.sqrt(11 / 4000)
    np.testing.assert_allclose(there.mean(0), GAUSSIAN.mean, atol=5 * standard_error)
    covariance = GAUSSIAN.covariance.to_matrix() + 9 * np.eye(2)
    np.testing.assert_allclose(np.cov(there.T), covariance, atol=5 * 11 * (2 / 4000) ** 0.5)
    parts = run_sampler(
        sampler, GAUSSIAN, x, [80.0, 3.0], far_field=GAUSSIAN, random_state=0, chunk_size=300
    )
    np.testing.assert_allclose(parts, there, atol=1e-12)


def test_the_grid_is_spaced_alike_after_the_jump():
    grid = EDMSchedule(sigma_min=0.002, sigma_max=80.0).grid(18).tolist()
    first, levels = respaced([*grid, 0.0], 12.9101)
    assert first == 80.0 and len(levels) == 19
    assert levels[0] == 12.9101 and levels[-2:] == [0.002, 0.0]
    assert (np.diff(levels) < 0).all()
    # the grid restarted there has the same spacing; monotone cubics between the nodes are
    # within a percent of it
    restarted = EDMSchedule(sigma_min=0.002, sigma_max=12.9101).grid(18)
    np.testing.assert_allclose(levels[:-1], restarted, rtol=0.02)
    geometric = np.geomspace(80.0, 0.01, 30)
    np.testing.assert_allclose(respaced(geometric, 3.0)[1], np.geomspace(3.0, 0.01, 30), rtol=1e-9)


def test_levels_that_are_given_twice_are_jumped_over_like_others():
    # a jump is exact for a Gaussian, and so is its flow by any levels below
    levels = [80.0, 80.0, 20.0, 5.0, 5.0, 1.0, 0.1, 0.1]
    x = GAUSSIAN.sample(10, 80.0, random_state=0)
    for level in (50.0, 5.0, 3.0, 0.1):
        _, after = respaced(levels, level)
        assert after[0] == level and after[-1] == 0.1 and (np.diff(after) <= 0).all()
        there = run_sampler(FlowSampler(teleport=level), GAUSSIAN, x, levels, far_field=GAUSSIAN)
        np.testing.assert_allclose(there, GAUSSIAN.flow(x, 80.0, 0.1), atol=1e-12)


def test_nodes_that_a_gaussian_jumps_over_are_not_missed_on_digits():
    # five of eighteen nodes, and errors against a solution on many more
    train = train_test_split(load_digits().data / 8 - 1, train_size=1197, random_state=0)[0]
    model = GMMScore(10, random_state=0).fit(train).model_
    far, grid = model.gaussian(), EDMSchedule().grid(18)
    x = 80 * np.random.default_rng(0).standard_normal((60, 64))

    def heun(start, levels):
        return run_sampler(HeunSampler(), model, start, [*levels.tolist(), 0.0])

    fine = heun(x, EDMSchedule().grid(100))
    whole, tail = heun(x, grid), heun(far.flow(x, 80.0, float(grid[5])), grid[5:])
    errors = [np.sqrt(((end - fine) ** 2).mean()) for end in (whole, tail)]
    assert errors[1] < 1.1 * errors[0]


def test_heun_on_a_mixture_is_better_with_a_jump_at_equal_cost(paths):
    x, exact = paths
    levels = [*EDMSchedule(sigma_min=0.01, sigma_max=80.0).grid(10).tolist(), 0.0]
    plain = run_sampler(HeunSampler(), MIXTURE, x, levels) - exact
    jumped = run_sampler(HeunSampler(teleport="auto"), MIXTURE, x, levels, far_field=FAR) - exact
    assert np.median(np.abs(jumped)) < 0.7 * np.median(np.abs(plain))


def test_estimators_bring_their_own_far_field(capsys):
    X = MIXTURE.sample(400, random_state=0)
    est = GMMScore(2, sampler=HeunSampler(teleport="auto"), random_state=0, verbose=True).fit(X)
    drawn = est.sample(2000, random_state=0)
    assert "teleported from noise level" in capsys.readouterr().out
    standard_error = X.std(0) * (1 / 2000) ** 0.5
    assert (np.abs(drawn.mean(0) - est.far_field_.mean) < 5 * standard_error + 0.02).all()
    fitted = GaussianScore().fit(X)
    jump = Teleport(5.0, law=fitted).plan(MIXTURE, LEVELS)
    assert jump.law is fitted.model_


@pytest.mark.parametrize(
    "teleport, message",
    [
        (True, "must be False, 'auto', a noise level or a Teleport instance; got True"),
        ("always", "must be False, 'auto'"),
        (100.0, "between the lowest and the first level, 0.01 and 80; got 100"),
        (-1.0, "teleport must be a finite number above 0"),
        (Teleport(tol=0), "tol must be a finite number above 0"),
        (Teleport(start="jump"), "Unknown start 'jump'"),
        (Teleport(5.0, start="draw", law=MIXTURE), "start='draw' needs a Gaussian law"),
        (Teleport(5.0, law=GaussianModel([0.0], 1.0)), "the model's 2 columns; got 1"),
    ],
)
def test_an_impossible_jump_is_refused(teleport, message):
    with pytest.raises(ValueError, match=message):
        run_sampler(
            EulerSampler(teleport=teleport), MIXTURE, np.ones((2, 2)), LEVELS, far_field=FAR
        )


def test_a_jump_under_noise_that_differs_by_column():
    """The Gaussian with the moments of the data is carried under the noise of the model."""
    scale = np.array([0.05, 40.0])
    law = AffineModel(GAUSSIAN, scale=scale)
    moments = GaussianModel(scale * GAUSSIAN.mean, np.diag(scale) @ COVARIANCE @ np.diag(scale))
    x = 80 * law.noise_scale * np.random.default_rng(0).standard_normal((20, 2))
    exact = run_sampler(FlowSampler(), law, x, [80.0, 3.0, 0.1])
    jump = FlowSampler(teleport=3.0)
    there = run_sampler(jump, law, x, [80.0, 3.0, 0.1], far_field=moments)
    np.testing.assert_allclose(there, exact, rtol=1e-12)
    assert teleport_report(law, moments, (80.0, 0.1)).quantile.max() < 1e-12
    drawn = run_sampler(
        FlowSampler(teleport=Teleport(3.0, start="draw")), law, np.zeros((4000, 2)), [80.0, 3.0],
        far_field=moments, random_state=0,
    )  # fmt: skip
    z = (drawn - scale * GAUSSIAN.mean) / np.sqrt(
        moments.covariance.diagonal + (3.0 * law.noise_scale) ** 2
    )
    # four standard errors of a mean and of a variance
    assert np.abs(z.mean(0)).max() < 4 / 4000**0.5
    assert np.abs(z.var(0) - 1).max() < 4 * (2 / 4000) ** 0.5
    with pytest.raises(ValueError, match="must share one noise_scale"):
        Teleport(3.0, law=MIXTURE).plan(law, [80.0, 0.1], moments)


@pytest.mark.parametrize("levels", [(1.0, 0.0), (1.0, -1.0), (1.0, 1.0), (np.nan, 1.0), 5, "all"])
def test_a_report_needs_two_levels(levels):
    with pytest.raises(ValueError, match="levels must be two different noise levels above zero"):
        teleport_report(MIXTURE, FAR, levels)
    with pytest.raises(ValueError, match="n_probes must be an integer of at least 2; got 1"):
        teleport_report(MIXTURE, FAR, (80.0, 1.0), n_probes=1)


def test_a_jump_needs_a_gaussian_and_one_sequence_of_levels():
    x = np.ones((2, 2))
    with pytest.raises(ValueError, match="teleportation needs the Gaussian with the moments"):
        run_sampler(EulerSampler(teleport=5.0), MIXTURE, x, LEVELS)
    with pytest.raises(ValueError, match="the same noise levels for all rows"):
        run_sampler(EulerSampler(teleport=5.0), MIXTURE, x, np.full((3, 2), 5.0), far_field=FAR)
    with pytest.raises(ValueError, match="not a fitted estimator needs far_field= and levels="):
        teleport_report(MIXTURE)
