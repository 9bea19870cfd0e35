"""Each maker's draws follow the model it returns, and the model is a score model."""

import pickle
from functools import partial

import numpy as np
import pytest
import sklearn.datasets
import torch
from scipy import stats

from skdiffusion import datasets
from skdiffusion.datasets import (
    CurveModel,
    make_concentric_circles,
    make_gaussian,
    make_gaussian_mixture,
    make_moons,
    make_ring,
    make_sphere,
    make_swiss_roll,
    make_thirteen_points,
)
from skdiffusion.models import divergence, jacobian

# maker, smallest interesting level
MAKERS = {
    "gaussian": (partial(make_gaussian, n_features=4), 0.3),
    "singular gaussian": (partial(make_gaussian, n_features=3, spectrum=[2, 1, 0]), 0.3),
    "mixture": (make_gaussian_mixture, 0.3),
    "mixture in space": (partial(make_gaussian_mixture, n_components=3, n_features=5), 0.3),
    "ring": (make_ring, 0.2),
    "noisy ring": (partial(make_ring, radius=2.0, noise=0.1), 0.2),
    "sphere": (partial(make_sphere, dimension=2), 0.2),
    "sphere in space": (partial(make_sphere, dimension=2, n_features=5, noise=0.05), 0.2),
    "pair of points": (partial(make_sphere, dimension=0, n_features=2), 0.4),
    "circles": (make_concentric_circles, 0.1),
    "circles in space": (partial(make_concentric_circles, n_features=8), 0.2),
    "moons": (make_moons, 0.1),
    "sharp moons": (partial(make_moons, noise=None), 0.1),
    "swiss roll": (make_swiss_roll, 0.5),
    "swiss roll in space": (partial(make_swiss_roll, n_features=5, noise=0.3), 0.5),
    "thirteen points": (partial(make_thirteen_points), 0.2),
}
every_maker = pytest.mark.parametrize(("make", "sigma"), MAKERS.values(), ids=MAKERS)


def within(values, mean, n_errors=4.0):
    """Whether an average is its mean within so many of its standard errors."""
    error = values.std(axis=0) / np.sqrt(len(values))
    return np.all(np.abs(values.mean(axis=0) - mean) <= n_errors * error + 1e-12)


@every_maker
def test_draws_follow_the_model(make, sigma):
    """Stein's identities E[s] = 0 and E[(x - c).s] = -d on the maker's own rows, noised."""
    n = 3000
    X, model = make(n, random_state=0)
    assert X.shape == (n, model.n_features) and X.dtype == np.float64
    rng = np.random.default_rng(1)
    for level in (sigma, 4 * sigma):
        x = X + level * rng.standard_normal(X.shape)
        score = model.score(x, level)
        assert within(score, 0.0, 4.5)
        assert within(((x - X.mean(axis=0)) * score).sum(axis=1), -model.n_features)
        # the denoiser is the posterior mean: errors are orthogonal to any function of x
        error = X - model.denoise(x, level)
        assert within(error, 0.0, 4.5)
        assert within((error * np.tanh(x)).sum(axis=1), 0.0)
        # and the posterior covariance is the variance of the error
        spread = level**2 * divergence(model, x, level, of="denoise")
        assert within((error**2).sum(axis=1) - spread, 0.0)


@every_maker
def test_model_samples_have_the_likelihood_of_the_draws(make, sigma):
    """Two-sample test on the log-density of noised rows."""
    X, model = make(2000, random_state=2)
    rng = np.random.default_rng(3)
    ours = model.log_prob(X + sigma * rng.standard_normal(X.shape), sigma)
    theirs = model.log_prob(model.sample(2000, sigma, random_state=4), sigma)
    assert stats.ks_2samp(ours, theirs).pvalue > 0.005


@every_maker
def test_score_is_the_gradient_of_the_log_density(make, sigma):
    X, model = make(6, random_state=5)
    x = X + sigma * np.random.default_rng(6).standard_normal(X.shape)
    d, h = model.n_features, 1e-5 * max(1, sigma)
    slope = [
        (model.log_prob(x + e, sigma) - model.log_prob(x - e, sigma)) / (2 * h)
        for e in h * np.eye(d)
    ]
    score = model.score(x, sigma)
    # rounding of a log-density of some ten nats over h: 1e-10; truncation (h/sigma)^2
    np.testing.assert_allclose(score, np.stack(slope, 1), rtol=1e-6, atol=1e-6 / sigma)
    np.testing.assert_allclose(model.denoise(x, sigma), x + sigma**2 * score, rtol=1e-9, atol=1e-9)
    numeric = [
        (model.score(x + e, sigma) - model.score(x - e, sigma)) / (2 * h) for e in h * np.eye(d)
    ]
    np.testing.assert_allclose(
        jacobian(model, x, sigma), np.stack(numeric, 2), atol=1e-5 / sigma**2
    )


@every_maker
def test_models_in_torch_and_in_a_pickle(make, sigma):
    X, model = make(4, random_state=7)
    for level in (sigma, np.array([1.0, 2.0, 3.0, 4.0]) * sigma):
        tensor = torch.tensor(level) if np.ndim(level) else level
        found = model.score(torch.tensor(X), tensor)
        np.testing.assert_allclose(found, model.score(X, level), rtol=1e-8, atol=1e-8)
    again = pickle.loads(pickle.dumps(model))
    # a copy may sum in another order
    np.testing.assert_allclose(again.score(X, sigma), model.score(X, sigma), rtol=1e-11, atol=1e-11)


@every_maker
def test_seeds_repeat(make, sigma):
    X, model = make(20, random_state=8)
    again, other = make(20, random_state=8), make(20, random_state=9)
    np.testing.assert_array_equal(X, again[0])
    np.testing.assert_array_equal(model.score(X, sigma), again[1].score(X, sigma))
    assert not np.array_equal(X, other[0])
    assert len(make(1)[0]) == 1


@every_maker
def test_level_zero_where_there_is_a_density(make, sigma):
    X, model = make(10, random_state=10)
    if model.has_density:
        assert np.isfinite(model.log_prob(X)).all() and np.isfinite(model.score(X, 0.0)).all()
        np.testing.assert_allclose(model.denoise(X, 0.0), X, atol=1e-12)
    else:
        with pytest.raises(ValueError, match=r"positive|defined for noise levels"):
            model.log_prob(X)


# ------------------------------------------------------------------ the laws themselves


def test_gaussian_has_the_spectrum_asked_for():
    spectrum = [5.0, 2.0, 0.1]
    X, model = make_gaussian(20_000, 3, mean=[1, 2, 3], spectrum=spectrum, random_state=0)
    found = np.linalg.eigvalsh(np.cov(X.T))[::-1]
    np.testing.assert_allclose(found, spectrum, rtol=0.05)  # sqrt(2/n) = .01
    np.testing.assert_allclose(model.mean, [1, 2, 3])
    _, given = make_gaussian(5, 2, covariance=[[2.0, 1.0], [1.0, 2.0]])
    np.testing.assert_allclose(given.covariance.to_matrix(), [[2, 1], [1, 2]], atol=1e-14)
    np.testing.assert_allclose(make_gaussian(5, 4)[1].covariance.variances, 1 / np.arange(1, 5))


def test_eight_gaussians():
    X, model, labels = make_gaussian_mixture(8000, random_state=0, return_labels=True)
    np.testing.assert_allclose(np.linalg.norm(model.means, axis=1), 4.0)
    counts = np.bincount(labels, minlength=8)
    assert stats.chisquare(counts).pvalue > 0.01
    for k in range(8):
        assert within(X[labels == k], model.means[k])
        assert np.abs(X[labels == k].std(axis=0) - 0.5).max() < 4 * 0.5 / np.sqrt(2 * counts[k])


def test_mixture_of_given_components():
    X, model = make_gaussian_mixture(
        5000, weights=[3, 1], means=[[0.0], [10.0]], covariances=[0.0, 1.0], random_state=0
    )
    assert X.shape == (5000, 1) and model.has_density is False
    assert abs((X == 0).mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 5000)


def test_rings_and_spheres_lie_where_they_should():
    X, _ = make_ring(100, radius=3.0, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 3.0, rtol=1e-13)
    for rotate in (True, False):
        X, model = make_sphere(60, 3, 10, radius=2.0, rotate=rotate, random_state=0)
        np.testing.assert_allclose(np.linalg.norm(X, axis=1), 2.0, rtol=1e-13)
        assert np.linalg.matrix_rank(X) == 4
        assert np.array_equal(X[:, 4:], 0 * X[:, 4:]) is not rotate
        # off its subspace the law is empty: the denoiser falls onto it
        denoised = model.denoise(X + 0.01, 0.1)
        assert np.linalg.matrix_rank(np.vstack([X, denoised]), tol=1e-9) == 4
    noisy, _ = make_sphere(4000, 3, 10, noise=0.1, random_state=0)
    assert within((noisy**2).sum(axis=1), 1 + 10 * 0.01)


def test_concentric_circles_lie_in_a_plane():
    X, model, labels = make_concentric_circles(
        2000, 32, factor=0.5, noise=0.02, random_state=0, return_labels=True
    )
    values = np.linalg.svd(X, compute_uv=False)
    assert np.all(values[2:] < 1e-10 * values[0])
    radius = np.linalg.norm(X, axis=1)
    for label, expected in [(0, 1.0), (1, 0.5)]:
        on = radius[labels == label]
        # E|x| = R + s^2/2R for in-plane noise of deviation s
        assert within(on, expected + 0.02**2 / (2 * expected))
        assert abs(on.std() - 0.02) < 4 * 0.02 / np.sqrt(2 * len(on))
    # the printed mean distance of the data from their ring, .0160 to .0165
    assert np.abs(radius - np.where(labels, 0.5, 1.0)).mean() == pytest.approx(0.0162, abs=1e-3)
    assert model.sigma_range == (0.0, np.inf) and not model.has_density
    assert make_concentric_circles(5)[1].has_density


@pytest.mark.parametrize("column", [0, 1, 2])
def test_swiss_roll_is_that_of_scikit_learn(column):
    X, _, t = make_swiss_roll(4000, noise=0.1, random_state=0, return_labels=True)
    theirs, their_t = sklearn.datasets.make_swiss_roll(4000, noise=0.1, random_state=0)
    assert stats.ks_2samp(X[:, column], theirs[:, column]).pvalue > 0.01
    assert stats.ks_2samp(t, their_t).pvalue > 0.01
    np.testing.assert_allclose(X[:, 0], t * np.cos(t), atol=0.5)


@pytest.mark.parametrize("label", [0, 1])
def test_moons_are_those_of_scikit_learn(label):
    X, _, labels = make_moons(4000, noise=0.05, random_state=0, return_labels=True)
    theirs, their_labels = sklearn.datasets.make_moons(4000, noise=0.05, random_state=0)
    for column in range(2):
        ours, other = X[labels == label, column], theirs[their_labels == label, column]
        assert stats.ks_2samp(ours, other).pvalue > 0.01


def test_thirteen_points():
    X, model = make_thirteen_points()
    assert X.shape == (13, 2)
    np.testing.assert_allclose(X[:, 1], 0.7 * np.sin(1.7 * X[:, 0]))
    np.testing.assert_allclose(np.diff(X[:, 0]), 0.3)
    # printed for the ridge at level .3: length 4.45, twelve spacings of .371, tangential ratio .944
    u = np.linspace(-1.8, 1.8, 200)
    y = np.stack([u, 0.7 * np.sin(1.7 * u)], axis=1)
    for _ in range(60):
        normal = np.linalg.eigh(model.posterior_covariance(y, 0.3))[1][:, :, 0]
        pull = model.denoise(y, 0.3) - y
        y = y + normal * (normal * pull).sum(axis=1, keepdims=True)
    length = np.linalg.norm(np.diff(y, axis=0), axis=1).sum()
    assert length == pytest.approx(4.45, abs=0.005)
    assert length / 12 == pytest.approx(0.371, abs=5e-4)
    ratio = np.linalg.eigvalsh(model.posterior_covariance(y, 0.3))[:, 1] / 0.09
    assert np.median(ratio) == pytest.approx(0.944, abs=0.01)
    np.testing.assert_array_equal(model.points, X)
    draws, _ = make_thirteen_points(400, random_state=0)
    assert len(np.unique(draws, axis=0)) == 13


# ------------------------------------------------------------------ curves by quadrature


@pytest.mark.parametrize("make", [make_moons, make_swiss_roll])
def test_quadrature_error_at_the_smallest_level(make):
    """Against eight times as many nodes, at the level where the range begins."""
    X, model = make(40, noise=None, random_state=0)
    n_nodes = 8 * (512 if make is make_moons else 4096)
    _, fine = make(1, noise=None, n_nodes=n_nodes, random_state=0)
    low = model.sigma_range[0]
    assert fine.sigma_range[0] < low / 7
    ends = np.zeros((2, X.shape[1]))
    ends[0, 0] = 1.0
    x = np.vstack([X, X + low * np.random.default_rng(1).standard_normal(X.shape), ends])
    for sigma in (low, 3 * low):
        log_prob = fine.log_prob(x, sigma)
        np.testing.assert_allclose(model.log_prob(x, sigma), log_prob, rtol=1e-9, atol=1e-9)
        score = fine.score(x, sigma)
        np.testing.assert_allclose(
            model.score(x, sigma), score, rtol=1e-8, atol=1e-9 * np.abs(score).max()
        )


def test_a_segment_is_a_uniform_law():
    """Where the closed form is known, the curve model is it."""
    from skdiffusion.models import GaussianModel, IndependentModel, UniformModel

    segment = CurveModel([_segment], n_nodes=256)
    exact = IndependentModel([UniformModel([-1.0], [1.0]), GaussianModel([0.0], 0.0)])
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (50, 2)) * [1, 0.1]
    for sigma in (segment.sigma_range[0], 0.1, 1.0):
        for name in ("log_prob", "score", "denoise"):
            found, expected = (getattr(m, name)(x, sigma) for m in (segment, exact))
            np.testing.assert_allclose(
                found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
            )
    draws = segment.sample(2000, random_state=0)
    assert stats.kstest(draws[:, 0], stats.uniform(-1, 2).cdf).pvalue > 0.01
    with pytest.raises(ValueError, match="defined for noise levels from"):
        segment.score(x, 0.5 * segment.sigma_range[0])


def _segment(u):
    return np.stack([2 * u - 1, 0 * u], axis=1)


# ------------------------------------------------------------------ wrong requests


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (lambda: make_gaussian(0), "n_samples must be an integer of at least 1"),
        (lambda: make_gaussian(5, 2, spectrum=[1.0]), r"spectrum must have shape \(2,\)"),
        (lambda: make_gaussian(5, 2, mean=[1.0]), r"mean must have shape \(2,\)"),
        (lambda: make_gaussian(5, 2, spectrum=[1, 1], covariance=1.0), "not both"),
        (lambda: make_gaussian_mixture(5, std=-1.0), "std must be"),
        (lambda: make_gaussian_mixture(5, weights=[1.0]), "weights must have shape"),
        (lambda: make_ring(5, radius=0.0), "radius must be"),
        (lambda: make_ring(5, noise=-0.1), "noise must be"),
        (lambda: make_sphere(5, 3, 3), "n_features must be an integer of at least 4"),
        (lambda: make_sphere(5, -1), "dimension must be"),
        (lambda: make_concentric_circles(5, 1), "n_features must be an integer of at least 2"),
        (lambda: make_concentric_circles(5, factor=1.5), "factor must lie between 0 and 1"),
        (lambda: make_swiss_roll(5, 2), "n_features must be an integer of at least 3"),
        (lambda: make_moons(5, noise=np.nan), "noise must be"),
        (lambda: make_moons(5, random_state="seed"), "random_state must be"),
        (lambda: make_thirteen_points(0), "n_samples must be"),
    ],
)
def test_wrong_requests(request_, match):
    with pytest.raises(ValueError, match=match):
        request_()


def test_everything_public_is_listed():
    assert all(hasattr(datasets, name) for name in datasets.__all__)
