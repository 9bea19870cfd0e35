"""Reach, align, slide: an exact identity, and two laws of linear response."""

import numpy as np
import pytest

from skdiffusion import EmpiricalScore, GaussianScore, RidgeProjector
from skdiffusion.datasets import make_sphere, make_thirteen_points
from skdiffusion.inspection import ReachAlignSlideDisplay, reach_align_slide
from skdiffusion.inspection.reach_align_slide import HeldModel
from skdiffusion.models import AffineModel, BaseScoreModel, EmpiricalModel, as_score_model
from skdiffusion.samplers import BaseSampler, EulerSampler

LEVELS = np.geomspace(20, 0.005, 161)


@pytest.fixture(scope="module")
def thirteen():
    X, law = make_thirteen_points()
    return X, law, RidgeProjector(bandwidth=0.3).fit(X)


class NoiselessReverse(BaseSampler):
    """The mean of the reverse diffusion: kappa = 2 without noise."""

    def step(self, model, x, level, next_level, state, noise):
        rho = (next_level / level) ** 2
        return rho * x + (1 - rho) * model.denoise(x, level), None


@pytest.mark.parametrize("kappa, sampler", [(1.0, "euler"), (2.0, NoiselessReverse())])
def test_budget_identity(thirteen, kappa, sampler):
    _, law, ridge = thirteen
    found = reach_align_slide(
        law, ridge, sampler, n_samples=20, levels=LEVELS, kappa=kappa, random_state=0
    )
    assert found.identity_error < 1e-12
    assert found.weights.sum() + found.start_weight == pytest.approx(1, abs=1e-13)
    shares = (LEVELS[-1] / LEVELS) ** kappa
    np.testing.assert_allclose(found.weights, np.diff(shares), rtol=1e-12)
    assert found.start_weight == pytest.approx(shares[0], rel=1e-12)
    # these steps are exact for the denoiser: the solver adds nothing
    assert np.abs(found.solver_budget).max() < 1e-12


@pytest.mark.parametrize("sampler", ["ddpm", "heun", "adams", "edm"])
def test_budget_identity_of_any_sampler(thirteen, sampler):
    _, law, ridge = thirteen
    found = reach_align_slide(law, ridge, sampler, n_samples=20, levels=LEVELS, random_state=0)
    assert found.identity_error < 1e-12
    assert np.abs(found.solver_budget).max() > 1e-6


LINE = np.outer(np.linspace(-1, 1, 30), [1.0, 2.0, 2.0]) / 3
PLANE = LINE[::2, None] + np.outer(np.linspace(-1, 1, 12), [2.0, 1.0, -2.0]) / 3


@pytest.mark.parametrize("X, dimension", [(LINE, 1), (PLANE.reshape(-1, 3), 2)])
@pytest.mark.parametrize("kappa, sampler", [(1, "euler"), (2, NoiselessReverse())])
def test_distance_from_a_flat_set_shrinks_as_the_level(kappa, sampler, X, dimension, rng):
    law = EmpiricalModel(X)
    ridge = RidgeProjector(dimension, bandwidth=0.2).fit(X)
    levels = np.geomspace(10, 0.005, 60)
    start = 10 * rng.standard_normal((15, 3))
    found = reach_align_slide(law, ridge, sampler, levels=levels, start=start)
    # nothing pulls the normal offset but the noise level
    share, across = (levels[-1] / levels[0]) ** kappa, np.linalg.svd(X)[2][dimension:]
    offset = found.points @ across.T
    np.testing.assert_allclose(offset[-1], share * offset[0], rtol=1e-9, atol=1e-13)
    # points within 1e-6 of the level are on the ridge
    np.testing.assert_allclose(found.distance[-1], share * found.distance[0], rtol=1e-9, atol=2e-7)


class Injected(BaseScoreModel):
    """The held denoiser with a constant error across and along the ridge below a level."""

    n_features = 2

    def __init__(self, ridge, across=0.0, along=0.0, below=0.6):
        self.ridge, self.across, self.along, self.below = ridge, across, along, below
        self.held = HeldModel(ridge.model_, ridge.bandwidth_)

    def _denoise(self, x, sigma):
        denoised = self.held.denoise(x, sigma)
        if sigma > self.below:
            return denoised
        tangent, normal = oriented_frame(self.ridge, self.ridge.ridge_.project(x).points)
        return denoised + self.across * normal + self.along * tangent


def oriented_frame(ridge, points):
    tangent = ridge.tangent_basis(points)[:, :, 0]
    tangent = tangent * np.sign(tangent[:, :1])  # the curve is a graph over the first column
    return tangent, np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def run(ridge, sampler, **errors):
    return reach_align_slide(
        Injected(ridge, **errors), ridge, sampler, n_samples=40, levels=LEVELS, random_state=0
    )


def signed_offset(ridge, found):
    return (found.offset * oriented_frame(ridge, found.projections[-1])[1]).sum(1)


@pytest.mark.parametrize("kappa, sampler", [(1, "euler"), (2, "ddpm")])
def test_normal_errors_saturate_and_tangential_ones_add_up(thirteen, kappa, sampler):
    _, _, ridge = thirteen
    clean = run(ridge, sampler)
    a = 0.04
    # J at the ridge: about .06 across, .94 along; the same for every point of this set
    ratios = np.median(ridge.diagnostics(clean.points[-1]).ratios, axis=0)
    span = np.log(0.6 / LEVELS[-1])

    across = run(ridge, sampler, across=a)
    left = 1 - ratios[1]
    law = a / left * (1 - np.exp(-kappa * left * span))
    change = np.median(signed_offset(ridge, across) - signed_offset(ridge, clean))
    assert change == pytest.approx(law, rel=0.03)
    predicted = np.linalg.norm(across.predicted_offset, axis=1)
    assert np.median(predicted) == pytest.approx(abs(change), rel=0.03)
    arc = [ridge.arc_coordinates(r.points[-1]) for r in (clean, across)]
    # of the reverse diffusion, whose noise is not the same for both: .02
    assert abs(np.median(arc[1] - arc[0])) < (0.01 if kappa == 1 else 0.07) * a

    along = run(ridge, sampler, along=a)
    left = 1 - ratios[0]
    law = a / left * (1 - np.exp(-kappa * left * span))
    slid = np.median(ridge.arc_coordinates(along.points[-1]) - arc[0])
    assert abs(slid) == pytest.approx(law, rel=0.2)
    assert slid > 0
    change = np.median(signed_offset(ridge, along) - signed_offset(ridge, clean))
    assert abs(change) < 1e-2 * a


class Shifted(BaseScoreModel):
    """A model with a constant error."""

    def __init__(self, model, error):
        self.model, self.error, self.n_features = model, error, len(error)

    def _denoise(self, x, sigma):
        return self.model.denoise(x, sigma) + self.error


@pytest.mark.parametrize("hold", [True, False])
def test_parts_of_a_constant_error_on_a_gaussian(hold, rng):
    X = rng.standard_normal((500, 3)) * [3.0, 0.5, 0.2]
    ridge = RidgeProjector(1, score_estimator=GaussianScore(), sigma=0.6).fit(X)
    known = HeldModel(ridge.model_, 0.6) if hold else ridge.model_
    error = np.array([0.1, -0.2, 0.3])
    levels = np.geomspace(0.6, 0.01, 40)
    start = X[:10] + 0.6 * rng.standard_normal((10, 3))
    ends, errors = {}, {}
    for part in ("all", "normal", "tangential", "none"):
        found = reach_align_slide(
            Shifted(known, error), ridge, levels=levels, start=start, hold=hold, errors=part
        )
        ends[part], errors[part] = found.points[-1], (found.normal_error, found.tangential_error)
    # along each axis: delta <- (rho + (1 - rho) r) delta + (1 - rho) error
    values, axes = np.linalg.eigh(ridge.model_.covariance.to_matrix())
    expected = np.zeros(3)
    for rho, sigma in zip(levels[1:] / levels[:-1], levels[:-1], strict=True):
        ratios = values / (values + max(sigma, 0.6 * hold) ** 2)
        expected = (rho + (1 - rho) * ratios) * expected + (1 - rho) * (axes.T @ error)
    for part, kept in (("all", [1, 1, 1]), ("normal", [1, 1, 0]), ("tangential", [0, 0, 1])):
        moved = axes @ (kept * expected)
        np.testing.assert_allclose(
            ends[part] - ends["none"], np.tile(moved, (10, 1)), rtol=0, atol=1e-10
        )
    assert np.abs(errors["normal"][1]).max() < 1e-12 < errors["normal"][0].min()
    assert np.abs(errors["tangential"][0]).max() < 1e-12 < errors["tangential"][1].min()
    assert np.abs(errors["none"]).max() == 0


def test_slide_is_the_sum_of_its_parts(thirteen):
    _, _, ridge = thirteen
    found = run(ridge, "euler", along=0.08)
    parts = found.slide_of_reference + found.slide_of_error + found.slide_of_solver
    # first order in the offset times the curvature of the ridge
    assert np.median(np.abs(found.slide - parts)) < 0.1 * np.median(np.abs(found.slide))


def test_exact_score_memorises_and_passes_the_stages_in_order(thirteen):
    X, law, ridge = thirteen
    found = reach_align_slide(law, ridge, levels=LEVELS, n_samples=60, random_state=0)
    # the samples are the points, up to what is left of the noise
    nearest = np.linalg.norm(found.points[-1][:, None] - X, axis=2).min(axis=1)
    assert np.median(nearest) < 2 * LEVELS[-1]
    assert (found.distance[-1] < found.tube).all()
    edges = [level for stage in found.stages.values() for level in stage]
    assert edges == sorted(edges, reverse=True)
    assert found.stages["reach"][0] == 20 and found.stages["slide"][1] == 0.005
    # the noise sets the distance: in proportion to the level
    middle = np.nanmedian(found.distance, axis=1)
    slope = np.polyfit(np.log(LEVELS[:80]), np.log(middle[:80]), 1)[0]
    assert slope == pytest.approx(1, abs=0.05)
    assert "align: sigma" in str(found)


def test_exact_score_has_no_training_error(thirteen):
    _, law, ridge = thirteen
    found = reach_align_slide(law, ridge, n_samples=20, hold=False, random_state=0)
    assert np.abs(found.normal_budget).max() == np.abs(found.tangential_budget).max() == 0
    assert found.identity_error < 1e-12
    # its deviation from the smoothed law is what memorises
    assert np.abs(reach_align_slide(law, ridge, n_samples=20).tangential_budget).max() > 0.01


def test_smoothed_score_is_off_the_ridge_by_its_normal_budget(thirteen):
    X, _, ridge = thirteen
    est = EmpiricalScore(0.1, smoothing=0.4, scaling="none", random_state=0).fit(X)
    found = reach_align_slide(est, ridge, n_samples=100, random_state=0)
    assert found.correlations["normal"] > 0.95
    assert abs(found.correlations["tangential"]) < 0.3
    length = np.linalg.norm(found.predicted_offset, axis=1)
    assert np.corrcoef(length, found.distance[-1])[0, 1] > 0.95


def test_rows_as_reference_and_more_columns():
    X, _ = make_sphere(200, 1, n_features=5, noise=0.05, random_state=0)
    est = EmpiricalScore().fit(X)
    found = reach_align_slide(est, X, n_samples=30, random_state=0)
    assert found.normal_budget.shape == (30, 5) and found.along.shape == (100, 30, 1)
    assert found.identity_error < 1e-10


def test_same_seed_same_record(thirteen):
    _, law, ridge = thirteen
    a, b = (reach_align_slide(law, ridge, "ddpm", n_samples=10, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.along, b.along)


def test_refusals(thirteen):
    X, law, ridge = thirteen
    with pytest.raises(ValueError, match="directions along and across"):
        reach_align_slide(law, RidgeProjector(0, bandwidth=0.3).fit(X))
    with pytest.raises(ValueError, match="metric='euclidean'"):
        reach_align_slide(law, RidgeProjector(metric="haversine", bandwidth=6.0).fit(20 * X))
    for levels in ([1.0, 2.0], "many", [np.nan, 1.0], [np.inf, 1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="levels must be at least two noise levels, falling"):
            reach_align_slide(law, ridge, levels=levels)
    with pytest.raises(ValueError, match="hold must be True or False"):
        reach_align_slide(law, ridge, hold=0.3)
    with pytest.raises(ValueError, match="teleport=False"):
        reach_align_slide(law, ridge, EulerSampler(teleport=2.0))
    with pytest.raises(ValueError, match="levels of its own"):
        reach_align_slide(law, ridge, "dmcmc", n_samples=5)
    with pytest.raises(ValueError, match="start must have 2 columns; got 3"):
        reach_align_slide(law, ridge, start=np.ones((4, 3)))
    with pytest.raises(ValueError, match="start holds words"):
        reach_align_slide(law, ridge, start=[["a", "b"], ["c", "d"]])
    with pytest.raises(ValueError, match="errors"):
        reach_align_slide(law, ridge, errors="across")
    uneven = AffineModel(law, scale=[1.0, 3.0])
    with pytest.raises(ValueError, match="the noise of the model differs by column"):
        reach_align_slide(uneven, ridge)
    other = as_score_model(lambda x, s: x, prediction="data", n_features=3)
    with pytest.raises(ValueError, match="the model has 3 columns, the ridge 2"):
        reach_align_slide(other, ridge)


def test_display(thirteen):
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    _, law, ridge = thirteen
    _, axes = plt.subplots(1, 2)
    display = ReachAlignSlideDisplay.from_estimator(
        law, ridge, ax=axes, n_samples=20, random_state=0
    )
    assert display.axes_ == tuple(axes)
    names = [text.get_text() for text in axes[1].texts]
    assert names == ["reach", "align", "slide"]
    few = display.plot(n_paths=15).axes_[0].lines  # every other of twenty, in its stages
    starts = {tuple(line.get_xydata()[0]) for line in few}
    paths = display.report.points.transpose(1, 0, 2)
    assert sum(tuple(path[0]) in starts for path in paths) == 10
    with pytest.raises(ValueError, match="n_paths must be an integer of at least 1"):
        display.plot(n_paths=0)
    plt.close("all")
