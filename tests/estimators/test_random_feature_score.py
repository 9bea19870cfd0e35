"""RandomFeatureScore: least squares in closed form, its training path, and its errors."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_moons
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import GaussianScore, RandomFeatureScore
from skdiffusion.models import EmpiricalModel
from skdiffusion.utils.estimator_checks import check_score_estimator

IRIS = load_iris().data
MOONS = make_moons(200, noise=0.1, random_state=0)[0]
SMALL = {"n_features": 30, "n_levels": 6, "random_state": 0}


def fitted(X=IRIS, **params):
    return RandomFeatureScore(**{**SMALL, **params}).fit(X)


# ------------------------------------------------------------------ the contract


@pytest.mark.foreign_state
@parametrize_with_checks(
    [
        # penalties that keep the field smooth: its flow is followed some hundred times
        RandomFeatureScore(20, n_levels=5, alpha=30.0),
        RandomFeatureScore(
            20, n_levels=5, alpha=30.0, feature_map="relu", joint=True, flow_time=10.0
        ),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"joint": True},
        {"feature_map": "relu", "joint": True, "alpha": 30.0},
    ],
    ids=str,
)
def test_score_estimator_contract(params):
    check_score_estimator(RandomFeatureScore(20, n_levels=8, **params))


# ------------------------------------------------------------------ least squares


def drawn_problem(est, X, level_index, n_draws, rng):
    """Features and targets of noised rows at one level of training, by their definition."""
    setting = est._setting
    level = setting.levels[level_index]
    rows = np.repeat(setting.inward(X), n_draws, axis=0)
    noised = rows + level * rng.standard_normal(rows.shape)
    around = setting.features.coefficients(level, noised)
    return setting.features(noised, level), (rows - around.skip * noised) / around.out


@pytest.mark.parametrize("parameterization", ["data", "noise", "gaussian"])
@pytest.mark.parametrize("feature_map", ["cos", "relu"])
def test_normal_equations_are_those_of_many_draws(feature_map, parameterization, rng):
    X = IRIS[::10]
    est = fitted(X, feature_map=feature_map, parameterization=parameterization)
    equations = est._spectrum.equations(est._moments.weight, est._second)
    for k in (0, 2, 5):
        weight = est._setting.loss_weights[k]
        values, targets = drawn_problem(est, X, k, 4000, rng)
        for exact, products in (
            (equations.gram[k] / equations.total, values[:, :, None] * values[:, None, :5]),
            (equations.cross[k] / equations.total, targets[:, :, None] * values[:, None, :5]),
        ):
            error = products.std(0) / len(values) ** 0.5
            gap = np.abs(exact[:, :5] / weight - products.mean(0))
            # 150 entries at five standard errors; Mehler's series of parallel ReLUs
            assert (gap <= 5 * error + 3e-4).all()
        second = (targets**2).sum(1)
        error = second.std() / len(second) ** 0.5
        assert abs(equations.second[k] / equations.total / weight - second.mean()) < 5 * error


def test_loss_is_that_of_the_denoiser(rng):
    est = fitted(IRIS, parameterization="data", weight="data")
    error = 0.0
    for level in est.levels_:
        noise = level * rng.standard_normal((400, *IRIS.shape))
        denoised = est.denoise((IRIS + noise).reshape(-1, 4), level)
        squared = (denoised - np.tile(IRIS, (400, 1))) ** 2
        error += squared.sum(1).mean() / len(est.levels_)
    # 60,000 draws per level
    assert est.denoising_loss(IRIS) == pytest.approx(error / est.scale_**2, rel=5e-3)


@pytest.mark.parametrize("joint", [False, True])
def test_flow_is_the_limit_of_small_gradient_steps(joint):
    est = fitted(joint=joint, flow_time=3.0, init_scale=0.5, alpha=0.01 * len(IRIS))
    equations = est._spectrum.equations(est._moments.weight, est._second)
    gram, cross = equations.gram / equations.total, equations.cross / equations.total
    matrices, errors = est.coefficients_.reshape(cross.shape), []
    for n_steps in (2000, 4000):
        step, moved = 3.0 / n_steps, est._setting.start.copy()
        for _ in range(n_steps):
            moved = moved - 2 * step * (moved @ gram - cross + 0.01 * moved)
        errors.append(np.abs(moved - matrices).max())
    # Euler's method has order one
    assert errors[0] < 0.01
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.02)


def test_ends_of_the_path():
    est = fitted(init_scale=1.0, alpha=0.0)
    start, end = est.path([0.0, np.inf])
    np.testing.assert_allclose(start.model.coefficients, est._setting.start, atol=1e-12)
    np.testing.assert_array_equal(end.model.coefficients, est.coefficients_)
    equations = est._spectrum.equations(est._moments.weight, est._second)
    for k in range(6):
        gram, cross = equations.gram[k] / equations.total, equations.cross[k] / equations.total
        fixed = est.coefficients_[k] @ gram - cross
        assert np.abs(fixed).max() < 1e-9
    ridge = fitted(alpha=0.1 * len(IRIS))
    equations = ridge._spectrum.equations(ridge._moments.weight, ridge._second)
    solved = np.linalg.solve(equations.gram / equations.total + 0.1 * np.eye(30),
                             (equations.cross / equations.total).transpose(0, 2, 1))  # fmt: skip
    np.testing.assert_allclose(ridge.coefficients_, solved.transpose(0, 2, 1), atol=1e-10)


def test_one_decomposition_is_every_fit():
    est = fitted()
    for time, model in zip([0.3, 30.0], est.path([0.3, 30.0]), strict=True):
        again = fitted(flow_time=time)
        np.testing.assert_array_equal(model.denoise(IRIS, 0.4), again.denoise(IRIS, 0.4))


@pytest.mark.parametrize("joint", [False, True])
def test_training_loss_never_rises(joint):
    est = fitted(MOONS, joint=joint, alpha=0.0, init_scale=1.0)
    losses = est.denoising_loss(MOONS, np.append(np.geomspace(1e-2, 1e6, 40), np.inf))
    assert (np.diff(losses) <= 1e-12 * losses[0]).all()
    assert losses[-1] < 0.9 * losses[0]


def test_untrained_features_leave_the_linear_denoiser():
    untrained, gaussian = fitted(flow_time=0.0), GaussianScore().fit(IRIS)
    for level in (0.1, 1.0, 10.0):
        np.testing.assert_allclose(
            untrained.denoise(IRIS, level), gaussian.denoise(IRIS, level), atol=1e-9
        )


def test_timescales_are_those_of_the_loss():
    # along one eigenvector the excess loss falls by e^-2 in its time scale
    est = fitted(MOONS, joint=True, alpha=0.0)
    axes, cross, values = (
        est._spectrum.axes[0], est._spectrum.cross[0], est._spectrum.values[0],
    )  # fmt: skip
    np.testing.assert_allclose(est.spectrum_[0], values[::-1])
    np.testing.assert_allclose(est.timescales_[0], 0.5 / est.spectrum_[0])
    time = est.timescales_[0, 0]
    (after,) = est.path([time])
    along = after.model.coefficients @ axes[:, -1]
    np.testing.assert_allclose(along, cross[:, -1] / values[-1] * (1 - np.exp(-1)), atol=1e-10)


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize("joint", [False, True])
def test_error_is_the_sum_of_its_parts(joint, rng):
    X = MOONS[:60]
    est = fitted(X, joint=joint, flow_time=5.0, parameterization="data", sigma_min=0.1)
    directions = np.array([[1.0, 0.0], [0.6, -0.8]])
    parts = est.error_decomposition(X, directions, n_noise=200)
    total = parts.architecture + parts.optimisation
    exact, squared = EmpiricalModel(X), []
    for level, weight in zip(est.levels_, est._setting.loss_weights, strict=True):
        noised = np.tile(X, (400, 1)) + level * rng.standard_normal((400 * 60, 2))
        gap = (est.denoise(noised, level) - exact.denoise(noised, level)) @ directions.T
        squared.append(weight * gap**2 / est.scale_**2)
    # 24,000 draws here, and as many in the architecture part
    measured, error = np.mean(squared, axis=1), np.std(squared, axis=1) / 24_000**0.5
    if joint:
        measured, error = measured.mean(0), np.linalg.norm(error, axis=0) / len(est.levels_)
    assert (np.abs(total - measured) <= 5 * 2**0.5 * error + 1e-9).all()


def test_decomposition_is_that_of_the_loss():
    est = fitted(MOONS, flow_time=20.0)
    parts = est.error_decomposition(MOONS, n_noise=1)
    least = fitted(MOONS, alpha=0.0)
    excess = est.denoising_loss(MOONS) - least.denoising_loss(MOONS)
    assert parts.optimisation.sum() / 6 == pytest.approx(excess, rel=1e-5)
    whole = least.error_decomposition(MOONS, n_noise=1).optimisation
    assert np.abs(whole).max() < 1e-12
    np.testing.assert_array_equal(parts.levels, est.levels_)


@pytest.mark.parametrize("feature_map", ["cos", "relu"])
@pytest.mark.parametrize("time", [None, 7.0])
def test_nothing_is_learned_where_the_rows_have_no_extent(feature_map, time, rng):
    # v.x = 0 for all rows: A v = 0 after any time, and no architecture error
    normal = np.array([0.6, -0.8, 0.0])
    plane = rng.standard_normal((40, 3))
    X = plane - np.outer(plane @ normal, normal)
    est = fitted(
        X, feature_map=feature_map, flow_time=time, alpha=0.0, parameterization="data",
        sigma_min=0.05, joint=True,
    )  # fmt: skip
    noised = X + rng.standard_normal(X.shape)
    np.testing.assert_allclose(est.denoise(noised, 1.0) @ normal, 0.0, atol=1e-9)
    parts = est.error_decomposition(X, normal[None], n_noise=1)
    assert parts.architecture.max() < 1e-15
    assert parts.optimisation.max() < 1e-15


def test_normal_error_is_optimisation_error_from_any_start(rng):
    # from coefficients that are not zero the normal error is there, and decays to nothing
    X = np.column_stack([np.repeat([-3.0, 3.0], 20), np.zeros(40)])
    est = fitted(X, joint=True, init_scale=1.0, alpha=0.0, parameterization="data", sigma_min=0.3)
    parts = est.error_decomposition(X, times=[0.0, 10.0, 1e3, 1e6], n_noise=2)
    assert parts.architecture[0, 1] < 1e-12
    normal = parts.optimisation[:, 0, 1]
    assert (np.diff(normal) < 0).all()
    assert normal[-1] < 1e-4 * normal[0]
    (now,) = est.set_params(flow_time=10.0).fit(X).error_decomposition(X, n_noise=2).optimisation
    np.testing.assert_allclose(now, parts.optimisation[1, 0], rtol=1e-9)


# ------------------------------------------------------------------ the rest


@pytest.mark.parametrize("joint", [False, True])
def test_batches_are_the_rows_together(joint, rng):
    # the mirror image has the same mean and covariance, hence the same coordinates
    X = MOONS[:100]
    mirrored = 2 * X.mean(0) - X
    params = {"joint": joint}
    whole = fitted(np.vstack([X, mirrored]), **params)
    parts = RandomFeatureScore(**{**SMALL, **params}).partial_fit(X).partial_fit(mirrored)
    np.testing.assert_allclose(parts.denoise(X, 0.3), whole.denoise(X, 0.3), atol=1e-8)
    np.testing.assert_allclose(parts.spectrum_, whole.spectrum_, atol=1e-10)
    assert np.abs(parts.denoise(X, 0.3) - fitted(X, **params).denoise(X, 0.3)).max() > 1e-3


def test_a_wider_batch_keeps_the_noise_levels_of_the_first():
    est = RandomFeatureScore(**SMALL).partial_fit(IRIS)
    levels = est.levels_
    est.partial_fit(IRIS[:75] * 3)
    np.testing.assert_array_equal(est.levels_, levels)
    np.testing.assert_allclose([est.sigma_min_, est.sigma_max_], levels[[0, -1]])
    assert np.isfinite(est.sample(5, random_state=0)).all()
    assert np.isfinite(est.score(IRIS[:20]))


def test_weights_repeat_and_remove_rows(rng):
    weights = rng.integers(0, 3, len(IRIS))
    params = SMALL
    weighted = RandomFeatureScore(**params).fit(IRIS, sample_weight=weights)
    repeated = RandomFeatureScore(**params).fit(np.repeat(IRIS, weights, axis=0))
    np.testing.assert_allclose(weighted.denoise(IRIS, 0.3), repeated.denoise(IRIS, 0.3), atol=1e-8)


def test_units_and_place_of_the_rows_do_not_matter():
    one, two = fitted(IRIS), fitted(1e4 * IRIS + 3e4)
    np.testing.assert_allclose(
        two.denoise(1e4 * IRIS + 3e4, 5e3), 1e4 * one.denoise(IRIS, 0.5) + 3e4, rtol=1e-7
    )


def test_weight_names_agree_with_callables():
    for name, power in (("data", 0), ("noise", 2), ("score", 4)):
        named = fitted(joint=True, weight=name)
        called = fitted(joint=True, weight=lambda sigma, power=power: sigma**-power)
        np.testing.assert_allclose(named.coefficients_, called.coefficients_, atol=1e-10)
    auto = fitted(joint=True, parameterization="noise")
    noise = fitted(joint=True, parameterization="noise", weight="noise")
    np.testing.assert_allclose(auto.coefficients_, noise.coefficients_, atol=1e-10)


def test_features_of_the_level_change_within_its_scale():
    # cosines of rates N(0, 1/s^2) have the Gaussian correlation exp(-(log ratio)^2 / 2 s^2)
    for scale in (0.3, 2.0):
        est = fitted(joint=True, n_features=500, n_levels=2, length_scale=1e6, level_scale=scale)
        features, origin = est._setting.features, np.zeros((1, 4))
        for ratio in (1.0, 1.5):
            correlation = np.sum(features(origin, 0.5) * features(origin, 0.5 * ratio))
            # five standard errors of a mean of 500
            expected = np.exp(-0.5 * (np.log(ratio) / scale) ** 2)
            assert correlation == pytest.approx(expected, abs=5 / 500**0.5)


def test_held_out_rows_are_denoised_better_than_by_a_gaussian():
    X = make_moons(1000, noise=0.05, random_state=1)[0]
    train, test = train_test_split(X, random_state=0)
    est = RandomFeatureScore(100, n_levels=16, random_state=0).fit(train)
    bound = est.denoising_bound(test[:60], n_noise=8)
    gap = bound.score - GaussianScore().fit(train).score(test[:60])
    # measured 1.2 nats per row
    assert gap > 0.8


@pytest.mark.parametrize(
    "X",
    [make_moons(600, noise=0.05, random_state=1)[0], load_wine().data, load_breast_cancer().data],
)
def test_the_default_length_suits_few_columns_and_many(X):
    train, test = train_test_split(StandardScaler().fit_transform(X), random_state=0)

    def bound(length):
        est = RandomFeatureScore(100, n_levels=8, length_scale=length, random_state=0).fit(train)
        return est.denoising_bound(test, n_noise=8).score

    # measured 0.18, 0.29 and 0.95 nats, of standard errors below 0.01
    length = min(X.shape[1] / 6, X.shape[1] ** 0.5)
    assert bound("auto") == pytest.approx(bound(length), abs=1e-9)
    assert bound("auto") > max(bound(length / 2), bound(2 * length)) + 0.1


def test_grid_search_and_persistence():
    est = RandomFeatureScore(**SMALL)
    search = GridSearchCV(est, {"alpha": [1.0, 1e5]}, n_jobs=2, cv=2).fit(MOONS[:100])
    assert search.best_params_["alpha"] == 1.0
    best = search.best_estimator_
    # alpha is beside a sum over rows: twice the rows, twice the penalty
    again = pickle.loads(pickle.dumps(best)).set_params(alpha=2.0).partial_fit(MOONS[:100])
    np.testing.assert_allclose(again.denoise(MOONS, 0.3), best.denoise(MOONS, 0.3), atol=1e-7)


@pytest.mark.parametrize(
    "params, match",
    [
        ({"n_features": 0}, "n_features must be an integer of at least 1"),
        ({"n_levels": 1}, "n_levels must be an integer of at least 2"),
        ({"feature_map": "sin"}, "Unknown feature_map 'sin'.*'cos'"),
        ({"length_scale": 0.0}, "length_scale must be"),
        ({"length_scale": "median"}, "Unknown length_scale 'median'.*a positive number"),
        ({"parameterization": "x0"}, "Unknown parameterization 'x0'"),
        ({"parameterization": "mixture"}, "parameterization='mixture' is NeuralScore's alone"),
        ({"weight": "snr"}, "Unknown weight 'snr'.*a callable"),
        ({"weight": lambda sigma: 1.0}, "must return one positive number per level"),
        ({"level_scale": 0.0}, "level_scale must be"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"flow_time": -1.0}, "flow_time must be"),
        ({"init_scale": -1.0}, "init_scale must be"),
        ({"likelihood": "exact"}, "Unknown likelihood"),
    ],
)
def test_what_is_refused(params, match):
    with pytest.raises(ValueError, match=match):
        RandomFeatureScore(**params).fit(IRIS)


def test_what_is_refused_of_a_fitted_one():
    est = fitted()
    with pytest.raises(ValueError, match="times must be"):
        est.path([-1.0])
    with pytest.raises(ValueError, match=r"directions must have shape \(n_directions, 4\)"):
        est.error_decomposition(IRIS, [[1.0, 0.0]])
    with pytest.raises(ValueError, match="directions must be finite"):
        est.error_decomposition(IRIS, [[1.0, 0.0, np.nan, 0.0]])
    with pytest.raises(ValueError, match="n_noise must be"):
        est.error_decomposition(IRIS, n_noise=0)
