"""A gauge on a score: other paths, the same laws."""

import numpy as np
import pytest
import scipy.integrate
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skdiffusion.geometry import strong_gauge_residual
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import AdditiveGauge, GaussianModel, MixtureModel, jacobian
from skdiffusion.samplers import HeunSampler, RK4Sampler, run_sampler
from skdiffusion.utils.arrays import like
from skdiffusion.utils.estimator_checks import check_score_model

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
NORMAL = GaussianModel([0.0, 0.0], 1.0)
MIXTURE = MixtureModel([0.3, 0.7], [[1.0, 0.0], [-1.0, 0.5]], [0.2, 0.4])


def by_first_column(x):
    """Q = x_1 J."""
    return x[:, :1, None] * like(TURN, x)


def test_constant_gauge_is_the_turned_score(rng):
    Q = rng.standard_normal((3, 3))
    Q = Q - Q.T
    law = MixtureModel([1, 2], rng.standard_normal((2, 3)), [0.5, 1.0])
    x = rng.standard_normal((5, 3))
    model = AdditiveGauge(law, Q)
    score = law.score(x, 0.7)
    np.testing.assert_allclose(model.score(x, 0.7), score + score @ Q.T, rtol=1e-14)
    np.testing.assert_allclose(model.gauge(x, 0.7), score @ Q.T, rtol=1e-14)
    faded = AdditiveGauge(law, Q, fade=0.7)
    np.testing.assert_allclose(faded.gauge(x, 0.7), score @ Q.T / 2, rtol=1e-14)
    # <r, s> = s'Qs = 0 at every point
    assert np.abs((model.gauge(x, 0.7) * score).sum(axis=1)).max() < 1e-14 * (score**2).sum()


def test_a_position_dependent_gauge_has_the_field_of_the_paper(rng):
    x = rng.standard_normal((20, 2))
    expected = np.stack([x[:, 0] * x[:, 1], 1 - x[:, 0] ** 2], axis=1)
    divergence = lambda x: np.stack([0 * x[:, 0], 1 + 0 * x[:, 0]], axis=1)  # noqa: E731
    given = AdditiveGauge(NORMAL, by_first_column, divergence=divergence)
    np.testing.assert_allclose(given.gauge(x, 0.0), expected, atol=1e-15)
    found = AdditiveGauge(NORMAL, by_first_column)
    np.testing.assert_allclose(found.gauge(x, 0.0), expected, atol=1e-9)  # rounding over the step
    # div r = x_2 and <r, s> = -x_2: neither is zero, their sum is
    inner = (expected * NORMAL.score(x, 0.0)).sum(axis=1)
    np.testing.assert_allclose(inner, -x[:, 1], atol=1e-14)
    slopes = jacobian(given, x, 0.0) - jacobian(NORMAL, x, 0.0)
    np.testing.assert_allclose(np.trace(slopes, axis1=1, axis2=2), x[:, 1], atol=1e-8)
    np.testing.assert_allclose(slopes[:, 1, 0] - slopes[:, 0, 1], -3 * x[:, 0], atol=1e-8)  # curl


@pytest.mark.parametrize("offset, unit", [(0.0, 1e-12), (0.0, 1e12), (1e8, 1.0)])
def test_differences_of_a_gauge_know_no_units_and_no_origin(offset, unit, rng):
    def angle(x):
        return (x[:, 0] + 2 * x[:, 1] - 3 * offset) / unit

    def divergence(x):
        slope = 1 / np.cosh(angle(x)) ** 2 / unit
        return np.stack([-2 * slope, slope], axis=1)

    def Q(x):
        return np.tanh(angle(x))[:, None, None] * TURN

    law = GaussianModel([offset, offset], unit**2)
    x = offset + unit * rng.standard_normal((10, 2))
    given = AdditiveGauge(law, Q, divergence=divergence).gauge(x, 0.3 * unit)
    found = AdditiveGauge(law, Q).gauge(x, 0.3 * unit)
    # rounding of the coordinates over the step, (eps |x| / sigma)^(2/3) at most
    np.testing.assert_allclose(unit * found, unit * given, atol=1e-8 + 1e-4 * (offset > 0))


@pytest.mark.parametrize("level", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("Q", [3 * TURN, by_first_column])
def test_no_marginal_moves(Q, level):
    x = MIXTURE.sample(50, level, random_state=0)
    residual = strong_gauge_residual(AdditiveGauge(MIXTURE, Q), MIXTURE, x, level)
    scale = np.abs(AdditiveGauge(MIXTURE, Q).gauge(x, level)).max() / level
    assert np.abs(residual).max() < 1e-6 * max(scale, 1)  # differences for the divergences of Q


@pytest.mark.parametrize("strength", [1.0, 5.0])
def test_likelihoods_of_a_gaussian_in_vp_time_do_not_change(strength, rng):
    axes = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    law = GaussianModel([0.0, 0.0], axes @ np.diag([2.0, 0.3]) @ axes.T)
    model = AdditiveGauge(law, strength * TURN)
    view = model.at_time("vp")
    x, end = law.sample(3, random_state=0), 0.8

    def rates(t, state):
        x_t = state[:-1][None]
        alpha, level = view.schedule.alpha(t), view.schedule.noise_level(t)
        trace = model.divergence(x_t / alpha, level)[0] / alpha**2
        pull = 0.5 * view.diffusion(t) ** 2
        growth = 2 * view.schedule.drift(t) - pull * trace
        return np.append(view.velocity(x_t, t)[0], growth)

    for row in x:
        path = scipy.integrate.solve_ivp(
            rates, (1e-3, end), np.append(row, 0.0), "DOP853", rtol=1e-10, atol=1e-12
        ).y[:, -1]
        found = law.at_time("vp").log_prob(path[None, :-1], end)[0] + path[-1]
        expected = law.at_time("vp").log_prob(row[None], 1e-3)[0]
        assert abs(found - expected) < 1e-8


@pytest.mark.parametrize("strength", [0.0, 3.0])
@pytest.mark.parametrize(
    "start, level, printed",
    [(1.0, 1e4, [1.40011, 0.99005, 0.70011]), (0.999, 999.0, [1.4015, 0.9910, 0.7008])],
)
def test_a_gauge_turns_the_flow_of_a_gaussian_and_stretches_nothing(
    strength, start, level, printed, rng
):
    # flow matching down to t = .01: sqrt((1 - t)^2 lambda + t^2) there over the same at the start
    variances, t = np.array([2.0, 1.0, 0.5] + 7 * [0.0]), 0.01
    Q = rng.standard_normal((10, 10))
    Q = strength * (Q - Q.T) / np.linalg.norm(Q - Q.T)
    model = AdditiveGauge(GaussianModel(np.zeros(10), variances), Q)
    # the field is linear: points on the axes go to the columns of the map
    levels = np.geomspace(level, t / (1 - t), 120)
    ends = run_sampler(RK4Sampler(), model, level * np.eye(10), levels)
    found = np.linalg.svd((1 - t) * ends / start, compute_uv=False)
    # fourth-order steps of an eighth, and the digits that are printed
    np.testing.assert_allclose(found, printed + 7 * [0.01 / start], atol=1e-4)


@pytest.mark.parametrize("fade", [2.0, None])
def test_likelihoods_of_a_mixture_along_the_flow_do_not_change(fade):
    x = MIXTURE.sample(8, 0.05, random_state=0)
    # at the last level the far field is right to its third cumulant, 1e-12
    model = AdditiveGauge(MIXTURE, TURN, fade=fade)
    found = flow_log_prob(model, x, MIXTURE.gaussian(), 0.05, 1e4, tol=1e-10)
    np.testing.assert_allclose(found.log_prob, MIXTURE.log_prob(x, 0.05), rtol=0, atol=1e-8)


def test_samples_follow_the_same_law_on_other_paths():
    model = AdditiveGauge(MIXTURE, 2 * TURN, fade=5.0)
    levels = np.geomspace(30, 0.01, 80)
    start = levels[0] * np.random.default_rng(0).standard_normal((1500, 2))
    start = start + MIXTURE.gaussian().mean
    plain, turned = (run_sampler(HeunSampler(), m, start, [*levels, 0.0]) for m in (MIXTURE, model))
    moved = np.linalg.norm(plain - turned, axis=1)
    assert np.median(moved) > 0.5  # of a law whose standard deviation is one
    truth = MIXTURE.sample(1500, random_state=1)
    labels = np.repeat([0, 1], 1500)
    accuracy = cross_val_score(
        KNeighborsClassifier(50),
        *_shuffled(np.vstack([turned, truth]), labels),
        cv=5,
    ).mean()
    assert abs(accuracy - 0.5) < 3 * 0.5 / np.sqrt(3000)  # three standard errors


def _shuffled(X, y):
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


def test_the_contract_with_a_position_dependent_gauge():
    check_score_model(AdditiveGauge(MIXTURE, by_first_column))


@pytest.mark.parametrize(
    "Q, message",
    [
        (np.eye(2), "antisymmetric"),
        (np.zeros((3, 3)), "shape"),
        ([[0, np.inf], [-np.inf, 0]], "finite"),
    ],
)
def test_a_matrix_that_is_no_gauge_is_refused(Q, message):
    with pytest.raises(ValueError, match=message):
        AdditiveGauge(NORMAL, Q)


def test_a_function_that_is_no_gauge_is_refused():
    x = np.ones((2, 2))
    with pytest.raises(ValueError, match="a matrix per point"):
        AdditiveGauge(NORMAL, lambda x: TURN).score(x, 1.0)
    with pytest.raises(ValueError, match="antisymmetric"):
        AdditiveGauge(NORMAL, lambda x: np.ones((len(x), 2, 2))).score(x, 1.0)
    with pytest.raises(ValueError, match="divergence must return"):
        AdditiveGauge(NORMAL, by_first_column, divergence=lambda x: 0 * x[:1]).score(x, 1.0)
    with pytest.raises(ValueError, match="position-dependent"):
        AdditiveGauge(NORMAL, TURN, divergence=by_first_column)
