"""Do errors say where samples end? Reach, align and slide on thirteen points and on digits.

Thirteen points on a sine, ridge at level 0.3, 300 samples, 160 levels from 20 to 0.005. A constant
error across or along the ridge is added to the reference denoiser below level 0.6; the laws of
first order say what that does to the distance from the ridge and to the position along it,
a / (1 - r) (1 - exp(-kappa (1 - r) log(0.6 / 0.005))), with the ratio r across or along.

Digits in 20 principal components, 1,400 rows, 4-dimensional ridge at the default level:
correlation, over 300 samples, of the final distance to the ridge with the length of the error
budget across and along, for models of different kinds. Errors are those of training (from the
denoiser of the rows) and those from that denoiser held at the level of the ridge. Partial: along,
given across. The predicted offset is that of the linear law from the held errors.

    python benchmarks/reach_align_slide.py
"""

import warnings
from typing import NamedTuple

import numpy as np
from _report import table, write
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skdiffusion import EmpiricalScore, GMMScore, NeuralScore, RidgeProjector
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


MODELS = {
    "perturbed rows, 0.3": EmpiricalScore(smoothing=0.3, scaling="none", random_state=0),
    "mixture of 20": GMMScore(20, random_state=0),
    "network, 10 epochs": NeuralScore(max_epochs=10, random_state=0),
    "network, 50 epochs": NeuralScore(max_epochs=50, random_state=0),
    "network, 200 epochs": NeuralScore(max_epochs=200, random_state=0),
}


def row(name):
    X = PCA(20, random_state=0).fit_transform(load_digits().data / 8)[:1400]
    ridge, model = RidgeProjector(4).fit(X), MODELS[name].fit(X)
    levels = np.geomspace(60, 0.02, 50)
    held, trained = (
        reach_align_slide(model, ridge, levels=levels, hold=hold, random_state=0)
        for hold in (True, False)
    )
    known = np.isfinite(held.distance[-1])
    distance = held.distance[-1][known]
    found = {"model": name, "distance": f"{np.median(distance):.2f}"}
    for kind, run in (("training", trained), ("held", held)):
        across, along = (
            np.linalg.norm(budget, axis=1)[known]
            for budget in (run.normal_budget, run.tangential_budget)
        )
        c = [correlation(distance, across), correlation(distance, along)]
        both = correlation(across, along)
        partial = (c[1] - c[0] * both) / np.sqrt((1 - c[0] ** 2) * (1 - both**2))
        found[f"{kind}: rms across / along"] = (
            f"{np.sqrt(np.mean(across**2)):.2f} / {np.sqrt(np.mean(along**2)):.2f}"
        )
        found[f"{kind}: correlation across / along (partial)"] = (
            f"{c[0]:.2f} / {c[1]:.2f} ({partial:.2f})"
        )
    predicted = np.linalg.norm(held.predicted_offset, axis=1)[known]
    found["with the predicted offset"] = f"{correlation(distance, predicted):.2f}"
    stages = held.stages
    found["aligns from / slides from"] = f"{stages['align'][0]:.2f} / {stages['slide'][0]:.2f}"
    return found


def main():
    warnings.simplefilter("ignore")
    report(thirteen(), [row(name) for name in MODELS])


def report(points, rows):
    note = " ".join(" ".join(__doc__.split("\n\n")[1:3]).split())
    text = "\n\n".join(
        [
            "## A constant error on thirteen points", table(points, list(points[0])),
            "## Digits in 20 components", table(rows, list(rows[0])),
            note,
        ]
    )  # fmt: skip
    packages = ("numpy", "scipy", "scikit-learn", "torch")
    write("reach_align_slide", "Reach, align, slide: where samples end", text, packages)


if __name__ == "__main__":
    main()
