"""Distances between samples: closed forms, other libraries' values, invariances."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from skdiffusion.metrics import (
    c2st,
    distance_to_closest_record,
    energy_distance,
    energy_test,
    expected_coverage,
    frechet_distance,
    memorisation,
    mmd,
    mmd_test,
    precision_recall_coverage,
    sliced_wasserstein,
)

DISTANCES = [sliced_wasserstein, energy_distance, frechet_distance, mmd]
RAW = {"standardize": False}


# --------------------------------------------------------------------- what all of them keep


@pytest.mark.parametrize("distance", DISTANCES)
def test_units_of_the_columns_do_not_matter(distance, rng):
    X, Y = rng.standard_normal((80, 3)), rng.standard_normal((50, 3)) + 0.5
    units, offset = np.array([1e-6, 1.0, 1e5]), np.array([3.0, -5.0, 1e7])
    there = distance(X * units + offset, Y * units + offset)
    assert there == pytest.approx(distance(X, Y), rel=1e-6)  # an offset of 100 sd costs digits


@pytest.mark.parametrize("distance", [*DISTANCES, precision_recall_coverage])
def test_a_common_offset_does_not_matter_in_raw_units(distance, rng):
    X, Y = rng.standard_normal((80, 3)), rng.standard_normal((50, 3)) + 0.5
    there = distance(X + 1e8, Y + 1e8, **RAW)
    np.testing.assert_allclose(there, distance(X, Y, **RAW), rtol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_it_grows_with_the_shift(distance, rng):
    X, Y = rng.standard_normal((2, 200, 2))
    values = [distance(X, Y + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("distance", [sliced_wasserstein, energy_distance, frechet_distance])
def test_a_sample_is_at_distance_zero_from_itself_in_any_order(distance, rng):
    X = rng.standard_normal((60, 3))
    # the energy distance is the root of a difference of means near one
    assert distance(X, rng.permutation(X)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("d", [3, 30])
def test_repeated_rows_are_at_distance_zero(d, rng):
    """Tables repeat rows; rounding of squares and products must not pull equal rows apart."""
    few = rng.standard_normal((20, d))
    X, Y = few[rng.integers(20, size=300)], few[rng.integers(20, size=200)]
    assert not distance_to_closest_record(few, few).any()
    found = precision_recall_coverage(X, Y, n_neighbors=3)  # every row has three equal ones
    assert found.precision == found.recall == found.coverage == 1.0
    # the default bandwidth is the median distance of distinct rows, and not of rounding
    apart = np.linalg.norm(X[:, None] - X, axis=2)[np.triu_indices(300, 1)]
    assert mmd(X, Y, **RAW) == mmd(X, Y, bandwidth=np.median(apart[apart > 0]), **RAW)


@pytest.mark.parametrize("distance", [*DISTANCES, c2st, mmd_test, precision_recall_coverage])
def test_wrong_input_is_refused_in_a_sentence(distance, rng):
    X = rng.standard_normal((30, 2))
    with pytest.raises(ValueError, match="generated must have the 2 columns of real; got 3"):
        distance(X, np.ones((30, 3)))
    with pytest.raises(ValueError, match="Input generated contains NaN"):
        distance(X, np.full((30, 2), np.nan))
    frame = pd.DataFrame(X, columns=["a", "b"])
    with pytest.raises(ValueError, match="same order"):
        distance(frame, frame[["b", "a"]])
    with pytest.raises(ValueError, match=r"generated holds words.*'red'.*TableEncoder"):
        distance(frame, frame.assign(b="red"))
    with pytest.raises(ValueError, match="standardize must be True or False; got 'no'"):
        distance(X, X, standardize="no")


def test_constant_columns_keep_their_units(rng):
    X = np.column_stack([rng.standard_normal(50), np.full(50, 0.1)])
    assert sliced_wasserstein(X, X + np.array([0, 2.0])) == pytest.approx(2 / np.sqrt(2), rel=1e-9)


# --------------------------------------------------------------------- sliced Wasserstein


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_shift_costs_its_length_over_root_d(d, rng):
    X, shift = rng.standard_normal((40, d)), rng.standard_normal(d)
    found = sliced_wasserstein(X, X + shift, n_projections=1, **RAW)
    assert found == pytest.approx(np.linalg.norm(shift) / np.sqrt(d), rel=1e-12)


@pytest.mark.parametrize("n, m", [(7, 7), (12, 5), (30, 31)])
def test_one_dimension_is_scipys_distance_for_any_sizes(n, m, rng):
    X, Y = rng.standard_normal(n), rng.exponential(size=m)
    found = sliced_wasserstein(X[:, None], Y[:, None], p=1, **RAW)
    assert found == pytest.approx(stats.wasserstein_distance(X, Y), rel=1e-12)


def test_gaussians_of_different_width():
    # W_2 of N(0, 1) and N(0, 4) is 1 in every direction; quantiles in place of draws
    z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    assert sliced_wasserstein(z, 2 * z, **RAW) == pytest.approx(1.0, rel=1e-3)  # cut tails


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_high_orders_in_any_unit(unit, rng):
    X, Y = rng.standard_normal((30, 2)), rng.standard_normal((20, 2))
    there = sliced_wasserstein(unit * X, unit * Y, p=60, **RAW)
    assert there == pytest.approx(unit * sliced_wasserstein(X, Y, p=60, **RAW), rel=1e-12)


def test_the_working_memory_does_not_change_the_result(rng):
    import sklearn

    X, Y = rng.standard_normal((2, 300, 4))
    whole = [sliced_wasserstein(X, Y), mmd(X, Y), energy_distance(X, Y), mmd_test(X, Y).statistic]
    with sklearn.config_context(working_memory=0.05):
        parts = [
            sliced_wasserstein(X, Y),
            mmd(X, Y),
            energy_distance(X, Y),
            mmd_test(X, Y).statistic,
        ]
    np.testing.assert_allclose(parts, whole, rtol=1e-9)


# --------------------------------------------------------------------- mmd and energy


def test_mmd_of_gaussians_has_a_closed_form():
    # E k(X, Y) for X ~ N(a, s), Y ~ N(b, t): h / sqrt(v) exp(-(a-b)^2 / (2 v)), v = h^2 + s + t
    h, d, shift = 1.3, 2, 0.7

    def mean_kernel(gap, variance):
        v = h**2 + variance
        return (h**2 / v) ** (d / 2) * np.exp(-d * gap**2 / (2 * v))

    truth = mean_kernel(0, 2.0) + mean_kernel(0, 8.0) - 2 * mean_kernel(shift, 5.0)
    rng = np.random.default_rng(0)
    found = [
        mmd(
            rng.standard_normal((60, d)),
            shift + 2 * rng.standard_normal((40, d)),
            bandwidth=h,
            **RAW,
        )
        for _ in range(200)
    ]
    # unbiased: within four standard errors
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(200))


def test_energy_distance_is_scipys_in_one_dimension(rng):
    X, Y = rng.standard_normal(40), rng.exponential(size=25)
    found = energy_distance(X[:, None], Y[:, None], **RAW)
    assert found == pytest.approx(stats.energy_distance(X, Y), rel=1e-10)


def brute_force_pvalue(X, Y, labels):
    """The definition: all splits, with energy statistics."""
    rows = np.concatenate([X, Y])
    gaps = np.linalg.norm(rows[:, None] - rows, axis=2)

    def statistic(x):
        n, m = x.sum(), (~x).sum()
        return (
            2 * gaps[np.ix_(x, ~x)].mean()
            - gaps[np.ix_(x, x)].sum() / (n * (n - 1))
            - gaps[np.ix_(~x, ~x)].sum() / (m * (m - 1))
        )

    observed = np.arange(len(rows)) < len(X)
    values = np.array([statistic(x) for x in labels])
    return statistic(observed), np.mean(values >= statistic(observed) - 1e-12)


def test_permutations_find_the_exact_pvalue_of_small_samples(rng):
    from itertools import combinations

    X, Y = rng.standard_normal((4, 2)), rng.standard_normal((5, 2)) + 0.8
    labels = [np.isin(np.arange(9), chosen) for chosen in combinations(range(9), 4)]
    statistic, exact = brute_force_pvalue(X, Y, labels)
    found = energy_test(X, Y, n_permutations=4999, **RAW)
    assert found.statistic == pytest.approx(statistic, rel=1e-10)
    assert found.pvalue == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 5000) + 1e-3)


@pytest.mark.parametrize("test", [mmd_test, energy_test])
def test_pvalues_are_uniform_under_equality_and_small_otherwise(test):
    rng = np.random.default_rng(1)
    pvalues = [
        test(*rng.standard_normal((2, 12, 2)), n_permutations=99, random_state=k).pvalue
        for k in range(300)
    ]
    # the share below 0.2 has a standard error of 0.023
    assert np.mean(np.array(pvalues) <= 0.2) == pytest.approx(0.2, abs=0.07)
    X = rng.standard_normal((60, 2))
    assert test(X, 3 * rng.standard_normal((60, 2))).pvalue < 0.01


# --------------------------------------------------------------------- Fréchet


def test_frechet_distance_by_its_formula(rng):
    from scipy.linalg import sqrtm

    X = rng.standard_normal((60, 4)) @ rng.standard_normal((4, 4))
    Y = rng.standard_normal((45, 4)) @ rng.standard_normal((4, 4)) + 1
    A, B = np.cov(X.T), np.cov(Y.T)
    truth = np.sum((X.mean(0) - Y.mean(0)) ** 2) + np.trace(A + B - 2 * sqrtm(A @ B).real)
    assert frechet_distance(X, Y, **RAW) == pytest.approx(truth, rel=1e-9)


def test_frechet_distance_with_fewer_rows_than_columns(rng):
    # two lines through the origin: variances along orthogonal axes do not overlap
    X, Y = np.zeros((2, 5, 30))
    X[:, 0] = Y[:, 1] = [-2, -1, 0, 1, 2]
    assert frechet_distance(X, Y, **RAW) == pytest.approx(2.5 + 2.5, rel=1e-12)


# --------------------------------------------------------------------- classifier


def test_accuracy_of_the_best_classifier_is_the_total_variation():
    # uniform laws that share half of their support: accuracy 1/2 + TV / 2 = 3/4
    rng = np.random.default_rng(0)
    X, Y = rng.uniform(0, 1, (3000, 1)), rng.uniform(0.5, 1.5, (2000, 1))
    found = c2st(X, Y)
    # standard error 0.007; fitted trees lose a little in the half that is a coin toss
    assert 0.73 < found < 0.77


def test_few_rows_are_told_apart_too(rng):
    X = rng.standard_normal((12, 2))
    assert c2st(X, X + 100) == 1.0
    assert c2st(X, X + 100, cv=2) == 1.0


@pytest.mark.parametrize("n", [12, 17, 50])
def test_what_cannot_tell_is_right_half_of_the_time_however_folds_come_out(n, rng):
    from sklearn.dummy import DummyClassifier

    X, Y = rng.standard_normal((2, n, 2))
    assert c2st(X, Y, classifier=DummyClassifier()) == 0.5  # says what most training rows are


def test_any_classifier_and_a_seed(rng):
    from sklearn.linear_model import LogisticRegression

    X, Y = rng.standard_normal((2, 100, 2))
    assert c2st(X, 3 * Y, classifier=LogisticRegression()) < 0.65  # a line cannot see width
    assert c2st(X, 3 * Y) > 0.7
    assert c2st(X, Y) == c2st(X, Y, random_state=0)


# --------------------------------------------------------------------- precision and coverage


def test_equal_samples_and_far_ones(rng):
    X = rng.standard_normal((50, 3))
    assert precision_recall_coverage(X, X)[:2] == (1.0, 1.0)
    assert precision_recall_coverage(X, X + 50) == (0, 0, 0, 0)


def test_by_definition(rng):
    X, Y, k = rng.standard_normal((30, 2)), 1.4 * rng.standard_normal((20, 2)), 3
    gaps = np.linalg.norm(X[:, None] - Y, axis=2)
    x_radius = np.sort(np.linalg.norm(X[:, None] - X, axis=2), axis=1)[:, k]
    y_radius = np.sort(np.linalg.norm(Y[:, None] - Y, axis=2), axis=1)[:, k]
    inside = gaps <= x_radius[:, None]
    found = precision_recall_coverage(X, Y, n_neighbors=k, **RAW)
    assert found.precision == inside.any(0).mean()
    assert found.recall == (gaps <= y_radius).any(1).mean()
    assert found.density == pytest.approx(inside.sum() / (k * 20), rel=1e-12)
    assert found.coverage == inside.any(1).mean()


def test_equal_laws_have_density_one_and_the_expected_coverage():
    rng = np.random.default_rng(0)
    found = [
        precision_recall_coverage(
            rng.exponential(size=(60, 2)), rng.exponential(size=(40, 2)), n_neighbors=3, **RAW
        )
        for _ in range(200)
    ]
    density, coverage = (np.array([getattr(f, k) for f in found]) for k in ("density", "coverage"))
    # within four standard errors of the exact means
    assert density.mean() == pytest.approx(1, abs=4 * density.std() / np.sqrt(200))
    truth = expected_coverage(60, 40, 3)
    assert coverage.mean() == pytest.approx(truth, abs=4 * coverage.std() / np.sqrt(200))


def test_expected_coverage_needs_more_rows_than_neighbours():
    with pytest.raises(ValueError, match="n must be an integer of at least 6; got 5"):
        expected_coverage(5, 10)
    with pytest.raises(ValueError, match="m must be an integer of at least 1; got 0"):
        expected_coverage(10, 0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_rows_whose_squares_are_no_numbers_are_refused(distance):
    X = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(ValueError, match=r"generated holds .* bring generated to other units"):
        distance(X, 1e160 * X)


# --------------------------------------------------------------------- memorisation


def test_copies_are_found_and_fresh_rows_are_not():
    rng = np.random.default_rng(0)
    train, fresh, holdout = rng.standard_normal((3, 600, 3))
    copied = memorisation(train, train + 1e-6, holdout)
    assert copied.ratio < 1e-4 and copied.closer_to_train == 1.0 and copied.copies > 0.99
    honest = memorisation(train, fresh, holdout)
    # a share of 600 rows has a standard error of 0.02
    assert honest.closer_to_train == pytest.approx(0.5, abs=0.08)
    assert honest.copies == pytest.approx(honest.holdout_copies, abs=0.04)
    assert honest.ratio == pytest.approx(1, abs=0.15)


def test_rows_that_all_sets_share_are_no_copies():
    few = np.random.default_rng(0).standard_normal((4, 2))
    found = memorisation(np.tile(few, (5, 1)), few, np.tile(few, (3, 1)))
    assert found.ratio == 1.0 and found.closer_to_train == 0.5 and found.copies == 0.0


def test_unequal_sets_are_thinned_to_be_fair():
    rng = np.random.default_rng(0)
    train, fresh = rng.standard_normal((2, 2000, 2))
    found = memorisation(train, fresh, rng.standard_normal((200, 2)))
    assert found.closer_to_train == pytest.approx(0.5, abs=0.08)  # thinned rows differ by chance


def test_distance_to_closest_record_in_the_units_of_the_training_rows():
    train = np.array([[-1.0, 0.0], [1.0, 200.0]])
    found = distance_to_closest_record(train, [[1.0, 300.0], [-1.0, 0.0]])
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-12)
