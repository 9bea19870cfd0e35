"""What does it cost to leave the rows where they are?

A table in memory, the same in blocks of a dask array held by one and by two worker processes on
this machine, one thread each: seconds of fitting, and the largest relative difference of the log-
densities of 1,000 rows from those of the fit in memory. EM takes ten iterations from the same
means. Two processes have at most the two cores of this machine, and the client has a share of
them: a cluster of machines is not measured.

    python benchmarks/scaling_out.py [--rows 400000]
"""

import argparse
import time

import dask.array as da
import numpy as np
from _report import table, write
from distributed import Client, LocalCluster

from skdiffusion import GaussianScore, GMMScore, RandomFeatureScore


def law(n, d=16, k=8):
    rng = np.random.default_rng(0)
    means = 2 * rng.standard_normal((k, d))
    return means[rng.integers(k, size=n)] + rng.standard_normal((n, d)), means


def models(means):
    mixture = GMMScore(len(means), init=means, tol=0, max_iter=10)
    return {
        "GaussianScore": GaussianScore("ledoit_wolf"),
        "GMMScore, 8 full components": mixture,
        "RandomFeatureScore, 40 features, 4 levels": RandomFeatureScore(
            40, n_levels=4, random_state=0
        ),
    }


def seconds(fit):
    start = time.perf_counter()
    fitted = fit()
    return time.perf_counter() - start, fitted


def answers(est, X):
    return est.denoise(X, 0.5) if isinstance(est, RandomFeatureScore) else est.score_samples(X)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=400_000)
    n = parser.parse_args().rows
    X, means = law(n)
    rows = {name: {"model": name} for name in models(means)}
    here = {}
    for name, est in models(means).items():
        took, here[name] = seconds(lambda est=est: est.fit(X))
        rows[name]["in memory (s)"] = f"{took:.1f}"
    for n_workers in (1, 2):
        with (
            LocalCluster(
                n_workers=n_workers, threads_per_worker=1, dashboard_address=None
            ) as cluster,
            Client(cluster) as client,
        ):
            lazy = client.persist(da.from_array(X, chunks=(n // 20, -1)))
            client.submit(len, lazy[:10]).result()
            for name, est in models(means).items():
                took, there = seconds(lambda est=est, lazy=lazy: est.fit(lazy))
                rows[name][f"{n_workers} workers (s)"] = f"{took:.1f}"
                mine, theirs = answers(here[name], X[:1000]), answers(there, X[:1000])
                gap = np.abs(mine - theirs).max() / np.abs(mine).max()
                rows[name]["difference"] = f"{gap:.0e}"
    columns = ["model", "in memory (s)", "1 workers (s)", "2 workers (s)", "difference"]
    text = table(list(rows.values()), columns).replace("1 workers", "1 worker")
    text = f"{n:,} rows, {X.shape[1]} columns, 20 blocks.\n\n{text}\n\n"
    write("scaling_out", "Rows in blocks", text + " ".join(__doc__.split("\n\n")[1].split()))


if __name__ == "__main__":
    main()
