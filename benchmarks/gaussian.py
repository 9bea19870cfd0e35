"""How fast and how accurate is GaussianScore beside scikit-learn's Gaussian densities?

The peers that give a density: ``PCA`` (probabilistic PCA) and ``GaussianMixture`` with one
component. Data: a planted low-rank law in many columns, and the raw breast-cancer table, whose
columns differ in scale by a factor of 200,000.
"""

import resource
import warnings

import mpmath
import numpy as np
from _report import interleaved, table, write
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from skdiffusion import GaussianScore


def speed(n=10_000, d=3072, rank=100):
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((rank, d)) * 5 * np.arange(1, rank + 1)[:, None] ** -0.8
    X = rng.standard_normal((n, rank)) @ factor + 0.3 * rng.standard_normal((n, d))
    ours = GaussianScore("low_rank", rank=rank, random_state=0)
    peer = PCA(rank, svd_solver="randomized", random_state=0)
    fit = interleaved({"ours": lambda: ours.fit(X), "peer": lambda: peer.fit(X)}, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rows = [("fit", fit["ours"], fit["peer"])]
    score = interleaved(
        {"ours": lambda: ours.score_samples(X), "peer": lambda: peer.score_samples(X)}, 3
    )
    rows.append(("log-density of all rows", score["ours"], score["peer"]))
    draw = interleaved({"ours": lambda: ours.sample(n, random_state=0)}, 3)
    rows.append((f"sample {n:,}", draw["ours"], None))
    text = table(
        [
            {
                "task": task,
                "GaussianScore, s": f"{a:.2f}",
                "PCA, s": "-" if b is None else f"{b:.2f}",
                "ratio": "-" if b is None else f"{a / b:.2f}",
            }
            for task, a, b in rows
        ],
        ["task", "GaussianScore, s", "PCA, s", "ratio"],
    )
    gap = abs(ours.score(X) - peer.score(X))
    return (
        f"{n:,} rows, {d} columns, rank {rank}; peak memory of the process {peak:.2f} GB "
        f"({X.nbytes / 1e9:.2f} GB of it the data). Mean log-densities agree to {gap:.2g} nats "
        f"of {abs(peer.score(X)):.0f} (PCA divides by n - 1).\n\n{text}"
    )


def accuracy():
    X = load_breast_cancer().data
    mean = X.mean(0)
    centred = X - mean
    covariance = centred.T @ centred / len(X)
    rows = X[:20]
    mpmath.mp.dps = 60
    exact_covariance = mpmath.matrix(covariance.tolist())
    log_det = mpmath.log(mpmath.det(exact_covariance))
    exact = []
    for row in rows - mean:
        r = mpmath.matrix(row.tolist())
        quadratic = (r.T * mpmath.lu_solve(exact_covariance, r))[0]
        exact.append(float(-0.5 * (quadratic + log_det + X.shape[1] * mpmath.log(2 * mpmath.pi))))
    values, axes = np.linalg.eigh(covariance)
    ordinary = -0.5 * (
        ((rows - mean) @ axes) ** 2 / values + np.log(values) + np.log(2 * np.pi)
    ).sum(1)
    ours = GaussianScore().fit(X).score_samples(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mixture = GaussianMixture(1).fit(X).score_samples(rows)
        pca = PCA().fit(X).score_samples(rows)
    found = {
        "GaussianScore": ours,
        "GaussianMixture(1), reg_covar=1e-6": mixture,
        "PCA": pca,
        "numpy.linalg.eigh of the same covariance": ordinary,
    }
    text = table(
        [
            {"method": k, "largest error, nats": f"{np.abs(v - exact).max():.2g}"}
            for k, v in found.items()
        ],
        ["method", "largest error, nats"],
    )
    return (
        "Log-density of 20 rows of the raw breast-cancer table (30 columns) under its "
        "maximum-likelihood Gaussian, against 60-digit arithmetic. The mixture's error is its "
        "absolute regularisation, PCA's includes dividing by n - 1.\n\n" + text
    )


if __name__ == "__main__":
    write(
        "gaussian",
        "GaussianScore beside scikit-learn",
        f"## Many columns\n\n{speed()}\n\n## Columns of very different scale\n\n{accuracy()}",
    )
