"""The gradient part of linear fields: closed forms of the paper's dossier."""

import numpy as np
import pytest

from skdiffusion.geometry import linear_gradient
from skdiffusion.geometry.linear import solve_lyapunov

SHEAR = np.array([[0.0, 1.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    "covariance, off_diagonal, energies",
    [
        ([1.0, 4.0], 0.8, (4.0, 3.2, 0.8)),
        ([4.0, 1.0], 0.2, (1.0, 0.2, 0.8)),
        ([1.0, 1.0], 0.5, (1.0, 0.5, 0.5)),
    ],
)
def test_the_same_shear_under_three_laws(covariance, off_diagonal, energies):
    covariance = np.diag(covariance)
    S = linear_gradient(SHEAR, covariance)
    np.testing.assert_allclose(S, off_diagonal * np.array([[0, 1], [1, 0]]), atol=1e-14)
    found = [np.trace(A @ covariance @ A.T) for A in (SHEAR, S, SHEAR - S)]
    np.testing.assert_allclose(found, energies, atol=1e-14)


def test_a_rotated_field_has_the_rotated_gradient():
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turn = np.array([[c, -s], [s, c]])
    S = linear_gradient(turn @ SHEAR @ turn.T, turn @ np.diag([1.0, 4.0]) @ turn.T)
    expected = [[-0.69282032, 0.4], [0.4, 0.69282032]]
    np.testing.assert_allclose(S, expected, atol=1e-8)  # as many digits as are printed
    np.testing.assert_allclose(
        S, turn @ linear_gradient(SHEAR, np.diag([1.0, 4.0])) @ turn.T, atol=1e-12
    )


def test_any_gauge_on_a_gaussian_score_is_removed(rng):
    for _ in range(10):
        root, A = rng.standard_normal((2, 5, 5))
        covariance = root @ root.T + 0.1 * np.eye(5)
        precision = np.linalg.inv(covariance)
        S = linear_gradient((A - A.T - np.eye(5)) @ precision, covariance)
        np.testing.assert_allclose(S, -precision, atol=1e-10 * np.abs(precision).max())


def test_the_split_is_orthogonal(rng):
    for _ in range(10):
        root, M = rng.standard_normal((2, 4, 4))
        covariance = root @ root.T
        S = linear_gradient(M, covariance)
        R = M - S
        size = np.abs(M).max() * np.abs(covariance).max()
        np.testing.assert_allclose(S, S.T, atol=1e-10 * size)
        np.testing.assert_allclose(R @ covariance + covariance @ R.T, 0, atol=1e-10 * size)
        assert abs(np.trace(R)) < 1e-10 * size
        assert abs(np.trace(S @ covariance @ R.T)) < 1e-10 * size**2
        whole, *parts = (np.trace(A @ covariance @ A.T) for A in (M, S, R))
        assert whole == pytest.approx(sum(parts), rel=1e-10)


def test_a_singular_covariance():
    S = linear_gradient(np.arange(9.0).reshape(3, 3), np.diag([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(S, [[0, 5 / 3, 6], [5 / 3, 4, 7], [6, 7, 8]], atol=1e-14)
    # from data nothing is known of the last entry: the least norm
    cross = np.arange(9.0).reshape(3, 3) @ np.diag([1.0, 2.0, 0.0])
    S = solve_lyapunov(cross, np.array([1.0, 2.0, 0.0]), np.eye(3))
    np.testing.assert_allclose(S, [[0, 5 / 3, 6], [5 / 3, 4, 7], [6, 7, 0]], atol=1e-14)


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"matrix must have shape \(2, 2\)"):
        linear_gradient(np.eye(3), np.eye(2))
    with pytest.raises(ValueError, match="be finite"):
        linear_gradient([[0.0, np.nan], [0.0, 0.0]], np.eye(2))
