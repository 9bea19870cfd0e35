"""How much of what a network adds to a mixture is kept."""

import json
import pickle

import numpy as np
import pytest
import torch

from skdiffusion import GMMScore, NeuralScore
from skdiffusion.datasets import make_moons
from skdiffusion.estimators._neural_gain import gain, gain_of
from skdiffusion.models import GaussianModel, MixtureModel, jacobian
from skdiffusion.models.labelled_mixture import LabelledMixture
from skdiffusion.parameterizations import MixtureParameterization

STILL = {"lr": 1e-30, "max_epochs": 1, "module__width": 8, "random_state": 0}
"""A network that adds nothing."""


class Added:
    """The denoiser of a mixture, and something more."""

    sigma_range = (0.01, 20.0)

    def __init__(self, mixture, more):
        self.mixture, self.more = mixture, more

    def denoise(self, x, sigma, y=None):
        return self.mixture.denoise(x, np.full(len(x), sigma)) + self.more(x, sigma)


@pytest.fixture(scope="module")
def law():
    return GaussianModel([0.0, 0.0], [2.0, 0.5])


@pytest.fixture(scope="module")
def wrong():
    return LabelledMixture(MixtureModel([1.0], [[0.5, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]]))


def of(model, mixture, rows):
    return gain(model, mixture, rows, np.ones(len(rows)), None, 4)


@pytest.mark.parametrize("times, expected", [(1.0, 1.0), (2.0, 0.5), (4.0, 0.25), (-1.0, 0.0)])
def test_what_is_right_but_for_its_size_is_brought_to_size(law, wrong, times, expected):
    # E[x_0 | z] is the law's denoiser, so that E<r, delta> = E|delta|^2 / times
    def more(x, sigma):
        return times * (law.denoise(x, sigma) - wrong.denoise(x, np.full(len(x), sigma)))

    found = of(Added(wrong, more), wrong, law.sample(300, random_state=0))
    assert found == pytest.approx(expected, abs=0.06)  # two standard errors of 300 rows at least


def test_noise_is_left_out(law):
    right = LabelledMixture(MixtureModel([1.0], [[0.0, 0.0]], [[[2.0, 0.0], [0.0, 0.5]]]))
    gains = []
    for seed in range(10):
        w = np.random.default_rng(seed).normal(size=(2, 2))
        model = Added(right, lambda x, s, w=w: s * np.sin(3 * x @ w))
        gains.append(of(model, right, law.sample(300, random_state=seed)))
    assert np.mean(gains) < 0.02 and np.max(gains) < 0.1
    assert min(gains) == 0.0  # half of them would be below


def test_few_rows_say_little():
    assert gain_of(np.ones(5), np.ones(5), np.ones(5)) == 1.0  # all of one voice
    assert gain_of(np.array([3.0, -1.0]), np.ones(2), np.ones(2)) == pytest.approx(1 / (1 + 4))
    assert gain_of(np.ones(1), np.ones(1), np.ones(1)) == 0.0
    assert gain_of(np.zeros(4), np.zeros(4), np.ones(4)) == 0.0  # a network that adds nothing
    # a row of weight two says what it says twice as loud, and is no two rows
    a, b = np.array([1.0, 0.2, 0.5]), np.array([1.0, 0.7, 0.4])
    loud = gain_of(a * [2, 1, 1], b * [2, 1, 1], np.ones(3))
    assert gain_of(a, b, np.array([2.0, 1.0, 1.0])) == pytest.approx(loud)


@pytest.fixture(scope="module")
def fitted():
    X = make_moons(400, noise=0.08, random_state=0)[0]
    return X, NeuralScore(max_epochs=20, random_state=0).fit(X)


def with_gain(est, value):
    est = pickle.loads(pickle.dumps(est))
    est._network_model().preconditioner.gain = value
    return est


def test_a_gain_is_of_the_denoiser_and_all_that_follows(fitted, tmp_path):
    X, est = fitted
    none, half, all_of_it = (with_gain(est, value) for value in (0.0, 0.5, 1.0))
    for sigma in (0.05, 0.5):
        mean = (none.denoise(X, sigma) + all_of_it.denoise(X, sigma)) / 2
        np.testing.assert_allclose(half.denoise(X, sigma), mean, atol=1e-12)
        slope = [jacobian(one.model_, X[:5], sigma) for one in (none, half, all_of_it)]
        np.testing.assert_allclose(slope[1], (slope[0] + slope[2]) / 2, atol=1e-10)
    points = torch.from_numpy(X)
    np.testing.assert_allclose(half.model_.denoise(points, 0.5), half.denoise(X, 0.5), atol=1e-12)
    half.save(tmp_path)
    assert np.array_equal(NeuralScore.load(tmp_path).denoise(X, 0.5), half.denoise(X, 0.5))
    assert not np.allclose(none.denoise(X, 0.5), all_of_it.denoise(X, 0.5), atol=1e-4)


def test_without_gain_the_density_is_the_mixture_s(fitted):
    X, est = fitted
    none = with_gain(est, 0.0)
    mixture = none._network_model().preconditioner.base.law
    exact = none._survey.in_units_of_rows(mixture).log_prob(X[:20], none.sigma_min_)
    np.testing.assert_allclose(none.score_samples(X[:20]), exact, atol=1e-3)


def test_what_was_kept_before_there_were_gains_is_all_of_it(fitted, tmp_path):
    X, est = fitted
    est = with_gain(est, 1.0)
    est.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["gain"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert np.array_equal(NeuralScore.load(tmp_path).denoise(X, 0.5), est.denoise(X, 0.5))
    del est._network_model().preconditioner.gain  # of the instance
    old = pickle.loads(pickle.dumps(est))
    assert old.gain_ == 1.0


def test_a_network_that_only_learned_its_rows_by_heart_is_left_out():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(3, 30))
    X = rng.normal(size=(400, 3)) @ factors + 0.5 * rng.normal(size=(400, 30))
    train, test = X[:120], X[120:]
    options = {"module__width": 64, "module__dropout": 0.0}
    est = NeuralScore(**options, random_state=0).fit(train)
    assert est.gain_ < 0.5
    mixture, kept, whole = (
        one.score(test) for one in (with_gain(est, 0.0), est, with_gain(est, 1))
    )
    # in full it costs six tenths of a nat; a share that twelve rows ask for may cost a little
    assert whole < mixture - 0.3
    assert kept > mixture - 0.1


def test_rows_held_out_teach_the_mixture_in_the_end():
    X = make_moons(400, noise=0.08, random_state=0)[0]
    one = MixtureParameterization(1)
    mixture = GMMScore(1).fit(X)
    for params in ({}, {"early_stopping": False}, {"validation_fraction": 0.5}):
        est = NeuralScore(parameterization=one, **STILL, **params).fit(X)
        for level in (0.05, 0.5, 5.0):
            np.testing.assert_allclose(
                est.denoise(X[:20], level), mixture.denoise(X[:20], level), atol=2e-5
            )
    weights = np.arange(400) % 3
    est = NeuralScore(parameterization=one, **STILL).fit(X, sample_weight=weights)
    mixture = GMMScore(1).fit(X, sample_weight=weights)
    np.testing.assert_allclose(est.denoise(X, 0.5), mixture.denoise(X, 0.5), atol=2e-5)


def test_mixtures_of_classes_are_taught_too():
    X = np.random.default_rng(0).normal(size=(400, 2)) + np.repeat([[0, 0], [60, 0]], 200, axis=0)
    y = np.repeat([0, 1], 200)
    est = NeuralScore(parameterization=MixtureParameterization(1), **STILL).fit(X, y)
    base, coordinates = est._network_model().preconditioner.base, est._survey.coordinates
    z = coordinates.inward(X).double().numpy()
    for k, own in enumerate(base.classes):
        # nine tenths are the class's own: the mean of all its rows
        np.testing.assert_allclose(own.means[-1], z[y == k].mean(axis=0), atol=1e-4)


def test_all_of_it_is_kept_where_no_rows_are_held_out():
    X = make_moons(400, noise=0.08, random_state=0)[0]
    quick = {"max_epochs": 2, "parameterization": "mixture", "random_state": 0}
    ends = NeuralScore(early_stopping=False, **quick).fit(X)
    stream = NeuralScore(**quick).partial_fit(X).partial_fit(X)
    for est in (ends, stream):
        assert est.gain_ == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"module__width": 8},
        {"module__width": 8, "conservative": True},
        {"module": "unet", "input_shape": (1, 2, 2), "module__width": 8},
        {"module": "dit", "input_shape": (1, 2, 2), "module__width": 8},
    ],
    ids=["mlp", "conservative", "unet", "dit"],
)
def test_partial_fit_goes_on_from_what_was_kept(options):
    X = np.random.default_rng(0).normal(size=(200, 4)) ** 3
    one = MixtureParameterization(1)
    est = NeuralScore(parameterization=one, max_epochs=20, random_state=0, **options).fit(X)
    for share in (0.0, 0.3, 1.0):
        law = with_gain(est, share)
        before = law.denoise(X[:9], 0.5)
        law.set_params(lr=1e-30).partial_fit(X)
        assert law.gain_ == 1.0
        np.testing.assert_allclose(law.denoise(X[:9], 0.5), before, atol=1e-5)  # of float32
    assert not np.allclose(with_gain(est, 0.0).denoise(X[:9], 0.5), before, atol=1e-3)


def test_what_was_left_out_does_not_keep_later_rows_from_teaching():
    X = make_moons(400, noise=0.08, random_state=0)[0]
    params = {**STILL, "module__width": 32, "batch_size": 40, "ema_decay": 0.9}
    est = NeuralScore(parameterization=MixtureParameterization(1), **params).fit(X)
    assert est.gain_ < 0.01  # of a network that has learned nothing yet
    before = est.set_params(lr=5e-3).score(X)
    for _ in range(40):
        est.partial_fit(X)
    assert est.score(X) > before + 0.1  # moons are no Gaussian
