"""NeuralScore: what a trained network must be, whatever it has learned."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import NeuralScore
from skdiffusion.utils.estimator_checks import check_score_estimator

QUICK = dict(max_epochs=5, module__width=16, module__n_blocks=1, random_state=0)


@pytest.mark.foreign_state  # some of scikit-learn's own checks draw from the global stream
@parametrize_with_checks([NeuralScore(**QUICK)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_the_contract():
    check_score_estimator(NeuralScore(**QUICK))
