"""How fast is EM? GMMScore beside GaussianMixture, from the same start to the same optimum.

Data: a mixture of 20 components in 64 columns. Both start from the components of the rows nearest
to the same centres, maximise the same likelihood (no shrinkage, the same regularisation), and stop
by the same rule. Time per iteration is the time of 12 iterations less that of 2, over 10.

    python benchmarks/mixture_fit.py [--quick]
"""

import argparse
import time
import warnings

import numpy as np
from _report import table, write
from sklearn.metrics import pairwise_distances_argmin
from sklearn.mixture import GaussianMixture

from skdiffusion import GMMScore
from skdiffusion.datasets import load_image_patches


def law(n, d, k):
    rng = np.random.default_rng(0)
    means = 1.5 * rng.standard_normal((k, d))
    factors = rng.standard_normal((k, d, d)) / d**0.5
    which = rng.integers(k, size=n)
    X = means[which] + np.einsum("nde,ne->nd", factors[which], rng.standard_normal((n, d)))
    return (X - X.mean(0)) / X.std(0)


def ours(X, centres, **options):
    return GMMScore(len(centres), init=centres, reg_covar=1e-6, shrinkage=0.0, **options).fit(X)


def theirs(X, centres, **options):
    """GaussianMixture from the moments of the rows nearest to each centre."""
    labels = pairwise_distances_argmin(X, centres)
    groups = [X[labels == j] for j in range(len(centres))]
    d = X.shape[1]
    return GaussianMixture(
        len(centres),
        weights_init=[len(g) / len(X) for g in groups],
        means_init=[g.mean(0) for g in groups],
        precisions_init=[np.linalg.inv(np.cov(g.T, bias=True) + 1e-6 * np.eye(d)) for g in groups],
        init_params="random",
        random_state=0,
        **options,
    ).fit(X)


def timed(fit):
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fit()
    return time.perf_counter() - start, model


def per_iteration(fit):
    short, _ = timed(lambda: fit(max_iter=2, tol=0.0))
    long, _ = timed(lambda: fit(max_iter=12, tol=0.0))
    return (long - short) / 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    quick = parser.parse_args().quick
    n, d, k = (5_000 if quick else 50_000), 64, 20
    X = law(n, d, k)
    single = X.astype(np.float32)
    centres = X[np.random.default_rng(1).choice(n, k, replace=False)]
    fits = {
        "GaussianMixture, float64": lambda **o: theirs(X, centres, **o),
        "GaussianMixture, float32": lambda **o: theirs(single, centres.astype(np.float32), **o),
        "GMMScore, float64": lambda **o: ours(X, centres, **o),
        "GMMScore, float32": lambda **o: ours(single, centres, **o),
    }
    pace = {name: [] for name in fits}
    for _ in range(3):
        for name, fit in fits.items():
            pace[name].append(per_iteration(fit))
    pace = {name: float(np.median(values)) for name, values in pace.items()}
    whole = {name: timed(lambda f=fit: f(max_iter=200, tol=1e-4)) for name, fit in fits.items()}
    base = "GaussianMixture, float64"
    rows = []
    for name, (seconds, model) in whole.items():
        rows.append(
            {
                "fit": name,
                "s per iteration": f"{pace[name]:.3f}",
                "ratio": f"{pace[name] / pace[base]:.2f}",
                "iterations": model.n_iter_,
                "s to the optimum": f"{seconds:.1f}",
                "ratio ": f"{seconds / whole[base][0]:.2f}",
                "mean log-likelihood": f"{float(np.mean(model.score_samples(X))):.4f}",
            }
        )
    text = f"{n:,} rows, {d} columns, {k} full components.\n\n" + table(rows, list(rows[0]))

    patches = load_image_patches(4_000 if quick else 20_000, size=28, random_state=0)
    seconds, model = timed(
        lambda: GMMScore(
            10 if quick else 50, covariance_type="low_rank", rank=20, random_state=0
        ).fit(patches)
    )
    text += (
        f"\n\nLow rank where full covariances cannot be afforded: {len(patches):,} image patches "
        f"of 28 x 28 pixels (784 columns), {model.n_components_} components of rank 20: "
        f"{seconds:.0f} s for {model.n_iter_} iterations.\n\n"
        + " ".join(__doc__.split("\n\n")[1].split())
    )
    name = "mixture_fit_quick" if quick else "mixture_fit"
    write(name, "Expectation-maximisation beside scikit-learn", text)


if __name__ == "__main__":
    main()
