"""Denoising MCMC: the law of levels given a point, the invariant law of the chain, mixing."""

import numpy as np
import pytest
from scipy.stats import chi2
from two_sample import assert_moments, assert_same_law

from skdiffusion.models import AffineModel, BaseScoreModel, GaussianModel, MixtureModel
from skdiffusion.samplers import (
    DMCMCSampler,
    LangevinSampler,
    MALASampler,
    run_sampler,
)
from skdiffusion.samplers.base import BoundModel
from skdiffusion.samplers.dmcmc import _draw, denoising_chain, level_log_probs
from skdiffusion.utils.row_noise import RowNoise

MIXTURE = MixtureModel([0.3, 0.7], [[-1.5, 0.0], [1.0, 0.5]], [0.2, 0.4])
FAR = MixtureModel([0.3, 0.7], [[-9.0, 0.0], [9.0, 0.0]], [0.1, 0.3])


class Blind(BaseScoreModel):
    """A model of which only the denoiser is known: derivatives are central differences."""

    is_differentiable = False

    def __init__(self, model):
        self.inner, self.n_features = model, model.n_features
        self.noise_scale = model.noise_scale

    def _denoise(self, x, sigma):
        return self.inner._denoise(x, sigma)


def bound(model):
    return BoundModel(model, np.float64)


@pytest.mark.parametrize(
    "model", [MIXTURE, FAR, AffineModel(MIXTURE, scale=[0.3, 4.0])], ids=["near", "far", "scaled"]
)
def test_densities_of_levels_follow_from_the_score(model):
    x = np.concatenate([model.sample(20, s, random_state=0) for s in (0.1, 1.0, 8.0)])

    def error(n_levels):
        levels = np.geomspace(20.0, 0.1, n_levels).tolist()
        exact = level_log_probs(bound(model), x, levels)
        ours = level_log_probs(bound(Blind(model)), x, levels)
        # ratios matter, and only among levels that have a share
        likely = exact > exact.max(1, keepdims=True) - 5
        both = [np.where(likely, v, np.nan) for v in (exact, ours)]
        differences = both[1] - both[0]
        return np.nanmax(np.nanmax(differences, axis=1) - np.nanmin(differences, axis=1))

    errors = np.array([error(n) for n in (12, 24, 48)])
    assert errors[1] < 0.1
    assert errors[2] < errors[0] / 30  # a cubic spline: 4^4 where the leading term has set in


def test_levels_are_drawn_with_their_probabilities():
    log_probs = np.log([[0.1, 0.2, 0.3, 0.4]]) - 700.0
    uniform = (np.arange(1000)[:, None] + 0.5) / 1000
    drawn = _draw(np.repeat(log_probs, 1000, axis=0), uniform)
    np.testing.assert_array_equal(np.bincount(drawn), [100, 200, 300, 400])
    certain = _draw(np.array([[0.0, -np.inf], [-np.inf, 0.0]]), np.array([[0.999], [0.0]]))
    np.testing.assert_array_equal(certain, [0, 1])


@pytest.mark.parametrize("model, moves", [(MIXTURE, 20), (Blind(MIXTURE), 5)])
def test_the_chain_leaves_its_law_invariant(model, moves):
    levels, n = np.geomspace(4.0, 0.3, 12), 3600
    rng = np.random.default_rng(0)

    def exact(k):
        x0 = MIXTURE.sample(n, random_state=rng)
        return x0 + levels[k][:, None] * rng.standard_normal((n, 2))

    x = exact(rng.integers(12, size=n))
    mover = MALASampler(n_moves=1) if model is MIXTURE else LangevinSampler(step_size=0.02)
    after, index = denoising_chain(bound(model), x, levels.tolist(), mover, moves, RowNoise([1, 2]))
    assert np.abs(after - x).max() > 1
    # every level has the same share: Pearson's statistic, one chance in a thousand
    counts = np.bincount(index, minlength=12)
    assert ((counts - 300) ** 2 / 300).sum() < chi2.ppf(0.999, 11)
    # and points follow the law at their levels: jointly, the logarithm of the level as a column
    other = rng.integers(12, size=n)
    assert_same_law(
        np.column_stack([after, np.log(levels[index])]),
        np.column_stack([exact(other), np.log(levels[other])]),
    )
    low = index >= 9
    mean, covariance = MIXTURE.gaussian().mean, MIXTURE.gaussian().covariance.to_matrix()
    noise = (levels[index[low]] ** 2).mean()
    assert_moments(after[low], mean, covariance + noise * np.eye(2))


def test_far_modes_mix_where_a_chain_at_one_level_does_not():
    levels = np.geomspace(20.0, 0.2, 15)
    x = np.full((1000, 2), [9.0, 0.0])  # all at one of the modes
    sampler = DMCMCSampler(n_moves=200)
    mixed = run_sampler(sampler, FAR, x, [*levels, 0.0], random_state=0)
    share = (mixed[:, 0] < 0).mean()
    assert share == pytest.approx(0.3, abs=3 * np.sqrt(0.3 * 0.7 / 1000))
    stuck = run_sampler(MALASampler(n_moves=200), FAR, x, [0.2, 0.2], random_state=0)
    assert (stuck[:, 0] > 0).all()


@pytest.mark.parametrize(
    "model, sampler",
    [
        (MIXTURE, DMCMCSampler()),
        (MIXTURE, DMCMCSampler(sampler="rk4", n_steps=8)),
        (MIXTURE, DMCMCSampler(sampler="ddpm", n_steps=80)),
        (
            Blind(MIXTURE),
            DMCMCSampler(n_moves=30, mover=LangevinSampler(n_moves=2, step_size=0.1)),
        ),
    ],
    ids=["heun", "rk4", "ddpm", "score only"],
)
def test_samples_of_a_mixture_cannot_be_told_from_exact_ones(model, sampler):
    levels = np.geomspace(4.0, 0.05, 16)
    x = MIXTURE.sample(2000, 4.0, random_state=1)
    x = run_sampler(sampler, model, x, [*levels, 0.0], random_state=2)
    assert_same_law(x, MIXTURE.sample(2000, random_state=3))
    law = MIXTURE.gaussian()
    assert_moments(x, law.mean, law.covariance.to_matrix())


def test_the_reverse_run_may_end_above_zero():
    levels = np.geomspace(4.0, 0.5, 8)
    x = MIXTURE.sample(2000, 4.0, random_state=1)
    x, path = run_sampler(
        DMCMCSampler(n_steps=10), MIXTURE, x, levels, random_state=2, return_trajectory=True
    )
    assert len(path) == 11
    assert_same_law(x, MIXTURE.sample(2000, 0.5, random_state=3))


def test_numpy_torch_and_the_closed_form_agree_without_a_density():
    import torch

    weight = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    class Normal(BaseScoreModel):
        """The standard normal law's denoiser, with a learned factor where points are tensors."""

        n_features = 3

        def _denoise(self, x, sigma):
            factor = weight if isinstance(x, torch.Tensor) else 1.0
            return factor * x / (1 + sigma**2)

    x, levels = GaussianModel(np.zeros(3), 1.0).sample(10, 4.0, random_state=0), [4.0, 2.0, 1.0]
    tensors = BoundModel(Normal(), torch.float64)
    found = level_log_probs(tensors, torch.tensor(x), levels)
    np.testing.assert_allclose(found, level_log_probs(bound(Normal()), x, levels), atol=1e-10)

    levels = np.geomspace(4.0, 0.1, 48)
    variances = 1 + levels**2
    exact = -1.5 * np.log(variances) - 0.5 * (x**2).sum(1)[:, None] / variances
    ours = level_log_probs(bound(Normal()), x, levels.tolist())
    # a cubic spline of step 0.08: an error of 1e-4 or so of logarithms of some tens
    np.testing.assert_allclose(ours - ours[:, :1], exact - exact[:, :1], atol=1e-3)

    sampler = DMCMCSampler(n_moves=4)
    levels = [*levels[::4], 0.0]
    here = run_sampler(sampler, Normal(), x, levels, random_state=0)
    there = run_sampler(sampler, Normal(), torch.tensor(x), levels, random_state=0)
    assert not there.requires_grad  # no graph over the chain
    np.testing.assert_allclose(there.numpy(), here, atol=1e-10)


def test_what_the_chain_cannot_use_is_refused_in_words():
    x = np.ones((2, 2))
    for levels in ([2.0, 1.0, 0.5, 0.0], [2.0, 1.0, 1.0, 0.5, 0.0]):
        with pytest.raises(ValueError, match="at least four positive levels, falling"):
            run_sampler(DMCMCSampler(), MIXTURE, x, levels)
    with pytest.raises(ValueError, match="the same noise levels for all rows"):
        run_sampler(
            DMCMCSampler(), MIXTURE, x, np.array([[3.0, 2.0], [2.0, 1.0], [1.0, 0.5], [0.5, 0.1]])
        )
    with pytest.raises(ValueError, match="MALASampler needs a model with an exact log-density"):
        run_sampler(DMCMCSampler(mover="mala"), Blind(MIXTURE), x, [3.0, 2.0, 1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    "sampler, message",
    [
        (DMCMCSampler(n_moves=0), "n_moves must be an integer of at least 1; got 0"),
        (DMCMCSampler(n_steps=0), "n_steps must be an integer of at least 1; got 0"),
        (DMCMCSampler(sampler="hein"), r"Unknown sampler 'hein' \(did you mean 'heun'\?\)"),
        (DMCMCSampler(mover=MALASampler(step_size=-1)), "step_size must be a finite number above"),
    ],
)
def test_wrong_hyperparameters_are_named(sampler, message):
    with pytest.raises(ValueError, match=message):
        run_sampler(sampler, MIXTURE, np.ones((1, 2)), [3.0, 2.0, 1.0, 0.5, 0.0])
