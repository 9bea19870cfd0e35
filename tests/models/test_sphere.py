"""The sphere against high-precision Bessel functions and its printed closed forms."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion.models import SphereModel, divergence, jacobian, jvp
from skdiffusion.models._bessel import bessel_ratio

DIMENSIONS = [1, 2, 3, 5, 10, 50, 61, 300, 1000]


# ------------------------------------------------------------------ the Bessel ratio


@pytest.mark.parametrize("m", DIMENSIONS)
def test_bessel_ratio_to_full_precision(m):
    z = np.array([1e-8, 1e-3, 0.1, 1.0, 5.0, 29.9, 30.1, 100.0, 1e4, 1e8, 1e12])
    order = m / 2 - 1
    ours = bessel_ratio(order, z)
    with mpmath.workdps(60):
        for i, value in enumerate(z):
            at = mpmath.mpf(float(value))
            below, above = mpmath.besseli(order, at), mpmath.besseli(order + 1, at)
            ratio = above / below
            slope = 1 - ratio**2 - (2 * order + 1) / at * ratio
            log_mean = mpmath.loggamma(order + 1) - order * mpmath.log(at / 2) + mpmath.log(below)
            # 16 terms of the series leave less than rounding; sixty steps of it at most
            assert float(abs(ours.quotient[i] * at / ratio - 1)) < 2e-15
            # a difference of ones at z = 30 loses two digits; tanh has slope ~4 exp(-2z)
            assert float(abs(ours.slope[i] - slope)) < 3e-14 * float(abs(slope)) + 1e-16 * (m == 1)
            # sums of terms as large as the order times log z
            assert float(abs(ours.log_mean_exp[i] - (log_mean - at))) < 2e-12


def test_bessel_ratio_at_zero_is_one_over_the_dimension():
    for m in DIMENSIONS:
        ratio = bessel_ratio(m / 2 - 1, np.zeros(1))
        assert ratio.quotient[0] == pytest.approx(1 / m, rel=1e-14)
        assert ratio.slope[0] == pytest.approx(1 / m, rel=1e-14)
        assert abs(ratio.log_mean_exp[0]) < 1e-12


def test_elementary_cases():
    z = np.geomspace(1e-3, 300, 50)
    one, three = bessel_ratio(-0.5, z), bessel_ratio(0.5, z)
    np.testing.assert_allclose(z * one.quotient, np.tanh(z), rtol=1e-14)
    langevin = 1 / np.tanh(z) - 1 / z  # loses digits itself below z = 1
    np.testing.assert_allclose(z * three.quotient, langevin, rtol=1e-9)
    np.testing.assert_allclose(one.log_mean_exp, np.log1p(np.exp(-2 * z)) - np.log(2), atol=1e-13)


# ------------------------------------------------------------------ printed closed forms


@pytest.mark.parametrize(
    ("sigma", "radius"),
    [
        (0.15, 0.988553451114),
        (0.2, 0.979360888562),
        (0.3, 0.951460229008),
        (0.4, 0.906869734555),
        (0.5, 0.831462024754),
        (0.6, 0.677303072114),
        (0.65, 0.527683089211),
        (0.7, 0.198664472015),
        (0.75, 0.0),
    ],
)
def test_ridge_of_the_ring(sigma, radius):
    assert SphereModel(2).ridge_radius(sigma) == pytest.approx(radius, abs=1e-10)


@pytest.mark.parametrize(
    ("m", "sigma", "radius"),
    [
        (3, 0.1, 0.989897948557),
        (3, 0.2, 0.958257569496),
        (3, 0.3, 0.900000004638),
        (3, 0.4, 0.800120883074),
        (3, 0.5, 0.599839320129),
        (3, 0.55, 0.382275462429),
        (5, 0.15, 0.953369437003),
        (10, 0.15, 0.891569325556),
        (20, 0.15, 0.752450506315),
        (3, 0.58, 0.0),
    ],
)
def test_ridge_of_the_sphere(m, sigma, radius):
    model = SphereModel(m, radius=2.0)
    found = model.ridge_radius(2 * sigma)
    assert found == pytest.approx(2 * radius, abs=1e-10)
    x = np.zeros((1, m))
    x[0, -1] = found
    # there the score vanishes; its unit is 1/sigma
    assert np.abs(model.score(x, 2 * sigma)).max() < 1e-12 / sigma**2


@pytest.mark.parametrize(
    ("d", "values"),
    [
        (1, [1.000627, 1.002525, 1.010427, 1.091819]),
        (3, [2.998120, 2.992424, 2.968732, 2.735622]),
        (5, [4.990602, 4.962123, 4.843874, 3.842819]),
        (10, [9.949876, 9.798073, 9.173359, 5.364593]),
    ],
)
def test_local_dimension_of_the_sphere(d, values):
    """D + sigma^2 (div s + |s|^2) on the sphere; six printed decimals."""
    model = SphereModel(d + 1)
    x = np.eye(d + 1)[:1]
    for sigma, value in zip([0.05, 0.1, 0.2, 0.5], values, strict=True):
        score = model.score(x, sigma)
        local = d + 1 + sigma**2 * (model.divergence(x, sigma) + (score**2).sum(axis=1))
        assert local[0] == pytest.approx(value, abs=6e-7)


def test_local_dimension_of_the_two_sphere_is_elementary():
    model, x = SphereModel(3), np.eye(3)[:1]
    for sigma in (0.3, 0.5, 1.0):
        z = 1 / sigma**2
        score = model.score(x, sigma)
        local = 3 + sigma**2 * (model.divergence(x, sigma) + (score**2).sum(axis=1))
        assert local[0] == pytest.approx(2 - 4 * z / np.expm1(2 * z), rel=1e-12)


# ------------------------------------------------------------------ identities


@pytest.mark.parametrize("m", [1, 2, 3, 7])
@pytest.mark.parametrize("sigma", [0.15, 0.8, 5.0])
def test_log_density_integrates_to_one(m, sigma):
    model = SphereModel(m, radius=1.3)
    area = float(2 * np.pi ** (m / 2) / mpmath.gamma(m / 2))
    # the radial density is a smooth bump of width sigma: 400 nodes over 24 widths
    low, high = max(0.0, 1.3 - 12 * sigma), 1.3 + sigma * (12 + np.sqrt(m))
    nodes, weights = np.polynomial.legendre.leggauss(400)
    r = low + (high - low) * (nodes + 1) / 2
    x = np.zeros((400, m))
    x[:, 0] = r
    shells = area * r ** (m - 1) * np.exp(model.log_prob(x, sigma))
    assert weights @ shells * (high - low) / 2 == pytest.approx(1, abs=1e-12)


def test_the_pair_of_points():
    """m = 1: E[x0|x] = R tanh(x R / sigma^2)."""
    model, x = SphereModel(1), np.array([[0.5], [-2.0], [0.0]])
    np.testing.assert_allclose(model.denoise(x, 0.8), np.tanh(x / 0.64), rtol=1e-14)
    expected = np.logaddexp(stats.norm(1, 0.8).logpdf(x), stats.norm(-1, 0.8).logpdf(x)) - np.log(2)
    np.testing.assert_allclose(model.log_prob(x, 0.8), expected[:, 0], rtol=1e-13)
    slope = (1 - np.tanh(x / 0.64) ** 2) / 0.64
    np.testing.assert_allclose(model.jacobian(x, 0.8, of="denoise")[:, 0], slope, rtol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3, 40])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_score_and_jacobian_are_derivatives(m, sigma):
    model, rng = SphereModel(m, radius=1.5), np.random.default_rng(m)
    x = rng.standard_normal((6, m)) / np.sqrt(m) + 0.1
    h = 1e-5
    steps = h * np.eye(m)
    ahead = model.log_prob((x[:, None] + steps).reshape(-1, m), sigma)
    behind = model.log_prob((x[:, None] - steps).reshape(-1, m), sigma)
    slope = ((ahead - behind) / (2 * h)).reshape(-1, m)
    # truncation h^2/sigma^3 ~ 4e-9, rounding 1e-16/h ~ 1e-11
    np.testing.assert_allclose(model.score(x, sigma), slope, atol=1e-7)
    score = model.score(x, sigma)
    np.testing.assert_allclose(score, (model.denoise(x, sigma) - x) / sigma**2, atol=1e-12)
    for of in ("score", "denoise"):
        field = getattr(model, of)
        ahead = field((x[:, None] + steps).reshape(-1, m), sigma)
        behind = field((x[:, None] - steps).reshape(-1, m), sigma)
        numeric = ((ahead - behind) / (2 * h)).reshape(-1, m, m).transpose(0, 2, 1)
        closed = jacobian(model, x, sigma, of=of)
        np.testing.assert_allclose(closed, numeric, atol=1e-7)
        v = rng.standard_normal(x.shape)
        np.testing.assert_allclose(
            jvp(model, x, sigma, v, of=of), np.einsum("nij,nj->ni", closed, v), atol=1e-12
        )
        np.testing.assert_allclose(
            divergence(model, x, sigma, of=of), np.trace(closed, axis1=1, axis2=2), atol=1e-11
        )


def test_the_centre_is_regular():
    model, x = SphereModel(3), np.zeros((1, 3))
    np.testing.assert_array_equal(model.denoise(x, 0.5), 0)
    # D ~ R^2/(m sigma^2) x
    np.testing.assert_allclose(
        model.jacobian(x, 0.5, of="denoise")[0], np.eye(3) * 4 / 3, rtol=1e-14
    )
    point = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model.log_prob(point, 0.5).sum(), point)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1e3])
def test_extreme_levels(sigma):
    """Tiny levels: the density of a thin shell. Large ones: the far field of a Gaussian."""
    m = 5
    model, rng = SphereModel(m), np.random.default_rng(0)
    x = model.sample(4, sigma, random_state=rng)
    r = np.linalg.norm(x, axis=1)
    if sigma < 1:
        area = 2 * np.pi**2.5 / float(mpmath.gamma(2.5))
        shell = stats.norm(1, sigma).logpdf(r) - np.log(area)  # up to O(sigma)
        np.testing.assert_allclose(model.log_prob(x, sigma), shell, atol=20 * sigma)
        np.testing.assert_allclose(np.linalg.norm(model.denoise(x, sigma), axis=1), 1, atol=1e-5)
    else:
        gaussian = stats.multivariate_normal(np.zeros(m), 1 / m + sigma**2)
        np.testing.assert_allclose(model.log_prob(x, sigma), gaussian.logpdf(x), rtol=1e-9)
        np.testing.assert_allclose(model.denoise(x, sigma), x / (m * sigma**2), rtol=1e-5)


def test_torch_agrees_and_differentiates():
    model, rng = SphereModel(4, radius=0.7), np.random.default_rng(1)
    x = rng.standard_normal((7, 4))
    sigma = rng.uniform(0.05, 2, 7)
    point = torch.tensor(x, requires_grad=True)
    log_prob = model.log_prob(point, torch.tensor(sigma))
    (slope,) = torch.autograd.grad(log_prob.sum(), point)
    np.testing.assert_allclose(log_prob.detach(), model.log_prob(x, sigma), rtol=1e-12)
    np.testing.assert_allclose(slope, model.score(x, sigma), rtol=1e-10)
    through = torch.func.vmap(
        torch.func.jacrev(lambda row, s: model.score(row[None], s)[0]), in_dims=(0, 0)
    )(point.detach(), torch.tensor(sigma))
    np.testing.assert_allclose(through, model.jacobian(x, sigma), rtol=1e-9, atol=1e-9)
    single = model.score(x.astype(np.float32), 0.5)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, model.score(x, 0.5), rtol=1e-4, atol=1e-4)


def test_inference_mode_leaves_nothing_behind():
    x = torch.ones(1, 3, dtype=torch.float64)
    with torch.inference_mode():
        SphereModel(3).log_prob(x, 0.5)
    x.requires_grad_(True)
    SphereModel(3).log_prob(x, 0.5).sum().backward()
    np.testing.assert_allclose(x.grad, SphereModel(3).score(np.ones((1, 3)), 0.5), rtol=1e-12)


def test_samples_lie_on_the_sphere_and_have_its_moments():
    m, n = 4, 20_000
    model = SphereModel(m, radius=2.0)
    x = model.sample(n, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 2.0, rtol=1e-14)
    # Cov = R^2/m I; standard error of a mean 1/sqrt(n), of a squared coordinate ~ .87/sqrt(n)
    assert np.abs(x.mean(axis=0)).max() < 4 * np.sqrt(1 / n)
    assert np.abs((x**2).mean(axis=0) - 1).max() < 4 * 0.87 / np.sqrt(n)
    # noised: E|x|^2 = R^2 + m sigma^2 and Stein's identities of the score
    x = model.sample(n, 0.6, random_state=1)
    score = model.score(x, 0.6)
    for values, mean in [
        ((x**2).sum(axis=1), 4 + m * 0.36),
        ((score * x).sum(axis=1), -m),
        *((column, 0) for column in score.T),
    ]:
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(n)


def test_bad_parameters():
    with pytest.raises(ValueError, match="n_features must be an integer"):
        SphereModel(0)
    with pytest.raises(ValueError, match="radius must be a finite number above 0"):
        SphereModel(2, radius=-1.0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        SphereModel(2).score(np.ones((1, 2)), 0.0)
