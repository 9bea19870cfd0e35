"""Where do the errors of a trained denoiser go? Two modes in the plane, random features.

Two rows at (-3, 0) and (3, 0): the ridge is the first axis, and what happens along it decides which
of the rows, or what between them, is generated. The features see the point and the logarithm of
the noise level; one matrix for all levels (64 of them) predicts the posterior mean a_t E[x_0 | x_t]
of the Ornstein-Uhlenbeck process between t = 0.001 and 10. Training starts from coefficients that
are not zero. The three weights of the loss are named by what they are on errors of the score: 1, h
and h^2, h the variance of the noise.

The loss in excess of the exact denoiser's is split exactly: architecture is what stays after
infinite training time, optimisation the rest (squared errors of the predicted mean; weights have
mean one over the levels, so that rows of different weights are not on one scale; the architecture
part is a mean over 12,800 draws, the rest is exact). Samples: 1,000 runs of the reverse diffusion
(ancestral, 200 levels) down to t = 0.001.
"""

from typing import NamedTuple

import numpy as np
from _report import table, write

from skdiffusion import RandomFeatureScore
from skdiffusion.models import MixtureModel
from skdiffusion.parameterizations import Coefficients, Parameterization
from skdiffusion.samplers import check_sampler, run_sampler

MODES = np.array([[-3.0, 0.0], [3.0, 0.0]])
SCALE = MODES.std(axis=0).max() / 2**0.5  # the root mean square over the columns
LOW, HIGH = np.sqrt(np.expm1(2 * 1e-3)), np.sqrt(np.expm1(2 * 10.0))
SHRINK = np.exp(-1e-3)
FLOOR = 0.6745 * SHRINK * LOW  # median of a normal distance of the last noise
# with a^2 = 1 / (1 + s^2) and h = s^2 / (1 + s^2), a time step is h d(log s), and the error of the
# score is a/h times that of the denoiser
WEIGHTS = {
    "1": lambda s: 1 / s**2,
    "h": lambda s: 1 / (1 + s**2),
    "h^2": lambda s: s**2 / (1 + s**2) ** 2,
}
MAPS = {"relu": "ReLUs", "cos": "cosines"}
TIMES = [0.0, 10.0, 100.0, 1000.0, 10_000.0, np.inf]


class PosteriorMean(Parameterization):
    """The features see a_t x and predict a_t E[x_0 | x_t]."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def coefficients(self, sigma, schedule, variances):
        root = (1 + (self.scale * sigma) ** 2) ** 0.5
        return Coefficients(0 * sigma, root, self.scale / root, 1 + 0 * sigma)


def fitted(weight, feature_map, n_features, seed=0, level_scale=1.0):
    return RandomFeatureScore(
        n_features,
        feature_map=feature_map,
        joint=True,
        level_scale=level_scale,
        n_levels=64 if level_scale == 1 else 128,
        length_scale=2**0.5,
        parameterization=PosteriorMean(SCALE),
        weight=WEIGHTS[weight],
        alpha=0.0,
        init_scale=1.0,
        sigma_min=LOW,
        sigma_max=HIGH,
        random_state=seed,
    ).fit(MODES)


def generated(model, n=1000):
    """Ends of the reverse diffusion at the last time, in its coordinates."""
    start = HIGH * np.random.default_rng(0).standard_normal((n, 2))
    levels = np.geomspace(HIGH, LOW, 200)
    return SHRINK * run_sampler(check_sampler("ddpm"), model, start, levels, random_state=1)


def between(ends):
    return np.mean(np.abs(ends[:, 0]) < 2.5)


def training(feature_map, n_features=60):
    """Errors and samples along training, one row per weight and time."""
    rows = []
    for weight in WEIGHTS:
        est = fitted(weight, feature_map, n_features)
        parts = est.error_decomposition(MODES, times=TIMES, n_noise=50)
        along, across = parts.architecture[0] * SCALE**2
        for k, model in enumerate(est.path(TIMES)):
            ends = generated(model)
            slow, normal = parts.optimisation[k, 0] * SCALE**2
            rows.append(
                {
                    "weight": weight,
                    "time": f"{TIMES[k]:g}",
                    "tangential, architecture": f"{along:.2e}",
                    "tangential, optimisation": f"{slow:.1e}",
                    "normal, architecture": f"{across:.0e}",
                    "normal, optimisation": f"{normal:.1e}",
                    "median distance to the ridge": f"{np.median(np.abs(ends[:, 1])):.4f}",
                    "median abs(x)": f"{np.median(np.abs(ends[:, 0])):.2f}",
                    "between the modes": f"{between(ends):.3f}",
                }
            )
    return rows


def capacity(sizes=((30, 1.0), (60, 1.0), (100, 1.0), (300, 1.0), (400, 0.1)), n_seeds=3):
    """Share of samples between the modes at infinite time against the features there are."""
    rows = []
    for feature_map, words in MAPS.items():
        for size, level_scale in sizes:
            row = {"features": f"{size} {words}", "level scale": level_scale}
            for weight in WEIGHTS:
                shares = [
                    between(
                        generated(fitted(weight, feature_map, size, seed, level_scale).model_, 500)
                    )
                    for seed in range(n_seeds)
                ]
                low, middle, high = min(shares), np.median(shares), max(shares)
                row[f"weight {weight}"] = f"{middle:.3f} ({low:.3f} to {high:.3f})"
            rows.append(row)
    return rows


class TimeScales(NamedTuple):
    """Times at which fresh rows are learned, denoised best, and spoiled; two of their losses."""

    learned: float
    best: float
    spoiled: float
    least_loss: float
    last_loss: float


def time_scales(counts=(50, 100, 200, 400), n_seeds=5):
    """Medians over data sets, one ``TimeScales`` for each number of rows."""
    rng = np.random.default_rng(0)
    law = MixtureModel(np.ones(4) / 4, rng.standard_normal((4, 8)), np.full(4, 0.3))
    test = law.sample(4000, random_state=99)
    times = np.geomspace(1e-1, 1e8, 181)
    scales = []
    for n in counts:
        found = []
        for seed in range(n_seeds):
            est = RandomFeatureScore(
                400, joint=True, n_levels=2, sigma_min=0.35, sigma_max=0.351, length_scale=4.0,
                parameterization="data", alpha=0.0, random_state=seed,
            ).fit(law.sample(n, random_state=1000 * seed + n))  # fmt: skip
            losses = est.denoising_loss(test, times) * est.scale_**2
            best = losses.argmin()
            learned = losses < losses[best] + 0.1 * (losses[0] - losses[best])
            lost = (losses > 1.1 * losses[best]) & (np.arange(len(times)) > best)
            found.append(
                (
                    times[learned.argmax()],
                    times[best],
                    times[lost.argmax()] if lost.any() else np.inf,
                    losses[best],
                    est.denoising_loss(test) * est.scale_**2,
                )
            )
        scales.append(TimeScales(*np.median(found, axis=0)))
    return scales


def growth(counts, times):
    """Power of the number of rows with which times grow."""
    return np.polyfit(np.log(counts), np.log(times), 1)[0]


def two_times(counts=(50, 100, 200, 400)):
    """When fresh rows are denoised best, and when worse because the training rows are learned."""
    scales = time_scales(counts)
    rows = [
        {
            "rows": n,
            "nine tenths learned at": f"{found.learned:.3g}",
            "best at": f"{found.best:.2g}",
            "a tenth worse at": f"{found.spoiled:.2g}",
            "test loss at best": f"{found.least_loss:.3f}",
            "after infinite time": f"{found.last_loss:.3f}",
        }
        for n, found in zip(counts, scales, strict=True)
    ]
    return rows, growth(counts, [found.spoiled for found in scales])


def main():
    paragraphs = [" ".join(part.split()) for part in __doc__.split("\n\n")[1:]]
    text = "\n\n".join(paragraphs)
    text += f"\n\nA run without normal error ends at a median distance of {FLOOR:.4f}."
    for feature_map, words in MAPS.items():
        rows = training(feature_map)
        text += f"\n\n## Along training, 60 {words}\n\n" + table(rows, list(rows[0]))
    rows = capacity()
    text += (
        "\n\n## Share of samples between the modes, abs(x) < 2.5, at infinite time\n\n"
        "Median and range of three draws of the features; 500 samples each. Features of a small "
        "level scale (128 levels) share their capacity among many levels.\n\n"
    ) + table(rows, list(rows[0]))
    rows, slope = two_times()
    text += (
        "\n\n## Two time scales: 400 cosines, a mixture of 4 in 8 columns, one noise level (0.35)"
        "\n\nExact losses on 4,000 fresh rows; medians over five data sets and draws of features."
        "\n\n"
        + table(rows, list(rows[0]))
        + f"\n\nThe time of a tenth worse grows as the number of rows to the power {slope:.1f}."
    )
    write("random_features", "Random features: where the errors go", text)


if __name__ == "__main__":
    main()
