"""How well is a gauge found, tested for and removed?

Laws are mixtures, fields their scores with a constant gauge Qs, so that the gradient part is known:
the score itself. Fractions are out of fold. Errors are root mean squares over 4,000 fresh rows as
a share of the score's; the raw field has 1. Three samples each (networks: one); in brackets the
worst. There is no other package to compare with: "random_features", Fourier features with a
cross-validated ridge, is what one would write first. The gauge test sees 300 rows, 200 samples of
them. Samplers are Heun's from the same starts; the classifier has 50 neighbours and five folds, and
4,000 rows, so that 0.5 is known to 0.008. A step's turn is in radians.
"""

import time

import numpy as np
from _report import table, write
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skdiffusion import ConservativityDecomposer
from skdiffusion.geometry import kernel_gauge_test, step_inflation
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import AdditiveGauge, MixtureModel, ProductModel
from skdiffusion.samplers import HeunSampler, run_sampler

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
THREE = MixtureModel([1, 1, 1], [[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]], [0.5, 0.5, 0.5])


def law_and_turn(d):
    rng = np.random.default_rng(d)
    law = MixtureModel([1, 2, 3], 2 * rng.standard_normal((3, d)), [0.5, 1.0, 0.3])
    A = rng.standard_normal((d, d))
    return law, A - A.T


def pure_gauges():
    rows = []
    for d in (2, 8, 32):
        law, Q = law_and_turn(d)
        found, seconds = [], time.perf_counter()
        for seed in range(3):
            X = law.sample(2000, random_state=seed)
            dec = ConservativityDecomposer(random_state=seed).fit(X, law.score(X, 0.0) @ Q.T)
            found.append((dec.conservative_fraction_, dec.conservative_fraction_std_error_))
        fractions, errors = np.transpose(found)
        rows.append(
            {
                "columns": d,
                "fraction": f"{fractions.mean():+.4f}",
                "largest": f"{fractions[np.abs(fractions).argmax()]:+.4f}",
                "its own standard error": f"{errors.mean():.4f}",
                "seconds": f"{(time.perf_counter() - seconds) / 3:.1f}",
            }
        )
    return rows


def error(found, truth):
    return np.sqrt(((found - truth) ** 2).sum() / (truth**2).sum())


def recovered():
    fresh = THREE.sample(4000, random_state=100)
    truth = THREE.score(fresh, 0.0)
    rows = []
    for potential in ("linear", "polynomial", "random_features", "kernel", "auto", "neural"):
        row = {"potential": potential}
        for n in (500, 2000, 5000):
            if potential == "neural" and n != 2000:
                row |= {f"error, n = {n}": "", f"fraction, n = {n}": ""}
                continue
            found, seconds = [], time.perf_counter()
            for seed in range(1 if potential == "neural" else 3):
                X = THREE.sample(n, random_state=seed)
                V = AdditiveGauge(THREE, TURN).score(X, 0.0)
                dec = ConservativityDecomposer(potential, random_state=seed).fit(X, V)
                found.append((error(dec.predict(fresh), truth), dec.conservative_fraction_))
            seconds = (time.perf_counter() - seconds) / len(found)
            errors, fractions = np.transpose(found)
            row |= {"seconds at the last": f"{seconds:.1f}"}
            row[f"error, n = {n}"] = f"{errors.mean():.3f} (to {errors.max():.3f})"
            row[f"fraction, n = {n}"] = f"{fractions.mean():.3f}"
        rows.append(row)
    return rows


def gauge_test():
    rows = []
    for name, shift in (("r", 0.0), ("r + 0.1 x", 0.1), ("r + 0.3 x", 0.3)):
        start, rejected = time.perf_counter(), 0
        for seed in range(200):
            X = THREE.sample(300, random_state=seed)
            R = AdditiveGauge(THREE, TURN).gauge(X, 0.0) + shift * X
            rejected += kernel_gauge_test(X, R, random_state=seed).p_value <= 0.05
        seconds = (time.perf_counter() - start) / 200
        rows.append(
            {"field": name, "rejected at 0.05": f"{rejected} of 200", "seconds": f"{seconds:.3f}"}
        )
    return rows


def accuracy(a, b):
    X, labels = np.vstack([a, b]), np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_score(KNeighborsClassifier(50), X, labels, cv=folds).mean()


def other_paths():
    levels = [*np.geomspace(30, 0.01, 100), 0.0]
    coarse = [*np.geomspace(30, 0.01, 12), 0.0]
    start = THREE.gaussian().mean + 30 * np.random.default_rng(0).standard_normal((2000, 2))
    truth = THREE.sample(2000, random_state=1)
    x = THREE.sample(50, 0.05, random_state=2)
    plain = run_sampler(HeunSampler(), THREE, start, levels)
    rows = []
    for strength in (0.0, 1.0, 5.0):
        model = AdditiveGauge(THREE, strength * TURN, fade=5.0)
        fine = run_sampler(HeunSampler(), model, start, levels)
        rough = run_sampler(HeunSampler(), model, start, coarse)
        found = flow_log_prob(model, x, THREE.gaussian(), 0.05, 1e4, tol=1e-11).log_prob
        turn = step_inflation(model, x, 0.5, np.log(coarse[0] / coarse[1])).turn
        rows.append(
            {
                "gauge": f"{strength:g} J s",
                "likelihoods off by": f"{np.abs(found - THREE.log_prob(x, 0.05)).max():.0e}",
                "samples moved by": f"{np.median(np.linalg.norm(fine - plain, axis=1)):.2f}",
                "told from the law, 100 levels": f"{accuracy(fine, truth):.3f}",
                "12 levels": f"{accuracy(rough, truth):.3f}",
                "turn per step of 12": f"{np.median(turn):.2f}",
            }
        )
    return rows


def guidance():
    """Rows of a guided pair of classes: how far their mean is off."""
    one = MixtureModel([1, 1], [[2.0, 0.0], [0.0, 2.0]], [0.5, 0.5])
    branches = AdditiveGauge(one, 2 * TURN, fade=5.0), AdditiveGauge(THREE, -2 * TURN, fade=5.0)
    projected = [
        ConservativityDecomposer(score_estimator=m, random_state=0)
        .fit(m.sample(5000, random_state=0))
        .as_score_model()
        for m in branches
    ]
    levels = [*np.geomspace(30, 0.02, 100), 0.0]
    start = 30 * np.random.default_rng(0).standard_normal((4000, 2))
    pairs = {"exact scores": (one, THREE), "with gauges": branches, "projected first": projected}
    samples = {
        name: run_sampler(HeunSampler(), ProductModel(pair, [2.0, -1.0]), start[:2000], levels)
        for name, pair in pairs.items()
    }
    exact = run_sampler(
        HeunSampler(), ProductModel([one, THREE], [2.0, -1.0]), start[2000:], levels
    )
    return [
        {
            "branches": name,
            "mean": np.array2string(x.mean(axis=0), precision=2),
            "told from guidance of exact scores": f"{accuracy(x, exact):.3f}",
        }
        for name, x in samples.items()
    ]


def main():
    parts = [" ".join(__doc__.split("\n\n")[1].split())]
    for title, rows in (
        ("A pure gauge, 2,000 rows: the fraction should be zero", pure_gauges()),
        ("Score and gauge, the fraction is 1/2: the score recovered", recovered()),
        ("The kernel gauge test", gauge_test()),
        ("The same law on other paths", other_paths()),
        ("Guidance of weight 2: project each branch first", guidance()),
    ):
        parts += [f"## {title}", table(rows, list(rows[0]))]
        print(parts[-2], parts[-1], sep="\n", flush=True)
    write("conservativity", "The gauge of a field: found, tested for, removed", "\n\n".join(parts))


if __name__ == "__main__":
    main()
