"""The pull of small components: one shape, a scale for each."""

import numpy as np
import pytest

from skdiffusion import GMMScore
from skdiffusion.estimators import _pull
from skdiffusion.estimators._low_rank_form import LowRankForm
from skdiffusion.estimators._pull import _columns, pulled_covariances, shape_and_scales

SHAPE = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.7]])
COUNTS = np.array([5.0, 40.0, 300.0])
SCALES = np.array([1e-3, 1.0, 30.0])
FORMS = {
    "matrices": lambda S: S,
    "diagonals": lambda S: np.diagonal(S, axis1=1, axis2=2),
    "means": lambda S: np.diagonal(S, axis1=1, axis2=2).mean(axis=1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pull", [1e-12, 1e-3, 3.0, 500.0])
def test_proportional_scatters_have_a_known_answer(form, pull):
    # S_k = (N_k - 1) a_k Sigma: the shape is Sigma at the pooled scale, and each scale is the
    # root of its equation, between what its rows say and the pooled scale
    scatters = FORMS[form](((COUNTS - 1) * SCALES)[:, None, None] * SHAPE)
    pooled = (COUNTS - 1) @ SCALES / COUNTS.sum()
    shape, scales = shape_and_scales(scatters, COUNTS, pull, 3)
    np.testing.assert_allclose(shape, FORMS[form](pooled * SHAPE[None])[0], rtol=1e-12, atol=1e-14)
    seen = SCALES / pooled
    equation = (COUNTS - 1) * (seen / scales - 1) - 2 * pull / 3 * (scales - 1) / (scales + 1)
    # the terms are of the size of the counts, or of the pull
    np.testing.assert_allclose(equation, 0, atol=1e-12 * (COUNTS.max() + pull))
    inside = (np.minimum(seen, 1) <= scales * (1 + 1e-7)) & (
        scales <= np.maximum(seen, 1) * (1 + 1e-7)
    )
    assert inside.all()


@pytest.mark.parametrize("form", FORMS)
def test_who_knows_nothing_of_its_scale_has_the_pooled_one(form):
    scatters = FORMS[form](np.array([0.0, 0.0, 50.0])[:, None, None] * SHAPE)
    scales = shape_and_scales(scatters, np.array([0.0, 1.0, 50.0]), 3.0, 3)[1]
    np.testing.assert_allclose(scales[:2], 1.0, rtol=1e-14)


def test_units_of_the_columns_do_not_matter():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4, 9, 3))
    scatters, counts = np.einsum("kni,knj->kij", rows, rows), np.full(4, 9.0)
    shape, scales = shape_and_scales(scatters, counts, 3.0, 3)
    units = np.array([1e-3, 1.0, 1e3])
    other = shape_and_scales(scatters * np.outer(units, units), counts, 3.0, 3)
    np.testing.assert_allclose(other[1], scales, rtol=1e-12)
    np.testing.assert_allclose(other[0] / np.outer(units, units), shape, rtol=1e-12)


def test_a_column_that_varies_in_one_component_alone_counts_little():
    # 64 columns in 20 components alike, and in one of 8 rows a column of its own
    rng = np.random.default_rng(0)
    counts = np.array([8.0] + [90.0] * 20)
    scatters = counts[:, None] * rng.chisquare(40, (21, 64)) / 40
    scatters[1:, 0] = 0
    scatters[0, 0] *= 1e4
    shape, scales = shape_and_scales(scatters, counts, 65.0, 65)
    # 11 of 64: the others' scale times (63 * 11 / 53 - 1) / 10 = 1.21, from 8 rows counted as 7
    assert 0.8 < scales[0] < 1.21 * 8 / 7 * 1.05
    np.testing.assert_allclose(scales[1:], 1, atol=0.2)
    np.testing.assert_allclose(shape[1:].mean(), 1, atol=0.1)


def test_a_scale_follows_its_component():
    # a component's rows times 10: its scale times 100 relative to the others, to one pseudo-row
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((3, 4000, 3))
    counts = np.full(3, 4000.0)
    before = shape_and_scales(np.einsum("kni,knj->kij", rows, rows), counts, 3.0, 3)[1]
    rows[0] *= 10
    after = shape_and_scales(np.einsum("kni,knj->kij", rows, rows), counts, 3.0, 3)[1]
    ratio = (after / after[1]) / (before / before[1])
    # the prior is two rows in 4000 at most, before and after
    np.testing.assert_allclose(ratio, [100, 1, 1], rtol=4 * 2 / 4000)


def test_strong_and_weak_pulls():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((3, 20, 3)) * np.array([0.1, 1.0, 10.0])[:, None, None]
    scatters, counts = np.einsum("kni,knj->kij", rows, rows), np.full(3, 20.0)
    np.testing.assert_allclose(shape_and_scales(scatters, counts, 1e9, 3)[1], 1, atol=1e-5)
    shape, scales = shape_and_scales(scatters, counts, 1e-6, 3)
    # without a prior: what the rows say, a robust mean over the columns
    ratios = np.diagonal(scatters, axis1=1, axis2=2) / np.diagonal(shape) / 19
    means = (11 * ratios / (ratios + 10 * scales[:, None])).mean(axis=1)
    np.testing.assert_allclose(means, 1, rtol=1e-3)  # of four turns of shape and scales
    parts = np.tensordot(1 / scales, scatters, 1)
    np.testing.assert_allclose(shape / np.trace(shape), parts / np.trace(parts), atol=2e-3)


def test_copies_of_one_row():
    # n = 1 and c = 2: (n + c) t = c - n; from three copies on the prior cannot hold the scale
    scatters = np.array([0.0, 0.0, 50.0])[:, None, None] * SHAPE
    scales = shape_and_scales(scatters, np.array([2.0, 4.0, 50.0]), 3.0, 3)[1]
    np.testing.assert_allclose(scales[:2], [1 / 3, 1e-12], rtol=1e-12)


@pytest.mark.parametrize("rounding", [0.0, 1e-33, -1e-33])
def test_rows_that_are_all_centres(rounding):
    shape, scales = shape_and_scales(np.full((3, 2, 2), rounding), np.ones(3), 2.0, 2)
    assert np.abs(shape).max() <= 1e-32 and np.isfinite(scales).all()


# --------------------------------------------------------------------- covariances

MATRICES = {form: FORMS[form] for form in ("matrices", "diagonals")}


def some_scatters(counts, widths, seed=0):
    """Scatters of normal rows with these widths, shape ``(k, d)``, about their means."""
    rng = np.random.default_rng(seed)
    factor = np.linalg.cholesky(SHAPE)
    rows = [
        rng.standard_normal((int(n), 3)) @ factor.T * w for n, w in zip(counts, widths, strict=True)
    ]
    rows = [r - r.mean(axis=0) for r in rows]
    return np.stack([r.T @ r for r in rows])


@pytest.mark.parametrize("form", MATRICES)
@pytest.mark.parametrize("pull", [0.0, 1e-3, 4.0, 1e6])
def test_one_component_has_the_covariance_of_its_rows(form, pull):
    scatters = MATRICES[form](some_scatters([20], np.ones((1, 3))))
    found = pulled_covariances(scatters, np.array([20.0]), pull, 4)
    np.testing.assert_allclose(found, scatters / 20, rtol=1e-12)


@pytest.mark.parametrize("form", MATRICES)
def test_all_components_are_alike_under_a_strong_pull(form):
    scatters = MATRICES[form](some_scatters(COUNTS, np.array([[1, 1, 9], [1, 2, 1], [3, 1, 1]])))
    found = pulled_covariances(scatters, COUNTS, 1e9, 4)
    pooled = np.broadcast_to(scatters.sum(axis=0) / COUNTS.sum(), scatters.shape)
    np.testing.assert_allclose(found, pooled, rtol=1e-6)


@pytest.mark.parametrize("form", MATRICES)
def test_a_weak_pull_leaves_what_the_rows_say(form):
    scatters = MATRICES[form](some_scatters(COUNTS, np.array([[1, 1, 9], [1, 2, 1], [3, 1, 1]])))
    found = pulled_covariances(scatters, COUNTS, 1e-9, 4)
    expected = scatters / COUNTS.reshape((-1,) + (1,) * (scatters.ndim - 1))
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("form", MATRICES)
def test_a_column_that_hardly_varies_in_one_component_stays_so(form):
    # c = 8 with pull = e: n (s/t - 1) >= -c, so that t <= s / (1 - c/n), and three times that
    # is the target of four pseudo-rows
    counts, widths = np.array([60.0, 500.0]), np.array([[1.0, 1e-4, 1.0], [1.0, 1.0, 1.0]])
    scatters = MATRICES[form](some_scatters(counts, widths))
    found = pulled_covariances(scatters, counts, 4.0, 4)
    seen = scatters[0] / 60
    variances = [np.diag(a) if a.ndim == 2 else a for a in (found[0], seen)]
    ratio = variances[0][1] / variances[1][1]
    assert 1 < ratio < (60 + 4 * 3 / (1 - 8 / 59)) / 64 * (1 + 1 / 59)
    # a common variance would be ten million times too wide
    assert variances[1][1] < 1e-7 * scatters[1].flat[-1]


@pytest.mark.parametrize("form", MATRICES)
def test_covariances_follow_the_units_of_each_column(form):
    scatters, units = some_scatters(COUNTS, np.ones((3, 3))), np.array([1e-4, 1.0, 1e3])
    found = pulled_covariances(MATRICES[form](scatters), COUNTS, 4.0, 4)
    other = pulled_covariances(MATRICES[form](scatters * np.outer(units, units)), COUNTS, 4.0, 4)
    expected = found * (np.outer(units, units) if found.ndim == 3 else units**2)
    np.testing.assert_allclose(other, expected, rtol=1e-10)


def test_scales_of_columns_solve_their_equation(monkeypatch):
    monkeypatch.setattr(_pull, "COLUMN_ROUNDS", 400)  # scales and level in turn, to the end
    scatters = some_scatters(COUNTS, np.array([[1, 1, 9], [1, 2, 1], [3, 1, 0.1]]))
    squares, scales = FORMS["diagonals"](scatters), np.array([0.5, 1.0, 2.0])
    widths = _columns(squares, COUNTS, scales, 8.0)
    level = (squares / widths).sum(axis=0) / COUNTS.sum()
    rows, relative = (COUNTS - 1)[:, None], widths / scales[:, None]
    seen = squares / level * ((COUNTS - 1).sum() / COUNTS.sum()) / scales[:, None]

    def excess(t):
        return seen / t - rows - 8 * (t - 1) / (t + 1)

    tolerance = 1e-6 * rows.max()
    free = relative != 1
    assert free.any() and not free.all()
    t = relative * np.where(relative > 1, 3.0, 1 / 3)
    np.testing.assert_allclose(excess(t)[free], 0, atol=tolerance)
    # the others have their root within a factor of three
    assert (excess(1 / 3)[~free] > -tolerance).all() and (excess(3)[~free] < tolerance).all()


def test_what_all_components_have_in_common_is_kept():
    # the third column is the sum of the others, which vary by up to a factor of two
    rng = np.random.default_rng(4)
    scatters = []
    for n, widths in ((12, (1.0, 1.4)), (20, (1.2, 0.9)), (300, (0.8, 1.0))):
        rows = rng.standard_normal((n, 2)) * widths
        rows = np.column_stack([rows, rows.sum(axis=1)])
        rows -= rows.mean(axis=0)
        scatters.append(rows.T @ rows)
    found = pulled_covariances(np.stack(scatters), np.array([12.0, 20.0, 300.0]), 4.0, 4)
    nothing = np.array([1.0, 1.0, -1.0])
    np.testing.assert_allclose(np.einsum("i,kij,j->k", nothing, found, nothing), 0, atol=1e-12)


def test_the_shape_is_pulled_by_pseudo_rows():
    # equal scales: correlations of 6 rows, and of as many pseudo-rows of the common ones
    counts = np.array([6.0, 594.0])
    common = SHAPE / np.sqrt(np.outer(np.diag(SHAPE), np.diag(SHAPE)))
    mine = np.eye(3) + 0.4 * (1 - np.eye(3))
    scatters = np.stack([5 * mine, 595 * common])
    found = pulled_covariances(scatters, counts, 6.0, 4)[0]
    found /= np.sqrt(np.outer(np.diag(found), np.diag(found)))
    both = (5 * mine + 595 * common) / 600
    expected = (5 * mine + 6 * both) / 11
    np.testing.assert_allclose(found, expected, atol=0.02)  # scales are 1 to a percent or two


def test_rows_that_say_nothing_leave_the_common_covariance():
    scatters = np.stack([np.zeros((3, 3)), np.zeros((3, 3)), 49 * SHAPE])
    found = pulled_covariances(scatters, np.array([0.0, 1.0, 50.0]), 4.0, 4)
    np.testing.assert_allclose(0.8 * found[0], found[1], rtol=1e-12)
    # two rows in 51 are lost to means, and a prior of four rows or less shares them out; the
    # component of one row counts it, as one without variance among four
    np.testing.assert_allclose(found[0], 49 * SHAPE / 51, rtol=2 / 51)
    np.testing.assert_allclose(found[2], 49 * SHAPE / 51, rtol=2 / 51)


# --------------------------------------------------------------------- in the estimator


@pytest.mark.parametrize("form", ["full", "diag", "spherical", "low_rank"])
@pytest.mark.parametrize("wide", [False, True])
def test_each_group_keeps_its_size(form, wide, monkeypatch):
    # two distant groups of 15 rows, of one shape and variances 1 and 1e6
    if wide:  # as in many columns, where no matrix is formed
        monkeypatch.setattr(LowRankForm, "matrix_up_to", 1)
    rng = np.random.default_rng(0)
    factor = np.linalg.qr(rng.standard_normal((10, 10)))[0] * np.linspace(1, 2, 10)
    small = rng.standard_normal((15, 10)) @ factor.T
    large = 1e3 * rng.standard_normal((15, 10)) @ factor.T + 1e5
    options = dict(covariance_type=form, init=[small.mean(0), large.mean(0)], reg_covar=0.0)
    est = GMMScore(2, **options).fit(np.vstack([small, large]))
    traces = sorted(np.trace(c.to_matrix()) for c in est.model_.covariances)
    # a trace of 140 numbers is known to 15% or so and the prior is two rows in 14 at most,
    # one in 15 goes into the mean; a pull to the pooled covariance misses by 2e5
    np.testing.assert_allclose(np.log(traces) - np.log(np.trace(factor @ factor.T)),
                               np.log([1, 1e6]), atol=0.5)  # fmt: skip


def test_the_pull_vanishes_with_many_rows():
    rng = np.random.default_rng(1)
    X = np.concatenate(
        [rng.standard_normal((n, 3)) * s + 50 * s for n, s in ((4000, 1), (8000, 9))]
    )
    options = dict(reg_covar=0.0, tol=1e-9, random_state=0)
    with_pull, without = GMMScore(2, **options).fit(X), GMMScore(2, shrinkage=0.0, **options).fit(X)
    # four pseudo-rows in 4000, of a target that is right to a percent
    np.testing.assert_allclose(with_pull.covariances_, without.covariances_, atol=81 * 1e-4)


def test_a_component_of_one_row_is_regular():
    rng = np.random.default_rng(2)
    X = np.vstack(
        [rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) + 50, [[-90.0] * 3]]
    )
    est = GMMScore(3, init=[[0.0] * 3, [50.0] * 3, [-90.0] * 3], reg_covar=0.0).fit(X)
    groups = np.concatenate([X[:200] - X[:200].mean(0), X[200:400] - X[200:400].mean(0)])
    pooled = groups.T @ groups / 401
    # four pseudo-rows of the pooled covariance and one row that is its own mean; the groups
    # are of one size to a few percent, which the shape sees squared
    alone = est.covariances_[np.argmin(est.weights_)]
    np.testing.assert_allclose(alone, 0.8 * pooled, rtol=0.02, atol=0.005)


@pytest.mark.parametrize("d", [1, 4, 64])
def test_the_robust_mean_is_the_root_of_its_equation_from_any_guess(d):
    """mean (1 + b) r/(r + b m) = 1, with ratios over fourteen powers of ten, and b = 10."""
    rng = np.random.default_rng(0)
    shape = np.exp(rng.standard_normal(d))
    squares = shape * np.exp(rng.uniform(-1, 1, (50, d)) * np.logspace(-1, 1.2, 50)[:, None])
    means, robust = _pull._mean_square(shape, squares)
    ratios = squares / shape
    equation = np.mean(11 * ratios / (ratios + 10 * means[:, None]), axis=1)
    np.testing.assert_allclose(equation, 1, rtol=1e-12)
    np.testing.assert_allclose(robust * ratios.mean(axis=1), means, rtol=1e-12)
    for factor in (0.5, 0.9, 1.0, 1.1, 2.0):
        again, _ = _pull._mean_square(shape, squares, factor * robust)
        np.testing.assert_allclose(again, means, rtol=1e-12)
