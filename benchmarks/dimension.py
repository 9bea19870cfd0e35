"""Whose answer is nearest to the truth? Dimension beside scikit-dimension.

    pip install scikit-dimension==0.5.0
    python benchmarks/dimension.py [manifolds|laws|sets|scores|networks|real ...] --cache FOLDER

*Manifolds*: scikit-dimension's own 24 at n = 2500, three seeds, noise 0 and 0.01; the mean, median
and worst absolute relative error. Peers at their defaults, except that MiND_ML may answer up to 80
and GRIDE is shown at two scales. KNN, DANCo, TLE, lPCA (k = 100) and ESS (k = 100, at 200 rows)
come last, on the first seed alone; a run that was stopped before them has no rows of them, as it
has none of estimators that answered on fewer than twenty manifolds of a seed, and dashes elsewhere.
*Laws*: spheres, rolls, balls, tori. *Sets*: of one dimension or of several side by side; the
median over the rows of each part of the dimension there, and last the mean relative error of single
rows, on three draws.
*Scores*: every method on the exact score model. *Networks*: NeuralScore() with no parameter set but
its seed, asked at 200 rows that it was not trained on (50 of 128 columns), beside the default on
2,000 rows; seconds are those of training. *Real*: digits, faces, garments, with published estimates
beside them. Answers are kept in the cache, so that a run may be interrupted.
"""

import argparse
import gzip
import json
import os
import time
import warnings
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import skdim
from _dimension_sets import SETS, side_by_side
from _report import table, write
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.neighbors import NearestNeighbors

from skdiffusion import NeuralScore
from skdiffusion.datasets import make_gaussian, make_sphere, make_swiss_roll
from skdiffusion.geometry import IntrinsicDimensionEstimator

SEEDS, NOISES = (0, 1, 2), (0.0, 0.01)


def ours(X):
    return IntrinsicDimensionEstimator(random_state=0).fit(X).dimension_


def whole(cls, **params):
    return lambda X: cls(**params).fit(X).dimension_


def by_row(cls, k, **params):
    def run(X):
        return cls(**params).fit_pw(X, n_neighbors=min(k, len(X) - 1)).dimension_pw_

    return run


def local(cls, k, **params):
    answers = by_row(cls, k, **params)
    return lambda X: float(np.mean(answers(X)))


def of_rows(cls, k, n_rows, **params):
    """The mean over neighbourhoods of some rows."""

    def run(X):
        search = NearestNeighbors(n_neighbors=min(k, len(X) - 1) + 1).fit(X)
        some = np.random.default_rng(0).choice(len(X), min(n_rows, len(X)), replace=False)
        near = search.kneighbors(X[some], return_distance=False)
        return float(np.mean([cls(**params).fit_once(X[index]).dimension_ for index in near]))

    return run


OURS = "**skdiffusion**"
FAST = {
    OURS: ours,
    "TwoNN": whole(skdim.id.TwoNN),
    "GRIDE": whole(skdim.id.GRIDE),
    "GRIDE (n = 16)": whole(skdim.id.GRIDE, n1=16),
    "MiND_ML": whole(skdim.id.MiND_ML, D=80),
    "MLE (k = 20)": lambda X: skdim.id.MLE().fit(X, n_neighbors=20).dimension_,
    "MOM": lambda X: skdim.id.MOM().fit(X, n_neighbors=100).dimension_,
    "MADA": lambda X: skdim.id.MADA().fit(X, n_neighbors=20).dimension_,
    "CorrInt": whole(skdim.id.CorrInt),
    "FisherS": whole(skdim.id.FisherS),
    "lPCA, global": whole(skdim.id.lPCA, verbose=False),
}
SLOW = {
    "KNN": whole(skdim.id.KNN, k=10, random_state=0),
    "TLE": lambda X: skdim.id.TLE().fit(X, n_neighbors=20).dimension_,
    "lPCA, local": local(skdim.id.lPCA, 100, verbose=False),
    "ESS": of_rows(skdim.id.ESS, 100, 200, random_state=0),
    "DANCo": whole(skdim.id.DANCo, random_state=0),
}


class Cache:
    """Answers and seconds by name, on disk."""

    def __init__(self, folder, seconds):
        self.path = Path(folder) / "dimension.json"
        self.path.parent.mkdir(exist_ok=True)
        self.values = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.end = seconds

    def __call__(self, run, X, *key):
        key = " | ".join(map(str, key))
        if key not in self.values and time.process_time() < self.end:
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    answer = float(run(X()))
                except Exception as error:  # a peer that fails has no answer
                    print(key, repr(error)[:200])
                    answer = float("nan")
            self.values[key] = answer, time.process_time() - start
            self.path.write_text(json.dumps(self.values))
        return self.values.get(key, (float("nan"),) * 2)


def shown(answer, digits):
    """A number, or a dash where it was not measured."""
    return f"{answer:.{digits}f}" if np.isfinite(answer) else "-"


# ---------------------------------------------------------------------- manifolds


def suite(noise, seed):
    bench = skdim.datasets.BenchmarkManifolds(random_state=seed)
    truth = bench.truth["Intrinsic Dimension"].astype(int)
    return {name: (X, truth[name]) for name, X in bench.generate(n=2500, noise=noise).items()}


def manifolds(cache):
    found = {}
    data = {(noise, seed): suite(noise, seed) for noise in NOISES for seed in SEEDS}
    for estimators, seeds in ((FAST, SEEDS), (SLOW, SEEDS[:1])):
        for noise in NOISES:
            for seed in seeds:
                for manifold, (X, truth) in data[noise, seed].items():
                    for name, run in estimators.items():
                        key = ("manifolds", noise, seed, manifold, name)
                        answer, seconds = cache(run, lambda X=X: X, *key)
                        entry = (manifold, truth, answer, seconds)
                        found.setdefault((noise, name), []).append(entry)
    text = [_errors(noise, found) for noise in NOISES]
    names = list(data[0.0, 0])
    lines = []
    for manifold in names:
        line = {"manifold": manifold, "truth": data[0.0, 0][manifold][1]}
        for noise in NOISES:
            answers = [a for name, _, a, _ in found[noise, OURS] if name == manifold]
            line[f"noise {noise:g}"] = " ".join(f"{a:.1f}" for a in answers)
        lines.append(line)
    text.append("Our answers, seed by seed:\n\n" + table(lines, list(lines[0])))
    return "\n\n".join(text)


def _errors(noise, found):
    lines = []
    for (level, name), entries in found.items():
        truth, answers, seconds = np.array([entry[1:] for entry in entries], dtype=float).T
        known = np.isfinite(answers)
        if level != noise or known.mean() < 20 / 24:  # measured on a part alone
            continue
        off = np.abs(answers / truth - 1)[known]
        whole_numbers = np.abs(np.maximum(np.round(answers), 1) / truth - 1)[known]
        lines.append(
            {
                "estimator": name,
                "mean": f"{off.mean():.3f}",
                "median": f"{np.median(off):.3f}",
                "worst": f"{off.max():.2f}",
                "mean, rounded": f"{whole_numbers.mean():.3f}",
                "data sets": known.sum(),
                "median CPU s": f"{np.median(seconds[known]):.2f}",
            }
        )
    lines.sort(key=lambda line: float(line["mean"]))
    return f"## 24 manifolds, noise {noise:g}\n\n" + table(lines, list(lines[0]))


# ---------------------------------------------------------------------- laws of the papers


def padded(X, columns):
    return np.pad(X, ((0, 0), (0, columns - X.shape[1])))


def clifford_torus(n):
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, (n, 32))
    return padded(np.hstack([np.cos(angle), np.sin(angle)]), 128)


def nonlinear(n):
    bench = skdim.datasets.BenchmarkManifolds(random_state=0)
    return bench.generate("Mn1_Nonlinear", n=n, d=32, dim=128)


N = 2000
LAWS = {
    "Gaussian 2/5": (2, lambda: make_gaussian(N, 5, spectrum=[1, 1, 0, 0, 0], random_state=0)[0]),
    "swiss roll 2/3": (2, lambda: make_swiss_roll(N, random_state=0)[0]),
    "swiss roll 2/5": (2, lambda: make_swiss_roll(N, 5, random_state=0)[0]),
    "sphere 2/3": (2, lambda: make_sphere(N, 2, random_state=0)[0]),
    "sphere 2/5": (2, lambda: make_sphere(N, 2, 5, random_state=0)[0]),
    "sphere 10/100": (10, lambda: make_sphere(N, 10, 100, random_state=0)[0]),
    "sphere 50/100": (50, lambda: make_sphere(N, 50, 100, random_state=0)[0]),
    "sphere 16/64": (16, lambda: make_sphere(N, 16, 64, random_state=0)[0]),
    "ball 16/64": (16, lambda: padded(skdim.datasets.hyperBall(N, 16, random_state=0), 64)),
    "Clifford torus 32/128": (32, lambda: clifford_torus(N)),
    "twin peaks 128/256": (
        128,
        lambda: padded(skdim.datasets.hyperTwinPeaks(N, 128, random_state=0), 256),
    ),
    "nonlinear 32/128": (32, lambda: nonlinear(N)),
    "uniform 10/100": (
        10,
        lambda: padded(np.random.default_rng(0).uniform(-1, 1, (N, 10)), 100),
    ),
}


def rows_of(method):
    """A method on the empirical law of the rows."""
    return lambda X: IntrinsicDimensionEstimator(method, random_state=0).fit(X).dimension_


EMPIRICAL = {f"rows, {m}": rows_of(m) for m in ("flipd", "spectrum", "lidl")}


def laws(cache):
    lines = []
    for law, (truth, make) in LAWS.items():
        line = {"law": law, "truth": truth}
        for name, run in {**FAST, **SLOW, **EMPIRICAL}.items():
            line[name] = shown(cache(run, make, "laws", law, name)[0], 2)
        lines.append(line)
    by_name = [
        {"estimator": name, **{line["law"]: line[name] for line in lines}}
        for name in list(lines[0])[2:]
    ]
    return f"## Laws, n = {N}\n\n" + table(by_name, list(by_name[0]))


# ---------------------------------------------------------------------- local answers


LOCAL = {
    OURS: lambda X: IntrinsicDimensionEstimator(random_state=0).fit(X).dimension_pw_,
    "MLE (k = 20)": lambda X: skdim.id.MLE().fit(X, n_neighbors=20).dimension_pw_,
    "TLE": lambda X: skdim.id.TLE().fit(X, n_neighbors=20).dimension_pw_,
    "MOM": lambda X: skdim.id.MOM().fit(X, n_neighbors=50).dimension_pw_,
    "MADA": lambda X: skdim.id.MADA().fit(X, n_neighbors=20).dimension_pw_,
    "lPCA (k = 50)": by_row(skdim.id.lPCA, 50, verbose=False),
    "TwoNN (k = 50)": by_row(skdim.id.TwoNN, 50),
}


def sets(cache):
    """Medians over the rows of each part, and relative errors of the rows on average."""
    lines, off = [], {name: [] for name in LOCAL}
    for law, make in SETS.items():
        line = {"set": law, "truth": ", ".join(map(str, make(np.random.default_rng(0))))}
        for name, run in LOCAL.items():
            found = np.array([_of_parts(cache, law, make, name, run, seed) for seed in SEEDS])
            line[name] = ", ".join(shown(answer, 2) for answer in found[..., 0].mean(axis=0))
            off[name].append(found[..., 1].mean())
        lines.append(line)
    errors = {name: shown(np.mean(values), 3) for name, values in off.items()}
    lines.append({"set": "mean error of a row", "truth": "", **errors})
    return "## Local answers\n\n" + table(lines, list(lines[0]))


def _of_parts(cache, law, make, name, run, seed):
    """Median answer and mean relative error in each part."""
    parts = make(np.random.default_rng(seed))
    rows, part = side_by_side(list(parts.values()))

    @lru_cache
    def answers():
        return run(rows)

    def kept(k, of, *what):
        key = ("sets", law, seed, name, k, *what)
        return cache(lambda _: of(answers()[part == k]), lambda: None, *key)[0]

    return [(kept(k, np.median), kept(k, partial(_off, d), "off")) for k, d in enumerate(parts)]


def _off(truth, answers):
    return np.mean(np.abs(answers / truth - 1))


# ---------------------------------------------------------------------- exact scores

EXACT = {
    "Gaussian 2/5": (2, lambda: make_gaussian(100, 5, spectrum=[1, 1, 0, 0, 0], random_state=0)),
    "swiss roll 2/5": (2, lambda: make_swiss_roll(100, 5, random_state=0)),
    "sphere 2/5": (2, lambda: make_sphere(50, 2, 5, random_state=0)),
    "sphere 10/100": (10, lambda: make_sphere(30, 10, 100, random_state=0)),
    "sphere 50/100": (50, lambda: make_sphere(8, 50, 100, random_state=0)),
}
METHODS = ("flow_jacobian", "flipd", "lidl", "normal_bundle", "spectrum", "denoising_loss")


def scores(cache):
    lines = []
    for law, (truth, make) in EXACT.items():
        line = {"law": law, "truth": truth}
        for method in METHODS:

            def run(made, method=method):
                X, model = made
                sigma = 0.1 if "roll" in law else 0.01  # noqa: B023
                est = IntrinsicDimensionEstimator(
                    method, score_estimator=model, sigma=sigma, random_state=0
                )
                return est.fit(X).dimension_

            line[method] = shown(cache(run, make, "scores", law, method)[0], 2)
        lines.append(line)
    text = "## Exact score models, one low noise level\n\n" + table(lines, list(lines[0]))
    spectrum = np.repeat([1e-4, 1.0, 1000.0], [3, 3, 4])
    X, model = make_gaussian(500, 10, spectrum=spectrum, random_state=0)
    est = IntrinsicDimensionEstimator("flipd", score_estimator=model, random_state=0).fit(X)
    found = "; ".join(str(plateau) for plateau in est.plateaus_)
    return text + f"\n\nGaussian of variances 1e-4 (3), 1 (3), 1000 (4), plateaus: {found}."


# ---------------------------------------------------------------------- networks

MORE = 20_000
NETWORKS = {
    "swiss roll 2/5": (2, N, 200, lambda n: make_swiss_roll(n, 5, random_state=0)[0]),
    "sphere 2/5": (2, N, 200, lambda n: make_sphere(n, 2, 5, random_state=0)[0]),
    "sphere 10/100": (10, MORE, 200, lambda n: make_sphere(n, 10, 100, random_state=0)[0]),
    "Clifford torus 32/128": (32, MORE, 50, clifford_torus),
}
"""Dimension, rows, rows asked about (Jacobians along a flow take seconds each), and the law."""
OF_NETWORKS = [method for method in METHODS if method != "lidl"]
"""Densities along the flow of a network, five for each row, take a quarter of an hour."""


def networks(cache):
    lines = [of_network(cache, law, *NETWORKS[law]) for law in NETWORKS]
    return "## Networks with defaults\n\n" + table(lines, list(lines[0]))


def of_network(cache, law, truth, n, n_asked, make):
    X = make(n + n_asked)

    @lru_cache
    def trained():
        return FrozenEstimator(NeuralScore(random_state=0).fit(X[:n]))

    def answer(name, run, rows):
        return cache(run, lambda: rows, "networks", law, name)

    def by(method, rows):
        est = IntrinsicDimensionEstimator(method, score_estimator=trained(), random_state=0)
        return est.fit(rows).dimension_

    seconds = answer("fit", lambda _: trained().estimator.validation_bound_, None)[1]
    line = {"law": law, "truth": truth, "rows": n, "CPU s": shown(seconds, 0)}
    for method in OF_NETWORKS:
        line[method] = shown(answer(method, partial(by, method), X[n:])[0], 2)
    line["of neighbours"] = shown(answer(OURS, ours, X[:N])[0], 2)
    return line


# ---------------------------------------------------------------------- real data


def idx(folder, name):
    with gzip.open(Path(folder) / name) as file:
        raw = np.frombuffer(file.read(), dtype=np.uint8)
    n_dims = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * k : 8 + 4 * k].tobytes(), "big") for k in range(n_dims)]
    return raw[4 + 4 * n_dims :].reshape(shape)


def images(folder):
    X = idx(folder, "train-images-idx3-ubyte.gz").reshape(60_000, -1) / 255.0
    return X, idx(folder, "train-labels-idx1-ubyte.gz")


def real(cache):
    folder = Path(os.environ.get("SKDIFFUSION_DATA", "data"))
    sets = {"digits (8 x 8)": ("", load_digits().data / 16)}
    if folder.exists():
        with np.load(folder / "isomap_faces" / "isomap_faces_32x32.npz") as faces:
            rows = next(faces[k] for k in faces.files if faces[k].shape == (698, 1024))
        sets["faces"] = ("3 (truth); MLE 3.6 to 4.0", rows.astype(float))
        X, y = images(folder / "mnist")
        sets["MNIST"] = ("MLE 13.5 to 14.2; normal bundle 152", X[:3000])
        bundle = [113, 66, 131, 120, 107, 129, 126, 100, 148, 152]
        for k in range(10):
            known = f"normal bundle {bundle[k]}" + ("; MLE 9.7 to 11.5" if k == 1 else "")
            sets[f"MNIST {k}"] = (known, X[:10_000][y[:10_000] == k])
        X, _ = images(folder / "fashion_mnist")
        sets["Fashion-MNIST"] = ("MLE 14.6 to 15.0", X[:3000])
    names = [OURS, "TwoNN", "MLE (k = 20)"]
    lines = []
    for name, (known, X) in sets.items():
        line = {"data": name, "n": len(X), "published": known}
        for peer in names:
            line[peer] = shown(cache(FAST[peer], lambda X=X: X, "real", name, peer)[0], 1)
        lines.append(line)
    return "## Real data\n\n" + table(lines, list(lines[0]))


SECTIONS = {
    "manifolds": manifolds,
    "laws": laws,
    "sets": sets,
    "scores": scores,
    "networks": networks,
    "real": real,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", default=list(SECTIONS))
    parser.add_argument("--cache", default="dimension_cache")
    parser.add_argument("--seconds", type=float, default=np.inf, help="of CPU, for new answers")
    options = parser.parse_args()
    cache = Cache(options.cache, options.seconds)
    text = [SECTIONS[name](cache) for name in options.sections]
    text.append(" ".join(__doc__.split("\n\n")[2].split()))
    packages = ("numpy", "scipy", "scikit-learn", "scikit-dimension")
    write("dimension", "Intrinsic dimension beside scikit-dimension", "\n\n".join(text), packages)


if __name__ == "__main__":
    main()
