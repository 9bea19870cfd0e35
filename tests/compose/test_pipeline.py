"""DensityPipeline: change of variables, samples through the inverses, tables kept."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import special, stats
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from skdiffusion import GaussianScore, GMMScore, NeuralScore
from skdiffusion.compose import (
    DensityPipeline,
    TableEncoder,
    log_abs_det_jacobian,
    make_density_pipeline,
)
from skdiffusion.compose.jacobians import numerical_log_det
from skdiffusion.models import LinearMeasurement
from skdiffusion.utils.drawing import draw_rows

IRIS = load_iris().data[np.random.default_rng(0).permutation(150)]
WINE = load_wine().data
POSITIVE = np.exp(np.random.default_rng(0).standard_normal((60, 3))) * [0.1, 1.0, 50.0]
LINEAR = [
    StandardScaler(),
    StandardScaler(with_std=False),
    MinMaxScaler((-3, 1e-3)),
    MaxAbsScaler(),
    RobustScaler(unit_variance=True),
    RobustScaler(with_scaling=False),
    PCA(),
    PCA(whiten=True),
    FunctionTransformer(),
    "passthrough",
]


def double(X):
    return 2 * X


double.log_abs_det_jacobian = lambda X: X.shape[1] * np.log(2)


# --------------------------------------------------------------------- Jacobians


@pytest.mark.parametrize("scaler", [s for s in LINEAR if s != "passthrough"], ids=str)
def test_a_gaussian_has_one_density_whatever_linear_map_comes_first(scaler):
    # maximum likelihood is equivariant: no share of the variances is added
    density = GaussianScore(reg_covar=0.0)
    direct = clone(density).fit(WINE).score_samples(WINE)
    found = make_density_pipeline(scaler, density).fit(WINE).score_samples(WINE)
    np.testing.assert_allclose(found, direct, atol=1e-8)


def test_chains_of_linear_maps(rng):
    density = GaussianScore(reg_covar=0.0)
    chain = DensityPipeline(
        [
            ("robust", RobustScaler()),
            ("nothing", "passthrough"),
            ("inner", make_pipeline(PCA(whiten=True), MinMaxScaler())),
            ("twice", FunctionTransformer(double)),
            ("density", density),
        ]
    )
    direct = clone(density).fit(WINE)
    np.testing.assert_allclose(
        chain.fit(WINE).score_samples(WINE), direct.score_samples(WINE), atol=1e-8
    )
    assert chain.score(WINE) == pytest.approx(direct.score(WINE), abs=1e-9)


FUNCTIONS = [
    np.log,
    np.log1p,
    np.log2,
    np.log10,
    np.exp,
    np.expm1,
    np.sqrt,
    np.cbrt,
    np.square,
    np.arcsinh,
    np.sinh,
    np.tanh,
    np.arctanh,
    special.logit,
    special.expit,
]
NONLINEAR = [
    *(FunctionTransformer(f) for f in FUNCTIONS),
    PowerTransformer(),
    PowerTransformer("box-cox"),
    PowerTransformer(standardize=False),
    FunctionTransformer(double),
    MinMaxScaler(clip=True),
    ColumnTransformer([("log", FunctionTransformer(np.log), [2]), ("a", RobustScaler(), [0, 1])]),
]


@pytest.mark.parametrize("transformer", NONLINEAR, ids=lambda t: type(t).__name__)
def test_closed_forms_are_what_differences_find(transformer, rng):
    X = rng.uniform(0.05, 0.95, (60, 3))
    transformer = transformer.fit(np.vstack([X, X * 0.9, X * 1.05]))
    differences = numerical_log_det(transformer, X)
    # extrapolated differences: a relative error of about 1e-12 per column where a map is smooth
    # at that scale, of 1e-10 where it is not
    np.testing.assert_allclose(log_abs_det_jacobian(transformer, X), differences, atol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
def test_power_transformer_far_from_the_origin(method, offset, rng):
    # an offset makes the fitted powers large, either way
    X = offset + 1 + np.column_stack([rng.gamma(2.0, 5.0, 400), 60 - rng.gamma(2.0, 5.0, 400)])
    transformer = PowerTransformer(method).fit(X)
    some = X[:20]
    differences = numerical_log_det(transformer, some, X.std(0))
    found = log_abs_det_jacobian(transformer, some)
    # large powers cost the transformer digits, which differences feel
    np.testing.assert_allclose(found, differences, atol=2e-4 if offset else 1e-8)


def test_the_density_of_a_lognormal_law():
    pipeline = make_density_pipeline(
        FunctionTransformer(np.log, np.exp),
        GaussianScore(),
    )
    pipeline.fit(POSITIVE)
    mean, spread = np.log(POSITIVE).mean(0), np.cov(np.log(POSITIVE).T, bias=True)
    truth = stats.multivariate_normal(mean, spread).logpdf(np.log(POSITIVE))
    truth -= np.log(POSITIVE).sum(1)
    np.testing.assert_allclose(pipeline.score_samples(POSITIVE), truth, atol=1e-4)  # reg_covar


class Unknown(TransformerMixin, BaseEstimator):
    """Independent components behind a type that nothing is known of."""

    def fit(self, X, y=None):
        self.ica_ = FastICA(random_state=0, whiten="unit-variance").fit(X)
        return self

    def transform(self, X):
        return self.ica_.transform(X)

    def inverse_transform(self, X):
        return self.ica_.inverse_transform(X)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_quantiles_have_the_slope_of_their_segment(distribution, rng):
    X = rng.gamma(2.0, size=(400, 3))
    transformer = QuantileTransformer(n_quantiles=20, output_distribution=distribution).fit(X)
    low, high = np.quantile(X, [0.06, 0.94], axis=0)
    inside = X[((low < X) & (high > X)).all(axis=1)]
    # differences across a knot see two slopes: away from them they see one
    knots = transformer.quantiles_
    near = np.abs(inside[:, None] - knots).min(axis=1).min(axis=1)
    inside = inside[near > 5e-3]
    assert len(inside) > 100
    np.testing.assert_allclose(
        log_abs_det_jacobian(transformer, inside), numerical_log_det(transformer, inside), atol=1e-6
    )
    beyond = inside[:1].copy()
    beyond[0, 2] = 1e3
    assert log_abs_det_jacobian(transformer, beyond)[0] == -np.inf
    # a column of few values has no density, however large the slope at one of them looks
    X[:, 1] = np.round(X[:, 1])
    with pytest.raises(ValueError, match="equal quantiles in column 1"):
        log_abs_det_jacobian(QuantileTransformer(n_quantiles=20).fit(X), X)


def test_independent_components_are_a_linear_map():
    ica = FastICA(random_state=0, whiten="unit-variance")
    units = np.array([1e-6, 1.0, 1e3, 1e7])
    pipeline = make_density_pipeline(ica, GaussianScore(reg_covar=0.0)).fit(IRIS * units)
    direct = GaussianScore(reg_covar=0.0).fit(IRIS * units)
    np.testing.assert_allclose(
        pipeline.score_samples(IRIS * units), direct.score_samples(IRIS * units), atol=1e-8
    )


def test_what_is_unknown_is_differentiated_at_the_scale_of_the_columns():
    units = np.array([1e-6, 1.0, 1e3, 1e7])
    pipeline = make_density_pipeline(Unknown(), GaussianScore(reg_covar=0.0)).fit(IRIS * units)
    direct = GaussianScore(reg_covar=0.0).fit(IRIS * units)
    np.testing.assert_allclose(
        pipeline.score_samples(IRIS * units), direct.score_samples(IRIS * units), atol=1e-8
    )
    alone = pipeline.score_samples(IRIS[:1] * units)
    np.testing.assert_allclose(alone, pipeline.score_samples(IRIS * units)[:1], atol=1e-9)


def nested_in(shape, step):
    """A transformer of all columns as a part of another."""
    if shape == "pipeline":
        return make_pipeline(FunctionTransformer(), step)
    if shape == "columns":
        return ColumnTransformer([("one", step, [1]), ("other", clone(step), [0])])
    inner = ColumnTransformer([("both", make_pipeline(step, StandardScaler()), [1, 0])])
    return make_pipeline(inner, FunctionTransformer())


@pytest.mark.parametrize("shape", ["pipeline", "columns", "deeper"])
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_what_is_unknown_is_differentiated_at_the_scale_of_its_columns_wherever_it_is(
    shape, unit, rng
):
    X = unit * np.column_stack([rng.standard_normal(300), 2 + rng.standard_normal(300)])
    step = FunctionTransformer(lambda x: np.sinh(x / unit), lambda z: unit * np.arcsinh(z))
    pipeline = make_density_pipeline(nested_in(shape, step), GaussianScore()).fit(X)
    found = pipeline.score_samples(X) - pipeline[-1].score_samples(pipeline[:-1].transform(X))
    truth = np.log(np.cosh(X / unit)).sum(axis=1) - 2 * np.log(unit)
    if shape == "deeper":
        truth -= np.log(np.sinh(X / unit).std(axis=0)).sum()
    np.testing.assert_allclose(found, truth, rtol=1e-7)
    alone = pipeline.score_samples(X[:1])
    np.testing.assert_allclose(alone, pipeline.score_samples(X)[:1], rtol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("of", ["distances", "numbers"])
def test_functions_behind_an_offset_are_differentiated_too(offset, of, rng):
    X = offset + 1 + np.abs(rng.standard_normal((200, 1)))
    if of == "distances":
        step = FunctionTransformer(lambda x: np.sinh(x - offset))
        truth = np.log(np.cosh(X[:, 0] - offset))
    else:
        step = FunctionTransformer(lambda x: x * np.log(x))
        truth = np.log1p(np.log(X[:, 0]))
    pipeline = make_density_pipeline(step, GaussianScore()).fit(X)
    found = pipeline.score_samples(X) - pipeline[-1].score_samples(step.transform(X))
    # the numbers themselves are rounded to 1e-16 of the offset, a step is 1e-3 of their spread
    np.testing.assert_allclose(found, truth, atol=1e-5)


def test_columns_that_are_dropped_have_samples_of_what_is_left_refused_later(rng):
    dropping = ColumnTransformer([("some", FunctionTransformer(np.sinh), [0])])
    strange = FunctionTransformer(lambda x: np.sinh(x), lambda z: np.arcsinh(z))
    pipeline = make_density_pipeline(dropping, strange, GaussianScore())
    pipeline.fit(rng.standard_normal((50, 2)))
    with pytest.raises(ValueError, match="drops the columns"):
        pipeline.score_samples(rng.standard_normal((3, 2)))


def test_sorted_rows_have_the_scale_of_all(rng):
    X = 1e-9 * np.sort(np.abs(rng.standard_normal((3000, 1))), axis=0)
    X[:1500] = 0.0  # such as a column that only one class has
    step = FunctionTransformer(lambda x: np.sinh(1e9 * x), lambda z: 1e-9 * np.arcsinh(z))
    pipeline = make_density_pipeline(step, GMMScore(2, random_state=0)).fit(X)
    found = pipeline.score_samples(X[2000:]) - pipeline[-1].score_samples(np.sinh(1e9 * X[2000:]))
    truth = np.log(1e9 * np.cosh(1e9 * X[2000:, 0]))
    np.testing.assert_allclose(found, truth, rtol=1e-7)


def test_a_function_of_words_still_samples():
    table = pd.DataFrame({"team": ["red", "blue"] * 20, "age": np.arange(40.0)})
    step = FunctionTransformer(
        lambda t: t.assign(age=t["age"] + 1), lambda t: t, check_inverse=False
    )
    pipeline = make_density_pipeline(step, TableEncoder(), GMMScore(2, random_state=0))
    assert set(pipeline.fit(table).sample(9, random_state=0)["team"]) <= {"red", "blue"}


def test_a_transformer_of_ones_own():
    class Shear(FunctionTransformer):
        def transform(self, X):
            return np.asarray(X) @ np.array([[2.0, 1.0], [0.0, 3.0]])

        def log_abs_det_jacobian(self, X):
            return np.log(6.0)

    shear = Shear().fit(IRIS[:, :2])
    assert log_abs_det_jacobian(shear, IRIS[:, :2]) == pytest.approx(np.log(6.0))
    assert numerical_log_det(shear, IRIS[:, :2]) == pytest.approx(np.log(6.0))


@pytest.mark.parametrize(
    "step, words",
    [
        (PCA(2), "PCA maps 4 columns to 2.*noise='residual'"),
        (FastICA(2, random_state=0), "maps 4 columns to 2"),
        (OneHotEncoder(), "no density"),
        (OrdinalEncoder(), "no density"),
        (Normalizer(), "loses a dimension"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_has_no_determinant_is_refused_in_a_sentence(step, words):
    if isinstance(step, OneHotEncoder):
        step.set_params(sparse_output=False)
    pipeline = make_density_pipeline(step, GaussianScore("oas")).fit(IRIS)
    with pytest.raises(ValueError, match=words):
        pipeline.score_samples(IRIS)


# --------------------------------------------------------------------- searches


def test_a_search_does_not_prefer_a_scaler_by_its_units():
    """The demonstration: standard deviations 1, 10 and 100 in three columns."""
    X = np.random.default_rng(0).standard_normal((300, 3)) * [1.0, 10.0, 100.0]
    scalers = [
        "passthrough",
        StandardScaler(),
        PCA(whiten=True),
        MinMaxScaler(),
        MinMaxScaler((0, 1e-3)),
        PowerTransformer(),
    ]
    steps = [("scale", None), ("density", GaussianScore())]
    ours = GridSearchCV(DensityPipeline(steps), {"scale": scalers}, cv=3).fit(X)
    theirs = GridSearchCV(Pipeline(steps), {"scale": scalers}, cv=3).fit(X)
    assert theirs.best_params_["scale"] is scalers[4]  # by some thirty nats that mean nothing
    scores = ours.cv_results_["mean_test_score"]
    # the same law for every linear scaler; the power has a parameter per column to estimate
    np.testing.assert_allclose(scores[:5], scores[0], atol=1e-4)
    assert abs(scores[5] - scores[0]) < 0.05


def test_grid_over_steps_and_parameters_in_two_processes():
    pipeline = make_density_pipeline(StandardScaler(), GMMScore(random_state=0))
    grid = {"gmmscore__n_components": [1, 3], "standardscaler": [RobustScaler(), "passthrough"]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(IRIS)
    assert search.best_params_["gmmscore__n_components"] == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_quantiles_have_no_density_outside_the_rows_they_know():
    X = np.random.default_rng(0).gamma(2.0, size=(200, 3))
    pipeline = make_density_pipeline(QuantileTransformer(n_quantiles=50), GaussianScore()).fit(X)
    assert pipeline.score_samples(X.max(0, keepdims=True) + 1) == -np.inf


def test_densities_of_scikit_learn():
    scaled = StandardScaler().fit(IRIS)
    units = np.log(scaled.scale_).sum()
    for density in (GaussianMixture(2, random_state=0), KernelDensity(leaf_size=150)):
        pipeline = make_density_pipeline(StandardScaler(), density).fit(IRIS)
        Z = scaled.transform(IRIS)
        theirs = clone(density).fit(Z).score_samples(Z) - units
        np.testing.assert_allclose(pipeline.score_samples(IRIS), theirs, atol=1e-9)
        assert pipeline.score(IRIS) == pytest.approx(theirs.mean(), abs=1e-9)
        assert pipeline.sample(5, random_state=0).shape == (5, 4)


# --------------------------------------------------------------------- a PCA, completed


@pytest.mark.parametrize("whiten", [False, True])
def test_a_completed_pca_with_a_gaussian_is_probabilistic_pca(whiten):
    """scikit-learn's own PCA.score_samples is the density of Tipping & Bishop."""
    pca = PCA(3, whiten=whiten)
    pipeline = make_density_pipeline(pca, GaussianScore(reg_covar=0.0), noise="residual").fit(WINE)
    truth = PCA(3).fit(WINE)
    # the variances of the axes kept are divided by n here and by n - 1 there
    n = len(WINE)
    Z = (WINE - truth.mean_) @ truth.components_.T
    gap = 1.5 * np.log(n / (n - 1)) - 0.5 / (n - 1) * (Z**2 / truth.explained_variance_).sum(1)
    np.testing.assert_allclose(
        pipeline.score_samples(WINE), truth.score_samples(WINE) + gap, atol=1e-8
    )


def test_a_completed_pca_integrates_to_one_and_samples_its_law(rng):
    X = rng.standard_normal((400, 3)) @ rng.standard_normal((3, 3)) + 2
    pipeline = make_density_pipeline(PCA(1), GMMScore(2, random_state=0), noise="residual").fit(X)
    proposal = stats.multivariate_normal(X.mean(0), 2 * np.cov(X.T))
    draws = proposal.rvs(20_000, random_state=0)
    ratios = np.exp(pipeline.score_samples(draws) - proposal.logpdf(draws))
    assert ratios.mean() == pytest.approx(1, abs=4 * ratios.std() / np.sqrt(20_000))
    rows = pipeline.sample(20_000, random_state=0)
    law = PCA(1).fit(X).get_covariance()
    # covariances of a sample of this size have errors below a hundredth of the largest
    np.testing.assert_allclose(np.cov(rows.T), law, atol=0.04 * law.max())


def test_fewer_rows_than_columns_have_their_own_residual_variance(rng):
    X = rng.standard_normal((20, 50))
    pipeline = make_density_pipeline(PCA(5), GaussianScore(), noise="residual").fit(X)
    pca = pipeline[0]
    kept = pca.inverse_transform(pca.transform(X))
    rows = pipeline.sample(2000, random_state=0)
    drawn = rows - pca.inverse_transform(pca.transform(rows))
    truth = ((X - kept) ** 2).sum() / (len(X) - 1)
    assert (drawn**2).sum(1).mean() == pytest.approx(truth, rel=0.02)


# --------------------------------------------------------------------- samples and tables


@pytest.mark.parametrize("scaler", LINEAR, ids=str)
def test_samples_have_the_law_of_the_rows_for_any_scaler(scaler):
    steps = [("scale", scaler), ("density", GaussianScore(reg_covar=0.0))]
    pipeline = DensityPipeline(steps).fit(IRIS)
    rows = pipeline.sample(4000, random_state=0)
    spread = IRIS.std(0)
    # standard errors of means and variances are 1.6 and 2.2 percent
    np.testing.assert_allclose(rows.mean(0) / spread, IRIS.mean(0) / spread, atol=0.07)
    np.testing.assert_allclose(rows.var(0), IRIS.var(0), rtol=0.1)
    np.testing.assert_array_equal(rows[:5], pipeline.sample(4000, random_state=0)[:5])


def test_latent_codes_and_back():
    pipeline = make_density_pipeline(StandardScaler(), PCA(), GaussianScore())
    codes = pipeline.fit_transform(IRIS)
    np.testing.assert_array_equal(codes, pipeline.transform(IRIS))
    np.testing.assert_allclose(pipeline.inverse_transform(codes), IRIS, atol=1e-10)
    np.testing.assert_allclose(np.cov(codes.T, bias=True), np.eye(4), atol=1e-5)


def mixed_frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 60, 80),
            "income": rng.lognormal(3, 1, 80),
            "height": rng.normal(170, 8, 80).astype(np.float32),
        },
    )


@pytest.mark.parametrize("library", [pd, pl])
def test_tables_keep_names_order_types_and_ranges(library):
    frame = mixed_frame()
    table = frame if library is pd else pl.from_pandas(frame)
    pipeline = make_density_pipeline(
        StandardScaler(), GaussianScore(), round_integers=True, clip=True
    )
    rows = pipeline.fit(table).sample(500, random_state=0)
    assert type(rows) is type(table)
    assert list(rows.columns) == list(table.columns)
    assert list(rows.dtypes) == list(table.dtypes)
    for name in table.columns:
        assert table[name].min() <= rows[name].min() <= rows[name].max() <= table[name].max()
    plain = make_density_pipeline(StandardScaler(), GaussianScore()).fit(table)
    rows = plain.sample(500, random_state=0)
    assert "float" in str(rows["age"].dtype).lower()
    assert rows["age"].min() < table["age"].min()
    np.testing.assert_allclose(plain.score_samples(table)[:3], plain.score_samples(table[:3]))


@pytest.mark.parametrize("library", [pd, pl])
def test_whole_numbers_beyond_their_type_are_refused_or_clipped(library, rng):
    table = library.DataFrame({"few": rng.integers(0, 3, 200).astype(np.uint8)})
    pipeline = make_density_pipeline(GMMScore(1), round_integers=True).fit(table)
    with pytest.raises(ValueError, match=r"'few' is of type uint8, which holds no -1.*clip=True"):
        pipeline.sample(500, random_state=0)
    found = pipeline.set_params(clip=True).sample(500, random_state=0)["few"]
    assert str(found.dtype).lower() == "uint8" and set(found.to_list()) == {0, 1, 2}


def test_truth_values_are_numbers_until_they_are_rounded(rng):
    frame = pd.DataFrame({"size": rng.standard_normal(200), "found": rng.random(200) < 0.3})
    for rounded, kind in ((False, "f"), (True, "b")):
        pipeline = make_density_pipeline(
            StandardScaler(), GaussianScore(), round_integers=rounded
        ).fit(frame)
        assert pipeline.sample(50, random_state=0)["found"].dtype.kind == kind
    share = pipeline.sample(4000, random_state=0)["found"].mean()
    # above one half by a normal of the same mean and variance: P(Z > 0.44) = 0.33
    assert abs(share - 0.33) < 0.05


def test_numbers_of_a_categorical_column_are_drawn_as_numbers(rng):
    whole = rng.integers(0, 3, 200)
    table, frame = pd.DataFrame({"kind": pd.Categorical(whole)}), pd.DataFrame({"kind": whole})
    for options in ({}, {"round_integers": True}, {"round_integers": True, "clip": True}):
        drawn, plain = (
            make_density_pipeline(StandardScaler(), GaussianScore(), **options)
            .fit(X)
            .sample(300, random_state=0)["kind"]
            for X in (table, frame)
        )
        np.testing.assert_array_equal(drawn.astype(float), plain)
        known = plain.isin([0, 1, 2]).all()
        assert drawn.dtype == (table["kind"].dtype if known else np.float64)
    assert known  # at last


def test_blocks_of_columns_by_name_come_back_in_their_order():
    frame = mixed_frame()
    blocks = ColumnTransformer(
        [
            (
                "log",
                make_pipeline(FunctionTransformer(np.log, np.exp), StandardScaler()),
                ["income"],
            ),
            ("rest", RobustScaler(), ["height", "age"]),
        ]
    )
    pipeline = make_density_pipeline(blocks, GaussianScore()).fit(frame)
    rows = pipeline.sample(3000, random_state=0)
    assert list(rows.columns) == list(frame.columns)
    np.testing.assert_allclose(rows["height"].mean(), 170, atol=2)
    assert rows["income"].min() > 0
    turned = frame[["income", "age", "height"]]
    order = make_density_pipeline(clone(blocks), GaussianScore()).fit(turned)
    np.testing.assert_allclose(
        pipeline.score_samples(frame), order.score_samples(turned), atol=1e-9
    )


def test_an_inverse_to_other_columns_is_refused():
    step = FunctionTransformer(lambda X: X[:, :2], lambda Z: Z, check_inverse=False)
    with pytest.raises(ValueError, match="give 2 columns, the rows had 4"):
        make_density_pipeline(step, GaussianScore()).fit(IRIS).sample(3)


def test_a_function_without_its_inverse_has_densities_and_no_samples():
    step = FunctionTransformer(np.log)  # whose inverse_transform is the identity
    pipelines = (
        make_density_pipeline(step, GaussianScore()),
        make_density_pipeline(ColumnTransformer([("all", step, [0, 1, 2, 3])]), GaussianScore()),
    )
    for pipeline in pipelines:
        assert np.isfinite(pipeline.fit(IRIS).score(IRIS))
        with pytest.raises(ValueError, match="no inverse_func"):
            pipeline.sample(3)


def test_columns_dropped_or_used_twice_have_no_inverse():
    for blocks, words in (
        (ColumnTransformer([("a", StandardScaler(), [0, 1])]), "drops the columns"),
        (
            ColumnTransformer([("a", StandardScaler(), [0]), ("b", "passthrough", slice(0, 4))]),
            "uses a column twice",
        ),
    ):
        pipeline = make_density_pipeline(blocks, GaussianScore("oas")).fit(IRIS)
        with pytest.raises(ValueError, match=words):
            pipeline.sample(2)
        with pytest.raises(ValueError, match=words):
            pipeline.score_samples(IRIS)


@pytest.mark.parametrize("step", [VarianceThreshold(), SelectKBest(k=4)], ids=str)
def test_columns_that_a_selector_drops_are_not_drawn_as_zeros(step):
    y, five = load_iris().target, np.column_stack([IRIS, np.full(150, 5.0)])
    whole = make_density_pipeline(step, GaussianScore()).fit(IRIS, y)
    plain = make_density_pipeline(GaussianScore()).fit(IRIS)
    np.testing.assert_array_equal(whole.sample(3, random_state=0), plain.sample(3, random_state=0))
    dropped = make_density_pipeline(step, GaussianScore()).fit(five, y)
    words = rf"the {type(step).__name__} drops the columns \[4\]: rows cannot be put together"
    with pytest.raises(ValueError, match=words):
        dropped.sample(3)


def test_the_bound_of_the_pipeline_is_in_the_units_of_the_rows():
    pipeline = make_density_pipeline(MinMaxScaler((0, 1e-3)), GMMScore(2, random_state=0)).fit(IRIS)
    found = pipeline.denoising_bound(IRIS, n_noise=64)
    assert abs(found.score - pipeline.score(IRIS)) < 4 * found.score_std_error + 0.01


# --------------------------------------------------------------------- conditions


def test_labels_reach_a_density_that_knows_them(rng):
    y = np.repeat([0, 1], 60)
    X = rng.standard_normal((120, 2)) + 6 * y[:, None]
    pipeline = make_density_pipeline(StandardScaler(), NeuralScore(max_epochs=2, random_state=0))
    score = pipeline.fit(X, y).score(X, y)
    stretch = np.log(pipeline[0].scale_).sum()
    assert score == pytest.approx(pipeline[-1].score(pipeline[0].transform(X), y) - stretch)
    assert score == pytest.approx(pipeline.denoising_bound(X, y=y).score)
    assert score > pipeline.score(X) + 0.3  # which of two groups it is is worth log 2
    assert make_density_pipeline(GaussianScore()).fit(X, y).score(X, y) < 0  # knows none


@pytest.mark.parametrize("steps", [[StandardScaler()], [PCA(whiten=True), MinMaxScaler()]], ids=str)
def test_a_value_is_known_behind_any_linear_chain(steps):
    density = GaussianScore(reg_covar=0.0)
    pipeline = make_density_pipeline(*steps, density).fit(IRIS)
    rows = pipeline.sample(4000, condition={2: 5.0, 0: 6.5}, random_state=0)
    np.testing.assert_allclose(rows[:, [0, 2]], [[6.5, 5.0]] * 4000, atol=1e-9)
    truth = clone(density).fit(IRIS).sample(4000, condition={2: 5.0, 0: 6.5}, random_state=1)
    # two means of 4000 rows each
    spread = truth.std(0) * np.sqrt(2 / 4000)
    assert (np.abs(rows.mean(0) - truth.mean(0)) < 4 * spread + 1e-9).all()


def test_ranges_and_values_pass_powers_by_name():
    frame = mixed_frame()
    pipeline = make_density_pipeline(PowerTransformer("box-cox"), StandardScaler(), GaussianScore())
    condition = {"income": (20.0, None), "height": 175.0}
    rows = pipeline.fit(frame).sample(300, condition=condition, random_state=0)
    assert rows["income"].min() > 20 - 1e-9
    np.testing.assert_allclose(rows["height"], 175, rtol=1e-6)


def test_lists_of_rows_are_rounded_and_clipped_as_arrays_are(rng):
    rows = [[word, int(k)] for word, k in zip("ab" * 50, rng.integers(0, 4, 100), strict=False)]
    pipeline = make_density_pipeline(
        TableEncoder(), GMMScore(2, random_state=0), round_integers=True, clip=True
    )
    found = pipeline.fit(rows).sample(200, random_state=0)
    assert set(found[:, 1]) == {0, 1, 2, 3} and set(found[:, 0]) == {"a", "b"}
    as_array = pipeline.fit(np.array(rows, dtype=object)).sample(200, random_state=0)
    np.testing.assert_array_equal(found, as_array)


def test_lists_of_rows_have_the_density_of_arrays():
    pipeline = make_density_pipeline(PCA(), StandardScaler(), GaussianScore("oas")).fit(IRIS)
    np.testing.assert_array_equal(
        pipeline.score_samples(IRIS.tolist()), pipeline.score_samples(IRIS)
    )


def test_a_measurement_passes_a_whitened_pca():
    pipeline = make_density_pipeline(PCA(whiten=True), GMMScore(2, random_state=0)).fit(IRIS)
    total = LinearMeasurement(np.ones((1, 4)), [20.0])
    np.testing.assert_allclose(pipeline.sample(20, condition=total).sum(1), 20, atol=1e-9)


def test_a_density_of_scikit_learn_takes_no_condition():
    pipeline = DensityPipeline([("density", GaussianMixture(2, random_state=0))]).fit(IRIS)
    with pytest.raises(TypeError, match="sample of GaussianMixture takes no condition"):
        pipeline.sample(3, condition={0: 5.0})


@pytest.mark.parametrize(
    "step, condition, words",
    [
        (PCA(), {0: (1.0, 2.0)}, "PCA mixes the columns"),
        (PCA(2), {0: 1.0}, "a condition cannot pass PCA"),
        (FastICA(random_state=0), {0: 1.0}, "a condition cannot pass FastICA"),
        (StandardScaler(), {"a": 1.0}, "there is no column 'a'"),
        (
            StandardScaler(),
            {0: "tall"},
            "column 0 must be a finite number; got 'tall'",
        ),
        (StandardScaler(), {0: np.nan}, "the value of column 0 must be a finite number; got nan"),
        (StandardScaler(), {0: ("a", 1.0)}, r"got \('a', 1.0\) for column 0"),
        (MinMaxScaler(clip=True), {0: 100.0}, "saw column 0 from 4.3 to 7.9, and takes 100 for"),
        (QuantileTransformer(n_quantiles=20), {1: 0.0}, "saw column 1 from 2 to 4.4"),
    ],
    ids=str,
)
def test_conditions_that_cannot_pass(step, condition, words):
    pipeline = make_density_pipeline(step, GaussianScore("oas")).fit(IRIS)
    with pytest.raises(ValueError, match=words):
        pipeline.sample(2, condition=condition)


def people(n=600):
    """Ages that depend on the team, incomes on the age."""
    rng = np.random.default_rng(0)
    team = rng.choice(["red", "blue", "green"], n, p=[0.5, 0.3, 0.2])
    age = rng.normal(40, 5, n) + 20.0 * (team == "red")
    return pd.DataFrame({"team": team, "age": age, "income": 100 * age + rng.normal(0, 50, n)})


@pytest.mark.parametrize("density", [GMMScore(3, random_state=0), GaussianScore()], ids=str)
def test_a_number_is_known_of_a_table_as_of_the_encoded_rows(density):
    table = people()
    pipeline = make_density_pipeline(TableEncoder(), StandardScaler(), density).fit(table)
    rows = pipeline.sample(50, condition={"age": 41.3}, random_state=0)
    assert list(rows.columns) == list(table.columns) and (rows.dtypes == table.dtypes).all()
    assert (rows["age"] == 41.3).all()
    encoder, scaler, fitted = (step for _, step in pipeline.steps)
    known = (41.3 - scaler.mean_[3]) / scaler.scale_[3]  # behind three teams
    inner = draw_rows(fitted, 50, np.random.default_rng(0), condition={3: known})
    expected = encoder.inverse_transform(scaler.inverse_transform(inner))
    assert (rows["team"] == expected["team"]).all()
    np.testing.assert_allclose(rows["income"], expected["income"], rtol=1e-12)


@pytest.mark.parametrize("team, age", [("red", 60.0), ("blue", 40.0)])
def test_a_category_that_is_known_decides_what_depends_on_it(team, age):
    pipeline = make_density_pipeline(TableEncoder(), StandardScaler(), GMMScore(3, random_state=0))
    rows = pipeline.fit(people()).sample(1000, condition={"team": team}, random_state=0)
    assert (rows["team"] == team).all()
    # mean of the training rows of a team, at least 120, and of the draws
    assert rows["age"].mean() == pytest.approx(age, abs=4 * 5 * (1 / 120 + 1 / 1000) ** 0.5)
    both = {"team": team, "income": (100 * age, None)}
    rows = pipeline.sample(100, condition=both, random_state=0)
    assert (rows["team"] == team).all() and rows["income"].min() > 100 * age - 1e-6


def test_a_sampler_is_guided_to_what_is_known_of_a_table():
    pipeline = make_density_pipeline(TableEncoder(), StandardScaler(), GaussianScore())
    condition = {"team": "green", "age": 44.0}
    rows = pipeline.fit(people()).sample(20, condition=condition, n_steps=8, random_state=0)
    assert (rows["team"] == "green").all() and (rows["age"] == 44.0).all()


def test_a_measurement_is_one_of_the_numbers_of_a_table():
    pipeline = make_density_pipeline(TableEncoder(), StandardScaler(), GaussianScore())
    pipeline.fit(people())
    known = LinearMeasurement([[0.0, 1.0, 0.01]], [85.0])
    rows = pipeline.sample(20, condition=known, random_state=0)
    np.testing.assert_allclose(rows["age"] + 0.01 * rows["income"], 85.0, atol=1e-6)
    with pytest.raises(ValueError, match="zeros in those of categories"):
        pipeline.sample(2, condition=LinearMeasurement([[1.0, 0.0, 0.0]], [1.0]))


def test_gaps_of_a_category_are_known_too_and_whole_numbers_stay_whole():
    table = people().assign(age=lambda t: t.age.round().astype(int))
    table.loc[::4, "team"] = None
    pipeline = make_density_pipeline(
        TableEncoder(), StandardScaler(), GMMScore(3, random_state=0), round_integers=True
    ).fit(table)
    rows = pipeline.sample(20, condition={"team": None, "age": 50}, random_state=0)
    assert rows["team"].isna().all() and (rows["age"] == 50).all()
    assert rows["age"].dtype == table["age"].dtype


@pytest.mark.parametrize(
    "condition, words",
    [
        ({"team": "pink"}, r"column 'team' holds one of the values \['blue', 'green', 'red'\]"),
        ({"team": ("blue", "red")}, "column 'team' holds one of the values"),
        ({"height": 1.0}, "there is no column 'height'"),
        ({"age": 40.0, 1: 41.0}, "the same column by name and by index"),
        ({"age": (50.0, 40.0)}, r"got \(50.0, 40.0\) for column 'age'"),
        ({"age": (30.0, 40.0, 50.0)}, r"got \(30.0, 40.0, 50.0\) for column 'age'"),
        ({"age": "old"}, "the value of column 'age' must be a finite number; got 'old'"),
        ({}, "at least one column"),
        (["red", 40.0, None], "must be a mapping from columns to a value.*got"),
        (pd.Series({"age": 40.0}), "must be a mapping from columns to a value.*got"),
        (LinearMeasurement([[1.0, 1.0]], [1.0]), "must have 3 columns; got 2"),
    ],
    ids=str,
)
def test_what_cannot_be_known_of_a_table(condition, words):
    pipeline = make_density_pipeline(TableEncoder(), StandardScaler(), GaussianScore())
    with pytest.raises(ValueError, match=words):
        pipeline.fit(people(60)).sample(2, condition=condition)


# --------------------------------------------------------------------- manners


def test_clone_pickle_slices_and_parameters():
    pipeline = make_density_pipeline(StandardScaler(), GaussianScore(), noise="residual", clip=True)
    params = clone(pipeline).set_params(gaussianscore__covariance="oas").get_params()
    assert params["noise"] == "residual" and params["clip"] is True
    fitted = pipeline.fit(IRIS)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.score_samples(IRIS), fitted.score_samples(IRIS))
    assert isinstance(fitted[:-1].transform(IRIS), np.ndarray)
    assert fitted[:].get_params() == fitted.get_params()
    np.testing.assert_array_equal(fitted[:].score_samples(IRIS), fitted.score_samples(IRIS))
    np.testing.assert_array_equal(
        fitted[0:].sample(3, random_state=0), fitted.sample(3, random_state=0)
    )
    scaled = fitted[:-1].transform(IRIS)
    np.testing.assert_array_equal(
        fitted[1:].score_samples(scaled), fitted[-1].score_samples(scaled)
    )
    with pytest.raises(NotFittedError):  # nobody saw the table of scaled rows
        fitted[1:].sample(3)
    with pytest.raises(ValueError, match="noise must be None or 'residual'"):
        pipeline.set_params(noise="residuals").fit(IRIS)


def test_what_the_last_step_cannot_do_the_pipeline_has_not():
    pipeline = make_density_pipeline(StandardScaler(), PCA())
    assert not hasattr(pipeline, "sample") and not hasattr(pipeline, "denoising_bound")
