"""The pull of small components: one shape, a scale for each."""

import numpy as np
import pytest

from skdiffusion import GMMScore
from skdiffusion.estimators._low_rank_form import LowRankForm
from skdiffusion.estimators._pull import shape_and_scales

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


def test_units_and_turns_of_the_columns_do_not_matter():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4, 9, 3))
    scatters, counts = np.einsum("kni,knj->kij", rows, rows), np.full(4, 9.0)
    shape, scales = shape_and_scales(scatters, counts, 3.0, 3)
    turn = rng.standard_normal((3, 3)) * [1e-3, 1.0, 1e3]
    turned = shape_and_scales(turn.T @ scatters @ turn, counts, 3.0, 3)
    # the condition number of the turn, 1e6, squared is what rounding may grow by
    np.testing.assert_allclose(turned[1], scales, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.solve(turn.T, np.linalg.solve(turn.T, turned[0]).T), shape,
                               rtol=1e-4, atol=1e-4)  # fmt: skip


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
    # without a prior: the restricted likelihood of the proportional model
    squares = np.einsum("kij,ji->k", scatters, np.linalg.inv(shape)) / 3
    np.testing.assert_allclose(scales, squares / 19, rtol=1e-5)
    parts = np.tensordot(1 / scales, scatters, 1)
    # after four turns, each of which leaves a tenth of the way
    np.testing.assert_allclose(shape / np.trace(shape), parts / np.trace(parts), atol=2e-3)


def test_copies_of_one_row():
    # n = 1 and c = 2: (n + c) t = c - n; from three copies on the prior cannot hold the scale
    scatters = np.array([0.0, 0.0, 50.0])[:, None, None] * SHAPE
    scales = shape_and_scales(scatters, np.array([2.0, 4.0, 50.0]), 3.0, 3)[1]
    np.testing.assert_allclose(scales[:2], [1 / 3, 1e-12], rtol=1e-12)


def test_dependent_columns_count_once():
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((2, 50, 2)) * np.array([1.0, 5.0])[:, None, None]
    counts = np.full(2, 50.0)
    plain = np.einsum("kni,knj->kij", rows, rows)
    wide = np.concatenate([rows, rows[:, :, :1] + rows[:, :, 1:]], axis=2)
    scales = shape_and_scales(np.einsum("kni,knj->kij", wide, wide), counts, 3.0, 3)[1]
    np.testing.assert_allclose(scales, shape_and_scales(plain, counts, 2.0, 2)[1], rtol=1e-8)


@pytest.mark.parametrize("rounding", [0.0, 1e-33, -1e-33])
def test_rows_that_are_all_centres(rounding):
    shape, scales = shape_and_scales(np.full((3, 2, 2), rounding), np.ones(3), 2.0, 2)
    assert np.abs(shape).max() <= 1e-32 and np.isfinite(scales).all()


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
