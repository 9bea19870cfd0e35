"""ConservativityDecomposer: known splits, chance levels, invariances."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from skdiffusion import ConservativityDecomposer, GMMScore
from skdiffusion.datasets import make_gaussian
from skdiffusion.geometry import linear_gradient
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import (
    AdditiveGauge,
    AffineModel,
    GaussianModel,
    MixtureModel,
    ProductModel,
    as_score_model,
)
from skdiffusion.utils.estimator_checks import check_score_model

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
MIXTURE = MixtureModel([1, 1, 1], [[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]], [0.5, 0.5, 0.5])


def exact_moments(n, covariance, seed=0):
    """Rows of mean zero with exactly this covariance."""
    z = np.random.default_rng(seed).standard_normal((n, len(covariance)))
    z = z - z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / n)).T
    return z @ np.linalg.cholesky(covariance).T


def relative_error(found, truth):
    return np.sqrt(((found - truth) ** 2).sum() / (truth**2).sum())


def of_degree_two(x):
    return np.stack([x[:, 1] ** 2, 0 * x[:, 1]], axis=1)


def gauge_with_divergence(x):
    return np.stack([x[:, 0] * x[:, 1], 1 - x[:, 0] ** 2], axis=1)


# ------------------------------------------------------------------ known answers


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e5])
def test_a_linear_field_is_split_exactly(scale, rng):
    root, M = rng.standard_normal((2, 3, 3))
    covariance = root @ root.T
    X = scale * exact_moments(200, covariance) + 10 * scale
    V = (X - 3 * scale) @ M.T + 5 * scale
    dec = ConservativityDecomposer("linear", random_state=0).fit(X, V)
    S = linear_gradient(M, covariance)
    np.testing.assert_allclose(dec.potentials_[0].matrix, S, atol=1e-9)
    gradient, gauge = dec.decompose(X, V)
    np.testing.assert_allclose(gradient + gauge, V, rtol=1e-14)
    mean = X.mean(axis=0)
    np.testing.assert_allclose(gauge, (X - mean) @ (M - S).T, atol=1e-9 * np.abs(V).max())
    # orthogonal, so energies add up
    whole, *parts = ((a**2).sum() for a in (V, gradient, gauge))
    assert whole == pytest.approx(sum(parts), rel=1e-10)
    assert dec.score(X, V) == pytest.approx(parts[0] / whole, rel=1e-10)
    assert abs(dec.potential_at(X).mean()) < 1e-10 * np.abs(dec.potential_at(X)).max()


def test_the_shear_of_the_paper_out_of_fold():
    X, _ = make_gaussian(4000, 2, covariance=[1.0, 4.0], random_state=0)
    V = X @ np.array([[0.0, 1.0], [0.0, 0.0]]).T
    dec = ConservativityDecomposer("linear", random_state=0).fit(X, V)
    assert abs(dec.conservative_fraction_ - 0.8) < 4 * dec.conservative_fraction_std_error_
    assert dec.conservative_fraction_std_error_ < 0.02


def test_a_singular_covariance_is_no_obstacle(rng):
    X = exact_moments(100, np.diag([1.0, 2.0]))
    X = np.column_stack([X, np.full(100, 7.0)])
    M = np.arange(9.0).reshape(3, 3)
    dec = ConservativityDecomposer("linear", random_state=0).fit(X, (X - [0, 0, 7]) @ M.T)
    expected = [[0, 5 / 3, 6], [5 / 3, 4, 7], [6, 7, 0]]  # nothing is known of the last entry
    np.testing.assert_allclose(dec.potentials_[0].matrix, expected, atol=1e-10)
    few = ConservativityDecomposer(random_state=0).fit(
        rng.standard_normal((5, 12)), np.ones((5, 12))
    )
    np.testing.assert_allclose(
        few.predict(np.zeros((1, 12))), 1, atol=1e-6
    )  # fewer rows than columns


@pytest.mark.parametrize("potential", ["polynomial", "auto"])
def test_a_quadratic_field_under_a_normal_law(potential):
    X, _ = make_gaussian(4000, 2, covariance=1.0, random_state=1)
    V = of_degree_two(X)
    dec = ConservativityDecomposer(potential, random_state=0).fit(X, V)
    Y, _ = make_gaussian(2000, 2, covariance=1.0, random_state=2)
    truth = np.stack([Y[:, 1] ** 2 / 3 + 2 / 3, 2 * Y[:, 0] * Y[:, 1] / 3], axis=1)
    # nine coefficients at a noise of order one and heavy tails; the field itself is off by 0.9
    assert relative_error(dec.predict(Y), truth) < 0.15
    assert abs(dec.conservative_fraction_ - 5 / 9) < 4 * dec.conservative_fraction_std_error_


@pytest.mark.parametrize(
    "field, gradient, energies",
    [
        (
            of_degree_two,
            lambda x: np.stack([x[:, 1] ** 2 / 3 + 2 / 3, 2 * x[:, 0] * x[:, 1] / 3], axis=1),
            (3, 5 / 3, 4 / 3),
        ),
        (gauge_with_divergence, np.zeros_like, (3, 0, 3)),
    ],
)
def test_cubic_potentials_are_exact_where_the_moments_of_the_rows_are(field, gradient, energies):
    # ten Gauss-Hermite nodes per axis have the moments of the normal law up to degree 19
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    X = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    V = field(X)
    dec = ConservativityDecomposer("polynomial", alpha=1e-12, random_state=0)
    dec.fit(X, V, sample_weight=weights)
    parts = V, *dec.decompose(X, V)
    # a ridge of 1e-12 times values up to 30
    np.testing.assert_allclose(parts[1], gradient(X), atol=1e-10)
    found = [weights @ (part**2).sum(axis=1) for part in parts]
    np.testing.assert_allclose(found, energies, atol=1e-10)
    share = dec.score(X, V, sample_weight=weights)
    assert share == pytest.approx(energies[1] / energies[0], abs=1e-10)


def test_a_gauge_with_divergence_has_no_gradient_part():
    X, _ = make_gaussian(2000, 2, covariance=1.0, random_state=0)
    V = gauge_with_divergence(X)
    dec = ConservativityDecomposer(random_state=0).fit(X, V)
    assert abs(dec.conservative_fraction_) < 0.02
    assert (V**2).sum(axis=1).mean() == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("d", [2, 8, 32])
def test_a_pure_gauge_on_a_mixture_has_fraction_zero(d):
    rng = np.random.default_rng(d)
    means, Q = rng.standard_normal((3, d)), rng.standard_normal((d, d))
    law = MixtureModel([1, 2, 3], 2 * means, [0.5, 1.0, 0.3])
    X = law.sample(2000, random_state=0)
    dec = ConservativityDecomposer(random_state=0).fit(X, law.score(X, 0.0) @ (Q - Q.T).T)
    # the linear part alone has d(d+1)/2 numbers to get wrong: some (d+1)/(2n) of the energy
    assert abs(dec.conservative_fraction_) < 0.02


def test_half_of_a_turned_score_is_its_gradient():
    X, Y = MIXTURE.sample(5000, random_state=0), MIXTURE.sample(3000, random_state=1)
    model = AdditiveGauge(MIXTURE, TURN)
    dec = ConservativityDecomposer(random_state=0).fit(X, model.score(X, 0.0))
    # the fit can only fall short of the fraction, by its own estimation error
    assert 0.47 < dec.conservative_fraction_ < 0.5 + 3 * dec.conservative_fraction_std_error_
    assert relative_error(dec.predict(Y), MIXTURE.score(Y, 0.0)) < 0.15
    assert relative_error(model.score(Y, 0.0), MIXTURE.score(Y, 0.0)) == pytest.approx(1)
    assert dec.score(Y, model.score(Y, 0.0)) == pytest.approx(dec.conservative_fraction_, abs=0.02)


@pytest.mark.parametrize("potential", ["linear", "polynomial", "kernel", "random_features"])
def test_gradients_of_quadratics_and_constants_are_explained(potential, rng):
    X = rng.standard_normal((60, 3))
    A = rng.standard_normal((3, 3))
    dec = ConservativityDecomposer(potential, random_state=0)
    for V in (X @ (A + A.T), np.ones_like(X)):
        dec.fit(X, V)
        assert dec.score(X, V) == pytest.approx(1, abs=1e-9)
        assert dec.conservative_fraction_ == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("potential", ["polynomial", "kernel", "random_features", "neural"])
def test_the_field_is_the_gradient_of_the_potential(potential, rng):
    X = rng.standard_normal((80, 2)) * [3.0, 0.1] + 5
    V = np.cos(X)
    dec = ConservativityDecomposer(potential, cv=2, n_components=8, random_state=0).fit(X, V)
    x, h = X[:10], 1e-5
    step = h * np.eye(2)
    slopes = [(dec.potential_at(x + e) - dec.potential_at(x - e)) / (2 * h) for e in step]
    field = dec.predict(x)
    np.testing.assert_allclose(np.stack(slopes, axis=1), field, atol=1e-6 * np.abs(field).max())
    bends = np.stack([(dec.predict(x + e) - dec.predict(x - e)) / (2 * h) for e in step], axis=2)
    hessian = dec.potentials_[0].hessian(x)
    np.testing.assert_allclose(bends, hessian, atol=1e-5 * np.abs(hessian).max())


def test_small_networks_find_the_gradient_too():
    X, Y = MIXTURE.sample(600, random_state=0), MIXTURE.sample(1000, random_state=1)
    V = AdditiveGauge(MIXTURE, TURN).score(X, 0.0)
    dec = ConservativityDecomposer("neural", cv=3, n_components=24, random_state=0).fit(X, V)
    linear = ConservativityDecomposer("linear", random_state=0).fit(X, V)
    truth = MIXTURE.score(Y, 0.0)
    # an untrained network would leave the linear part, off by 0.8
    assert relative_error(dec.predict(Y), truth) < 0.5 * relative_error(linear.predict(Y), truth)
    assert dec.conservative_fraction_ > linear.conservative_fraction_ + 0.15


# ------------------------------------------------------------------ invariances


@pytest.mark.parametrize("potential", ["linear", "polynomial", "kernel", "auto"])
def test_a_rotated_problem_has_the_rotated_answer(potential, rng):
    X, _ = make_gaussian(300, 3, random_state=0)
    V = np.sin(X[:, [1, 2, 0]]) + X
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    dec = ConservativityDecomposer(potential, random_state=0)
    straight = dec.fit(X, V)
    fraction, field = straight.conservative_fraction_, straight.predict(X)
    turned = clone(dec).fit(X @ turn.T + 3, V @ turn.T)
    assert turned.conservative_fraction_ == pytest.approx(fraction, rel=1e-8)
    np.testing.assert_allclose(turned.predict(X @ turn.T + 3), field @ turn.T, atol=1e-7)


@pytest.mark.parametrize("potential", ["linear", "auto"])
def test_a_weight_is_a_number_of_copies(potential, rng):
    X = rng.standard_normal((120, 2))
    V = np.sin(X[:, ::-1]) + X
    weights = rng.integers(0, 4, 120)
    order = rng.permutation(weights.sum())
    dec = ConservativityDecomposer(potential, random_state=0)
    weighted = dec.fit(X, V, sample_weight=weights).predict(X)
    copies = [np.repeat(a, weights, axis=0)[order] for a in (X, V)]
    np.testing.assert_allclose(clone(dec).fit(*copies).predict(X), weighted, atol=1e-9)
    assert np.isnan(dec.oof_gradient_[weights == 0]).all()
    assert np.isfinite(dec.oof_gradient_[weights > 0]).all()


def test_columns_of_any_units(rng):
    X, V = rng.standard_normal((2, 400, 2))
    V = V * 0.1 + np.stack([np.cos(X[:, 0]), 0 * X[:, 0]], axis=1)  # a gradient along one column
    units = np.array([1.0, 1e4])
    dec = ConservativityDecomposer(random_state=0).fit(X * units, V / units)
    assert dec.conservative_fraction_ > 0.8


def test_out_of_fold_fields_never_saw_their_rows(rng):
    # a field without any law behind it: what is interpolated in sample is worth nothing outside
    X, V = rng.standard_normal((2, 100, 2))
    dec = ConservativityDecomposer("kernel", alpha=1e-7, length_scale=0.2, random_state=0).fit(X, V)
    assert dec.score(X, V) > 0.4
    assert dec.conservative_fraction_ < 0
    rest = ((V - dec.oof_gradient_) ** 2).sum() / (V**2).sum()
    assert dec.conservative_fraction_ == pytest.approx(1 - rest)


def test_standard_errors_are_those_of_repetitions():
    def fraction(seed):
        X = MIXTURE.sample(300, random_state=seed)
        V = X @ np.array([[1.0, 2.0], [0.0, 1.0]]).T
        dec = ConservativityDecomposer("linear", random_state=0).fit(X, V)
        return dec.conservative_fraction_, dec.conservative_fraction_std_error_

    found, errors = np.array([fraction(seed) for seed in range(60)]).T
    # the deviation of 60 repetitions is itself known to 9%
    assert found.std() == pytest.approx(errors.mean(), rel=0.3)


# ------------------------------------------------------------------ scores


@pytest.fixture(scope="module")
def turned_model():
    return AdditiveGauge(MIXTURE, 2 * TURN, fade=20.0)


@pytest.fixture(scope="module")
def decomposed(turned_model):
    X = MIXTURE.sample(1500, random_state=0)
    return ConservativityDecomposer("kernel", score_estimator=turned_model, random_state=0).fit(X)


def test_fractions_per_level_of_a_turned_model(decomposed):
    found, errors = decomposed.conservative_fraction_, decomposed.conservative_fraction_std_error_
    assert found.shape == errors.shape == decomposed.levels_.shape == (10,)
    strength = 2 / (1 + (decomposed.levels_ / 20) ** 4)
    truth = 1 / (1 + strength**2)
    # |r|^2 = 4 |s|^2 is what the few potentials have to see through
    np.testing.assert_allclose(found, truth, atol=0.04)
    assert (found < truth + 4 * errors + 1e-3).all()


def test_the_projected_model_is_a_score_model_near_the_truth(decomposed, turned_model):
    model = decomposed.as_score_model()
    check_score_model(model)
    assert as_score_model(decomposed) is model
    for level in (0.1, 0.3, 1.0, 3.0):
        x = MIXTURE.sample(2000, level, random_state=1)
        truth = MIXTURE.score(x, level)
        before = relative_error(turned_model.score(x, level), truth)
        assert relative_error(model.score(x, level), truth) < 0.2 * before
        np.testing.assert_array_equal(model.score(x, level), decomposed.predict(x, level))
    x = MIXTURE.sample(40, 0.1, random_state=2)
    found = flow_log_prob(model, x, decomposed.far_field_, 0.1, 40.0).log_prob
    # gauges twice the score on 1500 rows leave an error of some tenths of a nat per row
    assert abs((found - MIXTURE.log_prob(x, 0.1)).mean()) < 0.2


def test_levels_between_those_that_were_fitted(decomposed):
    x = MIXTURE.sample(50, 0.5, random_state=0)
    at, h = decomposed.levels_[3], 1e-6
    middle = decomposed.predict(x, at)
    for nearby in (at * (1 - h), at * (1 + h)):
        np.testing.assert_allclose(decomposed.predict(x, nearby), middle, atol=1e-3)
    per_row = decomposed.predict(x, np.where(np.arange(50) < 25, at, 0.9))
    np.testing.assert_allclose(per_row[:25], middle[:25], rtol=1e-12)
    np.testing.assert_allclose(per_row[25:], decomposed.predict(x, 0.9)[25:], rtol=1e-12)
    # far out it is the Gaussian
    far = decomposed.far_field_
    np.testing.assert_allclose(decomposed.predict(x, 1e3), far.score(x, 1e3), rtol=1e-12)


def test_closed_form_estimators_have_no_gauge():
    X = MIXTURE.sample(800, random_state=0)
    dec = ConservativityDecomposer(
        score_estimator=GMMScore(3, random_state=0), sigma=[0.5, 2.0], random_state=0
    ).fit(X)
    assert (dec.conservative_fraction_ > 0.97).all()
    assert (dec.conservative_fraction_ <= 1).all()
    assert dec.score(X) > 0.97
    fitted = FrozenEstimator(GMMScore(3, random_state=0).fit(X))
    again = clone(dec).set_params(score_estimator=fitted).fit(X)
    np.testing.assert_allclose(again.conservative_fraction_, dec.conservative_fraction_)
    np.testing.assert_array_equal(again.predict(X), again.transform(X))


def test_a_reference_near_the_score_leaves_less_to_be_fitted():
    X, level = MIXTURE.sample(300, random_state=0), 0.3
    model = AdditiveGauge(MIXTURE, 0.3 * TURN)
    dec = ConservativityDecomposer(score_estimator=model, sigma=level, random_state=0)
    x = MIXTURE.sample(2000, level, random_state=1)
    truth = MIXTURE.score(x, level)
    plain = relative_error(dec.fit(X).predict(x), truth)
    near = clone(dec).set_params(reference=GMMScore(3, random_state=0)).fit(X)
    assert relative_error(near.predict(x), truth) < plain
    perfect = clone(dec).set_params(reference=MIXTURE).fit(X)
    # what remains is the linear part of the gauge, by chance
    assert relative_error(perfect.predict(x), truth) < 0.05
    assert perfect.conservative_fraction_ == pytest.approx(1 / 1.09, abs=0.01)
    h = 1e-5
    slopes = [
        (near.potential_at(x[:9] + e) - near.potential_at(x[:9] - e)) / (2 * h)
        for e in h * np.eye(2)
    ]
    np.testing.assert_allclose(np.stack(slopes, axis=1), near.predict(x[:9]), atol=1e-5)
    check_score_model(near.as_score_model())
    with pytest.raises(ValueError, match="must be known to be a gradient"):
        clone(dec).set_params(reference=model).fit(X)


def test_a_gaussian_score_is_found_in_any_units():
    units = np.array([1.0, 30.0])
    inner = AdditiveGauge(GaussianModel([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]]), TURN)
    model = AffineModel(inner, scale=units)
    X = AffineModel(inner.model, scale=units).sample(2000, random_state=0)
    dec = ConservativityDecomposer("linear", score_estimator=model, sigma=3.0, random_state=0).fit(
        X
    )
    assert dec.conservative_fraction_ == pytest.approx(0.5, abs=0.02)
    truth = AffineModel(inner.model, scale=units).score(X, 3.0)
    assert relative_error(dec.predict(X), truth) < 0.05
    gradient, gauge = dec.decompose(X)
    np.testing.assert_allclose(gradient + gauge, model.score(X, 3.0), rtol=1e-12)


def test_guidance_mixes_gauges_into_no_gauge_unless_they_are_projected_first():
    # of two branches the rate is w (1 - w) <r_u - r_c, s_c - s_u>, not zero
    conditional = GaussianModel([1.0, 0.0], [[1.0, 0.0], [0.0, 0.3]])
    marginal = GaussianModel([0.0, 0.0], [[1.0, 0.3], [0.3, 2.0]])
    branches = AdditiveGauge(conditional, TURN), AdditiveGauge(marginal, -2 * TURN)
    w, level = 3.0, 0.5
    truth = ProductModel([conditional, marginal], [w, 1 - w])
    guided = ProductModel(branches, [w, 1 - w])
    x = conditional.sample(300, level, random_state=0)
    r_c, r_u = (m.gauge(x, level) for m in branches)
    gap = conditional.score(x, level) - marginal.score(x, level)
    expected = w * (1 - w) * ((r_u - r_c) * gap).sum(axis=1)
    from skdiffusion.geometry import strong_gauge_residual

    found = strong_gauge_residual(guided, truth, x, level)
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    assert np.abs(expected).max() > 1
    projected = [
        ConservativityDecomposer("linear", score_estimator=m, sigma=level, random_state=0)
        .fit(m.model.sample(4000, random_state=1))
        .as_score_model()
        for m in branches
    ]
    harmless = strong_gauge_residual(ProductModel(projected, [w, 1 - w]), truth, x, level)
    assert np.abs(harmless).mean() < 0.1 * np.abs(expected).mean()


@pytest.mark.parametrize("unit", [2.0**-460, 2.0**460])
@pytest.mark.parametrize("potential", ["auto", "polynomial"])
def test_fields_in_any_units_are_split_alike(potential, unit):
    """What is compared are squares of squares of them."""
    X = MIXTURE.sample(200, random_state=0)
    V = MIXTURE.score(X, 0.0) @ [[1.0, 1.0], [-1.0, 1.0]]
    plain, there = (
        ConservativityDecomposer(potential=potential, random_state=0).fit(X, V * u)
        for u in (1.0, unit)
    )
    assert there.chosen_ == plain.chosen_
    assert there.conservative_fraction_ == pytest.approx(plain.conservative_fraction_, rel=1e-12)
    errors = (one.conservative_fraction_std_error_ for one in (there, plain))
    np.testing.assert_allclose(*errors, rtol=1e-12)
