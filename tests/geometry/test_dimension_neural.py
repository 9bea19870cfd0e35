"""Dimension from a trained network: not of the linear span, and not below its training levels."""

import pytest
from sklearn.frozen import FrozenEstimator

from skdiffusion import IntrinsicDimensionEstimator, NeuralScore
from skdiffusion.datasets import make_sphere


@pytest.fixture(scope="module")
def sphere():
    X, _ = make_sphere(2400, 2, 5, random_state=0)
    return X, FrozenEstimator(NeuralScore(max_epochs=150, random_state=0).fit(X[:2000]))


def test_a_network_finds_the_two_sphere(sphere):
    X, network = sphere
    for method, slack in [("flipd", 0.15), ("spectrum", 0.05)]:
        est = IntrinsicDimensionEstimator(method, score_estimator=network, random_state=0)
        est.fit(X[:400])
        # a span of three is what it learns first, and all it knows at the lowest levels
        assert est.dimension_ == pytest.approx(2, abs=slack)
        assert [round(plateau.dimension) for plateau in est.plateaus_][-1] == 2
        assert est.curve_.levels[0] >= network.model_.sigma_range[0]


def test_a_network_is_not_asked_below_its_levels(sphere):
    X, network = sphere
    low = network.model_.sigma_range[0]
    with pytest.raises(ValueError, match="is defined for noise levels from"):
        IntrinsicDimensionEstimator(score_estimator=network, sigma=low / 2).fit(X[:50])


def test_rows_it_was_not_trained_on_are_as_good(sphere):
    X, network = sphere
    est = IntrinsicDimensionEstimator(score_estimator=network, random_state=0).fit(X[:400])
    assert est.predict(X[2000:]).mean() == pytest.approx(est.dimension_, abs=0.1)
