"""Guidance: exact for exponential tilts of a normal law, first order for everything else."""

import numpy as np
import pytest

from skdiffusion.models import AffineModel, GaussianModel, GuidedModel, MixtureModel
from skdiffusion.samplers import HeunSampler, run_sampler

COVARIANCE = np.array([[2.0, 0.8], [0.8, 0.5]])
GAUSSIAN = GaussianModel([1.0, -1.0], COVARIANCE)
A = np.array([0.7, -0.4])


def along(x):
    return np.broadcast_to(A, x.shape)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_an_exponential_tilt_shifts_a_gaussian(sigma, scale, rng):
    # N(m, C) times exp(a.x) is N(m + C a, C)
    tilted = GaussianModel(GAUSSIAN.mean + scale * COVARIANCE @ A, COVARIANCE)
    x = GAUSSIAN.sample(9, sigma, random_state=0)
    guided = GuidedModel(GAUSSIAN, gradient=along, scale=scale)
    np.testing.assert_allclose(guided.denoise(x, sigma), tilted.denoise(x, sigma), rtol=1e-10)
    np.testing.assert_allclose(guided.score(x, sigma), tilted.score(x, sigma), rtol=1e-8)


def test_at_level_zero_the_score_is_that_of_the_tilted_density():
    tilted = GaussianModel(GAUSSIAN.mean + COVARIANCE @ A, COVARIANCE)
    guided = GuidedModel(GAUSSIAN, gradient=along)
    x = GAUSSIAN.sample(9, random_state=0)
    np.testing.assert_allclose(guided.score(x, 0.0), tilted.score(x, 0.0), rtol=1e-10)
    np.testing.assert_allclose(guided.denoise(x, 0.0), x, rtol=1e-13)
    np.testing.assert_array_equal(guided.predict_noise(x, 0.0), 0 * x)


def test_a_log_weight_is_differentiated_by_torch():
    import torch

    def log_weight(x):
        return -0.5 * ((x - 1) ** 2).sum(1)

    mixture = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])
    by_hand = GuidedModel(mixture, gradient=lambda x: 1 - x)
    by_torch = GuidedModel(mixture, log_weight)
    x = mixture.sample(20, 1.0, random_state=0)
    np.testing.assert_allclose(by_torch.denoise(x, 1.0), by_hand.denoise(x, 1.0), rtol=1e-13)
    tensors = by_torch.denoise(torch.tensor(x), 1.0)
    np.testing.assert_allclose(tensors.numpy(), by_hand.denoise(x, 1.0), rtol=1e-12)


def test_guided_samples_follow_the_tilted_law():
    guided = GuidedModel(GAUSSIAN, gradient=along)
    start = GaussianModel(GAUSSIAN.mean + COVARIANCE @ A, COVARIANCE).sample(
        4000, 40.0, random_state=0
    )
    x = run_sampler(HeunSampler(), guided, start, [*np.geomspace(40.0, 0.01, 40), 0.0])
    standard_error = np.sqrt(np.diag(COVARIANCE) / 4000)
    assert (np.abs(x.mean(0) - GAUSSIAN.mean - COVARIANCE @ A) < 5 * standard_error).all()
    # entries of a sample covariance have a standard error of at most sqrt(2/n) of the largest
    np.testing.assert_allclose(np.cov(x.T), COVARIANCE, atol=5 * 2.0 * (2 / 4000) ** 0.5)


def test_guidance_knows_the_scale_of_the_columns(rng):
    scale = np.array([0.1, 30.0])
    scaled = AffineModel(GAUSSIAN, scale=scale)
    unit = (scale / scaled.noise_scale)[0]
    x = GAUSSIAN.sample(9, 1.0, random_state=0)
    inner = GuidedModel(GAUSSIAN, gradient=along).denoise(x, 1.0)
    outer = GuidedModel(scaled, gradient=lambda z: along(z) / scale).denoise(x * scale, unit)
    np.testing.assert_allclose(outer / scale, inner, rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"log_weight": len, "gradient": len}, {"gradient": 3.0}])
def test_one_callable_is_needed(options):
    with pytest.raises(ValueError, match="give one callable"):
        GuidedModel(GAUSSIAN, **options)


def test_what_a_callable_returns_is_checked():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"log_weight must return a tensor of shape \(3,\)"):
        GuidedModel(GAUSSIAN, lambda x: x).denoise(x, 1.0)
    with pytest.raises(ValueError, match="must be computed from the points by torch"):
        GuidedModel(GAUSSIAN, lambda x: x.detach().sum(1)).denoise(x, 1.0)
    with pytest.raises(ValueError, match=r"log-weight must have shape \(3, 2\); got \(3,\)"):
        GuidedModel(GAUSSIAN, gradient=lambda x: x[:, 0]).denoise(x, 1.0)
