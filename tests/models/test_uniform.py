"""Uniform laws against high-precision normal distribution functions."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion.models import UniformModel

MODEL = UniformModel([-1.0, 0.0], [1.0, 5.0])


def exact(x, sigma, low, high):
    """log p, E[x0|x] and Var[x0|x] of one column in fifty digits."""
    with mpmath.workdps(50):
        x, sigma, low, high = (mpmath.mpf(float(v)) for v in (x, sigma, low, high))
        if x < (low + high) / 2:
            x, low, high, flipped = -x, -high, -low, True
        else:
            flipped = False
        near, far = (x - high) / sigma, (x - low) / sigma
        tail = lambda u: mpmath.erfc(u / mpmath.sqrt(2)) / 2  # noqa: E731
        mass = tail(near) - tail(far)
        pull = (mpmath.npdf(far) - mpmath.npdf(near)) / mass
        slope = (near * mpmath.npdf(near) - far * mpmath.npdf(far)) / mass - pull**2
        mean = x + sigma * pull
        log_prob = mpmath.log(mass / (high - low))
        return float(log_prob), float(-mean if flipped else mean), float(sigma**2 * (1 + slope))


@pytest.mark.parametrize("sigma", [1e-8, 1e-3, 0.05, 0.5, 0.99, 1.01, 3.0, 30.0, 1e4])
def test_against_fifty_digits(sigma):
    line = UniformModel([-1.0], [1.0])
    x = [0.0, 0.3, -0.99, 1.0, 1.0 + 3 * sigma, -1.0 - 8 * sigma, 1 + 30 * sigma, 2.0, -1e4]
    for value in x:
        log_prob, mean, variance = exact(value, sigma, -1, 1)
        row = np.array([[value]])
        assert line.log_prob(row, sigma)[0] == pytest.approx(log_prob, rel=1e-12, abs=1e-12)
        assert line.denoise(row, sigma)[0, 0] == pytest.approx(mean, abs=1e-12)
        # a thousand roundings: of the place of a point outside in units of the noise
        found = line.posterior_covariance(row, sigma)[0, 0, 0]
        assert found == pytest.approx(variance, rel=1e-12 * max(1.0, 1e-3 / sigma))


@pytest.mark.parametrize("sigma", [0.1, 1.5, np.array([0.1, 0.7, 1.1, 4.0, 30.0])])
def test_identities_and_torch(sigma):
    x = np.random.default_rng(0).uniform(-3, 7, (5, 2))
    h, steps = 1e-5, 1e-5 * np.eye(2)
    slope = [(MODEL.log_prob(x + e, sigma) - MODEL.log_prob(x - e, sigma)) / (2 * h) for e in steps]
    np.testing.assert_allclose(MODEL.score(x, sigma), np.stack(slope, 1), rtol=1e-4, atol=1e-6)
    for of in ("score", "denoise"):
        field = getattr(MODEL, of)
        numeric = [(field(x + e, sigma) - field(x - e, sigma)) / (2 * h) for e in steps]
        closed = MODEL.jacobian(x, sigma, of=of)
        scale = np.abs(closed).max()
        np.testing.assert_allclose(closed, np.stack(numeric, 2), atol=1e-5 * scale)
        v = np.ones_like(x)
        np.testing.assert_allclose(MODEL.jvp(x, sigma, v, of=of), closed @ np.ones(2), rtol=1e-12)
        np.testing.assert_allclose(
            MODEL.divergence(x, sigma, of=of), np.trace(closed, axis1=1, axis2=2), rtol=1e-12
        )
    point = torch.tensor(x, requires_grad=True)
    level = torch.tensor(sigma) if np.ndim(sigma) else sigma
    log_prob = MODEL.log_prob(point, level)
    (gradient,) = torch.autograd.grad(log_prob.sum(), point)
    np.testing.assert_allclose(log_prob.detach(), MODEL.log_prob(x, sigma), rtol=1e-12)
    np.testing.assert_allclose(gradient, MODEL.score(x, sigma), rtol=1e-8, atol=1e-10)
    single = MODEL.denoise(x.astype(np.float32), sigma)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, MODEL.denoise(x, sigma), atol=2e-3)


def test_samples_and_density():
    x = MODEL.sample(4000, random_state=0)
    assert stats.kstest(x[:, 0], stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert stats.kstest(x[:, 1], stats.uniform(0, 5).cdf).pvalue > 0.01
    np.testing.assert_allclose(MODEL.log_prob([[0.0, 2.5]], 1e-3), -np.log(10), rtol=1e-12)


@pytest.mark.parametrize(
    "ends", [([1.0], [0.0]), ([0.0], [np.inf]), (0.0, 1.0), ([0.0], [1.0, 2.0]), ([], [])]
)
def test_bad_ends(ends):
    with pytest.raises(ValueError, match="low and high must be finite vectors"):
        UniformModel(*ends)
