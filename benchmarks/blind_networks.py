"""What do networks lose that are not told the noise level, and does a clock of their own help?

Pairs of networks of width 128 that differ in noise conditioning alone, same rows, steps and seed:

- 32 principal components of 20,000 images of Fashion-MNIST. Samples are judged by the Frechet
  distance of the 64 features in the last layer of a classifier of the labels, trained on the same
  components (not standardised; 3,000 test rows against as many samples).
- Two circles in D columns. Samples are judged by the mean distance from the nearest circle, in the
  plane of the circles, and by the mean distance from that plane.

Targets are noise on the variance-preserving path (DDIM), and data, velocity (flow matching) and
EDM's combination without its input for the level (uEDM) on the straight path; there too what the
linear denoiser misses, NeuralScore's default. A blind network is sampled on the
schedule's clock and on that of a NoiseLevelEstimator of the training rows. Samplers take 100 steps
on the estimator's own levels, down to the smallest that was trained: Euler's, which adds no noise,
and the ancestral one (DDPM).

    python benchmarks/blind_networks.py --data FOLDER [--seed 0] [--keep FILE]

A pair takes minutes: --keep names a file of what is finished, from which a later run goes on.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _images import images
from _report import Finished, table, write
from blind_circles import radial
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier

from skdiffusion import NeuralScore
from skdiffusion.datasets import make_embedded_circles
from skdiffusion.estimators import NoiseLevelEstimator
from skdiffusion.metrics import frechet_distance
from skdiffusion.samplers import DDPMSampler, EulerSampler, run_sampler

ROWS, N, STEPS = 20_000, 3000, 100
TARGETS = {  # parameterization and path
    "noise (DDIM)": ("noise", "vp"),
    "data": ("data", "flow_matching"),
    "velocity (flow matching)": ("velocity", "flow_matching"),
    "uEDM": ("edm", "flow_matching"),
    "Gaussian residual": ("gaussian", "flow_matching"),
}
LITERATURE = {  # FID on CIFAR-10 without noise conditioning, Sun et al. 2025
    "noise (DDIM)": "40.9",
    "velocity (flow matching)": "2.6",
    "uEDM": "2.2",
}
SAMPLERS = {"Euler": EulerSampler, "ancestral": DDPMSampler}
CIRCLES = [target for target in TARGETS if target != "noise (DDIM)"]
PACKAGES = ("numpy", "scikit-learn", "torch")
DIMENSIONS = (8, 32, 128)
TRAINED = 16_000
"""Steps of training."""


class Images:
    """Components of images and the features in which samples are judged."""

    def __init__(self, folder):
        pixels, labels = images(folder, "fashion_mnist", "train")
        pca = PCA(32, random_state=0).fit(pixels[:ROWS])
        self.X = pca.transform(pixels[:ROWS]).astype(np.float64)
        test, held = images(folder, "fashion_mnist", "t10k")
        self.test = pca.transform(test[:N]).astype(np.float64)
        self.classifier = MLPClassifier((128, 64), max_iter=15, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fifteen passes are what there is
            self.classifier.fit(self.X, labels[:ROWS])
        self.accuracy = self.classifier.score(self.test, held[:N])
        self.aim = self.features(self.test)

    def features(self, X):
        for weight, bias in zip(
            self.classifier.coefs_[:-1], self.classifier.intercepts_[:-1], strict=True
        ):
            X = np.maximum(X @ weight + bias, 0)
        return X

    def judge(self, x):
        return [frechet_distance(self.aim, self.features(x), standardize=False)]


class Circles:
    """Rows on the circles and their distance from them."""

    def __init__(self, d):
        self.X, _, self.plane = make_embedded_circles(4000, d, random_state=0, return_plane=True)

    def judge(self, x):
        rho, away, _, _ = radial(x, self.plane)
        return [float(np.minimum(abs(rho - 1), abs(rho - 0.5)).mean()), float(away.mean())]


def sample(est, sampler):
    """Samples of a fitted network."""
    levels = est.noise_levels(STEPS, sampler)
    start = est.far_field_.sample(N, levels[0], random_state=1)
    return run_sampler(sampler, est.model_, start, [*levels, 0.0], random_state=2)


def pair(place, target, seed):
    """Judgements of a network that is told the level, and of one that is not on two clocks."""
    parameterization, schedule = TARGETS[target]
    found = {}
    for told in (True, False):
        start = time.process_time()
        est = NeuralScore(
            parameterization=parameterization,
            schedule=schedule,
            noise_conditioning=told,
            module__width=128,
            early_stopping=False,
            max_epochs=max(1, round(TRAINED * 256 / len(place.X))),
            random_state=seed,
        ).fit(place.X)
        seconds = time.process_time() - start
        for name, sampler in SAMPLERS.items():
            here = found.setdefault(name, {})
            on_schedule = sampler(clock="schedule")
            here["told" if told else "blind"] = place.judge(sample(est, on_schedule))
            if not told:
                here["clock"] = place.judge(sample(est, sampler(clock=place.clock)))
        print(target, "told" if told else "blind", f"{seconds:.0f} s", found, flush=True)
    return found


def cell(values):
    return " / ".join(f"{value:.3g}" for value in values)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("SKDIFFUSION_DATA"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--places", nargs="+", default=["images", *map(str, DIMENSIONS)])
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "a model that is not told")  # it is what is measured
    kept = Finished(options.keep)
    parts = []
    for name in options.places:
        if name == "images" and options.data is None:
            parser.error("no data folder: give --data or set SKDIFFUSION_DATA")
        place = Images(options.data) if name == "images" else Circles(int(name))
        place.clock = None
        rows = []
        for target in TARGETS if name == "images" else CIRCLES:
            key = f"{name}, {target}, {TRAINED} steps, seed {options.seed}"
            if key not in kept:
                if place.clock is None:
                    place.clock = NoiseLevelEstimator(random_state=0).fit(place.X)
                kept[key] = pair(place, target, options.seed)
                kept.save()
            rows += [line(name, target, sampler, found) for sampler, found in kept[key].items()]
        parts.append(section(name, place, rows))
    text = "\n\n".join(parts) + f"\n\nSeed {options.seed}. "
    text += " ".join(" ".join(__doc__.split("\n\n")[1:-2]).split())
    write("blind_networks", "Networks that are not told the noise level", text, PACKAGES)


def line(name, target, sampler, found):
    row = {"target": target, "sampler": sampler, "told the level": cell(found["told"])}
    row["blind, schedule's clock"] = cell(found["blind"])
    row["blind, own clock"] = cell(found["clock"])
    row["own clock over told"] = f"{found['clock'][0] / found['told'][0]:.2f}"
    if name == "images":
        row["FID of others, blind"] = LITERATURE.get(target, "") if sampler == "Euler" else ""
    return row


def section(name, place, rows):
    data = place.judge(place.X[-N:])
    title = "Fashion-MNIST, 32 components" if name == "images" else f"Circles, D = {name}"
    note = f"{TRAINED} steps of training. {N} training rows: {cell(data)}."
    if name == "images":
        note += f" The classifier is right about {place.accuracy:.1%} of test rows."
        note += " Others: CIFAR-10, images of 32 x 32 pixels (Sun et al. 2025)."
    return f"## {title}\n\n{table(rows, list(rows[0]))}\n\n{note}"


if __name__ == "__main__":
    main()
