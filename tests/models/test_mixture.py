"""The mixture score model against closed forms, dense formulas and its own limits."""

import pickle

import numpy as np
import pytest
import sklearn
import torch
from scipy.integrate import quad
from scipy.special import ive
from scipy.stats import kstest, multivariate_normal, norm

from skdiffusion.models import (
    AffineModel,
    GaussianModel,
    MixtureModel,
    SpectralCovariance,
    jacobian,
)

D, K = 5, 3
KINDS = ["full", "diagonal", "isotropic", "tied", "low_rank", "mixed"]


def spectral(rng, rank, residual=0.05):
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0][:, :rank]
    return SpectralCovariance(rng.uniform(0.5, 2, rank), axes, residual)


def matrix(rng):
    root = rng.normal(size=(D, D))
    return root @ root.T / D + 0.1 * np.eye(D)


def covariances_of(kind, rng):
    return {
        "full": lambda: np.stack([matrix(rng) for _ in range(K)]),
        "diagonal": lambda: rng.uniform(0.1, 1, (K, D)),
        "isotropic": lambda: np.array([0.3, 1.0, 2.0]),
        "tied": lambda: [SpectralCovariance.from_matrix(matrix(rng))] * K,
        "low_rank": lambda: [spectral(rng, 2), spectral(rng, 1), spectral(rng, 0)],
        "mixed": lambda: [spectral(rng, 2), matrix(rng), SpectralCovariance(np.ones(D))],
    }[kind]()


@pytest.fixture(params=KINDS)
def model(request):
    rng = np.random.default_rng(KINDS.index(request.param))
    means = 2 * rng.normal(size=(K, D)) + 10
    return MixtureModel([0.2, 0.5, 0.3], means, covariances_of(request.param, rng))


@pytest.fixture
def x():
    return 3 * np.random.default_rng(7).normal(size=(11, D)) + 10


LEVELS = [0.3, 4.0, np.geomspace(0.05, 20, 11)]


def per_row(sigma, n=11):
    return np.broadcast_to(sigma, n)


def dense_log_prob(model, x, sigma):
    result = []
    for row, level in zip(x, per_row(sigma, len(x)), strict=True):
        parts = [
            np.log(w) + multivariate_normal(m, c.to_matrix() + level**2 * np.eye(D)).logpdf(row)
            for w, m, c in zip(model.weights, model.means, model.covariances, strict=True)
        ]
        result.append(np.logaddexp.reduce(parts))
    return np.array(result)


# --------------------------------------------------------------------- truths with numbers


def test_two_components_on_a_line():
    # 1-D, means +-1, variances 1/4, sigma = 1/2: r+ - r- = tanh(x / (v + sigma^2))
    model = MixtureModel([0.5, 0.5], [[-1.0], [1.0]], [0.25, 0.25])
    gamma = model.responsibilities(np.array([[0.3]]), 0.5)
    assert gamma[0, 1] - gamma[0, 0] == pytest.approx(0.5370495669980352, abs=1e-15)
    assert model.denoise(np.array([[0.3]]), 0.5)[0, 0] == pytest.approx(0.41852478349901756)


def test_two_points():
    model = MixtureModel([0.5, 0.5], [[-1.0], [1.0]], [0.0, 0.0])
    x = np.array([[0.5]])
    assert model.denoise(x, 0.8)[0, 0] == pytest.approx(np.tanh(0.5 / 0.64), abs=1e-15)
    assert model.gaussian().denoise(x, 0.8)[0, 0] == pytest.approx(0.3048780487804878)
    with pytest.raises(ValueError, match="sigma must be positive"):
        model.score(x, 0.0)


@pytest.mark.parametrize(
    "snr, mmse",  # to 25 digits: 1 - E tanh(g + g^(1/2) z)
    [(0.25, 0.7959457343664997), (1, 0.4495995092066728), (4, 0.0685974087907388)],
)
def test_minimum_error_of_two_points(snr, mmse):
    model = MixtureModel([0.5, 0.5], [[-1.0], [1.0]], [0.0, 0.0])
    sigma = snr**-0.5

    def integrand(x):
        x = np.array([[x]])
        density = np.exp(model.log_prob(x, sigma)[0])
        return density * model.posterior_covariance(x, sigma)[0, 0, 0]

    value = quad(integrand, -1 - 10 * sigma, 1 + 10 * sigma, epsabs=1e-12, limit=200)[0]
    assert value == pytest.approx(mmse, abs=1e-12)


def test_distance_to_its_gaussian_of_an_asymmetric_law():
    # {-1 with 2/3, 2 with 1/3}: third cumulant 2; rms gap of the denoisers at sigma = 8
    model = MixtureModel([2 / 3, 1 / 3], [[-1.0], [2.0]], [0.0, 0.0])
    gaussian = model.gaussian()
    assert gaussian.mean[0] == pytest.approx(0, abs=1e-15)
    assert gaussian.covariance.variances[0] == pytest.approx(2)
    for sigma, law in [(8.0, 0.96483), (16.0, 0.99051), (32.0, 0.99758)]:

        def integrand(x, sigma=sigma):
            x = np.array([[x]])
            gap = model.denoise(x, sigma) - gaussian.denoise(x, sigma)
            return float(np.exp(model.log_prob(x, sigma)[0]) * gap[0, 0] ** 2)

        rms = quad(integrand, -12 * sigma, 12 * sigma, epsabs=1e-14, limit=400)[0] ** 0.5
        assert rms / (2 / (2**0.5 * sigma**2)) == pytest.approx(law, abs=2e-5)
        if sigma == 8:
            assert rms == pytest.approx(0.021319945313704052, abs=1e-9)


@pytest.mark.parametrize(
    "sigma, radius", [(0.2, 0.979360888562), (0.4, 0.906869734555), (0.6, 0.677303072114)]
)
def test_ring_of_points(sigma, radius):
    # fixed points of the denoiser of a uniform ring solve r = I_1(r/s^2) / I_0(r/s^2);
    # 64 points are a ring up to aliasing far below the tolerance
    angles = 2 * np.pi * np.arange(64) / 64
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    model = MixtureModel(np.ones(64), points, np.zeros(64))
    x = radius * np.array([[np.cos(0.3), np.sin(0.3)]])
    z = radius / sigma**2
    assert ive(1, z) / ive(0, z) == pytest.approx(radius, abs=1e-11)
    np.testing.assert_allclose(model.denoise(x, sigma), x, atol=3e-9)


@pytest.mark.parametrize("x, gap", [(0.0, 3.048), (0.5, 1.542), (3.0, 3.440e-4)])
def test_ridge_gap_of_two_points(x, gap):
    # points +-c e_1: the Hessian along e_1 exceeds that across by (c/s^2)^2 sech(cx/s^2)^2
    sigma = 1.3108
    model = MixtureModel([1, 1], [[-3.0, 0.0], [3.0, 0.0]], [0.0, 0.0])
    hessian = model.jacobian(np.array([[x, 0.0]]), sigma)[0]
    assert hessian[0, 0] - hessian[1, 1] == pytest.approx(gap, rel=1e-3)


# --------------------------------------------------------------------- identities


@pytest.mark.parametrize("sigma", LEVELS)
def test_against_dense_formulas(model, x, sigma):
    np.testing.assert_allclose(
        model.log_prob(x, sigma), dense_log_prob(model, x, sigma), rtol=1e-11, atol=1e-11
    )


def test_density_without_noise(model, x):
    if not model.has_density:
        pytest.skip("no density")
    np.testing.assert_allclose(model.log_prob(x), dense_log_prob(model, x, 0.0), rtol=1e-11)


@pytest.mark.parametrize("sigma", LEVELS)
def test_score_is_the_gradient_of_the_log_density(model, x, sigma):
    points = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.log_prob(points, sigma).sum(), points)
    np.testing.assert_allclose(model.score(x, sigma), gradient.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", LEVELS)
def test_tweedie_and_jacobians(model, x, sigma):
    level = per_row(sigma)
    score, denoised = model.score(x, sigma), model.denoise(x, sigma)
    np.testing.assert_allclose(denoised, x + level[:, None] ** 2 * score, rtol=1e-10)

    hessian = model.jacobian(x, sigma)
    points = torch.tensor(x)
    for row in (0, 5):
        exact = torch.autograd.functional.jacobian(
            lambda z, row=row: model.score(z[None], float(level[row]))[0], points[row]
        )
        np.testing.assert_allclose(hessian[row], exact.numpy(), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(hessian, hessian.transpose(0, 2, 1), atol=1e-13)

    of_denoiser = model.jacobian(x, sigma, of="denoise")
    expected = np.eye(D) + level[:, None, None] ** 2 * hessian
    # the difference form on the right loses sigma^2 / variance of its digits
    np.testing.assert_allclose(of_denoiser, expected, atol=1e-11 * (1 + level.max() ** 2))

    v = np.random.default_rng(3).normal(size=x.shape)
    for of, matrices in [("score", hessian), ("denoise", of_denoiser)]:
        np.testing.assert_allclose(
            model.jvp(x, sigma, v, of=of),
            np.einsum("nij,nj->ni", matrices, v),
            rtol=1e-9,
            atol=1e-12,
        )
        np.testing.assert_allclose(
            model.divergence(x, sigma, of=of), np.einsum("nii->n", matrices), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("sigma", LEVELS)
def test_torch_equals_numpy(model, x, sigma):
    points = torch.tensor(x)
    for name in ("score", "denoise", "log_prob", "responsibilities", "jacobian"):
        ours, theirs = getattr(model, name)(x, sigma), getattr(model, name)(points, sigma)
        assert isinstance(theirs, torch.Tensor) and theirs.dtype == torch.float64
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("array", [np.float32, torch.float32])
def test_single_precision_stays_single(model, x, array):
    exact = model.score(x, 0.5)
    points = x.astype(array) if array is np.float32 else torch.tensor(x, dtype=array)
    result = model.score(points, 0.5)
    assert result.dtype == array
    scale = np.abs(exact).max()
    np.testing.assert_allclose(np.asarray(result), exact, atol=2e-4 * scale)
    assert model.log_prob(points, 0.5).dtype == array


def test_blocks_do_not_matter(model, x):
    x = np.repeat(x, 40, axis=0) + np.linspace(0, 1, 440)[:, None]
    sigma = np.linspace(0.1, 2, 440)
    whole = model.score(x, sigma), model.jacobian(x, sigma), model.log_prob(x, sigma)
    with sklearn.config_context(working_memory=0.002):
        blocks = model.score(x, sigma), model.jacobian(x, sigma), model.log_prob(x, sigma)
        torch_blocks = model.score(torch.tensor(x), sigma)
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(whole[0], torch_blocks.numpy(), rtol=1e-12, atol=1e-13)
    alone = model.log_prob(x[3:4], sigma[3:4])
    np.testing.assert_allclose(alone, whole[2][3:4], rtol=1e-13)


def test_pickle(model, x):
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.score(x, 1.0), model.score(x, 1.0))


# --------------------------------------------------------------------- reductions


@pytest.mark.parametrize("sigma", LEVELS)
def test_one_component_is_a_gaussian(x, sigma):
    rng = np.random.default_rng(0)
    for covariance in (matrix(rng), spectral(rng, 2), rng.uniform(size=D)):
        mean = rng.normal(size=D)
        one, gaussian = MixtureModel([2.0], [mean], [covariance]), GaussianModel(mean, covariance)
        for name in ("score", "denoise", "log_prob", "jacobian", "divergence"):
            np.testing.assert_allclose(
                getattr(one, name)(x, sigma),
                getattr(gaussian, name)(x, sigma),
                rtol=1e-10,
                atol=1e-12,
            )


def test_identical_components_are_one(x):
    rng = np.random.default_rng(0)
    mean, covariance = rng.normal(size=D), matrix(rng)
    one = MixtureModel([1.0], [mean], [covariance])
    many = MixtureModel(rng.uniform(size=4), [mean] * 4, [covariance] * 4)
    np.testing.assert_allclose(many.score(x, 0.7), one.score(x, 0.7), rtol=1e-11)
    np.testing.assert_allclose(many.log_prob(x), one.log_prob(x), rtol=1e-12)


def test_points_are_the_empirical_denoiser(x):
    points = np.random.default_rng(1).normal(size=(20, D)) + 10
    model = MixtureModel(np.ones(20), points, np.zeros(20))
    logits = -((x[:, None] - points) ** 2).sum(-1) / (2 * 0.8**2)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    expected = weights @ points / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(model.denoise(x, 0.8), expected, rtol=1e-12)
    single = MixtureModel([1.0], points[:1], [0.0])
    np.testing.assert_allclose(single.denoise(x, 0.8), np.tile(points[0], (11, 1)), rtol=1e-14)


def test_full_rank_factors_equal_matrices(x):
    rng = np.random.default_rng(4)
    low = [spectral(rng, 2, 0.05 + 0.01 * j) for j in range(K)]
    means = rng.normal(size=(K, D)) + 10
    factored = MixtureModel(np.ones(K), means, low)
    dense = MixtureModel(np.ones(K), means, np.stack([c.to_matrix() for c in low]))
    for sigma in (0.0, 0.5):
        np.testing.assert_allclose(factored.score(x, sigma), dense.score(x, sigma), rtol=1e-9)
        np.testing.assert_allclose(
            factored.log_prob(x, sigma), dense.log_prob(x, sigma), rtol=1e-11
        )


def test_equivariance(model, x):
    rng = np.random.default_rng(5)
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0]
    order = np.array([2, 0, 1])
    matrices = [c.to_matrix() for c in model.covariances]
    turned = MixtureModel(
        model.weights[order],
        model.means[order] @ rotation.T + 3.0,
        np.stack([rotation @ matrices[k] @ rotation.T for k in order]),
    )
    np.testing.assert_allclose(
        turned.score(x @ rotation.T + 3.0, 0.6),
        model.score(x, 0.6) @ rotation.T,
        rtol=1e-8,
        atol=1e-9,
    )
    scaled = AffineModel(model, shift=-1.0, scale=2.0)
    direct = MixtureModel(model.weights, 2 * model.means - 1, 4 * np.stack(matrices))
    np.testing.assert_allclose(scaled.score(x, 0.6), direct.score(x, 0.6), rtol=1e-9)


def test_limits_of_the_denoiser(model, x):
    np.testing.assert_allclose(model.denoise(x, 1e-7), x, rtol=1e-9)
    mean = model.weights @ model.means
    np.testing.assert_allclose(model.denoise(x, 1e9), np.tile(mean, (11, 1)), rtol=1e-7)


def test_gaussian_has_the_moments(model):
    mean = model.weights @ model.means
    spread = model.means - mean
    covariance = np.einsum("k,ki,kj->ij", model.weights, spread, spread) + np.einsum(
        "k,kij->ij", model.weights, [c.to_matrix() for c in model.covariances]
    )
    np.testing.assert_allclose(model.gaussian().mean, mean, rtol=1e-14)
    np.testing.assert_allclose(model.gaussian().covariance.to_matrix(), covariance, atol=1e-12)


# --------------------------------------------------------------------- numerics


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_queries_are_finite(model, dtype):
    x = (10 + 1e8 * np.random.default_rng(0).normal(size=(5, D))).astype(dtype)
    for sigma in (1e-2, 1.0, 1e4):
        for name in ("score", "denoise", "log_prob", "responsibilities"):
            assert np.isfinite(getattr(model, name)(x, sigma)).all()


@pytest.mark.parametrize("sigma", [0.5, np.array([0.5, 1.0, 2.0])], ids=["one", "by row"])
def test_rows_whose_squares_float32_cannot_hold_are_served_by_float64(model, sigma):
    x = (1e30 * np.random.default_rng(0).normal(size=(3, D))).astype(np.float32)
    wide = x.astype(np.float64)
    for name in ("score", "denoise", "jacobian", "responsibilities"):
        found, expected = getattr(model, name)(x, sigma), getattr(model, name)(wide, sigma)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert (model.log_prob(x, sigma) == -np.inf).all()  # some -1e60 nats


def test_rows_whose_squares_float64_cannot_hold_are_refused(model):
    with pytest.raises(ValueError, match=r"x holds 1e\+200, and float64 no squares of that"):
        model.denoise(np.full((2, D), 1e200), 1.0)


@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 1e2, 1e4])
def test_all_levels(model, x, sigma):
    draws = model.sample(50, sigma, random_state=0)
    np.testing.assert_allclose(
        model.log_prob(draws, sigma), dense_log_prob(model, draws, sigma), rtol=1e-9, atol=1e-8
    )
    assert np.isfinite(model.score(x, sigma)).all()
    traces = np.trace(model.jacobian(x, sigma, of="denoise"), axis1=1, axis2=2)
    assert np.isfinite(traces).all()


def test_a_narrow_component_far_from_the_others_keeps_its_digits():
    # a component of standard deviation 1e-6 at distance 1: only products linear in the
    # distance may cancel, which costs 1e6 of 1e16
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0]
    narrow = SpectralCovariance(np.full(2, 0.5), axes[:, :2], 1e-12)
    model = MixtureModel([0.5, 0.5], np.stack([np.zeros(D), np.ones(D)]), [narrow, np.eye(D)])
    draws = narrow.apply(np.sqrt, rng.normal(size=(20, D)))
    expected = GaussianModel(np.zeros(D), narrow).log_prob(draws) + np.log(0.5)
    np.testing.assert_allclose(model.log_prob(draws), expected, atol=1e-8)


def test_weight_zero(model, x):
    weights = np.array([0.4, 0.0, 0.6])
    some = MixtureModel(weights, model.means, model.covariances)
    fewer = MixtureModel(
        weights[[0, 2]], model.means[[0, 2]], [model.covariances[0], model.covariances[2]]
    )
    np.testing.assert_allclose(some.score(x, 0.5), fewer.score(x, 0.5), rtol=1e-10)
    np.testing.assert_allclose(some.log_prob(x, 0.5), fewer.log_prob(x, 0.5), rtol=1e-12)
    assert (some.responsibilities(x, 0.5)[:, 1] == 0).all()
    points = torch.tensor(x, requires_grad=True)
    some.log_prob(points, 0.5).sum().backward()
    assert torch.isfinite(points.grad).all()


def test_level_may_carry_a_graph(model, x):
    points, sigma = torch.tensor(x), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (rate,) = torch.autograd.grad(model.log_prob(points, sigma).sum(), sigma)
    # heat equation: d log p / d sigma = sigma (div s + |s|^2)
    score, divergence = model.score(x, 0.7), model.divergence(x, 0.7)
    expected = 0.7 * (divergence + (score**2).sum(axis=1)).sum()
    assert rate.item() == pytest.approx(expected, rel=1e-9)


# --------------------------------------------------------------------- draws and conditionals


def test_draws_have_the_law():
    rng = np.random.default_rng(0)
    model = MixtureModel([0.3, 0.7], [[-2.0, 0.0], [1.0, 1.0]], [spectral2(rng), [0.5, 0.1]])
    draws = model.sample(20_000, 0.3, random_state=0)
    direction = np.array([0.6, -0.8])
    scales = [np.sqrt(direction @ c.to_matrix() @ direction + 0.09) for c in model.covariances]

    def cdf(t):
        return sum(
            w * norm.cdf(t, m @ direction, s)
            for w, m, s in zip(model.weights, model.means, scales, strict=True)
        )

    assert kstest(draws @ direction, cdf).pvalue > 0.01
    again = model.sample(20_000, 0.3, random_state=0)
    np.testing.assert_array_equal(draws, again)
    assert not np.array_equal(model.sample(5), model.sample(5))
    # one seed is one trajectory over the levels
    close = model.sample(50, 0.3001, random_state=1) - model.sample(50, 0.3, random_state=1)
    assert np.abs(close).max() < 1e-3


def spectral2(rng):
    axes = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    return SpectralCovariance([1.5], axes[:, :1], 0.1)


@pytest.mark.parametrize("known", [[1], [3, 0], [0, 1, 2, 4]])
def test_conditional_is_a_ratio_of_densities(model, x, known):
    rest = np.setdiff1d(np.arange(D), known)
    values = {column: 9.0 + 0.5 * column for column in known}
    whole = x.copy()
    whole[:, known] = list(values.values())
    given = model.condition(values)
    ratio = model.log_prob(whole) - model.marginal(known).log_prob(whole[:, known])
    np.testing.assert_allclose(given.log_prob(x[:, rest]), ratio, rtol=1e-10, atol=1e-10)


def test_conditional_with_noise(model, x):
    # noise of the known values is noise of those columns in the joint law
    noisy = MixtureModel(
        model.weights,
        model.means,
        np.stack([c.to_matrix() + np.diag([0.49, 0, 0, 0, 0]) for c in model.covariances]),
    )
    exact = noisy.condition({0: 9.5})
    np.testing.assert_allclose(
        model.condition({0: 9.5}, noise=0.7).log_prob(x[:, 1:]),
        exact.log_prob(x[:, 1:]),
        rtol=1e-10,
    )


def test_conditional_draws():
    model = MixtureModel(
        [0.5, 0.5], [[0.0, 0.0], [3.0, 1.0]], [[[1, 0.9], [0.9, 1]], [[0.2, 0], [0, 0.5]]]
    )
    given = model.condition({0: 1.5})
    draws = given.sample(5000, random_state=0)[:, 0]

    def cdf(t):
        return sum(
            w * norm.cdf(t, m[0], c.variances[0] ** 0.5)
            for w, m, c in zip(given.weights, given.means, given.covariances, strict=True)
        )

    assert kstest(draws, cdf).pvalue > 0.01


def test_low_rank_stays_low_rank():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(40, 3)))[0]
    model = MixtureModel([1.0], [np.zeros(40)], [SpectralCovariance([3, 2, 1], axes, 0.1)])
    given = model.condition({0: 1.0, 7: -1.0})
    assert given.covariances[0].axes.shape == (38, 3)
    assert model.marginal(range(10)).covariances[0].axes.shape == (10, 3)


def test_conditioning_on_a_singular_column_needs_noise():
    model = MixtureModel([1.0], [[0.0, 0.0]], [[[0.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="singular covariance"):
        model.condition({0: 1.0})
    assert model.condition({0: 1.0}, noise=0.1).n_features == 1


# --------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([1.0], [0.0], [1.0]), "means must be a finite array"),
        (([1.0], [[np.nan]], [1.0]), "means must be a finite array"),
        (([1.0, 1.0], [[0.0]], [1.0]), "weights must have shape"),
        (([-1.0], [[0.0]], [1.0]), "non-negative and not all zero"),
        (([0.0], [[0.0]], [1.0]), "not all zero"),
        (([1.0], [[0.0]], [1.0, 2.0]), "one covariance per component"),
        (([1.0], [[0.0]], 1.0), "one covariance per component"),
        (([1.0], [[0.0]], [-1.0]), "non-negative"),
        (([1.0], [[0.0, 0.0]], [[1.0, 2.0, 3.0]]), "covariance must be"),
        (([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), "positive semi-definite"),
    ],
)
def test_wrong_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        MixtureModel(*arguments)


def test_wrong_columns(model):
    with pytest.raises(ValueError, match="distinct and from 0 to 4"):
        model.condition({5: 0.0})
    with pytest.raises(ValueError, match="integers"):
        model.condition({"a": 0.0})
    with pytest.raises(ValueError, match="finite number"):
        model.condition({0: np.nan})
    with pytest.raises(ValueError, match="at least one column"):
        model.condition(dict.fromkeys(range(D), 0.0))
    with pytest.raises(ValueError, match="distinct"):
        model.marginal([0, 0])
    assert model.condition({}) is model


def test_dispatch_takes_the_closed_form(model, x):
    np.testing.assert_array_equal(jacobian(model, x, 0.5), model.jacobian(x, 0.5))


@pytest.mark.parametrize("level", [0.0, 0.05, 1.0, 50.0])
def test_rows_of_one_component_are_told_by_it_alone(level):
    """Components without weight are left out of the products; torch leaves none out."""
    rng = np.random.default_rng(0)
    k, d = 20, 16
    factors = rng.standard_normal((k, d, d)) / 4
    model = MixtureModel(
        np.ones(k), 3 * rng.standard_normal((k, d)), factors @ factors.mT + 0.01 * np.eye(d)
    )
    x = model.sample(300, level, random_state=1)
    for name in ("denoise", "score"):
        whole = getattr(model, name)(torch.as_tensor(x), level).numpy()
        # what is left out is below the square of the rounding unit
        np.testing.assert_allclose(getattr(model, name)(x, level), whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("level", [0.01, 0.3, 4.0, 100.0, 1e4])
@pytest.mark.parametrize("field", ["denoise", "score"])
def test_one_level_for_many_rows_is_as_exact_as_a_level_per_row(model, field, level):
    x = 10 + (3 + level) * np.random.default_rng(3).normal(size=(40, D))
    ask = getattr(model, field)
    by_row = ask(x, np.full(len(x), level))
    scale = np.abs(by_row).max()
    np.testing.assert_allclose(ask(x, level), by_row, rtol=0, atol=1e-12 * scale + 1e-13)
    np.testing.assert_allclose(ask(x[:3], level), by_row[:3], rtol=0, atol=1e-12 * scale + 1e-13)


def test_tensors_with_something_to_follow_are_not_taken_for_numbers(model, x):
    from torch.autograd import forward_ad

    plain, v = torch.tensor(x), torch.ones(x.shape, dtype=torch.float64)
    value = model.denoise(plain, 0.3)
    followed = model.denoise(torch.tensor(x, requires_grad=True), 0.3)
    assert followed.requires_grad and not value.requires_grad
    np.testing.assert_allclose(followed.detach(), value, rtol=1e-12)
    expected = model.jvp(x, 0.3, np.ones_like(x), of="denoise")
    _, tangent = torch.func.jvp(lambda z: model.denoise(z, 0.3), (plain,), (v,))
    np.testing.assert_allclose(tangent, expected, rtol=1e-8, atol=1e-10)
    with forward_ad.dual_level():
        dual = model.denoise(forward_ad.make_dual(plain, v), 0.3)
        tangent = forward_ad.unpack_dual(dual).tangent
    np.testing.assert_allclose(tangent, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_determinant_beyond_the_range_of_numbers_has_a_logarithm(dtype):
    rng = np.random.default_rng(0)
    d = 150
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    # (1e-6)^150 and (1e6)^150 are no numbers of any precision
    model = MixtureModel([0.5, 0.5], np.zeros((2, d)), [turn * 1e-6 @ turn.T, turn * 1e6 @ turn.T])
    levels = np.repeat([0.001, 1.0, 1000.0], 4).astype(dtype)
    x = (levels[:, None] * rng.standard_normal((12, d))).astype(dtype)
    told = model.log_prob(x, levels)
    alone = [model.log_prob(x[i : i + 1].astype(float), float(levels[i]))[0] for i in range(12)]
    # sums of 150 terms of size 1 to 14
    np.testing.assert_allclose(told, alone, rtol=20 * np.finfo(dtype).eps * 150**0.5)


@pytest.mark.parametrize("covariances", [[0.2, 0.3], [np.diag([1.0, 0.2]), [[1.0, 0.5], [0.5, 1]]]])
def test_no_rows_at_levels_of_their_own(covariances):
    model = MixtureModel([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], covariances)
    assert model.denoise(np.empty((0, 2)), np.empty(0)).shape == (0, 2)
    assert model.log_prob(np.empty((0, 2)), np.empty(0)).shape == (0,)
