"""TableEncoder: categories to columns and back, alone and in a pipeline."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
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
