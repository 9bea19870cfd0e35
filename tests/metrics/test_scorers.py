"""Scorers in scikit-learn's searches."""

import functools
import pickle

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffusion import (
    DensityPipeline,
    EmpiricalScore,
    GaussianScore,
    GMMScore,
    NeuralScore,
    make_density_pipeline,
)
from skdiffusion.metrics import SampleScorer, get_scorer, get_scorer_names, mmd

X = load_iris().data[np.random.default_rng(0).permutation(150)]


# These are too noisy on fifty rows: the two models are some 0.3 of their standard deviation between
# shuffles apart, with the energy distance more than one. Fréchet's is blind beyond two moments.
BLURRED = {"c2st", "frechet", "mmd", "sliced_wasserstein"}


@pytest.mark.parametrize("name", sorted({*get_scorer_names()} - BLURRED))
def test_scorers_prefer_the_mixture_of_the_species(name):
    scorer = pickle.loads(pickle.dumps(get_scorer(name)))
    scores = [
        np.mean(cross_validate(est, X, cv=3, scoring=scorer)["test_score"])
        for est in (GMMScore(3, random_state=0), GaussianScore())
    ]
    assert scores[0] > scores[1]


@pytest.mark.parametrize("name", sorted(BLURRED))
def test_scorers_by_samples_find_the_wrong_moments(name):
    far = GaussianScore.from_parameters(X.mean(0) + 1, np.cov(X.T))
    near = GaussianScore().fit(X)
    assert get_scorer(name)(near, X) > get_scorer(name)(far, X)


def test_several_at_once_in_a_grid_over_models_in_two_processes():
    scoring = {name: get_scorer(name) for name in ("log_likelihood", "mmd", "denoising")}
    search = GridSearchCV(
        GMMScore(random_state=0),
        {"n_components": [1, 3]},
        scoring=scoring,
        refit="log_likelihood",
        n_jobs=2,
        cv=3,
    ).fit(X)
    assert search.best_params_ == {"n_components": 3}
    for name in scoring:
        assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
    # closed forms: the bound is below the log-likelihood, but for its noise
    gap = search.cv_results_["mean_test_log_likelihood"] - search.cv_results_["mean_test_denoising"]
    assert (np.abs(gap) < 0.05).all()


def test_densities_of_scikit_learn_can_be_scored():
    ours = EmpiricalScore(0.3, scaling="none").fit(X)
    theirs = KernelDensity(bandwidth=0.3, leaf_size=150).fit(X)
    likelihood = get_scorer("log_likelihood")
    assert likelihood(theirs, X) == pytest.approx(likelihood(ours, X), abs=1e-9)
    assert get_scorer("mmd")(GaussianMixture(3, random_state=0).fit(X), X) > -0.01
    assert get_scorer("mmd")(theirs, X) == -mmd(X, theirs.sample(150, random_state=0))


def test_scorers_of_densities_are_what_they_are_called():
    est = GMMScore(3, random_state=0).fit(X)
    assert get_scorer("log_likelihood")(est, X) == est.score_samples(X).mean()
    denoising = pickle.loads(pickle.dumps(get_scorer("denoising")))
    assert denoising(est, X) == est.denoising_bound(X).score != est.score_samples(X).mean()
    assert repr(denoising) == "DensityScorer('denoising')"
    with pytest.raises(TypeError, match="GaussianMixture has no denoising bound"):
        denoising(GaussianMixture(3, random_state=0).fit(X), X)


def test_rows_are_scored_given_their_labels_where_the_law_knows_labels():
    y = np.repeat([0, 1], 75)
    rows = X + np.where(y[:, None], 20.0, -20.0)
    est = NeuralScore(max_epochs=1, module__width=4, random_state=0).fit(rows, y)
    assert get_scorer("denoising")(est, rows, y) == est.denoising_bound(rows, y).score
    told = get_scorer("log_likelihood")(est, rows, y)
    assert told == est.score_samples(rows, y).mean()
    # half of the rows are of either class, which their labels say: nearly log 2 nats
    assert 0.4 < told - get_scorer("log_likelihood")(est, rows) < 0.7


def test_labels_are_scored_behind_a_pipeline_as_in_its_own_score():
    y = np.repeat([0, 1], 75)
    rows = X + np.where(y[:, None], 20.0, -20.0)
    steps = StandardScaler(), NeuralScore(max_epochs=1, module__width=4, random_state=0)
    pipeline = make_density_pipeline(*steps).fit(rows, y)
    for law in (pipeline, FrozenEstimator(pipeline), DensityPipeline([("law", pipeline)])):
        told = get_scorer("denoising")(law, rows, y)
        assert told == pytest.approx(pipeline.score(rows, y), rel=1e-12)
        # half of the rows are of either class, which their labels say: log 2 nats, of a bound by
        # a network of one epoch not to the digit
        assert 0.4 < told - get_scorer("denoising")(law, rows) < 1.0
    some = slice(70, 80)
    given = pipeline.score_samples(rows[some], y[some])
    stretch = np.log(pipeline[0].scale_).sum()
    inner = pipeline[-1].score_samples(pipeline[0].transform(rows[some]), y[some])
    np.testing.assert_allclose(given, inner - stretch, rtol=1e-12)
    assert get_scorer("log_likelihood")(pipeline, rows[some], y[some]) == given.mean()
    # scikit-learn's own hands none on
    theirs = make_pipeline(*steps).fit(rows, y)
    assert get_scorer("log_likelihood")(theirs, rows[some], y[some]) < given.mean() + stretch - 0.4


def test_a_distance_with_options_bound_has_a_name():
    assert "mmd" in repr(SampleScorer(functools.partial(mmd, bandwidth=1.0)))


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'energy'"):
        get_scorer("enrgy")


def test_what_draws_no_rows_is_named():
    with pytest.raises(TypeError, match="PCA draws no rows: an estimator with sample"):
        get_scorer("mmd")(PCA().fit(X), X)
