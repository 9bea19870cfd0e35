"""The kernel gauge test keeps its level and sees what moves the law."""

import numpy as np
import pytest

from skdiffusion.geometry import kernel_gauge_test, weak_gauge_residual
from skdiffusion.models import AdditiveGauge, MixtureModel

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
MIXTURE = MixtureModel([1, 2], [[1.5, 0.0], [-1.0, 0.5]], [0.3, 0.8])


def p_value(seed, shift):
    X = MIXTURE.sample(300, random_state=seed)
    R = AdditiveGauge(MIXTURE, TURN).gauge(X, 0.0)
    return kernel_gauge_test(X, R + shift(X), n_bootstrap=200, random_state=seed).p_value


def test_level_of_the_test():
    rejected = sum(p_value(seed, lambda X: 0 * X) <= 0.05 for seed in range(200))
    # of 200 at five percent 10 are expected; 16 is the bound, two standard deviations above
    assert rejected <= 16


def test_power_of_the_test():
    rejected = sum(p_value(seed, lambda X: 0.3 * X) <= 0.05 for seed in range(100))
    assert rejected >= 95


def test_it_sees_what_no_linear_field_shows():
    def wave(X):
        wave = np.stack([np.cos(2 * X[:, 0]), 0 * X[:, 0]], axis=1)
        return 0.5 * (wave - wave.mean(axis=0))

    rejected = sum(p_value(seed, wave) <= 0.05 for seed in range(40))
    assert rejected >= 15  # chance would be two


def test_the_statistic_is_the_sum_over_pairs(rng):
    X, R = rng.standard_normal((2, 7, 3))
    found = kernel_gauge_test(X, R, length_scale=1.3, n_bootstrap=10, random_state=0)
    total, square = 0.0, 1.3**2
    for i in range(7):
        for j in range(7):
            gap = X[i] - X[j]
            kernel = np.exp(-gap @ gap / (2 * square)) / square
            matrix = kernel * (np.eye(3) - np.outer(gap, gap) / square)
            total += (i != j) * R[i] @ matrix @ R[j]
    assert found.statistic == pytest.approx(total / 42, rel=1e-12)
    assert found.length_scale == 1.3


def test_the_test_repeats_and_knows_no_units(rng):
    X = rng.standard_normal((100, 2))
    R = X @ TURN.T + 0.1 * X
    one = kernel_gauge_test(X, R, random_state=3)
    assert one == kernel_gauge_test(X, R, random_state=3)
    assert one.p_value == kernel_gauge_test(1e3 * X + 7, 1e-5 * R, random_state=3).p_value


def test_weak_residuals_of_a_gauge_are_noise():
    X = MIXTURE.sample(3000, random_state=0)
    R = AdditiveGauge(MIXTURE, TURN).gauge(X, 0.0)
    found = weak_gauge_residual(X, R, random_state=0)
    z = found.residual / found.std_error
    assert len(z) == 64 + 3
    assert np.abs(z).max() < 4.5  # of 67 that are nearly normal
    moved = weak_gauge_residual(X, R + 0.3 * X, random_state=0)
    # along the radius: 0.3 E|x|^2 / sqrt(E|x - mean|^2), from the moments of the law
    mean = MIXTURE.gaussian().mean
    total = MIXTURE.gaussian().covariance.total
    expected = 0.3 * total / np.sqrt(total)
    assert moved.residual[2] == pytest.approx(expected, abs=4 * moved.std_error[2])
    np.testing.assert_allclose(moved.residual[:2], 0.3 * mean, atol=4 * moved.std_error[:2].max())


def test_bad_input_is_refused(rng):
    X = rng.standard_normal((10, 2))
    with pytest.raises(ValueError, match=r"shape \(10, 2\)"):
        kernel_gauge_test(X, X[:, :1])
    with pytest.raises(ValueError, match="NaN"):
        kernel_gauge_test(X, np.full((10, 2), np.nan))
    for length_scale in (-1.0, 0.0):
        with pytest.raises(ValueError, match="length_scale must be a finite number above 0"):
            kernel_gauge_test(X, X, length_scale=length_scale)
