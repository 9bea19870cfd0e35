"""Columns denoised by themselves: what mixtures of one column say, along any axes."""

import pickle

import numpy as np
import pytest
from scipy.stats import ortho_group

from skdiffusion.models import MixtureModel
from skdiffusion.models.column_laws import ColumnLaws


@pytest.fixture
def parts(rng):
    weights = np.array([[0.1, 0.4, 0.2, 0.1, 0.2], [0.5, 0.2, 0.3, 0.0, 0.0]])
    return [2, 0], weights, rng.normal(size=(2, 5)), rng.uniform(0.1, 1, (2, 5))


def test_every_column_is_denoised_by_its_own_mixture(parts, rng):
    index, *kernels = parts
    turn = ortho_group.rvs(4, random_state=0)
    v, sigma = rng.normal(size=(30, 4)), rng.uniform(0.01, 3, 30)
    straight = ColumnLaws(*parts).denoise(v, sigma[:, None])
    turned = ColumnLaws(*parts, turn).denoise(v @ turn, sigma[:, None])
    np.testing.assert_allclose(turned, straight, atol=1e-12)
    for j, (column, w, q, h) in enumerate(zip(index, *kernels, strict=True)):
        law = MixtureModel(w, q[:, None], h**2)
        np.testing.assert_allclose(straight[:, [j]], law.denoise(v[:, [column]], sigma), atol=1e-12)


def test_some_of_the_columns_keep_no_kernels_without_weight(parts, rng):
    turn = ortho_group.rvs(4, random_state=0)
    x, sigma = rng.normal(size=(30, 4)), rng.uniform(0.01, 3, (30, 1))
    one = ColumnLaws(*parts).among(np.array([1]), turn)
    assert one.index.tolist() == [0]
    assert one.centres.shape == (1, 3)
    both = ColumnLaws(*parts, turn).denoise(x, sigma)
    np.testing.assert_allclose(one.denoise(x, sigma), both[:, 1:], rtol=1e-12)


def test_torch_agrees_and_is_followed(parts, rng):
    torch = pytest.importorskip("torch")
    laws = pickle.loads(pickle.dumps(ColumnLaws(*parts, ortho_group.rvs(4, random_state=0))))
    x, sigma, v = rng.normal(size=(9, 4)), rng.uniform(0.1, 3, (9, 1)), rng.normal(size=(9, 4))
    level = torch.tensor(sigma)
    found, slope = torch.func.jvp(
        lambda z: laws.denoise(z, level), (torch.tensor(x),), (torch.tensor(v),)
    )
    np.testing.assert_allclose(found.numpy(), laws.denoise(x, sigma), rtol=1e-12)
    ends = (laws.denoise(x + s * 1e-5 * v, sigma) for s in (1, -1))
    # central differences: errors of the order of their step squared
    np.testing.assert_allclose(slope.numpy(), np.subtract(*ends) / 2e-5, atol=1e-7)


def test_many_points_are_served_a_few_at_a_time(parts, rng, monkeypatch):
    laws, x, sigma = ColumnLaws(*parts), rng.normal(size=(50, 4)), rng.uniform(0.1, 3, (50, 1))
    at_once = laws.denoise(x, sigma)
    monkeypatch.setattr("skdiffusion.models.column_laws.NUMBERS", (70, 70))  # seven rows
    np.testing.assert_array_equal(laws.denoise(x, sigma), at_once)


@pytest.mark.parametrize("dtype, far", [("float32", 1e25), ("float64", 1e200)])
def test_points_whose_squares_are_no_numbers_keep_an_answer(parts, dtype, far):
    points, level = np.full((1, 4), far, dtype=dtype), np.full((1, 1), 1e3, dtype=dtype)
    found = ColumnLaws(*parts).denoise(points, level)
    # widths are below one and centres near zero: what is left is a millionth of the way at most
    assert (abs(found) <= 2e-6 * far).all()
