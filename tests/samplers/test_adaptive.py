"""Adaptive steps: order of the pair, error proportional to the tolerance, rows on their own."""

import numpy as np
import pandas as pd
import pytest

from skdiffusion.models import AffineModel, BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import AdaptiveSampler, RK4Sampler, run_sampler

GAUSSIAN = GaussianModel([1.0, -1.0], [[2.0, 0.8], [0.8, 0.5]])
# where two narrow modes part, the flow turns sharply, at a level that depends on the row
NARROW = MixtureModel([0.5, 0.5], [[-1.5, 0.0], [1.0, 0.5]], [0.002, 0.001])
HIGH, LOW = 20.0, 0.002


class Counting(BaseScoreModel):
    """A model that counts the rows it is asked about."""

    def __init__(self, model):
        self.inner, self.n_features, self.n_asked = model, model.n_features, 0

    def _denoise(self, x, sigma):
        self.n_asked += len(x)
        return self.inner._denoise(x, sigma)


def solve(model, x, levels=(HIGH, LOW), sampler=None, **parameters):
    """Points at the end, and evaluations of the model per row."""
    counting = Counting(model)
    x = run_sampler(sampler or AdaptiveSampler(**parameters), counting, x, levels)
    return x, counting.n_asked / len(x)


@pytest.fixture(scope="module")
def paths():
    x = NARROW.sample(100, HIGH, random_state=0)
    # a fourth-order rule, in twice the steps that reach 1e-9
    return x, run_sampler(RK4Sampler(), NARROW, x, np.geomspace(HIGH, LOW, 1001))


def test_errors_are_proportional_to_the_tolerance_at_a_fraction_of_the_cost(paths):
    x, exact = paths
    tolerances, errors, costs = np.array([1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]), [], []
    for rtol in tolerances:
        ours, cost = solve(NARROW, x, rtol=rtol)
        errors.append(np.sqrt(np.mean((ours - exact) ** 2)))
        costs.append(cost)
    slope = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.2)
    # the data's scale is 1.3: errors of some ten steps add up to less than ten tolerances
    assert (np.array(errors) < 10 * tolerances).all()
    # evaluations grow like rtol^(-1/5), from the stops' own on
    assert np.polyfit(np.log(tolerances), np.log(costs), 1)[0] == pytest.approx(-0.17, abs=0.05)
    fixed, fixed_cost = solve(NARROW, x, np.geomspace(HIGH, LOW, 65), RK4Sampler())
    fixed_error = np.sqrt(np.mean((fixed - exact) ** 2))
    assert errors[2] < fixed_error and costs[2] < fixed_cost / 2


def test_a_row_alone_takes_the_steps_it_takes_in_a_batch(paths):
    x, _ = paths
    together, cost = solve(NARROW, x[:12], (HIGH, 1.0, LOW, 0.0))
    alone = [solve(NARROW, x[i : i + 1], (HIGH, 1.0, LOW, 0.0)) for i in range(12)]
    np.testing.assert_allclose(np.concatenate([a for a, _ in alone]), together, rtol=1e-12)
    costs = [c for _, c in alone]
    # rows that have arrived cost nothing, and rows differ in what they need
    assert np.mean(costs) == pytest.approx(cost, rel=1e-12)
    assert max(costs) > min(costs)


def test_it_goes_up_as_well_as_down(paths):
    x, _ = paths
    down, _ = solve(NARROW, x, rtol=1e-9)
    back, _ = solve(NARROW, down, (LOW, HIGH), rtol=1e-9)
    # the narrow modes' widths expand by HIGH / 0.03 on the way up, and errors with them
    np.testing.assert_allclose(back, x, atol=1e-9 * HIGH / 0.03 * 10)
    up, _ = solve(GAUSSIAN, GAUSSIAN.sample(30, 0.05, random_state=0), (0.05, HIGH), rtol=1e-8)
    exact = GAUSSIAN.flow(GAUSSIAN.sample(30, 0.05, random_state=0), 0.05, HIGH)
    np.testing.assert_allclose(up, exact, atol=1e-7 * HIGH)


def test_stops_cost_little_and_change_nothing(paths):
    x, exact = paths
    stops = [*np.geomspace(HIGH, LOW, 9), LOW, LOW]  # levels may repeat
    ours, cost = solve(NARROW, x, stops, rtol=1e-6)
    np.testing.assert_allclose(ours, exact, atol=1e-5)
    _, free = solve(NARROW, x, rtol=1e-6)
    assert cost < 1.5 * free
    rows = np.repeat(np.array(stops)[:, None], len(x), axis=1)
    np.testing.assert_allclose(solve(NARROW, x, rows, rtol=1e-6)[0], ours, rtol=1e-12)


def test_it_does_not_matter_where_the_origin_is_nor_which_units_are_used(paths):
    x, _ = paths
    at_home, cost = solve(NARROW, x)
    shifted, its_cost = solve(AffineModel(NARROW, shift=1000.0), x + 1000.0)
    np.testing.assert_allclose(shifted - 1000.0, at_home, atol=1e-9)  # rounding at 1000
    assert its_cost == pytest.approx(cost, rel=1e-12)
    scaled, its_cost = solve(AffineModel(NARROW, scale=64.0), 64 * x, (64 * HIGH, 64 * LOW))
    np.testing.assert_allclose(scaled / 64, at_home, rtol=1e-10)
    assert its_cost == pytest.approx(cost, rel=1e-12)


def test_absolute_tolerances_are_in_the_units_of_the_data(paths):
    x, exact = paths
    for atol in (1e-2, 1e-4):
        ours, _ = solve(NARROW, x, rtol=1e-13, atol=atol)
        error = np.sqrt(np.mean((ours - exact) ** 2))
        assert atol / 1000 < error < atol


def test_too_many_steps_and_values_that_are_not_finite_end_in_words():
    x = NARROW.sample(3, HIGH, random_state=0)
    with pytest.raises(
        RuntimeError, match=r"took 3 steps from noise level 20 to 0.002, and 3 of 3"
    ):
        solve(NARROW, x, max_steps=3)

    class Breaks(Counting):
        def _denoise(self, x, sigma):
            return super()._denoise(x, sigma) * np.where(sigma < 1, np.nan, 1.0)

    with pytest.raises(FloatingPointError, match="step 2 of 3 of AdaptiveSampler, from noise lev"):
        run_sampler(AdaptiveSampler(), Breaks(NARROW), x, [HIGH, 2.0, 0.1, 0.0])
    with pytest.raises(ValueError, match="rtol must be a finite number of at least 1e-13; got 0"):
        solve(NARROW, x, rtol=0)
    with pytest.raises(ValueError, match="max_steps must be an integer of at least 1"):
        solve(NARROW, x, max_steps=0)


class ByLabel(BaseScoreModel):
    """A normal law about the label of each row."""

    n_features, is_conditional = 2, True

    def _denoise(self, x, sigma, y):
        return (x + sigma**2 * np.asarray(y)[:, None]) / (1 + sigma**2)


def test_labels_belong_to_rows_by_their_place():
    """Not by the index of a Series; rows are asked for again in smaller and smaller numbers."""
    rng = np.random.default_rng(0)
    x, y = HIGH * rng.standard_normal((30, 2)) ** 3, rng.permutation(30)
    expected = run_sampler(AdaptiveSampler(), ByLabel(), x, [HIGH, LOW], y=y)
    for labels in (y.tolist(), pd.Series(y, index=rng.permutation(30))):
        found = run_sampler(AdaptiveSampler(), ByLabel(), x, [HIGH, LOW], y=labels)
        np.testing.assert_array_equal(found, expected)
