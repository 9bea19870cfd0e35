"""The far-field report against laws whose gap to the Gaussian is known."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skdiffusion.inspection import far_field_report
from skdiffusion.models import EmpiricalModel, GaussianModel

SKEWED = np.array([[-1.0], [-1.0], [2.0]])  # mean 0, variance 2, third cumulant 2


def test_third_cumulant_law_of_a_skewed_law():
    report = far_field_report(SKEWED)
    assert report.third_cumulant == pytest.approx(2.0, rel=1e-12)
    np.testing.assert_allclose(report.variances, [2.0])
    # exact root-mean-square gaps, by quadrature, over the law's prediction
    for sigma, ratio in ((8, 0.96483), (16, 0.99051), (32, 0.99758)):
        exact = np.sqrt(_gap(SKEWED, sigma))
        assert exact / np.sqrt(report.excess_error(sigma)) == pytest.approx(ratio, abs=1e-5)


def _gap(points, sigma):
    """``E|D - D_G|^2`` in one dimension by a fine trapezoid rule."""
    model = EmpiricalModel(points)
    gaussian = GaussianModel(points.mean(0), points.var(0))
    x = np.linspace(-12 * sigma - 3, 12 * sigma + 3, 200_001)[:, None]
    density = np.exp(model.log_prob(x, sigma))
    squared = (model.denoise(x, sigma) - gaussian.denoise(x, sigma))[:, 0] ** 2
    return float(np.trapezoid(density * squared, x[:, 0]))


def test_two_points_symmetric_about_their_mean_have_no_third_cumulant():
    report = far_field_report([[-1.0], [1.0]])
    assert report.third_cumulant == 0
    assert report.sufficient_level == 0


def test_information_level():
    report = far_field_report(load_digits().data[:1197] / 16)
    at_level = 0.5 * np.log1p(report.variances / report.information_level**2).sum()
    assert at_level == pytest.approx(np.log(1197), rel=1e-9)


def test_sufficient_level_is_where_the_excess_is_the_tolerance():
    report = far_field_report(load_digits().data, tolerance=0.02)
    level = report.sufficient_level
    assert report.excess_error(level) == pytest.approx(0.02 * report.linear_error(level))


def test_units_scale_and_offset_do_not_matter(rng):
    X = rng.gamma(2.0, size=(50, 3))
    report, moved = far_field_report(X), far_field_report(10 * X + 5)
    assert moved.sufficient_level == pytest.approx(10 * report.sufficient_level)
    assert moved.information_level == pytest.approx(10 * report.information_level)


@pytest.mark.parametrize("unit", [1e-70, 1e70])
def test_units_whose_sixth_powers_are_no_numbers(unit):
    report, moved = far_field_report(SKEWED), far_field_report(unit * np.asarray(SKEWED))
    assert moved.sufficient_level == pytest.approx(unit * report.sufficient_level, rel=1e-9)
    assert moved.information_level == pytest.approx(unit * report.information_level, rel=1e-9)
    assert moved.third_cumulant == pytest.approx(unit**3 * report.third_cumulant, rel=1e-9)


def test_a_subsample_estimates_the_same_cumulant(rng):
    X = rng.gamma(2.0, size=(3000, 2))
    whole = far_field_report(X).third_cumulant
    parts = [
        far_field_report(X, max_rows=1000, random_state=seed).third_cumulant for seed in range(10)
    ]
    assert np.mean(parts) == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: far_field_report([[1.0, 2.0]] * 3), "X has no variance"),
        (lambda: far_field_report([[1.0]]), "minimum of 2 is required"),
        (
            lambda: far_field_report(SKEWED, tolerance=0),
            "tolerance must be a finite number above 0",
        ),
        (lambda: far_field_report([[np.nan], [1.0]]), "NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
