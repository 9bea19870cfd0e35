"""Guidance by moments: exact for a Gaussian at every level, and close for a mixture."""

import numpy as np
import pytest
import sklearn
from scipy import stats

from skdiffusion.models import (
    ConditionedModel,
    GaussianModel,
    KnownColumnsModel,
    as_score_model,
    posterior,
)
from skdiffusion.models.conditioned import truncated_normal

rng = np.random.default_rng(0)
ROOT = rng.standard_normal((4, 4))
C = ROOT @ ROOT.T + 0.1 * np.eye(4)
MEAN = rng.standard_normal(4)
GAUSSIAN = GaussianModel(MEAN, C)
A = rng.standard_normal((2, 4))
X = 3 * rng.standard_normal((7, 4))
Y = rng.standard_normal((7, 2))


def conditional(y, noise):
    gain = C @ A.T @ np.linalg.inv(A @ C @ A.T + noise**2 * np.eye(2))
    covariance = C - gain @ A @ C
    return GaussianModel(MEAN + gain @ (y - A @ MEAN), (covariance + covariance.T) / 2)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 50.0])
def test_given_measurements_a_gaussian_is_the_conditional_gaussian(sigma):
    found = ConditionedModel(GAUSSIAN, A, noise=0.4).denoise(X, sigma, y=Y)
    truth = [conditional(y, 0.4).denoise(x[None], sigma)[0] for x, y in zip(X, Y, strict=True)]
    np.testing.assert_allclose(found, truth, atol=1e-8)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 50.0])
def test_what_is_measured_may_be_in_any_units(sigma):
    """A known column of tiny numbers counts as much as one of large numbers."""
    unit = np.array([1.0, 1e-8, 1e3])
    correlation = np.array([[1.0, 0.9, 0.3], [0.9, 1.0, 0.2], [0.3, 0.2, 1.0]])
    values, known = np.array([[np.nan, 2.0, 0.5]]), [1, 2]
    model = ConditionedModel(GaussianModel(np.zeros(3), correlation * np.outer(unit, unit)))
    found = model.denoise(unit * [[1.0, 1.0, 0.2]], sigma, y=values * unit)[0]
    gain = correlation[0, known] @ np.linalg.inv(correlation[np.ix_(known, known)])
    rest = GaussianModel([gain @ values[0, known]], 1 - gain @ correlation[known, 0])
    np.testing.assert_allclose(found[0], rest.denoise([[1.0]], sigma)[0, 0], rtol=1e-6)
    np.testing.assert_allclose(found[1:] / unit[1:], values[0, 1:], rtol=1e-6)


def test_a_level_per_row_and_torch_give_the_same():
    import torch

    model = ConditionedModel(GAUSSIAN, A)
    levels = np.geomspace(0.1, 10, 7)
    rows = [model.denoise(X[k : k + 1], s, y=Y[k : k + 1])[0] for k, s in enumerate(levels)]
    np.testing.assert_allclose(model.denoise(X, levels, y=Y), rows, atol=1e-10)
    theirs = model.denoise(torch.tensor(X), torch.tensor(levels), y=Y)
    np.testing.assert_allclose(theirs.numpy(), rows, atol=1e-8)


def test_the_working_memory_does_not_change_the_result():
    model, levels = ConditionedModel(GAUSSIAN, A), np.geomspace(0.1, 10, 7)
    whole = model.denoise(X, levels, y=Y)
    with sklearn.config_context(working_memory=0.002):  # two rows at a time
        np.testing.assert_allclose(model.denoise(X, levels, y=Y), whole, atol=1e-12)


def test_missing_values_are_not_measured_row_by_row():
    values = X.copy()
    values[np.random.default_rng(1).random(X.shape) < 0.5] = np.nan
    values[0] = np.nan
    found = ConditionedModel(GAUSSIAN).denoise(X, 1e5, y=values)
    # far out nothing but the values is known
    np.testing.assert_allclose(found, posterior(GAUSSIAN, values).mean, atol=1e-4)
    np.testing.assert_allclose(found[0], GAUSSIAN.denoise(X[:1], 1e5)[0], atol=1e-12)
    known = ~np.isnan(values)
    np.testing.assert_allclose(found[known], values[known], atol=1e-6)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_function_of_unknown_derivatives_is_guided_by_its_differences_or_graph(backend):
    model = as_score_model(GAUSSIAN.score, prediction="score", n_features=4, backend=backend)
    for sigma in (0.3, 1.0):  # derivatives of the denoiser are above the least that is believed
        exact = ConditionedModel(GAUSSIAN, A).denoise(X, sigma, y=Y)
        found = ConditionedModel(model, A).denoise(X, sigma, y=Y)
        np.testing.assert_allclose(found, exact, atol=1e-5)


def test_a_learned_denoiser_with_impossible_derivatives_does_not_throw_rows_away():
    # a slope of -0.1 in one direction: no covariance has it
    wrong = as_score_model(
        lambda x, s: (x @ np.diag([0.5, -0.1]) - x) / s[:, None] ** 2,
        prediction="score",
        n_features=2,
        backend="numpy",
    )
    x, y = np.array([[1.0, 1.0]]), np.array([[np.nan, 3.0]])
    found = ConditionedModel(wrong).denoise(x, 1.0, y=y)
    np.testing.assert_allclose(found, [[0.5, 3.0]], atol=1e-6)


def test_a_range_of_one_column_is_exact_for_a_gaussian():
    low, high = np.full(4, -np.inf), np.full(4, np.inf)
    low[2], high[2] = 0.5, 1.5
    found = ConditionedModel(GAUSSIAN, low=low, high=high).denoise(X, 1.3)
    D = GAUSSIAN.denoise(X, 1.3)
    V = 1.3**2 * GAUSSIAN.jacobian(X, 1.3, of="denoise")[0]
    s = np.sqrt(V[2, 2])
    a, b = (0.5 - D[:, 2]) / s, (1.5 - D[:, 2]) / s
    truth = D + np.outer(stats.truncnorm.mean(a, b, D[:, 2], s) - D[:, 2], V[2] / V[2, 2])
    np.testing.assert_allclose(found, truth, atol=1e-9)


def test_ranges_of_independent_columns_do_not_touch_each_other():
    law = GaussianModel([0.0, 0.0], [1.0, 4.0])
    both = ConditionedModel(law, low=[0.2, -np.inf], high=[np.inf, -1.0]).denoise(X[:, :2], 2.0)
    one = ConditionedModel(law, low=[0.2, -np.inf]).denoise(X[:, :2], 2.0)
    two = ConditionedModel(law, high=[np.inf, -1.0]).denoise(X[:, :2], 2.0)
    np.testing.assert_allclose(both, np.column_stack([one[:, 0], two[:, 1]]), atol=1e-12)


@pytest.mark.parametrize(
    "low, high",
    [(-1, 2), (0, np.inf), (-np.inf, -3), (6, 9), (-9, -6), (30, np.inf), (-np.inf, np.inf)],
)
def test_truncated_normal_is_scipys(low, high):
    mean, share = truncated_normal(np.array([0.3]), np.array([1.2]), low, high)
    a, b = (low - 0.3) / 1.2, (high - 0.3) / 1.2
    assert mean[0] == pytest.approx(stats.truncnorm.mean(a, b, 0.3, 1.2), rel=1e-7)
    # the variance is a difference of squares of the distance to the tail
    assert share[0] == pytest.approx(stats.truncnorm.var(a, b), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("distance", [40.0, 1e4, 1e8])
def test_a_range_far_from_the_mean_keeps_its_digits(distance):
    """By Mills' ratio: the mean is 1/distance - 2/distance^3 + ... beyond the end."""
    mean, share = truncated_normal(np.zeros(1), np.ones(1), distance, np.inf)
    series = 1 / distance - 2 / distance**3 + 10 / distance**5 - 74 / distance**7
    # the next term, 706 over the ninth power, is 7e-14 of this at most
    assert mean[0] == pytest.approx(distance + series, rel=1e-13)
    # and here -518 over the eighth power, 2e-7 of this
    series = 1 / distance**2 - 6 / distance**4 + 50 / distance**6
    assert share[0] == pytest.approx(series, rel=1e-6)
    mirrored = truncated_normal(np.zeros(1), np.ones(1), -np.inf, -distance)
    np.testing.assert_array_equal(mirrored, (-mean, share))


def test_a_narrow_range_is_uniform():
    mean, share = truncated_normal(np.zeros(1), np.ones(1), 0.5, 0.5 + 1e-6)
    # to first order in the width
    assert mean[0] - 0.5 == pytest.approx(0.5e-6, rel=1e-6)
    assert share[0] == pytest.approx(1e-12 / 12, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [0.5, 1.0, 0.0])
def test_a_column_that_is_known_is_not_drawn_into_its_range(value, dtype):
    """Also on the edge of the range: what is left of its variance is rounding."""
    law = GaussianModel([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
    x, values = np.ones((1, 2), dtype), np.array([[value, np.nan]])
    ranged = ConditionedModel(law, low=[0.0, -np.inf], high=[1.0, np.inf])
    for sigma in (0.1, 1e3):
        free = ConditionedModel(law).denoise(x, sigma, y=values)
        found = ranged.denoise(x, sigma, y=values)
        np.testing.assert_allclose(found, free, atol=10 * np.finfo(dtype).eps)


def test_known_columns_are_their_values():
    values = np.where(np.arange(4) < 2, X, np.nan)
    found = KnownColumnsModel(GAUSSIAN).denoise(X, 0.7, y=values)
    np.testing.assert_array_equal(found[:, :2], X[:, :2])
    np.testing.assert_array_equal(found[:, 2:], GAUSSIAN.denoise(X, 0.7)[:, 2:])


def test_errors_are_sentences():
    with pytest.raises(ValueError, match=r"matrix must have shape \(m, 4\)"):
        ConditionedModel(GAUSSIAN, np.ones((2, 3)))
    with pytest.raises(ValueError, match="low must be below high"):
        ConditionedModel(GAUSSIAN, low=np.ones(4), high=np.zeros(4))
    values = np.zeros((7, 4))
    for wrong in (values[0], values[:3], values[:, :3], values + np.inf, [["a"] * 4] * 7):
        for model in (ConditionedModel(GAUSSIAN), KnownColumnsModel(GAUSSIAN)):
            with pytest.raises(ValueError, match=r"finite numbers of shape \(7, 4\), and NaN"):
                model.denoise(X, 1.0, y=wrong)
