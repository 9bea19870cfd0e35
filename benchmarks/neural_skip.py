"""How many steps does a skip save that knows the data? Steps to given bounds, beside EDM's.

The same network (width 128), rows, seed, optimizer, rate and number of steps; only what the network
is asked for and where it is trained differ: parameterization "gaussian" (the network sees, beside
the point, its direction and distance in the noised Gaussian), "mixture" (it sees what the mixture
would have it say) or "edm" (the point alone), levels from the data (schedule "auto") or EDM's log-
normal ones (schedule "edm", Karras et al. 2022). Plain EDM is "edm" on EDM's levels; the default of
NeuralScore is "mixture" on levels from the data. Targets are given by how far they lie below the
best bound of plain EDM, in nats per row; steps to a target are interpolated between rounds of
training, and a dash is a target that was not reached. All share the data's principal axes and
standardisation.

    OMP_NUM_THREADS=1 python benchmarks/neural_skip.py [--steps 800]
"""

import argparse

import numpy as np
import torch
from _report import table, write
from sklearn.datasets import load_digits

from skdiffusion import NeuralScore
from skdiffusion.datasets import load_image_patches

RUNS = {
    f"{parameterization}, levels from {'the data' if schedule == 'auto' else 'EDM'}": (
        parameterization,
        schedule,
    )
    for parameterization in ("gaussian", "mixture", "edm")
    for schedule in ("auto", "edm")
}
SHORT_OF_BEST = (50, 20, 10, 5, 2, 0)
RATIOS = (
    ("gaussian, levels from the data", "edm, levels from EDM"),
    ("gaussian, levels from the data", "edm, levels from the data"),
    ("gaussian, levels from EDM", "edm, levels from EDM"),
    ("mixture, levels from the data", "edm, levels from EDM"),
    ("mixture, levels from EDM", "edm, levels from EDM"),
)


def datasets():
    digits = load_digits().data
    yield "digits (d = 64)", digits + np.random.default_rng(0).uniform(size=digits.shape)
    yield "patches (d = 63)", load_image_patches(5000, size=8, remove_mean=True, random_state=0)


def curve(X, parameterization, schedule, steps):
    """Steps and validation bounds of one training run."""
    est = NeuralScore(
        parameterization=parameterization,
        schedule=schedule,
        module__width=128,
        max_epochs=round(steps * 256 / (0.9 * len(X))),
        n_iter_no_change=steps,
        random_state=0,
    ).fit(X)
    rounds = [(entry["step"], entry["valid_bound"]) for entry in est.history_]
    return np.array(rounds).T


def steps_to(target, steps, bounds):
    """Where the running best first meets the target."""
    best = np.maximum.accumulate(bounds)
    if best[-1] < target:
        return np.inf
    k = int(np.argmax(best >= target))
    if k == 0:
        return steps[0]
    share = (target - best[k - 1]) / (best[k] - best[k - 1])
    return steps[k - 1] + share * (steps[k] - steps[k - 1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=800)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for name, X in datasets():
        curves = {}
        for run, choice in RUNS.items():
            curves[run] = curve(X, *choice, options.steps)
            print(name, run, curves[run].round(2).tolist(), flush=True)
        top = curves["edm, levels from EDM"][1].max()
        found = {
            run: [steps_to(top - short, *points) for short in SHORT_OF_BEST]
            for run, points in curves.items()
        }
        columns = [f"{short} short" if short else "its best" for short in SHORT_OF_BEST]
        rows = [
            {
                "steps to": run,
                **{
                    c: "-" if np.isinf(s) else f"{s:.0f}"
                    for c, s in zip(columns, steps, strict=True)
                },
                "best bound": f"{curves[run][1].max():.2f}",
            }
            for run, steps in found.items()
        ]
        for ours, theirs in RATIOS:
            shares = np.array(found[ours]) / np.array(found[theirs])
            row = {"steps to": f"**share:** {ours} / {theirs}", "best bound": ""}
            shown = ["-" if not np.isfinite(share) else f"**{share:.2f}**" for share in shares]
            rows.append({**row, **dict(zip(columns, shown, strict=True))})
        parts.append(f"## {name}\n\n{table(rows, list(rows[0]))}")
    text = "\n\n".join(parts) + f"\n\n{options.steps} steps at most. "
    text += "The first round ends at 64 steps, so that shares of early targets are upper bounds; "
    text += "a share above one, or a dash, is a loss. One seed. "
    text += " ".join(__doc__.split("\n\n")[1].split())
    write(
        "neural_skip",
        "Steps that the Gaussian and the mixture skip save",
        text,
        ("numpy", "torch", "skorch"),
    )


if __name__ == "__main__":
    main()
