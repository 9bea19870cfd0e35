"""Densities and codes along the flow are those of the closed form, row by row."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA

from skdiffusion import GMMScore
from skdiffusion.denoising_bound import denoising_bound
from skdiffusion.flow import decode, encode, follow
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import (
    AffineModel,
    BaseScoreModel,
    GaussianModel,
    MixtureModel,
    as_score_model,
)
from skdiffusion.noising import noise_range
from skdiffusion.samplers import run_sampler
from skdiffusion.utils.arrays import is_torch

PLANE = MixtureModel(
    [0.3, 0.5, 0.2],
    [[0, 0], [3, 1], [-2, 2]],
    [[[1, 0.5], [0.5, 1]], [[0.3, -0.2], [-0.2, 0.4]], [[0.05, 0], [0, 0.8]]],
)


def scaled(law, scales):
    scales = np.asarray(scales)
    covariances = [np.outer(scales, scales) * c.to_matrix() for c in law.covariances]
    return MixtureModel(law.weights, law.means * scales, covariances)


def of_digits():
    rows = PCA(16, random_state=0).fit_transform(load_digits().data)
    return GMMScore(10, random_state=0).fit(rows).model_


LAWS = {
    "plane": lambda: PLANE,
    "iris": lambda: GMMScore(3, random_state=0).fit(load_iris().data).model_,
    "digits": of_digits,
    "columns a million apart": lambda: scaled(PLANE, [1e-3, 1e3]),
    "clusters far apart": lambda: MixtureModel(
        [0.5, 0.3, 0.2], [[-50, 0], [50, 10], [0, 80]], [1.0, 2.0, 0.5]
    ),
    "variances a million apart": lambda: MixtureModel([0.5, 0.5], [[0, 0], [0, 1]], [1.0, 1e-6]),
    "a grid of clusters": lambda: MixtureModel(
        np.ones(25), np.indices((5, 5)).reshape(2, -1).T, np.full(25, 0.05**2)
    ),
}


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]()


def levels_of(law):
    far_field = law.gaussian()
    return far_field, *noise_range(far_field.covariance.diagonal)[1:]


class Foreign(BaseScoreModel):
    """A law known by its denoiser alone: everything else is found by autograd."""

    def __init__(self, law):
        self.law, self.n_features = law, law.n_features

    def _denoise(self, x, sigma):
        return self.law._denoise(x, sigma)


# ---------------------------------------------------------------------- densities


def test_density_is_the_closed_form(law):
    far_field, low, high = levels_of(law)
    x = law.sample(100, random_state=1)
    found = flow_log_prob(law, x, far_field, low, high)
    off = np.abs(found.log_prob - law.log_prob(x, low))
    # two hundred to four hundred steps of 1e-6, and the fourth cumulant beyond the last level
    assert off.max() < 1e-4
    assert np.median(off) < 5e-6
    # an estimate: local errors are amplified, tails are rarely, within one order
    assert (off < 10 * found.error + 1e-9).all()
    assert found.error.max() < 1e-3
    assert not found.std_error.any()


def test_a_gaussian_stands_still(rng):
    law = GaussianModel([1.0, -2.0, 1e3], [[4.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1e-4]])
    x = 3 * rng.standard_normal((5, 3)) + law.mean
    found = flow_log_prob(law, x, law, 0.01, 10.0)
    # nothing to integrate: rounding alone, of numbers as large as the density's exponent
    np.testing.assert_allclose(found.log_prob, law.log_prob(x, 0.01), rtol=1e-11)
    np.testing.assert_allclose(encode(law, x, law, 0.01, 10.0), law.to_latent(x, 0.01), rtol=1e-10)


@pytest.mark.parametrize(
    "name, n", [("plane", 50), ("plane", 400), ("one", 50), ("one", 400), ("skew", 400)]
)
def test_the_far_field_may_be_that_of_a_sample(name, n):
    """Its mean is off by a tenth of a width, which fades with the level alone, not its cube."""
    law = {
        "plane": PLANE,
        "one": MixtureModel([1.0], [[1.0, -2.0]], [[[2.0, 0.6], [0.6, 1.0]]]),
        "skew": MixtureModel([0.05, 0.95], [[8.0, 8.0], [0.0, 0.0]], [1.0, 1.0]),
    }[name]
    rows, x = law.sample(n, random_state=1), law.sample(40, random_state=2)
    far_field = GaussianModel(rows.mean(axis=0), np.cov(rows.T))
    _, low, high = noise_range(far_field.covariance.diagonal)
    found = flow_log_prob(law, x, far_field, low, high)
    off = np.abs(found.log_prob - law.log_prob(x, low))
    # the fourth power of width over level, 1/160,000, times a cumulant: of order 100 if skew
    assert off.max() < (1e-3 if name == "skew" else 1e-4)
    assert (off < 3 * found.error + 1e-6).all() and found.error.max() < 1e-2
    codes = encode(law, x, far_field, low, high)
    own = encode(law, x, law.gaussian(), low, high)
    # the flow ends in one code, up to a turn of the axes in which it is standard normal
    np.testing.assert_allclose(
        (codes**2).sum(1), (own**2).sum(1), atol=5e-3 if name == "skew" else 1e-3
    )
    np.testing.assert_allclose(decode(law, codes, far_field, low, high), x, atol=1e-5)


class Labelled(BaseScoreModel):
    """Two laws, and their mixture without a label."""

    is_conditional = True
    is_differentiable = False

    def __init__(self, laws):
        self.laws, self.n_features = laws, laws[0].n_features

    def _denoise(self, x, sigma, y=None):
        return np.where(np.asarray(y)[:, None] == 0, *(law._denoise(x, sigma) for law in self.laws))


class Rough(BaseScoreModel):
    """Noise predicted with an error that no law has: its rates do not fall with the level."""

    n_features = 2
    is_differentiable = False

    def _denoise(self, x, sigma):
        turn = np.sin(3 * np.log(sigma) + x / sigma)
        return PLANE._denoise(x, sigma) + 0.05 * sigma * turn


def test_a_model_that_errs_at_high_noise_is_decoded_too():
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(50, random_state=0)
    codes = encode(Rough(), x, far_field, low, high)
    # what lies beyond the last level is inverted to rounding, whatever it is
    np.testing.assert_allclose(decode(Rough(), codes, far_field, low, high), x, atol=1e-4)


def test_the_far_field_may_be_that_of_all_labels():
    laws = [GaussianModel([-2.0, 0.0], [0.3, 1.0]), GaussianModel([1.0, 1.0], [0.5, 0.1])]
    model, y = Labelled(laws), np.arange(40) % 2
    draws = [law.sample(40, random_state=3) for law in laws]
    x = np.where(y[:, None] == 0, *draws)
    far_field = GaussianModel(np.mean(np.vstack(draws), axis=0), np.cov(np.vstack(draws).T))
    _, low, high = noise_range(far_field.covariance.diagonal)
    found = flow_log_prob(model, x, far_field, low, high, y=y)
    exact = np.where(y == 0, *(law.log_prob(x, low) for law in laws))
    # the mean of a label is off by a width: by 1/20 at the last level, half whose square, 1.2e-3,
    # counts; what is left is of the third power, and told of, but for its factor
    off = np.abs(found.log_prob - exact)
    assert off.max() < 2e-4 and (off < 10 * found.error).all()
    listed = flow_log_prob(model, x, far_field, low, high, y=list(y))
    np.testing.assert_array_equal(listed.log_prob, found.log_prob)
    codes = encode(model, x, far_field, low, high, y=y)
    np.testing.assert_array_equal(encode(model, x, far_field, low, high, y=list(y)), codes)
    np.testing.assert_allclose(decode(model, codes, far_field, low, high, y=y), x, atol=1e-6)


def test_error_falls_with_the_tolerance():
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(50, random_state=0)
    exact = flow_log_prob(PLANE, x, far_field, low, high, tol=1e-10).log_prob
    off = [
        np.abs(flow_log_prob(PLANE, x, far_field, low, high, tol=tol).log_prob - exact).max()
        for tol in (1e-4, 1e-6, 1e-8)
    ]
    assert off[0] > 5 * off[1] > 25 * off[2]


def test_density_by_an_integrator_of_someone_else():
    """The two equations of the module in data coordinates, by DOP853 with the exact trace."""
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(3, random_state=3)
    for row, found in zip(x, flow_log_prob(PLANE, x, far_field, low, high).log_prob, strict=True):

        def rates(u, state):
            point, level = state[None, :2], np.exp(u)
            trace = PLANE.divergence(point, level, of="denoise")
            return np.append(point - PLANE.denoise(point, level), 2 - trace)

        span = np.log([low, 50 * high])
        path = scipy.integrate.solve_ivp(rates, span, [*row, 0], "DOP853", rtol=1e-12, atol=1e-10)
        end = path.y[:, -1]
        reference = far_field.log_prob(end[None, :2], 50 * high)[0] + end[2]
        assert found == pytest.approx(reference, abs=1e-5)  # tolerance of some steps


def log_prob(*args, **options):
    return flow_log_prob(*args, **options).log_prob


@pytest.mark.parametrize("function", [encode, log_prob])
@pytest.mark.parametrize("name", ["digits", "columns a million apart"])
def test_a_row_alone_is_as_in_a_batch(name, function):
    law = LAWS[name]()
    far_field, low, high = levels_of(law)
    x = law.sample(20, random_state=2)
    whole = function(law, x, far_field, low, high, tol=1e-5)
    for k in (0, 7):
        alone = function(law, x[k : k + 1], far_field, low, high, tol=1e-5)
        # products of one row and of many round differently
        np.testing.assert_allclose(alone, whole[k : k + 1], rtol=1e-9, atol=1e-9)


def test_one_level_per_row():
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(6, random_state=0)
    levels = np.array([low, 0.1, 1.0, 5.0, high, 3 * high])
    found = flow_log_prob(PLANE, x, far_field, levels, high)
    np.testing.assert_allclose(found.log_prob, PLANE.log_prob(x, levels), atol=1e-4)


def test_noise_may_differ_by_column():
    law = AffineModel(PLANE, shift=[5.0, 0.0], scale=[0.1, 30.0])
    moments = PLANE.gaussian()
    covariance = moments.covariance.to_matrix() * np.outer([0.1, 30.0], [0.1, 30.0])
    far_field = GaussianModel(moments.mean * [0.1, 30.0] + [5.0, 0.0], covariance)
    x = law.sample(20, random_state=0)
    found = flow_log_prob(law, x, far_field, 0.01, 200.0)
    np.testing.assert_allclose(found.log_prob, law.log_prob(x, 0.01), atol=1e-4)
    codes = encode(law, x, far_field, 0.01, 200.0)
    np.testing.assert_allclose(decode(law, codes, far_field, 0.01, 200.0), x, atol=1e-6)


def test_torch_and_numpy_follow_the_same_path():
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(10, random_state=0)
    ours = flow_log_prob(PLANE, x, far_field, low, high)
    theirs = flow_log_prob(PLANE, torch.tensor(x), far_field, low, high)
    assert is_torch(theirs.log_prob)
    np.testing.assert_allclose(theirs.log_prob.numpy(), ours.log_prob, atol=1e-10)
    codes = encode(PLANE, torch.tensor(x, dtype=torch.float32), far_field, low, high)
    assert codes.dtype == torch.float64
    levels = np.geomspace(low, 1.0, 10)
    ours = flow_log_prob(PLANE, x, far_field, levels, high).log_prob
    codes = encode(PLANE, x, far_field, levels, high)
    for given in (torch.tensor(levels), levels.tolist()):
        theirs = flow_log_prob(PLANE, torch.tensor(x), far_field, given, high).log_prob
        np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-10)
        there = encode(PLANE, torch.tensor(x), far_field, given, high)
        np.testing.assert_allclose(there.numpy(), codes, atol=1e-10)
        back = decode(PLANE, there, far_field, given, high)
        np.testing.assert_allclose(back.numpy(), x, atol=1e-6)


def test_one_probe_does_not_know_its_error():
    with pytest.raises(ValueError, match="n_probes must be an integer of at least 2; got 1"):
        flow_log_prob(PLANE, np.zeros((1, 2)), *levels_of(PLANE), method="hutchinson", n_probes=1)


def test_the_chunks_do_not_matter():
    import sklearn

    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(30, random_state=0)
    whole = flow_log_prob(PLANE, x, far_field, low, high).log_prob
    with sklearn.config_context(working_memory=0.003):
        parts = flow_log_prob(PLANE, x, far_field, low, high).log_prob
    np.testing.assert_allclose(parts, whole, atol=1e-9)


# ---------------------------------------------------------------------- random traces


def test_hutchinson_covers_the_exact_trace():
    law = of_digits()
    far_field, low, high = levels_of(law)
    x = law.sample(60, random_state=0)
    exact = flow_log_prob(law, x, far_field, low, high, tol=1e-4).log_prob
    found = flow_log_prob(law, x, far_field, low, high, method="hutchinson", tol=1e-4)
    off = (found.log_prob - exact) / found.std_error
    assert found.std_error.min() > 0.01
    # Student's t of 15 degrees of freedom: sd 1.07, and 60 rows give it to a tenth
    assert 0.8 < off.std() < 1.4
    assert abs(off.mean()) < 4 * 1.07 / 60**0.5


def test_probes_of_a_row_stay_its_own():
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(5, random_state=0)
    options = {"method": "hutchinson", "n_probes": 3, "random_state": 1}
    whole = flow_log_prob(PLANE, x, far_field, low, high, **options)
    alone = flow_log_prob(PLANE, x[3:4], far_field, low, high, **options)
    np.testing.assert_allclose(alone.log_prob, whole.log_prob[3:4], atol=1e-9)
    # held fixed along the path, they leave an integrand as smooth as the trace itself
    assert whole.error.max() < 1e-3
    again = flow_log_prob(PLANE, x, far_field, low, high, tol=1e-7, **options)
    np.testing.assert_allclose(again.log_prob, whole.log_prob, atol=1e-4)


def test_probes_of_torch_rows_are_the_same():
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(4, random_state=0)
    ours, theirs = (
        flow_log_prob(PLANE, rows, far_field, low, high, method="hutchinson", n_probes=3)
        for rows in (x, torch.tensor(x))
    )
    for name in ("log_prob", "std_error"):
        found = getattr(theirs, name).numpy()
        np.testing.assert_allclose(found, getattr(ours, name), rtol=1e-10)


def test_no_rows_have_no_densities_and_no_codes():
    far_field, low, high = levels_of(PLANE)
    none = np.empty((0, 2))
    for method in ("exact", "hutchinson"):
        found = flow_log_prob(PLANE, none, far_field, low, high, method=method)
        assert found.log_prob.shape == found.error.shape == (0,)
    assert encode(PLANE, none, far_field, low, high).shape == (0, 2)
    assert decode(PLANE, none, far_field, low, high).shape == (0, 2)


@pytest.mark.parametrize("y", [np.zeros(3), np.zeros(1), 0.0])
def test_every_row_has_one_label(y):
    """More labels than rows are as wrong as fewer: which belongs to which?"""
    moved = as_score_model(
        lambda x, s, y: y[:, None] + 0 * x, prediction="data", n_features=2, conditional=True
    )
    x, (far_field, low, high) = np.zeros((2, 2)), levels_of(PLANE)
    for function in (flow_log_prob, encode, decode, denoising_bound):
        with pytest.raises(ValueError, match="y must hold one label per row, 2; got"):
            function(moved, x, far_field, low, high, y=y)
    with pytest.raises(ValueError, match="y must hold one label per row, 2; got"):
        run_sampler("euler", moved, x, [2.0, 1.0], y=y, chunk_size=1)


@pytest.mark.parametrize("level", [0.0, -1.0, "low", np.ones(3)])
def test_the_lowest_level_is_above_zero(level):
    x, (far_field, _, high) = np.zeros((2, 2)), levels_of(PLANE)
    for function in (flow_log_prob, encode, decode):
        with pytest.raises(ValueError, match=r"must be (a positive|positive|a scalar)"):
            function(PLANE, x, far_field, level, high)


def test_a_denoiser_is_all_it_takes():
    far_field, low, high = levels_of(PLANE)
    x = PLANE.sample(5, random_state=0)
    for method in ("exact", "hutchinson"):
        options = {"method": method, "n_probes": 4, "tol": 1e-4}
        ours = flow_log_prob(PLANE, x, far_field, low, high, **options)
        found = flow_log_prob(Foreign(PLANE), x, far_field, low, high, **options)
        np.testing.assert_allclose(found.log_prob, ours.log_prob, atol=1e-8)


# ---------------------------------------------------------------------- latent codes


def test_decode_inverts_encode(law):
    far_field, low, high = levels_of(law)
    x = law.sample(60, random_state=1)
    codes = encode(law, x, far_field, low, high)
    back = decode(law, codes, far_field, low, high)
    off = np.abs(back - x) / np.sqrt(far_field.covariance.diagonal)
    # downwards, rows that pass between clusters spread: some hundred steps of 1e-8, amplified
    assert np.median(off) < 1e-7
    assert np.quantile(off, 0.99) < 1e-6
    assert off.max() < 1e-4


def test_codes_are_standard_normal(law):
    far_field, low, high = levels_of(law)
    x = law.sample(1000, low, random_state=5)
    codes = encode(law, x, far_field, low, high, tol=1e-4)
    tests = [scipy.stats.kstest(column, "norm").pvalue for column in codes.T]
    squares = scipy.stats.chi2(law.n_features)
    tests.append(scipy.stats.kstest((codes**2).sum(axis=1), squares.cdf).pvalue)
    assert min(tests) > 0.01 / len(tests) / len(LAWS)  # one false alarm in a hundred runs


def test_codes_in_one_dimension_are_quantiles():
    law = MixtureModel([0.2, 0.8], [[-2.0], [1.0]], [0.3, 0.5])
    far_field, low, high = levels_of(law)
    x = np.linspace(-3, 2.5, 12)[:, None]
    spread = [np.sqrt(v + low**2) for v in (0.3, 0.5)]
    below = 0.2 * scipy.stats.norm.cdf(x, -2, spread[0]) + 0.8 * scipy.stats.norm.cdf(
        x, 1, spread[1]
    )
    codes = encode(law, x, far_field, low, high)
    # a flow on a line keeps order; the fourth cumulant is left beyond the last level
    np.testing.assert_allclose(codes, scipy.stats.norm.ppf(below), atol=2e-5)


# ---------------------------------------------------------------------- the integrator


def test_the_pair_has_order_five():
    """One equation with a known solution, dy/du = y cos u, in fixed steps."""

    def end(n):
        def rates(state, level, more):
            return state * np.cos(np.log(level))

        grid = np.exp(np.linspace(0.0, 2.0, n + 1))
        state = np.ones((1, 1))
        for a, b in itertools.pairwise(grid):
            state = follow(rates, state, a, b, {}, np.inf).state
        return abs(float(state[0, 0]) - np.exp(np.sin(2.0)))

    errors = [end(n) for n in (8, 16, 32)]  # steps of a quarter and less: one each
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 5, atol=0.5)


def test_what_cannot_be_followed_says_so():
    class Rough(BaseScoreModel):
        n_features = 1
        is_differentiable = False

        def _denoise(self, x, sigma):
            return np.sign(np.sin(30 * x / np.hypot(1, sigma)))

    found = flow_log_prob(Rough(), np.array([[0.3]]), GaussianModel([0.0], 1.0), 0.01, 20.0)
    assert found.error > 0.1
