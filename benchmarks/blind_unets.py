"""What do U-Nets lose that are not told the noise level, and does a clock of their own help?

Pairs of U-Nets of Fashion-MNIST that differ in noise conditioning alone: 60,000 rows of 784
pixels, width 32, 10,000 steps of 128 rows, decay of the average .999, same seed. Targets are noise
on the variance-preserving path (DDIM), and data, velocity (flow matching) and EDM's combination
without its input for the level (uEDM) on the straight path. 2,000 samples take 50 steps on the
estimator's own levels: of Euler's sampler, which adds no noise, and of the ancestral one (DDPM);
a blind network on the schedule's clock and on that of a NoiseLevelEstimator of 10,000 training
rows.

Judged are the Frechet distance of the 64 features of a small convolutional classifier from 2,000
test images, and the noise that is left: the root mean square of the finest diagonal differences,
to which white noise counts as it is (pixels run from 0 to 1).

Networks train side by side on one GPU, each in a process of its own.

    python benchmarks/blind_unets.py --data FOLDER [--processes 8]
"""

import argparse
import json
import os
import time
import warnings
from multiprocessing import get_context

import numpy as np
import torch
from _images import SHAPE, Judge, images, noise_left, picture
from _report import RESULTS, table, write

from skdiffusion import NeuralScore
from skdiffusion.estimators import NoiseLevelEstimator
from skdiffusion.samplers import DDPMSampler, EulerSampler, run_sampler

N, LEVELS, BATCH, STEPS = 2000, 50, 128, 10_000
TARGETS = {  # parameterization and path
    "noise (DDIM)": ("noise", "vp"),
    "data": ("data", "flow_matching"),
    "velocity (flow matching)": ("velocity", "flow_matching"),
    "uEDM": ("edm", "flow_matching"),
}
LITERATURE = {  # FID on CIFAR-10 without noise conditioning, Sun et al. 2025
    "noise (DDIM)": "40.9",
    "velocity (flow matching)": "2.6",
    "uEDM": "2.2",
}
SAMPLERS = {"Euler": EulerSampler, "ancestral": DDPMSampler}
CLOCKS = ("told", "blind", "own clock")


def trained(X, target, told, steps=STEPS):
    parameterization, schedule = TARGETS[target]
    return NeuralScore(
        "unet",
        input_shape=SHAPE,
        parameterization=parameterization,
        schedule=schedule,
        noise_conditioning=told,
        module__width=32,
        batch_size=BATCH,
        max_epochs=max(1, round(steps * BATCH / len(X))),
        early_stopping=False,
        ema_decay=0.999,
        amp=True,
        random_state=0,
    ).fit(X)


def drawn(est, sampler):
    """Samples on the device of the network."""
    device = next(est.module_.parameters()).device
    levels = est.noise_levels(LEVELS, sampler)
    start = est.far_field_.sample(N, levels[0], random_state=1)
    start = torch.as_tensor(start, device=device)
    model = est._quick_model()
    return run_sampler(sampler, model, start, [*levels, 0.0], random_state=2).cpu().numpy()


def network(job):
    """Samples of one network, by sampler and clock."""
    folder, target, told, clock, steps = job
    warnings.filterwarnings("ignore")
    X, _ = images(folder, "fashion_mnist", "train")
    start = time.perf_counter()
    est = trained(X, target, told, steps)
    seconds = time.perf_counter() - start
    found = {}
    for name, sampler in SAMPLERS.items():
        found[name, "told" if told else "blind"] = drawn(est, sampler(clock="schedule"))
        if not told:
            found[name, "own clock"] = drawn(est, sampler(clock=clock))
    print(target, "told" if told else "blind", f"{seconds:.0f} s, {est.n_steps_} steps", flush=True)
    return target, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("SKDIFFUSION_DATA"))
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    if options.data is None:
        parser.error("no data folder: give --data or set SKDIFFUSION_DATA")
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU")
    X, y = images(options.data, "fashion_mnist", "train")
    test, test_labels = images(options.data, "fashion_mnist", "t10k")
    start = time.perf_counter()
    clock = NoiseLevelEstimator(random_state=0).fit(X[:10_000].astype(np.float64))
    print(f"clock {time.perf_counter() - start:.0f} s", flush=True)
    jobs = [
        (options.data, target, told, clock, options.steps)
        for target in TARGETS
        for told in (False, True)
    ]
    samples = {target: {} for target in TARGETS}
    with get_context("spawn").Pool(options.processes) as pool:
        for target, found in pool.imap_unordered(network, jobs, chunksize=1):
            samples[target] |= found
    judge = Judge(X, y, test[:N], test_labels[:N], "cuda")
    judged = {
        target: {f"{s}, {c}": [judge(x), noise_left(x)] for (s, c), x in found.items()}
        for target, found in samples.items()
    }
    judged["training rows"] = [judge(X[-N:]), noise_left(X[-N:])]
    (RESULTS / "blind_unets.json").write_text(json.dumps(judged, indent=1))
    tiles = [
        samples[target]["Euler", clock][:16]
        for target in TARGETS
        for clock in ("told", "blind", "own clock")
    ]
    picture(tiles, RESULTS / "blind_unets.png", 16)
    packages = ("numpy", "scikit-learn", "torch")
    write("blind_unets", "U-Nets that are not told the noise level", text(judged, judge), packages)


def text(judged, judge):
    rows = []
    for target in TARGETS:
        for sampler in SAMPLERS:
            cells = {c: judged[target][f"{sampler}, {c}"] for c in CLOCKS}
            rows.append(
                {
                    "target": target,
                    "sampler": sampler,
                    "told the level": cell(cells["told"]),
                    "blind, schedule's clock": cell(cells["blind"]),
                    "blind, own clock": cell(cells["own clock"]),
                    "own clock over told": f"{cells['own clock'][0] / cells['told'][0]:.2f}",
                    "FID of others, blind": LITERATURE.get(target, "")
                    if sampler == "Euler"
                    else "",
                }
            )
    parts = [
        f"{torch.cuda.get_device_name()}. Frechet distance / noise left.",
        table(rows, list(rows[0])),
        f"{N:,} training rows: {cell(judged['training rows'])}. The classifier is right about "
        f"{judge.accuracy:.1%} of the test images. Others: CIFAR-10 (Sun et al. 2025).",
        "![](blind_unets.png)\n\nSamples of Euler's sampler, target by target: told the level, "
        "blind on the schedule's clock, blind on its own.",
        " ".join(" ".join(__doc__.split("\n\n")[1:-1]).split()),
    ]
    return "\n\n".join(parts)


def cell(values):
    return " / ".join(f"{value:.3g}" for value in values)


if __name__ == "__main__":
    main()
