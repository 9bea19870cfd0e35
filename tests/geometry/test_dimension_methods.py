"""Dimension at a noise level, on laws whose answer is known in closed form."""

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import chi2, ncx2

from skdiffusion.datasets import make_sphere, make_swiss_roll
from skdiffusion.datasets._embed import random_rotation
from skdiffusion.geometry._dimension_methods import (
    LeaveOneOutModel,
    denoising_loss,
    flipd,
    lidl,
    normal_bundle,
    projector,
    spectrum,
)
from skdiffusion.geometry._flow_jacobian import flow_spectrum
from skdiffusion.models import (
    AffineModel,
    BaseScoreModel,
    EmpiricalModel,
    GaussianModel,
    MixtureModel,
    SpectralCovariance,
    SphereModel,
    as_score_model,
)

LAMBDAS = np.array([2.0, 1.0, 0.5] + [0.0] * 7)


def gaussian(variances, rng=None):
    d = len(variances)
    rotation = np.eye(d) if rng is None else random_rotation(d, rng)
    return GaussianModel(np.zeros(d), SpectralCovariance(np.asarray(variances, float), rotation))


class Gauged(BaseScoreModel):
    r"""A Gaussian whose score has a gauge field: :math:`s + A\Sigma_\sigma^{-1}x`."""

    has_jacobian = True

    def __init__(self, variances, antisymmetric):
        self.variances, self.A = np.asarray(variances, float), antisymmetric
        self.n_features = len(variances)

    def _matrix(self, sigma):
        inverse = np.diag(1 / (self.variances + sigma**2))
        return -inverse + self.A @ inverse

    def _score(self, x, sigma):
        return x @ self._matrix(sigma).T

    def _score_jacobian(self, x, sigma):
        return np.broadcast_to(self._matrix(sigma), (len(x), *self.A.shape))


def antisymmetric(d, size, rng):
    A = rng.standard_normal((d, d))
    return size * (A - A.T) / np.linalg.norm(A - A.T)


# ------------------------------------------------------------------ Gaussians


def test_gaussian_expectations(rng):
    model = gaussian(LAMBDAS, rng)
    # at the mean only the trace is left: sum of lambda / (lambda + sigma^2)
    at_mean = flipd(model, np.zeros((1, 10)), 0.2)[0]
    assert at_mean == pytest.approx(2.867856, abs=1e-6)
    assert np.trace(projector(model, np.zeros((1, 10)), 0.2)[0]) == pytest.approx(at_mean)
    x = model.sample(40_000, random_state=0)
    for values, truth in [
        (flipd(model, x, 0.2), 2.992649),
        (denoising_loss(model, x[:4000], 0.2, n_noise=4), 2.867856),
    ]:
        error = values.std() / np.sqrt(len(values))
        assert values.mean() == pytest.approx(truth, abs=4 * error)


def test_noise_schedules_agree():
    truth = gaussian(LAMBDAS)
    x = truth.sample(5, random_state=0)
    expected = flipd(truth, x, 0.2)
    # derivatives by autograd, and by central differences: an error of h^2 where the rest is
    # linear, so rounding alone
    for backend, atol in [("torch", 1e-9), ("numpy", 1e-6)]:
        for schedule in ("vp", "flow_matching", "edm", "cosine"):
            for prediction, call in [("noise", "predict_noise"), ("velocity", "velocity")]:
                view = truth.at_time(schedule)
                model = as_score_model(
                    getattr(view, call),
                    prediction=prediction,
                    schedule=schedule,
                    n_features=10,
                    backend=backend,
                )
                np.testing.assert_allclose(flipd(model, x, 0.2), expected, rtol=0, atol=atol)


def test_noised_rows_average_to_the_dimension_of_the_space():
    # E tr(grad s) + |s|^2 = 0 under the noised law: the reason to ask at clean rows
    model = MixtureModel([0.3, 0.7], [[-1.0, 0, 0], [1.0, 0, 0]], [[0.5, 0, 0.1], [0.1, 0.4, 0]])
    x = model.sample(20_000, 0.3, random_state=0)
    values = flipd(model, x, 0.3)
    assert values.mean() == pytest.approx(3, abs=4 * values.std() / np.sqrt(len(x)))
    assert flipd(model, model.sample(2000, random_state=1), 0.03).mean() < 2.2


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.3])
def test_two_of_five_dimensions(sigma, rng):
    model = gaussian([1.0, 1.0, 0, 0, 0], rng)
    x = model.sample(6, random_state=0)
    assert (spectrum(model, x, sigma) == 2).all()
    slopes = flow_spectrum(model, x, np.array([sigma]), 100.0).slopes
    assert ((slopes < 0.5).sum(-1) == 2).all()
    if sigma <= 0.1:
        assert (normal_bundle(model, x, sigma, n_noise=250) == 2).all()


def test_plateaus_of_a_multi_scale_gaussian():
    model = gaussian(np.repeat([1e-4, 1.0, 1000.0], [3, 3, 4]))
    levels = [0.001, 0.1, 10, 100]
    # averages in closed form: sum of 1 - (sigma^2 / (lambda + sigma^2))^2, and of the trace
    x = model.sample(20_000, random_state=0)
    found = [flipd(model, x, level) for level in levels]
    for values, truth in zip(found, [9.9997, 7.0588, 4.0261, 0.6948], strict=True):
        # the table has four digits
        margin = 4 * values.std() / np.sqrt(len(x)) + 1e-4
        assert values.mean() == pytest.approx(truth, abs=margin)
    traces = [np.trace(projector(model, x[:1], level)[0]) for level in levels]
    np.testing.assert_allclose(traces, [9.9703, 7.0000, 3.6661, 0.3639], atol=1e-4)


def test_full_rank_and_a_point(rng):
    full, point = gaussian(np.ones(4), rng), gaussian(np.zeros(4))
    x, zero = full.sample(5, random_state=0), np.zeros((2, 4))
    for method in (flipd, denoising_loss, spectrum, normal_bundle, lidl):
        # denoising has the largest bias, sigma^2 per direction
        np.testing.assert_allclose(method(full, x, 0.01), 4, atol=0.02)
        np.testing.assert_allclose(method(point, zero, 0.01), 0, atol=1e-8)


# ------------------------------------------------------------------ the flow


def test_singular_values_of_the_flow():
    # in the coordinates of flow matching: sqrt((1-t)^2 lambda + t^2), from unit noise at t = 1
    model, t = gaussian(LAMBDAS), 0.01
    sigma = t / (1 - t)
    found = flow_spectrum(model, np.full((2, 10), 0.1), np.array([sigma]), 1e4)
    expected = [1.40011, 0.99005, 0.70011] + [0.01] * 7
    np.testing.assert_allclose((1 - t) * found.singular_values[0, 0], expected, atol=1e-4)
    started = flow_spectrum(model, np.full((1, 10), 0.1), np.array([sigma]), 999.0)
    late = (1 - t) * started.singular_values[0, 0] / 0.999
    np.testing.assert_allclose(late[:3], [1.4015, 0.9910, 0.7008], atol=1e-4)


def test_the_flow_does_not_see_a_gauge(rng):
    A = antisymmetric(10, 3.0, rng)
    model = Gauged(LAMBDAS, A)
    found = flow_spectrum(model, 0.1 * rng.standard_normal((1, 10)), np.array([0.05, 0.2]), 1e3)
    for k, sigma in enumerate([0.05, 0.2]):
        truth = np.sqrt((LAMBDAS + sigma**2) / (LAMBDAS + 1e6)) * 1e3
        # fourth-order steps of an eighth
        np.testing.assert_allclose(found.singular_values[k, 0], truth, atol=1e-4)
        assert (found.slopes[k] < 0.5).sum() == 3


def test_the_flow_knows_no_units_of_the_columns(rng):
    """Where the noise follows the columns, a change of their units changes no slope."""
    law = Gauged(LAMBDAS, antisymmetric(10, 0.3, rng))
    scale = 10.0 ** rng.integers(-3, 4, 10)
    unit = np.exp(np.log(scale).mean())
    x, levels = 0.1 * rng.standard_normal((1, 10)), np.array([0.05, 0.2])
    one = flow_spectrum(law, x, levels, 1e3)
    scaled = AffineModel(law, scale=scale)
    other = flow_spectrum(scaled, scale * x, levels * unit, 1e3 * unit)
    np.testing.assert_allclose(other.slopes, one.slopes, atol=1e-9)


def test_what_a_gauge_does_to_each_method(rng):
    variances, sigma = np.array([2.0, 1, 0.5, 0, 0, 0]), 0.2
    A = antisymmetric(6, 2.0, rng)
    plain, gauged = gaussian(variances), Gauged(variances, A)
    x = plain.sample(4000, random_state=0)
    # at noised rows: the loss grows by sigma^2 E|r|^2, with r = A C^-1 x and C = lambda + sigma^2
    P = sigma**2 * np.diag(1 / (variances + sigma**2))
    extra = np.trace(A @ np.diag(1 / (variances + sigma**2)) @ A.T) * sigma**2
    difference = denoising_loss(gauged, x, sigma) - denoising_loss(plain, x, sigma)
    error = difference.std() / np.sqrt(len(x))
    assert difference.mean() == pytest.approx(extra, abs=4 * error)
    # the trace of the symmetric part is what it was
    traces = [np.trace(projector(m, x[:1], sigma)[0]) for m in (plain, gauged)]
    assert traces[0] == pytest.approx(traces[1], abs=1e-9)
    # so does FLIPD at noised rows, where its mean tells nothing else
    noised = plain.sample(4000, sigma, random_state=1)
    difference = flipd(gauged, noised, sigma) - flipd(plain, noised, sigma)
    error = difference.std() / np.sqrt(len(noised))
    assert difference.mean() == pytest.approx(extra, abs=4 * error)
    # at clean rows FLIPD grows by tr(A P Lambda P A') / sigma^2
    difference = flipd(gauged, x, sigma) - flipd(plain, x, sigma)
    extra = np.trace(A @ P @ np.diag(variances) @ P @ A.T) / sigma**2
    error = difference.std() / np.sqrt(len(x))
    assert difference.mean() == pytest.approx(extra, abs=4 * error)


@pytest.mark.parametrize("own, d", [(3, 3), (3, 5), (2, 2)])
def test_the_flow_to_a_sphere(own, d):
    # radial: h(r) matches the quantiles of the noised radius with those of the latent one
    _, model = make_sphere(1, own - 1, d, random_state=0)
    x = model.sample(1, random_state=0)
    for t in (0.1, 0.01, 0.001):
        sigma = t / (1 - t)
        found = flow_spectrum(model, x, np.array([sigma]), 1e4)
        # the latent radius of a point on the sphere itself
        p = ncx2.cdf(1 / sigma**2, own, 1 / sigma**2)
        r = np.sqrt(chi2.ppf(p, own))

        def h(r, sigma=sigma):
            return sigma * np.sqrt(ncx2.ppf(chi2.cdf(r**2, own), own, 1 / sigma**2))

        radial = (h(r + 1e-4) - h(r - 1e-4)) / 2e-4
        expected = np.sort(np.r_[[1 / r] * (own - 1), radial, [sigma] * (d - own)])[::-1]
        # fourth-order steps of an eighth
        np.testing.assert_allclose(found.singular_values[0, 0], expected, rtol=1e-4)
        if t == 0.01:
            slopes = np.sort(found.slopes[0, 0])
            assert np.abs(slopes[: own - 1]).max() < 0.02 and slopes[own - 1 :].min() > 0.98


# ------------------------------------------------------------------ spheres


@pytest.mark.parametrize("d", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2, 0.5])
def test_flipd_of_a_sphere(d, sigma):
    # 2z (1 - I_{nu+1}(z) / I_nu(z)), z = 1 / sigma^2, nu = (d - 1) / 2
    z, nu = 1 / sigma**2, (d - 1) / 2
    truth = 2 * z * (1 - ive(nu + 1, z) / ive(nu, z))
    X, model = make_sphere(3, d, d + 4, random_state=0)
    # the formula itself subtracts numbers of size 2z
    np.testing.assert_allclose(flipd(model, X, sigma), truth, atol=1e-9 * z)
    if (d, sigma) == (10, 0.5):
        assert truth == pytest.approx(5.364593, abs=1e-6)


def test_flipd_of_the_two_sphere():
    x = np.array([[0.6, 0.0, 0.8]])
    assert flipd(SphereModel(3), x, 0.5)[0] == pytest.approx(1.994631, abs=1e-6)
    assert flipd(SphereModel(3), x, 1.0)[0] == pytest.approx(1.373929, abs=1e-6)


@pytest.mark.parametrize("d, space", [(2, 5), (10, 100), (50, 100)])
@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_normal_bundle_of_a_sphere_is_its_own_dimension(d, space, sigma):
    # published estimates on the last two are 11 and 51, the dimension of the linear span
    X, model = make_sphere(2, d, space, random_state=0)
    assert (normal_bundle(model, X, sigma) == d).all()


def test_too_few_scores_span_no_normal_bundle():
    x = np.array([[0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="n_noise must be above the number of columns, 3"):
        normal_bundle(SphereModel(3), x, 0.05, n_noise=3)


def test_tangents_in_which_the_density_is_even_are_tangents():
    # inside a rectangle the score vanishes along it, and along the roll it nearly does
    X, model = make_swiss_roll(20, 5, random_state=0)
    assert (normal_bundle(model, X, 0.1) == 2).mean() > 0.8  # but for rows near its border


# ------------------------------------------------------------------ the empirical law


def test_flipd_of_the_rows_is_a_weighted_mean_of_squared_distances(rng):
    X = rng.standard_normal((60, 3))
    x, sigma = rng.standard_normal((5, 3)), 0.6
    squared = ((x[:, None] - X) ** 2).sum(-1) / sigma**2
    weights = np.exp(-squared / 2)
    truth = (weights * squared).sum(1) / weights.sum(1)
    np.testing.assert_allclose(flipd(EmpiricalModel(X), x, sigma), truth, atol=1e-8)
    # a callable of the same score, by automatic differentiation
    model = EmpiricalModel(X)
    seen = as_score_model(lambda z, s: model.score(z, s), prediction="score", n_features=3)
    np.testing.assert_allclose(flipd(seen, x, sigma), truth, atol=1e-8)


def test_a_row_does_not_see_itself(rng):
    X = rng.standard_normal((50, 2))
    own = np.arange(50)
    model, sigma = LeaveOneOutModel(EmpiricalModel(X), own), 0.3
    for method in (flipd, denoising_loss, spectrum, lidl):
        values = method(model, X, sigma)
        alone = EmpiricalModel(np.delete(X, 7, axis=0))
        np.testing.assert_allclose(values[7:8], method(alone, X[7:8], sigma), atol=1e-8)
    # with itself a row is a point at small noise
    assert flipd(EmpiricalModel(X), X, 0.001).max() < 1e-6


def test_lidl_is_flipd_for_close_levels():
    model, x = SphereModel(3), np.array([[0.0, 0.0, 1.0]])
    # S^2 at levels up to 0.2: FLIPD is 2 to exp(-2 / sigma^2) all along the regression
    assert lidl(model, x, 0.1)[0] == pytest.approx(2, abs=1e-8)
