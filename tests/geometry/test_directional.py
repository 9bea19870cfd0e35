"""Ridges on the sphere against circles of latitude, symmetry and flat maps."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ive

from skdiffusion import RidgeProjector
from skdiffusion.geometry.directional import Sphere, tangent_plane


def circle(latitude, n=72):
    return np.stack([np.full(n, latitude), np.linspace(-180, 180, n, endpoint=False)], axis=1)


def ridge_latitude(latitude, sigma):
    """Of the ridge of the uniform law on a circle of latitude, in degrees.

    Along a meridian the log-density is log I0(k cos a cos b) + k sin a sin b at latitude a, for
    data at latitude b and k = 1/sigma^2.
    """
    b, kappa = np.radians(latitude), 1 / np.radians(sigma) ** 2

    def slope(a):
        z = kappa * np.cos(a) * np.cos(b)
        return -ive(1, z) / ive(0, z) * np.sin(a) * np.cos(b) + np.cos(a) * np.sin(b)

    return np.degrees(brentq(slope, 0, np.pi / 2 - 1e-6))


@pytest.mark.parametrize("latitude, sigma", [(30.0, 5.0), (30.0, 15.0), (60.0, 10.0)])
def test_ridge_of_a_circle_of_latitude(latitude, sigma, rng):
    ridge = RidgeProjector(bandwidth=sigma, metric="haversine", tol=1e-10).fit(circle(latitude))
    X = circle(latitude)[::3] + rng.uniform(-8, 8, (24, 2))
    found = ridge.diagnostics(X)
    assert found.on_ridge.all()
    # 72 points differ from the circle by less than that
    np.testing.assert_allclose(found.points[:, 0], ridge_latitude(latitude, sigma), atol=1e-6)


def test_the_equator_is_its_own_ridge_and_bases_point_along_it(rng):
    ridge = RidgeProjector(bandwidth=10.0, metric="haversine").fit(circle(0.0))
    X = np.stack([rng.uniform(-15, 15, 20), rng.uniform(-500, 500, 20)], axis=1)
    projected = ridge.transform(X)
    np.testing.assert_allclose(projected[:, 0], 0, atol=1e-5)
    # by symmetry straight down the meridian, on the same turn of the earth
    np.testing.assert_allclose(projected[:, 1], X[:, 1], atol=1e-5)
    np.testing.assert_allclose(ridge.normal_distance(X), np.abs(X[:, 0]), atol=1e-5)
    basis = ridge.tangent_basis(projected)[:, :, 0]
    np.testing.assert_allclose(np.abs(basis), [[0, 1]] * 20, atol=1e-5)
    tangential, normal = ridge.decompose(projected, [[2.0, 3.0]] * 20)
    np.testing.assert_allclose(tangential, [[0, 3.0]] * 20, atol=1e-4)
    np.testing.assert_allclose(normal, [[2.0, 0]] * 20, atol=1e-4)


def test_follows_rotations_of_the_earth_also_over_a_pole(rng):
    X = np.stack([10 * np.sin(np.linspace(0, 6, 200)), np.linspace(-60, 60, 200)], axis=1)
    X += rng.standard_normal(X.shape)
    sphere = Sphere()
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))

    def turned(X):
        return sphere.rows(sphere.embed(X) @ turn.T, np.zeros_like(X))

    base = RidgeProjector(bandwidth=4.0, metric="haversine").fit(X)
    other = RidgeProjector(bandwidth=4.0, metric="haversine").fit(turned(X))
    a = sphere.embed(turned(base.transform(X)))
    b = sphere.embed(other.transform(turned(X)))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(turned(X)[:, 0]).max() > 45  # far from the equator


def test_a_small_piece_is_flat(rng):
    u = np.linspace(-1, 1, 150)
    X = np.stack([u**2, u], axis=1) * 0.1 + 0.01 * rng.standard_normal((150, 2))
    curved = RidgeProjector(bandwidth=0.03, metric="haversine").fit(X)
    flat = RidgeProjector(bandwidth=0.03).fit(X)
    # relative curvature: (0.1 degrees)^2 = 3e-6, on lengths of 0.1
    np.testing.assert_allclose(curved.transform(X), flat.transform(X), atol=2e-6)


def test_density_integrates_to_one_and_has_the_gradient(rng):
    X = np.stack([rng.uniform(-60, 60, 30), rng.uniform(-180, 180, 30)], axis=1)
    ridge = RidgeProjector(bandwidth=12.0, metric="haversine").fit(X)
    latitude = np.degrees(np.arcsin((np.arange(400) + 0.5) / 200 - 1))  # equal areas
    grid = np.stack(np.meshgrid(latitude, np.arange(0, 360, 1.0)), axis=-1).reshape(-1, 2)
    mass = np.exp(ridge.score_samples(grid)).mean() * 4 * np.pi
    assert mass == pytest.approx(1, abs=1e-4)  # midpoint rule

    point, h = np.array([[35.0, 20.0]]), 1e-3
    frames = ridge.ridge_.spaces(Sphere().embed(point), 1)
    shift = Sphere().components(point, frames.shift[:, :, None])[0, :, 0]
    north, east = (
        (ridge.score_samples(point + step) - ridge.score_samples(point - step))[0]
        / np.radians(2 * h)
        for step in (np.array([h, 0.0]), np.array([0.0, h / np.cos(np.radians(35.0))]))
    )
    np.testing.assert_allclose(shift / np.radians(12.0) ** 2, [north, east], rtol=1e-5, atol=1e-6)


def test_curvature_of_the_density_is_that_of_the_ratios(rng):
    X = np.stack([rng.uniform(-30, 30, 40), rng.uniform(-30, 30, 40)], axis=1)
    ridge = RidgeProjector(bandwidth=12.0, metric="haversine").fit(X)
    sphere, sigma = Sphere(), np.radians(12.0)
    y = sphere.embed([[5.0, -3.0]])
    frames = ridge.ridge_.spaces(y, 1)
    for j in range(2):
        # second derivative along the great circle through y, by differences
        h, values = 1e-3, []
        for t in (-h, 0.0, h):
            at = np.cos(t) * y + np.sin(t) * frames.axes[:, :, j]
            values.append(sphere.log_density(ridge.model_, at, sigma)[0])
        second = (values[0] - 2 * values[1] + values[2]) / h**2
        assert second == pytest.approx((frames.ratios[0, j] - 1) / sigma**2, rel=1e-4)


def test_rules_agree_where_the_earth_is_flat(rng):
    X = rng.standard_normal((400, 2)) * 0.5
    for rule, rel in [("knn", 0.01), ("loo", 0.05)]:
        curved = RidgeProjector(0, bandwidth=rule, metric="haversine").fit(X).bandwidth_
        flat = RidgeProjector(0, bandwidth=rule).fit(X).bandwidth_
        assert curved == pytest.approx(flat, rel=rel)
    rule = RidgeProjector(0, bandwidth="silverman", metric="haversine").fit(X).bandwidth_
    # for a concentrated law Silverman's in two dimensions: n^(-1/6) standard deviations
    assert rule == pytest.approx(0.5 * 400 ** (-1 / 6), rel=0.05)


def test_tangent_planes_are_orthonormal(rng):
    y = rng.standard_normal((50, 3))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    y = np.concatenate([y, np.eye(3), -np.eye(3)])
    frame = np.concatenate([tangent_plane(y), y[:, :, None]], axis=2)
    identity = np.broadcast_to(np.eye(3), (len(y), 3, 3))
    np.testing.assert_allclose(np.swapaxes(frame, 1, 2) @ frame, identity, atol=1e-14)


def test_trace_is_in_degrees():
    ridge = RidgeProjector(bandwidth=10.0, metric="haversine", tol=1e-10).fit(circle(30.0))
    found = ridge.trace([[25.0, 3.0]], [15.0, 5.0])
    expected = [ridge_latitude(30.0, level) for level in (15.0, 5.0)]
    np.testing.assert_allclose(found.points[:, 0, 0], expected, atol=1e-6)


def test_rows_that_are_no_places_are_refused_when_they_are_projected_too():
    ridge = RidgeProjector(bandwidth=5.0, metric="haversine").fit(circle(30.0))
    for method in (ridge.transform, ridge.diagnostics, ridge.score_samples):
        with pytest.raises(ValueError, match=r"latitude \(-90 to 90\) and longitude"):
            method([[95.0, 10.0], [20.0, 10.0]])
