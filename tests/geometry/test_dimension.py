"""The estimator of dimension: what it answers, and that it keeps scikit-learn's contract."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion.geometry import IntrinsicDimensionEstimator
from skdiffusion.geometry._score_dimension import METHODS


@pytest.mark.foreign_state
@parametrize_with_checks(
    [
        IntrinsicDimensionEstimator(),
        IntrinsicDimensionEstimator("flipd"),
        IntrinsicDimensionEstimator("spectrum"),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
