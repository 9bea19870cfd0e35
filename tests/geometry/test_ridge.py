"""RidgeProjector against ridges that are known in closed form."""

import pickle
import warnings

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ive
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import (
    ConservativityDecomposer,
    EmpiricalScore,
    GaussianScore,
    GMMScore,
    IntrinsicDimensionEstimator,
    MarginalEnergy,
)
from skdiffusion.datasets import make_ring, make_sphere, make_swiss_roll, make_thirteen_points
from skdiffusion.geometry import RidgeProjector
from skdiffusion.models import EmpiricalModel, SphereModel


class Fixed:
    """A known score model where an estimator is expected."""

    def __new__(cls, model):
        est = GaussianScore()
        est.model_ = model
        return FrozenEstimator(est)


@pytest.mark.foreign_state
@parametrize_with_checks(
    [
        RidgeProjector(),
        RidgeProjector("auto", bandwidth="knn"),
        RidgeProjector(score_estimator=GaussianScore()),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# ------------------------------------------------------------------ closed forms


def gaussian(rng, d=5):
    axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
    variances = np.array([9.0, 4.0, 1.0, 0.25, 0.04])[:d]
    mean = rng.standard_normal(d)
    est = GaussianScore.from_parameters(mean=mean, covariance=(axes * variances) @ axes.T)
    return FrozenEstimator(est), mean, axes, variances


@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_a_gaussian_is_projected_orthogonally_in_one_step(rng, k):
    est, mean, axes, _ = gaussian(rng)
    X = 3 * rng.standard_normal((40, 5))
    # within the trust radius of a large level
    ridge = RidgeProjector(k, score_estimator=est, sigma=30.0, gap_tol=0.0).fit(X)
    found = ridge.diagnostics(X)
    expected = mean + (X - mean) @ axes[:, :k] @ axes[:, :k].T
    np.testing.assert_allclose(found.points, expected, atol=1e-12)
    assert (found.n_iter == 1).all() and found.on_ridge.all()


def test_plain_mean_shift_contracts_a_gaussian_by_its_ratio(rng):
    est, mean, axes, variances = gaussian(rng, 4)
    sigma = 0.7
    for k, printed in ((2, 0.67114), (3, 0.33784)):
        rate = variances[k] / (variances[k] + sigma**2)
        assert rate == pytest.approx(printed, abs=5e-6)
        x = mean + 1e-3 * axes[:, k]
        for steps in (1, 3):
            ridge = RidgeProjector(
                1, score_estimator=est, sigma=sigma, solver="scms", max_iter=steps, tol=1e-12
            ).fit(rng.standard_normal((20, 4)))
            with pytest.warns(UserWarning, match="1 of 1 rows"):
                y = ridge.transform(x[None])[0]
            assert (y - mean) @ axes[:, k] == pytest.approx(1e-3 * rate**steps, rel=1e-9)


def ring_radius(sigma):
    """Of the ridge of the uniform law on the unit circle: r = I1(r/s^2) / I0(r/s^2)."""
    return brentq(lambda r: r - ive(1, r / sigma**2) / ive(0, r / sigma**2), 1e-3, 1)


PUBLISHED_RADII = {
    0.15: 0.988553451114,
    0.2: 0.979360888562,
    0.3: 0.951460229008,
    0.4: 0.906869734555,
    0.5: 0.831462024754,
    0.6: 0.677303072114,
    0.65: 0.527683089211,
    0.7: 0.198664472015,
}


@pytest.mark.parametrize("sigma", PUBLISHED_RADII)
def test_ring_of_points_has_the_radius_of_the_bessel_ratio(rng, sigma):
    assert ring_radius(sigma) == pytest.approx(PUBLISHED_RADII[sigma], abs=1e-11)
    angle = 2 * np.pi * np.arange(64) / 64
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ridge = RidgeProjector(bandwidth=sigma, tol=1e-10).fit(points)
    starts = 0.4 * rng.standard_normal((200, 2)) + 0.1
    found = ridge.diagnostics(starts)
    # a start beside the centre, where all directions are alike, may be refused at high levels
    assert (~found.on_ridge).sum() <= (sigma > 0.6)
    # 64 points differ from the uniform law by 2e-9 here
    radius = np.linalg.norm(found.points[found.on_ridge], axis=1)
    np.testing.assert_allclose(radius, ring_radius(sigma), atol=1e-8)


def test_a_ring_that_is_smoothed_away_is_refused():
    angle = 2 * np.pi * np.arange(64) / 64
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # beyond sigma = 1/sqrt(2) there is one mode at the centre; what converges is no ridge
    ridge = RidgeProjector(bandwidth=0.8).fit(points)
    found = ridge.diagnostics(0.5 * points)
    assert not found.on_ridge.any()


@pytest.mark.parametrize(
    "d, sigma, radius",
    [(3, 0.1, 0.989897948557), (3, 0.2, 0.958257569496), (3, 0.3, 0.900000004638),
     (3, 0.4, 0.800120883074), (3, 0.5, 0.599839320129), (3, 0.55, 0.382275462429),
     (5, 0.15, 0.953369437003), (10, 0.15, 0.891569325556), (20, 0.15, 0.752450506315)],
)  # fmt: skip
def test_sphere_has_the_radius_of_the_bessel_ratio(rng, d, sigma, radius):
    est = Fixed(SphereModel(d))
    X = rng.standard_normal((50, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    ridge = RidgeProjector(d - 1, score_estimator=est, sigma=sigma, tol=1e-10).fit(X)
    found = ridge.diagnostics(X * rng.uniform(0.6, 1.3, (50, 1)))
    assert found.on_ridge.all()
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=1), radius, atol=1e-9)


def two_points(t):
    """Half distance and level of the two-point law at time t of the OU process."""
    return 3.0, np.sqrt(np.expm1(2 * t))


def test_two_points_have_the_gap_of_the_formula():
    c, sigma = two_points(0.5)
    model = EmpiricalModel([[-c, 0.0], [c, 0.0]])
    ridge = RidgeProjector(score_estimator=Fixed(model), sigma=sigma)
    ridge.fit([[0.0, 0.2], [0.5, 0.3], [0.3, 0.1]])
    x = np.array([[0.0, 0.3], [0.5, -0.2], [1.0, 0.5]])
    found = ridge.diagnostics(x)
    np.testing.assert_allclose(found.points, x * [1, 0], atol=1e-12)
    gap = (c / sigma) ** 2 / np.cosh(c * x[:, 0] / sigma**2) ** 2
    np.testing.assert_allclose(found.gap, gap, rtol=1e-9)
    np.testing.assert_allclose(gap[:2] / sigma**2, [3.048, 1.542], atol=5e-4)
    assert found.ratios[0, 0] == pytest.approx((c / sigma) ** 2, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.95, 0.99, 1.01, 1.05])
def test_two_modes_merge_at_half_their_distance(sigma):
    ridge = RidgeProjector(0, score_estimator=Fixed(EmpiricalModel([[-1.0], [1.0]])), sigma=sigma)
    ridge.fit([[0.0], [0.3], [-0.3]])
    found = ridge.diagnostics([[0.0], [0.5], [-0.5]])
    assert found.ratios[0, 0] == pytest.approx(sigma**-2, rel=1e-12)
    # modes are fixed points of the denoiser, x = tanh(x / s^2); one is left at zero from s = 1 on
    mode = brentq(lambda x: x - np.tanh(x / sigma**2), 0.05, 1) if sigma < 1 else 0.0
    assert found.on_ridge.tolist() == [sigma > 1, True, True]
    # steps end at 1e-6 of the level, over a curvature of 0.02 at 0.99 and 1.01
    np.testing.assert_allclose(found.points[1:, 0], [mode, -mode], atol=1e-4)


@pytest.mark.parametrize("t", [0.05, 0.3, 1.0])
def test_the_ridge_of_an_ornstein_uhlenbeck_process_is_ours_in_its_own_coordinates(rng, t):
    """x_t = a x_0 + sqrt(h) z has the ridge a R_sigma, and h |E E' grad log p_t| = a |normal u|."""
    X = rng.standard_normal((60, 3)) * [2.0, 0.5, 0.3]
    a, h = np.exp(-t), -np.expm1(-2 * t)
    ridge = RidgeProjector(bandwidth=np.sqrt(np.expm1(2 * t)), tol=1e-10, gap_tol=0.0).fit(X)

    def process(x):
        """Score of one point, and the directions of its most negative curvatures."""
        away = x - a * X
        weight = np.exp(-((away**2).sum(axis=1) - (away**2).sum(axis=1).min()) / (2 * h))
        weight /= weight.sum()
        score = -weight @ away / h
        hessian = (weight * away.T) @ away / h**2 - np.eye(3) / h - np.outer(score, score)
        return score, np.linalg.eigh(hessian)[1][:, :2]

    Y = X[:10] + 0.2 * rng.standard_normal((10, 3))
    shift = ridge.model_.denoise(Y, ridge.bandwidth_) - Y
    normal = np.linalg.norm(ridge.decompose(Y, shift)[1], axis=1)
    for y, length in zip(Y, normal, strict=True):
        score, across = process(a * y)
        np.testing.assert_allclose(h * np.linalg.norm(across.T @ score), a * length, rtol=1e-9)
    found = ridge.diagnostics(Y)
    assert found.converged.any()
    for y in found.points[found.converged]:
        score, across = process(a * y)
        # arrived to 1e-10 of the level; rounding of the weights is the rest
        assert h * np.linalg.norm(across.T @ score) < 1e-9


def test_warnings_point_at_the_line_of_the_user_through_scikit_learn_too():
    X = make_ring(100, noise=0.1, random_state=0)[0]
    for est in (RidgeProjector(), make_pipeline(RidgeProjector())):
        with pytest.warns(UserWarning, match="1 of 1 rows") as told:
            est.fit(X).transform([[1e6, 0.0]])
        assert told[0].filename == __file__


def test_two_points_far_below_their_distance_are_flagged_not_projected():
    c, sigma = two_points(0.1)
    model = EmpiricalModel([[-c, 0.0], [c, 0.0]])
    ridge = RidgeProjector(score_estimator=Fixed(model), sigma=sigma, gap_tol=1e-3)
    ridge.fit([[0.0, 0.1], [0.01, 0.1], [0.0, -0.1]])
    x = np.array([[0.0, 0.1], [0.5, 0.2], [3.0, 0.2], [-3.0, -0.2]])
    found = ridge.diagnostics(x)
    # at the points it is 4e-33, a difference of numbers of order one
    gap = [183.6, 9.578e-4, 0, 0]
    np.testing.assert_allclose(found.gap / sigma**2, gap, rtol=1e-4, atol=1e-12)
    assert found.defined.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(found.points[1:], x[1:])
    with pytest.warns(UserWarning, match="3 of 4 rows are not on the ridge"):
        ridge.transform(x)
    with pytest.warns(UserWarning, match="3 of 4 rows"):
        assert np.isinf(ridge.normal_distance(x)[1:]).all()


@pytest.mark.parametrize(
    "ratio, at_point, between",
    [(0.3, 0.08525, 2.77811), (0.4, 0.505016, 1.586584), (0.5, 0.860051, 1.144034),
     (0.6, 0.976728, 1.023348), (0.8, 0.999835, 1.000165)],
)  # fmt: skip
def test_ratios_along_a_lattice(ratio, at_point, between):
    points = np.stack([np.arange(-20.0, 21), np.zeros(41)], axis=1)
    ridge = RidgeProjector(bandwidth=ratio).fit(points)
    found = ridge.diagnostics([[0.0, 0.1], [0.5, 0.1]])
    np.testing.assert_allclose(found.ratios[:, 0], [at_point, between], atol=6e-6)


def test_refuses_a_level_without_a_gap_and_names_one_that_would_do():
    points = np.stack([np.arange(-20.0, 21), np.zeros(41)], axis=1)
    with pytest.raises(ValueError, match=r"undefined at 100% of the rows.*level (\S+) would") as e:
        RidgeProjector(bandwidth=0.2).fit(points)
    level = float(str(e.value).split("level ")[-1].split(" ")[0])
    # the gap at a point is 2/s^2 exp(-1/2s^2): 1e-3 at 1/4.5 of the spacing, up to the 10% step
    assert 1 / 4.6 < level < 1.2 / 4.4
    RidgeProjector(bandwidth=level).fit(points)
    # a rule is raised to such a level instead
    assert RidgeProjector(bandwidth="knn", bandwidth_scale=1e-3).fit(points).bandwidth_ > 1 / 4.6


def test_refuses_a_flat_spectrum():
    est = FrozenEstimator(GaussianScore.from_parameters([0.0, 0.0, 0.0], 1.0))
    X = np.random.default_rng(0).standard_normal((30, 3))
    with pytest.raises(ValueError, match="spectrum is flat"):
        RidgeProjector(score_estimator=est, sigma=0.5).fit(X)


# ------------------------------------------------------------------ invariances


def sine(rng, n=300):
    u = rng.uniform(-2, 2, n)
    return np.stack([u, np.sin(2 * u)], axis=1) + 0.1 * rng.standard_normal((n, 2))


def test_follows_rotation_shift_and_units(rng):
    X = sine(rng)
    turn = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    base = RidgeProjector().fit(X)
    moved = RidgeProjector().fit(7 * X @ turn + [100.0, -3.0])
    assert moved.bandwidth_ == pytest.approx(7 * base.bandwidth_, rel=1e-3)
    moved = RidgeProjector(bandwidth=7 * base.bandwidth_).fit(7 * X @ turn + [100.0, -3.0])
    expected = 7 * base.transform(X) @ turn + [100.0, -3.0]
    # two runs that stop at 1e-6 of the level
    got = moved.transform(7 * X @ turn + [100.0, -3.0])
    np.testing.assert_allclose(got, expected, atol=7e-6)
    mixed = RidgeProjector(bandwidth=base.bandwidth_).fit(rng.permutation(X))
    np.testing.assert_allclose(mixed.transform(X), base.transform(X), atol=1e-6)


def test_a_copy_is_a_weight_of_two(rng):
    X = sine(rng)
    weights = np.arange(len(X)) % 3
    weighted = RidgeProjector(bandwidth=0.2).fit(X, sample_weight=weights)
    repeated = RidgeProjector(bandwidth=0.2).fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), atol=1e-9)


def test_projecting_twice_is_projecting_once(rng):
    ridge = RidgeProjector().fit(sine(rng))
    once = ridge.transform(sine(rng))
    # what is left is below tol in units of the level, over the curvature 1 - r
    np.testing.assert_allclose(ridge.transform(once), once, atol=3e-6 * ridge.bandwidth_)


def test_newton_and_mean_shift_end_at_the_same_ridge(rng):
    X = sine(rng)
    newton = RidgeProjector(bandwidth=0.25).fit(X).diagnostics(X)
    plain = RidgeProjector(bandwidth=0.25, solver="scms").fit(X)
    residual = plain.diagnostics(newton.points).residual
    assert residual.max() <= 1e-6 * 0.25
    assert newton.n_iter.mean() < 0.6 * plain.diagnostics(X).n_iter.mean()


def test_dimension_zero_is_modes_and_full_dimension_is_identity(rng):
    X = sine(rng)
    modes = RidgeProjector(0, bandwidth=0.3).fit(X)
    found = modes.diagnostics(X)
    density = EmpiricalModel(X)
    gradient = density.score(found.points, 0.3)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    assert found.on_ridge.all()
    assert (np.linalg.eigvalsh(density.jacobian(found.points, 0.3)) < 0).all()
    np.testing.assert_array_equal(RidgeProjector(2, bandwidth=0.3).fit(X).transform(X), X)


def test_bases_are_orthonormal_and_parts_are_orthogonal(rng):
    X, _ = make_swiss_roll(200, noise=0.3, random_state=0)
    ridge = RidgeProjector(2).fit(X)
    basis = ridge.tangent_basis(X)
    np.testing.assert_allclose(
        np.swapaxes(basis, 1, 2) @ basis, np.broadcast_to(np.eye(2), (200, 2, 2)), atol=1e-12
    )
    vectors = rng.standard_normal(X.shape)
    tangential, normal = ridge.decompose(X, vectors)
    np.testing.assert_allclose(tangential + normal, vectors, atol=1e-12)
    np.testing.assert_allclose((tangential * normal).sum(1), 0, atol=1e-12)
    again, _ = ridge.decompose(X, tangential)
    np.testing.assert_allclose(again, tangential, atol=1e-12)


# ------------------------------------------------------------------ flags


def test_far_queries_reach_the_ring_or_are_flagged(rng):
    angle = 2 * np.pi * np.arange(64) / 64
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ridge = RidgeProjector(bandwidth=0.15).fit(points)
    directions = rng.standard_normal((60, 2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances = np.repeat([3.0, 8.0, 30.0, 1e4, 1e8], 12)
    found = ridge.diagnostics(distances[:, None] * directions)
    assert np.isfinite(found.points).all()
    radius = np.linalg.norm(found.points, axis=1)
    np.testing.assert_allclose(radius[found.on_ridge], ring_radius(0.15), atol=1e-6)
    assert not found.supported[np.abs(radius - 1) > 1].any()
    assert not found.on_ridge[distances >= 1e4].any()


def test_stability_flag_agrees_with_the_jacobian(rng):
    X, _ = make_thirteen_points()
    ridge = RidgeProjector(bandwidth=0.35).fit(X)
    found = ridge.diagnostics(X)
    assert found.stable.all()
    h = 1e-5
    jacobian = np.empty((13, 2, 2))
    for j in range(2):
        ahead, behind = (found.points + s * h * np.eye(2)[j] for s in (1, -1))
        parts = [
            ridge.decompose(at, ridge.model_.denoise(at, 0.35) - at)[1] for at in (ahead, behind)
        ]
        jacobian[:, :, j] = (parts[0] - parts[1]) / (2 * h)
    values = np.sort(np.linalg.eigvals(jacobian).real, axis=1)
    # one direction along the ridge, one across; central differences of step 1e-5
    np.testing.assert_allclose(values[:, 1], 0, atol=1e-6)
    # gaps are half and more: the turning of the frame adds a hundredth
    np.testing.assert_allclose(values[:, 0], found.ratios[:, 1] - 1, atol=0.02)


def test_a_hollow_is_no_ridge():
    # between four points the density is convex in both directions
    corners = np.array([[1.2, 1.0], [1.2, -1.0], [-1.2, 1.0], [-1.2, -1.0]])
    ridge = RidgeProjector(score_estimator=Fixed(EmpiricalModel(corners)), sigma=0.8)
    ridge.fit(0.3 * corners)
    found = ridge.diagnostics([[0.0, 0.0], [0.0, 0.3]])
    # r_1 = 1.2^2/s^2, r_2 = 1/s^2 at the centre
    np.testing.assert_allclose(found.ratios[0], np.array([1.44, 1.0]) / 0.64, rtol=1e-12)
    assert found.converged[0] and not found.concave[0] and not found.on_ridge[0]
    assert found.on_ridge[1]


def test_copies_of_a_row_change_nothing(rng):
    X = sine(rng)
    ridge = RidgeProjector(bandwidth="loo").fit(np.concatenate([X, X, X[:1], X[:1]]))
    assert ridge.bandwidth_ == pytest.approx(RidgeProjector().fit(X).bandwidth_, rel=0.02)
    assert ridge.diagnostics(X).on_ridge.all()


def test_no_variance_is_refused():
    with pytest.raises(ValueError, match="X has no variance"):
        RidgeProjector().fit(np.ones((5, 2)))
    with pytest.raises(ValueError, match="X has no variance"):
        RidgeProjector(bandwidth="knn").fit(np.ones((5, 2)))


# ------------------------------------------------------------------ high dimension


def low_rank_ring(rng, d, n=150):
    """A noisy ring in the first two of ``d`` columns, turned."""
    X = np.zeros((n, d))
    X[:, :2] = make_ring(n, random_state=0)[0]
    X += 0.02 * rng.standard_normal(X.shape) / np.sqrt(d)
    return X @ np.linalg.qr(rng.standard_normal((d, d)))[0]


@pytest.mark.parametrize("eigen_solver", ["gram", "lanczos"])
@pytest.mark.parametrize("k", [1, 2])
def test_routes_agree(rng, eigen_solver, k):
    X = low_rank_ring(rng, 40)
    dense = RidgeProjector(k, bandwidth=0.3, eigen_solver="dense").fit(X)
    other = clone(dense).set_params(eigen_solver=eigen_solver).fit(X)
    Y = X + 0.01 * rng.standard_normal(X.shape)
    a, b = dense.diagnostics(Y[:40]), other.diagnostics(Y[:40])
    good = a.on_ridge & b.on_ridge
    assert good.mean() > 0.9
    np.testing.assert_allclose(b.points[good], a.points[good], atol=1e-5 * 0.3)
    # Krylov spaces are built for the tangent space: the first ratio beyond is looser
    np.testing.assert_allclose(b.gap[good], a.gap[good], atol=1e-4)
    if k == 1:
        planes = [r.tangent_basis(Y[:20]) for r in (dense, other)]
        np.testing.assert_allclose(
            planes[0] @ np.swapaxes(planes[0], 1, 2),
            planes[1] @ np.swapaxes(planes[1], 1, 2),
            atol=1e-6,
        )


def test_many_columns(rng):
    X = low_rank_ring(rng, 300)
    ridge = RidgeProjector(bandwidth=0.3).fit(X)
    found = ridge.diagnostics(X[:30])
    assert found.on_ridge.all()
    assert found.ratios.shape[1] < 10  # no full spectrum


def test_digits_at_defaults():
    X = load_digits().data
    ridge = RidgeProjector("auto").fit(X)
    assert 1 <= ridge.n_components_ < 64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance = ridge.normal_distance(X[:50])
    assert np.isfinite(distance).mean() > 0.5


def test_dimension_of_known_manifolds():
    for X, dimension in [
        (make_ring(500, noise=0.1, random_state=0)[0], 1),
        (make_swiss_roll(1000, random_state=0)[0], 2),
        (make_swiss_roll(1000, noise=0.5, random_state=0)[0], 2),
        (make_sphere(1000, n_features=8, random_state=0)[0], 2),
    ]:
        assert RidgeProjector("auto").fit(X).n_components_ == dimension


# ------------------------------------------------------------------ any score model


def test_kernel_density_as_an_estimator_is_the_default(rng):
    X = sine(rng)
    own = RidgeProjector(bandwidth=0.25).fit(X)
    # a kernel of 0.15 seen at noise 0.2 is a kernel of 0.25
    est = EmpiricalScore(0.15, scaling="none")
    other = RidgeProjector(score_estimator=est, sigma=0.2).fit(X)
    # steps of another length end elsewhere on it, but on the same ridge
    assert own.diagnostics(other.transform(X)).n_iter.max() <= 1
    assert other.score(X) == pytest.approx(own.score(X), abs=1e-10)


def test_mixture_and_functions_of_torch_and_numpy(rng):
    from skdiffusion.models import as_score_model

    X = sine(rng)
    mixture = GMMScore(8, random_state=0).fit(X)
    closed = RidgeProjector(score_estimator=FrozenEstimator(mixture), sigma=0.15).fit(X)
    expected = closed.diagnostics(X)
    assert expected.on_ridge.mean() > 0.95
    for backend in ("numpy", "torch"):
        model = as_score_model(
            lambda x, s: mixture.model_.score(x, s),
            prediction="score",
            n_features=2,
            backend=backend,
        )
        for solver in ("dense", "lanczos"):
            ridge = RidgeProjector(
                score_estimator=Fixed(model), sigma=0.15, eigen_solver=solver
            ).fit(X)
            found = ridge.diagnostics(X[:40])
            good = expected.on_ridge[:40]
            np.testing.assert_allclose(found.points[good], expected.points[:40][good], atol=1e-5)


def test_a_score_model_is_taken_as_it_is(rng):
    X = sine(rng)
    mixture = GMMScore(8, random_state=0).fit(X)
    frozen = RidgeProjector(score_estimator=FrozenEstimator(mixture), sigma=0.15).fit(X)
    given = RidgeProjector(score_estimator=mixture.model_, sigma=0.15).fit(X)
    assert given.model_ is mixture.model_ and given.score_estimator_ is None
    np.testing.assert_array_equal(given.transform(X), frozen.transform(X))
    np.testing.assert_array_equal(given.score_samples(X), frozen.score_samples(X))
    again = frozen.set_params(score_estimator=None, sigma=None, bandwidth=0.25).fit(X)
    assert again.score_estimator_ is None  # nothing is left of an earlier fit


@pytest.mark.parametrize("given", ["kernel", [], {}, 3, lambda x, sigma: x])
def test_what_is_no_score_is_named(given, rng):
    for est in (
        RidgeProjector(score_estimator=given, sigma=0.5),
        MarginalEnergy(given),
        IntrinsicDimensionEstimator(score_estimator=given),
        ConservativityDecomposer(score_estimator=given),
    ):
        with pytest.raises(TypeError, match=r"a score estimator, or a score model .* is needed"):
            est.fit(sine(rng))


def test_networks(rng):
    from skdiffusion import NeuralScore

    X = rng.standard_normal((200, 4)) * [5.0, 2.0, 1.0, 0.5]
    est = FrozenEstimator(NeuralScore(max_epochs=2, random_state=0).fit(X))
    dense, lanczos = (
        RidgeProjector(2, score_estimator=est, sigma=1.0, eigen_solver=solver).fit(X)
        for solver in ("dense", "lanczos")
    )
    found, other = dense.diagnostics(X[:10]), lanczos.diagnostics(X[:10])
    assert found.on_ridge.all() and other.on_ridge.all()
    np.testing.assert_allclose(other.points, found.points, atol=1e-5)


def test_trace_follows_the_ring_through_the_levels(rng):
    angle = 2 * np.pi * np.arange(64) / 64
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    levels = [0.6, 0.4, 0.2, 0.02]
    traced = RidgeProjector(bandwidth=0.3, tol=1e-9).fit(points).trace(points[:7] * 1.1, levels)
    radius = np.linalg.norm(traced.points, axis=2)
    expected = [ring_radius(level) for level in levels[:3]]
    np.testing.assert_allclose(radius[:3], np.repeat([expected], 7, axis=0).T, atol=1e-7)
    assert traced.on_ridge[:3].all() and not traced.on_ridge[3].any()
    np.testing.assert_array_equal(traced.points[3], traced.points[2])


def test_ridges_far_from_the_origin_are_those_near_it(rng):
    """In so many columns neighbours are found by all distances."""
    t = np.linspace(0, 9, 200)
    X = np.pad(np.stack([t, np.sin(t)], axis=1), ((0, 0), (0, 20)))
    X += 0.05 * rng.normal(size=X.shape)
    found = []
    for offset in (0.0, 1e8):
        ridge = RidgeProjector(bandwidth="knn").fit(X + offset)
        found.append([ridge.bandwidth_, *ridge.arc_coordinates(X + offset)])
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


def test_arc_coordinates_of_a_curve(rng):
    u = np.sort(rng.uniform(0, np.pi, 400))
    X = np.stack([np.cos(u), np.sin(u)], axis=1) + 0.03 * rng.standard_normal((400, 2))
    ridge = RidgeProjector(bandwidth=0.15).fit(X)
    arc = ridge.arc_coordinates(X)
    if arc[0] > arc[-1]:
        arc = arc.max() - arc
    # the ridge has nearly radius 1: arc length is the angle, up to the ends and the noise
    inner = (u > 0.2) & (u < np.pi - 0.2)
    slope, offset = np.polyfit(u[inner], arc[inner], 1)
    assert slope == pytest.approx(1, abs=0.05)
    assert np.abs(arc[inner] - slope * u[inner] - offset).max() < 0.12
    with pytest.raises(ValueError, match="needs a curve, n_components=1"):
        RidgeProjector(0, bandwidth=0.15).fit(X).arc_coordinates(X)
    two = np.concatenate([X, X + np.array([5.0, 0.0])])
    with pytest.raises(ValueError, match="the ridge has 2 pieces"):
        RidgeProjector(bandwidth=0.15).fit(two).arc_coordinates(two)


# ------------------------------------------------------------------ manners


def test_search_finds_a_bandwidth(rng):
    X = sine(rng)
    search = GridSearchCV(RidgeProjector(), {"bandwidth": [0.03, 0.12, 1.0]}, cv=3).fit(X)
    assert search.best_params_["bandwidth"] == 0.12


def test_blocks_threads_copies_and_pipelines_give_the_same(rng):
    import sklearn

    X = sine(rng)
    ridge = RidgeProjector(bandwidth=0.2).fit(X)
    expected = ridge.transform(X)
    with sklearn.config_context(working_memory=0.01):
        np.testing.assert_allclose(ridge.transform(X), expected, atol=1e-10)
    two = clone(ridge).set_params(n_jobs=2).fit(X)
    np.testing.assert_allclose(two.transform(X), expected, atol=1e-10)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ridge)).transform(X), expected)
    # units in the pipeline: the same ridge in scaled columns
    scaler = StandardScaler().fit(X)
    alone = RidgeProjector(bandwidth=0.3).fit(scaler.transform(X))
    piped = make_pipeline(StandardScaler(), RidgeProjector(bandwidth=0.3)).fit(X)
    np.testing.assert_array_equal(piped.transform(X), alone.transform(scaler.transform(X)))
    assert ridge.transform(X.astype(np.float32)).dtype == np.float32


def test_tables_keep_their_columns():
    pandas = pytest.importorskip("pandas")
    frame = load_iris(as_frame=True).data
    ridge = RidgeProjector().set_output(transform="pandas").fit(frame)
    projected = ridge.transform(frame)
    assert isinstance(projected, pandas.DataFrame)
    assert list(projected.columns) == list(frame.columns)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"n_components": -1}, "n_components must be an integer of at least 0"),
        ({"n_components": 3}, "n_components must be at most the number of columns, 2; got 3"),
        ({"n_components": "all"}, "Unknown n_components 'all'"),
        ({"bandwidth": "scott"}, "Unknown bandwidth 'scott'"),
        ({"bandwidth": -1.0}, "bandwidth must be a finite number above 0"),
        ({"sigma": 0.1}, "sigma is the level of score_estimator, which is None"),
        ({"metric": "cosine"}, "Unknown metric 'cosine'"),
        ({"solver": "adam"}, "Unknown solver 'adam'"),
        ({"eigen_solver": "arpack"}, "Unknown eigen_solver 'arpack'"),
        ({"score_estimator": GaussianScore(), "eigen_solver": "gram"}, "is for the kernel density"),
        ({"score_estimator": GaussianScore(), "metric": "haversine"}, "score_estimator must be"),
        ({"metric": "haversine"}, "two columns, latitude"),
    ],
)
def test_bad_requests_get_a_sentence(rng, params, message):
    X = sine(rng) * [1, 100]
    with pytest.raises(ValueError, match=message):
        RidgeProjector(**params).fit(X[:, ::-1])


def test_vectors_and_levels_are_checked(rng):
    X = sine(rng)
    ridge = RidgeProjector().fit(X)
    with pytest.raises(ValueError, match="one vector per row"):
        ridge.decompose(X, np.ones((3, 2)))
    with pytest.raises(ValueError, match="vectors contains NaN"):
        ridge.decompose(X, np.full_like(X, np.nan))
    for sigmas in ([0.1, -1], "fine", [], [[0.1]]):
        with pytest.raises(ValueError, match="positive levels"):
            ridge.trace(X, sigmas)
