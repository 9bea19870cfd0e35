"""Random features: their exact moments under noise, and the score model made of them."""

import tracemalloc

import numpy as np
import pytest
import sklearn
from scipy.special import ndtr

from skdiffusion.models import AffineModel, RandomFeatureModel, RandomFeatures
from skdiffusion.models._feature_maps import FEATURE_MAPS
from skdiffusion.utils.estimator_checks import check_score_model

LEVELS = np.geomspace(0.05, 20.0, 5)


def some_features(feature_map="cos", d=3, p=20, parameterization="data", seed=0):
    rng = np.random.default_rng(seed)
    return RandomFeatures(
        0.8 * rng.standard_normal((p, d)),
        FEATURE_MAPS[feature_map]().phases(rng, p),
        0.3 * rng.standard_normal(p),
        feature_map=feature_map,
        parameterization=parameterization,
        variances=np.linspace(0.5, 2.0, d),
    )


def some_model(feature_map="cos", joint=False, parameterization="data", d=3):
    features = some_features(feature_map, d, parameterization=parameterization)
    shape = (d, features.size) if joint else (len(LEVELS), d, features.size)
    coefficients = np.random.default_rng(1).standard_normal(shape)
    levels = None if joint else LEVELS
    return RandomFeatureModel(features, coefficients, levels, (LEVELS[0], LEVELS[-1]))


# ------------------------------------------------------------------ the model


@pytest.mark.parametrize("parameterization", ["data", "noise", "gaussian", "edm"])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("feature_map", ["cos", "relu"])
def test_contract(feature_map, joint, parameterization):
    model = some_model(feature_map, joint, parameterization)
    check_score_model(model)
    check_score_model(AffineModel(model, shift=3.0, scale=7.0))


@pytest.mark.parametrize("joint", [False, True])
def test_rows_are_served_in_blocks_that_do_not_matter(joint, rng):
    model = some_model("relu", joint)
    x, v = rng.standard_normal((2, 50, 3))
    levels = np.geomspace(0.1, 10.0, 50)

    def answers(x, levels, v):
        numbers = [
            answer
            for sigma in (1.0, levels)
            for answer in (
                model.denoise(x, sigma),
                model.jvp(x, sigma, v),
                model.jacobian(x, sigma),
                model.divergence(x, sigma),
            )
        ]
        return [np.asarray(answer) for answer in numbers]

    whole = answers(x, levels, v)
    torch = pytest.importorskip("torch")
    with sklearn.config_context(working_memory=0.02):  # some ten rows
        blocks = answers(x, levels, v)
        torch_blocks = answers(*map(torch.from_numpy, (x, levels, v)))
    for one, other, third in zip(whole, blocks, torch_blocks, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(third, one, rtol=1e-12, atol=1e-12)


def test_memory_does_not_grow_with_the_rows(rng):
    wide = RandomFeatures(rng.standard_normal((400, 3)), np.zeros(400))
    model = RandomFeatureModel(wide, rng.standard_normal((5, 3, 400)), LEVELS)
    x = rng.standard_normal((30_000, 3))
    tracemalloc.start()
    model.denoise(x, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # rows come and go; eight arrays of 2^18 features, where all rows would have 96 MB in each
    assert peak < 8 * 2**18 * 8 + 10 * x.nbytes


def test_matrices_are_linear_in_the_logarithm_of_the_level(rng):
    model = some_model()
    x = rng.standard_normal((4, 3))
    for k, level in enumerate(LEVELS):
        alone = RandomFeatureModel(model.features, model.coefficients[k])
        np.testing.assert_allclose(model.denoise(x, level), alone.denoise(x, level), atol=1e-12)
    middle = np.sqrt(LEVELS[1] * LEVELS[2])
    mean = RandomFeatureModel(model.features, model.coefficients[1:3].mean(0))
    np.testing.assert_allclose(model.denoise(x, middle), mean.denoise(x, middle), atol=1e-12)


def test_rows_at_different_levels(rng):
    for joint in (False, True):
        model = some_model("relu", joint)
        x = rng.standard_normal((3, 3))
        levels = np.array([0.07, 1.3, 20.0])
        alone = [model.denoise(x[k : k + 1], level)[0] for k, level in enumerate(levels)]
        np.testing.assert_allclose(model.denoise(x, levels), alone, atol=1e-12)
        assert model.denoise(x[:0], levels[:0]).shape == (0, 3)


def test_what_is_refused():
    features = some_features()
    with pytest.raises(ValueError, match=r"coefficients must have shape \(3, 20\)"):
        RandomFeatureModel(features, np.zeros((2, 20)))
    with pytest.raises(ValueError, match="levels must rise uniformly"):
        RandomFeatureModel(features, np.zeros((3, 3, 20)), [1.0, 2.0, 8.0])
    with pytest.raises(ValueError, match="Unknown feature_map 'cosine'"):
        RandomFeatures(np.ones((2, 1)), np.zeros(2), feature_map="cosine")
    with pytest.raises(ValueError, match=r"phases and rates must have shape \(2,\)"):
        RandomFeatures(np.ones((2, 1)), np.zeros(3))


# ------------------------------------------------------------------ exact moments


def gram_by_draws(feature_map, means, lines, weights, n_draws, rng):
    """The same by noise, with its standard error."""
    total, squared = 0.0, 0.0
    for _ in range(n_draws):
        noise = rng.standard_normal((len(means), lines.shape[1]))
        values = feature_map.value(means + noise @ lines.T)
        found = (weights[:, None] * values).T @ values
        total, squared = total + found, squared + found**2
    mean = total / n_draws
    return mean, np.sqrt(np.maximum(squared / n_draws - mean**2, 0) / n_draws)


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("name", ["cos", "relu"])
def test_moments_against_draws(name, d, rng):
    feature_map = FEATURE_MAPS[name]()
    means, lines = rng.standard_normal((6, 8)), rng.standard_normal((8, d))
    weights = rng.uniform(0.5, 2, 6)
    exact = feature_map.gram(means, lines @ lines.T, weights)
    drawn, error = gram_by_draws(feature_map, means, lines, weights, 20_000, rng)
    # 64 entries at five standard errors; Mehler's series leaves 3e-4 where angles are parallel
    assert (np.abs(exact - drawn) < 5 * error + (3e-4 if name == "relu" else 0) * exact.max()).all()
    spread = np.linalg.norm(lines, axis=1)
    noise = rng.standard_normal((200_000, 1)) * spread + means[0]
    values, slopes = feature_map.means(means[:1], spread)
    for found, sample in (
        (values[0], feature_map.value(noise)),
        (slopes[0], feature_map.slope(noise)),
    ):
        assert (np.abs(found - sample.mean(0)) <= 5 * sample.std(0) / 200_000**0.5).all()


@pytest.mark.parametrize("name", ["cos", "relu"])
def test_error_of_drawn_moments_falls_with_the_root_of_their_number(name):
    feature_map = FEATURE_MAPS[name]()
    rng = np.random.default_rng(3)
    means, lines = rng.standard_normal((4, 12)), 0.7 * rng.standard_normal((12, 5))
    exact = feature_map.gram(means, lines @ lines.T, np.ones(4))
    counts = np.array([10, 100, 1000, 10_000])
    errors = []
    for count in counts:
        gaps = [
            gram_by_draws(feature_map, means, lines, np.ones(4), count, rng)[0] - exact
            for _ in range(3)
        ]
        errors.append(np.sqrt(np.mean(np.square(gaps))))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    # 144 dependent entries and three repeats per count: some ten percent each
    assert slope == pytest.approx(-0.5, abs=0.06)


def test_relu_of_two_independent_angles_is_a_product():
    feature_map = FEATURE_MAPS["relu"]()
    means = np.array([[0.3, -0.8]])
    gram = feature_map.gram(means, np.diag([1.0, 4.0]), np.ones(1))
    values = feature_map.means(means, np.array([1.0, 2.0]))[0][0]
    assert gram[0, 1] == pytest.approx(values[0] * values[1], rel=1e-14)
    # E max(z + m, 0)^2 = (m^2 + 1) Phi(m) + m phi(m)
    m = 0.3
    second = (m**2 + 1) * ndtr(m) + m * np.exp(-(m**2) / 2) / np.sqrt(2 * np.pi)
    assert gram[0, 0] == pytest.approx(second, rel=1e-14)


@pytest.mark.parametrize("angle", [0.4, 1.2, 2.5])
def test_relu_at_zero_is_the_arc_cosine_kernel(angle):
    # Cho & Saul 2009: E max(a, 0) max(b, 0) = (sin t + (pi - t) cos t) / (2 pi)
    covariance = np.array([[1.0, np.cos(angle)], [np.cos(angle), 1.0]])
    gram = FEATURE_MAPS["relu"]().gram(np.zeros((1, 2)), covariance, np.ones(1))
    kernel = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    # what is left of the series: cos(0.4)^48 = 0.02 of 3e-4 times a second moment of a half
    assert gram[0, 1] == pytest.approx(kernel, abs=5e-6)


def test_without_noise_moments_are_those_of_the_rows(rng):
    means, lines = rng.standard_normal((5, 7)), 1e-9 * rng.standard_normal((7, 3))
    for feature_map in (FEATURE_MAPS["cos"](), FEATURE_MAPS["relu"]()):
        values = feature_map.value(means)
        gram = feature_map.gram(means, lines @ lines.T, np.ones(5))
        np.testing.assert_allclose(gram, values.T @ values, atol=1e-8)
