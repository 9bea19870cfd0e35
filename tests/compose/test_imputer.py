"""DiffusionImputer: exact conditional laws, multiple imputations, tables, manners."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, StackedScore
from skdiffusion.compose import DiffusionImputer
from skdiffusion.samplers import TimeTravelSampler

IRIS = load_iris()


def with_gaps(X, share=0.3, seed=0):
    X = np.array(X, dtype=np.float64)
    X[np.random.default_rng(seed).random(X.shape) < share] = np.nan
    return X


@pytest.mark.foreign_state
@parametrize_with_checks([DiffusionImputer(), DiffusionImputer(GaussianScore("oas"))])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_a_gaussian_law_is_completed_by_regression():
    law = GaussianScore.from_parameters([0.0, 1.0], [[1.0, 0.6], [0.6, 2.0]])
    rows = np.array([[1.5, np.nan], [np.nan, 3.0], [np.nan, np.nan], [0.2, 0.1]])
    imputer = DiffusionImputer(FrozenEstimator(law)).fit(np.zeros((2, 2)))
    truth = [[1.5, 1 + 0.6 * 1.5], [0.3 * 2.0, 3.0], [0.0, 1.0], [0.2, 0.1]]
    np.testing.assert_allclose(imputer.transform(rows), truth, atol=1e-12)
    draws = imputer.impute(rows, 40_000, random_state=0)
    # conditional variances 2 - 0.36 and 1 - 0.18, to four standard errors
    assert draws[:, 0, 1].var() == pytest.approx(1.64, rel=0.03)
    assert draws[:, 1, 0].var() == pytest.approx(0.82, rel=0.03)
    assert np.corrcoef(draws[:, 2].T)[0, 1] == pytest.approx(0.6 / np.sqrt(2), abs=0.02)
    assert (draws[:, 3] == rows[3]).all()


def test_a_frozen_law_is_that_of_its_own_rows_whatever_gaps_it_is_shown():
    gaps = with_gaps(IRIS.data)
    unseen = np.column_stack([gaps[:, :3], np.full(150, np.nan)])  # a column that it knows
    law = FrozenEstimator(GaussianScore().fit(IRIS.data))
    truth = DiffusionImputer(law).fit(IRIS.data)
    for rows in (gaps, unseen):
        imputer = DiffusionImputer(law).fit(rows)
        assert imputer.estimator_.model_ is law.model_
        np.testing.assert_array_equal(imputer.transform(rows), truth.transform(rows))


def test_intervals_of_multiple_imputations_cover_what_was_hidden():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 3)) @ rng.standard_normal((3, 3))
    gaps = with_gaps(X)
    imputer = DiffusionImputer(GaussianScore(), random_state=0)
    low, high = np.quantile(imputer.fit(gaps).impute(gaps, 200, random_state=0), [0.05, 0.95], 0)
    hidden = np.isnan(gaps)
    covered = ((low <= X) & (high >= X))[hidden].mean()
    # 540 values: a standard error of 1.3 percent, and 200 draws widen a tail by half a percent
    assert covered == pytest.approx(0.9, abs=0.045)


def test_the_default_is_nearer_than_the_column_means():
    X = IRIS.data
    gaps = with_gaps(X)
    hidden = np.isnan(gaps)
    completed = DiffusionImputer(random_state=0).fit_transform(gaps)
    np.testing.assert_array_equal(completed[~hidden], X[~hidden])
    plain = np.where(hidden, np.nanmean(gaps, axis=0), X)
    error, reference = (np.sqrt(np.mean((Z - X)[hidden] ** 2)) for Z in (completed, plain))
    assert error < 0.5 * reference  # columns of iris are correlated by 0.9 and more


def test_laws_that_take_no_gaps_are_fitted_to_completions():
    X = with_gaps(IRIS.data, 0.2)
    imputer = DiffusionImputer(EmpiricalScore(), random_state=0).fit(X)
    assert imputer.method_ == "exact"
    hidden = np.isnan(X)
    error = np.sqrt(np.mean((imputer.transform(X) - IRIS.data)[hidden] ** 2))
    assert error < 0.45


@pytest.mark.parametrize("method", ["guided", "repaint"])
def test_learned_laws_are_guided_or_repainted(method):
    """A stacked model has no closed form; a Gaussian mixture gives the truth."""
    X = IRIS.data
    gaps = with_gaps(X, 0.15)[:60]
    exact = DiffusionImputer(GMMScore(3, random_state=0)).fit(X).transform(gaps)
    imputer = DiffusionImputer(
        GMMScore(3, random_state=0),
        method=method,
        sampler=TimeTravelSampler(n_repeats=3 if method == "guided" else 25),
        n_steps=20,
        random_state=0,
    )
    found = imputer.fit(X).transform(gaps)
    hidden = np.isnan(gaps)
    # a mean over 16 draws whose deviation is some 0.4
    assert np.sqrt(np.mean((found - exact)[hidden] ** 2)) < 0.25
    np.testing.assert_array_equal(found[~hidden], gaps[~hidden])


@pytest.mark.parametrize("sampler", [None, "ddpm", "adams"])
@pytest.mark.parametrize("method", ["guided", "repaint"])
def test_a_row_is_completed_alone_as_in_a_batch(method, sampler):
    gaps = with_gaps(IRIS.data, 0.2)[:30]
    law = GMMScore(2, random_state=0)
    imputer = DiffusionImputer(
        law, method=method, sampler=sampler, n_steps=8, n_draws=3, random_state=0
    ).fit(IRIS.data)
    whole = imputer.transform(gaps)
    # what depends on the shape of a matrix product is its rounding
    alone = np.vstack([imputer.transform(row[None]) for row in gaps])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-9)
    np.testing.assert_allclose(imputer.transform(gaps[::-1])[::-1], whole, rtol=0, atol=1e-9)
    twice = imputer.transform(np.vstack([gaps, gaps]))
    np.testing.assert_allclose(twice, np.vstack([whole, whole]), rtol=0, atol=1e-9)
    # rows of which the same is known have the same mean; draws of them are independent
    unknown = np.where(np.isnan(gaps), np.nan, IRIS.data[0])
    pair = imputer.impute(np.repeat(unknown[np.isnan(unknown).any(1)][:1], 2, axis=0), 1)[0]
    assert not np.allclose(*pair)


def test_any_score_estimator_will_do():
    gaps = with_gaps(IRIS.data[::3], 0.15)
    imputer = DiffusionImputer(StackedScore(random_state=0), n_draws=4, n_steps=10, n_rounds=1)
    assert imputer.fit(gaps).method_ == "guided"
    assert np.isfinite(imputer.transform(gaps)).all()
    with pytest.raises(ValueError, match="StackedScore has no closed form"):
        imputer.set_params(method="exact").fit(gaps)


def test_one_draw_instead_of_the_mean():
    gaps = with_gaps(IRIS.data)
    imputer = DiffusionImputer(sample_posterior=True, random_state=0).fit(gaps)
    one = imputer.transform(gaps)
    np.testing.assert_array_equal(one, imputer.transform(gaps))
    other = clone(imputer).set_params(random_state=1).fit(gaps).transform(gaps)
    assert (one != other)[np.isnan(gaps)].mean() > 0.9


def test_frames_pipelines_pickles_and_processes():
    frame = pd.DataFrame(with_gaps(IRIS.data, 0.1), columns=list("abcd"))
    imputer = DiffusionImputer(random_state=0).set_output(transform="pandas")
    table = imputer.fit_transform(frame)
    assert list(table.columns) == list("abcd") and not table.isna().any().any()
    again = pickle.loads(pickle.dumps(imputer)).transform(frame)
    pd.testing.assert_frame_equal(again, table)
    law = DiffusionImputer(GaussianScore("oas"), n_rounds=1, random_state=0)
    pipeline = make_pipeline(law, LogisticRegression(max_iter=1000))
    grid = {"diffusionimputer__sample_posterior": [False, True]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(frame, IRIS.target)
    assert search.best_score_ > 0.85


def test_errors_are_sentences():
    empty = np.column_stack([np.arange(5.0), np.full(5, np.nan)])
    with pytest.raises(ValueError, match="column 1 has no observed value"):
        DiffusionImputer().fit(empty)
    with pytest.raises(ValueError, match="did you mean 'heun'"):  # also where none is needed
        DiffusionImputer(sampler="huen").fit(IRIS.data)
    with pytest.raises(ValueError, match="n_steps must be an integer"):
        DiffusionImputer(n_steps=0).fit(IRIS.data)
    with pytest.raises(ValueError, match="did you mean 'guided'"):
        DiffusionImputer(method="guide").fit(IRIS.data)


def test_completions_hold_what_was_observed_to_the_last_digit(rng):
    seen = []

    class Watched(EmpiricalScore):
        def fit(self, X, y=None, sample_weight=None):
            seen.append(X)
            return super().fit(X, y, sample_weight)

    X = rng.normal([0.1, 1e3, 0.0], 1.0, (40, 3))
    X[::3, 2] = np.nan
    DiffusionImputer(Watched(), random_state=0).fit(X)
    assert len(seen) == 3
    for rows in seen:
        copies = rows.reshape(-1, *X.shape)
        observed = np.broadcast_to(~np.isnan(X), copies.shape)
        np.testing.assert_array_equal(copies[observed], np.broadcast_to(X, copies.shape)[observed])
