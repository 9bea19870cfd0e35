"""Spectral calculus against dense linear algebra and against fifty digits."""

import pickle
import tracemalloc

import mpmath
import numpy as np
import pytest
import torch

from skdiffusion.models import SpectralCovariance


def random_axes(d, r, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, r)))[0]


def low_rank(d=6, r=2, residual=0.3):
    return SpectralCovariance([4.0, 1.5], random_axes(d, r), residual)


def dense(C):
    """The same matrix by its definition, without the class."""
    axes = np.eye(C.n_features) if C.axes is None else C.axes
    d, r = axes.shape
    return axes * C.variances @ axes.T + C.residual * (np.eye(d) - axes @ axes.T) * (r < d)


FORMS = {
    "isotropic": SpectralCovariance.from_any(2.0, 6),
    "diagonal": SpectralCovariance([3.0, 2.0, 1.0, 0.5, 0.1, 0.0]),
    "full": SpectralCovariance.from_matrix(dense(low_rank())),
    "low rank": low_rank(),
    "singular low rank": low_rank(residual=0.0),
}
every_form = pytest.mark.parametrize("C", FORMS.values(), ids=FORMS)


@every_form
@pytest.mark.parametrize("per_row", [False, True])
def test_functions_of_a_covariance_are_functions_of_the_matrix(C, per_row):
    rng = np.random.default_rng(1)
    v = rng.standard_normal((4, 6))
    shift = rng.uniform(0.5, 2, (4, 1)) if per_row else 0.7
    values, vectors = np.linalg.eigh(dense(C))

    def gain(variance):
        return 1 / np.sqrt(variance + shift)

    expected = np.stack(
        [(vectors / np.sqrt(values + s)) @ vectors.T for s in np.broadcast_to(shift, (4, 1))]
    )
    np.testing.assert_allclose(C.matrices(gain, v), expected, atol=1e-13)
    np.testing.assert_allclose(C.apply(gain, v), np.einsum("nij,nj->ni", expected, v), atol=1e-13)
    np.testing.assert_allclose(
        C.quadratic(gain, v), np.einsum("ni,nij,nj->n", v, expected, v), rtol=1e-12
    )
    np.testing.assert_allclose(C.trace(gain, v), np.trace(expected, axis1=1, axis2=2), rtol=1e-13)


@every_form
def test_what_it_is(C):
    values = np.linalg.eigvalsh(dense(C))
    assert C.n_features == 6
    np.testing.assert_allclose(C.to_matrix(), dense(C), atol=1e-13)
    assert C.total == pytest.approx(values.sum(), rel=1e-13)
    assert C.largest == pytest.approx(values.max(), rel=1e-13)
    assert C.smallest == pytest.approx(max(values.min(), 0), abs=1e-13)


@every_form
def test_torch_and_single_precision(C):
    v = np.random.default_rng(2).standard_normal((3, 6))

    def gain(variance):
        return 1 / (variance + 0.5)

    exact = C.apply(gain, v)
    in_torch = C.apply(gain, torch.tensor(v))
    assert in_torch.dtype == torch.float64
    np.testing.assert_allclose(in_torch, exact, rtol=1e-13, atol=1e-14)
    for single in (v.astype(np.float32), torch.tensor(v, dtype=torch.float32)):
        for result in (C.apply(gain, single), C.matrices(gain, single), C.trace(gain, single)):
            assert str(result.dtype).endswith("float32")
    again = pickle.loads(pickle.dumps(C))
    np.testing.assert_array_equal(again.apply(gain, v), exact)


# ------------------------------------------------------------------ accuracy


def exact_spectrum(matrix):
    with mpmath.workdps(50):
        values = mpmath.eigsy(mpmath.matrix(matrix.tolist()), eigvals_only=True)
        return np.array(sorted((float(v) for v in values), reverse=True))


@pytest.mark.parametrize("span", [2, 6, 12])
def test_graded_matrices_keep_their_small_variances(span):
    """S K S with column scales over many decades: every eigenvalue to relative accuracy."""
    rng = np.random.default_rng(3)
    d = 8
    factor = rng.standard_normal((d, 3 * d))
    K = factor @ factor.T
    K /= np.sqrt(np.outer(K.diagonal(), K.diagonal()))
    scale = 10.0 ** rng.permutation(np.linspace(0, -span, d))
    matrix = K * np.outer(scale, scale)
    matrix = (matrix + matrix.T) / 2
    ours = SpectralCovariance.from_matrix(matrix)
    exact = exact_spectrum(matrix)
    # Demmel & Veselic: eps times d and the condition number of the correlation alone
    bound = 20 * d * np.finfo(float).eps * np.linalg.cond(K)
    np.testing.assert_allclose(ours.variances, exact, rtol=bound)
    if span == 12:  # what the ordinary solver makes of it
        assert np.abs(np.linalg.eigvalsh(matrix)[::-1] / exact - 1).max() > 1e-3
    np.testing.assert_allclose(ours.axes.T @ ours.axes, np.eye(d), atol=1e-13)


def test_graded_log_determinant_and_quadratic_form():
    """Columns in metres and nanometres: the density does not care."""
    scale = np.array([1.0, 1e-9, 1e3])
    K = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, -0.3], [0.2, -0.3, 1.0]])
    C = SpectralCovariance.from_matrix(K * np.outer(scale, scale))
    z = np.array([[0.3, -1.2, 2.0]])
    expected = z[0] @ np.linalg.solve(K, z[0])
    found = C.quadratic(lambda variance: 1 / variance, z * scale)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    log_det = C.trace(np.log, z)
    np.testing.assert_allclose(
        log_det, np.log(np.linalg.det(K)) + 2 * np.log(scale).sum(), rtol=1e-13
    )


def test_ordinary_matrices_match_eigh_and_are_sorted():
    rng = np.random.default_rng(4)
    factor = rng.standard_normal((5, 7))
    C = SpectralCovariance.from_matrix(factor @ factor.T)
    assert np.all(np.diff(C.variances) <= 0)
    np.testing.assert_allclose(C.variances, exact_spectrum(factor @ factor.T), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
def test_units_do_not_matter(scale):
    matrix = np.array([[2.0, 1.0], [1.0, 2.0]])
    C = SpectralCovariance.from_matrix(matrix * scale)
    np.testing.assert_allclose(C.variances, [3 * scale, scale], rtol=1e-14)


def test_rank_deficient_and_zero_matrices():
    ones = np.ones((3, 3))
    C = SpectralCovariance.from_matrix(ones)
    np.testing.assert_allclose(C.variances, [3, 0, 0], atol=1e-14)
    assert SpectralCovariance.from_matrix(np.zeros((3, 3))).largest == 0
    graded = np.diag([1.0, 1e-6, 0.0])
    np.testing.assert_allclose(SpectralCovariance.from_matrix(graded).variances, [1, 1e-6, 0])


def test_high_dimension_never_forms_the_matrix():
    """d = 3072 at rank 100: the matrix alone would be 75 MB, the points are 2.5 MB."""
    d, r, n = 3072, 100, 100
    axes = random_axes(d, r)
    C = SpectralCovariance(np.linspace(10, 1, r), axes, 0.01)
    v = np.random.default_rng(5).standard_normal((n, d))

    def gain(variance):
        return variance / (variance + 0.5)

    tracemalloc.start()
    applied, quadratic, trace = C.apply(gain, v), C.quadratic(gain, v), C.trace(gain, v)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
    along = v @ axes
    outside = gain(0.01)
    expected = (along * (gain(C.variances) - outside)) @ axes.T + outside * v
    np.testing.assert_allclose(applied, expected, atol=1e-13)
    np.testing.assert_allclose(quadratic, (v * expected).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(trace, gain(C.variances).sum() + (d - r) * outside, rtol=1e-13)


# ------------------------------------------------------------------ wrong input


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (np.ones((2, 3)), "square"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "finite"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), "symmetric"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite"),
        (np.diag([1.0, -1.0]), "positive semi-definite"),
    ],
)
def test_bad_matrices(matrix, match):
    with pytest.raises(ValueError, match=match):
        SpectralCovariance.from_matrix(matrix)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([-1.0],), "non-negative"),
        (([np.inf],), "non-negative"),
        (([[1.0]],), "one-dimensional"),
        (([1.0], np.ones((3, 2))), "one column per variance"),
        (([1.0], np.ones((3, 1))), "orthonormal"),
        (([1.0], np.eye(3)[:, :1], -0.1), "non-negative"),
    ],
)
def test_bad_spectra(arguments, match):
    with pytest.raises(ValueError, match=match):
        SpectralCovariance(*arguments)


def test_a_covariance_of_another_width():
    with pytest.raises(ValueError, match="3 features"):
        SpectralCovariance.from_any([1.0, 1.0, 1.0], 2)
    with pytest.raises(ValueError, match="one for 1 features"):
        SpectralCovariance.from_any([[1.0]], 2)


def test_whole_numbers_are_numbers_too():
    C = SpectralCovariance.from_matrix(np.array([[2.0, 0.5], [0.5, 0.7]]))
    v = np.array([[1, 1], [2, -3]])
    for name in ("apply", "quadratic", "trace", "matrices"):
        whole, real = (getattr(C, name)(np.sqrt, w) for w in (v, v.astype(float)))
        np.testing.assert_array_equal(whole, real)
    with pytest.raises(ValueError, match=r"v must have shape \(n, 2\)"):
        C.apply(np.sqrt, v[0])
