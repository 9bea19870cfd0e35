"""Dask arrays: sums over blocks, on two worker processes, are the sums in memory."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV

from skdiffusion import GaussianScore, GMMScore, RandomFeatureScore

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

# schedulers draw from Python's own generator
pytestmark = pytest.mark.foreign_state

SUMS = {"rtol": 1e-9, "atol": 1e-9}  # sums of some hundred rows in another order


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = load_iris().data + 0.02 * rng.standard_normal((150, 4))
    return X, rng.integers(0, 4, size=150).astype(float)


@pytest.mark.parametrize("covariance", ["empirical", "ledoit_wolf", "oas", "diag", "isotropic"])
def test_gaussian(cluster, rows, covariance):
    X, weights = rows
    there = GaussianScore(covariance).fit(
        da.from_array(X, chunks=(37, 2)), sample_weight=da.from_array(weights, chunks=150)
    )
    here = GaussianScore(covariance).fit(X, sample_weight=weights)
    np.testing.assert_allclose(there.score_samples(X), here.score_samples(X), **SUMS)
    assert there.n_samples_seen_ == here.n_samples_seen_


def test_low_rank_gaussian_of_many_columns(cluster):
    """Above 1,024 columns only leading directions travel: exact where the rank is."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 1200))
    X += 1e-3 * rng.standard_normal(X.shape)
    there = GaussianScore("low_rank", rank=5).fit(da.from_array(X, chunks=(100, -1)))
    here = GaussianScore("low_rank", rank=5).fit(X)
    # directions beyond the kept ones are merged into the rest: of a relative size of 1e-6 here
    np.testing.assert_allclose(there.score(X), here.score(X), rtol=1e-4)


@pytest.mark.parametrize("form", ["full", "tied", "diag", "spherical", "low_rank"])
def test_em_from_the_same_start(cluster, rows, form):
    X, weights = rows
    params = dict(covariance_type=form, rank=2, init=X[[0, 60, 120]], max_iter=15, tol=0)
    there = GMMScore(3, **params).fit(da.from_array(X, chunks=(40, -1)), sample_weight=weights)
    here = GMMScore(3, **params).fit(X, sample_weight=weights)
    assert there.n_iter_ == here.n_iter_ == 15
    # fifteen steps of EM carry a difference in the last digits on
    np.testing.assert_allclose(there.score_samples(X), here.score_samples(X), rtol=1e-7)
    np.testing.assert_allclose(there.lower_bounds_, here.lower_bounds_, rtol=1e-9)


def test_em_finds_its_own_start(cluster, rows):
    X, _ = rows
    there = GMMScore(3, random_state=0, tol=1e-8, max_iter=500).fit(
        da.from_array(X, chunks=(60, -1))
    )
    here = GMMScore(3, random_state=0, tol=1e-8, max_iter=500).fit(X)
    # from whichever of its starts: an optimum at least as good, up to the tolerance
    assert there.lower_bound_ > here.lower_bound_ - 0.05
    assert there.converged_


def test_number_of_components_is_chosen(cluster, rows):
    est = GMMScore("bic", max_components=4, random_state=0)
    X = rows[0]
    assert 2 <= est.fit(da.from_array(X, chunks=(60, -1))).n_components_ <= 4


def test_random_features(cluster, rows):
    X, weights = rows
    params = dict(n_features=40, n_levels=6, random_state=0)
    there = RandomFeatureScore(**params).fit(da.from_array(X, chunks=(50, -1)), None, weights)
    here = RandomFeatureScore(**params).fit(X, None, weights)
    # the axes of the moments turn by rounding, and the ridge of alpha=1 bounds what that does
    np.testing.assert_allclose(there.denoise(X, 0.5), here.denoise(X, 0.5), rtol=1e-6)


def test_searches_run_on_the_cluster(cluster):
    import joblib

    X = load_digits().data[:400, 20:30]
    grid = {"covariance": ["empirical", "ledoit_wolf", "oas"]}
    alone = GridSearchCV(GaussianScore(reg_covar=1e-3), grid, cv=2).fit(X)
    for backend in ("dask", "loky"):
        with joblib.parallel_config(backend=backend):
            search = GridSearchCV(GaussianScore(reg_covar=1e-3), grid, cv=2, n_jobs=2).fit(X)
        for name in ("mean_test_score", "rank_test_score"):
            np.testing.assert_array_equal(search.cv_results_[name], alone.cv_results_[name])


# ------------------------------------------------------------------ any scheduler, no cluster


def test_chunks_of_unknown_length_and_empty_ones(rows):
    X, _ = rows
    lazy = da.from_array(X, chunks=(30, -1))
    kept = lazy[lazy[:, 0] > 5.5]  # chunk sizes are not known any more
    assert np.isnan(kept.chunks[0]).all()
    there = GaussianScore().fit(kept)
    here = GaussianScore().fit(X[X[:, 0] > 5.5])
    np.testing.assert_allclose(there.model_.mean, here.model_.mean, **SUMS)
    nothing = lazy[lazy[:, 0] > 100]
    with pytest.raises(ValueError, match="no row of positive weight"):
        GaussianScore().fit(nothing)


def test_data_frames_keep_their_names(rows):
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    frame = pd.DataFrame(rows[0], columns=list("abcd"))
    est = GaussianScore().fit(dd.from_pandas(frame, npartitions=3))
    assert list(est.feature_names_in_) == list("abcd")
    np.testing.assert_allclose(est.score(frame), GaussianScore().fit(frame).score(frame), **SUMS)


@pytest.mark.parametrize(
    ("X", "weights", "message"),
    [
        (np.ones(5), None, "two-dimensional"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), None, "must be finite"),
        (np.ones((5, 2)), None, "no variance"),
        (np.arange(10.0).reshape(5, 2), np.ones(4), r"shape \(5,\)"),
        (np.arange(10.0).reshape(5, 2), -np.ones(5), "non-negative"),
        (np.arange(2.0).reshape(1, 2), None, "at least 2 rows"),
    ],
)
def test_wrong_input(X, weights, message):
    lazy = da.from_array(X, chunks=2 if X.ndim == 1 else (2, -1))
    with pytest.raises(ValueError, match=message):
        GaussianScore().fit(lazy, sample_weight=weights)


def test_weights_that_do_not_go_with_the_chunks(rows):
    X, weights = rows
    lazy = da.from_array(X, chunks=(30, -1))
    unknown = lazy[lazy[:, 0] > 5.5]
    with pytest.raises(ValueError, match="known chunk sizes"):
        GaussianScore().fit(unknown, sample_weight=weights)
    with pytest.raises(ValueError, match="one chunk per chunk"):
        GaussianScore().fit(unknown, sample_weight=da.from_array(weights, chunks=75))
    with pytest.raises(ValueError, match="needs X in memory"):
        from sklearn.covariance import EmpiricalCovariance

        GaussianScore(EmpiricalCovariance()).fit(lazy)


def test_dask_is_not_imported_without_its_arrays():
    code = (
        "import sys, numpy as np; from skdiffusion import GMMScore;"
        "GMMScore(2).fit(np.random.default_rng(0).normal(size=(40, 2)));"
        "assert 'dask' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
