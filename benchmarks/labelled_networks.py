"""Do rows drawn for a class belong to it, and how dense are rows under their class?

NeuralScore().fit(X, y) with no parameter set but its seed, which adds to a mixture for each class;
without mixtures it has parameterization="gaussian". Beside them one mixture for each class
(GMMScore, which chooses its number of components on held-out rows) and zuko's NSF (three transforms
of two layers of 64 units) given the class, which trains as in the table of densities and has as
much processor time as NeuralScore took. A quarter of the rows is held out, in three splits.
Log-densities are nats per held-out row of the tables given its class, of NeuralScore along the
flow, of at most 200 rows up to 30 columns and 60 rows beyond. *In class* is the share of 1,000
drawn rows, with classes in the proportions of the table, that a support vector classifier of all
rows puts into the class they were drawn for; held-out rows, which it has seen, are the most that
can be asked for. Digits have a uniform number added to every pixel.

A table takes minutes: --keep names a file of what is finished, from which a later run goes on.

    pip install zuko
    OMP_NUM_THREADS=1 python benchmarks/labelled_networks.py
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import zuko
from _report import Finished, table, write
from neural_density import Flow, own_density
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skdiffusion import GMMScore, NeuralScore

SPLITS, DRAWN = 3, 1000
SCORED = {30: 200, 64: 60}


def tables():
    """Name, rows and classes."""
    for name, load in (
        ("iris", load_iris),
        ("wine", load_wine),
        ("breast cancer", load_breast_cancer),
        ("digits", load_digits),
    ):
        X, y = load(return_X_y=True)
        if name == "digits":
            X = X + np.random.default_rng(0).uniform(size=X.shape)
        yield name, X, y


class Network:
    """NeuralScore as the table asks for it."""

    def __init__(self, parameterization):
        self.est = NeuralScore(parameterization=parameterization, random_state=0)

    def fit(self, X, y):
        self.est.fit(X, y)

    def log_density(self, X, y):
        return own_density(self.est, X, y)["log-density"]

    def draw(self, y):
        return self.est.sample(len(y), y=y, random_state=0)


class MixturePerClass:
    """A GMMScore for each class."""

    def fit(self, X, y):
        self.laws = {
            k: GMMScore("held_out", n_averaged=3, random_state=0).fit(X[y == k])
            for k in np.unique(y)
        }

    def log_density(self, X, y):
        return np.mean([self.laws[k].score_samples(x[None])[0] for x, k in zip(X, y, strict=True)])

    def draw(self, y):
        rows = np.empty((len(y), next(iter(self.laws.values())).n_features_in_))
        for k, law in self.laws.items():
            rows[y == k] = law.sample(int((y == k).sum()), random_state=0)
        return rows


class FlowOfClasses:
    """zuko's NSF given the class."""

    def __init__(self, seconds):
        self.flow = Flow(zuko.flows.NSF, seconds)

    def fit(self, X, y):
        self.n_classes = y.max() + 1
        self.flow.fit(X, np.eye(self.n_classes)[y])

    def log_density(self, X, y):
        return self.flow.score_samples(X, np.eye(self.n_classes)[y]).mean()

    def draw(self, y):
        return self.flow.sample(len(y), np.eye(self.n_classes)[y])


METHODS = {
    "NeuralScore": lambda seconds: Network("auto"),
    "NeuralScore without mixtures": lambda seconds: Network("gaussian"),
    "a GMMScore for each class": lambda seconds: MixturePerClass(),
    "zuko NSF": FlowOfClasses,
}


def one_split(X, y, seed):
    """Log-density, share in class and seconds of each method; the classifier's share at last."""
    train, test, y_train, y_test = train_test_split(
        X, y, test_size=0.25, random_state=seed, stratify=y
    )
    # pixels are of one scale, and some hardly ever change
    scaler = StandardScaler(with_std=X.shape[1] != 64)
    judge = make_pipeline(scaler, SVC()).fit(X, y)
    wanted = np.random.default_rng(seed).choice(y, DRAWN)
    n_scored = next(n for d, n in SCORED.items() if X.shape[1] <= d)
    found, seconds = {}, None
    for method, make in METHODS.items():
        law, start = make(seconds), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            law.fit(train, y_train)
        took = time.process_time() - start
        seconds = took if seconds is None else seconds
        density = law.log_density(test[:n_scored], y_test[:n_scored])
        found[method] = density, (judge.predict(law.draw(wanted)) == wanted).mean(), took
        print(seed, method, found[method], flush=True)
    found["held-out rows"] = np.nan, judge.score(test, y_test), np.nan
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    asked, finished = options.tables, Finished(options.keep)
    torch.set_num_threads(1)
    shown = []
    for name, X, y in tables():
        if asked is not None and name not in asked:
            continue
        if name not in finished:
            finished[name] = [one_split(X, y, seed) for seed in range(SPLITS)]
            finished.save()
        splits = finished[name]
        for method in splits[0]:
            density, share, took = np.array([split[method] for split in splits]).T
            shown.append(
                {
                    "table": f"{name} ({X.shape[0]} x {X.shape[1]}, {len(np.unique(y))} classes)",
                    "method": method,
                    "log-density": "" if np.isnan(density).any() else f"{density.mean():.2f}",
                    "splits": ""
                    if np.isnan(density).any()
                    else " ".join(f"{v:.2f}" for v in density),
                    "in class": f"{share.mean():.3f}",
                    "CPU s": "" if np.isnan(took).any() else f"{took.mean():.0f}",
                }
            )
    write(
        "labelled_networks",
        "Networks with class labels",
        table(shown, list(shown[0])) + "\n\n" + " ".join(__doc__.split("\n\n")[1].split()),
        ("numpy", "scikit-learn", "torch", "skorch", "zuko"),
    )


if __name__ == "__main__":
    main()
