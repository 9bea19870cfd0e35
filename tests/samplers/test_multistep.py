"""Multistep solvers: exact weights, known orders, flows that end where the exact one does."""

import numpy as np
import pytest

from skdiffusion.models import BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import (
    AdamsSampler,
    DPMSolver3Sampler,
    DPMSolverSampler,
    EulerSampler,
    RK4Sampler,
    SDEDPMSolverSampler,
    SpectralClock,
    UniPCSampler,
    check_sampler,
    run_sampler,
    spectral_levels,
)
from skdiffusion.samplers.base import BoundModel
from skdiffusion.samplers.multistep import History, interpolation_weights
from skdiffusion.schedules import check_schedule
from skdiffusion.utils.arrays import linear_combination

GAUSSIAN = GaussianModel([1.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])
FAR_FIELD = MIXTURE.gaussian()


def test_weights_integrate_polynomials_in_the_clock():
    known, level, next_level = [5.0, 3.0, 2.0], 2.0, 0.7
    weights = np.array(interpolation_weights(np.log, known, level, next_level))
    # of log(s'/q)^k over q from s'/s to one, by parts
    a = next_level / level
    first = np.log(next_level) * (1 - a) + (1 - a) + a * np.log(a)
    second = (
        np.log(next_level) ** 2 * (1 - a)
        + 2 * np.log(next_level) * (1 - a + a * np.log(a))
        + 2 - a * (np.log(a) ** 2 - 2 * np.log(a) + 2)
    )  # fmt: skip
    np.testing.assert_allclose(weights.sum(), 1 - a, rtol=1e-14)
    np.testing.assert_allclose(weights @ np.log(known), first, rtol=1e-12)
    np.testing.assert_allclose(weights @ np.log(known) ** 2, second, rtol=1e-11)


def test_weights_per_row_are_those_of_each_row():
    levels = np.array([[5.0, 3.0, 1.0], [0.4, 0.3, 0.02]])
    columns = [levels[:, [k]] for k in range(3)]
    both = interpolation_weights(np.arctan, columns[:2], columns[1], columns[2])
    for row, (before, level, next_level) in enumerate(levels.tolist()):
        alone = interpolation_weights(np.arctan, [before, level], level, next_level)
        np.testing.assert_allclose([w[row, 0] for w in both], alone, rtol=1e-13)


@pytest.mark.parametrize(
    "sampler, order",
    [
        (DPMSolverSampler(), 2),
        (DPMSolver3Sampler(), 3),
        (AdamsSampler(order=1), 1),
        (AdamsSampler(order=2), 2),
        (AdamsSampler(order=3), 3),
        (AdamsSampler(), 4),
        # the corrector is one order above the predictor
        (UniPCSampler(order=1), 2),
        (UniPCSampler(order=2), 3),
        (UniPCSampler(), 4),
    ],
    ids=str,
)
def test_order_of_convergence(sampler, order):
    # from far above, so that the first step, of first order where there is no far field, is exact
    high, low = 2000.0, 0.05
    x = GAUSSIAN.sample(20, high, random_state=0)
    exact = GAUSSIAN.flow(x, high, low)
    errors = [
        np.abs(
            run_sampler(sampler, GAUSSIAN, x, np.geomspace(high, low, n + 1), far_field=GAUSSIAN)
            - exact
        ).max()
        for n in (320, 640)
    ]
    # the leading term is not yet alone: where its constant is small (3M), the next one helps
    assert order - 0.25 < np.log2(errors[0] / errors[1]) < order + 0.6


@pytest.mark.parametrize("name", ["adams", "unipc", "dpmpp_2m", "dpmpp_3m"])
def test_the_flow_of_a_mixture_is_reproduced(name):
    x = FAR_FIELD.sample(100, 40.0, random_state=0)
    exact = run_sampler(RK4Sampler(), MIXTURE, x, [*np.geomspace(40.0, 1e-4, 400), 0.0])
    levels = [*spectral_levels(FAR_FIELD.covariance, 200, 1e-3, 40.0), 0.0]
    found = run_sampler(check_sampler(name), MIXTURE, x, levels, far_field=FAR_FIELD)
    # of a second-order method with two hundred steps; the others are further below
    assert np.abs(found - exact).max() < 2e-3


def test_adams_in_a_dozen_evaluations_is_nearer_than_dpm_solver_in_thirty():
    x = FAR_FIELD.sample(200, 40.0, random_state=0)
    exact = run_sampler(RK4Sampler(), MIXTURE, x, [*np.geomspace(40.0, 1e-4, 300), 0.0])

    def error(sampler, levels):
        found = run_sampler(sampler, MIXTURE, x, [*levels, 0.0], far_field=FAR_FIELD)
        return np.sqrt(np.mean((found - exact) ** 2))

    ours = error(AdamsSampler(), spectral_levels(FAR_FIELD.covariance, 12, 1e-3, 40.0))
    assert ours < error(DPMSolverSampler(), np.geomspace(40.0, 1e-3, 30))


@pytest.mark.parametrize(
    "sampler, mean, slope",
    [
        (EulerSampler(), 3.0, -1),  # errs by r^2 / s
        (AdamsSampler(), 3.0, -3),  # by r^4 / s^3
        (AdamsSampler(), 23.0, -2),  # a far field with another mean: by r^2 offset / s^2
    ],
    ids=str,
)
def test_the_first_step_knows_the_mean_at_infinite_noise(sampler, mean, slope):
    model, far_field = GaussianModel([3.0], 1.0), GaussianModel([mean], 1.0)
    levels = np.array([200.0, 400.0, 800.0])
    errors = []
    for level in levels.tolist():
        x = np.array([[3.0]]) + level
        found = run_sampler(sampler, model, x, [level, level / 2], far_field=far_field)
        errors.append(abs((found - model.flow(x, level, level / 2)).item()))
    # the next terms are smaller by offset / level
    assert np.polyfit(np.log(levels), np.log(errors), 1)[0] == pytest.approx(slope, abs=0.05)


@pytest.mark.parametrize("sampler", [AdamsSampler(), UniPCSampler(), DPMSolver3Sampler()])
def test_encoding_and_decoding_are_inverse(sampler):
    x = MIXTURE.sample(30, 0.05, random_state=0)
    up = np.geomspace(0.05, 50.0, 401)
    code = run_sampler(sampler, MIXTURE, x, up, far_field=FAR_FIELD)
    back = run_sampler(sampler, MIXTURE, code, up[::-1], far_field=FAR_FIELD)
    # twice the global error of a third-order rule at this step
    np.testing.assert_allclose(back, x, atol=1e-4)


@pytest.mark.parametrize("name", ["adams", "unipc", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"])
def test_a_step_without_length_changes_nothing(name):
    x = MIXTURE.sample(5, 10.0, random_state=0)
    levels = [10.0, 3.0, 1.0, 0.3, 0.0]
    once, twice = (
        run_sampler(name, MIXTURE, x, levels, far_field=FAR_FIELD, random_state=0)
        for levels in (levels, [*np.repeat(levels[:-1], 2), 0.0])
    )
    np.testing.assert_array_equal(once, twice)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["adams", "unipc", "dpmpp_2m", "dpmpp_3m"])
def test_rows_may_wait_at_their_levels(name, library):
    x = MIXTURE.sample(6, 10.0, random_state=0)
    grid = np.geomspace(10.0, 0.02, 60)
    levels = np.tile(grid[:, None], (1, 6))
    x[3:] = run_sampler("rk4", MIXTURE, x[3:], np.geomspace(10.0, grid[20], 200))
    levels[:20, 3:] = grid[20]  # these begin further down
    levels[40:43, :2] = grid[40]  # and these stay behind for a while
    given = x, levels
    if library == "torch":
        given = map(pytest.importorskip("torch").from_numpy, given)
    found = run_sampler(name, MIXTURE, *given, far_field=FAR_FIELD)
    start = np.where(np.arange(6) < 3, 10.0, grid[20])
    exact = run_sampler("rk4", MIXTURE, x, np.geomspace(start, 0.02, 400))
    # errors of the orders' own steps, a tenth in the logarithm, and of one Euler step after a wait
    np.testing.assert_allclose(np.asarray(found), exact, atol=0.01)


def test_one_model_evaluation_per_step():
    class Counting(BaseScoreModel):
        n_features, calls = 2, 0

        def _denoise(self, x, sigma):
            self.calls += 1
            return MIXTURE._denoise(x, sigma)

    for name in ("adams", "unipc", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"):
        model = Counting()
        run_sampler(check_sampler(name), model, np.ones((2, 2)), [4.0, 2.0, 1.0, 0.5, 0.0])
        assert model.calls == 4


def test_the_stochastic_step_is_exact_for_a_constant_denoiser():
    point, n = GaussianModel([2.0], 0.0), 20_000
    x = point.sample(n, 20.0, random_state=0)
    x = run_sampler(SDEDPMSolverSampler(), point, x, [20.0, 3.0, 0.5], random_state=0)
    # standard errors of a mean and of a standard deviation, times four
    assert x.mean() == pytest.approx(2.0, abs=4 * 0.5 / n**0.5)
    assert x.std() == pytest.approx(0.5, abs=4 * 0.5 / (2 * n) ** 0.5)


def test_stochastic_samples_have_the_moments_of_the_law():
    n = 20_000
    x = GAUSSIAN.sample(n, 40.0, random_state=0)
    levels = [*spectral_levels(GAUSSIAN.covariance, 100, 1e-3, 40.0), 0.0]
    x = run_sampler(SDEDPMSolverSampler(), GAUSSIAN, x, levels, random_state=1)
    # four standard errors, and the second-order error of a hundred steps
    np.testing.assert_allclose(x.mean(0), GAUSSIAN.mean, atol=4 * (2.0 / n) ** 0.5)
    np.testing.assert_allclose(
        np.cov(x.T), [[2.0, 0.8], [0.8, 0.5]], atol=4 * 2.0 * (2 / n) ** 0.5 + 5e-3
    )


@pytest.mark.parametrize("cls, highest", [(AdamsSampler, 4), (UniPCSampler, 3)])
def test_orders_there_are_none_of(cls, highest):
    check_sampler(cls(order=highest))
    for order in (0, highest + 1, 1.5):
        with pytest.raises(ValueError, match="order must be"):
            check_sampler(cls(order=order))


@pytest.mark.parametrize("name", ["adams", "unipc", "dpmpp_2m", "dpmpp_3m"])
@pytest.mark.parametrize("schedule", ["vp", "sub_vp", "cosine", "flow_matching"])
def test_a_long_last_step_is_not_extrapolated(name, schedule):
    """Grids uniform in time end with a step of many times the ratio of the one before."""
    law = GaussianModel([0.0, 0.0], [1.0, 0.25])
    levels = check_schedule(schedule).grid(20)
    x = law.sample(400, levels[0], random_state=0)
    exact = law.flow(x, levels[0], 0.0)

    def error(sampler):
        there = run_sampler(check_sampler(sampler), law, x, [*levels, 0.0], far_field=law)
        return np.abs(there - exact).mean()

    assert error(name) < error("euler")  # extrapolated, it was up to fifteen times as large
    by_row = np.repeat(np.append(levels, 0.0)[:, None], len(x), axis=1)
    together = run_sampler(check_sampler(name), law, x, [*levels, 0.0], far_field=law)
    apart = run_sampler(check_sampler(name), law, x, by_row, far_field=law)
    np.testing.assert_allclose(apart, together, rtol=1e-9, atol=1e-9)


def test_a_long_first_step_leans_on_infinite_noise():
    """The mean is what is denoised there: a line from it to the first point says much."""
    law = GaussianModel([1.0, 0.0], [1.0, 1.0])
    x = law.sample(50, 20.0, random_state=0)

    def error(order):
        there = run_sampler(AdamsSampler(order=order), law, x, [20.0, 0.5], far_field=law)
        return np.abs(there - law.flow(x, 20.0, 0.5)).max()

    # of the cosine of 0.46 radians, which it is at 0.5, a line through the cosine of a right angle
    assert error(2) < 0.25 * error(1)


def test_the_denoised_point_follows_the_correction_of_an_isotropic_law():
    """All axes have the same Jacobian, and what is predicted of the noise tells it exactly."""
    law = GaussianModel([1.0, -2.0, 0.5], 0.8)
    sampler, model = AdamsSampler(), BoundModel(law, np.float64, far_field=law)
    x = law.sample(10, 3.0, random_state=0)
    ahead, past = sampler.step(model, x, 3.0, 2.99, None, None)
    errors, offsets = [], np.array([0.01, 0.02, 0.04])
    for offset in offsets:  # of where the model is asked: far more than a short step errs by
        asked = ahead + offset
        _, new = sampler.step(model, asked, 2.99, 2.98, past, None)
        errors.append(np.abs(new.denoised[-1] - law.denoise(new.x, 2.99)).max())
    # the offset is in the predicted noise too: what is left is its square
    assert np.polyfit(np.log(offsets), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


def test_the_end_is_even_in_the_level():
    """Along the flow near zero all is a function of the squared level."""
    sampler, errors, ends = AdamsSampler(), [], np.array([0.005, 0.01, 0.02])
    clock = SpectralClock(GAUSSIAN.covariance)
    exact = GAUSSIAN.sample(20, 0.0, random_state=0)
    for end in ends:
        past = History(clock, [], [], [], code=1.0)
        for level in (4 * end, 2 * end, end):
            x = GAUSSIAN.flow(exact, 0.0, level)
            past = past.seen(level, clock(np.array([level])), GAUSSIAN.denoise(x, level))
        there = linear_combination(sampler._to_zero(past), [x, *past.denoised])
        errors.append(np.abs(there - exact).max())
    # three points in the square: order six, and the last of them alone has two
    assert np.polyfit(np.log(ends), np.log(errors), 1)[0] == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_row_at_the_mean_stays_there(library):
    # it has no latent code by whose length a correction could be measured
    law = MixtureModel([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1])
    x = np.zeros((2, 2))
    x = pytest.importorskip("torch").from_numpy(x) if library == "torch" else x
    levels = [10.0, 3.0, 1.0, 0.5, 0.0]
    ends = run_sampler(AdamsSampler(), law, x, levels, far_field=law.gaussian())
    np.testing.assert_array_equal(np.asarray(ends), np.zeros((2, 2)))
