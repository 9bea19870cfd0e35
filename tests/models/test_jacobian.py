"""Three routes to a derivative give one answer; nothing assumes that it is symmetric."""

import numpy as np
import pytest
import torch

from skdiffusion.models import (
    AffineModel,
    BaseScoreModel,
    EmpiricalModel,
    GaussianModel,
    MixtureModel,
    SphereModel,
    as_score_model,
    denoise_and_jacobian,
    divergence,
    jacobian,
    jvp,
    vjp,
)
from skdiffusion.utils.arrays import is_torch, like

D = 4
RNG = np.random.default_rng(21)
POINTS, V = RNG.standard_normal((5, D)), RNG.standard_normal((5, D))
LEVELS = np.array([0.1, 0.4, 1.0, 3.0, 20.0])


class Autograd(BaseScoreModel):
    """The sphere without its closed-form Jacobian."""

    n_features = D
    law = SphereModel(D)

    def _denoise(self, x, sigma):
        return self.law._denoise(x, sigma)


class BlackBox(Autograd):
    """The same in NumPy alone."""

    is_differentiable = False

    def _denoise(self, x, sigma):
        assert not is_torch(x) and not is_torch(sigma)
        return self.law._denoise(x, sigma)


class Swirl(BaseScoreModel):
    """Not a gradient: the field M x + sin with a matrix that is not symmetric."""

    n_features = D
    M = RNG.standard_normal((D, D))

    def _score(self, x, sigma):
        sin = torch.sin if is_torch(x) else np.sin
        return sin(x) @ like(self.M, x).T

    @classmethod
    def exact(cls, x):
        return cls.M * np.cos(x)[:, None, :]


class NumpySwirl(Swirl):
    is_differentiable = False


# (model, relative error allowed): autograd rounds; differences are exact to h^2 and eps/h
ROUTES = {
    "closed form": (SphereModel(D), 1e-13),
    "autograd": (Autograd(), 1e-11),
    "differences": (BlackBox(), 1e-8),
}
every_route = pytest.mark.parametrize(("model", "error"), ROUTES.values(), ids=ROUTES)


@every_route
@pytest.mark.parametrize("of", ["score", "denoise"])
@pytest.mark.parametrize("sigma", [0.3, 2.0, LEVELS], ids=["small", "large", "rows"])
def test_three_routes_agree(model, error, of, sigma):
    exact = SphereModel(D).jacobian(POINTS, sigma, of=of)
    scale = error * np.abs(exact).max()
    np.testing.assert_allclose(jacobian(model, POINTS, sigma, of=of), exact, atol=scale)
    along = np.einsum("nij,nj->ni", exact, V)
    np.testing.assert_allclose(jvp(model, POINTS, sigma, V, of=of), along, atol=10 * scale)
    across = np.einsum("nij,ni->nj", exact, V)
    np.testing.assert_allclose(vjp(model, POINTS, sigma, V, of=of), across, atol=10 * scale)
    trace = np.trace(exact, axis1=1, axis2=2)
    np.testing.assert_allclose(divergence(model, POINTS, sigma, of=of), trace, atol=10 * scale)


@pytest.mark.parametrize("model", [Swirl(), NumpySwirl()], ids=["autograd", "differences"])
def test_a_field_that_is_not_a_gradient(model):
    exact = Swirl.exact(POINTS)
    np.testing.assert_allclose(jacobian(model, POINTS, 1.0), exact, atol=1e-8)
    along = jvp(model, POINTS, 1.0, V)
    across = vjp(model, POINTS, 1.0, V)
    np.testing.assert_allclose(along, np.einsum("nij,nj->ni", exact, V), atol=1e-8)
    np.testing.assert_allclose(across, np.einsum("nij,ni->nj", exact, V), atol=1e-8)
    assert np.abs(along - across).max() > 0.1
    np.testing.assert_allclose(
        divergence(model, POINTS, 1.0), np.trace(exact, axis1=1, axis2=2), atol=1e-8
    )


def test_vjp_of_a_denoiser_under_column_scales_is_not_its_jvp():
    """The Hessian of log p is symmetric, the denoiser's Jacobian need not be."""
    model = AffineModel(GaussianModel(np.zeros(2), [[2.0, 1.0], [1.0, 2.0]]), 0.0, [1.0, 5.0])
    x, v = np.zeros((1, 2)), np.array([[1.0, 0.0]])
    J = jacobian(model, x, 1.0, of="denoise")[0]
    assert abs(J[0, 1] - J[1, 0]) > 0.1
    np.testing.assert_allclose(jvp(model, x, 1.0, v, of="denoise")[0], J[:, 0], rtol=1e-13)
    np.testing.assert_allclose(vjp(model, x, 1.0, v, of="denoise")[0], J[0], rtol=1e-13)
    np.testing.assert_allclose(vjp(model, x, 1.0, v), jvp(model, x, 1.0, v), rtol=1e-12)


@every_route
def test_results_live_where_the_points_live(model, error):
    exact = jacobian(model, POINTS, 0.5)
    for x in (
        POINTS.astype(np.float32),
        torch.tensor(POINTS, dtype=torch.float32),
        torch.tensor(POINTS),
    ):
        for result in (
            jacobian(model, x, 0.5),
            jvp(model, x, 0.5, V),
            vjp(model, x, 0.5, V),
            divergence(model, x, 0.5),
            divergence(model, x, 0.5, method="hutchinson"),
        ):
            assert is_torch(result) == is_torch(x) and result.dtype == x.dtype
        found = jacobian(model, x, 0.5)
        np.testing.assert_allclose(found, exact, atol=2e-4 * np.abs(exact).max())
    in_torch = jacobian(model, torch.tensor(POINTS), torch.tensor(LEVELS))
    np.testing.assert_allclose(in_torch, jacobian(model, POINTS, LEVELS), rtol=1e-6, atol=1e-6)


def test_the_graph_survives_in_torch():
    x = torch.tensor(POINTS, requires_grad=True)
    divergence(Autograd(), x, 0.7).sum().backward()
    h = 1e-5
    e = np.zeros_like(POINTS)
    e[:, 0] = h
    law = SphereModel(D)
    slope = (law.divergence(POINTS + e, 0.7) - law.divergence(POINTS - e, 0.7)) / (2 * h)
    np.testing.assert_allclose(x.grad[:, 0], slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
def test_differences_far_from_the_origin(shift):
    """The step grows with the coordinates, so that rounding of x does not drown it."""

    class Shifted(BaseScoreModel):
        n_features = 2
        is_differentiable = False

        def _denoise(self, x, sigma):
            return shift + np.tanh(x - shift)

    x = shift + np.array([[0.3, -0.5]])
    exact = np.diag(1 / np.cosh(x[0] - shift) ** 2)
    # rounding of x over the step: (eps |x|/sigma)^(2/3)
    tolerance = 30 * (np.finfo(float).eps * max(1, shift)) ** (2 / 3)
    found = jacobian(Shifted(), x, 1.0, of="denoise")[0]
    np.testing.assert_allclose(found, exact, atol=tolerance)


def test_differences_at_level_zero():
    class Smooth(BaseScoreModel):
        n_features, is_differentiable, has_density = 2, False, True

        def _score(self, x, sigma):
            return -np.sin(x)

    x = np.array([[0.3, -40.0], [0.0, 2.0]])
    found = jacobian(Smooth(), x, 0.0)
    np.testing.assert_allclose(found[0], -np.diag(np.cos(x[0])), atol=1e-7)
    mixed = jacobian(Smooth(), x, np.array([0.0, 1.0]))
    np.testing.assert_allclose(mixed[1], -np.diag(np.cos(x[1])), atol=1e-8)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_differences_where_the_noise_differs_by_column(unit):
    """A step is short beside the noise of its own column."""
    law = MixtureModel([0.3, 0.7], [[-2.0, 0.0], [1.0, 1.0]], [0.3, 0.2])
    seen = as_score_model(law.denoise, prediction="data", n_features=2, backend="numpy")
    scale = np.array([unit, 1.0])
    exact, model = AffineModel(law, scale=scale), AffineModel(seen, scale=scale)
    x, sigma = scale * [[0.3, -0.5], [1.0, 0.0]], 0.5 * unit**0.5
    found = jacobian(model, x, sigma, of="denoise") * scale / scale[:, None]
    expected = jacobian(exact, x, sigma, of="denoise") * scale / scale[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_no_direction_has_no_derivative_in_any_unit():
    halved = as_score_model(lambda x, s: x / 2, prediction="data", n_features=2, backend="numpy")
    v = np.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(jvp(halved, 1e15 * np.ones((2, 2)), 1e15, v, of="denoise"), v / 2)


# ------------------------------------------------------------------ Hutchinson


def test_hutchinson_is_unbiased_with_an_honest_standard_error():
    """2000 equal rows shifted a little: independent estimates of nearly one trace."""
    n = 2000
    x = POINTS[:1] + 1e-9 * np.arange(n)[:, None]
    estimate, error = divergence(
        Swirl(), x, 1.0, method="hutchinson", n_probes=8, return_std_error=True
    )
    exact = np.trace(Swirl.exact(x[:1])[0])
    assert abs(estimate.mean() - exact) < 4 * estimate.std() / np.sqrt(n)
    # Rademacher probes: variance of u'Ju is 2 sum of squared off-diagonals of the symmetric part
    J = Swirl.exact(x[:1])[0]
    S = (J + J.T) / 2
    variance = 2 * ((S**2).sum() - (S.diagonal() ** 2).sum()) / 8
    assert estimate.var() == pytest.approx(variance, rel=0.15)
    assert (error**2).mean() == pytest.approx(variance, rel=0.15)


def test_hutchinson_of_a_diagonal_is_exact():
    """Signs square to one: no variance at all without off-diagonal entries."""
    model = GaussianModel(np.zeros(D), [1.0, 2.0, 3.0, 4.0])
    found, error = divergence(
        model, POINTS, 0.5, method="hutchinson", n_probes=2, return_std_error=True
    )
    np.testing.assert_allclose(found, divergence(model, POINTS, 0.5), rtol=1e-13)
    np.testing.assert_allclose(error, 0, atol=1e-15)


@pytest.mark.parametrize("model", [Swirl(), NumpySwirl(), Autograd()])
def test_probes_belong_to_the_row(model):
    def estimate(x):
        return divergence(model, x, 1.0, method="hutchinson", n_probes=3, random_state=5)

    whole = estimate(POINTS)
    alone = np.concatenate([estimate(row[None]) for row in POINTS])
    # a row in a batch goes through the same arithmetic up to the order of BLAS sums
    np.testing.assert_allclose(whole, alone, rtol=1e-7)
    np.testing.assert_allclose(estimate(POINTS[::-1])[::-1], whole, rtol=1e-7)
    np.testing.assert_array_equal(estimate(POINTS), whole)
    in_torch = divergence(
        model, torch.tensor(POINTS), 1.0, method="hutchinson", n_probes=3, random_state=5
    )
    np.testing.assert_allclose(in_torch, whole, rtol=1e-7)
    other = divergence(model, POINTS, 1.0, method="hutchinson", n_probes=3, random_state=6)
    assert np.abs(other - whole).max() > 1e-6


def test_auto_switches_to_probes_in_high_dimension():
    class Wide(BaseScoreModel):
        n_features = 200

        def _denoise(self, x, sigma):
            return x / (1 + sigma**2)

    x = np.zeros((2, 200))
    _, error = divergence(Wide(), x, 1.0, return_std_error=True)
    assert error.shape == (2,)
    np.testing.assert_allclose(divergence(Wide(), x, 1.0), -100.0)
    np.testing.assert_allclose(divergence(Wide(), x, 1.0, method="exact"), -100.0)


def test_exact_trace_has_no_error():
    trace, error = divergence(Swirl(), POINTS, 1.0, return_std_error=True)
    np.testing.assert_array_equal(error, np.zeros_like(trace))


# ------------------------------------------------------------------ wrong input


@every_route
@pytest.mark.parametrize("function", [jvp, vjp])
def test_directions_must_be_one_per_row(model, error, function):
    for wrong in (V[:1], V[:, :2], V[0], 1.0):
        with pytest.raises(ValueError, match="one direction per row"):
            function(model, POINTS, 1.0, wrong)
    listed = function(model, POINTS.tolist(), 1.0, V.tolist())
    np.testing.assert_allclose(listed, function(model, POINTS, 1.0, V), rtol=1e-13)


@every_route
def test_other_refusals(model, error):
    with pytest.raises(ValueError, match="'score' or 'denoise'"):
        jacobian(model, POINTS, 1.0, of="energy")
    with pytest.raises(ValueError, match="'auto', 'exact' or 'hutchinson'"):
        divergence(model, POINTS, 1.0, method="xtrace")
    with pytest.raises(ValueError, match="n_probes must be an integer of at least 2"):
        divergence(model, POINTS, 1.0, method="hutchinson", n_probes=1, return_std_error=True)
    with pytest.raises(ValueError, match="shape"):
        jacobian(model, POINTS[:, :2], 1.0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        jacobian(model, POINTS, 0.0)
    with pytest.raises(ValueError, match="unconditional"):
        jacobian(model, POINTS, 1.0, y=np.zeros(5))


def test_lists_are_points_too():
    for method in ("exact", "hutchinson"):
        found = divergence(Swirl(), POINTS.tolist(), 1.0, method=method)
        np.testing.assert_allclose(found, divergence(Swirl(), POINTS, 1.0, method=method))


def test_one_pass_gives_both():
    points = RNG.standard_normal((30, D))
    kernel = np.cov(RNG.standard_normal((D, 9)))
    for model in (EmpiricalModel(points), EmpiricalModel(points, kernel=kernel), BlackBox()):
        for levels in (0.7, LEVELS):
            denoised, found = denoise_and_jacobian(model, POINTS, levels)
            np.testing.assert_allclose(denoised, model.denoise(POINTS, levels), rtol=1e-12)
            alone = jacobian(model, POINTS, levels, of="denoise")
            np.testing.assert_allclose(found, alone, rtol=1e-10, atol=1e-14)
