"""Markov chains at a noise level: known bias, detailed balance, invariant laws."""

import numpy as np
import pytest
from scipy.stats import norm
from two_sample import affine_step, assert_moments, assert_same_law, law_of_scheme

from skdiffusion.models import AffineModel, BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import (
    EulerSampler,
    HeunSampler,
    LangevinSampler,
    MALASampler,
    PredictorCorrectorSampler,
    run_sampler,
)
from skdiffusion.samplers.base import BoundModel
from skdiffusion.samplers.langevin import langevin_moves
from skdiffusion.utils.row_noise import RowNoise

MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])


class Blind(BaseScoreModel):
    """A model of which only the denoiser is known."""

    is_differentiable = False

    def __init__(self, model):
        self.inner, self.n_features = model, model.n_features

    def _denoise(self, x, sigma):
        return self.inner._denoise(x, sigma)


def geometric(n_steps, high=10.0, low=0.05):
    return np.geomspace(high, low, n_steps + 1)


def moves(model, x, level, **how):
    noise = RowNoise([1, 2], scale=model.noise_scale)
    return langevin_moves(BoundModel(model, x.dtype), x, level, noise, **how)


@pytest.mark.parametrize("variance", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("h", [0.1, 1.0, 3.9])
def test_bias_of_unadjusted_moves_is_the_closed_form(variance, h):
    s = 1.3
    r = s**2 / (variance + s**2)
    sampler = LangevinSampler(n_moves=1, step_size=h)
    a, b, c = affine_step(sampler, GaussianModel([2.0], variance), s, s)
    np.testing.assert_allclose([a, b, c], [1 - h * r / 2, h * r, s * h**0.5], rtol=1e-13)
    stationary = c**2 / (1 - a**2)
    assert stationary == pytest.approx((variance + s**2) / (1 - h * r / 4), rel=1e-10)


def test_several_moves_are_the_composition():
    model = GaussianModel([2.0], 0.5)
    one = LangevinSampler(n_moves=1)
    law = law_of_scheme(one, model, [0.8] * 8, 5.0, 3.0)
    at_once = law_of_scheme(LangevinSampler(n_moves=7), model, [0.8, 0.8], 5.0, 3.0)
    np.testing.assert_allclose(at_once, law, rtol=1e-12)


class Scripted:
    """Noise that proposes given moves and decides by given uniforms."""

    def __init__(self, scale, forth, uniform):
        self.scale, self.forth, self.u = scale, forth, uniform

    def normal(self, x):
        return self.forth

    def uniform(self, x):
        return self.u


@pytest.mark.parametrize(
    "model", [MIXTURE, AffineModel(MIXTURE, scale=[0.2, 5.0])], ids=["isotropic", "by column"]
)
def test_detailed_balance_holds_for_every_pair_of_points(model):
    s, h = 0.5, 1.5
    scale = s * np.sqrt(h) * np.ones(2) * model.noise_scale
    here, there = model.sample(50, s, random_state=0), model.sample(50, s, random_state=1)
    bound = BoundModel(model, np.float64)

    def flow(x, y):
        """Log of p(x) q(y | x) times the probability that the move is accepted, found by trial."""
        forth = y - x - h / 2 * (model.denoise(x, s) - x)
        low, high = np.zeros((50, 1)), np.ones((50, 1))
        for _ in range(60):
            u = (low + high) / 2
            noise = Scripted(model.noise_scale, forth / (s * np.sqrt(h)), u)
            _, yes = langevin_moves(bound, x, s, noise, step_size=h, n_moves=1, adjusted=True)
            low, high = np.where(yes > 0, u, low), np.where(yes > 0, high, u)
        return (
            model.log_prob(x, s) - 0.5 * ((forth / scale) ** 2).sum(1) + np.log(high[:, 0])
        ), high[:, 0]

    (forward, share), (backward, its_share) = flow(here, there), flow(there, here)
    known = np.minimum(share, its_share) > 1e-8  # smaller ones are not resolved by halving
    assert known.sum() > 20
    np.testing.assert_allclose(forward[known], backward[known], atol=1e-7)
    # of each pair one direction is always accepted: Metropolis' rule, not a timid one
    np.testing.assert_allclose(np.maximum(share, its_share), 1.0, atol=1e-12)


def test_adjusted_moves_keep_the_law_where_plain_ones_do_not():
    s, n = 0.3, 4000
    x = MIXTURE.sample(n, s, random_state=0)
    far_step = {"step_size": 6.0, "n_moves": 20}
    after, accepted = moves(MIXTURE, x, s, adjusted=True, **far_step)
    law = MIXTURE.gaussian()
    covariance = law.covariance.to_matrix() + s**2 * np.eye(2)
    assert_moments(after, law.mean, covariance)
    assert_same_law(after, MIXTURE.sample(n, s, random_state=1))
    assert 0.5 < accepted.mean() < 0.95
    with pytest.raises(AssertionError):
        assert_same_law(moves(MIXTURE, x, s, **far_step)[0], MIXTURE.sample(n, s, random_state=1))


def test_adjusted_moves_find_the_law_from_anywhere():
    s = 1.0  # modes overlap: a hundred moves forget the start
    x = run_sampler(MALASampler(), MIXTURE, np.full((3000, 2), 3.0), [s] * 21, random_state=0)
    assert_same_law(x, MIXTURE.sample(3000, s, random_state=1))


def test_acceptance_rises_as_steps_shrink_and_does_not_fall_with_the_dimension():
    noise = GaussianModel(np.zeros(8), 0.0)
    x = noise.sample(2000, 1.0, random_state=0)
    sizes = (4.0, 1.0, 0.25, 0.01)
    rates = [moves(noise, x, 1.0, step_size=h, n_moves=5, adjusted=True)[1].mean() for h in sizes]
    assert (np.diff(rates) > 0).all() and rates[-1] > 0.999
    for d in (8, 64, 512):
        noise = GaussianModel(np.zeros(d), 0.0)
        x = noise.sample(500, 1.0, random_state=0)
        h = MALASampler().step_size / d ** (1 / 3)
        rate = moves(noise, x, 1.0, step_size=h, n_moves=20, adjusted=True)[1].mean()
        # Roberts and Rosenthal 1998: the limit for a standard normal and step size one. It is
        # approached like d^(-1/3); the standard error of the mean is below 0.003
        assert rate == pytest.approx(2 * norm.cdf(-1 / 8), abs=0.01 + 0.05 * d ** (-1 / 3))


@pytest.mark.parametrize(
    "sampler, n_steps",
    [
        (LangevinSampler(n_moves=40, step_size=0.1), 30),
        (MALASampler(n_moves=10), 30),
        (PredictorCorrectorSampler(), 60),
        (PredictorCorrectorSampler(predictor="ddpm"), 100),
        (PredictorCorrectorSampler(predictor="heun", corrector=MALASampler(n_moves=1)), 30),
    ],
    ids=["langevin", "mala", "euler+langevin", "ddpm+langevin", "heun+mala"],
)
def test_samples_of_a_mixture_cannot_be_told_from_exact_ones(sampler, n_steps):
    x = MIXTURE.sample(2000, 10.0, random_state=1)
    x = run_sampler(sampler, MIXTURE, x, [*geometric(n_steps), 0.0], random_state=2)
    assert_same_law(x, MIXTURE.sample(2000, random_state=3))
    law = MIXTURE.gaussian()
    assert_moments(x, law.mean, law.covariance.to_matrix())


def test_a_corrector_mends_what_a_coarse_predictor_breaks():
    line, levels = GaussianModel([0.0], 0.25), geometric(8, 10.0, 0.5)
    exact = 0.25 + 0.5**2
    corrector = LangevinSampler(n_moves=20, step_size=0.2)
    both = PredictorCorrectorSampler(predictor="euler", corrector=corrector)
    start = (0.0, 0.25 + 10.0**2)
    _, alone = law_of_scheme(EulerSampler(), line, levels, *start)
    _, mended = law_of_scheme(both, line, levels, *start)
    # what is left is the corrector's own bias, r h / 4 = 0.025 with r = 1/2, and a little memory
    assert abs(mended / exact - 1) < 0.03 < abs(alone / exact - 1)


def test_a_corrector_that_does_nothing_leaves_the_predictor():
    x, levels = MIXTURE.sample(30, 10.0, random_state=0), [*geometric(10), 0.0]
    both = PredictorCorrectorSampler(predictor="heun", corrector="euler")
    np.testing.assert_array_equal(
        run_sampler(both, MIXTURE, x, levels), run_sampler(HeunSampler(), MIXTURE, x, levels)
    )


@pytest.mark.parametrize("sampler", [MALASampler(), PredictorCorrectorSampler(corrector="mala")])
def test_a_model_without_a_density_is_refused_in_words(sampler):
    with pytest.raises(
        ValueError, match="MALASampler needs a model with an exact log-density, and"
    ):
        run_sampler(sampler, Blind(MIXTURE), np.ones((2, 2)), [1.0, 0.0])


def test_a_model_that_breaks_is_caught_by_adjusted_moves_too():
    class Breaks(Blind):
        has_log_prob = True

        def _denoise(self, x, sigma):
            return super()._denoise(x, sigma) * (np.nan if sigma < 0.5 else 1.0)

        def _log_prob(self, x, sigma):
            return self.inner.log_prob(x, sigma)

    with pytest.raises(FloatingPointError, match="step 2 of 2 of MALASampler, from noise level 1"):
        run_sampler(MALASampler(), Breaks(MIXTURE), np.ones((2, 2)), [2.0, 1.0, 0.3])


@pytest.mark.parametrize(
    "sampler, message",
    [
        (LangevinSampler(n_moves=0), "n_moves must be an integer of at least 1; got 0"),
        (LangevinSampler(step_size=4.0), "step_size must be below 4, where unadjusted moves div"),
        (MALASampler(step_size=0), "step_size must be a finite number above 0; got 0"),
        (PredictorCorrectorSampler(predictor="hein"), "Unknown sampler 'hein'"),
        (PredictorCorrectorSampler(corrector=LangevinSampler(n_moves=0)), "n_moves must be"),
        (
            PredictorCorrectorSampler(predictor=HeunSampler(teleport="auto")),
            "a HeunSampler used by another sampler must not teleport: set teleport on the outer",
        ),
        (
            PredictorCorrectorSampler(predictor=HeunSampler(clock="estimated")),
            "a HeunSampler used by another sampler goes by the clock of that: set clock on the",
        ),
    ],
)
def test_wrong_hyperparameters_are_named(sampler, message):
    with pytest.raises(ValueError, match=message):
        run_sampler(sampler, MIXTURE, np.ones((1, 2)), [1.0, 0.0])
