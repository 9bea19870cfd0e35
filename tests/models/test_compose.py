"""Wrappers of score models, each against a Gaussian or another closed form."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion import GaussianScore
from skdiffusion.models import (
    AffineModel,
    GaussianModel,
    IndependentModel,
    MixtureModel,
    ProductModel,
    SmoothedModel,
    SphereModel,
    StackedModel,
    SuperpositionModel,
    SwitchedModel,
    TemperedModel,
)

D = 3
RNG = np.random.default_rng(11)
FACTOR = RNG.standard_normal((D, D))
COVARIANCE = FACTOR @ FACTOR.T + 0.1 * np.eye(D)
MEAN = np.array([0.5, -1.0, 2.0])
INNER = GaussianModel(MEAN, COVARIANCE)
ROTATION = np.linalg.qr(RNG.standard_normal((D, D)))[0]
SHIFT, COLUMNS = np.array([3.0, -2.0, 1.0]), np.array([2.0, -0.5, 8.0])
POINTS = RNG.standard_normal((6, D)) * 2
V = RNG.standard_normal((6, D))
LEVELS = np.array([0.05, 0.3, 1.0, 2.0, 10.0, 70.0])


def affine_gaussian(A):
    """The law of SHIFT + A z for z of INNER, by hand."""
    return GaussianModel(A @ MEAN + SHIFT, A @ COVARIANCE @ A.T)


def blocks():
    joint = np.zeros((D, D))
    joint[0, 0], joint[1:, 1:] = 0.5, COVARIANCE[1:, 1:]
    parts = [GaussianModel([1.0], 0.5), GaussianModel(MEAN[1:], COVARIANCE[1:, 1:])]
    return IndependentModel(parts), GaussianModel(np.r_[1.0, MEAN[1:]], joint)


def superposed():
    weights = [0.3, 0.5, 0.2]
    means = RNG.standard_normal((3, D)) * 2
    covariances = [COVARIANCE, np.eye(D) * 0.3, np.diag([1.0, 0.2, 0.0])]
    parts = [GaussianModel(m, c) for m, c in zip(means, covariances, strict=True)]
    return SuperpositionModel(parts, weights), MixtureModel(weights, means, covariances)


def product():
    """Of two Gaussians, at level 0 only: precisions add."""
    other = GaussianModel([0.0, 1.0, 1.0], [1.0, 2.0, 0.5])
    precision = 0.7 * np.linalg.inv(COVARIANCE) + 1.5 * np.diag([1.0, 0.5, 2.0])
    pull = 0.7 * np.linalg.solve(COVARIANCE, MEAN) + 1.5 * np.array([0.0, 0.5, 2.0])
    covariance = np.linalg.inv(precision)
    covariance = (covariance + covariance.T) / 2
    return ProductModel([INNER, other], [0.7, 1.5]), GaussianModel(covariance @ pull, covariance)


EXACT = {
    "scalar scale": (AffineModel(INNER, SHIFT, 2.5), affine_gaussian(2.5 * np.eye(D))),
    "negative scale": (AffineModel(INNER, SHIFT, -2.5), affine_gaussian(-2.5 * np.eye(D))),
    "rotation": (AffineModel(INNER, SHIFT, 0.4, ROTATION), affine_gaussian(0.4 * ROTATION)),
    "affine of affine": (
        AffineModel(AffineModel(INNER, 0.0, 2.0, ROTATION), SHIFT, 3.0),
        affine_gaussian(6.0 * ROTATION),
    ),
    "smoothed": (SmoothedModel(INNER, 0.6), GaussianModel(MEAN, COVARIANCE + 0.36 * np.eye(D))),
    "smoothed points": (
        SmoothedModel(GaussianModel(MEAN, 0.0), 0.6),
        GaussianModel(MEAN, 0.36),
    ),
    "independent": blocks(),
    "superposition": superposed(),
    "superposition of one": (SuperpositionModel([INNER]), INNER),
}
every_exact = pytest.mark.parametrize(("wrapped", "exact"), EXACT.values(), ids=EXACT)


# ------------------------------------------------------------------ exact wrappers


@every_exact
@pytest.mark.parametrize("sigma", [0.05, 1.0, 70.0, LEVELS], ids=["low", "mid", "high", "rows"])
def test_exact_wrappers_are_the_law_they_name(wrapped, exact, sigma):
    for name in ("score", "denoise", "predict_noise", "log_prob"):
        found, expected = (getattr(m, name)(POINTS, sigma) for m in (wrapped, exact))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11, err_msg=name)
    for of in ("score", "denoise"):
        matrices = exact.jacobian(POINTS, sigma, of=of)
        scale = np.abs(matrices).max()
        np.testing.assert_allclose(
            wrapped.jacobian(POINTS, sigma, of=of), matrices, atol=1e-11 * scale
        )
        np.testing.assert_allclose(
            wrapped.jvp(POINTS, sigma, V, of=of),
            np.einsum("nij,nj->ni", matrices, V),
            atol=1e-10 * scale,
        )
        np.testing.assert_allclose(
            wrapped.divergence(POINTS, sigma, of=of),
            np.trace(matrices, axis1=1, axis2=2),
            atol=1e-10 * scale,
        )
    np.testing.assert_allclose(
        wrapped.posterior_covariance(POINTS, sigma),
        exact.posterior_covariance(POINTS, sigma),
        rtol=1e-8,
        atol=1e-9,
    )


@every_exact
def test_exact_wrappers_flow_as_the_law_they_name(wrapped, exact):
    if not wrapped.has_flow:
        with pytest.raises(NotImplementedError, match="no closed-form flow"):
            wrapped.flow(POINTS, 1.0, 0.1)
        return
    for a, b in [(10.0, 0.1), (0.2, 5.0), (LEVELS, LEVELS[::-1])]:
        np.testing.assert_allclose(wrapped.flow(POINTS, a, b), exact.flow(POINTS, a, b), rtol=1e-10)
    z = wrapped.to_latent(POINTS, 0.7)
    np.testing.assert_allclose(z, exact.to_latent(POINTS, 0.7), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(wrapped.from_latent(z, 0.7), POINTS, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(wrapped.flow(POINTS, 0.7, 1e9) / 1e9, z, atol=1e-7)


@every_exact
def test_exact_wrappers_sample_the_law_they_name(wrapped, exact):
    n = 3000
    for sigma in (0.0, 0.8):
        x = wrapped.sample(n, sigma, random_state=0)
        reference = exact.sample(200_000, sigma, random_state=1)
        mean, sd = reference.mean(axis=0), reference.std(axis=0)
        assert np.all(np.abs(x.mean(axis=0) - mean) < 4.5 * sd / np.sqrt(n) + 1e-12)
        # fourth moments of these laws are below four times the squared variance
        spread = 4.5 * np.sqrt(3 / n) * np.outer(sd, sd)
        assert np.all(np.abs(np.cov(x.T) - np.cov(reference.T)) < spread + 1e-12)
    np.testing.assert_array_equal(
        wrapped.sample(4, random_state=5), wrapped.sample(4, random_state=5)
    )
    rows = wrapped.sample(6, LEVELS, random_state=5)
    assert rows.shape == (6, D)


@every_exact
def test_exact_wrappers_in_torch(wrapped, exact):
    point = torch.tensor(POINTS, requires_grad=True)
    log_prob = wrapped.log_prob(point, torch.tensor(LEVELS))
    (slope,) = torch.autograd.grad(log_prob.sum(), point)
    np.testing.assert_allclose(slope, exact.score(POINTS, LEVELS), rtol=1e-8, atol=1e-10)
    for name in ("score", "denoise", "jacobian", "divergence"):
        found = getattr(wrapped, name)(torch.tensor(POINTS), torch.tensor(LEVELS))
        expected = getattr(wrapped, name)(POINTS, LEVELS)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
        for single in (POINTS.astype(np.float32), torch.tensor(POINTS, dtype=torch.float32)):
            result = getattr(wrapped, name)(single, LEVELS)
            assert str(result.dtype).endswith("float32")
            assert np.abs(np.asarray(result) - expected).max() < 1e-3 * np.abs(expected).max()


@every_exact
def test_exact_wrappers_pickle_and_declare(wrapped, exact):
    again = pickle.loads(pickle.dumps(wrapped))
    np.testing.assert_array_equal(again.score(POINTS, 0.4), wrapped.score(POINTS, 0.4))
    assert wrapped.has_log_prob and wrapped.has_jacobian and wrapped.has_sample
    assert wrapped.is_conservative is True and wrapped.is_differentiable
    assert wrapped.has_density == exact.has_density
    assert wrapped.n_features == exact.n_features
    assert wrapped.noise_scale == 1.0 and isinstance(wrapped.noise_scale, float)


# ------------------------------------------------------------------ one scale per column


@pytest.mark.parametrize("sigma", [0.1, 1.0, 20.0])
def test_a_scale_per_column_scales_the_noise_too(sigma):
    """x = b + S z: p_sigma is Gaussian with covariance S C S + (sigma S / s)^2."""
    model = AffineModel(INNER, SHIFT, COLUMNS)
    unit = np.exp(np.log(np.abs(COLUMNS)).mean())
    np.testing.assert_allclose(model.noise_scale, np.abs(COLUMNS) / unit, rtol=1e-14)
    assert np.prod(model.noise_scale) == pytest.approx(1, rel=1e-13)
    mean, clean = COLUMNS * MEAN + SHIFT, COVARIANCE * np.outer(COLUMNS, COLUMNS)
    noise = np.diag((sigma * model.noise_scale) ** 2)
    law = stats.multivariate_normal(mean, clean + noise)
    np.testing.assert_allclose(model.log_prob(POINTS, sigma), law.logpdf(POINTS), rtol=1e-10)
    precision = np.linalg.inv(clean + noise)
    score = -(POINTS - mean) @ precision
    np.testing.assert_allclose(model.score(POINTS, sigma), score, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.denoise(POINTS, sigma), POINTS + score @ noise, atol=1e-9)
    np.testing.assert_allclose(
        model.predict_noise(POINTS, sigma), -sigma * model.noise_scale * score, atol=1e-9
    )
    np.testing.assert_allclose(model.jacobian(POINTS, sigma)[0], -precision, atol=1e-10)
    gain = clean @ precision
    np.testing.assert_allclose(model.jacobian(POINTS, sigma, of="denoise")[0], gain, atol=1e-10)
    np.testing.assert_allclose(model.divergence(POINTS, sigma), -np.trace(precision), rtol=1e-9)
    np.testing.assert_allclose(
        model.divergence(POINTS, sigma, of="denoise"), np.trace(gain), rtol=1e-9
    )
    np.testing.assert_allclose(model.jvp(POINTS, sigma, V), -V @ precision, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        model.jvp(POINTS, sigma, V, of="denoise"), V @ gain.T, rtol=1e-8, atol=1e-10
    )
    posterior = clean - clean @ precision @ clean
    np.testing.assert_allclose(
        model.posterior_covariance(POINTS, sigma)[1], posterior, rtol=1e-7, atol=1e-9
    )
    # the latent code is x / (sigma S) far out, and the flow carries the law
    z = model.to_latent(POINTS, sigma)
    far = model.flow(POINTS, sigma, 1e9) / (1e9 * model.noise_scale)
    np.testing.assert_allclose(z, far, atol=1e-7)
    np.testing.assert_allclose(model.from_latent(z, sigma), POINTS, rtol=1e-10, atol=1e-11)
    x = model.sample(4000, sigma, random_state=0)
    total = clean + noise
    scale = np.sqrt(np.outer(total.diagonal(), total.diagonal()))
    assert np.all(np.abs(np.cov(x.T) - total) < 4.5 * scale * np.sqrt(2 / 4000))


def test_columns_are_whitened_by_the_flow_of_every_view():
    """The at-time velocity moves along the flow for noise that differs by column."""
    model = AffineModel(INNER, SHIFT, COLUMNS)
    view, h = model.at_time("flow_matching"), 1e-5
    t = 0.4
    ahead = (1 - t - h) * model.flow(POINTS, t / (1 - t), (t + h) / (1 - t - h))
    behind = (1 - t + h) * model.flow(POINTS, t / (1 - t), (t - h) / (1 - t + h))
    velocity = view.velocity((1 - t) * POINTS, t)
    np.testing.assert_allclose(velocity, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-7)
    # and at the data end it is the limit
    np.testing.assert_allclose(
        view.velocity(POINTS, 0.0), view.velocity(POINTS, 1e-7), rtol=1e-5, atol=1e-5
    )


def test_independent_columns_of_different_noise():
    scaled = AffineModel(GaussianModel([0.0, 1.0], 1.0), 0.0, [2.0, 0.5])
    model = IndependentModel([GaussianModel([3.0], 2.0), scaled])
    np.testing.assert_allclose(model.noise_scale, [1.0, 2.0, 0.5])
    np.testing.assert_allclose(
        model.denoise(POINTS, 1.0)[:, 1:], scaled.denoise(POINTS[:, 1:], 1.0), rtol=1e-14
    )
    np.testing.assert_allclose(
        model.denoise(POINTS, 0.5),
        (POINTS + (0.5 * model.noise_scale) ** 2 * model.score(POINTS, 0.5)),
        rtol=1e-12,
    )
    with pytest.raises(ValueError, match="noise_scale"):
        ProductModel([model, INNER])


# ------------------------------------------------------------------ products and temperature


def test_product_of_gaussians_at_level_zero():
    model, exact = product()
    np.testing.assert_allclose(model.score(POINTS, 0.0), exact.score(POINTS, 0.0), atol=1e-11)
    np.testing.assert_allclose(
        model.jacobian(POINTS, 0.0)[0], exact.jacobian(POINTS, 0.0)[0], atol=1e-12
    )
    np.testing.assert_allclose(
        model.divergence(POINTS, 0.0), exact.divergence(POINTS, 0.0), rtol=1e-12
    )
    np.testing.assert_allclose(model.jvp(POINTS, 0.0, V), exact.jvp(POINTS, 0.0, V), atol=1e-11)
    assert not model.has_log_prob and not model.has_sample and not model.has_flow
    with pytest.raises(NotImplementedError, match="ProductModel has no exact log-density"):
        model.log_prob(POINTS, 1.0)


@pytest.mark.parametrize("sigma", [0.2, LEVELS], ids=["one", "rows"])
def test_product_adds_scores_at_every_level(sigma):
    model, _ = product()
    first, second = model.models
    expected = 0.7 * first.score(POINTS, sigma) + 1.5 * second.score(POINTS, sigma)
    np.testing.assert_allclose(model.score(POINTS, sigma), expected, rtol=1e-14)
    columns = np.reshape(sigma, (-1, 1))
    np.testing.assert_allclose(
        model.denoise(POINTS, sigma), POINTS + columns**2 * expected, rtol=1e-12
    )


def test_temperature():
    model = TemperedModel(INNER, 2.0)
    hot = GaussianModel(MEAN, 2.0 * COVARIANCE)
    np.testing.assert_allclose(model.score(POINTS, 0.0), hot.score(POINTS, 0.0), atol=1e-12)
    np.testing.assert_allclose(model.score(POINTS, 0.7), INNER.score(POINTS, 0.7) / 2, rtol=1e-14)
    for wrong in (0.0, -1.0, np.inf, "hot"):
        with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
            TemperedModel(INNER, wrong)


# ------------------------------------------------------------------ switching


def test_switched_takes_each_side():
    low = GaussianModel(np.zeros(D), 0.5)
    model = SwitchedModel(INNER, low, 1.0)
    for sigma, side in [(0.0, low), (0.99, low), (1.0, INNER), (50.0, INNER)]:
        for name in ("score", "denoise", "jacobian", "divergence"):
            np.testing.assert_array_equal(
                getattr(model, name)(POINTS, sigma), getattr(side, name)(POINTS, sigma)
            )
        np.testing.assert_array_equal(model.jvp(POINTS, sigma, V), side.jvp(POINTS, sigma, V))
    for name in ("score", "denoise", "jacobian", "divergence"):
        rows = np.concatenate(
            [
                getattr(INNER if s >= 1 else low, name)(POINTS[i : i + 1], s)
                for i, s in enumerate(LEVELS)
            ]
        )
        found = getattr(model, name)(POINTS, LEVELS)
        np.testing.assert_allclose(found, rows, rtol=1e-12)
        in_torch = getattr(model, name)(torch.tensor(POINTS), torch.tensor(LEVELS))
        np.testing.assert_allclose(in_torch, rows, rtol=1e-11)
    zero_dim = model.score(torch.tensor(POINTS), torch.tensor(3.0))
    np.testing.assert_allclose(zero_dim, INNER.score(POINTS, 3.0), rtol=1e-12)


def test_switched_sides_are_never_asked_outside_their_range():
    """Below the hand-over the upper model would divide by zero; its rows must not matter."""
    low = GaussianModel(np.zeros(D), 0.5)
    model = SwitchedModel(SphereModel(D), low, 1.0)
    sigma = np.array([0.0, 0.0, 0.5, 2.0, 2.0, 2.0])
    with np.errstate(all="raise"):
        score = model.score(POINTS, sigma)
    assert np.isfinite(score).all()
    np.testing.assert_allclose(score[:3], -POINTS[:3] / (0.5 + sigma[:3, None] ** 2), rtol=1e-13)


def test_hand_over_outside_both_ranges():
    blurred = SphereModel(D)
    blurred.sigma_range = (0.5, 2.0)
    with pytest.raises(ValueError, match="hand-over"):
        SwitchedModel(blurred, INNER, 0.1)
    with pytest.raises(ValueError, match="hand-over"):
        SwitchedModel(INNER, blurred, 3.0)
    assert SwitchedModel(INNER, blurred, 1.0).sigma_range == (0.5, np.inf)


# ------------------------------------------------------------------ ranges and refusals


def test_ranges_follow_the_inner_model():
    inner = SphereModel(D)
    inner.sigma_range = (0.5, 2.0)
    assert AffineModel(inner, 0.0, 3.0).sigma_range == (1.5, 6.0)
    low, high = AffineModel(inner, 0.0, COLUMNS).sigma_range
    assert (low, high) == pytest.approx((1.0, 4.0))  # the geometric mean of 2, .5, 8 is 2
    smoothed = SmoothedModel(inner, 0.3)
    assert smoothed.sigma_range == pytest.approx((0.4, np.sqrt(3.91)))
    np.testing.assert_allclose(smoothed.score(POINTS, 0.4), inner.score(POINTS, 0.5), rtol=1e-13)
    with pytest.raises(ValueError, match=r"noise levels from 0\.4"):
        smoothed.score(POINTS, 0.39)
    with pytest.raises(ValueError, match=r"to 1\.97"):
        smoothed.score(POINTS, 2.0)
    assert SmoothedModel(inner, 0.5).sigma_range[0] == 0
    assert IndependentModel([inner, INNER]).sigma_range == (0.5, 2.0)
    assert SuperpositionModel([INNER, inner]).sigma_range == (0.5, 2.0)
    with pytest.raises(ValueError, match="largest noise level"):
        SmoothedModel(inner, 2.5)


def test_superposition_far_away_stays_finite():
    model, exact = superposed()
    far = 1e4 * POINTS
    np.testing.assert_allclose(model.score(far, 0.5), exact.score(far, 0.5), rtol=1e-9)
    np.testing.assert_allclose(model.log_prob(far, 0.5), exact.log_prob(far, 0.5), rtol=1e-12)


def test_superposition_of_two_rings():
    """Not Gaussian: derivatives by differences."""
    model = SuperpositionModel([SphereModel(2, 1.0), SphereModel(2, 0.5)], [1, 3])
    assert model.weights == (0.25, 0.75)
    x, h, sigma = POINTS[:, :2] / 3, 1e-5, 0.2
    steps = h * np.eye(2)
    slope = np.stack(
        [(model.log_prob(x + e, sigma) - model.log_prob(x - e, sigma)) / (2 * h) for e in steps], 1
    )
    np.testing.assert_allclose(model.score(x, sigma), slope, rtol=1e-6, atol=1e-6)
    for of in ("score", "denoise"):
        field = getattr(model, of)
        numeric = np.stack(
            [(field(x + e, sigma) - field(x - e, sigma)) / (2 * h) for e in steps], 2
        )
        scale = np.abs(numeric).max()
        np.testing.assert_allclose(model.jacobian(x, sigma, of=of), numeric, atol=1e-7 * scale)
    radius = np.linalg.norm(model.sample(4000, random_state=0), axis=1)
    inner = np.isclose(radius, 0.5).mean()
    assert np.all(np.isclose(radius, 0.5) | np.isclose(radius, 1.0))
    assert abs(inner - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)


def test_scales_by_column_compose(rng):
    columns, more = np.array(COLUMNS), np.geomspace(0.5, 3.0, D)
    twice = AffineModel(AffineModel(INNER, scale=columns), scale=more)
    once = AffineModel(INNER, scale=columns * more)
    x = rng.standard_normal((7, D))
    np.testing.assert_allclose(twice.noise_scale, once.noise_scale, rtol=1e-12)
    np.testing.assert_allclose(twice.score(x, 0.7), once.score(x, 0.7), rtol=1e-10)
    np.testing.assert_allclose(twice.log_prob(x, 0.7), once.log_prob(x, 0.7), rtol=1e-10)
    # scaled back, the noise is isotropic again
    back = AffineModel(AffineModel(INNER, scale=columns), scale=1 / columns)
    assert back.noise_scale == 1.0
    np.testing.assert_allclose(back.denoise(x, 0.7), INNER.denoise(x, 0.7), rtol=1e-10)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: AffineModel(INNER, scale=0.0), "scale must be a finite non-zero"),
        (lambda: AffineModel(INNER, scale=[1.0, 2.0]), "scale must be"),
        (lambda: AffineModel(INNER, shift=[1.0]), "shift must be"),
        (lambda: AffineModel(INNER, shift=np.nan), "shift must be"),
        (lambda: AffineModel(INNER, rotation=np.ones((D, D))), "orthogonal"),
        (lambda: AffineModel(INNER, scale=COLUMNS, rotation=ROTATION), "isotropic noise"),
        (lambda: SmoothedModel(INNER, 0.0), "noise must be a finite number above 0"),
        (lambda: IndependentModel([]), "at least one"),
        (lambda: ProductModel([]), "at least one"),
        (lambda: ProductModel([INNER, GaussianModel([0.0], 1.0)]), "number of features"),
        (lambda: ProductModel([INNER], [1.0, 2.0]), "one finite number per model"),
        (lambda: SwitchedModel(INNER, GaussianModel([0.0], 1.0), 1.0), "number of features"),
        (lambda: SwitchedModel(INNER, INNER, -1.0), "sigma must be"),
        (lambda: SuperpositionModel([]), "at least one"),
        (lambda: SuperpositionModel([INNER, TemperedModel(INNER, 2.0)]), "TemperedModel has none"),
        (lambda: SuperpositionModel([INNER, INNER], [1.0, 0.0]), "one positive number"),
        (lambda: SuperpositionModel([INNER, INNER], [1.0]), "one positive number"),
    ],
)
def test_refusals(build, match):
    with pytest.raises(ValueError, match=match):
        build()


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: AffineModel(GaussianScore()), "a score model is needed; got GaussianScore"),
        (lambda: SwitchedModel(INNER, np.tanh, 1.0), "a score model is needed; got ufunc"),
        (lambda: TemperedModel("gaussian", 2.0), "a score model is needed; got str"),
        (lambda: IndependentModel(INNER), "a sequence of score models; got GaussianModel"),
        (lambda: ProductModel(INNER), "a sequence of score models; got GaussianModel"),
        (lambda: SuperpositionModel(3), "a sequence of score models; got int"),
    ],
)
def test_what_is_no_model_is_named(build, match):
    with pytest.raises(TypeError, match=match):
        build()


def test_weights_of_a_stack_at_any_level():
    stack = StackedModel([INNER, INNER], [0.1, 1.0, 10.0], [[1, 0], [0.5, 0.5], [0, 1]])
    between = 10**-0.5  # half way in the logarithm
    np.testing.assert_allclose(stack.weights_at(between), [0.75, 0.25], rtol=1e-12)
    for levels in ([between, 100], np.float32(between), torch.tensor([between, 100.0])):
        found = stack.weights_at(levels)
        expected = [0.75, 0.25] if np.ndim(found) == 1 else [[0.75, 0.25], [0, 1]]
        np.testing.assert_allclose(found, expected, atol=1e-7)  # of float32
    for wrong in (0.0, [1.0, -1.0], np.nan):
        with pytest.raises(ValueError, match="sigma must be positive and finite"):
            stack.weights_at(wrong)
