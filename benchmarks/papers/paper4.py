"""Claims of He, Qiu and Tao on where samples land around the ridge of the data.

    python benchmarks/papers/paper4.py --data FOLDER

arXiv:2602.06021, 2026, with the figures of the authors' experiments. Claims on images need MNIST,
in the folder or in SKDIFFUSION_DATA.
"""

import argparse
import os
import warnings

import numpy as np
from _claims import Claim, above, below, each, falling, listed, near, report, rising
from _images import images
from random_features import FLOOR, MODES, WEIGHTS, between, fitted, generated, growth, time_scales
from reach_align_slide import (
    DIGIT_LEVELS,
    LEVELS,
    SEEDS,
    correlation,
    digits,
    ends_with_parts,
    frame,
    observed,
    random_features,
    responses,
)
from sklearn.base import clone
from sklearn.decomposition import PCA

from skdiffusion import NeuralScore, RandomFeatureScore, RidgeProjector
from skdiffusion.datasets import make_thirteen_points
from skdiffusion.inspection import reach_align_slide

PAPER = "He, Qiu and Tao (2026): reach, align, slide"
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")
TIMES = (1.0, 10.0, 100.0, 1000.0)
COUNTS = (50, 100, 200, 400)


def stages():
    X, law = make_thirteen_points()
    ridge = RidgeProjector(bandwidth=0.3).fit(X)
    found = reach_align_slide(law, ridge, levels=LEVELS, random_state=0)
    high = LEVELS > 1
    powers = np.polyfit(np.log(LEVELS[high]), np.log(np.median(found.distance[high], axis=1)), 1)
    yield Claim(
        "Reach: samples enter a tube around the ridge",
        "first stage, figure 1",
        "enter the tube",
        [powers[0], np.mean(found.distance[-1] < found.tube)],
        each(near(1, 0.05), above(0.99)),
        names="13 points, exact score: power of the level in the median distance above level 1, "
        "share in the tube at the end",
        remark="Along the probability flow, where the law is far, the distance falls as the level",
    )
    order = [found.stages[k][0] for k in ("reach", "align", "slide")]
    yield Claim(
        "The stages follow each other: reach, align, slide",
        "abstract",
        "in this order",
        order,
        falling(),
        names="levels from which they go",
    )
    found = responses(["euler"])
    across, along = ([r for r in found if (r.along == 0) == normal] for normal in (True, False))
    yield Claim(
        "Align: the distance to the ridge is governed by the normal part of the error",
        "second stage",
        "normal, not tangential",
        [*(r.offset / r.law for r in across), max(abs(r.offset) for r in along)],
        each(*3 * [near(1, 0.03)], below(0.003)),
        form=".4f",
        names="offset over the law of first order for errors .02, .04, .08 across; largest offset "
        "for the same along",
    )
    yield Claim(
        "Slide: motion along the ridge is governed by the tangential part",
        "third stage",
        "tangential, not normal",
        [*(r.position / r.law for r in along), max(abs(r.position) for r in across)],
        each(*3 * [near(1, 0.2)], below(0.003)),
        form=".4f",
        names="slide over the law of first order for errors .02, .04, .08 along; largest slide for "
        "the same across",
        remark="A fifth, as the ratio along the ridge changes over a slide",
    )


def trained_on_thirteen():
    """Signed offsets and budgets of random features, after several times of training."""
    X, _ = make_thirteen_points()
    ridge = RidgeProjector(bandwidth=0.3).fit(X)
    correlations, slopes, normal, tangential = [], [], [], []
    for time in TIMES:
        model = RandomFeatureScore(
            150, n_levels=48, alpha=0.0, flow_time=time, length_scale=2**0.5 / 3,
            sigma_min=LEVELS[-1], sigma_max=LEVELS[0], random_state=0,
        ).fit(X)  # fmt: skip
        found = reach_align_slide(model, ridge, levels=LEVELS, random_state=0)
        known = np.isfinite(found.distance[-1])
        across = frame(ridge, found.projections[-1])[1]
        offset, budget = (
            (v * across).sum(axis=1)[known] for v in (found.offset, found.normal_budget)
        )
        correlations.append(correlation(offset, budget))
        slopes.append(np.polyfit(budget, offset, 1)[0])
        normal.append(np.sqrt(np.mean(budget**2)))
        tangential.append(np.sqrt(np.mean(found.tangential_budget[known] ** 2)))
    yield Claim(
        "Random features on 13 points: samples end off the ridge by the normal part of the "
        "training error, toward the ridge or away from it",
        "figure 1, second stage",
        "governed by it",
        [*correlations, *slopes],
        each(*4 * [above(0.85)], *4 * [near(1, 0.15)]),
        form=".3f",
        names="signed correlation of offset and normal budget at training times 1, 10, 100, 1000; "
        "slopes",
        remark="150 cosines of a length of a third of the typical distance, errors from the "
        "denoiser held at the level of the ridge",
    )
    yield Claim(
        "Training removes the normal error first",
        "random features",
        "normal error is one of optimisation, tangential of architecture",
        [normal[-1] / normal[0], tangential[-1] / tangential[0]],
        each(below(0.4), above(0.5)),
        form=".2f",
        names="budget at time 1000 over that at time 1, normal, tangential",
        remark="Finer cosines learn later: at time 1000 the default ones still err across",
    )


def two_modes():
    """The authors' two rows at (-3, 0) and (3, 0)."""
    warnings.simplefilter("ignore")
    times = [0.0, 100.0, 10_000.0, np.inf]
    est = fitted("h", "relu", 60)
    parts = est.error_decomposition(MODES, times=times, n_noise=50)
    yield Claim(
        "Two modes: the bias of the architecture is tangential alone",
        "excess loss per axis, figure",
        "x: .25, y: 1e-11 (weight h)",
        [parts.architecture[0, 0], parts.architecture[0, 1]],
        each(above(1e-4), below(1e-10)),
        form=".1e",
        names="excess loss of 60 ReLUs at infinite time along, across",
    )
    yield Claim(
        "The normal error is one of optimisation and goes to zero with training",
        "excess loss per axis, figure",
        "4e-4 to 1e-11",
        parts.optimisation[:, 0, 1],
        each(above(1), below(1), below(1e-2), below(1e-10)),
        form=".1e",
        names="at times 0, 100, 10,000, infinite",
    )
    still = clone(est).set_params(init_scale=0.0).fit(MODES)
    still = still.error_decomposition(MODES, times=times, n_noise=2)
    yield Claim(
        "The initial coefficients decide it",
        "abstract",
        "initialisation modulates",
        [parts.optimisation[1, 0, 1], still.optimisation[1, 0, 1]],
        each(above(1e-3), below(1e-10)),
        form=".1e",
        names="normal error at time 100 from random coefficients, from zero",
    )
    ends = [generated(model) for model in est.path(times[1:])]
    yield Claim(
        "The distance to the ridge falls along training to the sampler's own noise",
        "ridge residual, table",
        "median length .708 at 100 to .040 at infinite time",
        [np.median(np.abs(y[:, 1])) / FLOOR for y in ends],
        each(above(2), below(1.5), near(1, 0.1)),
        form=".2f",
        names=f"median distance over the noise's {FLOOR:.4f}, times 100, 10,000, infinite",
        remark="The authors' times are of gradient descent of 2,000 ReLUs, and not on our scale",
    )
    ends = {w: generated(fitted(w, "relu", 400, 0, 0.1).model_) for w in WEIGHTS}
    shares = [between(y) for y in ends.values()]
    distances = [np.median(np.abs(y[:, 1])) / FLOOR for y in ends.values()]
    yield Claim(
        "Slide decides what is generated between modes: the weight of the loss changes it, at one "
        "distance to the ridge",
        "abstract, weights 1, h, h^2",
        "weights change it",
        [*shares, *distances],
        each(below(0.05), below(0.2), above(0.5), *3 * [near(1, 0.1)]),
        names="400 ReLUs, infinite time, weights 1, h, h^2: share of samples between the modes; "
        "median distance over the noise's",
        remark="Fewer features or a wider level scale change the shares, not their order",
    )
    yield Claim(
        "The table of residuals and excess losses",
        "two modes, 2,000 ReLUs",
        "x: 2.0, .25, .25; median residual 20.1",
        why_not="its features of time, 128 harmonics, and its noise draws are not among ours",
    )
    centres, middle = [], []
    for t in (0.5, 0.1):
        level = np.sqrt(np.expm1(2 * t))
        gaps = two_mode_gap(level, np.array([[0.0, 0.1], [3.0, 0.1]]))
        middle.append(gaps[0])
        centres.append(gaps[1])
    yield Claim(
        "As noise goes down the ridge shrinks to crosses at the two points",
        "ridge evolution, figure",
        "t = .5: the segment; t = .1: crosses",
        centres,
        above(1e-3),
        form=".1e",
        names="gap at a centre, t = .5, .1",
        remark=f"The middle of the segment stays a ridge (gap {middle[0]:.2g}, {middle[1]:.2g}); "
        "near the points the gap is rounding, so that directions mean nothing, and we refuse them",
    )


def two_mode_gap(level, x):
    rows = np.array([[-3.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    ridge = RidgeProjector(bandwidth=level, gap_tol=0.0).fit(rows, sample_weight=[1.0, 0.0, 1.0])
    return ridge.diagnostics(x).gap


def time_claims():
    scales = time_scales(COUNTS, n_seeds=3)
    learned = np.array([s.learned for s in scales])
    spoiled = np.array([s.spoiled for s in scales])
    yield Claim(
        "Two time scales: that of generalisation does not depend on the number of rows",
        "random features; Bonnaire et al.",
        "constant",
        learned / learned[0],
        near(1, 0.25),
        form=".2f",
        names="time of nine tenths learned, 50, 100, 200, 400 rows, over the first",
        remark="400 cosines, a mixture in 8 columns; times on a grid of ratio 1.12",
    )
    yield Claim(
        "That of memorisation grows with the number of rows",
        "the same",
        "grows",
        spoiled / spoiled[0],
        rising(),
        names="time at which fresh rows are denoised a tenth worse than at best, over the first",
    )
    yield Claim(
        "It grows in proportion to them",
        "Bonnaire et al.",
        "power 1",
        growth(COUNTS, spoiled),
        near(1, 0.5),
        names="power",
        remark="Faster, where one noise level and a fixed number of features are learned",
    )


LATENT_MODELS = {
    "300 random features": (RandomFeatureScore(300), SEEDS, 1000),
    "network, 50 epochs": (NeuralScore(parameterization="gaussian", max_epochs=50), SEEDS, 1000),
    # its correlation with the tangential budget is so near the criterion that it takes more
    "network, 400 epochs": (
        NeuralScore(parameterization="gaussian", max_epochs=400, early_stopping=False),
        6,
        2000,
    ),
}
"""Models, and how many seeds and samples of each."""


def governed(name, model, n_seeds, n_samples, X, ridge, levels):
    """Which errors the distance to the ridge goes with, and which ones make it."""
    seen, ends = [], []
    for seed in range(n_seeds):
        law = clone(model).set_params(random_state=seed).fit(X).model_
        run, numbers = observed(law, ridge, levels, seed, n_samples)
        seen.append(numbers)
        ends.append(ends_with_parts(law, ridge, run))
    setting = "20 components of 2,000 images, ridge of 4 dimensions"
    for kind, words in (("training", "of training"), ("held", "from the held denoiser")):
        across, along, partial = np.transpose([getattr(r, kind) for r in seen])
        yield Claim(
            f"MNIST latents, {name}: the distance to the ridge follows the normal error, not "
            "the tangential",
            "latent diffusion experiment",
            "governed by it",
            [across.mean(), along.mean()],
            each(above(0.85), near(0, 0.2)),
            form=".2f",
            names="correlation of the final distance with the normal and the tangential budget, "
            f"means of {n_seeds} seeds",
            remark=f"Errors {words}; {setting}; {n_samples:,} samples. Seeds: "
            f"{listed(across, '.2f')}; "
            f"{listed(along, '.2f')}. Tangential given normal: {listed(partial, '.2f')}",
        )
    for part, other, quantity, what, where, measure in (
        (
            "normal",
            "tangential",
            "distance",
            "the distance to the ridge is made by the normal error",
            "second stage",
            "median final distance",
        ),
        (
            "tangential",
            "normal",
            "moved",
            "motion along the ridge is made by the tangential error",
            "third stage",
            "rms motion of the projection from that without errors",
        ),
    ):
        shares = np.array(
            [
                [getattr(e[p], quantity) / getattr(e["all"], quantity) for p in (part, other)]
                for e in ends
            ]
        )
        yield Claim(
            f"MNIST latents, {name}: {what}",
            where,
            "governed by it",
            shares.mean(axis=0),
            each(above(0.85), below(0.2)),
            form=".2f",
            names=f"{measure} under {part} errors alone, under {other} ones, over that under all, "
            f"means of {n_seeds} seeds",
            remark=f"From the level of the ridge on; {setting}; 300 samples. Seeds: "
            f"{listed(shares[:, 0], '.2f')}; {listed(shares[:, 1], '.2f')}",
        )


def digit_latents():
    """Random features on principal components of the digits, after three times of training."""
    warnings.simplefilter("ignore")
    X, _ = digits()
    ridge, times = RidgeProjector(4).fit(X), (10.0, 1000.0, None)
    for n_features in (100, 600):
        seen = []
        for time in times:
            est = random_features(n_features, time)
            laws = [clone(est).set_params(random_state=k).fit(X).model_ for k in range(SEEDS)]
            runs = [observed(law, ridge, DIGIT_LEVELS, k)[1] for k, law in enumerate(laws)]
            seen.append([(run.training, run.held) for run in runs])
        # times, seeds, kinds of error, correlations
        seen = np.array(seen)
        for kind, words in enumerate(("of training", "from the held denoiser")):
            across, along, partial = seen[:, :, kind].transpose(2, 0, 1)
            yield Claim(
                f"Digits, {n_features} random features: the distance to the ridge follows the "
                "normal error, not the tangential",
                "latent diffusion experiment",
                "governed by it",
                [*across.mean(axis=1), *along.mean(axis=1)],
                each(*3 * [above(0.85)], *3 * [near(0, 0.2)]),
                form=".2f",
                names="correlation of the final distance with the normal budget after training "
                f"times 10, 1000, infinity, with the tangential; means of {SEEDS} seeds",
                remark=f"Errors {words}; 20 components of 1,400 digits, ridge of 4 dimensions, "
                f"1,000 samples. Seeds: {listed(across.ravel(), '.2f')}; "
                f"{listed(along.ravel(), '.2f')}. Tangential given normal: "
                f"{listed(partial.ravel(), '.2f')}",
            )


def latents(folder):
    """Principal components of MNIST, and of its ones."""
    if folder is None:
        yield Claim(
            "MNIST latents: the distance to the ridge follows the normal error",
            "latent diffusion experiment",
            "governed by it",
            why_not="no folder of data was given",
        )
        return
    warnings.simplefilter("ignore")
    pixels, labels = images(folder, "mnist", "train")
    X = PCA(20, random_state=0).fit_transform(pixels[:2000])
    ridge = RidgeProjector(4).fit(X)
    levels = np.geomspace(20 * np.sqrt(X.var(axis=0).mean()), ridge.bandwidth_ / 50, 25)
    for name, (model, n_seeds, n_samples) in LATENT_MODELS.items():
        yield from governed(name, model, n_seeds, n_samples, X, ridge, levels)
    ones = pixels[labels == 1][:2000]
    Z = PCA(32, random_state=0).fit_transform(ones)
    level = np.sqrt(np.expm1(2e-3))
    gaps = RidgeProjector(25, bandwidth=level, gap_tol=0.0).fit(Z).diagnostics(Z[:50]).gap
    yield Claim(
        "Latents of digit 1 have a ridge of 25 dimensions at t = .001",
        "latent diffusion experiment",
        "curvature satisfied by 100%, median residual 486",
        np.mean(gaps > 1e-3),
        above(0.9),
        names="share of rows with a gap above 1e-3, 32 components of 2,000 ones",
        remark="A set of points seen at a level far below its distances has no ridge: directions "
        "are those of rounding",
    )
    yield Claim(
        "The numbers of that experiment",
        "latent diffusion experiment",
        "residual mean 627.5, median 486.1; 1,422 of 2,000 below .5 rescaled",
        why_not="its autoencoder is not published, and the residual depends on its latents",
    )


PARTS = stages, trained_on_thirteen, two_modes, time_claims, digit_latents


def claims(folder=None):
    folder = os.environ.get("SKDIFFUSION_DATA") if folder is None else folder
    made = [c for part in PARTS for c in part()]
    return made + list(latents(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None)
    report(__file__, PAPER, claims(parser.parse_args().data), PACKAGES)
