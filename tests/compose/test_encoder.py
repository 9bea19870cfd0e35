"""TableEncoder: categories to columns and back, alone and in a pipeline."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from sklearn.preprocessing import StandardScaler

from skdiffusion import GaussianScore, GMMScore
from skdiffusion.compose import TableEncoder, make_density_pipeline


def people(n=200):
    rng = np.random.default_rng(0)
    job = rng.choice(["cook", "nurse", "pilot"], n, p=[0.5, 0.3, 0.2])
    return pd.DataFrame(
        {
            "age": rng.integers(20, 60, n),
            "job": pd.Categorical(job),
            "income": rng.lognormal(3, 0.3, n) + 30 * (job == "pilot"),
            "smokes": rng.random(n) < 0.2,
        }
    )


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_there_and_back(library):
    table = people() if library == "pandas" else pl.from_pandas(people())
    encoder = TableEncoder().fit(table)
    back = encoder.inverse_transform(encoder.transform(table))
    assert type(back) is type(table)
    assert back["job"].to_list() == table["job"].to_list()
    assert [bool(v) for v in back["smokes"]] == table["smokes"].to_list()
    np.testing.assert_allclose(back["income"], table["income"])
    assert list(encoder.get_feature_names_out()) == [
        "age",
        "job_cook",
        "job_nurse",
        "job_pilot",
        "income",
        "smokes_False",
        "smokes_True",
    ]


def test_arrays_with_codes_by_position():
    X = np.array([[0.5, 3], [1.5, 7], [2.5, 3]])
    encoder = TableEncoder(categorical=[1]).fit(X)
    np.testing.assert_array_equal(encoder.transform(X), [[0.5, 1, 0], [1.5, 0, 1], [2.5, 1, 0]])
    np.testing.assert_array_equal(encoder.inverse_transform(encoder.transform(X)), X)


def test_a_pipeline_draws_tables_of_the_same_kind():
    table = people()
    pipeline = make_density_pipeline(
        TableEncoder(),
        StandardScaler(),
        GMMScore(5, random_state=0),
        round_integers=True,
        clip=True,
    )
    rows = pipeline.fit(table).sample(3000, random_state=0)
    assert list(rows.dtypes) == list(table.dtypes)
    shares = rows["job"].value_counts(normalize=True)
    truth = table["job"].value_counts(normalize=True)
    # standard errors below one percent; argmax of normals moves a share by a few percent
    np.testing.assert_allclose(shares.sort_index(), truth.sort_index(), atol=0.06)
    by_job = rows.groupby("job", observed=True)["income"].mean()
    assert by_job["pilot"] > by_job["cook"] + 15  # what goes together stays together
    assert set(rows["smokes"]) == {True, False}
    with pytest.raises(ValueError, match="categories have no density"):
        pipeline.score_samples(table)


def test_numbers_alone_have_a_density():
    table = people()[["age", "income"]]
    plain = make_density_pipeline(GaussianScore()).fit(table)
    encoded = make_density_pipeline(TableEncoder(), GaussianScore()).fit(table)
    np.testing.assert_allclose(encoded.score_samples(table), plain.score_samples(table))


def test_errors_are_sentences():
    with pytest.raises(ValueError, match="there is no column 'jbo'"):
        TableEncoder(categorical=["jbo"]).fit(people())
    with pytest.raises(ValueError, match="column 'job' holds no numbers"):
        TableEncoder(categorical=["smokes"]).fit(people())
    with pytest.raises(ValueError, match="in the same order"):
        TableEncoder().fit(people()).transform(people()[["job", "age", "income", "smokes"]])


@pytest.mark.parametrize("values", [["x", None, "y", "x"], [3.0, np.nan, 1.0, 3.0]])
@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_a_missing_category_is_a_value_and_comes_back_missing(values, library):
    table = library.DataFrame({"size": [0.5, 1.0, 1.5, 2.0], "kind": values})
    encoder = TableEncoder(["kind"]).fit(table)
    codes = encoder.transform(table)
    np.testing.assert_array_equal(codes[:, 1:].sum(axis=1), 1.0)
    back = encoder.inverse_transform(codes)["kind"].to_list()
    assert back[1] is None or back[1] != back[1]
    assert [back[0], *back[2:]] == [values[0], *values[2:]]


@pytest.mark.parametrize("kind", [list, lambda rows: np.array(rows, dtype=object)])
def test_numbers_among_words_stay_numbers(kind):
    rows = kind([["a", 1.5, 2], ["b", 2.5, None], ["a", 3.5, 4]])
    encoder = TableEncoder().fit(rows)
    np.testing.assert_array_equal(
        encoder.transform(rows), [[1, 0, 1.5, 2], [0, 1, 2.5, np.nan], [1, 0, 3.5, 4]]
    )
    assert encoder.inverse_transform([[0.2, 0.9, 7.0, 1.0]]).tolist() == [["b", 7.0, 1.0]]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_times_are_neither_numbers_nor_categories(library):
    table = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=3, tz="UTC")})
    table = table if library == "pandas" else pl.from_pandas(table)
    with pytest.raises(ValueError, match="column 'day' holds times: give them as numbers"):
        TableEncoder().fit(table)
    assert TableEncoder(["day"]).fit(table).transform(table).shape == (3, 3)
    numbers = type(table)({"day": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="column 'day' holds times"):  # nor did fit see any
        TableEncoder().fit(numbers).transform(table)


def test_tables_and_codes_of_another_shape_are_refused():
    encoder = TableEncoder().fit(people())
    with pytest.raises(ValueError, match="Z has 30 columns; TableEncoder makes 7"):
        encoder.inverse_transform(np.ones((2, 30)))
    with pytest.raises(ValueError, match="Expected 2D array"):
        encoder.inverse_transform(np.ones(7))
    with pytest.raises(ValueError, match="NaN in the columns 1 to 3 of a category"):
        encoder.inverse_transform(np.where(np.arange(7) == 3, np.nan, np.ones((2, 7))))
    with pytest.raises(ValueError, match="X has no rows"):
        TableEncoder().fit(people()[:0])
    with pytest.raises(ValueError, match="categorical must be 'auto' or a list"):
        TableEncoder(categorical=None).fit(people())


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("persist", ["pickle", "skops"])
def test_tables_come_back_from_files(library, persist):
    table = people().astype({"age": "Int64"})
    table = table if library == "pandas" else pl.from_pandas(table)
    pipeline = make_density_pipeline(TableEncoder(), GMMScore(3, random_state=0)).fit(table)
    if persist == "pickle":
        again = pickle.loads(pickle.dumps(pipeline))
    else:
        dumped = skops.io.dumps(pipeline)
        again = skops.io.loads(dumped, trusted=skops.io.get_untrusted_types(data=dumped))
    drawn, expected = again.sample(20, random_state=0), pipeline.sample(20, random_state=0)
    assert type(drawn) is type(table)
    assert drawn.equals(expected)
    assert list(drawn.dtypes) == list(expected.dtypes)


@pytest.mark.parametrize(
    ("values", "dtype"), [(["p", None, "q", "p"], "string"), ([True, None, False, True], "boolean")]
)
def test_gaps_of_nullable_types_are_a_value_too(values, dtype):
    table = pd.DataFrame({"size": [0.5, 1.0, 1.5, 2.0], "kind": pd.array(values, dtype=dtype)})
    encoder = TableEncoder().fit(table)
    codes = encoder.transform(table)
    np.testing.assert_array_equal(codes[:, 1:].sum(axis=1), 1.0)
    assert codes[1, -1] == 1.0  # gaps come last
    pd.testing.assert_frame_equal(encoder.inverse_transform(codes), table)
    assert encoder.encoded_condition({1: pd.NA}) == {1: 0.0, 2: 0.0, 3: 1.0}


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_infinity_is_no_number_of_a_table(library):
    table = library.DataFrame({"size": [0.5, 1.0], "kind": ["x", "y"]})
    endless = library.DataFrame({"size": [0.5, -np.inf], "kind": ["x", "y"]})
    with pytest.raises(ValueError, match="column 'size' holds infinity"):
        TableEncoder().fit(endless)
    with pytest.raises(ValueError, match="column 'size' holds infinity"):
        TableEncoder().fit(table).transform(endless)
    words = library.DataFrame({"size": ["small", "big"], "kind": ["x", "y"]})
    with pytest.raises(ValueError, match="column 'size' holds no numbers, as it did in fit"):
        TableEncoder().fit(table).transform(words)


def test_missing_numbers_of_an_array_pass_as_those_of_a_table_do():
    X = np.array([[0.5, 3], [np.nan, 7], [2.5, 3]])
    codes = TableEncoder([1]).fit_transform(X)
    np.testing.assert_array_equal(codes, TableEncoder([1]).fit_transform(pd.DataFrame(X)))


def test_a_mask_lists_no_columns():
    with pytest.raises(ValueError, match=r"no mask of them; got \[False, True\]"):
        TableEncoder([False, True]).fit([[0.5, 3], [1.5, 7]])


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    "columns, categorical",
    [
        ({"kind": [3, 1, 2], "size": [0.5, 1.5, 2.5]}, ["kind"]),
        ({"kind": [True, False, True], "size": [0.5, 1.5, 2.5]}, "auto"),
        ({"kind": ["a", "b", "a"], "colour": ["red", "blue", "red"]}, "auto"),
        ({"size": [0.5, 1.5, 2.5], "kind": [3, 1, 2], "colour": ["red", "b", "red"]}, ["kind", 2]),
    ],
    ids=str,
)
def test_each_column_keeps_its_type_whatever_comes_first(columns, categorical, library):
    table = library.DataFrame(columns)
    encoder = TableEncoder(categorical).fit(table)
    assert encoder.inverse_transform(encoder.transform(table)).equals(table)
    pipeline = make_density_pipeline(encoder, GaussianScore("oas")).fit(table)
    drawn = pipeline.sample(20, random_state=0)
    for name, values in columns.items():
        assert drawn[name].dtype == table[name].dtype
        assert name == "size" or set(drawn[name]) <= set(values)
    if "size" in columns:
        assert not np.allclose(drawn["size"], np.round(drawn["size"]))
        known = pipeline.sample(3, condition={"size": 1.25}, random_state=0)
        assert (known["size"] == 1.25).all() and known["kind"].dtype == table["kind"].dtype


def test_categories_that_are_no_words_come_back_as_they_were():
    table = pd.DataFrame({"bin": pd.cut([1.0, 2.0, 3.0, 4.0], 2)})
    encoder = TableEncoder().fit(table)
    pd.testing.assert_frame_equal(encoder.inverse_transform(encoder.transform(table)), table)


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2],
        [0.5, 2.5, 1.5],
        [3, None, 2],
        ["b", None, "a"],
        [True, False],
        [True, None, False],
    ],
    ids=str,
)
def test_categories_of_numbers_come_back_in_their_type(values):
    table = pd.DataFrame({"kind": pd.Categorical(values), "size": np.arange(len(values)) + 0.5})
    encoder = TableEncoder().fit(table)
    assert list(encoder.categories_) == [0]
    pd.testing.assert_frame_equal(encoder.inverse_transform(encoder.transform(table)), table)


def test_what_is_missing_of_polars_numbers_comes_back_missing():
    table = pl.DataFrame(
        {"whole": [1, None, 3], "real": [None, 0.5, 2.0], "word": ["a", None, "b"]}
    )
    encoder = TableEncoder().fit(table)
    back = encoder.inverse_transform(encoder.transform(table))
    assert back.null_count().row(0) == table.null_count().row(0)
    assert back.select("real", "word").equals(table.select("real", "word"))
    assert back["whole"].to_list() == [1.0, None, 3.0]  # any float may have been decoded


def test_lists_are_no_categories():
    with pytest.raises(ValueError, match="holds lists"):
        TableEncoder().fit(pl.DataFrame({"x": [1.0, 2.0], "tags": [["a"], ["a", "b"]]}))
