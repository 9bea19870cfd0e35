"""Is it the same law? A classifier's answer, and exact moments of schemes that are affine."""

import itertools

import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skdiffusion.samplers.base import BoundModel

N_ERRORS = 3.0
"""Standard errors allowed. Seeds are fixed: the twenty or so such checks of the samplers had one
chance in twenty to fail when they were written, and none since."""


def accuracy(a, b, n_neighbors=50):
    """Cross-validated accuracy of telling two samples apart, and its standard error under equality.

    Many neighbours, because what a sampler gets wrong is smooth.
    """
    X = np.concatenate([a, b])
    labels = np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(KNeighborsClassifier(n_neighbors), X, labels, cv=folds)
    return scores.mean(), 0.5 / np.sqrt(len(X))


def assert_same_law(a, b):
    found, error = accuracy(a, b)
    assert abs(found - 0.5) < N_ERRORS * error, f"told apart with accuracy {found:.3f}"


def assert_moments(x, mean, covariance):
    """Mean and covariance within standard errors; a Gaussian's fourth moments set the latter."""
    n, spread = len(x), np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(x.mean(0) - mean), 3.5 * spread / np.sqrt(n))
    errors = np.sqrt((np.outer(spread, spread) ** 2 + np.asarray(covariance) ** 2) / n)
    np.testing.assert_array_less(
        np.abs(np.cov(x.T).reshape(errors.shape) - covariance), 3.5 * errors
    )


class Given:
    """Noise whose draws are zero, except that the ``k``-th normal one is one."""

    scale = 1.0

    def __init__(self, k=None):
        self.k, self.draw = k, 0

    def normal(self, x):
        self.draw += 1
        return np.full(x.shape, float(self.draw - 1 == self.k))


def affine_step(sampler, model, level, next_level):
    """Factor, offset and standard deviation of a step in one dimension that is affine in all."""

    def go(x, noise):
        bound = BoundModel(model, np.float64)
        return sampler.step(bound, np.array([[x]]), level, next_level, None, noise)[0].item()

    quiet = Given()
    offset = go(0.0, quiet)
    noises = [go(0.0, Given(k)) - offset for k in range(quiet.draw)]
    return go(1.0, Given()) - offset, offset, float(np.linalg.norm(noises))


def law_of_scheme(sampler, model, levels, mean, variance):
    """Exact mean and variance of a scheme's points at the last level."""
    for level, next_level in itertools.pairwise(levels):
        a, b, c = affine_step(sampler, model, float(level), float(next_level))
        mean, variance = a * mean + b, a**2 * variance + c**2
    return mean, variance
