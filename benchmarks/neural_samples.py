"""Are the samples of a network with default parameters better than those of a chosen mixture?

Both are nearly as good as their training rows allow, and one split cannot tell them apart: so five
training sets of 1,500 rows each, and 8,000 fresh rows to compare samples with. Of digits and wine,
which have no more rows, every fifth is held out once. NeuralScore() sees raw rows and has no
parameter set but its seed; GMMScore chooses its number of components on held-out rows, or has its
defaults. C2ST (0.5 is perfect) is the mean over samples of as many rows as they are compared with,
the sliced Wasserstein distance that of all of them together: three, of digits and wine twenty.
Means over the training sets and their standard errors; differences are of pairs, NeuralScore less
the chosen mixture, on the same rows. Training rows stand for a perfect sample of their size.

    OMP_NUM_THREADS=1 python benchmarks/neural_samples.py [--data FOLDER] [--keep FILE]
"""

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from _report import Finished, table, write
from density_tables import prepared
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import KFold

from skdiffusion import GMMScore, NeuralScore
from skdiffusion.datasets import load_image_patches, make_gaussian_mixture, make_moons
from skdiffusion.metrics import c2st, sliced_wasserstein

SETS, ROWS, FRESH = 5, 1500, 8000
METHODS = {
    "NeuralScore": NeuralScore,
    "GMMScore, chosen": lambda **seed: GMMScore("held_out", **seed),
    "GMMScore, defaults": GMMScore,
    "training rows": None,
}
PEER = "GMMScore, chosen"
METRICS = ("C2ST", "sliced Wasserstein")


def tables(folder):
    """Name, and pairs of training rows and rows to compare samples with."""
    yield "two moons", drawn(make_moons, noise=0.08)
    yield "8 Gaussians", drawn(make_gaussian_mixture)
    digits = load_digits().data
    yield "digits", folds(digits + np.random.default_rng(0).uniform(size=digits.shape))
    n_rows = SETS * ROWS + FRESH
    patches = load_image_patches(n_rows, size=4, remove_mean=True, random_state=0)
    yield "patches 4 x 4", blocks(patches)
    if folder is not None:
        with np.load(folder / "tabular" / "california.npz") as stored:
            yield "california", blocks(prepared(stored["X"].astype(np.float64), n_rows))
    yield "wine", folds(prepared(load_wine().data, n_rows))


def drawn(make, **options):
    for k in range(SETS):
        X, law = make(ROWS, random_state=k, **options)
        yield X, law.sample(FRESH, 0.0, random_state=1000 + k)


def blocks(rows):
    for k in range(SETS):
        yield rows[k * ROWS : (k + 1) * ROWS], rows[-FRESH:]


def folds(rows):
    for train, test in KFold(SETS, shuffle=True, random_state=0).split(rows):
        yield rows[train], rows[test]


def distances(method, train, other, seed):
    """How far samples are from rows."""
    n_draws = 3 if len(other) == FRESH else 20
    if METHODS[method] is None:
        rngs = (np.random.default_rng(k) for k in range(n_draws))
        samples = [rng.permutation(train)[: len(other)] for rng in rngs]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            est = METHODS[method](random_state=seed).fit(train)
        samples = np.split(est.sample(n_draws * len(other), random_state=seed), n_draws)
    return {
        "C2ST": float(np.mean([c2st(other, rows, random_state=0) for rows in samples])),
        "sliced Wasserstein": sliced_wasserstein(other, np.concatenate(samples), random_state=0),
    }


def report(results):
    shown, verdicts = [], []
    for name, found in results.items():
        gains = {m: values(found["NeuralScore"], m) - values(found[PEER], m) for m in METRICS}
        for method, seen in found.items():
            row = {"table": name, "method": method}
            for metric in METRICS:
                row[metric] = spread(values(seen, metric), metric)
                own = method == "NeuralScore"
                row[f"difference, {metric}"] = spread(gains[metric], metric, "+") if own else ""
            shown.append(row)
        verdicts.append(f"{name} " + ", ".join(verdict(gains[m], m) for m in METRICS))
    text = table(shown, list(shown[0])) + "\n\n- NeuralScore beside the chosen mixture: "
    text += "; ".join(verdicts) + ".\n\n" + " ".join(__doc__.split("\n\n")[1].split())
    packages = ("numpy", "scikit-learn", "torch", "skorch")
    write("neural_samples", "Samples of networks with defaults", text, packages)


def values(seen, metric):
    return np.array([each[metric] for each in seen])


def error(numbers):
    return numbers.std(ddof=1) / len(numbers) ** 0.5


def spread(numbers, metric, sign=""):
    digits = 3 if metric == "C2ST" else 4
    return f"{numbers.mean():{sign}.{digits}f} ± {error(numbers):.{digits}f}"


def verdict(gain, metric):
    if abs(gain.mean()) < 2 * error(gain):
        return f"not told apart in {metric}"
    return f"{'better' if gain.mean() < 0 else 'worse'} in {metric}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=os.environ.get("SKDIFFUSION_DATA"))
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Finished(options.keep)
    for name, sets in tables(None if options.data is None else Path(options.data)):
        if name in results or (options.tables is not None and name not in options.tables):
            continue
        found = {method: [] for method in METHODS}
        for seed, (train, other) in enumerate(sets):
            for method, seen in found.items():
                seen.append(distances(method, train, other, seed))
                print(name, seed, method, seen[-1], flush=True)
        results[name] = found
        results.save()
    report(results)


if __name__ == "__main__":
    main()
