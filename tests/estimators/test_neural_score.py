"""NeuralScore: what a trained network must be, whatever it has learned."""

import json
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import skorch
import torch
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs, make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import GaussianScore, GMMScore, NeuralScore, VPSchedule
from skdiffusion.datasets import make_embedded_circles
from skdiffusion.estimators import NoiseLevelEstimator
from skdiffusion.estimators._training_rows import LONGEST_EPOCH, repeated_rows
from skdiffusion.models import GaussianModel, LabelCode, LabelGuidedModel, MixtureModel
from skdiffusion.models.column_laws import ColumnLaws
from skdiffusion.models.jacobian import jacobian
from skdiffusion.models.labelled_mixture import LabelledMixture
from skdiffusion.models.neural import Preconditioner
from skdiffusion.networks.mlp import ResidualMLP
from skdiffusion.parameterizations import MixtureParameterization, check_parameterization
from skdiffusion.samplers import (
    AdamsSampler,
    HeunSampler,
    PredictorCorrectorSampler,
    run_sampler,
)
from skdiffusion.schedules import check_schedule
from skdiffusion.utils.estimator_checks import check_score_estimator


class Plain(torch.nn.Module):
    """A network that knows of nothing but rows."""

    def __init__(self, n_features, n_conditions=0):
        super().__init__()
        self.layer = torch.nn.Linear(n_features, n_features)

    def forward(self, x, noise, condition=None):
        return self.layer(x)


QUICK = dict(max_epochs=5, module__width=16, module__n_blocks=1, random_state=0)


@pytest.mark.foreign_state  # some of scikit-learn's own checks draw from the global stream
@parametrize_with_checks([NeuralScore(**QUICK)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_the_contract():
    check_score_estimator(NeuralScore(**QUICK))


def test_weights_in_any_unit_tell_how_rows_compare(moons):
    weights = np.where(moons[:200, 1] > 0, 0.75, 0.25)
    expected, found = (
        NeuralScore(**QUICK).fit(moons[:200], sample_weight=weights * unit)
        for unit in (1.0, 1e-300)
    )
    np.testing.assert_allclose(found.denoise(moons, 0.3), expected.denoise(moons, 0.3), atol=1e-3)


def test_weights_stand_for_copies_as_far_as_an_epoch_holds_them():
    whole = np.array([2.0, 0.0, 5.0])
    assert repeated_rows(whole) is whole
    for unit in (1e9, 1e300):
        found = repeated_rows(whole * unit)
        np.testing.assert_allclose(found, whole / 7 * LONGEST_EPOCH)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_weights_of_labelled_rows_are_repetitions(kind, rng):
    X, y = load_iris(return_X_y=True)
    y = y if kind == "classes" else X[:, 0] + 0.01
    weights = rng.integers(0, 3, len(X)).astype(float)
    copies = np.repeat(np.arange(len(X)), weights.astype(int))
    weighted = NeuralScore(**QUICK).fit(X, y, sample_weight=weights)
    repeated = NeuralScore(**QUICK).fit(X[copies], y[copies])
    found, expected = (est.denoise(X, 0.5, y) for est in (weighted, repeated))
    np.testing.assert_allclose(found, expected, atol=1e-8)  # sums in another order


def test_labels_of_rows_without_weight_are_none():
    X, y = load_iris(return_X_y=True)
    words = np.array(["a", "b", "c"])[y]
    est = NeuralScore(**QUICK).fit(X, words, sample_weight=y < 2)
    assert est.classes_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="unknown class 'c' in y"):
        est.sample(2, y="c")
    with pytest.raises(ValueError, match="y must hold one label per row, 150; got 3"):
        NeuralScore(**QUICK).fit(X, words[:3], sample_weight=y < 2)


# ---------------------------------------------------------------------- units


@pytest.mark.parametrize("scaling", ["global", "columns"])
@pytest.mark.parametrize("unit, offset", [(1e100, 0), (1e-100, 0), (1e-140, 0), (1, 1e9)])
def test_rows_in_any_units_and_at_any_offset_are_learned_as_well(scaling, unit, offset):
    rows = np.random.default_rng(0).normal(size=(300, 2)) @ [[1, 0.5], [0, 0.3]] + 1
    there = rows * unit + offset
    est = NeuralScore(**QUICK, scaling=scaling).fit(there)
    plain = NeuralScore(**QUICK, scaling=scaling).fit(rows)
    # rows come in another order: two runs of five epochs, whose bounds are within 0.02 nats
    assert est.score(there) + 2 * np.log(unit) == pytest.approx(plain.score(rows), abs=0.1)
    denoised = (est.denoise(there[:5], 0.01 * est.scale_) - offset) / unit
    np.testing.assert_allclose(denoised, rows[:5], atol=0.05)  # five times the noise
    spread = (est.sample(500, random_state=0) - offset).std(axis=0) / unit
    np.testing.assert_allclose(spread, rows.std(axis=0), rtol=0.2)


def test_far_rows_that_decide_the_scale_are_told_of(rng):
    X = np.column_stack([rng.normal(size=(300, 2)), np.arange(300) == 7])  # a rare category
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        NeuralScore(**QUICK).fit(X)
    X[0, 1] = 1e8
    told_of = r"scale of 1 of 3 columns \(1\).* lie within 3\.\d+,"
    with pytest.warns(UserWarning, match=told_of) as told:
        NeuralScore(**QUICK).fit(X)
    assert told[0].filename == __file__  # the line that called fit


def test_rows_whose_noise_levels_no_number_can_hold_are_refused():
    with pytest.raises(ValueError, match=r"noise levels run from .* bring X to other units"):
        NeuralScore(**QUICK).fit(2e149 * np.random.default_rng(0).normal(size=(50, 2)))


def test_a_level_out_of_range_is_refused_in_the_name_of_the_estimator():
    rows = np.random.default_rng(0).normal(size=(50, 2))
    est = NeuralScore(**QUICK).fit(rows)
    for ask in (est.denoise, est.stein_score, est.predict_noise, est.log_density, est.jacobian):
        with pytest.raises(ValueError, match=r"^NeuralScore is defined for noise levels from"):
            ask(rows, 2 * est.sigma_max_)


# ---------------------------------------------------------------------- what it learns


@pytest.fixture(scope="module")
def moons():
    return make_moons(1200, noise=0.08, random_state=0)[0]


def test_a_gaussian_is_learned_by_not_learning():
    # the skip connection alone is the answer: what the network adds can only be noise of training
    law = GaussianModel([3.0, -1.0], [[2.0, 1.2], [1.2, 1.0]])
    X = law.sample(4000, random_state=0)
    est = NeuralScore(max_epochs=8, random_state=0).fit(X)
    for sigma in (0.1, 1.0, 5.0):
        x = law.sample(500, sigma, random_state=1)
        exact, found = law.denoise(x, sigma), est.denoise(x, sigma)
        # a fifth of the irreducible error, itself of the size of the smaller of sigma and 1
        assert np.sqrt(np.mean((found - exact) ** 2)) < 0.2 * min(sigma, 1.0)
    x = law.sample(50, random_state=2)
    assert abs(np.mean(est.score_samples(x) - law.log_prob(x))) < 0.1


def test_learns_what_a_gaussian_cannot(moons):
    train, test = moons[:900], moons[900:]
    est = NeuralScore(max_epochs=150, random_state=0).fit(train)
    gaussian = GaussianScore().fit(train)
    # the crescents are worth more than a nat over their Gaussian, -2.0 nats
    assert est.score(test) > gaussian.score(test) + 1.0
    # a coarse flow density and the bound agree where the model is a good one
    few = test[:20]
    assert abs(est.score_samples(few).mean() - est.denoising_bound(few).score) < 0.4
    rows = est.sample(300, random_state=0)
    nearest = np.min(np.linalg.norm(rows[:, None] - moons[None], axis=2), axis=1)
    assert np.mean(nearest < 0.15) > 0.9  # held-out moons: 0.99; the Gaussian's draws: 0.4


@pytest.mark.parametrize("parameterization", ["gaussian", "edm", "noise", "data", "velocity", "v"])
def test_untrained_networks_are_their_skip_connection(parameterization, moons):
    # the last layer starts at zero; with a learning rate of nothing it stays there
    est = NeuralScore(
        parameterization=parameterization, schedule="vp", lr=1e-30, max_epochs=1, random_state=0
    ).fit(moons)
    mean, scale = est.far_field_.mean, est.scale_
    z = (moons[:20] - mean) / scale
    ratio = 0.5  # of the level to the scale
    schedule = est._schedule()
    time = schedule.time_of(ratio)
    alpha, sigma = schedule.alpha(time), schedule.sigma(time)
    skip = {
        "edm": 1 / (1 + ratio**2),
        "noise": 1.0,
        "data": 0.0,
        "v": alpha**2 / (alpha**2 + sigma**2),
    }
    if parameterization == "gaussian":
        expected = est.far_field_.denoise(moons[:20], ratio * scale)
    elif parameterization == "velocity":
        rates = schedule.rates(time)
        expected = mean + scale * z * alpha * rates[1] / (alpha * rates[1] - sigma * rates[0])
    else:
        expected = mean + scale * z * skip[parameterization]
    np.testing.assert_allclose(est.denoise(moons[:20], ratio * scale), expected, atol=1e-5)


def test_an_untrained_network_on_a_mixture_is_that_mixture(moons):
    # with one component the mixture is the same whatever the seed
    params = {"lr": 1e-30, "max_epochs": 1, "early_stopping": False, "random_state": 0}
    est = NeuralScore(parameterization=MixtureParameterization(1), **params).fit(moons)
    mixture = GMMScore(1).fit(moons)
    for level in (0.05, 0.5, 5.0):
        np.testing.assert_allclose(
            est.denoise(moons[:20], level), mixture.denoise(moons[:20], level), atol=2e-5
        )


def test_a_mixture_is_seen_in_scaled_and_turned_coordinates(rng):
    # columns a thousand apart: noise is in proportion to them, and so is the mixture
    X = np.concatenate([rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + c for c in (0, 9)])
    X *= [1.0, 1e3, 1.0]
    est = NeuralScore(
        parameterization=MixtureParameterization(2), lr=1e-30, max_epochs=1, random_state=0,
        early_stopping=False,
    ).fit(X)  # fmt: skip
    mixture = GMMScore(2, random_state=0).fit(X)
    # the flow's density, at the lowest level of the network
    np.testing.assert_allclose(est.score_samples(X[:5]), mixture.score_samples(X[:5]), atol=0.02)


def test_a_network_on_a_mixture_is_a_better_density(moons):
    train, test = moons[:900], moons[900:]
    bounds = {}
    for name in ("gaussian", "mixture"):
        est = NeuralScore(parameterization=name, max_epochs=40, random_state=0).fit(train)
        bounds[name] = est.score(test)
    # 40 epochs are few for a network alone, and the mixture has half of the crescents' nat already
    assert bounds["mixture"] > bounds["gaussian"] + 0.2


def test_a_network_can_take_back_what_the_mixture_says():
    """Hints are its error against the Gaussian skip: minus the hint leaves that skip alone."""
    variances = np.array([1.0, 0.3])
    base = LabelledMixture(MixtureModel([0.5, 0.5], [[-1, 0], [1, 0]], [0.1, 0.1]))
    with torch.random.fork_rng():
        network = ResidualMLP(2, width=4, n_blocks=0, n_hints=2).double()
    with torch.no_grad():
        for part in network.parameters():
            part.zero_()
        # silu(z) - silu(-z) = z
        network.first.weight[:, 2:] = torch.cat([torch.eye(2), -torch.eye(2)])
        network.last.weight[:] = torch.cat([-torch.eye(2), torch.eye(2)], dim=1)
    around = [check_parameterization("gaussian"), check_schedule("edm"), variances]
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2)))
    sigma = torch.full((20, 1), 0.4, dtype=torch.float64)
    found = Preconditioner(*around, base=base, hints=True).denoise(network, x, sigma)
    expected = variances / (variances + 0.4**2) * x.numpy()
    np.testing.assert_allclose(found.detach(), expected, atol=1e-12)


def test_a_network_can_say_what_the_law_of_a_column_does(rng):
    """Minus the hint of the mixture's axis plus that of the column leaves the column's denoiser."""
    base = LabelledMixture(MixtureModel([1.0], [[0.0, 0.0]], [[[1.0, 0.3], [0.3, 0.5]]]))
    turn = np.linalg.eigh([[1.0, 0.3], [0.3, 0.5]])[1]
    columns = ColumnLaws([1], [[0.5, 0.5]], [[-1.0, 1.0]], [[0.1, 0.2]], turn)
    with torch.random.fork_rng():
        network = ResidualMLP(2, width=2, n_blocks=0, n_hints=3).double()
    axis = torch.from_numpy(turn[1:])
    with torch.no_grad():
        for part in network.parameters():
            part.zero_()
        # silu(z) - silu(-z) = z
        network.first.weight[:, 4:] = torch.tensor([[1.0], [-1.0]])
        network.last.weight[:] = torch.cat([axis, -axis]).T
    around = [check_parameterization("gaussian"), check_schedule("edm"), np.ones(2)]
    x, sigma = rng.normal(size=(20, 2)), np.full((20, 1), 0.4)
    told = Preconditioner(*around, base=base, hints=True, columns=columns)
    found = told.denoise(network, torch.from_numpy(x), torch.from_numpy(sigma)).detach().numpy()
    expected = columns.denoise(x, sigma)
    np.testing.assert_allclose((found @ turn.T)[:, [1]], expected, atol=1e-12)
    across = base.denoise(x, sigma[:, 0]) @ turn[0]
    np.testing.assert_allclose(found @ turn[0], across, atol=1e-12)


@pytest.fixture(scope="module")
def hours():
    """Whole hours, more of them than a mixture has components, and a number that follows them."""
    rng = np.random.default_rng(0)
    hour = rng.integers(24, size=1200)
    return np.stack([hour, 3 * np.sin(hour / 4) + rng.normal(size=1200)], axis=1)


def test_columns_of_counts_are_told_to_the_network_and_learned(hours):
    """Atoms under noise of 0.002 have nats that no mixture of twenty can give them."""
    est = NeuralScore(max_epochs=150, random_state=0).fit(hours[:1000])
    assert est._network_model().preconditioner.columns.index.tolist() == [0]
    mixture = GMMScore("held_out", random_state=0).fit(hours[:1000])
    # of 24 atoms side by side: 3.1 nats
    assert est.score(hours[1000:]) > mixture.score(hours[1000:]) + 2
    # and samples are whole hours: of even ones half are within a quarter
    off = est.sample(200, random_state=0)[:, 0] % 1
    assert np.mean(np.minimum(off, 1 - off) < 0.25) > 0.85


def test_columns_that_were_told_are_saved_and_warm_starts_keep_them(hours, tmp_path, rng):
    est = NeuralScore(max_epochs=3, warm_start=True, random_state=0).fit(hours)
    est.save(tmp_path / "hours")
    for other in (NeuralScore.load(tmp_path / "hours"), pickle.loads(pickle.dumps(est))):
        assert np.array_equal(other.denoise(hours[:9], 0.1), est.denoise(hours[:9], 0.1))
    est.fit(rng.normal(size=(500, 2)))  # which have no column to tell
    assert est._network_model().preconditioner.columns.index.tolist() == [0]


def test_a_network_is_told_direction_and_distance_in_the_noised_gaussian(rng):
    variances = np.geomspace(0.01, 4, 9)
    around = [check_parameterization("gaussian"), check_schedule("edm"), variances]
    preconditioner = Preconditioner(*around, hints=True)
    x, sigma = (
        torch.from_numpy(3 * rng.normal(size=(20, 9))),
        torch.full((20, 1), 0.7, dtype=torch.float64),
    )

    def told(x):
        found = preconditioner.coefficients(sigma)
        seen = preconditioner.point(x, sigma, found, preconditioner.skip(x, sigma, found, None))
        assert seen.shape == (20, preconditioner.n_inputs)
        return seen[:, 9:18].numpy(), seen[:, 18].numpy()

    direction, distance = told(x)
    white = x.numpy() / np.sqrt(variances + 0.49)
    square = (white**2).mean(axis=1) + 0.01
    np.testing.assert_allclose(direction, white / np.sqrt(square)[:, None], rtol=1e-12)
    np.testing.assert_allclose(distance, np.log(square), rtol=1e-9)
    # twice as far is the same direction, but for the hundredth that makes it fade at the mean
    twice, farther = told(2 * x)
    np.testing.assert_allclose(twice, direction, rtol=0.02)
    np.testing.assert_allclose(farther - distance, 2 * np.log(2), atol=0.02)
    assert (told(0 * x)[0] == 0).all()


@pytest.mark.parametrize(
    "params, d, hinted",
    [
        ({}, 8, True),
        ({}, 7, False),
        ({"parameterization": "edm"}, 8, False),
        ({"conservative": True}, 8, False),
        ({"noise_conditioning": False}, 8, False),
        ({"module": Plain}, 8, False),
    ],
)
def test_networks_are_told_places_where_a_direction_is_stable(params, d, hinted, rng):
    est = NeuralScore(**{"parameterization": "gaussian", **params}, max_epochs=1, random_state=0)
    preconditioner = est.fit(rng.normal(size=(60, d)))._network_model().preconditioner
    assert preconditioner.hints == hinted


def test_places_teach_a_network_what_rows_of_many_scales_are(monkeypatch, rng):
    """An elliptical law with heavy tails: the best denoiser is x times a function of r."""
    X = np.exp(1.5 * rng.normal(size=(1500, 1))) * rng.normal(size=(1500, 16))

    def bound():
        est = NeuralScore(parameterization="gaussian", max_epochs=20, random_state=0)
        return est.fit(X).validation_bound_

    told = bound()
    monkeypatch.setattr("skdiffusion.estimators._neural_fit.PLACED_FROM", 17)
    assert told > bound() + 1  # nats: 1.9 to 2.5 for other rows


def test_untrained_networks_follow_no_hint_and_are_as_wide_as_without():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResidualMLP(50, width=400, n_hints=150)
    assert (network.first.weight[:, 50:] == 0).all()
    # He et al.: two over the columns that count; 20,000 weights tell it to half a per cent
    assert network.first.weight[:, :50].var().item() == pytest.approx(2 / 50, rel=0.03)


@pytest.mark.parametrize(
    "params, hinted",
    [
        ({}, True),
        ({"conservative": True}, False),
        ({"conservative": 0.1}, False),
        ({"noise_conditioning": False}, False),
        ({"module": Plain}, False),
    ],
)
def test_the_default_adds_to_a_mixture_where_networks_take_hints(params, hinted, moons):
    est = NeuralScore(**params, max_epochs=1, random_state=0).fit(moons)
    preconditioner = est._network_model().preconditioner
    assert preconditioner.hints == hinted == (preconditioner.base is not None)


def test_the_mixture_of_few_rows_is_the_one_that_held_out_rows_ask_for(rng):
    X = load_wine().data[rng.permutation(178)]

    def held_out(parameterization):
        est = NeuralScore(**{**QUICK, "parameterization": parameterization, "max_epochs": 1})
        est.fit(X[:120])
        rows = est._survey.coordinates.inward(X[120:]).double().numpy()
        return est._network_model().preconditioner.base.law.log_prob(rows).mean()

    # one for every fifty rows; splits differ by 0.9 to 1.6 nats
    assert held_out("mixture") > held_out(MixtureParameterization(2)) + 0.5


def test_few_rows_first_batches_and_labels_without_rows_have_no_mixture(moons, rng):
    def fitted(X, y=None):
        return NeuralScore(max_epochs=1, module__width=8, random_state=0).fit(X, y)

    few, wide = fitted(moons[:99]), fitted(rng.normal(size=(140, 129)))
    batch = NeuralScore(random_state=0).partial_fit(moons)
    continuous, rare = fitted(moons, moons[:, 0]), fitted(moons, np.arange(len(moons)) < 15)
    many = fitted(moons, np.arange(len(moons)) % 21)
    for est in (few, wide, batch, continuous, rare, many):
        assert est._network_model().preconditioner.base is None


def test_classes_have_mixtures_of_their_own(rng):
    centres = np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]])
    y = np.repeat(["a", "b", "c"], [200, 100, 60])
    X = centres[np.unique(y, return_inverse=True)[1]] + rng.normal(size=(360, 2))
    still = dict(lr=1e-30, max_epochs=1, module__width=8, random_state=0)
    est = NeuralScore(**still).fit(X, y)
    base = est._network_model().preconditioner.base
    assert len(base.classes) == 3
    # an untrained network adds nothing: rows lie where their class does, 40 standard deviations
    # from the others, and are as dense as its normal law within what 54 rows know of it
    drawn = est.sample(300, y=np.repeat(["a", "b", "c"], 100), random_state=0)
    assert np.abs(drawn - np.repeat(centres, 100, axis=0)).max() < 6
    exact = norm.logpdf(X - np.repeat(centres, [200, 100, 60], axis=0)).sum(axis=1)
    np.testing.assert_allclose(est.score_samples(X, y).mean(), exact.mean(), atol=0.1)
    # without labels: less the entropy of the labels
    shares = np.array([200, 100, 60]) / 360
    entropy = -(shares * np.log(shares)).sum()
    np.testing.assert_allclose(est.score_samples(X).mean(), exact.mean() - entropy, atol=0.2)

    few = NeuralScore(**still, parameterization="mixture").fit(X[:315], y[:315])
    base = few._network_model().preconditioner.base
    assert base.classes[2].n_components == base.law.n_components  # fifteen rows of "c"
    drawn = few.sample(200, y=["c"] * 200, random_state=0)
    # where components are of one class, as far from each other as these, theirs are its own; of
    # weights that are a row's of any class in sixteen, one in 25 rows is of another class
    near = (np.abs(drawn - centres[2]) < 20).all(axis=1).mean()
    assert near > 0.9


def test_a_mixture_of_fewer_rows_than_columns_does_not_believe_in_their_span(rng):
    X = rng.normal(size=(90, 30))  # 30 rows leave directions in which they have no spread
    quick = dict(lr=1e-30, max_epochs=1, module__width=8, random_state=0, early_stopping=False)
    est = NeuralScore(parameterization="mixture", **quick).fit(X[:30])
    # whole covariances cost hundreds of thousands of nats
    assert est.score(X[30:]) > GaussianScore("oas").fit(X[:30]).score(X[30:]) - 20


@pytest.mark.parametrize("conservative", [False, True, 0.1])
def test_networks_on_a_mixture_keep_the_contract(conservative, moons, tmp_path):
    y = (moons[:, 1] > 0).astype(int)
    est = NeuralScore(
        parameterization="mixture", conservative=conservative, max_epochs=2, random_state=0
    ).fit(moons, y)
    if conservative is True:
        found = jacobian(est.model_, moons[:5], 0.3, y=y[:5])
        np.testing.assert_allclose(found, found.transpose(0, 2, 1), atol=1e-6)
    est.save(tmp_path / "saved")
    for other in (NeuralScore.load(tmp_path / "saved"), pickle.loads(pickle.dumps(est))):
        assert np.array_equal(other.denoise(moons, 0.3), est.denoise(moons, 0.3))
    assert np.isfinite(est.sample(5, y=1, random_state=0)).all()
    again = clone(est).fit(moons, y)
    assert np.array_equal(again.denoise(moons, 0.3), est.denoise(moons, 0.3))


def test_many_columns_have_a_mixture_of_few_axes(rng):
    X = rng.normal(size=(120, 4)) @ rng.normal(size=(4, 150)) + 0.1 * rng.normal(size=(120, 150))
    est = NeuralScore(
        parameterization="mixture", lr=1e-30, max_epochs=1, random_state=0, early_stopping=False
    ).fit(X)
    mixture = GMMScore(2, covariance_type="low_rank", n_averaged=3, random_state=0).fit(X)
    gaussian = GaussianScore("low_rank").fit(X)
    level = 0.5
    apart = np.abs(est.denoise(X, level) - mixture.denoise(X, level)).mean()
    assert apart < 0.3 * np.abs(est.denoise(X, level) - gaussian.denoise(X, level)).mean()


@pytest.mark.parametrize("schedule", ["vp", "flow_matching", "edm"])
@pytest.mark.parametrize("prediction", ["noise", "data", "velocity", "v", "score"])
def test_targets_of_all_columns_have_one_variance(prediction, schedule):
    variances, sigma = np.array([1e-4, 0.5, 30.0]), np.geomspace(0.01, 20, 7)[:, None]
    schedule = check_schedule(schedule)
    around = Preconditioner(check_parameterization(prediction), schedule, variances)
    found = around.coefficients(torch.from_numpy(sigma))
    # the target is linear in the row and its noise: (x0 - skip (x0 + sigma eps)) / out
    clean, noise = (1 - found.skip) / found.out, found.skip * torch.from_numpy(sigma) / found.out
    variance = (clean**2 * torch.from_numpy(variances) + noise**2).numpy()
    np.testing.assert_allclose(variance, variance[:, :1] * np.ones(3), rtol=1e-9)
    # on columns of unit variance nothing is scaled: the target is the prediction itself
    plain = Preconditioner(check_parameterization(prediction), schedule, np.ones(3))
    out = plain.parameterization.coefficients(torch.from_numpy(sigma), schedule, torch.ones(3)).out
    scaled = plain.coefficients(torch.from_numpy(sigma)).out
    np.testing.assert_allclose(scaled.numpy(), out.numpy() * np.ones(3))


def test_units_of_a_column_do_not_change_its_target_of_data(rng):
    x0, factors = rng.normal(size=(50, 3)), np.array([1e-3, 1.0, 20.0])
    targets = []
    for rows in (x0, x0 * factors):
        around = Preconditioner(check_parameterization("data"), check_schedule("vp"), rows.var(0))
        targets.append(rows / around.coefficients(torch.full((50, 1), 0.3).double()).out.numpy())
    np.testing.assert_allclose(*targets, rtol=1e-12)


def test_a_narrow_column_is_learned_like_a_wide_one(rng):
    """Two independent pairs of points, one ten times as narrow as the other."""
    X = rng.choice([-1.0, 1.0], size=(2000, 2)) * [1.0, 0.1]
    est = NeuralScore(
        parameterization="data", scaling="global", max_epochs=60, module__width=32,
        early_stopping=False, random_state=0,
    ).fit(X)  # fmt: skip
    noised = X[:500] + 0.02 * rng.normal(size=(500, 2))
    share = ((est.denoise(noised, 0.02) - X[:500]) ** 2).mean(axis=0) / X.var(axis=0)
    # both signs are plain to see at five times the noise: 0.01, and 0.58 in the units of the wide
    assert share[1] < 0.1


def test_the_same_seed_gives_the_same_model_bit_for_bit(moons):
    a, b = (NeuralScore(**QUICK).fit(moons) for _ in range(2))
    assert np.array_equal(a.denoise(moons, 0.3), b.denoise(moons, 0.3))
    other = NeuralScore(**{**QUICK, "random_state": 1}).fit(moons)
    assert not np.array_equal(a.denoise(moons, 0.3), other.denoise(moons, 0.3))


def test_units_do_not_matter(moons):
    a, b = NeuralScore(**QUICK).fit(moons), NeuralScore(**QUICK).fit(1024 * moons)
    for name in ("scale_", "sigma_min_", "sigma_max_"):
        # other rows are held out: the moments of nine tenths of the rows, to one per cent
        np.testing.assert_allclose(getattr(b, name), 1024 * getattr(a, name), rtol=1e-2)
    # and the fits differ by what training does: a tenth of a nat
    assert abs(b.score(1024 * moons) + 2 * np.log(1024) - a.score(moons)) < 0.3


def test_columns_in_different_units_have_noise_in_their_own(rng):
    X = rng.standard_normal((400, 2)) * [1e-3, 1e4]
    est = NeuralScore(**QUICK).fit(X)
    assert est.model_.noise_scale[1] / est.model_.noise_scale[0] > 1e6
    rows = est.sample(400, random_state=0)
    np.testing.assert_allclose(rows.std(axis=0), X.std(axis=0), rtol=0.2)
    path = est.sample(3, random_state=0, return_trajectory=True)[1]
    np.testing.assert_allclose(path[-1], est.sample(3, random_state=0), rtol=1e-12)
    exact = GaussianModel(X.mean(0), X.var(0)).log_prob(X[:20])
    np.testing.assert_allclose(est.score_samples(X[:20]), exact, atol=0.5)


@pytest.mark.parametrize("scaling", ["global", "columns"])
def test_the_scale_is_where_noise_is_as_large_as_the_data(scaling):
    X = load_wine().data
    est = NeuralScore(**QUICK, scaling=scaling, early_stopping=False).fit(X)
    shares = X.std(axis=0) / est.model_.noise_scale
    assert est.scale_ == pytest.approx(np.sqrt(np.mean(shares**2)), rel=1e-6)  # of float32


def test_digits_keep_one_scale():
    X = load_digits().data[:200]
    est = NeuralScore(**{**QUICK, "max_epochs": 1}).fit(X)
    assert est.model_.noise_scale == 1.0
    # images do unless another is asked for: then noise is in proportion to what each pixel varies
    image = {"module": "unet", "input_shape": (1, 8, 8), "module__width": 8, "max_epochs": 1}
    image |= {"early_stopping": False, "random_state": 0}
    assert NeuralScore(**image).fit(X).model_.noise_scale == 1.0
    scales = NeuralScore(**image, scaling="columns").fit(X).model_.noise_scale
    ratio = (scales / X.std(axis=0).clip(1e-300))[X.std(axis=0) > 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)  # of coordinates in float32


# ---------------------------------------------------------------------- labels


def test_classes_steer_samples():
    X, y = make_blobs(600, centers=[[-4.0, 0.0], [4.0, 0.0]], cluster_std=0.5, random_state=0)
    names = np.array(["left", "right"])[y]
    est = NeuralScore(max_epochs=300, module__width=32, random_state=0).fit(X, names)
    assert list(est.classes_) == ["left", "right"]
    right = est.sample(100, y="right", random_state=0)
    assert (right[:, 0] > 0).mean() > 0.97
    both = est.sample(60, y=np.repeat(["left", "right"], 30), random_state=0)
    assert (both[:30, 0] < 0).mean() > 0.9 and (both[30:, 0] > 0).mean() > 0.9
    # a row is denser under its own label than under the other
    other = np.where(names == "left", "right", "left")
    own, swapped = est.score_samples(X[:10], names[:10]), est.score_samples(X[:10], other[:10])
    # on average: where no row of a label lies, nothing was learned of it
    assert (own - swapped).mean() > 1
    # guidance by zero forgets the label, by one is the law itself
    x = X[:20] + 1.0
    free = LabelGuidedModel(est.model_, 0.0).denoise(x, 1.0, y=names[:20])
    np.testing.assert_allclose(free, est.denoise(x, 1.0), rtol=1e-12)
    full = LabelGuidedModel(est.model_, 1.0).denoise(x, 1.0, y=names[:20])
    np.testing.assert_allclose(full, est.denoise(x, 1.0, names[:20]), rtol=1e-12)
    guided = est.sample(100, y="right", guidance_scale=3.0, random_state=0)
    assert guided[:, 0].mean() > 3.5
    with pytest.raises(ValueError, match="unknown class 'up'"):
        est.sample(1, y="up")


def test_a_continuous_label_moves_the_mean(rng):
    y = rng.uniform(-2, 2, 800)
    X = np.c_[y + 0.1 * rng.standard_normal(800), rng.standard_normal(800)]
    est = NeuralScore(max_epochs=60, module__width=32, random_state=0).fit(X, y)
    for target in (-1.0, 1.0):
        rows = est.sample(200, y=target, random_state=0)
        # the law given y has mean y and spread 0.1: a network this small reaches a third of that
        assert abs(rows[:, 0].mean() - target) < 0.15


# ---------------------------------------------------------------------- kinds of networks


def test_an_energy_network_has_a_symmetric_jacobian(moons):
    quick = {**QUICK, "max_epochs": 20}
    energy = NeuralScore(conservative=True, **quick).fit(moons)
    free = NeuralScore(**quick).fit(moons)

    def asymmetry(est):
        found = est.jacobian(moons[:50], 0.2)
        difference = found - found.transpose(0, 2, 1)
        return np.abs(difference).max() / np.abs(found).max()

    assert asymmetry(energy) < 1e-10  # rounding of float64
    assert asymmetry(free) > 1e-4
    assert energy.model_.is_conservative is True
    assert energy.score(moons) > GaussianScore().fit(moons).score(moons)


def test_the_penalty_makes_the_jacobian_more_symmetric(moons):
    quick = {**QUICK, "parameterization": "gaussian", "max_epochs": 40}

    def asymmetry(est):
        found = est.jacobian(moons[:200], 0.2, of="denoise")
        return np.mean((found - found.transpose(0, 2, 1)) ** 2)

    free, penalised = (NeuralScore(conservative=c, **quick).fit(moons) for c in (False, 3.0))
    assert asymmetry(penalised) < asymmetry(free) / 2


def test_a_blind_network_does_not_look_at_the_level(moons):
    est = NeuralScore(noise_conditioning=False, parameterization="data", **QUICK).fit(moons)
    # on the path of "edm" the blind denoiser is one function of the point alone
    np.testing.assert_allclose(est.denoise(moons, 0.1), est.denoise(moons, 2.0), rtol=1e-12)
    assert est._network_model().is_blind


def test_a_module_of_ones_own_and_a_template(moons):
    own = NeuralScore(module=Linear, max_epochs=3, random_state=0).fit(moons)
    assert isinstance(own.module_, Linear)
    template = skorch.NeuralNet(
        Linear, criterion=torch.nn.MSELoss, optimizer=torch.optim.SGD, lr=0.01, callbacks=[Seen()]
    )
    est = NeuralScore(net=template, max_epochs=3, random_state=0).fit(moons)
    assert isinstance(est.module_, Linear) and isinstance(est.net_.optimizer_, torch.optim.SGD)
    assert np.isfinite(est.score(moons[:20]))
    with pytest.raises(ValueError, match="module must be one of 'mlp'"):
        NeuralScore(module=torch.nn.SiLU()).fit(moons)


class Linear(torch.nn.Linear):
    def __init__(self, n_features, n_conditions=0):
        super().__init__(n_features, n_features)

    def forward(self, x, noise, condition=None):
        return super().forward(x)


class Seen(skorch.callbacks.Callback):
    pass


# ---------------------------------------------------------------------- training


def test_callbacks_of_skorch_find_what_they_look_for(moons, tmp_path):
    callbacks = [
        skorch.callbacks.Checkpoint("valid_bound_best", dirname=tmp_path / "best"),
        skorch.callbacks.TrainEndCheckpoint(dirname=tmp_path / "end"),
        skorch.callbacks.ProgressBar(),
    ]
    params = {**QUICK, "max_epochs": 40, "parameterization": "gaussian"}
    plain = NeuralScore(**params).fit(moons)
    est = NeuralScore(**params, callbacks=callbacks).fit(moons)
    np.testing.assert_array_equal(est.denoise(moons, 0.3), plain.denoise(moons, 0.3))
    last = torch.load(tmp_path / "end" / "train_end_params.pt", weights_only=True)
    for name, weights in est.net_.module_.state_dict().items():
        assert torch.equal(last[name], weights)
    assert (tmp_path / "best" / "params.pt").is_file()


def test_history_and_early_stopping(moons):
    est = NeuralScore(**{**QUICK, "max_epochs": 60}).fit(moons)
    bounds = [entry["valid_bound"] for entry in est.history_]
    assert est.validation_bound_ == max(bounds)
    assert est.history_[-1]["step"] == est.n_steps_
    patient = NeuralScore(**{**QUICK, "max_epochs": 400, "lr": 0.2}, n_iter_no_change=2).fit(moons)
    assert patient.n_steps_ < 400 * 1080 / 256


def test_few_rows_are_not_learned_by_heart(rng):
    quick = dict(max_epochs=1, module__width=8, random_state=0)
    X = rng.normal(size=(200, 5))
    assert NeuralScore(**quick).fit(X).module_.dropout.p > 0
    assert NeuralScore(**quick).fit(X[:, :2]).module_.dropout is None  # a hundred per column
    assert NeuralScore(module__dropout=0.0, **quick).fit(X).module_.dropout is None
    # the penalty compares two passes; a first batch does not say how many rows will come
    assert NeuralScore(conservative=0.1, **quick).fit(X).module_.dropout is None
    assert NeuralScore(**quick).partial_fit(X).module_.dropout is None


def test_partial_fit_goes_on(moons):
    est = NeuralScore(**{**QUICK, "max_epochs": 1})
    est.partial_fit(moons)
    first = est.score(moons)
    far_field, steps = est.far_field_, est.n_steps_
    for _ in range(40):
        est.partial_fit(moons)
    assert est.n_steps_ == 41 * steps and est.far_field_ is far_field
    assert est.score(moons) > first
    with pytest.raises(ValueError, match="3 features"):
        est.partial_fit(np.c_[moons, moons[:, :1]])


def test_copies_go_on_with_the_history_too(moons):
    est = NeuralScore(**QUICK).fit(moons)  # beside a mixture: a new net goes on
    plain = NeuralScore(**QUICK, parameterization="gaussian").fit(moons)
    for law in (est, plain, pickle.loads(pickle.dumps(plain))):
        before = law.history_
        law.partial_fit(moons[:300]).partial_fit(moons[300:600])
        assert law.history_[: len(before)] == before
        assert len(law.history_) == len(before) + 2


class Spoil(skorch.callbacks.Callback):
    """Makes the weights worse, once, in the third round."""

    def on_epoch_begin(self, net, **_):
        if len(net.history) == 3:
            with torch.no_grad():
                for weights in net.module_.parameters():
                    weights.mul_(2)


def test_partial_fit_goes_on_from_the_weights_that_were_chosen(moons):
    params = {**QUICK, "max_epochs": 60, "ema_decay": 0, "parameterization": "edm"}
    est = NeuralScore(**params, n_iter_no_change=1, callbacks=[Spoil()]).fit(moons)
    bounds = [entry["valid_bound"] for entry in est.history_]
    assert bounds[-1] < max(bounds) - 1
    chosen = est.denoise(moons, 0.3)
    est.set_params(lr=1e-30).partial_fit(moons)
    np.testing.assert_array_equal(est.denoise(moons, 0.3), chosen)


@pytest.mark.parametrize(
    "change",
    [{"module__width": 32}, {"parameterization": "edm"}, {"optimizer__weight_decay": 0.1},
     {"conservative": True}, {"noise_conditioning": False}],
)  # fmt: skip
def test_partial_fit_of_another_model_is_refused(change, moons):
    est = NeuralScore(**QUICK).partial_fit(moons)
    before, (name,) = est.denoise(moons, 0.3), change
    with pytest.raises(ValueError, match=rf"was begun with {name}=.* fit begins another"):
        est.set_params(**change).partial_fit(moons)
    assert np.array_equal(est.denoise(moons, 0.3), before)
    with pytest.raises(ValueError, match="fit begins another"):
        pickle.loads(pickle.dumps(est)).partial_fit(moons)
    assert est.fit(moons).partial_fit(moons).get_params()[name] == change[name]


@pytest.mark.parametrize("failure", ["loss", "callback"])
def test_a_batch_that_fails_changes_nothing_of_what_comes_after(failure, moons):
    est, other = (NeuralScore(**QUICK).partial_fit(moons) for _ in range(2))
    before, rounds = est.denoise(moons, 0.3), len(est.history_)
    if failure == "loss":  # the weights of the first step are no numbers in the second
        with pytest.raises(FloatingPointError, match="lower lr"):
            est.set_params(lr=1e30).partial_fit(moons)
        est.set_params(lr=other.lr)
    else:
        with pytest.raises(RuntimeError):
            est.net_.callbacks_.append(("stop", Stop(0, RuntimeError)))
            est.partial_fit(moons)
        est.net_.callbacks_.pop()
    np.testing.assert_array_equal(est.denoise(moons, 0.3), before)
    ours, theirs = (law.partial_fit(moons) for law in (est, other))
    np.testing.assert_array_equal(ours.denoise(moons, 0.3), theirs.denoise(moons, 0.3))
    assert len(est.history_) == len(other.history_) == rounds + 1


def test_partial_fit_takes_the_learning_rate_of_now(moons):
    est = NeuralScore(**QUICK).partial_fit(moons)
    before = [part.clone() for part in est.net_.module_.parameters()]
    est.set_params(lr=1e-30).partial_fit(moons)
    after = est.net_.module_.parameters()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_warm_start_begins_where_the_last_fit_ended(moons):
    est = NeuralScore(**{**QUICK, "max_epochs": 30}, warm_start=True).fit(moons)
    first = est.validation_bound_
    assert est.set_params(max_epochs=2).fit(moons).history_[0]["valid_bound"] > first - 0.2


@pytest.mark.parametrize("go_on", [lambda est: est.fit, lambda est: est.partial_fit])
def test_compiled_networks_begin_with_the_last_weights_too(go_on, moons, monkeypatch):
    # what is compiled does not matter here, and a compiler takes long
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: whole(module, backend="eager"))
    params = {**QUICK, "parameterization": "gaussian", "warm_start": True, "compile": True}
    est = pickle.loads(pickle.dumps(NeuralScore(**params).fit(moons)))
    before = est.denoise(moons, 0.3)
    go_on(est.set_params(lr=1e-30))(moons)
    np.testing.assert_allclose(est.denoise(moons, 0.3), before, atol=1e-6)


def test_warm_start_needs_a_network_of_the_same_shape(moons, rng):
    est = NeuralScore(**QUICK, warm_start=True).fit(moons[:90])
    kind = type(est._network_model().preconditioner.parameterization)
    est.fit(moons)  # as many rows as by default have a mixture, whose hints the weights do not know
    assert type(est._network_model().preconditioner.parameterization) is kind
    before = est.denoise(moons[:5], 0.3)
    with pytest.raises(ValueError, match="weights of the last fit do not fit this network"):
        est.fit(rng.normal(size=(90, 3)))
    with pytest.raises(ValueError, match="weights of the last fit do not fit this network"):
        est.fit(moons, moons[:, 0] > 0)
    assert np.array_equal(est.denoise(moons[:5], 0.3), before)


def test_datasets_and_mapped_files_are_read_row_by_row(tmp_path, moons):
    path = tmp_path / "rows.npy"
    np.save(path, moons.astype(np.float32))
    mapped = NeuralScore(**QUICK).fit(np.load(path, mmap_mode="r"))
    dataset = torch.utils.data.TensorDataset(torch.tensor(moons, dtype=torch.float32))
    read = NeuralScore(**QUICK).fit(dataset)
    np.testing.assert_allclose(read.denoise(moons, 0.3), mapped.denoise(moons, 0.3), rtol=1e-12)
    assert mapped.score(moons) > -3


class Rows(torch.utils.data.Dataset):
    """Rows of an array, as they are."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.X[index]


def test_rows_of_a_dataset_keep_their_digits_and_have_no_names(moons):
    there = moons + 1e8  # in single precision all rows would be one
    frame = pd.DataFrame(moons, columns=["a", "b"])
    found = NeuralScore(**QUICK).fit(frame).fit(Rows(there))
    assert not hasattr(found, "feature_names_in_")
    expected = NeuralScore(**QUICK).fit(Rows(moons))
    # offsets are known to a 4096th of the scale; training multiplies that by little
    np.testing.assert_allclose(
        found.denoise(there, 0.3) - 1e8, expected.denoise(moons, 0.3), atol=5e-3
    )


def test_datasets_that_cannot_be_read_get_a_sentence(moons):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(moons)

    with pytest.raises(ValueError, match=r"must be map-style, .* got Stream"):
        NeuralScore(**QUICK).fit(Stream())
    with pytest.raises(ValueError, match="a tuple that begins with one; got dict"):
        NeuralScore(**QUICK).fit(Rows([{"row": row} for row in moons]))


def test_memory_does_not_grow_with_a_mapped_file(tmp_path, rng):
    peaks, sizes = [], []
    for n in (10_000, 40_000):
        path = tmp_path / f"{n}.npy"
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, 200))
        for start in range(0, n, 10_000):
            rows[start : start + 10_000] = rng.standard_normal((10_000, 200))
        sizes.append(rows.nbytes)
        del rows
        est = NeuralScore(**{**QUICK, "max_epochs": 1})
        tracemalloc.start()
        est.fit(np.load(path, mmap_mode="r"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # what grows is the order of the rows: a few numbers per row, not its 200
    assert peaks[1] - peaks[0] < 0.1 * (sizes[1] - sizes[0])


class Stop(skorch.callbacks.Callback):
    """Raises when a number of rounds is over."""

    def __init__(self, rounds=2, error=KeyboardInterrupt):
        self.rounds, self.error = rounds, error

    def on_epoch_begin(self, net, **_):
        if len(net.history) > self.rounds:
            raise self.error


def test_interrupted_training_keeps_what_was_learned(moons):
    est = NeuralScore(**{**QUICK, "max_epochs": 100}, callbacks=[Stop()])
    with pytest.warns(UserWarning, match="interrupted after 128 of"):
        est.fit(moons)
    assert est.n_steps_ == 128 and np.isfinite(est.score(moons[:20]))
    assert [entry["step"] for entry in est.history_] == [64, 128]


def test_a_checkpoint_goes_on_to_the_same_result(tmp_path, moons):
    params = {**QUICK, "max_epochs": 100}
    whole = NeuralScore(**params).fit(moons)
    path = tmp_path / "run.pt"
    with pytest.raises(RuntimeError):
        NeuralScore(**params, checkpoint=path, callbacks=[Stop(3, RuntimeError)]).fit(moons)
    assert path.is_file()
    with pytest.raises(ValueError, match="belongs to a run with other data"):
        NeuralScore(**params, checkpoint=path).fit(moons[:600])
    resumed = NeuralScore(**params, checkpoint=path).fit(moons)
    assert resumed.history_[0]["dur"] != whole.history_[0]["dur"]
    assert np.array_equal(resumed.denoise(moons, 0.3), whole.denoise(moons, 0.3))
    assert not path.exists()


def test_a_checkpoint_goes_on_with_the_same_labels_alone(tmp_path, moons):
    params = {**QUICK, "max_epochs": 100, "parameterization": "gaussian"}
    path, labels = tmp_path / "run.pt", moons[:, 1] > 0.3
    with pytest.raises(RuntimeError):
        NeuralScore(**params, checkpoint=path, callbacks=[Stop(3, RuntimeError)]).fit(moons, labels)
    others = labels.copy()
    others[[labels.argmax(), labels.argmin()]] = False, True  # as many of each
    for y in (others, ~labels, np.where(labels, "a", np.where(moons[:, 0] > 0, "b", "c")), None):
        with pytest.raises(ValueError, match="belongs to a run with other data"):
            NeuralScore(**params, checkpoint=path).fit(moons, y)
    resumed = NeuralScore(**params, checkpoint=path).fit(moons, labels)
    whole = NeuralScore(**params).fit(moons, labels)
    assert np.array_equal(resumed.denoise(moons, 0.3, labels), whole.denoise(moons, 0.3, labels))


def test_a_checkpoint_of_a_template_goes_on_whatever_lies_where_in_memory(tmp_path, moons):
    def run(**options):
        net = skorch.NeuralNet(ResidualMLP, torch.nn.MSELoss, lr=0.01, module__width=8)
        params = {"max_epochs": 60, "parameterization": "gaussian", "random_state": 0}
        return NeuralScore(net=net, **params, **options).fit(moons)

    path = tmp_path / "run.pt"
    with pytest.raises(RuntimeError):
        run(checkpoint=path, callbacks=[Stop(2, RuntimeError)])
    assert " at 0x" not in torch.load(path, weights_only=True)["fingerprint"]["parameters"]
    np.testing.assert_array_equal(
        run(checkpoint=path).denoise(moons, 0.3), run().denoise(moons, 0.3)
    )


KILLED = """
import os, signal, sys, skorch
import numpy as np
from sklearn.datasets import make_moons
from skdiffusion import NeuralScore
class Kill(skorch.callbacks.Callback):
    def on_epoch_begin(self, net, **_):
        if len(net.history) > 3:
            os.kill(os.getpid(), signal.SIGKILL)
X = make_moons(1200, noise=0.08, random_state=0)[0]
NeuralScore(max_epochs=100, module__width=16, module__n_blocks=1, random_state=0,
            checkpoint=sys.argv[1], callbacks=[Kill()]).fit(X)
"""


def test_a_killed_process_leaves_a_run_to_go_on_from(tmp_path, moons):
    path = tmp_path / "run.pt"
    run = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert run.returncode == -9
    params = {**QUICK, "max_epochs": 100}
    resumed = NeuralScore(**params, checkpoint=path).fit(moons)
    whole = NeuralScore(**params).fit(moons)
    assert len(resumed.history_) == len(whole.history_)
    assert np.array_equal(resumed.denoise(moons, 0.3), whole.denoise(moons, 0.3))


SHARED = """
import sys
import numpy as np, torch
from sklearn.datasets import make_moons
from skdiffusion import NeuralScore
torch.distributed.init_process_group("gloo")
X = make_moons(1200, noise=0.08, random_state=0)[0]
est = NeuralScore(max_epochs=20, module__width=16, module__n_blocks=1, random_state=0).fit(X)
np.save(f"{sys.argv[1]}/{torch.distributed.get_rank()}.npy", est.denoise(X, 0.3))
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_the_model_of_one(tmp_path, moons):
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
         str(script), str(tmp_path)],
        check=True, capture_output=True,
    )  # fmt: skip
    first, second = np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy")
    one = NeuralScore(**{**QUICK, "max_epochs": 20}).fit(moons).denoise(moons, 0.3)
    np.testing.assert_allclose(first, second, rtol=1e-12)
    # the same batches and noise; only the order of float32 sums differs, over 85 steps of an
    # optimizer that divides gradients by their size, and many begin at zero
    np.testing.assert_allclose(first, one, atol=5e-3)


def test_a_loss_that_is_not_finite_stops_with_advice(moons):
    with pytest.raises(FloatingPointError, match="lower lr"):
        NeuralScore(**QUICK, module=Exploding).fit(moons)


class Exploding(Linear):
    def __init__(self, n_features, n_conditions=0, width=1, n_blocks=1):
        super().__init__(n_features)

    def forward(self, x, noise, condition=None):
        return super().forward(x, noise) * float("inf")


def test_the_curriculum_ends_with_all_levels(moons):
    est = NeuralScore(**{**QUICK, "max_epochs": 40}, curriculum=True).fit(moons)
    assert est.score(moons) > GaussianScore().fit(moons).score(moons)


# ---------------------------------------------------------------------- keeping it


def test_a_folder_holds_the_model(tmp_path):
    import pandas

    X, y = load_iris(return_X_y=True, as_frame=True)
    est = NeuralScore(**QUICK, schedule=VPSchedule(beta_max=15.0), parameterization="v")
    est.set_output(transform="pandas").fit(X, y)
    est.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["parameters"]["schedule"]["class"] == "VPSchedule"
    back = NeuralScore.load(tmp_path / "model")
    assert np.array_equal(back.denoise(X, 0.5, y), est.denoise(X, 0.5, y))
    assert list(back.feature_names_in_) == list(X.columns)
    rows = back.set_output(transform="pandas").sample(2, y=1, random_state=0)
    assert isinstance(rows, pandas.DataFrame)
    np.testing.assert_array_equal(rows, est.sample(2, y=1, random_state=0))
    with pytest.raises(ValueError, match="a folder written by save"):
        NeuralScore.load(tmp_path)
    own = NeuralScore(module=Linear, max_epochs=1).fit(X)
    own.save(tmp_path / "own")
    with pytest.raises(ValueError, match="module=Linear"):
        NeuralScore.load(tmp_path / "own")
    again = NeuralScore.load(tmp_path / "own", module=Linear)
    assert np.array_equal(again.denoise(X, 0.5), own.denoise(X, 0.5))
    with pytest.raises(ValueError, match="callbacks is"):
        NeuralScore(**QUICK, callbacks=[Seen()]).fit(X).save(tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path, moons):
    width, beta, lr = np.int64(16), np.int64(15), np.float32(0.25)  # as searches give them
    schedule = VPSchedule(beta_max=beta)
    est = NeuralScore(max_epochs=1, module__width=width, lr=lr, schedule=schedule).fit(moons[:50])
    est.save(tmp_path)
    back = NeuralScore.load(tmp_path)
    assert (back.lr, back._nested, back.schedule.beta_max) == (lr, {"module__width": 16}, 15)
    assert np.array_equal(back.denoise(moons, 0.3), est.denoise(moons, 0.3))


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": torch.optim.RAdam, "optimizer__betas": [0.8, 0.9]},
        {"sampler": PredictorCorrectorSampler(predictor=HeunSampler())},
        {"schedule": VPSchedule(), "device": torch.device("cpu")},
    ],
    ids=["optimizer", "sampler", "device"],
)
def test_parameters_come_back_from_a_folder_as_they_were(given, tmp_path, moons):
    est = NeuralScore(**QUICK, **given).fit(moons)
    est.save(tmp_path)
    back = NeuralScore.load(tmp_path)
    ours, theirs = est.get_params(), back.get_params()
    assert {k: str(v) for k, v in ours.items()} == {k: str(v) for k, v in theirs.items()}
    rows = [law.sample(5, random_state=0, n_steps=4) for law in (est, back)]
    np.testing.assert_array_equal(*rows)
    # the optimizer begins anew in both, as copies do not hold it
    np.testing.assert_array_equal(
        back.partial_fit(moons).denoise(moons, 0.3),
        pickle.loads(pickle.dumps(est)).partial_fit(moons).denoise(moons, 0.3),
    )


class Adam(torch.optim.SGD):
    """An optimizer of one's own, called as one of torch's."""


@pytest.mark.parametrize(
    "given, y, words",
    [
        ({"optimizer": Adam}, None, "optimizer is <class"),
        ({"module": Plain, "module__layer": torch.nn.Linear}, None, "module__layer is <class"),
        ({"sampler": HeunSampler(clock=NoiseLevelEstimator())}, None, "sampler__clock is Noise"),
        ({}, np.array(["2020", "2021"] * 20, dtype="datetime64[ns]"), "a class label is .*2020"),
        ({}, pd.Series(pd.to_datetime(["2020", "2021"] * 20)), "a class label is .*2020"),
    ],
    ids=["optimizer", "module", "sampler", "ns", "series"],
)
def test_what_a_text_cannot_hold_is_named(given, y, words, tmp_path, moons):
    est = NeuralScore(**{**QUICK, "parameterization": "gaussian"})
    est.fit(moons[:40], y)
    with pytest.raises(ValueError, match=f"save writes numbers, texts and.*{words}"):
        est.set_params(**given).save(tmp_path / "no")
    assert not (tmp_path / "no").exists()


# ------------------------------------------------------------------ how it computes


def test_a_gpu_that_is_not_there_is_named(moons):
    with pytest.raises(ValueError, match="device 'cuda:64' is not on this machine, where torch"):
        NeuralScore(**QUICK, device="cuda:64").fit(moons)


def test_rows_are_given_to_the_network_in_parts_that_fit(moons, monkeypatch):
    """Seven rows at once or all of them: the same answers, and the same derivatives."""
    est = NeuralScore(**QUICK).fit(moons)
    x = torch.tensor(moons[:40])

    def answers():
        point = x.clone().requires_grad_()
        value = est.model_.denoise(point, 0.3)
        (gradient,) = torch.autograd.grad((value**2).sum(), point)
        return value.detach().numpy(), gradient.numpy(), est.denoise(moons[:40], 0.3)

    whole, sizes, ask = answers(), [], Preconditioner.denoise

    def counted(self, module, x, *args):
        sizes.append(len(x))
        return ask(self, module, x, *args)

    monkeypatch.setattr(Preconditioner, "denoise", counted)
    # the widest layer embeds the level, for the first layer and for one block of width 16
    monkeypatch.setattr("skdiffusion.models.neural.FEATURES", (7 * 32, 7 * 32))
    for found, expected in zip(answers(), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert sizes == 2 * [7, 7, 7, 7, 7, 5]


def test_samples_are_of_the_network_in_double_precision_to_its_own_rounding(moons):
    est = NeuralScore(**{**QUICK, "max_epochs": 40}).fit(moons)
    options = {"far_field": est.far_field_}
    levels = est.noise_levels()
    codes = np.random.default_rng(0).standard_normal((200, 2))
    start = est.far_field_.from_latent(codes, levels[0])
    exact = run_sampler(AdamsSampler(), est.model_, start, [*levels, 0.0], **options)
    # float32 is exact to 1e-7; a flow moves apart what starts so near by a hundred at most here
    assert np.abs(est.sample(200, random_state=0) - exact).max() < 1e-5 * est.scale_


def test_points_may_be_tensors_on_the_way(moons, monkeypatch):
    """As on a GPU: codes are tensors, rows and what callbacks see are arrays."""
    est = NeuralScore(**QUICK, scaling="columns").fit(moons * [1, 100])
    expected = est.sample(30, random_state=0)
    monkeypatch.setattr(NeuralScore, "_where_drawn", lambda self, codes: torch.tensor(codes))
    seen = []
    rows, path = est.sample(
        30,
        random_state=0,
        return_trajectory=True,
        callback=lambda step, level, x: seen.append(x),
    )
    assert type(rows) is type(path) is np.ndarray and {type(x) for x in seen} == {np.ndarray}
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    np.testing.assert_allclose(seen[-1], rows, rtol=1e-12)


# ------------------------------------------------------------------ not told the level


@pytest.fixture(scope="module")
def blind():
    X, _, plane = make_embedded_circles(2000, 8, random_state=0, return_plane=True)
    options = {"max_epochs": 120, "module__width": 64, "early_stopping": False, "random_state": 0}
    return NeuralScore(noise_conditioning=False, **options).fit(X), X, plane


def test_a_blind_network_goes_by_the_level_of_its_points(blind):
    """On the schedule's clock it ends half as far again from the circles: over seeds and processors
    0.030 to 0.034 for 0.019 to 0.024; the rows are 0.016 away."""
    est, X, plane = blind

    def away(x):
        radius = np.linalg.norm(x @ plane, axis=1)
        return np.minimum(abs(radius - 1), abs(radius - 0.5)).mean()

    on_schedule = est.sample(1000, sampler=AdamsSampler(clock="schedule"), random_state=0)
    own = est.sample(1000, random_state=0)
    assert away(own) < 0.8 * away(on_schedule)
    assert away(own) < 1.75 * away(X)
    asked = est.sample(1000, sampler=AdamsSampler(clock="estimated"), random_state=0)
    np.testing.assert_array_equal(asked, own)


@pytest.mark.parametrize("sampler", ["heun", "rk4", "adaptive", "edm", "langevin"])
def test_no_sampler_asks_a_blind_network_below_its_range(sampler, moons):
    est = NeuralScore(**QUICK, noise_conditioning=False).fit(moons)  # two columns hide the level
    assert np.isfinite(est.sample(20, sampler=sampler, n_steps=6, random_state=0)).all()


def test_its_clock_is_in_the_coordinates_where_noise_is_alike(blind):
    """Columns of other units: the level that is read is that of noise in proportion to them."""
    X = blind[1] * np.geomspace(1, 1000, 8)
    est = NeuralScore(noise_conditioning=False, **QUICK).fit(X)
    scale, level = est.model_.noise_scale, 0.5 * est.scale_
    noise = np.random.default_rng(0).standard_normal(X.shape)
    found = est.level_estimator_.predict_noise_level((X + level * scale * noise) / scale)
    # noise of 8 columns, 6 of them empty, shows its level to 1 / sqrt(2 * 6)
    assert abs(np.median(np.log(found / level))) < 0.1


def test_what_reads_the_level_is_kept(blind, tmp_path):
    est = blind[0]
    expected = est.sample(20, random_state=0)
    est.save(tmp_path / "blind")
    for back in (NeuralScore.load(tmp_path / "blind"), pickle.loads(pickle.dumps(est))):
        np.testing.assert_array_equal(back.sample(20, random_state=0), expected)
    told = NeuralScore(**QUICK).fit(blind[1])
    assert not hasattr(told, "level_estimator_")
    told.save(tmp_path / "blind")  # another model in the same place: nothing is left of the first
    assert not hasattr(NeuralScore.load(tmp_path / "blind"), "level_estimator_")


class OnesOwn(KNeighborsRegressor):
    """A type that nobody has vouched for."""


def test_a_level_estimator_of_ones_own(blind, tmp_path):
    X = blind[1]
    levels = NoiseLevelEstimator(KNeighborsRegressor(20))
    est = NeuralScore(noise_conditioning=False, level_estimator=levels, **QUICK).fit(X)
    assert isinstance(est.level_estimator_.estimator_, KNeighborsRegressor)
    assert not hasattr(levels, "estimator_")
    est.save(tmp_path / "kept")
    back = NeuralScore.load(tmp_path / "kept")
    assert repr(back) == repr(est)
    np.testing.assert_array_equal(back.sample(5, random_state=0), est.sample(5, random_state=0))
    est.set_params(level_estimator__estimator=OnesOwn(20)).fit(X)
    with pytest.raises(ValueError, match=r"types that skops trusts .*OnesOwn: pickle"):
        est.save(tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(ValueError, match="level_estimator must be a NoiseLevelEstimator; got 3"):
        NeuralScore(level_estimator=3).fit(X)


def test_partial_fit_keeps_the_first_clock(blind):
    est = NeuralScore(noise_conditioning=False, **QUICK).partial_fit(blind[1][:500])
    first = est.level_estimator_
    est.partial_fit(blind[1][500:])
    assert est.level_estimator_ is first


@pytest.mark.parametrize("way", ["joblib", "skops"])
def test_it_travels(way, tmp_path, moons):
    est = NeuralScore(**QUICK).fit(moons)
    if way == "joblib":
        joblib.dump(est, tmp_path / "est")
        back = joblib.load(tmp_path / "est")
    else:
        skops = pytest.importorskip("skops.io")
        data = skops.dumps(est)
        back = skops.loads(data, trusted=skops.get_untrusted_types(data=data))
    assert np.array_equal(back.denoise(moons, 0.3), est.denoise(moons, 0.3))


def test_grid_search_over_schedules_and_parameterizations(moons):
    search = GridSearchCV(
        NeuralScore(**QUICK),
        {"schedule": ["auto", "vp"], "parameterization": ["gaussian", "noise"],
         "module__width": [8, 16]},
        cv=2, n_jobs=2,
    ).fit(moons[:400])  # fmt: skip
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and len(scores) == 8
    gaussian = [p["parameterization"] == "gaussian" for p in search.cv_results_["params"]]
    # five epochs: what begins as the Gaussian is ahead
    assert search.best_params_["parameterization"] == "gaussian" and any(gaussian)


BAD = {
    "module": ("mpl", "did you mean 'mlp'"),
    "parameterization": ("gausian", "did you mean 'gaussian'"),
    "schedule": ("edmm", "did you mean 'edm'"),
    "scaling": ("column", "accepted are 'auto', 'global', 'columns'"),
    "conservative": (-1.0, "conservative must be a finite number of at least 0"),
    "max_epochs": (0, "max_epochs must be an integer of at least 1"),
    "lr": (0.0, "lr must be a finite number above 0"),
    "validation_fraction": (0.9, "validation_fraction must be"),
    "input_shape": ((8, 8), r"input_shape must be \(channels, height, width\)"),
    "optimizer": ("adamm", "did you mean 'adam'"),
    "likelihood": ("odee", "did you mean 'ode'"),
    "early_stopping": ("no", "early_stopping must be True or False; got 'no'"),
    "noise_conditioning": (None, "noise_conditioning must be True or False"),
    "checkpoint": ("nowhere/run.pt", "checkpoint must be a file in a folder that exists"),
    "net": (3, "net must be a skorch.NeuralNet; got 3"),
    "callbacks": ([print], "callbacks must be a list of skorch callbacks"),
    "module__width": (0, "width must be an integer of at least 1"),
    "module__dropout": (1, "dropout must be below 1, where no unit would be left to learn"),
    "label_dropout": (1, "label_dropout must be below 1, where no row would have its label"),
    "sigma_min": (1e6, "sigma_min < sigma_max; got 1000000 and"),
    "device": ("gpu", "device must be 'auto', 'cpu', 'cuda' or another torch device"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_parameters_get_a_sentence(name, moons):
    value, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        NeuralScore(**{**QUICK, name: value}).fit(moons)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("module__width", "wide", "width must be an integer of at least 1; got 'wide'"),
        ("optimizer", 3, "accepted are 'adamw', 'adam', 'sgd' or a torch optimizer class"),
        ("module", int, "or a class of torch modules"),
        ("input_shape", (1, 8, 8), "holds 64 numbers, but the rows have 2 columns"),
        ("checkpoint", 3, "checkpoint must be the path of a file; got 3"),
        ("parameterization", None, "'score' or 'auto' or a Parameterization instance"),
        ("parameterization", MixtureParameterization("many"), "accepted are 'auto', 'bic'"),
        ("parameterization", MixtureParameterization(3, 0), "n_averaged must be an integer"),
    ],
)
def test_parameters_of_a_wrong_kind_get_a_sentence(name, value, message, moons):
    with pytest.raises(ValueError, match=message):
        NeuralScore(**{**QUICK, name: value}).fit(moons)


class OneColumn(Plain):
    def forward(self, x, noise, condition=None):
        return super().forward(x, noise)[:, :1]


def test_a_network_that_returns_no_rows_is_refused(moons):
    with pytest.raises(ValueError, match=r"OneColumn returned \(256, 1\)"):
        NeuralScore(OneColumn, max_epochs=1, random_state=0).fit(moons)


def test_labels_that_cannot_be_used_get_a_sentence(moons):
    with pytest.raises(ValueError, match="labels y must be all words or all numbers"):
        NeuralScore(**QUICK).fit(moons[:100], [None, "a"] * 50)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        NeuralScore(**QUICK).fit(moons[:100], [np.nan, 0.5] * 50)
    with pytest.raises(ValueError, match="none may be missing"):
        NeuralScore(**QUICK).fit(moons[:100], [0, 1] * 50).sample(2, y=[0, None])
    est = NeuralScore(**QUICK).fit(moons[:100], ["a", "b"] * 50)
    for method in (est.score, est.score_samples, lambda X, y: est.denoise(X, 0.3, y)):
        with pytest.raises(ValueError, match="y must hold one label per row, 9; got 3"):
            method(moons[:9], ["a"] * 3)
    with pytest.raises(ValueError, match="guidance_scale is how much labels count"):
        est.sample(3, guidance_scale=2.0)
    est.fit(moons[:100])
    with pytest.raises(ValueError, match="NeuralScore is unconditional: it takes no labels y"):
        est.denoise(moons[:2], 0.3, ["a", "b"])


def test_codes_of_numbers_know_no_unit(rng):
    y = rng.standard_normal(50)
    codes = LabelCode(y).encode(y, 50)
    assert codes[:, 0].std() == pytest.approx(1.0, abs=1e-12)
    for exponent in (-900, -600, 600, 900):  # whose squares float64 does not hold
        labels = np.ldexp(y, exponent)
        np.testing.assert_array_equal(LabelCode(labels).encode(labels, 50), codes)
    same = LabelCode(np.full(90, 0.1))  # whose mean is not 0.1 to the last digit
    np.testing.assert_allclose(same.encode([0.1, 0.3], 2), [[0.0, 1.0], [0.2, 1.0]], atol=1e-12)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path, moons):
    (tmp_path / "run.pt").write_text("something else")
    with pytest.raises(ValueError, match="is no checkpoint of a training run"):
        NeuralScore(**QUICK, checkpoint=tmp_path / "run.pt").fit(moons)


@pytest.mark.parametrize(
    "theirs, ours", [("epsilon", "noise"), ("x0", "data"), ("flow", "velocity")]
)
def test_names_of_other_packages_are_understood(theirs, ours):
    with pytest.raises(ValueError, match=f"did you mean '{ours}'"):
        check_parameterization(theirs)


def test_unknown_arguments_are_refused_at_once():
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        NeuralScore(widht=3)
