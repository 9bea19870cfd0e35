"""Posteriors given linear measurements: textbook formulas, other routes to them, draws."""

import tracemalloc

import numpy as np
import pytest
import sklearn
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from skdiffusion.models import (
    AffineModel,
    EmpiricalModel,
    GaussianModel,
    LinearMeasurement,
    MixtureModel,
    SmoothedModel,
    posterior,
)
from skdiffusion.models.measurement import has_posterior

rng = np.random.default_rng(0)
ROOTS = rng.standard_normal((3, 4, 4))
MEANS = 2 * rng.standard_normal((3, 4))
COVARIANCES = ROOTS @ np.swapaxes(ROOTS, 1, 2) + 0.1 * np.eye(4)
GAUSSIAN = GaussianModel(MEANS[0], COVARIANCES[0])
MIXTURE = MixtureModel([0.2, 0.5, 0.3], MEANS, COVARIANCES)
A = rng.standard_normal((2, 4))
Y = rng.standard_normal((6, 2))


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_gaussian_by_the_textbook(noise):
    mean, C = MEANS[0], COVARIANCES[0]
    gain = C @ A.T @ np.linalg.inv(A @ C @ A.T + noise**2 * np.eye(2))
    found = posterior(GAUSSIAN, Y, A, noise=noise, n_draws=40_000, random_state=0)
    np.testing.assert_allclose(found.mean, mean + (Y - A @ mean) @ gain.T, atol=1e-10)
    P = C - gain @ A @ C
    draws = found.draws[:, 0]
    # a covariance of 40,000 draws errs by less than 0.02 of the largest variance
    np.testing.assert_allclose(np.cov(draws.T), P, atol=0.03 * P.max())
    np.testing.assert_allclose(draws.mean(0), found.mean[0], atol=0.03 * np.sqrt(P.max()))
    if noise == 0:
        np.testing.assert_allclose(found.draws @ A.T, np.broadcast_to(Y, (40_000, 6, 2)), atol=1e-9)


def test_known_columns_of_a_mixture_are_its_conditional():
    given = MIXTURE.condition({1: 0.5, 3: -1.0}, noise=0.3)
    values = np.array([[np.nan, 0.5, np.nan, -1.0]])
    found = posterior(MIXTURE, values, noise=0.3)
    np.testing.assert_allclose(found.mean[0, [0, 2]], given.weights @ given.means, atol=1e-10)


def test_patterns_of_rows_do_not_meet():
    values = MIXTURE.sample(20, random_state=1)
    values[np.random.default_rng(2).random(values.shape) < 0.4] = np.nan
    values[0] = np.nan
    together = posterior(MIXTURE, values).mean
    alone = np.concatenate([posterior(MIXTURE, row[None]).mean for row in values])
    np.testing.assert_allclose(together, alone, atol=1e-12)
    np.testing.assert_allclose(together[0], MIXTURE.weights @ MIXTURE.means, atol=1e-12)
    seen = ~np.isnan(values)
    np.testing.assert_allclose(together[seen], values[seen], atol=1e-9)


@pytest.mark.parametrize("kernel", [0.3, COVARIANCES[1]], ids=["isotropic", "full"])
def test_kernels_are_mixtures_of_as_many_components(kernel):
    points = np.random.default_rng(3).standard_normal((30, 4))
    weights = np.random.default_rng(4).random(30)
    empirical = EmpiricalModel(points, weights, kernel=kernel)
    mixture = MixtureModel(weights, points, [kernel] * 30)
    kwargs = {"noise": 0.1, "n_draws": 20_000, "random_state": 0}
    one, two = posterior(empirical, Y, A, **kwargs), posterior(mixture, Y, A, **kwargs)
    np.testing.assert_allclose(one.mean, two.mean, atol=1e-10)
    for moment in (np.mean, np.var):
        np.testing.assert_allclose(moment(one.draws, 0), moment(two.draws, 0), atol=0.05)


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_kernels_far_from_the_origin_and_narrow_ones(offset):
    """Weights come of distances: of squares and products no digit would be left."""
    points = np.random.default_rng(3).standard_normal((30, 4))
    values = np.array([[points[3, 0], np.nan, np.nan, np.nan]])
    for noise in (0.1, 1e-9):
        model = EmpiricalModel(points + offset, kernel=1e-18)
        found = posterior(model, values + offset, noise=noise).mean - offset
        distance = (points[:, 0] - values[0, 0]) / np.hypot(noise, 1e-9)
        weights = np.exp(-0.5 * distance**2)
        expected = weights @ points / weights.sum()
        # rounding of the rows themselves
        np.testing.assert_allclose(found[0, 1:], expected[1:], atol=1e-9 + 1e-14 * offset)


@pytest.mark.parametrize(
    "law",
    [
        MixtureModel([0.4, 0.6], [[0.0, 0.0, 1.0], [2.0, 1.0, 0.0]], [0.5, 1.0]),
        EmpiricalModel(np.random.default_rng(0).standard_normal((30, 3)), kernel=0.1),
    ],
)
def test_the_working_memory_does_not_change_the_result(law):
    values = law.sample(200, random_state=0)
    values[:150, 1] = values[150:, 0] = np.nan
    options = {"noise": 0.1, "n_draws": 2, "random_state": 0}
    whole = posterior(law, values, **options)
    with sklearn.config_context(working_memory=0.002):  # a few rows
        blocks = posterior(law, values, **options)
    np.testing.assert_allclose(blocks.mean, whole.mean, atol=1e-13)
    np.testing.assert_allclose(blocks.draws, whole.draws, atol=1e-13)


def test_memory_does_not_grow_with_rows_times_components():
    k, n = 200, 20_000
    law = MixtureModel(np.ones(k), np.random.default_rng(0).standard_normal((k, 4)), np.ones(k))
    values = np.zeros((n, 4))
    values[:, 0] = np.nan
    tracemalloc.start()
    with sklearn.config_context(working_memory=8):
        posterior(law, values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # rows come and go, and what is in working memory; of all rows three arrays had 96 MB
    assert peak < 2 * 8 * 2**20 + 10 * values.nbytes


def test_a_change_of_coordinates():
    rotation = np.linalg.qr(ROOTS[0])[0]
    for scale, turn in ((3.0, rotation), ([1.0, 2.0, 0.5, -4.0], None)):
        model = AffineModel(MIXTURE, shift=[1, 2, 3, 4.0], scale=scale, rotation=turn)
        linear = np.diag(np.broadcast_to(scale, 4)) @ (np.eye(4) if turn is None else turn)
        direct = MixtureModel(
            MIXTURE.weights, MEANS @ linear.T + [1, 2, 3, 4], linear @ COVARIANCES @ linear.T
        )
        kwargs = {"noise": 0.2, "n_draws": 1, "random_state": 0}
        found, truth = posterior(model, Y, A, **kwargs), posterior(direct, Y, A, **kwargs)
        np.testing.assert_allclose(found.mean, truth.mean, atol=1e-9)
        assert found.draws.shape == (1, 6, 4)


def test_draws_of_a_mixture_by_importance_sampling():
    """Moments under the posterior from draws of the prior, weighted by the likelihood."""
    x = MIXTURE.sample(200_000, random_state=0)
    log_weights = multivariate_normal(Y[0], 0.5**2 * np.eye(2)).logpdf(x @ A.T)
    weights = np.exp(log_weights - logsumexp(log_weights))
    found = posterior(MIXTURE, Y[:1], A, noise=0.5, n_draws=20_000, random_state=1)
    mean = weights @ x
    error = np.sqrt((weights**2) @ (x - mean) ** 2)
    assert (np.abs(found.mean[0] - mean) < 4 * error).all()
    second = weights @ x**2
    drawn = found.draws[:, 0] ** 2
    spread = np.sqrt((weights**2) @ (x**2 - second) ** 2) + drawn.std(0) / np.sqrt(20_000)
    assert (np.abs(drawn.mean(0) - second) < 4 * spread).all()


def test_what_has_no_closed_form_says_so():
    model = SmoothedModel(MIXTURE, 0.5)
    assert not has_posterior(model) and has_posterior(AffineModel(GAUSSIAN, scale=2.0))
    with pytest.raises(NotImplementedError, match="SmoothedModel has no closed form"):
        posterior(model, Y, A)


def test_what_is_measured_twice_is_singular_however_it_is_rounded():
    """The third function is the sum of the others, to a digit that differs from case to case."""
    draws = np.random.default_rng(3)
    for _ in range(20):
        functions = draws.standard_normal((2, 4))
        functions = np.vstack([functions, functions.sum(axis=0)])
        with pytest.raises(ValueError, match=r"singular covariance.*positive noise"):
            posterior(GAUSSIAN, [[1.0, 1.0, 5.0]], functions)  # and contradicts them
    columns = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for _ in range(20):
        root = columns @ draws.standard_normal((3, 3))
        law = MixtureModel([1.0], np.zeros((1, 4)), [root @ root.T])
        with pytest.raises(ValueError, match="singular covariance"):
            law.condition({0: 1.0, 1: 1.0, 2: 5.0})


def test_errors_are_sentences():
    with pytest.raises(ValueError, match=r"singular covariance.*positive noise"):
        posterior(GAUSSIAN, np.zeros((1, 2)), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"shape \(m, d\) and m values"):
        LinearMeasurement([[1.0, 0.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="must be finite"):
        LinearMeasurement([[1.0, np.nan]], [1.0])
    with pytest.raises(ValueError, match="noise must be a finite number of at least 0"):
        LinearMeasurement([[1.0, 0.0]], [1.0], noise=-1)
    for wrong in (np.zeros(4), np.zeros((2, 3)), np.full((2, 4), np.inf)):
        with pytest.raises(ValueError, match=r"values must be finite, of shape \(n, 4\)"):
            posterior(GAUSSIAN, wrong)
    with pytest.raises(ValueError, match=r"matrix must have shape \(m, 4\)"):
        posterior(GAUSSIAN, Y, A[:, :3])
    with pytest.raises(ValueError, match="noise must be a finite number of at least 0"):
        posterior(GAUSSIAN, Y, A, noise=np.nan)
    with pytest.raises(ValueError, match="n_draws must be an integer"):
        posterior(GAUSSIAN, Y, A, n_draws=-1)
