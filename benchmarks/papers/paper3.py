"""Wang & Vastola (TMLR 2024): what a Gaussian explains of a learned score, claim by claim.

Networks are trained here, in minutes of one CPU core, with EDM's preconditioning, which knows
nothing of covariances: digits (8 x 8, with scikit-learn), patches of photographs (8 x 8, with
scikit-learn), MNIST and Fashion-MNIST averaged to 14 x 14 (the first 20,000 training images).
Pixels run from -1 to 1 and fractions of the score are means of ratios, as in the paper. Unless said
otherwise rows are held out. The paper's numbers called "authors' table" are from the tables that
come with its code.

    python benchmarks/papers/paper3.py [--data FOLDER]
"""

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
from _claims import Claim, above, below, between, falling, near, report
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from skdiffusion import NeuralScore
from skdiffusion.inspection import (
    compare_scores,
    feature_emergence,
    score_references,
    trajectory_geometry,
)
from skdiffusion.metrics import frechet_distance
from skdiffusion.models import EmpiricalModel
from skdiffusion.samplers import HeunSampler, check_sampler, run_sampler
from skdiffusion.schedules import EDMSchedule

PAPER = "Wang and Vastola (2024): Gaussian approximation of learned scores"
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")
SIGMAS = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0])
PROBES = 300
"""Held-out rows, noised four times each."""
CHECKPOINTS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
NODES = 18
"""Noise levels of the paper's sampler for small images, from 80 to 0.002."""
SOLVERS = {"heun": "Heun", "dpmpp_2m": "DPM-Solver++", "unipc": "UniPC"}


# ---------------------------------------------------------------------- data and networks


def digits():
    return train_test_split(load_digits().data / 8 - 1, train_size=1197, random_state=0)


def patches():
    """Training patches from the upper three quarters of two photographs, others from below."""
    parts = []
    for n, rows, seed in ((16_000, slice(0, 300), 0), (1000, slice(308, None), 1)):
        rng = np.random.default_rng(seed)
        images = [image[rows].mean(axis=2) / 127.5 - 1 for image in load_sample_images().images]
        found = []
        for _ in range(n):
            image = images[rng.integers(2)]
            top, left = (rng.integers(size - 7) for size in image.shape)
            found.append(image[top : top + 8, left : left + 8].ravel())
        parts.append(np.array(found))
    return parts


def small_images(folder, name):
    parts = []
    for part in ("train", "t10k"):
        with gzip.open(next((Path(folder) / name).glob(f"{part}-images*.gz"))) as file:
            pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 14, 2, 14, 2)
        parts.append(pixels.mean(axis=(2, 4)).reshape(-1, 196) / 127.5 - 1)
    train, test = parts
    return train[:20_000], np.random.default_rng(0).permutation(test)


def network(X, passes):
    params = {"parameterization": "edm", "scaling": "global", "random_state": 0}
    return NeuralScore(max_epochs=passes, **params).fit(X)


class Study:
    """A network, the laws it is compared with, and how much each of them explains."""

    def __init__(self, train, test, passes):
        self.train, self.test = train, test
        self.model = network(train, passes)
        self.references = score_references(train, n_components=10, random_state=0)
        self.held_out = self.compare(test[:PROBES])

    def compare(self, rows):
        options = {"sigmas": SIGMAS, "average": "per_sample"}
        return compare_scores(self.model, self.references, rows, **options)

    def unexplained(self, name, sigma):
        return float(self.held_out.unexplained[name][list(SIGMAS).index(sigma)])

    def level_explained(self, share):
        """Lowest level from which on the Gaussian explains a share."""
        short = np.flatnonzero(self.held_out.explained["gaussian"] < share)
        return float(SIGMAS[short[-1] + 1]) if len(short) else float(SIGMAS[0])


# ---------------------------------------------------------------------- what is measured


def training_curve():
    """Unexplained by each reference along training on digits: checkpoints by levels."""
    train, test = digits()
    references = score_references(train, n_components=10, random_state=0)
    est = NeuralScore(
        parameterization="edm", scaling="global", batch_size=64, lr=1e-3, ema_decay=0.99,
        module__width=192, module__dropout=0.0, random_state=0,
    )  # fmt: skip
    found, passes = [], 0
    for checkpoint in CHECKPOINTS:
        while passes < checkpoint:
            est.partial_fit(train)
            passes += 1
        options = {"sigmas": [0.5, 1.0], "average": "per_sample"}
        found.append(compare_scores(est, references, test[:PROBES], **options).unexplained)
    return {name: np.array([at[name] for at in found]) for name in references}


def same_noise(study, n=200):
    """Mean squared difference of samples from the network's, from the same noise, per pixel."""
    model, far = study.model.model_, study.model.far_field_
    levels = [*EDMSchedule().grid(40), 0.0]
    x = far.mean + levels[0] * np.random.default_rng(1).standard_normal((n, far.n_features))
    ends = {
        name: run_sampler(HeunSampler(), law, x, levels)
        for name, law in {"network": model, "rows": EmpiricalModel(study.train)}.items()
    }
    ends["gaussian"] = far.flow(x, levels[0], 0.0)
    return {name: float(((ends[name] - ends["network"]) ** 2).mean()) for name in ends}


def amplification(study, level=5.0, n=100, axes=(0, 1, 2, 4, 8, 16)):
    """What a shift along a principal axis comes to at the end, over the closed form."""
    model, far = study.model.model_, study.model.far_field_
    grid = EDMSchedule().grid(60, sigma_max=level)
    x = far.sample(n, level, random_state=0)
    end = run_sampler(HeunSampler(), model, x, [*grid, 0.0])
    ratios = []
    for k in axes:
        axis, variance = far.covariance.axes[:, k], far.covariance.variances[k]
        size = 0.05 * np.sqrt(variance + level**2)
        moved = run_sampler(HeunSampler(), model, x + size * axis, [*grid, 0.0])
        seen = ((moved - end) @ axis).mean() / size
        ratios.append(seen / np.sqrt(variance / (variance + level**2)))
    return np.array(ratios)


def saved(found, slack=0.01):
    """Largest share of nodes up to which no skip worsens the Frechet distance by a hundredth."""
    worse = np.flatnonzero(found[:, 1] > (1 + slack) * found[0, 1])
    last = worse[0] - 1 if len(worse) else len(found) - 1
    return float(found[last, 0]) / NODES


def teleportation(study, n=2000, skips=(0, 2, 3, 4, 5, 6, 7, 8)):
    """By skipped nodes: Frechet distance to test rows, and distance from a fine solution, rms."""
    model, far = study.model.model_, study.model.far_field_
    grid = EDMSchedule().grid(NODES)
    grid = grid[grid > model.sigma_range[0]]
    x = far.mean + grid[0] * np.random.default_rng(0).standard_normal((n, far.n_features))
    fine = run_sampler(HeunSampler(), model, x, [*EDMSchedule().grid(60, sigma_min=grid[-1]), 0.0])
    found = {}
    for name in SOLVERS:
        rows = []
        for k in skips:
            start = far.flow(x, float(grid[0]), float(grid[k]))
            end = run_sampler(check_sampler(name), model, start, [*grid[k:], 0.0])
            distance = frechet_distance(study.test[:5000], end, standardize=False)
            rows.append((k, distance, float(np.sqrt(((end - fine) ** 2).mean()))))
        found[name] = np.array(rows)
    return found


# ---------------------------------------------------------------------- the claims


def training():
    """Linear structure first: where on the way each law explains the network best."""
    curve = training_curve()
    gaussian, mixture, rows = (curve[name] for name in ("gaussian", "mixture", "rows"))
    yield Claim(
        "The Gaussian part is learned first: what a Gaussian leaves unexplained falls to an early "
        "minimum, then rises",
        "authors' table, CIFAR-10",
        "last over least 1.45, 1.42",
        gaussian[-1] / gaussian.min(axis=0),
        above(1.1),
        names="digits, sigma 0.5, 1",
        remark=f"least after {[CHECKPOINTS[k] for k in gaussian.argmin(axis=0)]} passes of "
        f"{CHECKPOINTS[-1]}",
    )
    yield Claim(
        "What the training rows leave unexplained falls all the time",
        "authors' table, CIFAR-10",
        "falls",
        rows[CHECKPOINTS.index(4) :, 0],
        falling(),
        names=f"digits, sigma 0.5, after {CHECKPOINTS[2:]} passes",
    )
    at = [np.array(CHECKPOINTS)[values.argmin(axis=0)] for values in (gaussian, mixture)]
    yield Claim(
        "A mixture explains the network best later than a Gaussian does",
        "authors' table, CIFAR-10, 100 components",
        "1.3 to 2.3 times as late",
        at[1] / at[0],
        above(1.0),
        names="digits, 10 components, sigma 0.5, 1",
    )


def explained(studies):
    """Shares of learned scores that simple laws explain."""
    names = ", ".join(studies)

    def ratio(name, sigma):
        both = [
            [study.unexplained(which, sigma) for study in studies.values()]
            for which in (name, "gaussian")
        ]
        return np.divide(*both)

    yield Claim(
        "At moderate to high noise a Gaussian explains 99% of a learned score",
        "authors' tables",
        "from sigma 1.5 (CIFAR-10, FFHQ, AFHQ), 5 (MNIST)",
        [study.level_explained(0.99) for study in studies.values()],
        between(0, 5),
        names=f"lowest level of a grid by factors of two or so, {names}",
    )
    for sigma, theirs in ((0.1, 0.92), (0.5, 0.96), (1.0, 0.94)):
        yield Claim(
            f"A mixture explains more than a Gaussian, sigma {sigma}",
            "authors' table, CIFAR-10, 20 components",
            f"unexplained, ratio {theirs}",
            ratio("mixture", sigma),
            below(1.0),
            names=f"10 components, {names}",
            remark="It does so later in training than a Gaussian: see above",
        )
    for sigma, theirs in ((0.1, 1.18), (0.5, 1.31), (1.0, 1.77)):
        yield Claim(
            f"The training rows explain less than a Gaussian, sigma {sigma}",
            "authors' table, CIFAR-10",
            f"unexplained, ratio {theirs}",
            ratio("rows", sigma),
            above(1.0),
            names=names,
            remark="There at noised training images, here at held-out rows",
        )


def mnist(study):
    """The paper's own numbers of MNIST: 28 x 28, a network after a million images."""
    paper = {0.1: 0.253, 0.5: 0.0786, 1.0: 0.0384, 2.0: 0.0137, 5.0: 9.2e-4}
    for sigma, theirs in paper.items():
        yield Claim(
            f"MNIST, sigma {sigma:g}: what a Gaussian leaves unexplained",
            "authors' table",
            f"{theirs:g}",
            study.unexplained("gaussian", sigma),
            between(theirs / 2, 2 * theirs),
            remark="14 x 14 pixels, 20,000 images; within a factor of two",
        )
    seen = study.compare(study.train[:PROBES]).unexplained
    yield Claim(
        "MNIST: at noised training images these explain more than a Gaussian at every level",
        "authors' table",
        "up to sigma 20",
        (seen["rows"] < seen["gaussian"])[SIGMAS <= 20].mean(),
        above(0.9),
        names="share of the levels",
        remark="The network was not trained long enough to remember",
    )


def paths(studies):
    """Sampling paths: their plane, their turn, the order of what appears on them."""
    names = ", ".join(studies)
    geometry = [trajectory_geometry(study.model) for study in studies.values()]
    emergence = [feature_emergence(study.model, n_axes=50) for study in studies.values()]
    yield Claim(
        "Sampling paths are two-dimensional in the variance-preserving picture",
        "figure 3",
        "effectively",
        [found.planarity.min() for found in geometry],
        above(0.99),
        form=".4f",
        names=f"least share of a path in its best plane, {names}",
    )
    worst = [found.rotation_residual.max() for found in geometry]
    yield Claim(
        "They resemble rotations from noise to sample, alpha x_0 + sigma x_T",
        "figure 3",
        "resemble",
        worst,
        below(0.05),
        names=f"share of squared length off the rotation at the worst level, {names}",
        remark="Noise and sample are not orthogonal, and the sum overshoots",
    )
    yield Claim(
        "They are off it as those of the Gaussian with the same spectrum are",
        "own, from the exact solution",
        "1 for a Gaussian",
        np.divide(worst, [found.predicted_rotation_residual.max() for found in geometry]),
        near(1, 0.25),
        names=f"ratio, {names}",
    )
    yield Claim(
        "Features of large variance emerge first",
        "section on feature emergence",
        "order of the spectrum",
        [found.rank_correlation for found in emergence],
        above(0.9),
        names=f"rank correlation over the 50 widest axes, {names}",
    )
    yield Claim(
        "Half of a feature has emerged at the square root of three variances",
        "from the exact solution",
        "1 for a Gaussian",
        [np.median(found.observed / found.predicted) for found in emergence],
        near(1, 0.25),
        names=f"median ratio, {names}",
        remark="Earlier: a network sees more through the noise than the best linear denoiser",
    )
    yield Claim(
        "A shift along a principal axis arrives as in a Gaussian",
        "figure 3 E",
        "1 for a Gaussian",
        [np.median(amplification(study)) for study in studies.values()],
        near(1, 0.25),
        names=f"median ratio over six axes, at sigma 5, {names}",
    )
    distance = [same_noise(study) for study in studies.values()]
    yield Claim(
        "From the same noise, a Gaussian's sample is nearer to the network's than one of the "
        "training rows' score",
        "authors' table, CIFAR-10",
        "mean square ratio 3.6",
        [found["rows"] / found["gaussian"] for found in distance],
        above(1.0),
        names=names,
    )


def teleported(studies):
    """Steps of the solver that the Gaussian's closed form saves."""
    for name, study in studies.items():
        found = teleportation(study)
        solvers = ", ".join(SOLVERS.values())
        at = next(iter(found.values()))[:, 0] == 5
        distances = [[rows[0, 1], rows[at, 1][0]] for rows in found.values()]
        yield Claim(
            "Teleportation saves 15 to 30% of the steps at the same quality",
            "abstract; FID, CIFAR-10",
            "0.15 to 0.30",
            [saved(rows) for rows in found.values()],
            above(0.149),
            names=f"{name}, share of {NODES} nodes up to which the Frechet distance to test images "
            f"grows by 1% at most, of {found['heun'][-1, 0] / NODES:.2f} tried, {solvers}",
            remark="Frechet distance with none and with five skipped: "
            + "; ".join(f"{before:.3f}, {after:.3f}" for before, after in distances)
            + ". At high noise these networks are worse than the Gaussian",
        )
        yield Claim(
            "The samples stay the same",
            "section on teleportation",
            "by FID alone",
            [rows[at, 2][0] / rows[0, 2] for rows in found.values()],
            below(1.1),
            names=f"{name}, distance from a fine solution with five nodes skipped over that with "
            f"none, {solvers}",
        )


FAR = "the authors' networks of CIFAR-10, FFHQ and AFHQ and an Inception network are not here"


def elsewhere():
    yield Claim(
        "FID does not suffer from 29% of the steps skipped",
        "CIFAR-10, EDM, Heun",
        "1.93; 1.96 with none",
        why_not=FAR,
    )
    yield Claim("The same with DPM-Solver-v3 and UniPC", "CIFAR-10", "FID kept", why_not=FAR)
    yield Claim(
        "A Gaussian explains 99% of the score from sigma 1.5 on",
        "FFHQ and AFHQ, EDM",
        "0.4 to 0.5% unexplained at sigma 2",
        why_not=FAR,
    )


def claims(data=None):
    """All claims; MNIST and Fashion-MNIST from a folder, by default in ``SKDIFFUSION_DATA``."""
    data = data or os.environ.get("SKDIFFUSION_DATA")
    studies = {"digits": Study(*digits(), passes=200), "patches": Study(*patches(), passes=30)}
    if data is None:
        print("no data folder: MNIST and Fashion-MNIST are left out")
    else:
        studies["MNIST"] = Study(*small_images(data, "mnist"), passes=20)
        studies["Fashion-MNIST"] = Study(*small_images(data, "fashion_mnist"), passes=10)
    found = [*training(), *explained(studies)]
    if "MNIST" in studies:
        found += mnist(studies["MNIST"])
    pathwise = {name: study for name, study in studies.items() if name != "Fashion-MNIST"}
    found += paths(pathwise)
    # test patches are of another part of the photographs: no measure of samples
    found += teleported({name: study for name, study in pathwise.items() if name != "patches"})
    return found + list(elsewhere())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with mnist and fashion_mnist")
    report(__file__, PAPER, claims(parser.parse_args().data), PACKAGES)


if __name__ == "__main__":
    main()
