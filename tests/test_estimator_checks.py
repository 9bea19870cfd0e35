"""The checks pass what keeps the contract and name what breaks it."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from skdiffusion import GaussianScore
from skdiffusion.models import BaseScoreModel, GaussianModel
from skdiffusion.utils.estimator_checks import check_score_estimator, check_score_model

TRUE = GaussianModel([1.0, -2.0], [[2.0, 0.6], [0.6, 1.0]])


class Wrapped(GaussianModel):
    """A Gaussian in which a test breaks one thing."""

    def __init__(self):
        super().__init__(TRUE.mean, TRUE.covariance)

    def __reduce__(self):  # classes made by a function pickle as what they break
        return Wrapped, ()


def broken(name, function):
    return type("Broken", (Wrapped,), {name: function})()


class BatchDependent(BaseScoreModel):
    """What a batch normalisation left in training mode would do."""

    n_features = 2

    def _score(self, x, sigma):
        return TRUE._score(x, sigma) * (1 + 1e-3 * len(x))


BROKEN_MODELS = {
    "denoise = x \\+ sigma\\^2 score": broken(
        "_score", lambda self, x, sigma: 1.01 * TRUE._score(x, sigma)
    ),
    "a row scores the same alone": BatchDependent(),
    "one level per row": broken(
        "_score",
        lambda self, x, sigma: TRUE._score(x, sigma if isinstance(sigma, float) else 2 * sigma),
    ),
    "score = grad log_prob": broken(
        "_log_prob", lambda self, x, sigma: TRUE._log_prob(x, sigma) + 0.1 * x[:, 0]
    ),
    "heat equation": broken(
        "_log_prob", lambda self, x, sigma: TRUE._log_prob(x, sigma) + 0.01 * np.log(sigma)
    ),
    "normalised at large sigma": broken(
        "_log_prob", lambda self, x, sigma: TRUE._log_prob(x, sigma) + 0.01
    ),
    "jvp of score = derivative": broken(
        "_score_jvp", lambda self, x, sigma, v: 1.01 * TRUE._score_jvp(x, sigma, v)
    ),
    "flow is a semigroup": broken(
        "_flow",
        lambda self, x, a, b: (
            TRUE.mean + (TRUE._flow(x, a, b) - TRUE.mean) * np.exp(1e-3 * np.log(b / a) ** 3)
        ),
    ),
    "from_latent inverts": broken(
        "_from_latent", lambda self, z, sigma: TRUE._from_latent(z, sigma) + 1e-3
    ),
    r"E\[x . score\] = -d": broken(
        "_sample",
        lambda self, n, sigma, rng: 1.3 * TRUE._sample(n, sigma, rng) - 0.3 * TRUE.mean,
    ),
    r"E\[score\] = 0": broken(
        "_sample", lambda self, n, sigma, rng: TRUE._sample(n, sigma, rng) + 1
    ),
    "same seed must give": broken(
        "_sample", lambda self, n, sigma, rng: TRUE._sample(n, sigma, np.random.default_rng())
    ),
    "global random state": broken(
        "_sample",
        lambda self, n, sigma, rng: TRUE._sample(n, sigma, rng) + 0 * np.random.rand(),  # noqa: NPY002
    ),
    "must not change its input": broken(
        "_denoise", lambda self, x, sigma: _denoise_in_place(x, sigma)
    ),
    "a negative sigma must raise": broken(
        "score", lambda self, x, sigma, y=None: self._lenient(x, sigma)
    ),
}


def _denoise_in_place(x, sigma):
    result = TRUE._denoise(x, sigma)
    x += 1e-9
    return result


Wrapped._lenient = lambda self, x, sigma: TRUE.score(x, np.abs(sigma))


@pytest.mark.parametrize("message", BROKEN_MODELS)
@pytest.mark.foreign_state
def test_a_broken_model_is_named(message):
    with pytest.raises(AssertionError, match=message):
        check_score_model(BROKEN_MODELS[message])


class Rotating(BaseScoreModel):
    """Not a gradient, and says that it is."""

    n_features = 2
    is_conservative = True

    def _score(self, x, sigma):
        return (x[:, ::-1] if isinstance(x, np.ndarray) else x.flip(1)) * np.array([1.0, -1.0])


def test_a_false_claim_of_conservativity_is_named():
    class NumPyOnly(Rotating):
        is_differentiable = False

    with pytest.raises(AssertionError):
        check_score_model(NumPyOnly())


class WithoutJacobian(GaussianScore):
    """Forgets the log-determinant of its units."""

    def score_samples(self, X):
        return super().score_samples(X) + np.log(1.2)


class Forgetful(GaussianScore):
    """Keeps what a failed fit has half changed."""

    def fit(self, X, y=None, sample_weight=None):
        self.model_ = GaussianModel(np.zeros(2), 1.0)
        return super().fit(X, y, sample_weight)


class Stale(GaussianScore):
    """Draws the same sample at every call."""

    def sample(self, n_samples=1, *, random_state=None, **options):
        return super().sample(n_samples, random_state=random_state or 0, **options)


@pytest.mark.parametrize(
    "estimator, message",
    [
        (WithoutJacobian(), "must integrate to one"),
        (Forgetful(), "a failed fit must change nothing"),
        (Stale(), "random_state=None must be fresh"),
    ],
)
def test_a_broken_estimator_is_named(estimator, message):
    with pytest.raises(AssertionError, match=message):
        check_score_estimator(estimator)


def test_checks_are_compatible_with_those_of_scikit_learn():
    assert len(list(estimator_checks_generator(GaussianScore()))) > 40
