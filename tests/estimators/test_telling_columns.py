"""Which columns have a law of their own, and that law."""

import numpy as np
import pytest

from skdiffusion.estimators._column_laws import KERNELS, column_laws, telling_columns
from skdiffusion.models import MixtureModel

LOW = 0.002


@pytest.fixture
def table():
    """Columns: even, normal, a coin, normal, sums of a coin and something narrow."""
    rng = np.random.default_rng(0)
    n = 2000
    even, coin = rng.uniform(-(3**0.5), 3**0.5, n), 2.0 * rng.integers(2, size=n) - 1
    two = 2.0 * rng.integers(2, size=n) - 1 + 0.1 * rng.normal(size=n)
    return np.stack([even, rng.normal(size=n), coin, rng.normal(size=n), two], axis=1)


def chosen(table, n_train=1500):
    train, others = table[:n_train], table[n_train:]
    gaussian = MixtureModel([1.0], [train.mean(axis=0)], [np.cov(train.T)])
    laws = column_laws(train, None, np.arange(table.shape[1]), LOW)
    return telling_columns(laws, gaussian, others, np.ones(len(others)), LOW).tolist()


def test_columns_that_are_not_the_mixtures_are_found(table):
    assert chosen(table) == [0, 2, 4]


def test_normal_columns_are_not_told_whatever_the_number_of_rows():
    for seed, n in [(0, 100), (1, 300), (2, 2000)]:
        rows = np.random.default_rng(seed).normal(size=(n, 50))
        assert chosen(rows, int(0.9 * n)) == []


def test_values_that_rows_share_are_as_sharp_as_the_lowest_level(table):
    laws = column_laws(table, None, [2], LOW).among(np.array([0]))
    np.testing.assert_allclose(laws.centres, [[-1.0, 1.0, table[:, 2].mean()]], atol=1e-12)
    # to the share of one kernel of 64; and one row more that may be anywhere
    shares = (table[:, 2] < 0).mean(), (table[:, 2] > 0).mean(), 1 / 2001
    np.testing.assert_allclose(laws.weights[0], shares, atol=1 / KERNELS)
    assert laws.weights[0, 2] == pytest.approx(1 / 2001)
    np.testing.assert_allclose(laws.widths, [[LOW, LOW, table[:, 2].std()]])
    # also where a kernel stands alone: of forty values beside sixty-four kernels
    rolled = np.random.default_rng(2).integers(40, size=(2000, 1))
    law = column_laws(rolled, None, [0], LOW)
    assert (law.widths[np.isin(law.centres, rolled)] == LOW).all()


@pytest.mark.parametrize("n", [30, 100, 400])
def test_values_never_seen_are_not_ruled_out(n):
    """Rounded rows: what was seen once stays wide, and the Gaussian of one row more is a floor."""
    rows = np.random.default_rng(n).normal(size=(n, 1)).round(1)
    laws = column_laws(rows, None, [0], LOW)
    weights, centres, widths = (part[0] for part in (laws.weights, laws.centres, laws.widths))
    values, counts = np.unique(rows, return_counts=True)
    once = np.isin(centres, values[counts == 1])
    assert once.sum() >= 3
    # no nearer than the step of rounding
    assert (widths[once] > 0.09).all()
    law = MixtureModel(weights, centres[:, None], widths**2)
    anywhere = np.linspace(-4, 4, 161)[:, None]
    one_more = MixtureModel([1.0], rows.mean(axis=0, keepdims=True), rows.var(axis=0))
    floor = one_more.log_prob(anywhere, LOW) - np.log(n + 1)
    assert (law.log_prob(anywhere, LOW) > floor - 1e-9).all()


def test_an_even_density_has_its_edges(table):
    """log-density 1/(2 sqrt 3) inside; beyond an edge it falls over the width of a kernel."""
    laws = column_laws(table, None, [0], LOW)
    law = MixtureModel(laws.weights[0], laws.centres[0][:, None], laws.widths[0] ** 2)
    inside = np.linspace(-1.6, 1.6, 200)[:, None]
    # quantiles of 2,000 rows are off by a tenth of their distances, and ripple
    density = np.exp(law.log_prob(inside, LOW))
    assert density.mean() == pytest.approx(1 / (2 * 3**0.5), rel=0.03)
    beyond = law.log_prob(np.array([[3**0.5 + 4 * laws.widths[0][-1]]]), LOW)
    assert beyond < np.log(density.mean()) - 5


def test_weights_are_repetitions(table):
    rows, weights = table[:300], np.random.default_rng(1).integers(0, 4, 300)
    weighted = column_laws(rows, weights.astype(float), [0, 4], LOW)
    repeated = column_laws(np.repeat(rows, weights, axis=0), None, [0, 4], LOW)
    for name in ("weights", "centres", "widths"):
        found, expected = getattr(weighted, name), getattr(repeated, name)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
