"""Noise that belongs to rows, and generators that touch nothing global."""

import numpy as np
import pytest
import scipy.stats

from skdiffusion.utils.random import (
    as_generator,
    as_seed,
    balanced_by_row,
    normal_by_row,
    rademacher_like,
)


@pytest.mark.parametrize("draw", [normal_by_row, balanced_by_row, rademacher_like])
def test_noise_belongs_to_the_row(draw, rng):
    X = rng.standard_normal((6, 3))
    whole = draw(X, 4, seed=5)
    np.testing.assert_array_equal(draw(X[2:3], 4, seed=5), whole[:, 2:3])
    np.testing.assert_array_equal(draw(X[::-1].copy(), 4, seed=5), whole[:, ::-1])
    np.testing.assert_array_equal(draw(np.repeat(X, 2, axis=0), 4, seed=5), whole.repeat(2, axis=1))
    assert not np.array_equal(draw(X, 4, seed=6), whole)


@pytest.mark.parametrize("seed", [0, 1])
def test_row_noise_is_normal_and_independent(seed, rng):
    z = normal_by_row(rng.standard_normal((4000, 2)), 3, seed=seed)
    assert scipy.stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    flat = z.transpose(1, 0, 2).reshape(4000, -1)
    # correlations of independent draws have standard deviation 1/sqrt(4000)
    off = np.corrcoef(flat.T) - np.eye(6)
    assert np.abs(off).max() < 5 / 4000**0.5
    signs = rademacher_like(rng.standard_normal((4000, 2)), 3, seed=seed)
    assert abs(signs.mean()) < 5 / signs.size**0.5


def test_zero_has_one_sign():
    np.testing.assert_array_equal(
        rademacher_like(np.array([[0.0, 1.0]]), 8), rademacher_like(np.array([[-0.0, 1.0]]), 8)
    )


def test_generators():
    assert as_generator(3).random() == as_generator(3).random()
    assert as_generator().random() != as_generator().random()
    generator = np.random.default_rng(0)
    assert as_generator(generator) is generator
    state = np.random.RandomState(0)
    assert as_generator(state).random() != as_generator(state).random()
    for bad in ("seed", 1.5, True, -1):
        with pytest.raises(ValueError, match="random_state must be"):
            as_generator(bad)


def test_balanced_draws_are_normal_one_by_one_and_balanced_together(rng):
    d, m = 3, 7
    draws = balanced_by_row(rng.standard_normal((4000, d)), m, seed=1)
    lengths = np.linalg.norm(draws, axis=2)
    for k in range(m):
        # draw k has the k-th of seven equally likely ranges of lengths
        share = scipy.stats.chi2.cdf(lengths[k] ** 2, d) * m - k
        assert scipy.stats.kstest(share, "uniform").pvalue > 1e-3
    directions = draws / lengths[..., None]
    for group in (directions[:3], directions[3:6]):
        product = np.einsum("pnk,qnk->npq", group, group)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-12)
    for k in range(m):  # a coordinate of a point on the sphere in three dimensions is uniform
        assert scipy.stats.kstest(directions[k, :, 1], "uniform", (-1, 2)).pvalue > 1e-3
    assert scipy.stats.kstest(draws[:, :, 0].ravel()[:: m + 1], "norm").pvalue > 1e-3


def test_sets_of_draws_share_directions_and_have_lengths_of_their_own(rng):
    x, sizes = rng.standard_normal((50, 6)), [2, 0, 3, 4]
    draws = balanced_by_row(x, sizes, seed=1)
    assert draws.shape == (9, 50, 6)
    lengths = np.linalg.norm(draws, axis=2)
    directions = (draws / lengths[..., None]).transpose(1, 0, 2)
    whole = directions[:, :6] @ directions[:, :6].transpose(0, 2, 1)
    np.testing.assert_allclose(whole, np.broadcast_to(np.eye(6), whole.shape), atol=1e-12)
    for first, size in ((0, 2), (2, 3), (5, 4)):
        share = scipy.stats.chi2.cdf(lengths[first : first + size] ** 2, 6) * size
        np.testing.assert_array_equal(np.floor(share), np.arange(size)[:, None] + np.zeros(50))
    np.testing.assert_array_equal(balanced_by_row(x, 9, seed=1), balanced_by_row(x, [9], seed=1))


def test_a_seed_is_itself_and_other_states_give_one():
    assert as_seed(7) == as_seed(np.int32(7)) == 7
    assert as_seed(np.random.RandomState(0)) == as_seed(np.random.RandomState(0))
    assert as_seed(None) != as_seed(None)
