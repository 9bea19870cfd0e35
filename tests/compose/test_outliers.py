"""ScoreOutlierDetector: what each criterion measures, on laws where it is known."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, NeuralScore
from skdiffusion.compose import ScoreOutlierDetector
from skdiffusion.compose.outliers import CRITERIA, LEVELS


@pytest.mark.foreign_state
@parametrize_with_checks([ScoreOutlierDetector(criterion=name) for name in CRITERIA])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def frozen(law, **options):
    detector = ScoreOutlierDetector(FrozenEstimator(law), **options)
    return detector.fit(law.sample(200, random_state=0))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_finds_rows_far_away(criterion, rng):
    X = rng.standard_normal((400, 3)) * [1.0, 1e-3, 1e4]  # units do not matter
    far = np.array([[8.0, 0.0, 0.0], [0.0, 8e-3, 8e4], [0.0, 1.0, 0.0], [1e30, 0.0, 0.0]])
    detector = ScoreOutlierDetector(criterion=criterion, contamination=0.05).fit(X)
    assert (detector.predict(far) == -1).all()
    assert (detector.predict(X) == -1).mean() == pytest.approx(0.05, abs=0.005)
    np.testing.assert_array_equal(detector.predict(X) == -1, detector.decision_function(X) < 0)


def test_rows_that_are_new_are_called_outliers_as_often_as_those_it_was_fitted_to(rng):
    """The default law is made of the rows: each is judged by the others."""
    share = 0.1
    for n in (300, 6000):  # all rows are in the law, and most of them
        X, fresh = rng.standard_normal((2, n, 4))
        detector = ScoreOutlierDetector(contamination=share).fit(X)
        called = (detector.predict(fresh) == -1).mean()
        # the border and the count are each known to the spread of n draws
        assert abs(called - share) < 4 * np.sqrt(2 * share * (1 - share) / n)


def test_the_default_is_that_of_the_rows_and_not_of_their_order(rng):
    X = rng.standard_normal((5500, 2))
    turned = rng.permutation(len(X))
    found, expected = (
        ScoreOutlierDetector().fit(rows).score_samples(X[:50]) for rows in (X[turned], X)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_posterior_of_kernels_is_that_of_their_densities(rng):
    """Distances are found once for all levels; the model finds them for each."""
    X = rng.standard_normal((300, 5))
    detector = ScoreOutlierDetector().fit(X)
    rows = np.vstack([X[:20], rng.standard_normal((20, 5)), np.full((1, 5), 1e3)])
    scaled = detector.scaler_.transform(rows)
    own = np.append(np.arange(20), np.full(21, -1))
    model = detector.estimator_.model_
    places = [np.flatnonzero((model.points == row).all(axis=1)) for row in scaled[:20]]
    own[:20] = np.concatenate(places)
    logits = np.stack([model.log_prob(scaled, level, exclude=own) for level in LEVELS], axis=1)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = -(weights @ np.log(LEVELS)) / weights.sum(axis=1)
    np.testing.assert_allclose(detector.score_samples(rows), expected, rtol=1e-10)


def test_a_law_far_from_the_origin_is_judged_by_as_it_is_near(rng):
    X, rows = rng.standard_normal((2, 200, 3))
    scores = [
        ScoreOutlierDetector(FrozenEstimator(EmpiricalScore(0.3, scaling="none").fit(X + offset)))
        .fit(X + offset)
        .score_samples(rows + offset)
        for offset in (0.0, 1e8)
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-6)


def test_rows_whose_distance_has_no_square_are_outliers_too(rng):
    detector = ScoreOutlierDetector().fit(rng.standard_normal((100, 2)))
    scores = detector.score_samples([[1e200, 0.0], [-1e300, 1e300], [0.0, 0.0]])
    np.testing.assert_allclose(scores[:2], -np.log(LEVELS[-1]), rtol=1e-6)
    assert detector.predict([[1e200, 0.0], [0.0, 0.0]]).tolist() == [-1, 1]


def test_copies_of_a_row_speak_for_it(rng):
    """A lone row is an outlier; ten copies of it are a group."""
    X, lone = rng.standard_normal((200, 2)), np.full((1, 2), 6.0)
    for copies, sign in ((1, -1), (10, 1)):
        rows = np.vstack([X, np.repeat(lone, copies, axis=0)])
        detector = ScoreOutlierDetector(contamination=0.02).fit(rows)
        assert detector.predict(lone).tolist() == [sign]
        assert detector.predict(rows)[200:].tolist() == [sign] * copies


def test_log_density_is_in_the_units_of_the_rows(rng):
    X = rng.standard_normal((500, 2)) * [3.0, 0.01] + 5
    law = GaussianScore()
    detector = ScoreOutlierDetector(law, criterion="log_density", sigma=1e-6).fit(X)
    np.testing.assert_allclose(
        detector.score_samples(X), GaussianScore().fit(X).score_samples(X), atol=1e-3
    )


def test_constant_columns_have_a_density_too(rng):
    X = np.column_stack([rng.standard_normal(300), np.full(300, 7.0)])
    detector = ScoreOutlierDetector().fit(X)
    assert detector.predict([[0.0, 7.0], [0.0, 7.5]]).tolist() == [1, -1]


def test_the_noise_posterior_of_a_point_is_an_inverse_gamma():
    """One clean point, d = 6: sigma^2 given the distance r has law IG(d/2, r^2/2)."""
    d, r = 6, 2.0
    law = EmpiricalScore.from_parameters([[0.0] * d], 1e-12, sigma_min=1e-4, sigma_max=50)
    row = np.full((1, d), r / np.sqrt(d))
    detector = ScoreOutlierDetector(FrozenEstimator(law), criterion="noise_posterior")
    detector.fit(np.zeros((2, d)))
    # E[log sigma] = (log(r^2 / 2) - digamma(d / 2)) / 2
    from scipy.special import digamma

    truth = (np.log(r**2 / 2) - digamma(d / 2)) / 2
    # a trapezoidal rule with five levels per e-fold, and no mass at the ends of their range
    assert -detector.score_samples(row)[0] == pytest.approx(truth, abs=0.01)
    assert LEVELS[0] < 0.1 * r and LEVELS[-1] > 10 * r


def test_the_posterior_of_a_network_is_over_its_levels(rng, monkeypatch):
    # each level is an integral along the flow: three instead of 33
    monkeypatch.setattr("skdiffusion.compose.outliers.LEVELS", np.array([0.01, 1.0, 30.0]))
    X = rng.standard_normal((30, 1))
    network = NeuralScore(max_epochs=1, module__width=8, random_state=0, sigma_max=5.0)
    scores = ScoreOutlierDetector(network).fit(X).score_samples([[0.0], [9.0]])
    assert scores[0] > scores[1] > -np.log(5.0)


def test_reconstruction_of_a_gaussian_has_a_closed_form():
    law = GaussianScore.from_parameters([0.0], [4.0])
    detector = frozen(law, criterion="reconstruction", sigma=1.0)
    x = np.linspace(-3, 3, 4000)[:, None]
    # D = 0.8 (x + eps): the error is 0.04 x^2 + 0.64 on average over eps
    gap = -detector.score_samples(x) - (0.04 * x[:, 0] ** 2 + 0.64)
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(x))


def test_dimension_on_a_plane_and_off_it():
    law = GaussianScore.from_parameters([0.0] * 3, np.diag([1.0, 1.0, 1e-8]), reg_covar=0.0)
    detector = frozen(law, criterion="dimension", sigma=0.05)
    on, off = detector.score_samples([[0.1, 0.0, 0.0], [0.1, 0.0, 1.0]])
    assert -on == pytest.approx(2, abs=0.01)
    assert -off == pytest.approx(2 + (1 / 0.05) ** 2, rel=0.01)


def test_cancer_is_found_by_a_law_of_the_healthy():
    data = load_breast_cancer()
    healthy = data.data[data.target == 1]
    train, test = healthy[::2], np.vstack([healthy[1::2], data.data[data.target == 0]])
    sick = np.repeat([0, 1], [len(test) - (data.target == 0).sum(), (data.target == 0).sum()])
    detector = ScoreOutlierDetector().fit(train)
    assert roc_auc_score(sick, -detector.score_samples(test)) > 0.9


def test_pickle_pipelines_and_parameters(rng):
    X = rng.standard_normal((100, 2))
    pipeline = make_pipeline(MinMaxScaler(), ScoreOutlierDetector(contamination=0.2)).fit(X)
    copy = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(copy.predict(X), pipeline.predict(X))
    with pytest.raises(ValueError, match="contamination must be a finite number above 0 and of at"):
        ScoreOutlierDetector(contamination=0.9).fit(X)
    with pytest.raises(ValueError, match="did you mean 'dimension'"):
        ScoreOutlierDetector(criterion="dimensions").fit(X)


@pytest.mark.parametrize("criterion", ["noise_posterior", "log_density"])
def test_names_of_columns_are_checked_once(criterion, rng):
    frame = pd.DataFrame(rng.standard_normal((60, 2)), columns=["a", "b"])
    law = GMMScore(2, random_state=0).fit(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector = ScoreOutlierDetector(FrozenEstimator(law), criterion=criterion).fit(frame)
        assert detector.score_samples(frame).shape == (60,)
