"""Do errors say where samples end? Reach, align and slide on thirteen points and on digits.

Thirteen points on a sine, ridge at level 0.3, 300 samples, 160 levels from 20 to 0.005. A constant
error across or along the ridge is added to the reference denoiser below level 0.6; the laws of
first order say what that does to the distance from the ridge and to the position along it,
a / (1 - r) (1 - exp(-kappa (1 - r) log(0.6 / 0.005))), with the ratio r across or along.

Digits in 20 principal components, 1,400 rows, 4-dimensional ridge at the default level: over 1,000
samples that have a projection, correlation of the final distance to the ridge with the length of
the error budget across and along; means of three seeds, of training and of samples, and half the
range. Errors are those of training (from the denoiser of the rows) and those from that denoiser
held at the level of the ridge. Partial: along, given across. Features are cosines with exact
moments, after a time of training or at its end. The predicted offset is that of the linear law from
the held errors. For the rows left out of the fit, which no model has moved, the budget is their
mean shift at the level of the ridge.

Digits with a part of the errors: 300 samples of the first seed go on from the level of the ridge
with all of the held errors, those across, those along, or none. Median distance to the ridge at the
end, its correlation with that under all errors, and how far the projection on the ridge ends from
where it would without errors (root mean square).

    python benchmarks/reach_align_slide.py
"""

import warnings
from typing import NamedTuple

import numpy as np
from _report import table, write
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skdiffusion import (
    EmpiricalScore,
    GMMScore,
    NeuralScore,
    RandomFeatureScore,
    RidgeProjector,
)
from skdiffusion.datasets import make_thirteen_points
from skdiffusion.inspection import reach_align_slide
from skdiffusion.inspection.reach_align_slide import HeldModel
from skdiffusion.models import BaseScoreModel

LEVELS = np.geomspace(20, 0.005, 161)
BELOW = 0.6


class Injected(BaseScoreModel):
    """The held denoiser with a constant error across and along the ridge."""

    n_features = 2

    def __init__(self, ridge, across, along):
        self.ridge, self.across, self.along = ridge, across, along
        self.held = HeldModel(ridge.model_, ridge.bandwidth_)

    def _denoise(self, x, sigma):
        denoised = self.held.denoise(x, sigma)
        if sigma > BELOW:
            return denoised
        tangent, normal = frame(self.ridge, self.ridge.ridge_.project(x).points)
        return denoised + self.across * normal + self.along * tangent


def frame(ridge, points):
    tangent = ridge.tangent_basis(points)[:, :, 0]
    tangent = tangent * np.sign(tangent[:, :1])
    return tangent, np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


class Response(NamedTuple):
    """What a constant error does to samples, and what the law of first order says of it."""

    sampler: str
    across: float
    along: float
    law: float
    offset: float
    position: float
    identity_error: float


KAPPA = {"euler": 1, "ddpm": 2}


def responses(samplers=KAPPA):
    """One for each sampler and error, on thirteen points."""
    X, _ = make_thirteen_points()
    ridge = RidgeProjector(bandwidth=0.3).fit(X)
    made = []
    for sampler in samplers:
        kappa = KAPPA[sampler]

        def ends(across, along, sampler=sampler):
            model = Injected(ridge, across, along)
            found = reach_align_slide(model, ridge, sampler, levels=LEVELS, random_state=0)
            signed = (found.offset * frame(ridge, found.projections[-1])[1]).sum(1)
            return found, signed, ridge.arc_coordinates(found.points[-1])

        clean, offset, arc = ends(0, 0)
        ratios = np.median(ridge.diagnostics(clean.points[-1]).ratios, axis=0)
        for across, along in ((0.02, 0), (0.04, 0), (0.08, 0), (0, 0.02), (0, 0.04), (0, 0.08)):
            found, moved, slid = ends(across, along)
            left = 1 - (ratios[1] if across else ratios[0])
            law = (across + along) / left * (1 - np.exp(-kappa * left * np.log(BELOW / LEVELS[-1])))
            changes = np.median(moved - offset), np.median(slid - arc)
            made.append(Response(sampler, across, along, law, *changes, found.identity_error))
    return made


def thirteen():
    return [
        {
            "sampler": r.sampler,
            "error": f"{r.across} across" if r.across else f"{r.along} along",
            "law": f"{r.law:.4f}",
            "offset changes by": f"{r.offset:.4f}",
            "position changes by": f"{r.position:.4f}",
            "identity error": f"{r.identity_error:.0e}",
        }
        for r in responses()
    ]


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


DIGIT_LEVELS = np.geomspace(60, 0.02, 25)


def random_features(n_features, flow_time=None):
    """Cosines, trained for a time or to the end, at every level of the digits."""
    low, high = DIGIT_LEVELS[-1], DIGIT_LEVELS[0]
    return RandomFeatureScore(
        n_features, alpha=0.0, flow_time=flow_time, sigma_min=low, sigma_max=high
    )


MODELS = {
    "perturbed rows, 0.3": EmpiricalScore(smoothing=0.3, scaling="none"),
    "mixture of 20": GMMScore(20),
    "100 features, time 10": random_features(100, 10.0),
    "100 features": random_features(100),
    "600 features, time 10": random_features(600, 10.0),
    "600 features": random_features(600),
    "network, 10 epochs": NeuralScore(parameterization="gaussian", max_epochs=10),
    "network, 50 epochs": NeuralScore(parameterization="gaussian", max_epochs=50),
    "network, 200 epochs": NeuralScore(parameterization="gaussian", max_epochs=200),
    "network, 800 epochs": NeuralScore(
        parameterization="gaussian", max_epochs=800, early_stopping=False
    ),
}
SEEDS = 3
PARTS = ("all", "normal", "tangential", "none")


class Observed(NamedTuple):
    """Over the samples of a run: the final distance and its correlations with the budgets."""

    distance: float
    across: float
    along: float
    training: np.ndarray
    held: np.ndarray
    predicted: float


def lengths(*vectors):
    return [np.linalg.norm(v, axis=1) for v in vectors]


def correlations(distance, across, along):
    """With the length across, with that along, and with that along given that across."""
    (_, a, b), (_, _, both), _ = np.corrcoef([distance, across, along])
    return np.array([a, b, (b - a * both) / np.sqrt((1 - a**2) * (1 - both**2))])


def training_budget(found, model, ridge):
    """Along and across: weighted errors from the denoiser of the rows at every level."""
    steps = zip(found.weights, found.points[:-1], found.levels[:-1], strict=True)
    total = sum(w * (model.denoise(y, s) - ridge.model_.denoise(y, s)) for w, y, s in steps)
    return ridge.decompose(found.projections[-1], total)


def observed(model, ridge, levels, seed, n_samples=1000):
    """A run and what its samples show."""
    found = reach_align_slide(model, ridge, levels=levels, n_samples=n_samples, random_state=seed)
    known = np.isfinite(found.distance[-1])
    distance = found.distance[-1][known]
    along, across = lengths(*(v[known] for v in training_budget(found, model, ridge)))
    training = correlations(distance, across, along)
    across, along, predicted = lengths(
        *(v[known] for v in (found.normal_budget, found.tangential_budget, found.predicted_offset))
    )
    return found, Observed(
        np.median(distance),
        np.sqrt(np.mean(across**2)),
        np.sqrt(np.mean(along**2)),
        training,
        correlations(distance, across, along),
        correlation(distance, predicted),
    )


class Ends(NamedTuple):
    """Where samples end under a part of the errors."""

    distance: float
    correlation: float
    moved: float


def ends_with_parts(model, ridge, found, n_samples=300):
    """From where a run passed the level of the ridge, under each of ``PARTS``."""
    i = int(np.argmax(found.levels <= ridge.bandwidth_))
    start = found.points[i, :n_samples]
    runs = {
        part: reach_align_slide(model, ridge, levels=found.levels[i:], start=start, errors=part)
        for part in PARTS
    }
    known = np.all([np.isfinite(run.distance[-1]) for run in runs.values()], axis=0)
    distance = {part: run.distance[-1][known] for part, run in runs.items()}
    place = {part: run.projections[-1][known] for part, run in runs.items()}
    return {
        part: Ends(
            np.median(distance[part]),
            correlation(distance[part], distance["all"]),
            np.sqrt(np.mean(((place[part] - place["none"]) ** 2).sum(axis=1))),
        )
        for part in PARTS
    }


def spread(values):
    """Mean and half the range."""
    return f"{np.mean(values):.2f} ± {np.ptp(values) / 2:.2f}"


def digits():
    X = PCA(20, random_state=0).fit(load_digits().data[:1400] / 8).transform(load_digits().data / 8)
    return X[:1400], X[1400:]


def rows(name):
    X, _ = digits()
    ridge, levels = RidgeProjector(4).fit(X), DIGIT_LEVELS
    runs, seen = [], []
    for seed in range(SEEDS):
        est = clone(MODELS[name])
        est = est.set_params(random_state=seed).fit(X)
        run, numbers = observed(est.model_, ridge, levels, seed)
        runs.append((est.model_, run))
        seen.append(numbers)
    found = {
        "model": name,
        "distance": spread([r.distance for r in seen]),
        "held: rms across / along": " / ".join(
            f"{np.mean([getattr(r, part) for r in seen]):.2f}" for part in ("across", "along")
        ),
    }
    for kind in ("training", "held"):
        columns = np.transpose([getattr(r, kind) for r in seen])
        for title, values in zip(("across", "along", "partial"), columns, strict=True):
            found[f"{kind}: {title}"] = spread(values)
    found["with the predicted offset"] = spread([r.predicted for r in seen])
    stages = runs[0][1].stages
    found["aligns from / slides from"] = f"{stages['align'][0]:.2f} / {stages['slide'][0]:.2f}"
    ends = ends_with_parts(runs[0][0], ridge, runs[0][1])
    return found, {
        "model": name,
        **{f"distance, {part}": f"{ends[part].distance:.2f}" for part in PARTS},
        **{f"correlation, {part}": f"{ends[part].correlation:.2f}" for part in PARTS[1:]},
        **{f"moved, {part}": f"{ends[part].moved:.2f}" for part in PARTS[:-1]},
    }


def left_out():
    """Distances of rows that no model has moved, with their mean shift for a budget."""
    X, rest = digits()
    ridge = RidgeProjector(4).fit(X)
    found = ridge.diagnostics(rest)
    known = found.on_ridge
    shift = rest - ridge.model_.denoise(rest, ridge.bandwidth_)
    along, across = lengths(*(v[known] for v in ridge.decompose(found.points, shift)))
    distance = found.distance[known]
    titles = ("across", "along", "partial")
    return {
        "model": f"{known.sum()} rows left out",
        "distance": f"{np.median(distance):.2f}",
        "held: rms across / along": " / ".join(
            f"{np.sqrt(np.mean(part**2)):.2f}" for part in (across, along)
        ),
        **{f"training: {title}": "" for title in titles},
        **{
            f"held: {title}": f"{value:.2f}"
            for title, value in zip(titles, correlations(distance, across, along), strict=True)
        },
        "with the predicted offset": "",
        "aligns from / slides from": "",
    }


def main():
    warnings.simplefilter("ignore")
    seen, ends = zip(*(rows(name) for name in MODELS), strict=True)
    report(thirteen(), [*seen, left_out()], ends)


def report(points, seen, ends):
    notes = (" ".join(part.split()) for part in __doc__.split("\n\n")[1:4])
    text = "\n\n".join(
        [
            "## A constant error on thirteen points", table(points, list(points[0])),
            "## Digits in 20 components", table(seen, list(seen[0])),
            "## Digits with a part of the errors", table(ends, list(ends[0])),
            *notes,
        ]
    )  # fmt: skip
    packages = ("numpy", "scipy", "scikit-learn", "torch")
    write("reach_align_slide", "Reach, align, slide: where samples end", text, packages)


if __name__ == "__main__":
    main()
