"""sample(condition=...): exact laws, ranges, guidance, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import load_iris

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, StackedScore
from skdiffusion.estimators._condition import guided_rows
from skdiffusion.metrics import sliced_wasserstein
from skdiffusion.models import (
    ConditionedModel,
    KnownColumnsModel,
    LinearMeasurement,
    posterior,
)
from skdiffusion.samplers import TimeTravelSampler

FRAME = load_iris(as_frame=True).data
X = FRAME.to_numpy()


def three_groups(n=400):
    rng = np.random.default_rng(0)
    roots, means = 0.5 * rng.standard_normal((4, 4, 4)), 2 * rng.standard_normal((4, 4))
    return np.concatenate([means[k] + rng.standard_normal((n, 4)) @ roots[k].T for k in range(4)])


@pytest.mark.parametrize("est", [GaussianScore(), GMMScore(3, random_state=0), EmpiricalScore()])
def test_known_columns_are_kept_and_the_others_have_the_conditional_law(est):
    est.fit(FRAME).set_output(transform="pandas")
    rows = est.sample(4000, condition={"petal length (cm)": 5.0, 0: 6.5}, random_state=0)
    assert list(rows.columns) == list(FRAME.columns)
    assert (rows["petal length (cm)"] == 5.0).all() and (rows.iloc[:, 0] == 6.5).all()
    values = np.array([[6.5, np.nan, 5.0, np.nan]])
    truth = posterior(est.model_, values, n_draws=4000, random_state=1)
    spread = truth.draws[:, 0].std(0)
    # four standard errors
    assert (np.abs(rows.mean() - truth.mean[0]) <= 4 * spread / np.sqrt(4000) + 1e-9).all()
    np.testing.assert_allclose(rows.std()[1::2], spread[1::2], rtol=0.1)


def test_ranges_of_a_gaussian_are_the_truncated_normal():
    est = GaussianScore.from_parameters([1.0, -2.0], [4.0, 1.0])
    rows = est.sample(5000, condition={0: (2.0, None), 1: (None, -2.5)}, random_state=0)
    assert rows[:, 0].min() >= 2 and rows[:, 1].max() <= -2.5
    law = stats.truncnorm(0.5, np.inf, 1.0, 2.0)
    assert stats.kstest(rows[:, 0], law.cdf).pvalue > 0.001
    assert stats.kstest(rows[:, 1], stats.truncnorm(-np.inf, -0.5, -2.0, 1.0).cdf).pvalue > 0.001


def test_a_range_and_a_value_together():
    est = GMMScore(3, random_state=0).fit(X)
    rows = est.sample(200, condition={0: (6.0, 7.0), 3: 2.0}, random_state=0)
    assert rows.shape == (200, 4) and (rows[:, 3] == 2).all()
    assert ((rows[:, 0] >= 6) & (rows[:, 0] <= 7)).all()


def test_a_linear_measurement():
    est = GMMScore(3, random_state=0).fit(X)
    rows = est.sample(50, condition=LinearMeasurement(np.ones((1, 4)), [20.0]), random_state=0)
    np.testing.assert_allclose(rows.sum(axis=1), 20, atol=1e-9)
    noisy = LinearMeasurement(np.ones((1, 4)), [20.0], noise=0.5)
    rows = est.sample(4000, condition=noisy, random_state=0)
    truth = posterior(est.model_, [[20.0]], np.ones((1, 4)), noise=0.5).mean[0]
    np.testing.assert_allclose(rows.mean(0), truth, atol=0.1)


def test_guidance_with_repeated_steps_comes_close_to_the_conditional_of_a_mixture():
    """Four crossing groups: two columns known. One and the same tool for exact and learned."""
    data = three_groups()
    est = GMMScore(4, random_state=0).fit(data)
    values = np.tile([np.nan, 0.5, np.nan, -1.0], (2000, 1))
    first, second = posterior(est.model_, values, n_draws=2, random_state=0).draws[:, :, ::2]
    scale = data[:, ::2].std(0)

    def distance(rows):
        return sliced_wasserstein(first / scale, rows / scale, standardize=False)

    def guided(given, sampler, n_steps=32):
        rng = np.random.default_rng(1)
        return guided_rows(est, given(est.model_), values, rng, sampler, n_steps)

    floor = distance(second)
    ours = guided(ConditionedModel, TimeTravelSampler())
    np.testing.assert_allclose(ours[:, 1::2], values[:, 1::2], atol=1e-6)
    replaced = distance(guided(KnownColumnsModel, "ddpm")[:, ::2])
    repainted = distance(guided(KnownColumnsModel, TimeTravelSampler())[:, ::2])
    found = distance(ours[:, ::2])
    # in units of the columns' deviations: measured .06, .41 and .83 with a floor of .03
    assert found < floor + 0.08
    assert repainted < 0.7 * replaced and found < 0.3 * repainted


def test_the_estimators_own_way_where_there_is_no_closed_form():
    est = StackedScore(random_state=0).fit(X)
    rows = est.sample(100, condition={2: 5.0, 0: (6.0, 7.0)}, random_state=0, n_steps=16)
    assert (rows[:, 2] == 5).all() and ((rows[:, 0] >= 6) & (rows[:, 0] <= 7)).all()
    exact = GMMScore(3, random_state=0).fit(X).sample(2000, condition={2: 5.0, 0: (6.0, 7.0)})
    # petal widths of the same flowers: their deviation is 0.25
    assert abs(rows[:, 3].mean() - exact[:, 3].mean()) < 0.2


def test_a_sampler_that_is_asked_for_is_used_for_closed_forms_too():
    est = GaussianScore().fit(X)
    rows = est.sample(1000, condition={2: 5.0}, sampler="adams", n_steps=48, random_state=0)
    truth = posterior(est.model_, [[np.nan, np.nan, 5.0, np.nan]], n_draws=4000, random_state=1)
    spread = truth.draws[:, 0].std(0) + 1e-12
    assert (np.abs(rows.mean(0) - truth.mean[0]) < 5 * spread / np.sqrt(1000) + 1e-9).all()


@pytest.mark.parametrize(
    "condition, words",
    [
        ({}, "mapping from columns"),
        ("petal", "mapping from columns"),
        ({"no such": 1.0}, "there is no column 'no such'"),
        ({7: 1.0}, "index from 0 to 3; got 7"),
        ({0: np.nan}, "the value of column 0 must be a finite number"),
        ({0: (2.0, 1.0)}, "low below high"),
        ({0: 1.0, "sepal length (cm)": 1.0}, "same column by name and by index"),
        (LinearMeasurement([[1.0, 1.0]], [1.0]), "must have 4 columns; got 2"),
        ({0: (100.0, None)}, "only 0 of .* rows met the ranges"),
    ],
)
def test_errors_are_sentences(condition, words):
    est = GaussianScore().fit(FRAME)
    with pytest.raises(ValueError, match=words):
        est.sample(3, condition=condition)


def test_what_does_not_go_together():
    est = GaussianScore().fit(X)
    with pytest.raises(ValueError, match="neither with labels"):
        est.sample(2, condition={0: 1.0}, return_trajectory=True)
    with pytest.raises(ValueError, match="cannot teleport"):
        est.sample(2, condition={0: 1.0}, sampler=TimeTravelSampler(teleport=3.0))


def test_polars_and_pandas_by_name():
    est = GaussianScore().fit(pd.DataFrame({"a": X[:, 0], "b": X[:, 1]}))
    assert (est.sample(3, condition={"b": 3.0})[:, 1] == 3).all()
