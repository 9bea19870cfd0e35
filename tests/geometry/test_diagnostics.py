"""Diagnostics of a score's gauge against their definitions and known values."""

import numpy as np
import pytest

from skdiffusion.geometry import (
    conservativity_report,
    jacobian_asymmetry,
    loop_integrals,
    score_fpe_residual,
    step_inflation,
    strong_gauge_residual,
)
from skdiffusion.models import (
    AdditiveGauge,
    AffineModel,
    BaseScoreModel,
    GaussianModel,
    MixtureModel,
)

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
MIXTURE = MixtureModel([1, 2], [[1.5, 0.0], [-1.0, 0.5]], [0.3, 0.8])


class Linear(BaseScoreModel):
    """The score x -> M x at all levels."""

    def __init__(self, M):
        self.M = np.asarray(M, dtype=float)
        self.n_features = len(self.M)

    is_differentiable = False

    def _score(self, x, sigma):
        return x @ self.M.T


@pytest.mark.parametrize(
    "M, expected", [([[0, 1], [0, 0]], 0.5), (TURN, 1.0), ([[1, 2], [2, 0]], 0.0)]
)
def test_asymmetry_of_a_matrix_is_blind_to_the_law(M, expected, rng):
    for spread in ([1.0, 4.0], [4.0, 1.0]):
        x = rng.standard_normal((5, 2)) * spread
        for method in ("exact", "hutchinson"):
            found = jacobian_asymmetry(Linear(M), x, 1.0, method=method)
            if method == "exact":
                assert found.value == pytest.approx(expected, abs=1e-7)  # central differences
            else:
                assert found.value == pytest.approx(expected, abs=5 * found.std_error + 1e-7)
    # |J - J'|/|J| is twice the square root: the square root of two for the shear
    assert 2 * np.sqrt(0.5) == pytest.approx(np.sqrt(2))


def test_probes_estimate_the_asymmetry_without_bias(rng):
    M = rng.standard_normal((40, 40))
    skew, whole = ((M - M.T) ** 2).sum() / 4, (M**2).sum()
    x = rng.standard_normal((200, 40))
    found = jacobian_asymmetry(Linear(M), x, 1.0, method="hutchinson", n_probes=4)
    assert abs(found.value - skew / whole) < 4 * found.std_error
    # 800 probes: the numerator alone has a relative deviation of about 0.22 for one
    assert found.std_error < 0.5 * 0.22 / np.sqrt(800) * 2
    again = jacobian_asymmetry(Linear(M), x, 1.0, method="hutchinson", n_probes=4)
    assert found == again


@pytest.mark.parametrize("steps, euler, heun", [(16, 65536, 35.5271), (1, None, None)])
def test_inflation_of_a_rotation(steps, euler, heun):
    # velocity -sigma^2 s of the flow in log sigma: a rotation by one radian per unit
    model, x = Linear(TURN), np.ones((3, 2))
    if euler:
        found = step_inflation(model, x, 1.0, 16.0 / steps)
        np.testing.assert_allclose(found.euler**steps, euler, rtol=1e-6)
        np.testing.assert_allclose(found.heun**steps, heun, rtol=1e-5)
    else:
        found = step_inflation(model, x, 1.0, 1.0 / 16)
        np.testing.assert_allclose(found.euler**16, 1.0644, rtol=1e-4)
        np.testing.assert_allclose(found.heun**16, 1.00006, rtol=1e-5)


def test_inflation_is_what_euler_steps_do():
    model, x = Linear(TURN), np.random.default_rng(0).standard_normal((50, 2))
    found = step_inflation(model, x, 1.0, 0.3)
    stepped = x - 0.3 * model.score(x, 1.0)
    np.testing.assert_allclose((stepped**2).sum(1) / (x**2).sum(1), found.euler, rtol=1e-8)


def test_noise_that_differs_by_column_makes_no_turns_and_no_gauges():
    """A change of the units of the columns changes neither, if the noise follows it."""
    scale = np.array([0.01, 100.0])
    x = MIXTURE.sample(20, 0.5, random_state=0)
    gauge = AdditiveGauge(MIXTURE, TURN)
    law, turned = AffineModel(MIXTURE, scale=scale), AffineModel(gauge, scale=scale)
    assert step_inflation(law, scale * x, 0.5, 0.3).turn.max() < 1e-12
    found = step_inflation(turned, scale * x, 0.5, 0.3).turn
    np.testing.assert_allclose(found, step_inflation(gauge, x, 0.5, 0.3).turn, rtol=1e-10)
    for method in ("exact", "hutchinson"):
        found, expected = (
            jacobian_asymmetry(model, scale * x / size, 0.5, method=method, n_probes=400).value
            for model, size in ((turned, 1.0), (gauge, scale))
        )
        assert found == pytest.approx(expected, abs=0.01 if method == "hutchinson" else 1e-10)
    for model in (turned, AdditiveGauge(law, TURN)):
        # beside terms of the order of the squared score
        size = (law.noise_scale**2 * law.score(scale * x, 0.5) ** 2).sum(axis=1)
        assert np.abs(strong_gauge_residual(model, law, scale * x, 0.5) / size).max() < 1e-9


def test_loop_integrals_are_the_curl_in_the_circle():
    x = np.random.default_rng(0).standard_normal((5, 2))
    found = loop_integrals(Linear(3 * TURN), x, 1.0, radius=0.5)
    # Stokes: (J_21 - J_12) times the area, in either sense
    np.testing.assert_allclose(np.abs(found), 6 * np.pi * 0.25, rtol=1e-12)
    assert np.abs(loop_integrals(MIXTURE, x, 0.5, radius=0.5)).max() < 1e-8
    line = GaussianModel([0.0], 1.0)
    assert not loop_integrals(line, x[:, :1], 1.0, radius=1.0).any()


def test_the_strong_residual_is_zero_for_gauges_alone():
    x = MIXTURE.sample(30, 0.5, random_state=0)
    gauge = strong_gauge_residual(AdditiveGauge(MIXTURE, TURN), MIXTURE, x, 0.5)
    assert np.abs(gauge).max() < 1e-12
    # r = s: div s + |s|^2 = Laplacian of p over p
    score = MIXTURE.score(x, 0.5)
    expected = MIXTURE.divergence(x, 0.5) + (score**2).sum(axis=1)
    doubled = strong_gauge_residual(_Doubled(MIXTURE), MIXTURE, x, 0.5)
    np.testing.assert_allclose(doubled, expected, atol=1e-6)


class _Doubled(BaseScoreModel):
    is_differentiable = False

    def __init__(self, model):
        self.model, self.n_features = model, model.n_features

    def _score(self, x, sigma):
        return 2 * self.model._score(x, sigma)


@pytest.mark.parametrize("level", [0.3, 1.0, 5.0])
def test_exact_scores_obey_the_heat_equation_and_gauges_do_not(level):
    x = MIXTURE.sample(20, level, random_state=0)
    size = np.abs(MIXTURE.score(x, level)).max() / level
    assert np.abs(score_fpe_residual(MIXTURE, x, level)).max() < 1e-4 * size  # (h/sigma)^2 = 1e-6
    turned = score_fpe_residual(AdditiveGauge(MIXTURE, TURN), x, level)
    assert np.abs(turned).max() > 0.1 * size


def test_the_report_puts_them_side_by_side():
    law = GaussianModel([0.0, 0.0], 1.0)
    X = law.sample(1500, random_state=0)
    report = conservativity_report(AdditiveGauge(law, 0.5 * TURN), X, 1.0)
    assert report.asymmetry.value == pytest.approx(0.2, abs=1e-12)
    assert report.gauge_fraction.value == pytest.approx(0.2, abs=0.01)
    assert report.turn == pytest.approx(0.25, rel=1e-6)  # q sigma^2/(1 + sigma^2)
    assert report.loop == pytest.approx(0.5 * np.pi * 0.25, rel=1e-6)  # q times the area
    assert "gauge fraction" in str(report)
    plain = conservativity_report(law, X, 1.0)
    assert plain.gauge_fraction.value == pytest.approx(0, abs=1e-6)
    assert plain.fpe < 1e-4


def test_columns_of_noise_of_their_own_change_no_diagnostic():
    # scales of volume one: a level in the units of the rows is the same level
    model, scale = AdditiveGauge(MIXTURE, TURN), np.array([0.02, 50.0])
    moved, law = (AffineModel(m, shift=[3.0, 1e3], scale=scale) for m in (model, MIXTURE))
    X, level = MIXTURE.sample(40, 0.5, random_state=0), 0.5
    rows = X * scale + [3.0, 1e3]
    plain = score_fpe_residual(model, X, level)
    # differences are of energies, which are rounded where rows are far from the origin
    np.testing.assert_allclose(score_fpe_residual(moved, rows, level) * scale, plain, atol=1e-6)
    size = np.abs(MIXTURE.score(X, level)).max() / level
    assert np.abs(score_fpe_residual(law, rows, level) * scale).max() < 1e-4 * size
    loops = [loop_integrals(m, x, level, radius=0.2) for m, x in ((model, X), (moved, rows))]
    np.testing.assert_allclose(*loops, rtol=1e-9)
    one, other = (conservativity_report(m, x, level) for m, x in ((model, X), (moved, rows)))
    for name in ("asymmetry", "turn", "loop", "fpe"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-6)


def test_bad_input_is_refused(rng):
    x = rng.standard_normal((3, 3))
    with pytest.raises(ValueError, match="2 columns"):
        jacobian_asymmetry(MIXTURE, x, 1.0)
    with pytest.raises(ValueError, match="bring X to other units"):
        step_inflation(MIXTURE, 1e160 * x[:, :2], 1.0, 0.1)
    with pytest.raises(ValueError, match="method must be"):
        jacobian_asymmetry(MIXTURE, x[:, :2], 1.0, method="probes")
    with pytest.raises(ValueError, match="sigma must be a finite number above 0"):
        score_fpe_residual(MIXTURE, x[:, :2], 0.0)
    with pytest.raises(ValueError, match="sigma must be a finite number"):  # not one per column
        step_inflation(MIXTURE, x[:, :2], [1.0, 2.0], 0.1)
    with pytest.raises(ValueError, match="radius"):
        loop_integrals(MIXTURE, x[:, :2], 1.0, radius=0.0)
