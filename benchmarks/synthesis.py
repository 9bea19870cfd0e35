"""Do models trained on generated tables work on real ones, and are the rows new?

The tables of Kotelnikov et al. (TabDDPM, ICML 2023) with their splits; at most 8000 training rows.
A generator is fitted to the training rows and draws as many. Gradient boosting
(HistGradientBoosting with its defaults) is trained on them and tested on the real test rows: macro
F1 for classes, R2 for numbers, mean over seeds. Distance to the closest record: the median distance
of generated rows to training rows over that of the validation rows, columns standardised and
categories one-hot; 1 is as far as fresh rows, 0 a copy. Copies: the share of generated rows three
times as near to one training row as to any other, less that share of the validation rows.

mixture: DensityPipeline of quantiles to normal, one-hot categories and GMMScore (the average of
five), one per class; kernels: the same with EmpiricalScore; network: the same with
NeuralScore(parameterization="gaussian"); SMOTE: rows moved to a random share of the way to one of
five neighbours of their class, as TabDDPM's baseline does; categories from the nearer end.
Published scores are with CatBoost tuned per table and all training rows: compare each with its own
"real" column.

    python benchmarks/synthesis.py --data FOLDER [--tables NAME ...] [--repeats 2]
"""

import argparse
import csv
import os
import time
import warnings
from pathlib import Path

import numpy as np
from _report import table, write
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import f1_score, r2_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

from skdiffusion import EmpiricalScore, GMMScore, NeuralScore
from skdiffusion.compose import make_density_pipeline
from skdiffusion.metrics import memorisation

TABLES = {  # name here: name of the published scores
    "abalone": "abalone",
    "buddy": "buddy",
    "california": "california",
    "cardio": "cardio",
    "churn": "churn2",
    "king": "king",
    "wilt": "wilt",
}
MOST_ROWS = 8000
REGRESSION = ("abalone", "california", "king")
RUNS = {"real": "real", "TabDDPM": "ddpm_cb_best", "SMOTE": "smote", "TVAE": "tvae"}


class Table:
    """Numbers, then codes of categories, and in a regression the target as the last number."""

    def __init__(self, path):
        with np.load(path) as stored:
            X, self.split = stored["X"].astype(np.float64), stored["split"]
            codes = stored["X_cat"].astype(np.float64) if "X_cat" in stored else X[:, :0]
            self.y = stored["y"].astype(np.float64)
        self.regression = path.stem in REGRESSION
        self.X = np.hstack([X, codes])
        self.categorical = list(range(X.shape[1], self.X.shape[1]))

    def part(self, which, most=None):
        rows = np.flatnonzero(self.split == which)
        if most is not None and len(rows) > most:
            rows = np.random.default_rng(0).choice(rows, most, replace=False)
        return self.X[rows], self.y[rows]

    def encoder(self, d):
        numeric = [j for j in range(d) if j not in self.categorical]
        return ColumnTransformer(
            [
                ("numbers", QuantileTransformer(output_distribution="normal"), numeric),
                ("categories", OneHotEncoder(sparse_output=False), self.categorical),
            ]
        )


def network(n):
    return NeuralScore(parameterization="gaussian", random_state=0)


def by_class(generate):
    """A generator per class, of as many rows as the class has; joint with a numeric target."""

    def generated(data, X, y, seed):
        if data.regression:
            rows = generate(data, np.column_stack([X, y]), seed)
            return rows[:, :-1], rows[:, -1]
        parts = [generate(data, X[y == label], seed) for label in np.unique(y)]
        return np.concatenate(parts), np.sort(y)

    return generated


def pipeline_of(density):
    def generate(data, rows, seed):
        pipeline = make_density_pipeline(
            data.encoder(rows.shape[1]), density(len(rows)), round_integers=True, clip=True
        )
        return pipeline.fit(rows).sample(len(rows), random_state=seed)

    return generate


def mixture(n):
    return GMMScore(int(np.clip(n // 30, 1, 60)), n_averaged=5, random_state=0)


def smote(data, rows, seed):
    rng = np.random.default_rng(seed)
    seen = StandardScaler().fit_transform(rows)
    n_neighbors = min(5, len(rows) - 1)
    near = NearestNeighbors(n_neighbors=n_neighbors).fit(seen).kneighbors(return_distance=False)
    start = rng.integers(len(rows), size=len(rows))
    end = near[start, rng.integers(n_neighbors, size=len(rows))]
    share = rng.random((len(rows), 1))
    moved = rows[start] + share * (rows[end] - rows[start])
    nearer = np.where(share < 0.5, rows[start], rows[end])
    moved[:, data.categorical] = nearer[:, data.categorical]
    return moved


GENERATORS = {
    "real": lambda data, X, y, seed: (X, y),
    "mixture": by_class(pipeline_of(mixture)),
    "kernels": by_class(pipeline_of(lambda n: EmpiricalScore())),
    "network": by_class(pipeline_of(network)),
    "SMOTE": by_class(smote),
}


def utility(data, train, test, seed):
    categorical = data.categorical or None
    if data.regression:
        model = HistGradientBoostingRegressor(categorical_features=categorical, random_state=seed)
        return r2_score(test[1], model.fit(*train).predict(test[0]))
    model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=seed)
    return f1_score(test[1], model.fit(*train).predict(test[0]), average="macro")


def closeness(data, X, generated, holdout):
    d = X.shape[1]
    numeric = [j for j in range(d) if j not in data.categorical]
    encoder = ColumnTransformer(
        [
            ("numbers", StandardScaler(), numeric),
            (
                "codes",
                OneHotEncoder(sparse_output=False, handle_unknown="ignore"),
                data.categorical,
            ),
        ]
    ).fit(X)
    sets = (encoder.transform(rows) for rows in (X, generated, holdout))
    return memorisation(*sets, standardize=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=os.environ.get("SKDIFFUSION_DATA"))
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.data is None:
        raise SystemExit("no data folder: give --data or set SKDIFFUSION_DATA.")
    with open(Path(options.data) / "tabular_reference_scores" / "tabddpm_test_scores.csv") as file:
        reference = [row for row in csv.DictReader(file) if row["evaluator"] == "catboost"]
    scores, distances = [], []
    for name in options.tables:
        data = Table(Path(options.data) / "tabular" / f"{name}.npz")
        (X, y), test = data.part(0, MOST_ROWS), data.part(2)
        holdout = data.part(1, MOST_ROWS)[0]
        title = f"{name} ({len(X)} x {X.shape[1]}), {'R2' if data.regression else 'F1'}"
        row, far = {"table": title}, {"table": name}
        for method, generate in GENERATORS.items():
            found, start = [], time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for seed in range(options.repeats if method != "real" else 1):
                    drawn = generate(data, X, y, seed)
                    found.append(utility(data, drawn, test, seed))
                seconds = (time.perf_counter() - start) / len(found)
                if method != "real":
                    near = closeness(data, X, drawn[0], holdout)
                    far[f"{method}: distance"] = f"{near.ratio:.2f}"
                    far[f"{method}: copies"] = f"{100 * (near.copies - near.holdout_copies):+.0f}%"
                    far[f"{method}: s"] = f"{seconds:.0f}"
            row[method] = f"{np.mean(found):.3f}"
        measure = "r2_mean" if data.regression else "f1_mean"
        for column, run in RUNS.items():
            values = [
                float(r[measure])
                for r in reference
                if r["dataset"] == TABLES[name]
                and (r["train_on"] == "real" if run == "real" else r["run"] == run)
                and (run == "real" or r["train_on"] == "synthetic")
            ]
            row[f"{column} published"] = f"{max(values):.3f}" if values else ""
        scores.append(row)
        distances.append(far)
        print(row, far, flush=True)
    text = table(scores, list(scores[0])) + "\n\n" + table(distances, list(distances[0])) + "\n\n"
    text += kept(scores) + " ".join(" ".join(__doc__.split("\n\n")[1:3]).split())
    write("synthesis", "Train on synthetic, test on real", text)


def kept(scores):
    """What share of the real rows' score each generator keeps."""

    def share(column, real):
        pairs = [(row[column], row[real]) for row in scores if row[column] and row[real]]
        return np.mean([float(a) / float(b) for a, b in pairs])

    ours = {m: share(m, "real") for m in ("mixture", "kernels", "network", "SMOTE")}
    theirs = {m: share(f"{m} published", "real published") for m in ("TabDDPM", "SMOTE", "TVAE")}
    return (
        "Mean share of the score of real rows that is kept: "
        + ", ".join(f"{m} {100 * v:.1f}%" for m, v in ours.items())
        + "; published: "
        + ", ".join(f"{m} {100 * v:.1f}%" for m, v in theirs.items())
        + ".\n\n"
    )


if __name__ == "__main__":
    main()
