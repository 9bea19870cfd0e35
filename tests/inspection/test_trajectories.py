"""Trajectories of Gaussians, whose geometry and order of features are closed forms."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

from skdiffusion import GaussianScore, GMMScore
from skdiffusion.datasets import make_gaussian, make_gaussian_mixture
from skdiffusion.inspection import feature_emergence, trajectory_geometry
from skdiffusion.models import EmpiricalModel, GaussianModel, SpectralCovariance
from skdiffusion.samplers import EulerSampler, HeunSampler, run_sampler

LEVELS = np.append(np.geomspace(80.0, 0.002, 60), 0.0)


def _paths(model, codes):
    return np.stack([model.from_latent(codes, level) for level in LEVELS])


def test_two_variances_never_leave_the_plane(rng):
    model = GaussianModel(np.ones(6), [4.0, 4.0, 4.0, 0.25, 0.25, 0.25])
    found = trajectory_geometry(
        _paths(model, rng.standard_normal((20, 6))), LEVELS, far_field=model
    )
    # lengths are known to 1e-15, squares of what is left over to less
    assert found.out_of_plane.max() < 1e-14 and found.predicted_out_of_plane.max() < 1e-14
    assert found.planarity.min() > 1 - 1e-12
    three = GaussianModel(np.zeros(3), [4.0, 1.0, 0.05])
    paths = _paths(three, rng.standard_normal((20, 3)))
    assert trajectory_geometry(paths, LEVELS, far_field=three).out_of_plane.max() > 1e-4


@pytest.mark.parametrize(
    "spectrum", [[16.0, 4.0, 1.0, 0.25], [9.0, 1.0, 0.1], [4.0, 1.0, 1.0, 0.1]]
)
def test_the_share_out_of_the_plane_is_that_of_a_gaussians_paths(spectrum, rng):
    model = GaussianModel(np.zeros(len(spectrum)), spectrum)
    paths = _paths(model, rng.standard_normal((4000, len(spectrum))))
    found = trajectory_geometry(paths, LEVELS, far_field=model)
    # two means over 4000 paths whose shares differ by as much as their mean: 2% each
    worst = found.out_of_plane.max(), found.predicted_out_of_plane.max()
    assert worst[1] == pytest.approx(worst[0], rel=0.1)


def test_rotation_residual_is_the_closed_form():
    # codes along the axes: sums over paths are sums over modes
    variances = np.array([4.0, 1.0, 0.25])
    model = GaussianModel([1.0, 2.0, 3.0], variances)
    found = trajectory_geometry(_paths(model, np.eye(3)), LEVELS, far_field=model, unit=1.0)
    alpha, beta = 1 / np.hypot(1, LEVELS), LEVELS / np.hypot(1, LEVELS)
    size = np.sqrt(beta[:, None] ** 2 + variances * alpha[:, None] ** 2)
    off = size - alpha[:, None] * np.sqrt(variances) - beta[:, None]
    expected = (off**2).sum(1) / (size**2).sum(1)
    # the closed form starts at infinite noise, the paths at 80: their ends differ by 3/80^2
    np.testing.assert_allclose(found.rotation_residual, expected, atol=1e-3)
    np.testing.assert_allclose(
        found.rotation_residual, found.predicted_rotation_residual, rtol=1e-10, atol=1e-14
    )
    assert expected.max() > 0.05


def test_the_plane_holds_the_ends(rng):
    model = GaussianModel(np.zeros(5), [4.0, 2.0, 1.0, 0.5, 0.1])
    paths = _paths(model, rng.standard_normal((10, 5)))
    found = trajectory_geometry(paths, LEVELS, far_field=model)
    assert found.unit == pytest.approx(np.sqrt(7.6 / 5))
    assert found.out_of_plane[[0, -1]].max() < 1e-14
    np.testing.assert_allclose(found.plane[0, :, 1], 0, atol=1e-14)
    assert not found.angle[0].any() or found.angle[0].max() < 1e-7
    ends = [paths[0] / np.linalg.norm(paths[0], axis=1)[:, None], paths[-1]]
    cosine = (ends[0] * ends[1]).sum(1) / np.linalg.norm(ends[1], axis=1)
    np.testing.assert_allclose(np.cos(found.angle[-1]), cosine, rtol=1e-10)
    np.testing.assert_allclose(found.principal_fractions.sum(1), 1)


def test_the_geometry_knows_no_place_and_no_unit(rng):
    model = GaussianModel(np.zeros(3), [4.0, 1.0, 0.25])
    paths = _paths(model, rng.standard_normal((10, 3)))
    moved = GaussianModel(5 * np.ones(3), [400.0, 100.0, 25.0])
    here = trajectory_geometry(paths, LEVELS, far_field=model)
    there = trajectory_geometry(10 * paths + 5, 10 * LEVELS, far_field=moved)
    for name in ("plane", "out_of_plane", "rotation_residual", "principal_fractions"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), atol=1e-12)


def test_low_rank_and_full_spectra_predict_alike():
    axes = np.eye(4)[:, :1]
    low = GaussianModel(np.zeros(4), SpectralCovariance([4.0], axes, residual=0.5))
    full = GaussianModel(np.zeros(4), [4.0, 0.5, 0.5, 0.5])
    paths = _paths(full, np.random.default_rng(0).standard_normal((8, 4)))
    a, b = (trajectory_geometry(paths, LEVELS, far_field=law) for law in (low, full))
    np.testing.assert_allclose(a.predicted_rotation_residual, b.predicted_rotation_residual)
    # means over other draws; two variances never leave the plane, and three do
    assert max(a.predicted_out_of_plane.max(), b.predicted_out_of_plane.max()) < 1e-14


def test_an_estimators_own_trajectories():
    X, _ = make_gaussian(400, 6, spectrum=[9.0, 4.0, 1.0, 0.5, 0.2, 0.1], random_state=0)
    est = GaussianScore().fit(X)
    drawn = trajectory_geometry(est, n_samples=2000, n_steps=40)
    assert drawn.levels.shape == (41,) and drawn.plane.shape == (41, 2000, 2)
    # sums of squares of 2000 normal codes scatter by three percent
    np.testing.assert_allclose(
        drawn.rotation_residual[:-1], drawn.predicted_rotation_residual[:-1], rtol=0.1, atol=1e-9
    )
    assert "best plane" in str(drawn)
    repeated = trajectory_geometry(est, n_samples=2000, n_steps=40)
    np.testing.assert_array_equal(repeated.plane, drawn.plane)


def test_moments_of_the_end_points_stand_in(rng):
    model = GaussianModel([7.0, 1.0, 0.0], [4.0, 1.0, 0.25])
    paths = _paths(model, rng.standard_normal((4000, 3)))
    given = trajectory_geometry(paths, LEVELS)
    # their covariance is known to two percent
    assert given.unit == pytest.approx(np.sqrt(5.25 / 3), rel=0.05)
    with pytest.raises(ValueError, match="one path has no moments"):
        trajectory_geometry(paths[:, :1], LEVELS)


def test_models_of_laws_and_frozen_estimators():
    _, law = make_gaussian_mixture(2, random_state=0)
    of_law = trajectory_geometry(law, n_samples=20, n_steps=30)
    assert of_law.plane.shape == (31, 20, 2) and of_law.planarity.min() > 0.9
    given = trajectory_geometry(law, LEVELS[5:], far_field=law.gaussian(), n_samples=20)
    np.testing.assert_array_equal(given.levels, LEVELS[5:])
    frozen = feature_emergence(FrozenEstimator(FITTED), n_samples=20)
    np.testing.assert_array_equal(frozen.observed, feature_emergence(FITTED, n_samples=20).observed)
    with pytest.raises(ValueError, match="does not know its own moments"):
        trajectory_geometry(EmpiricalModel(np.eye(2)))
    with pytest.raises(ValueError, match="a law without variance has no noise levels"):
        trajectory_geometry(GaussianModel([0.0, 0.0], 0.0))


# ---------------------------------------------------------------------- order of features


def test_half_an_axis_has_emerged_at_the_root_of_three_variances(rng):
    variances = 10.0 * np.arange(1, 13) ** -2.0
    model = GaussianModel(np.zeros(12), variances)
    found = feature_emergence(_paths(model, rng.standard_normal((50, 12))), LEVELS, far_field=model)
    np.testing.assert_allclose(found.predicted, np.sqrt(3 * variances), rtol=1e-12)
    # denoised points are read off steps of a fifth in the level: the middle is off by its square
    np.testing.assert_allclose(found.observed, found.predicted, rtol=0.02)
    assert found.rank_correlation == 1.0
    slope = np.polyfit(np.log(np.arange(1, 13)), np.log(found.observed), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.01)  # a power law of exponent 2
    for rho, factor in ((1, 1 / 2), (7, 13 / 8), (np.inf, 2)):
        np.testing.assert_allclose(found.critical_levels(rho), np.sqrt(factor * variances))


def test_growth_of_an_axis_is_the_closed_form():
    X, _ = make_gaussian(300, 3, spectrum=[9.0, 1.0, 0.25], random_state=0)
    found = feature_emergence(GaussianScore().fit(X), n_samples=10, sampler="flow")
    # sizes are relative to that at the last level, which a Gaussian has not quite reached
    last = found.predicted_amplitude[-1]
    assert last.min() > 0.999
    np.testing.assert_allclose(found.amplitude, found.predicted_amplitude / last, rtol=1e-10)
    assert found.fraction == 0.5 and found.n_paths == 10
    widest = feature_emergence(GaussianScore().fit(X), n_samples=10, n_axes=2)
    np.testing.assert_array_equal(widest.variances, found.variances[:2])
    early = feature_emergence(GaussianScore().fit(X), n_samples=10, fraction=0.1)
    assert (early.observed > found.observed).all()


def test_denoised_points_are_read_off_euler_steps_exactly():
    X, law = make_gaussian_mixture(50, random_state=0)
    start = X + LEVELS[0] * np.random.default_rng(0).standard_normal(X.shape)
    _, paths = run_sampler(EulerSampler(), law, start, LEVELS, return_trajectory=True)
    from skdiffusion.inspection._paths import Paths

    read, levels = Paths(paths, LEVELS, law.gaussian()).denoised()
    asked, _ = Paths(paths, LEVELS, law.gaussian(), law).denoised()
    np.testing.assert_allclose(read, asked, atol=1e-10)
    np.testing.assert_allclose(levels[:-1], np.sqrt(LEVELS[:-2] * LEVELS[1:-1]))
    assert levels[-1] == LEVELS[-2]


def test_a_mixture_keeps_the_order():
    X, _ = make_gaussian(500, 5, spectrum=[16.0, 4.0, 1.0, 0.3, 0.1], random_state=0)
    found = feature_emergence(GMMScore(4, random_state=0).fit(X))
    assert found.rank_correlation > 0.85
    assert "rank correlation" in str(found)


FITTED = GaussianScore().fit(make_gaussian(20, 2, random_state=0)[0])
PLAIN = _paths(GaussianModel(np.zeros(2), [1.0, 0.5]), np.eye(2))


@pytest.mark.parametrize("look", [trajectory_geometry, feature_emergence])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"source": PLAIN[:, 0]}, "a trajectory of shape"),
        ({"source": "paths"}, "a trajectory of shape .*; got str"),
        ({"source": GMMScore}, "a trajectory of shape .*; got type"),
        ({"source": PLAIN, "levels": None}, "the 61 falling noise levels"),
        ({"source": PLAIN, "levels": LEVELS[::-1]}, "falling noise levels"),
        ({"source": np.full_like(PLAIN, np.inf)}, "must be finite"),
        ({"far_field": GaussianModel([0.0], 1.0)}, "a GaussianModel of 2 columns"),
        ({"source": FITTED}, "give neither"),
    ],
)
def test_what_cannot_be_looked_at(look, arguments, message):
    arguments = {"source": PLAIN, "levels": LEVELS} | arguments
    with pytest.raises(ValueError, match=message):
        look(**arguments)


@pytest.mark.parametrize("levels", [[0.1, 1.0], [1.0], [2.0, 1.0, 1.0], [1.0, np.nan], ["a"], 3.0])
def test_levels_of_a_model_fall(levels):
    with pytest.raises(ValueError, match="at least two falling noise levels, the last at least"):
        trajectory_geometry(GaussianModel(np.zeros(2), [1.0, 0.5]), levels)


def test_a_gaussian_knows_its_own_moments():
    law = GaussianModel(np.zeros(2), [1.0, 0.5])
    found = trajectory_geometry(law, n_samples=5, sampler="flow")
    # two variances: no path leaves the plane of its ends
    assert found.out_of_plane.max() < 1e-12


@pytest.mark.parametrize("sampler", ["ddpm", HeunSampler(teleport="auto")])
def test_only_plain_flows_are_looked_at(sampler):
    with pytest.raises(ValueError, match="neither draw noise nor teleport"):
        trajectory_geometry(FITTED, sampler=sampler)


@pytest.mark.parametrize("unit", ["metre", 0, [1.0]])
def test_a_unit_is_a_number(unit):
    with pytest.raises(ValueError, match="unit must be a finite number above 0"):
        trajectory_geometry(PLAIN, LEVELS, unit=unit)


def test_no_order_of_equal_variances():
    with pytest.raises(ValueError, match="1 different variances emerge"):
        feature_emergence(PLAIN, LEVELS, far_field=GaussianModel([0.0, 0.0], 1.0))
