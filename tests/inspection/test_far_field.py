"""The far-field report against laws whose gap to the Gaussian is known."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skdiffusion.inspection import far_field_report
from skdiffusion.models import EmpiricalModel, GaussianModel

SKEWED = np.array([[-1.0], [-1.0], [2.0]])  # mean 0, variance 2, third cumulant 2


TWO_POINTS = np.array([[-1.0], [1.0]])  # the cumulants of a fair sign: 1 and -2
EVEN = np.linspace(-1, 1, 40)[:, None]


def test_cumulants_are_those_of_the_tensors(rng):
    X = rng.gamma(2.0, size=(30, 3))
    y = X - X.mean(axis=0)
    C = y.T @ y / len(y)
    fourth = np.einsum("ni,nj,nk,nl->ijkl", y, y, y, y) / len(y)
    for other in ("ij,kl->ijkl", "ik,jl->ijkl", "il,jk->ijkl"):
        fourth -= np.einsum(other, C, C)
    third = np.einsum("ni,nj,nk->ijk", y, y, y) / len(y)
    report = far_field_report(X)
    assert report.third_cumulant == pytest.approx(np.linalg.norm(third), rel=1e-12)
    assert report.fourth_cumulant == pytest.approx(np.linalg.norm(fourth), rel=1e-10)
    wide = np.hstack([X, np.zeros((30, 60))])  # more columns than rows
    assert far_field_report(wide).fourth_cumulant == pytest.approx(report.fourth_cumulant)


@pytest.mark.parametrize(
    "points, second, third",
    # |k3|^2 / 2, and |k4|^2 / 6 - 2 C |k3|^2
    [(SKEWED, 4 / 2, 36 / 6 - 2 * 2 * 4), (TWO_POINTS, 0, 4 / 6)],
    ids=["skewed", "two points"],
)
def test_cumulant_laws(points, second, third):
    report = far_field_report(points)
    for sigma in (8.0, 16.0, 32.0):
        gap = _gap(points, sigma)
        rest = gap * sigma**6 - second * sigma**2
        assert rest == pytest.approx(third, abs=200 / sigma**2)  # the next order
        assert gap <= report.excess_error(sigma) <= gap * (1 + 16 / sigma**2)


@pytest.mark.parametrize("tolerance", [0.01, 1e-4])
@pytest.mark.parametrize("points", [SKEWED, TWO_POINTS, EVEN], ids=["skewed", "two", "even"])
def test_the_sufficient_level_suffices(points, tolerance):
    report = far_field_report(points, tolerance=tolerance)
    level = report.sufficient_level
    assert _gap(points, level) <= tolerance * report.linear_error(level)
    # and is not far above where it would do: the excess falls by the fourth power at least
    assert _gap(points, level / 2) > tolerance * report.linear_error(level / 2)


def _gap(points, sigma):
    """``E|D - D_G|^2`` in one dimension by the trapezoid rule."""
    model = EmpiricalModel(points)
    gaussian = GaussianModel(points.mean(0), points.var(0))
    x = np.linspace(-12 * sigma - 3, 12 * sigma + 3, 4001)[:, None]
    density = np.exp(model.log_prob(x, sigma))
    squared = (model.denoise(x, sigma) - gaussian.denoise(x, sigma))[:, 0] ** 2
    return float(np.trapezoid(density * squared, x[:, 0]))


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
    assert moved.fourth_cumulant == pytest.approx(unit**4 * report.fourth_cumulant, rel=1e-9)


def test_a_subsample_estimates_the_same_squares_of_cumulants(rng):
    X = rng.beta(0.5, 1.0, size=(3000, 2))
    whole = far_field_report(X)
    parts = [far_field_report(X, max_rows=1000, random_state=seed) for seed in range(10)]
    for name in ("third_cumulant", "fourth_cumulant"):
        squares = np.square([getattr(part, name) for part in parts])
        error = squares.std(ddof=1) / np.sqrt(10)
        assert abs(squares.mean() - getattr(whole, name) ** 2) < 4 * error


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: far_field_report([[1.0, 2.0]] * 3), "X has no variance"),
        (lambda: far_field_report([[1.0]]), "minimum of 2 is required"),
        (
            lambda: far_field_report(SKEWED, tolerance=0),
            "tolerance must be a finite number above 0",
        ),
        (lambda: far_field_report(SKEWED, tolerance=1.5), "and of at most 1; got 1.5"),
        (lambda: far_field_report([[np.nan], [1.0]]), "NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
