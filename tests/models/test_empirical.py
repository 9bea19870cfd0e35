"""EmpiricalModel against exact sums, analytic laws and itself by other routes."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.special
import sklearn
import torch
from sklearn.neighbors import KernelDensity

from skdiffusion.models import (
    AffineModel,
    BarycentricModel,
    BaseScoreModel,
    EmpiricalModel,
    GaussianModel,
    MixtureModel,
    _kernel_expansion,
    _kernel_tiles,
    _kernel_tree,
    _kernels,
    divergence,
    empirical,
    jacobian,
    jvp,
)
from skdiffusion.utils.estimator_checks import check_score_model

NUMBERS = (np.float32, np.float64)
TWO = EmpiricalModel([[-1.0], [1.0]])


def exact(points, weights, x, sigma):
    """Log-density and denoiser by the sum over all pairs in extended precision."""
    x, points = x.astype(np.longdouble), points.astype(np.longdouble)
    squares = ((x[:, None] - points) ** 2).sum(-1)
    logits = np.log(weights) - squares / (2 * np.longdouble(sigma) ** 2)
    top = logits.max(axis=1, keepdims=True)
    p = np.exp(logits - top)
    total = p.sum(axis=1, keepdims=True)
    log_prob = (top + np.log(total))[:, 0]
    log_prob -= points.shape[1] * (0.5 * np.log(2 * np.pi) + np.log(np.longdouble(sigma)))
    return log_prob.astype(float), (p @ points / total).astype(float)


def normal_nodes():
    """The trapezoidal rule for a standard normal mean, exact to rounding for smooth functions."""
    z = np.linspace(-12, 12, 4001)
    weight = np.exp(-(z**2) / 2)
    return z, weight / weight.sum()


# ------------------------------------------------------------------ analytic truths


def test_two_points():
    # D(x) = tanh(x / sigma^2)
    assert TWO.denoise(np.array([[0.5]]), 0.8)[0, 0] == pytest.approx(0.6534235881413468, abs=1e-15)


@pytest.mark.parametrize(
    "gamma, mmse, gap",
    [
        (0.25, 0.795945734366499, 0.00405426563350075),
        (1.0, 0.449599509206673, 0.0504004907933272),
        (4.0, 0.0685974087907388, 0.131402591209261),
    ],
)
def test_two_points_denoising_error(gamma, mmse, gap):
    # mmse = 1 - E tanh(gamma + sqrt(gamma) z); linear minus optimal error is E|D - D_G|^2
    sigma = gamma**-0.5
    z, weight = normal_nodes()
    x = (1 + sigma * z)[:, None]  # the law is symmetric: one of the points will do
    denoised = TWO.denoise(x, sigma)[:, 0]
    gaussian = GaussianModel([0.0], 1.0).denoise(x, sigma)[:, 0]
    # the references are quadratures in 15 digits
    assert weight @ (1 - denoised) ** 2 == pytest.approx(mmse, abs=1e-13)
    assert weight @ (denoised - gaussian) ** 2 == pytest.approx(gap, abs=1e-13)


def test_errors_of_two_points_integrate_to_their_entropy():
    # over gamma = 1/sigma^2: twice log 2 for the least error, and for its gap to the Gaussian's
    # twice the divergence, here up to gamma = 2
    z, weight = normal_nodes()

    def errors(log_gamma):
        x = (1 + np.exp(-log_gamma / 2) * z)[:, None]
        denoised = TWO.denoise(x, np.exp(-log_gamma / 2))[:, 0]
        gaussian = GaussianModel([0.0], 1.0).denoise(x, np.exp(-log_gamma / 2))[:, 0]
        both = weight @ (1 - denoised) ** 2, weight @ (denoised - gaussian) ** 2
        return np.exp(log_gamma) * np.array(both)

    def integral(low, high, n):
        nodes, shares = np.polynomial.legendre.leggauss(n)
        middle, half = (high + low) / 2, (high - low) / 2
        return half * sum(
            share * errors(middle + half * node) for node, share in zip(nodes, shares, strict=True)
        )

    # below e^-24 and above e^4.5 there is less than 1e-10
    assert integral(-24, 4.5, 50)[0] == pytest.approx(2 * np.log(2), abs=1e-9)
    # ten digits are printed
    assert integral(-24, np.log(2), 30)[1] == pytest.approx(0.0984680165, abs=1e-10)


@pytest.mark.parametrize("sigma, ratio", [(8.0, 0.96483), (16.0, 0.99051), (32.0, 0.99758)])
def test_third_cumulant_law(sigma, ratio):
    # {-1 with 2/3, 2 with 1/3}: mean 0, variance 2, third cumulant 2
    model = EmpiricalModel([[-1.0], [2.0]], [2.0, 1.0])
    gaussian = GaussianModel([0.0], 2.0)
    z, weight = normal_nodes()
    square = 0.0
    for point, mass in ((-1.0, 2 / 3), (2.0, 1 / 3)):
        x = (point + sigma * z)[:, None]
        square += mass * weight @ (model.denoise(x, sigma) - gaussian.denoise(x, sigma))[:, 0] ** 2
    law = 2 / (np.sqrt(2) * sigma**2)
    if sigma == 8.0:
        assert np.sqrt(square) == pytest.approx(0.021319945313704052, rel=1e-10)
    assert np.sqrt(square) / law == pytest.approx(ratio, abs=5e-6)  # tabulated to five digits


@pytest.mark.parametrize(
    "sigma, at_point, between",
    [
        (0.3, 0.08525, 2.77811),
        (0.4, 0.505016, 1.586584),
        (0.5, 0.860051, 1.144034),
        (0.6, 0.976728, 1.023348),
        (0.8, 0.999835, 1.000165),
    ],
)
def test_lattice(sigma, at_point, between):
    # leading eigenvalue of the posterior covariance over sigma^2 along equally spaced points
    lattice = np.column_stack([np.arange(-40.0, 41), np.zeros(81)])
    x = np.array([[0.0, 0.0], [0.5, 0.0]])
    ratios = EmpiricalModel(lattice).posterior_covariance(x, sigma)[:, 0, 0] / sigma**2
    # at the point 4 theta'' is a ratio of theta sums, tabulated to six digits
    np.testing.assert_allclose(ratios, [at_point, between], atol=1e-5)


@pytest.mark.parametrize(
    "sigma, radius",
    [
        (0.15, 0.988553451114),
        (0.2, 0.979360888562),
        (0.3, 0.951460229008),
        (0.4, 0.906869734555),
        (0.5, 0.831462024754),
        (0.6, 0.677303072114),
    ],
)
def test_ring(sigma, radius):
    # on a 64-gon the denoiser maps (r, 0) to I_1/I_0(r/sigma^2), whose fixed point is the ridge
    angle = 2 * np.pi * np.arange(64) / 64
    model = EmpiricalModel(np.column_stack([np.cos(angle), np.sin(angle)]))
    r = np.array([[0.7, 0.0], [radius, 0.0]])
    z = r[:, 0] / sigma**2
    bessel = scipy.special.ive(1, z) / scipy.special.ive(0, z)
    # the polygon differs from the circle by I_64(z)/I_0(z)
    slack = 2 * scipy.special.ive(63, z) / scipy.special.ive(0, z) + 1e-12
    denoised = model.denoise(r, sigma)
    assert (np.abs(denoised[:, 0] - bessel) <= slack).all()
    assert abs(denoised[1, 0] - radius) < 1e-8


def test_hessian_of_two_points():
    # eigenvalue gap of the Hessian of log p: c^2/sigma^4 sech^2(c x/sigma^2)
    model = EmpiricalModel([[-3.0, 0.0], [3.0, 0.0]])
    sigma = np.sqrt(np.expm1(1.0))
    x = np.array([[0.0, 0.0], [0.5, 0.0], [3.0, 0.0]])
    jacobian = model.jacobian(x, sigma)
    gap = jacobian[:, 0, 0] - jacobian[:, 1, 1]
    truth = 9 / sigma**4 / np.cosh(3 * x[:, 0] / sigma**2) ** 2
    np.testing.assert_allclose(gap, truth, rtol=0, atol=1e-12)
    assert gap[0] == pytest.approx(3.048, abs=1e-3)
    assert gap[1] == pytest.approx(1.542, abs=1e-3)
    assert gap[2] == pytest.approx(3.440e-4, abs=1e-7)


def test_one_point_is_a_constant_denoiser(rng):
    model = EmpiricalModel([[1.5, -2.0]])
    x = rng.standard_normal((5, 2)) * [[1], [1e3], [1e8], [1e-3], [1]]
    np.testing.assert_array_equal(model.denoise(x, 0.3), np.tile([[1.5, -2.0]], (5, 1)))
    np.testing.assert_allclose(
        model.log_prob(x, 0.3), GaussianModel([1.5, -2.0], 0.0).log_prob(x, 0.3), rtol=1e-14
    )


def test_leave_one_out_of_two_returns_the_other():
    x = np.array([[-1.0], [1.0]])
    for sigma in (1e-3, 0.5, 1e3):
        np.testing.assert_array_equal(TWO.denoise(x, sigma, exclude=[0, 1]), x[::-1])
        np.testing.assert_allclose(TWO.score(x, sigma, exclude=[0, 1]), -2 * x / sigma**2)
        np.testing.assert_allclose(
            TWO.log_prob(x, sigma, exclude=[0, 1]),
            GaussianModel([-1.0], 0.0).log_prob(x[1:], sigma)[0],
        )


def test_kernel_is_a_mixture(rng):
    points, weights = rng.standard_normal((7, 3)), rng.uniform(0.5, 2, 7)
    root = rng.standard_normal((3, 3))
    kernels = [0.2, np.array([0.1, 0.4, 1.0]), root @ root.T]
    x, v = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    sigma = np.array([0.1, 0.5, 0.5, 1.0, 3.0])
    for kernel in kernels:
        matrix = kernel * np.eye(3) if np.ndim(kernel) < 2 else kernel
        model = EmpiricalModel(points, weights, kernel=kernel)
        truth = MixtureModel(weights / weights.sum(), points, [matrix] * 7)
        for level in (0.0, 0.7, sigma):
            for name in ("log_prob", "score", "denoise", "jacobian"):
                np.testing.assert_allclose(
                    getattr(model, name)(x, level), getattr(truth, name)(x, level), atol=1e-11
                )
            for of in ("score", "denoise"):
                jacobian = truth.jacobian(x, level, of=of)
                np.testing.assert_allclose(
                    model.jvp(x, level, v, of=of), (jacobian @ v[..., None])[..., 0], atol=1e-11
                )
                np.testing.assert_allclose(
                    divergence(model, x, level, of=of),
                    np.trace(jacobian, axis1=1, axis2=2),
                    atol=1e-10,
                )


def test_equivariance(rng):
    points = rng.standard_normal((30, 4))
    x = rng.standard_normal((6, 4))
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    shift = rng.standard_normal(4)
    denoised = EmpiricalModel(points).denoise(x, 0.6)
    moved = EmpiricalModel(3 * points[::-1] @ rotation + shift)
    np.testing.assert_allclose(
        moved.denoise(3 * x @ rotation + shift, 1.8), 3 * denoised @ rotation + shift, atol=1e-13
    )


# ------------------------------------------------------------------ numerics


def clouds(name, n, d, rng):
    points = rng.standard_normal((n, d))
    if name == "clusters":
        points = points[:20][rng.integers(0, 20, n)] + 1e-3 * points
    if name == "repeated":
        points = points[rng.integers(0, n // 3, n)]
    return points


@pytest.mark.parametrize("name", ["normal", "clusters", "repeated"])
@pytest.mark.parametrize("n, d", [(2500, 1), (2500, 2), (1200, 8), (500, 64)])
def test_accuracy_from_tiny_to_huge_levels(name, n, d, rng):
    points, weights = clouds(name, n, d, rng), rng.uniform(0.1, 2, n)
    weights /= weights.sum()
    model = EmpiricalModel(points, weights)
    x = np.vstack(
        [
            points[:6] + 0.1 * rng.standard_normal((6, d)),
            2 * rng.standard_normal((6, d)),
            1e4 * rng.standard_normal((2, d)),
            points[:4],
        ]
    )
    single = x.astype(np.float32)
    for sigma in (1e-4, 1e-2, 0.1, 0.5, 2.0, 1e2, 1e4):
        log_prob, denoised = exact(points, weights, x, sigma)
        # below 1e-10 nats, or the rounding of coordinates times the slope of log p, |x|/sigma^2
        slack = 1e-10 + 1e-14 * np.abs(log_prob) + 1e-15 / sigma**2
        assert (np.abs(model.log_prob(x, sigma) - log_prob) <= slack).all()
        np.testing.assert_allclose(model.denoise(x, sigma), denoised, rtol=0, atol=1e-11)

        log_prob, denoised = exact(points, weights, single.astype(float), sigma)
        found = model.log_prob(single, sigma)
        assert found.dtype == np.float32
        # below 1e-4 nats, or two units in the last place of the result itself
        assert (np.abs(found - log_prob) <= 1e-4 + 2**-22 * np.abs(log_prob)).all()
        np.testing.assert_allclose(model.denoise(single, sigma), denoised, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigma", [1e-4, 1.0, 1e4])
def test_far_queries_are_finite(sigma, rng):
    points = rng.standard_normal((300, 3))
    model = EmpiricalModel(points)
    x = 1e8 * rng.standard_normal((4, 3))
    for dtype in (np.float64, np.float32):
        far = x.astype(dtype)
        for values in (model.log_prob(far, sigma), model.score(far, sigma)):
            assert np.isfinite(values).all()
        denoised = model.denoise(far, sigma)
        assert (denoised >= points.min(0) - 1e-5).all()
        assert (denoised <= points.max(0) + 1e-5).all()


@pytest.mark.parametrize("d", [1, 2, 9])
def test_every_route_gives_the_same(d, rng, monkeypatch):
    points = rng.standard_normal((3000, d))
    x = rng.standard_normal((50, d))
    v = rng.standard_normal((50, d))
    hidden = rng.integers(-1, 3000, 50)

    def everything(sigma):
        model = EmpiricalModel(points)
        return [
            model.log_prob(x, sigma),
            model.score(x, sigma) * sigma,
            model.jacobian(x, sigma) * sigma**2,
            model.jvp(x, sigma, v) * sigma**2,
            model.divergence(x, sigma) * sigma**2,
            model.log_prob(x, sigma, exclude=hidden),
            model.denoise(x, sigma, exclude=hidden),
        ]

    for sigma in (0.02, 0.2, 1.0):
        results = []
        for route in ("whole", "groups", "expansion", "shortlist", "small tiles"):
            with monkeypatch.context() as patch:
                patch.setattr(_kernels, "EXPANSION_ROWS", 1 if route == "expansion" else 2**60)
                many = 1 if route in ("groups", "expansion") else 2**60
                patch.setattr(_kernels, "TREE_PAIRS", many)
                patch.setattr(_kernels, "TREE_POINTS", 0)
                patch.setattr(_kernels, "TREE_SHARE", 0.6)
                patch.setattr(_kernels, "EXPANSION_POINTS", dict.fromkeys(NUMBERS, (0, 0)))
                if route == "shortlist":
                    patch.setattr(_kernel_tiles, "WELL_CONDITIONED", {np.float64: 0.0})
                if route == "small tiles":
                    patch.setattr(_kernel_tiles, "TILE", 2**12)
                results.append(everything(sigma))
        for other in results[1:]:
            for one, two in zip(results[0], other, strict=True):
                # a far point left out carries at most 1e-11 of the mass
                np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-9)


def test_groups_leave_out_no_more_than_they_promise(rng):
    points = rng.standard_normal((4000, 2))
    weights = rng.uniform(0.1, 1, 4000)
    weights /= weights.sum()
    groups = _kernel_tree.PointGroups(points, weights, size=64)
    x = np.vstack([rng.standard_normal((40, 2)), groups.points[:40]])
    hidden = np.append(np.full(40, -1), np.arange(40))
    for sigma in (0.01, 0.1, 0.5):
        kernel = -((x[:, None] - groups.points) ** 2).sum(-1) / (2 * sigma**2)
        kernel[np.arange(40, 80), np.arange(40)] = -np.inf
        kernel = groups.weights * np.exp(kernel - kernel.max(axis=1, keepdims=True))
        for share in (1e-3, 1e-8):
            keep = groups.matter(x, np.full((80, 1), sigma**2), np.log(share), hidden)
            lost = np.where(keep[:, groups.group_of], 0, kernel).sum(1) / kernel.sum(1)
            assert (lost <= share).all()
            assert sigma > 0.1 or keep.mean() < 0.2


@pytest.mark.parametrize("d", [1, 2])
def test_expansion_is_as_accurate_as_it_says(d, rng):
    points, weights = rng.standard_normal((3000, d)), rng.uniform(0.1, 1, 3000)
    weights /= weights.sum()
    x = np.vstack([rng.standard_normal((60, d)), 6 * rng.standard_normal((20, d)), points[:40]])
    hidden = np.append(np.full(80, -1), np.arange(40))
    for sigma in (0.08, 0.2, 1.0, 30.0):
        kernel = weights * np.exp(-((x[:, None] - points) ** 2).sum(-1) / (2 * sigma**2))
        kernel[np.arange(80, 120), np.arange(40)] = 0
        truth = np.column_stack([kernel.sum(1), kernel @ points])
        for dtype in (np.float32, np.float64):
            assert _kernel_expansion.Expansion.affordable(points, sigma, dtype)
            expansion = _kernel_expansion.Expansion(points, weights, sigma, dtype)
            sums, accurate = expansion.sums(x, hidden)
            error = np.abs(sums - truth)
            assert error[:, 0].max() <= _kernel_expansion.ERROR[dtype]
            # the sums of the points are errors of the same size times the largest of them
            promised = 5 * _kernel_expansion.PROMISED[dtype] * truth[:, :1]
            assert (error <= promised)[accurate].all()
            assert sigma < 0.2 or accurate[:60].mean() > 0.8
            alone = expansion.sums(x, hidden, of_points=False)[0]
            np.testing.assert_array_equal(alone[:, 0], sums[:, 0])


KERNELS = {
    "none": lambda d: None,
    "one": lambda d: 0.1,
    "columns": lambda d: np.geomspace(1e-3, 0.4, d),
    "some": lambda d: np.arange(d) * 0.1,  # a column without
    "matrix": lambda d: 0.02 * np.eye(d) + 0.1,
}


def everything_at(model, x, sigma, v, exclude):
    """All that an empirical model says of rows, in numbers of order one."""
    level = np.reshape(sigma, (-1, 1))
    yield model.log_prob(x, sigma)
    yield model.score(x, sigma) * level
    yield model.denoise(x, sigma)
    yield model.jacobian(x, sigma) * level[..., None] ** 2
    yield model.jvp(x, sigma, v) * level**2
    yield model.jvp(x, sigma, v, of="denoise")
    yield model.divergence(x, sigma) * level[:, 0] ** 2
    yield from model.denoise_and_divergence(x, sigma)
    yield from model.denoise_and_jacobian(x, sigma)
    yield model.log_prob(x, sigma, exclude=exclude)
    yield model.denoise(x, sigma, exclude=exclude)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n, d", [(400, 3), (2500, 2), (300, 24)])
def test_levels_by_row_equal_levels_alone(kernel, n, d, rng):
    points = rng.standard_normal((n, d)) + 50.0
    points[:9] = points[9:18]
    model = EmpiricalModel(points, rng.uniform(0.1, 2, n), kernel=KERNELS[kernel](d))
    sigma = np.exp(rng.uniform(-4, 4, 40))
    exclude = rng.integers(-1, n, 40)
    x = points[exclude] + sigma[:, None] * rng.standard_normal((40, d))
    x[:3] += 1e4
    v = rng.standard_normal((40, d))
    together = list(everything_at(model, x, sigma, v, exclude))
    rows = [
        list(everything_at(model, x[k : k + 1], sigma[k], v[k : k + 1], exclude[k : k + 1]))
        for k in range(40)
    ]
    # in another order
    order = rng.permutation(40)
    mixed = everything_at(model, x[order], sigma[order], v[order], exclude[order])
    for values, alone, other in zip(together, zip(*rows, strict=True), mixed, strict=True):
        # coordinates of 1e4 and 50 are rounded to 1e-12 and 1e-14, over a kernel of 0.02
        size = 1 + np.abs(values[order])
        np.testing.assert_array_less(np.abs(other - values[order]) / size, 1e-10)
        np.testing.assert_array_less(
            np.abs(np.concatenate(alone) - values), 1e-10 * (1 + np.abs(values))
        )


@pytest.mark.parametrize("n, d", [(2500, 2), (1200, 8), (500, 64)])
def test_accuracy_at_levels_of_rows_under_a_kernel(n, d, rng):
    # in units of its own kernel each column is isotropic: the sum over all pairs knows the answer
    kernel = np.geomspace(1e-4, 1e2, d)
    points = rng.standard_normal((n, d)) * 3 * np.sqrt(kernel)
    model = EmpiricalModel(points, kernel=kernel)
    sigma = np.repeat([1e-4, 1e-2, 0.1, 0.5, 2.0, 1e2, 1e4], 16)
    scale = np.sqrt(kernel + sigma[:, None] ** 2)
    index = rng.integers(0, n, len(sigma))
    x = points[index] + scale * rng.standard_normal((len(sigma), d))
    x[::16] += 1e4 * scale[::16]
    x[1::16] = points[index[1::16]]
    weights = np.full(n, 1 / n)
    for dtype, goal in ((np.float64, 1e-10), (np.float32, 1e-4)):
        rows = x.astype(dtype)
        log_prob, score = model.log_prob(rows, sigma), model.score(rows, sigma)
        assert log_prob.dtype == score.dtype == dtype
        for k, unit in enumerate(scale):
            exactly, mean = exact(points / unit, weights, rows[k : k + 1].astype(float) / unit, 1)
            exactly = exactly - np.log(unit).sum()
            assert abs(log_prob[k] - exactly[0]) <= goal * (1 + np.abs(exactly[0]))
            truth = mean[0] - rows[k].astype(float) / unit
            assert (np.abs(score[k] * unit - truth) <= goal * (1 + np.abs(truth))).all()


def test_units_do_not_matter(rng):
    # powers of two are exact: charges in coulombs, masses of stars
    points = rng.standard_normal((600, 3))
    x = points[:50] + 0.3 * rng.standard_normal((50, 3))
    levels = np.exp(rng.uniform(-4, 1, 50))
    truth = EmpiricalModel(points).denoise(x, levels)
    for unit in (2.0**-80, 2.0**80):
        denoised = EmpiricalModel(points * unit).denoise(x * unit, levels * unit)
        np.testing.assert_allclose(denoised / unit, truth, rtol=1e-13)
    # negligible levels beside a kernel with units of its own in each column
    units, kernel = 2.0 ** np.array([-80, 0, 80]), np.array([1e-4, 0.1, 0.2])
    truth = EmpiricalModel(points, kernel=kernel).denoise(x, 1e-12)
    model = EmpiricalModel(points * units, kernel=kernel * units**2)
    for level in (1e-12 * units[0], np.geomspace(1e-12, 2e-12, 50) * units[0]):
        np.testing.assert_allclose(model.denoise(x * units, level) / units, truth, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_levels_of_rows_are_served_together(kernel, rng, monkeypatch):
    model = EmpiricalModel(rng.standard_normal((50, 3)), kernel=KERNELS[kernel](3))
    calls = []

    def counted(*args, **options):
        calls.append(len(args[1]))
        return _kernel_tiles.kernel_moments(*args, **options)

    monkeypatch.setattr(_kernels, "kernel_moments", counted)
    # eight octaves of the variance
    model.denoise(rng.standard_normal((1000, 3)), np.geomspace(0.2, 3.19, 1000))
    assert sum(calls) == 1000
    assert len(calls) <= 9


def test_memory_setting_and_threads_do_not_matter(rng):
    torch = pytest.importorskip("torch")
    model = EmpiricalModel(rng.standard_normal((500, 3)))
    x = torch.as_tensor(rng.standard_normal((40, 3)))
    whole = model.score(x, 0.3)
    with sklearn.config_context(working_memory=1e-2):
        torch.testing.assert_close(model.score(x, 0.3), whole, rtol=1e-13, atol=1e-13)


def test_agrees_with_kernel_density_without_its_trees(rng):
    for n, d, h in ((600, 2, 0.3), (400, 8, 0.2), (300, 64, 0.5)):
        points, x = rng.standard_normal((n, d)), rng.standard_normal((50, d))
        truth = KernelDensity(bandwidth=h, leaf_size=n).fit(points).score_samples(x)
        np.testing.assert_allclose(
            EmpiricalModel(points).log_prob(x, h), truth, rtol=1e-12, atol=1e-10
        )


# ------------------------------------------------------------------ torch


@pytest.mark.parametrize("kernel", [None, 0.1, [0.1, 0.2, 0.4]], ids=["none", "one", "columns"])
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 5.0, np.geomspace(0.1, 5, 8)], ids=str)
def test_torch_equals_numpy_and_its_own_gradient(kernel, sigma, rng):
    torch = pytest.importorskip("torch")
    points = rng.standard_normal((60, 3))
    model = EmpiricalModel(points, rng.uniform(0.5, 1, 60), kernel=kernel)
    x = points[:8] + np.reshape(sigma, (-1, 1)) * rng.standard_normal((8, 3))
    v = rng.standard_normal((8, 3))
    hidden = np.arange(8)
    tensor = torch.as_tensor(x).requires_grad_()
    score, log_prob = model.score(x, sigma), model.log_prob(x, sigma)
    scale = 1 / np.abs(score).max()
    (gradient,) = torch.autograd.grad(model.log_prob(tensor, sigma).sum(), tensor)
    np.testing.assert_allclose(gradient.numpy() * scale, score * scale, atol=1e-9)
    for found, truth in (
        (model.log_prob(tensor, sigma), log_prob),
        (model.score(tensor, sigma), score),
        (model.denoise(tensor, sigma), model.denoise(x, sigma)),
        (model.jacobian(tensor, sigma), model.jacobian(x, sigma)),
        (model.jvp(tensor, sigma, torch.as_tensor(v)), model.jvp(x, sigma, v)),
        (model.divergence(tensor, sigma), model.divergence(x, sigma)),
        (model.score(tensor, sigma, exclude=hidden), model.score(x, sigma, exclude=hidden)),
    ):
        size = np.abs(truth).max()
        np.testing.assert_allclose(found.detach().numpy() / size, truth / size, atol=1e-10)


def test_float32_torch_stays_float32(rng):
    torch = pytest.importorskip("torch")
    model = EmpiricalModel(rng.standard_normal((50, 3)), kernel=0.1)
    x = torch.as_tensor(rng.standard_normal((4, 3)), dtype=torch.float32)
    for values in (model.score(x, 0.2), model.log_prob(x, 0.2), model.jacobian(x, 0.2)):
        assert values.dtype == torch.float32
    np.testing.assert_allclose(
        model.score(x, 1e-3).numpy(), model.score(x.numpy(), 1e-3), rtol=1e-4
    )


def test_numpy_never_imports_torch():
    code = (
        "import sys, numpy as np; from skdiffusion.models import EmpiricalModel;"
        "m = EmpiricalModel(np.eye(3), kernel=[1, 2, 3]);"
        "m.score(np.eye(3), 0.5); m.jacobian(np.eye(3), 0.5); m.sample(2);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ contract


def test_contract(rng):
    points, weights = rng.standard_normal((40, 3)), rng.uniform(0.1, 1, 40)
    check_score_model(EmpiricalModel(points))
    check_score_model(EmpiricalModel(points, weights, kernel=[0.1, 0.2, 1.0]))
    check_score_model(EmpiricalModel(points[:, :1], sigma_min=0.3))
    smooth = EmpiricalModel(points, kernel=0.1)
    check_score_model(BarycentricModel(smooth, smoothing=0.3, random_state=0))


def test_weights(rng):
    points, x = rng.standard_normal((20, 2)), rng.standard_normal((6, 2))
    weights = rng.integers(0, 4, 20)
    weights[0] = 0
    weighted = EmpiricalModel(points, weights)
    repeated = EmpiricalModel(np.repeat(points, weights, axis=0))
    for sigma in (0.01, 0.4, 3.0):
        np.testing.assert_allclose(
            weighted.log_prob(x, sigma), repeated.log_prob(x, sigma), rtol=1e-13
        )
        np.testing.assert_allclose(weighted.score(x, sigma), repeated.score(x, sigma), rtol=1e-12)
    # indices of excluded points count those of weight zero
    kept = np.flatnonzero(weights)[:6]
    others = [EmpiricalModel(np.delete(points, k, 0), np.delete(weights, k)) for k in kept]
    truth = [m.log_prob(x[i : i + 1], 0.4)[0] for i, m in enumerate(others)]
    np.testing.assert_allclose(weighted.log_prob(x, 0.4, exclude=kept), truth, rtol=1e-13)
    absent = np.zeros(6, int)
    np.testing.assert_array_equal(
        weighted.log_prob(x, 0.4, exclude=absent), weighted.log_prob(x, 0.4)
    )


def test_draws_are_the_points_in_proportion_and_blurred():
    model = EmpiricalModel([[0.0, 0.0], [4.0, 4.0]], [3.0, 1.0])
    draws = model.sample(4000, random_state=0)
    # standard error of a share of 1/4 among 4000 is 0.007
    assert np.unique(draws[:, 0]).tolist() == [0.0, 4.0]
    assert abs((draws[:, 0] == 4).mean() - 0.25) < 0.03
    root = np.array([[1.0, 0.0], [0.6, 0.2]])
    draws = EmpiricalModel([[1.0, 2.0]], kernel=root @ root.T).sample(20000, random_state=0)
    np.testing.assert_allclose(np.cov(draws.T), root @ root.T, atol=0.03)


def test_persistence_keeps_no_caches(rng):
    model = EmpiricalModel(rng.standard_normal((3000, 2)))
    x = rng.standard_normal((1500, 2))
    before = model.score(x, 0.05)
    size = len(pickle.dumps(model))
    assert size < 2 * model.points.nbytes
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).score(x, 0.05), before)


def test_no_queries():
    model = EmpiricalModel(np.zeros((5, 2)))
    assert model.score(np.empty((0, 2)), 1.0).shape == (0, 2)
    assert model.log_prob(np.empty((0, 2)), 1.0).shape == (0,)
    assert model.jacobian(np.empty((0, 2)), 1.0).shape == (0, 2, 2)


@pytest.mark.parametrize(
    "points, options, match",
    [
        ([1.0, 2.0], {}, "points must be a finite array"),
        (np.empty((0, 2)), {}, "points must be a finite array"),
        ([[np.nan]], {}, "points must be a finite array"),
        ([[1.0], [2.0]], {"weights": [1.0]}, "weights must hold one finite non-negative"),
        ([[1.0], [2.0]], {"weights": [1.0, -1.0]}, "weights must hold one finite non-negative"),
        ([[1.0], [2.0]], {"weights": [0.0, 0.0]}, "weights must not all be zero"),
        ([[1.0]], {"kernel": -1.0}, "non-negative"),
        ([[1.0]], {"kernel": [1.0, 2.0]}, "covariance must be"),
        ([[1.0]], {"sigma_min": -1.0}, "sigma_min must be"),
    ],
)
def test_what_is_refused_at_construction(points, options, match):
    with pytest.raises(ValueError, match=match):
        EmpiricalModel(points, **options)


def test_what_is_refused_at_evaluation():
    x = np.zeros((2, 1))
    with pytest.raises(ValueError, match="sigma must be positive"):
        TWO.log_prob(x, 0.0)
    with pytest.raises(ValueError, match="exclude must hold one index"):
        TWO.score(x, 1.0, exclude=[0, 2])
    with pytest.raises(ValueError, match="exclude must hold one index"):
        TWO.score(x, 1.0, exclude=[0.0, 1.0])
    with pytest.raises(ValueError, match="exclude must leave at least one point"):
        EmpiricalModel([[0.0]]).score(x, 1.0, exclude=[0, 0])
    with pytest.raises(ValueError, match="defined for noise levels"):
        EmpiricalModel([[0.0]], sigma_min=0.1).score(x, 0.01)


# ------------------------------------------------------------------ averaged scores


def test_average_without_perturbation_is_the_model(rng):
    model = EmpiricalModel(rng.standard_normal((20, 2)), kernel=0.1)
    x = rng.standard_normal((5, 2))
    average = BarycentricModel(model, smoothing=0.0, n_perturbations=2)
    np.testing.assert_allclose(average.score(x, 0.3), model.score(x, 0.3), rtol=1e-13)


def test_average_is_a_mean_of_shifted_scores_and_a_gradient(rng):
    model = EmpiricalModel(rng.standard_normal((20, 2)))
    average = BarycentricModel(model, smoothing=0.2, scale=2.0, n_perturbations=6, random_state=3)
    half = np.random.default_rng(3).standard_normal((3, 2))
    noise = 0.2 * (2.0 + 0.5) * np.concatenate([half, -half])
    x = rng.standard_normal((5, 2))
    truth = np.mean([model.score(x + e, 0.5) for e in noise], axis=0)
    np.testing.assert_allclose(average.score(x, 0.5), truth, rtol=1e-13)
    jacobian = average.jacobian(x, 0.5)
    np.testing.assert_allclose(jacobian, jacobian.transpose(0, 2, 1), atol=1e-13)


def test_perturbations_served_together_or_one_by_one_are_the_same(rng, monkeypatch):
    torch = pytest.importorskip("torch")
    points = EmpiricalModel(rng.standard_normal((20, 2)))
    model = BarycentricModel(points, smoothing=0.2, n_perturbations=6, random_state=0)
    x, v = rng.standard_normal((2, 5, 2))
    levels, exclude = rng.uniform(0.2, 2.0, 5), np.array([3, -1, 0, 7, -1])

    def everything():
        yield model.score(x, levels)
        yield model.denoise(x, levels, exclude=exclude)
        yield model.jacobian(x, levels)
        yield model.divergence(x, levels)
        yield jvp(model, x, levels, v)
        yield model.score(torch.tensor(x), torch.tensor(levels)).numpy()

    together = list(everything())
    for block in (1, 12):  # one by one; four blocks, the last of them smaller
        monkeypatch.setattr(empirical, "BLOCK", block)
        for one, other in zip(together, everything(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_average_denoises_to_barycentres():
    # far apart and nearly without noise, each perturbed input has one nearest point
    model = BarycentricModel(EmpiricalModel([[-1.0], [1.0]]), 1.0, n_perturbations=10)
    denoised = model.denoise(np.linspace(-2, 2, 9)[:, None], 1e-3)[:, 0]
    np.testing.assert_allclose((denoised + 1) * 5, np.round((denoised + 1) * 5), atol=1e-9)
    assert len(np.unique(denoised.round(9))) > 2


@pytest.mark.parametrize("options", [{"smoothing": -1.0}, {"n_perturbations": 3}, {"scale": 0.0}])
def test_average_refuses(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BarycentricModel(TWO, **{"smoothing": 0.1, **options})


def test_average_of_a_model_of_another_kind():
    """Of one without closed derivatives, and of one whose noise differs by column."""

    class Shrinking(BaseScoreModel):
        n_features = 2

        def _denoise(self, x, sigma):
            return x**2 / (1 + sigma**2)

    x = np.random.default_rng(0).standard_normal((4, 2))
    scaled = AffineModel(EmpiricalModel(x + 1, kernel=0.1), scale=[0.5, 4.0])
    for inner in (Shrinking(), scaled):
        model = BarycentricModel(inner, 0.3, random_state=0)
        scores = [inner.score(x + 0.3 * 1.5 * e, 0.5) for e in model._bank.noise]
        variance = 0.25 * np.asarray(inner.noise_scale) ** 2
        expected = x + variance * np.mean(scores, axis=0)
        np.testing.assert_allclose(model.denoise(x, 0.5), expected, rtol=1e-10)
        h, steps = 1e-5, 1e-5 * np.eye(2)
        numeric = [(model.denoise(x + e, 0.5) - model.denoise(x - e, 0.5)) / (2 * h) for e in steps]
        found = jacobian(model, x, 0.5, of="denoise")
        np.testing.assert_allclose(found, np.stack(numeric, axis=2), atol=1e-8)
        np.testing.assert_allclose(
            divergence(model, x, 0.5, of="denoise"), np.trace(found, axis1=1, axis2=2), rtol=1e-10
        )
        v = np.ones_like(x)
        np.testing.assert_allclose(jvp(model, x, 0.5, v, of="denoise"), found @ v[0], rtol=1e-10)


@pytest.mark.parametrize("d, n", [(1, 3000), (3, 9000)])
def test_threads_may_share_a_model(d, n):
    """What is kept between calls, of whichever level, is whole and of the level asked for."""
    r = np.random.default_rng(0)
    points, x, levels = r.standard_normal((n, d)), r.standard_normal((600, d)), (0.3, 0.5, 0.8)
    alone = [EmpiricalModel(points).denoise(x, level) for level in levels]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(5):
            model = EmpiricalModel(points)
            with ThreadPoolExecutor(6) as threads:
                found = list(threads.map(model.denoise, [x] * 12, levels * 4))
            for k, denoised in enumerate(found):
                np.testing.assert_allclose(denoised, alone[k % 3], rtol=1e-9, atol=1e-10)
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_rows_far_beyond_all_points_and_rows_that_are_nowhere():
    points = np.random.default_rng(0).standard_normal((20_000, 1))  # many: by their expansion
    model, x = EmpiricalModel(points), np.full((600, 1), 1e100)
    np.testing.assert_array_equal(model.denoise(x, 1.0), np.full((600, 1), points.max()))
    np.testing.assert_allclose(model.score(x, 1.0), -x)
    for nowhere in (np.nan, np.inf):  # a sampler says at which step it came to be there
        for sigma in (1.0, np.array([1.0, 2.0])):
            found = model.denoise(np.array([[0.0], [nowhere]]), sigma)[:, 0]
            assert found[0] == model.denoise(np.zeros((1, 1)), 1.0)[0, 0] and np.isnan(found[1])


@pytest.mark.parametrize("kernel", [None, [0.0, 0.2]])
def test_far_rows_in_torch(kernel):
    """At rows so far away that only what points differ in across decides between them."""
    points = np.array([[0.37, 0.0], [0.37, 1.0], [0.37, 0.5], [-3.0, 0.2]])
    model, x = EmpiricalModel(points, kernel=kernel), np.array([[1e10, 0.3]])
    variance = 1.0 + (0.0 if kernel is None else kernel[1])
    weights = np.exp(-0.5 * (0.3 - points[:3, 1]) ** 2 / variance)
    mean = weights @ points[:3, 1] / weights.sum()
    expected = mean + (1 - 1 / variance) * (0.3 - mean)
    assert model.denoise(x, 1.0)[0, 1] == pytest.approx(expected, rel=1e-10)
    assert model.denoise(torch.tensor(x), 1.0)[0, 1].item() == pytest.approx(expected, rel=1e-10)
