"""The clock of a spectrum, and levels where a law takes shape."""

import functools

import numpy as np
import pytest
from scipy.special import betainc

from skdiffusion.models import GaussianModel, MixtureModel
from skdiffusion.models.covariance import SpectralCovariance
from skdiffusion.samplers import (
    AdamsSampler,
    SpectralClock,
    multistep,
    run_sampler,
    spectral_levels,
)
from skdiffusion.samplers.spectrum import EQUAL_SHARE, STRETCH, TAIL

VARIANCES = np.array([9.0, 1.0, 1.0, 0.01, 0.0])
COVARIANCE = SpectralCovariance(VARIANCES)


def test_the_rate_of_the_clock_is_the_effective_number_of_degrees_of_freedom():
    clock, level, h = SpectralClock(COVARIANCE, stretch=1.0), np.array([0.05, 0.7, 20.0]), 1e-5
    rate = (clock(level * (1 + h)) - clock(level * (1 - h))) / (2 * h * level)
    freedom = (VARIANCES / (VARIANCES + level[:, None] ** 2)).sum(1)
    whole = np.sqrt(VARIANCES).sum()
    np.testing.assert_allclose(rate * whole, freedom, rtol=1e-8)  # h^2, and rounding over h


def test_the_clock_ends_at_infinite_noise():
    end = SpectralClock(COVARIANCE, stretch=2.0)(np.array([np.inf]))
    np.testing.assert_allclose(end, np.pi / 2, rtol=1e-14)


@pytest.mark.parametrize("unit", [1e-140, 1e-20, 1e20, 1e140])
def test_the_clock_and_a_run_by_it_are_the_same_in_any_units(unit):
    there = SpectralCovariance(VARIANCES * unit**2)
    level = np.geomspace(0.01, 50, 9)
    np.testing.assert_allclose(
        SpectralClock(there)(level * unit), SpectralClock(COVARIANCE)(level), rtol=1e-12
    )
    start = 20 * np.random.default_rng(0).standard_normal((20, 2))
    levels = np.append(np.geomspace(20, 0.01, 12), 0.0)

    def run(unit):
        law = MixtureModel([0.5, 0.5], np.array([[-1.0, 0], [1, 0]]) * unit, [0.1 * unit**2] * 2)
        x = run_sampler(AdamsSampler(), law, start * unit, levels * unit, far_field=law.gaussian())
        return x / unit

    np.testing.assert_allclose(run(unit), run(1.0), rtol=1e-8, atol=1e-8)


def test_low_rank_and_full_covariances_have_the_same_clock_and_levels():
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 2)))[0]
    low_rank = SpectralCovariance(np.array([4.0, 1.0]), axes, residual=0.04)
    full = SpectralCovariance.from_matrix(low_rank.to_matrix())
    level = np.geomspace(0.01, 50, 9)
    np.testing.assert_allclose(SpectralClock(low_rank)(level), SpectralClock(full)(level))
    np.testing.assert_allclose(
        spectral_levels(low_rank, 9, 0.001, 50.0), spectral_levels(full, 9, 0.001, 50.0)
    )


def test_levels_divide_the_number_of_levels_into_equal_parts():
    levels = spectral_levels(COVARIANCE, 20, 0.0002, 60.0)
    radii = np.sqrt(VARIANCES[:-1])
    share = (1 - EQUAL_SHARE) * radii / radii.sum() + EQUAL_SHARE / len(radii)
    number = betainc(TAIL, TAIL, levels[:, None] / (levels[:, None] + radii)) @ share
    # the last step, to zero, is one like the others; a table of a thousand levels
    np.testing.assert_allclose(number / number[0], np.arange(20, 0, -1) / 20, atol=1e-3)


def test_levels_of_one_axis_are_those_of_a_beta_law():
    levels = spectral_levels(SpectralCovariance(np.array([4.0])), 2, 0.001, 1e6)
    assert levels[1] == pytest.approx(2.0, rel=1e-3)  # symmetric: half of them lie below r


def test_levels_have_the_units_of_the_data():
    levels = spectral_levels(COVARIANCE, 12, 0.01, 60.0)
    other = spectral_levels(SpectralCovariance(100 * VARIANCES), 12, 0.1, 600.0)
    np.testing.assert_allclose(other, 10 * levels, rtol=1e-12)


@pytest.mark.parametrize("n_steps", [1, 2, 10, 3000])
def test_levels_fall_from_the_first_and_stay_above_the_least(n_steps):
    levels = spectral_levels(COVARIANCE, n_steps, 0.01, 60.0)
    assert levels.shape == (n_steps,) and levels[0] == 60.0
    assert (np.diff(levels) < 0).all() and levels[-1] >= 0.01 * (1 - 1e-12)
    if n_steps == 3000:
        assert levels[-1] == pytest.approx(0.01)


def test_levels_that_do_not_fall_are_refused():
    with pytest.raises(ValueError, match="sigma_max must be a finite number above 5; got 1"):
        spectral_levels(COVARIANCE, 3, 5.0, 1.0)
    with pytest.raises(ValueError, match="sigma_min must be a finite number above 0; got 0"):
        spectral_levels(COVARIANCE, 3, 0.0, 1.0)
    with pytest.raises(ValueError, match="takes shape at no noise level"):
        spectral_levels(SpectralCovariance(np.zeros(2)), 3, 0.1, 1.0)


def test_a_clock_had_better_be_too_wide_than_too_narrow(monkeypatch):
    """What the stretch of the clock rests on, for normal laws of broad spectrum."""
    model = GaussianModel(np.zeros(20), np.geomspace(1.0, 1e-3, 20))
    x = model.sample(50, 70.0, random_state=0)
    exact = model.flow(x, 70.0, 0.0)
    for n_steps in (8, 12, 18):
        levels, error = [*spectral_levels(model.covariance, n_steps, 1e-4, 70.0), 0.0], {}
        for stretch in (0.5, 1.25, STRETCH, 4.0):
            clock = functools.partial(SpectralClock, stretch=stretch)
            monkeypatch.setattr(multistep, "SpectralClock", clock)
            found = run_sampler(AdamsSampler(), model, x, levels, far_field=model)
            error[stretch] = np.sqrt(np.mean((found - exact) ** 2))
        assert error[0.5] > 1.4 * error[STRETCH]
        assert max(error[1.25], error[4.0]) < 1.5 * error[STRETCH]


def test_narrow_axes_keep_their_width():
    """What a third of the levels shared equally is for: scales that differ by a thousand."""
    model = GaussianModel(np.zeros(3), [1e6, 1.0, 1.0])
    high, low = 20e3, 0.002
    levels = [*spectral_levels(model.covariance, 32, low, high), 0.0]
    x = model.sample(50, high, random_state=0)
    there = run_sampler(AdamsSampler(), model, x, levels, far_field=model)
    exact = model.flow(x, high, 0.0)
    # every axis on its own scale: by size alone the narrow ones would get 2 levels in 1000
    np.testing.assert_allclose(there, exact, rtol=0.02)


def test_whole_levels_have_the_same_time():
    clock, levels = SpectralClock(COVARIANCE), np.array([0, 1, 3])
    np.testing.assert_array_equal(clock(levels), clock(levels.astype(float)))
