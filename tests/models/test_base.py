"""The mixin: one function gives all the others, and wrong requests are one sentence."""

import pickle
import re

import numpy as np
import pytest
import torch

from skdiffusion.models import BaseScoreModel, GaussianModel, SphereModel

VARIANCE, D = 0.5, 3
EXACT = GaussianModel(np.zeros(D), VARIANCE)
RNG = np.random.default_rng(41)
POINTS = RNG.standard_normal((5, D))
LEVELS = np.array([0.1, 0.4, 1.0, 3.0, 20.0])


class ByScore(BaseScoreModel):
    n_features = D

    def _score(self, x, sigma):
        return -x / (VARIANCE + sigma**2)


class ByDenoiser(BaseScoreModel):
    n_features = D

    def _denoise(self, x, sigma):
        return x * VARIANCE / (VARIANCE + sigma**2)


class ByNoiseOfItsOwn(ByDenoiser):
    """Noise of another size in every column: x = x0 + sigma S eps."""

    noise_scale = np.array([1.0, 2.0, 0.5])

    def _denoise(self, x, sigma):
        noise = (sigma * self._noise_scale_like(x)) ** 2
        return x * VARIANCE / (VARIANCE + noise)

    has_jacobian = True

    def _denoise_jacobian(self, x, sigma):
        noise = (sigma * self._noise_scale_like(x)) ** 2 + 0 * x
        return (VARIANCE / (VARIANCE + noise))[..., None] * self._identity(x)


class ByScoreWithJacobian(ByScore):
    has_jacobian = True

    def _score_jacobian(self, x, sigma):
        return (x * 0 - 1 / (VARIANCE + sigma**2))[..., None] * self._identity(x)


class Labelled(BaseScoreModel):
    n_features = 1
    is_conditional = True

    def _denoise(self, x, sigma, y=None):
        return x * 0 if y is None else x * 0 + np.asarray(y)[:, None]


@pytest.mark.parametrize("model", [ByScore(), ByDenoiser()])
@pytest.mark.parametrize("sigma", [0.3, 2, np.float32(0.5), LEVELS, LEVELS.tolist()])
def test_one_function_gives_the_others(model, sigma):
    for name in ("score", "denoise", "predict_noise"):
        np.testing.assert_allclose(
            getattr(model, name)(POINTS, sigma), getattr(EXACT, name)(POINTS, sigma), rtol=1e-10
        )
    np.testing.assert_allclose(
        model.posterior_covariance(POINTS, sigma),
        EXACT.posterior_covariance(POINTS, sigma),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("sigma", [0.3, LEVELS])
def test_noise_of_another_size_in_every_column(sigma):
    model = ByNoiseOfItsOwn()
    noise = (np.reshape(sigma, (-1, 1)) * model.noise_scale) ** 2 + 0 * POINTS
    score = -POINTS / (VARIANCE + noise)
    np.testing.assert_allclose(model.score(POINTS, sigma), score, rtol=1e-12)
    np.testing.assert_allclose(
        model.predict_noise(POINTS, sigma), -np.sqrt(noise) * score, rtol=1e-12
    )
    # Tweedie: x = D + sigma S eps
    rebuilt = model.denoise(POINTS, sigma) + np.sqrt(noise) * model.predict_noise(POINTS, sigma)
    np.testing.assert_allclose(rebuilt, POINTS, rtol=1e-12)
    posterior = np.stack([np.diag(row) for row in VARIANCE * noise / (VARIANCE + noise)])
    np.testing.assert_allclose(model.posterior_covariance(POINTS, sigma), posterior, atol=1e-13)
    jacobian = np.stack([np.diag(row) for row in -1 / (VARIANCE + noise)])
    np.testing.assert_allclose(model.jacobian(POINTS, sigma), jacobian, rtol=1e-10, atol=1e-13)
    v = np.ones_like(POINTS)
    np.testing.assert_allclose(model.jvp(POINTS, sigma, v), jacobian @ np.ones(D), rtol=1e-10)
    np.testing.assert_allclose(
        model.divergence(POINTS, sigma), np.trace(jacobian, axis1=1, axis2=2), rtol=1e-10
    )


@pytest.mark.parametrize("sigma", [0.3, LEVELS])
def test_either_jacobian_gives_the_other(sigma):
    for of in ("score", "denoise"):
        np.testing.assert_allclose(
            ByScoreWithJacobian().jacobian(POINTS, sigma, of=of),
            EXACT.jacobian(POINTS, sigma, of=of),
            rtol=1e-10,
            atol=1e-12,
        )


# ------------------------------------------------------------------ arrays


@pytest.mark.parametrize("model", [ByScore(), ByDenoiser(), ByNoiseOfItsOwn(), EXACT])
@pytest.mark.parametrize("name", ["score", "denoise", "predict_noise"])
def test_results_live_where_the_points_live(model, name):
    exact = getattr(model, name)(POINTS, LEVELS)
    kinds = [
        (POINTS.astype(np.float32), np.float32),
        (torch.tensor(POINTS), torch.float64),
        (torch.tensor(POINTS, dtype=torch.float32), torch.float32),
    ]
    for x, dtype in kinds:
        for sigma in (LEVELS, torch.tensor(LEVELS), LEVELS.astype(np.float32)):
            found = getattr(model, name)(x, sigma)
            assert found.dtype == dtype and type(found) is type(x)
            # float32 keeps seven digits of x; small differences of it lose some
            np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)
    integers = getattr(model, name)(np.ones((2, D), dtype=int), 1.0)
    assert integers.dtype == np.float64
    assert getattr(model, name)(POINTS[:0], 1.0).shape == (0, D)
    assert getattr(model, name)(POINTS.tolist(), 1.0).dtype == np.float64


def test_the_input_is_never_written_to():
    x = POINTS.copy()
    x.setflags(write=False)
    for model in (ByScore(), ByDenoiser(), EXACT, SphereModel(D)):
        model.score(x, 0.5), model.denoise(x, 0.5), model.predict_noise(x, LEVELS)
    np.testing.assert_array_equal(x, POINTS)


def test_strided_points():
    wide = np.repeat(POINTS, 2, axis=1)
    for x in (np.asfortranarray(POINTS), wide[:, ::2], POINTS[::-1][::-1]):
        np.testing.assert_array_equal(EXACT.score(x, 0.5), EXACT.score(POINTS, 0.5))


def test_a_scalar_tensor_level_keeps_its_graph():
    level = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    EXACT.score(torch.tensor(POINTS), level).sum().backward()
    expected = (POINTS * 2 * 0.5 / (VARIANCE + 0.25) ** 2).sum()
    assert float(level.grad) == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------ flags and refusals


def one_sentence(error, *words):
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert not re.search(r"\bno an?\b|\ba an?\b", message), message


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda m: m.log_prob(POINTS, 1.0), "exact log-density"),
        (lambda m: m.jacobian(POINTS, 1.0), "closed-form Jacobian"),
        (lambda m: m.jvp(POINTS, 1.0, POINTS), "closed-form Jacobian"),
        (lambda m: m.divergence(POINTS, 1.0), "closed-form Jacobian"),
        (lambda m: m.sample(3), "exact draws"),
        (lambda m: m.flow(POINTS, 1.0, 0.5), "closed-form flow"),
        (lambda m: m.to_latent(POINTS), "closed-form flow"),
        (lambda m: m.from_latent(POINTS), "closed-form flow"),
    ],
)
def test_what_a_model_does_not_know(call, what):
    with pytest.raises(NotImplementedError) as caught:
        call(ByDenoiser())
    one_sentence(caught, "ByDenoiser has no", what)


@pytest.mark.parametrize(
    "x", [np.ones(D), np.ones((2, D + 1)), np.ones((2, 2, D)), np.float64(1.0), []]
)
def test_wrong_points(x):
    with pytest.raises(ValueError) as caught:
        ByDenoiser().score(x, 1.0)
    one_sentence(caught, "x must have shape (n, 3)")


def test_integer_tensors():
    with pytest.raises(ValueError, match="floating dtype"):
        EXACT.score(torch.ones((2, D), dtype=torch.int64), 1.0)


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf, [1.0, 1.0, 1.0, 1.0, 0.0]])
def test_wrong_levels(sigma):
    for method in ("score", "denoise", "predict_noise"):
        with pytest.raises(ValueError) as caught:
            getattr(ByDenoiser(), method)(POINTS, sigma)
        one_sentence(caught, "sigma must be positive and finite")


@pytest.mark.parametrize("sigma", ["a", None, [1.0, "a"], [[1.0], [1.0, 2.0]]])
def test_levels_that_are_no_numbers(sigma):
    with pytest.raises(ValueError) as caught:
        EXACT.denoise(POINTS, sigma)
    one_sentence(caught, "sigma must be a non-negative number, or one per row; got")


@pytest.mark.parametrize("sigma", [[1.0, 2.0], np.ones((5, 1)), np.ones((5, D))])
def test_levels_of_a_wrong_shape(sigma):
    with pytest.raises(ValueError) as caught:
        ByDenoiser().score(POINTS, sigma)
    one_sentence(caught, "one level per row, shape (5,)")
    with pytest.raises(ValueError, match="one level per row"):
        ByDenoiser().score(POINTS, torch.tensor(np.asarray(sigma)))


def test_level_zero_of_a_law_with_a_density():
    np.testing.assert_allclose(EXACT.score(POINTS, 0.0), -POINTS / VARIANCE, rtol=1e-14)
    np.testing.assert_allclose(EXACT.denoise(POINTS, 0), POINTS, rtol=1e-15)
    np.testing.assert_array_equal(EXACT.predict_noise(POINTS, 0.0), 0)
    np.testing.assert_array_equal(EXACT.posterior_covariance(POINTS, 0.0), 0)
    with pytest.raises(ValueError, match="sigma must be non-negative"):
        EXACT.score(POINTS, -1e-9)


def test_range_of_levels():
    class Trained(ByDenoiser):
        sigma_range = (0.1, 10.0)

    model = Trained()
    model.score(POINTS, 0.1), model.score(POINTS, 10.0 * (1 + 1e-12))
    model.score(POINTS, np.array([0.1, 1.0, 10.0, 1.0, 1.0]))
    for sigma, bad in [(0.05, "0.05"), (20.0, "20"), (np.array([1, 1, 1, 1, 0.01]), "0.01")]:
        with pytest.raises(ValueError) as caught:
            model.score(POINTS, sigma)
        one_sentence(caught, "Trained is defined for noise levels from 0.1 to 10", f"got {bad}")


def test_labels():
    x = np.zeros((2, 1))
    np.testing.assert_array_equal(Labelled().denoise(x, 1.0, y=[3.0, 4.0]), [[3.0], [4.0]])
    np.testing.assert_array_equal(Labelled().denoise(x, 1.0), 0)
    with pytest.raises(ValueError) as caught:
        ByDenoiser().score(POINTS, 1.0, y=np.zeros(5))
    one_sentence(caught, "ByDenoiser is unconditional")


def test_wrong_field():
    with pytest.raises(ValueError) as caught:
        EXACT.jacobian(POINTS, 1.0, of="energy")
    one_sentence(caught, "of must be 'score' or 'denoise'")


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True])
def test_wrong_number_of_samples(n):
    with pytest.raises(ValueError) as caught:
        EXACT.sample(n)
    one_sentence(caught, "n_samples must be an integer of at least 1")


# ------------------------------------------------------------------ sampling


def test_samples_are_clean_draws_plus_noise():
    class Points(ByNoiseOfItsOwn):
        has_sample = True

        def _draw(self, n_samples, rng):
            return np.zeros((n_samples, D))

    np.testing.assert_array_equal(Points().sample(4), 0)
    x = Points().sample(20_000, 0.5, random_state=0)
    expected = 0.5 * Points.noise_scale
    np.testing.assert_allclose(x.std(axis=0), expected, rtol=4 / np.sqrt(2 * 20_000))
    rows = Points().sample(3, np.array([0.0, 1.0, 0.0]), random_state=0)
    assert np.all(rows[[0, 2]] == 0) and np.all(rows[1] != 0)
    with pytest.raises(ValueError, match="sigma must be non-negative"):
        Points().sample(3, -1.0)


def test_kinds_of_random_state():
    seeded = EXACT.sample(3, random_state=1)
    np.testing.assert_array_equal(EXACT.sample(3, random_state=np.random.default_rng(1)), seeded)
    legacy = np.random.RandomState(1)
    first = EXACT.sample(3, random_state=legacy)
    assert not np.array_equal(EXACT.sample(3, random_state=legacy), first)
    assert EXACT.sample().shape == (1, D)
    with pytest.raises(ValueError, match="random_state"):
        EXACT.sample(3, random_state="seed")


def test_models_pickle():
    model = pickle.loads(pickle.dumps(ByDenoiser()))
    np.testing.assert_array_equal(model.score(POINTS, 1.0), ByDenoiser().score(POINTS, 1.0))
