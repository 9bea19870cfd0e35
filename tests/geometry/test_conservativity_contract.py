"""ConservativityDecomposer keeps the manners of scikit-learn and refuses bad input."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import ConservativityDecomposer, GaussianScore
from skdiffusion.models import (
    AdditiveGauge,
    GaussianModel,
    MixtureModel,
)

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
MIXTURE = MixtureModel([1, 1, 1], [[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]], [0.5, 0.5, 0.5])


@pytest.mark.foreign_state
@parametrize_with_checks(
    [
        ConservativityDecomposer("linear", sigma=[0.5, 1.0], n_noise=1),
        ConservativityDecomposer("kernel", sigma=1.0, n_noise=1),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_model_selection_over_potentials():
    X = MIXTURE.sample(400, random_state=0)
    V = AdditiveGauge(MIXTURE, TURN).score(X, 0.0)
    dec = ConservativityDecomposer(random_state=0)
    search = GridSearchCV(dec, {"potential": ["linear", "polynomial", "kernel"]}, cv=3).fit(X, V)
    assert search.best_params_ == {"potential": "kernel"}
    assert 0.3 < search.best_score_ < 0.55
    scores = cross_val_score(clone(dec).set_params(potential="linear"), X, V, cv=KFold(4))
    assert np.abs(scores - 0.16).max() < 0.1  # as the linear part of a larger sample
    pipeline = make_pipeline(StandardScaler(), clone(dec)).fit(X, V)
    assert pipeline.predict(X).shape == X.shape


def test_copies_jobs_and_containers(rng):
    pandas = pytest.importorskip("pandas")
    X = rng.standard_normal((60, 2))
    model = AdditiveGauge(GaussianModel(np.zeros(2), 1.0), TURN)
    dec = ConservativityDecomposer(score_estimator=model, sigma=[0.5, 1.0], random_state=0)
    one = clone(dec).fit(X)
    two = clone(dec).set_params(n_jobs=2).fit(X)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    for copied in (pickle.loads(pickle.dumps(one)), joblib.hash(one) and clone(one).fit(X)):
        np.testing.assert_array_equal(copied.predict(X, 1.0), one.predict(X, 1.0))
    frame = pandas.DataFrame(X, columns=["a", "b"])
    out = clone(dec).set_output(transform="pandas").fit(frame).transform(frame)
    assert list(out.columns) == ["a", "b"]
    assert list(out.index) == list(frame.index)


def test_a_splitter_may_deal_out_the_rows(rng):
    X = rng.standard_normal((50, 2))
    dec = ConservativityDecomposer("linear", cv=KFold(5)).fit(X, X)
    assert dec.conservative_fraction_ == pytest.approx(1)
    with pytest.raises(ValueError, match="every row once"):
        ConservativityDecomposer("linear", cv=[(np.arange(25), np.arange(25, 50))]).fit(X, X)


def test_a_number_of_folds_may_be_numpys(rng):
    """Folds are drawn at random: sorted rows must not be held out group by group."""
    X = np.sort(rng.standard_normal((60, 2)), axis=0)
    V = np.sin(X)
    ours, theirs = (
        ConservativityDecomposer("kernel", cv=cv, random_state=0).fit(X, V)
        for cv in (4, np.int64(4))
    )
    assert theirs.conservative_fraction_ == ours.conservative_fraction_


def test_the_field_goes_by_its_name_too(rng):
    X = rng.standard_normal((60, 2))
    V = X @ np.array([[1.0, 2.0], [0.0, 1.0]])
    dec = ConservativityDecomposer("linear", random_state=0)
    named, target = clone(dec).fit(X, V=V), clone(dec).fit(X, V)
    np.testing.assert_array_equal(named.predict(X), target.predict(X))
    assert named.score(X, V=V) == target.score(X, V)
    # pipelines hand on labels that are for others, and parameters of a step by its name
    pipeline = make_pipeline(StandardScaler(with_std=False), clone(dec))
    pipeline.fit(X, np.arange(60) % 2, conservativitydecomposer__V=V)
    np.testing.assert_allclose(pipeline.predict(X), target.predict(X), atol=1e-12)
    with pytest.raises(ValueError, match="given twice"):
        clone(dec).fit(X, V, V=V)
    with pytest.raises(ValueError, match="V must hold the field"):
        clone(dec).fit(X, V=np.arange(60) % 2)  # by its own name it is no label


@pytest.mark.parametrize(
    "V, message",
    [
        (np.ones((20, 3)), r"V must hold the field at each row of X, shape \(20, 2\)"),
        (np.ones((19, 2)), "V must hold the field"),
        (np.linspace(0, 1, 20), "V must hold the field"),
        (np.full((20, 2), np.nan), "V contains NaN"),
    ],
)
def test_fields_of_another_shape_are_refused(V, message):
    with pytest.raises(ValueError, match=message):
        ConservativityDecomposer("linear").fit(np.random.default_rng(0).normal(size=(20, 2)), V)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"potential": "quadratic"}, "Unknown potential 'quadratic'"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"cv": 1}, "cv must be an integer of at least 2"),
        ({"degree": 2}, "degree must be"),
        ({"length_scale": 0.0}, "length_scale must be"),
        ({"n_components": 0}, "n_components must be"),
        ({"score_estimator": GaussianScore()}, "not both"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message, rng):
    X = rng.standard_normal((20, 2))
    with pytest.raises(ValueError, match=message):
        ConservativityDecomposer(**parameters).fit(X, X)


@pytest.mark.parametrize("sigma", [0, "low", [], [0.5, -1.0], [[0.5, 1.0], [2.0, 3.0]]])
def test_levels_are_a_list_of_positive_numbers(sigma, rng):
    dec = ConservativityDecomposer("linear", score_estimator=GaussianScore(), sigma=sigma)
    with pytest.raises(ValueError, match="a positive noise level or a list of them"):
        dec.fit(rng.standard_normal((20, 2)))


@pytest.mark.parametrize("sigma", [0, "low", [0.5, 1.0]])
def test_a_potential_is_asked_at_one_level(sigma, rng):
    X = rng.standard_normal((20, 2))
    dec = ConservativityDecomposer("linear", score_estimator=GaussianScore(), sigma=[0.5, 1.0])
    with pytest.raises(ValueError, match="sigma must be a finite number above 0"):
        dec.fit(X).potential_at(X, sigma)


def test_impossible_requests_are_refused(rng):
    X = rng.standard_normal((20, 2))
    dec = ConservativityDecomposer("linear").fit(X, X)
    with pytest.raises(ValueError, match="no noise level"):
        dec.predict(X, 1.0)
    with pytest.raises(ValueError, match="make no score model"):
        dec.as_score_model()
    with pytest.raises(ValueError, match="V is needed"):
        dec.gauge(X)
    for sigma in ([0.0, 1.0], [], "low"):
        with pytest.raises(ValueError, match="sigma must be"):
            ConservativityDecomposer(sigma=sigma).fit(X)
    scored = ConservativityDecomposer("linear", sigma=[1.0]).fit(X)
    with pytest.raises(ValueError, match="at the levels"):
        scored.potential_at(X, 2.0)
    with pytest.raises(ValueError, match="has 3 features"):
        wide = GaussianModel(np.zeros(3), 1.0)
        ConservativityDecomposer(score_estimator=wide, sigma=1.0).fit(X)
