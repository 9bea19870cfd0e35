"""Wang & Vastola (TMLR 2024): what a Gaussian explains of a learned score, claim by claim.

Networks are trained here, in minutes of one CPU core, with EDM's preconditioning, which knows
nothing of covariances: digits (8 x 8, with scikit-learn), patches of photographs (8 x 8, with
scikit-learn), MNIST and Fashion-MNIST averaged to 14 x 14 (the first 20,000 training images).
Pixels run from -1 to 1 and fractions of the score are means of ratios, as in the paper. Unless said
otherwise rows are held out.

    python benchmarks/papers/paper3.py [--data FOLDER]
"""

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
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
        return float(self.held_out.unexplained[name][np.flatnonzero(SIGMAS == sigma)[0]])

    def level_explained(self, share):
        """Lowest level from which on the Gaussian explains a share."""
        short = np.flatnonzero(self.held_out.explained["gaussian"] < share)
        return float(SIGMAS[short[-1] + 1])


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


def teleportation(study, n=2000, skips=(0, 2, 3, 4, 5, 6, 7, 8)):
    """Frechet distance to test rows, and root mean square from a fine solution, by skipped nodes."""
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
