"""Calibrate the statistics of neighbours on random laws of known dimension.

    python benchmarks/dimension_calibration.py draw [BLOCK ...] --folder FOLDER
    python benchmarks/dimension_calibration.py fit --folder FOLDER
    python benchmarks/dimension_calibration.py report --folder FOLDER

The first draws blocks of laws (``_dimension_laws.py``, ``_dimension_images.py``) and keeps their
statistics in the folder; the second fits the perceptrons to all blocks there but one law in eight,
and writes ``skdiffusion/geometry/dimension_calibration.npz``; the third says how well they do on
the laws held out. Every law gives one example for the whole and a few for neighbourhoods of it.
Examples whose rows cannot show their dimension (``_dimension_law.py``) are left out of both.
Images of the scenes called unseen (``_dimension_image_test.py``) share no code with those that
teach.
"""

import argparse
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from _dimension_image_test import unseen_images
from _dimension_images import image_law
from _dimension_law import Law, visible
from _dimension_laws import (
    BORDERED,
    CURVED,
    EVEN,
    EVEN_WIDER,
    FOLDED,
    FOLDED_WIDER,
    MIXED,
    MIXED_LOW,
    TURNED,
    TURNED_WIDER,
    random_law,
)
from _report import table, write
from joblib import Parallel, delayed

from skdiffusion.geometry import _dimension_calibration
from skdiffusion.geometry._neighbourhood_statistics import (
    MOST_ROWS,
    NeighbourhoodStatistics,
    RowStatistics,
    WholeStatistics,
    summarise,
)

LAWS_PER_BLOCK = 200
PRIORS = [EVEN] * 3 + [CURVED, FOLDED, TURNED, BORDERED]
MORE_PRIORS = [EVEN_WIDER, TURNED_WIDER, FOLDED_WIDER, MIXED, MIXED_LOW]
BORDERS, IMAGES, UNSEEN, MIXTURES = 6, 7, 8, 12
LAWS = [
    *(partial(random_law, prior=prior) for prior in PRIORS),
    image_law,
    unseen_images,
    *(partial(random_law, prior=prior) for prior in MORE_PRIORS),
]
"""What draws the laws of each hundred of blocks; those of ``UNSEEN`` teach nothing."""
BLOCKS = [
    *range(50),
    *range(200, 250),
    *range(300, 350),
    *range(400, 440),
    *range(500, 540),
    *range(600, 645),
    *range(700, 800),
    800,
    *range(900, 980),
    *range(1000, 1030),
    *range(1100, 1120),
    *range(1200, 1280),
    *range(1300, 1380),
]
LEAST_VISIBLE, MOST_FOLDED = 0.7, 4
"""Folded laws of so few dimensions teach only where rows show them."""
QUERIES = MOST_ROWS
NEIGHBOURHOODS, SIZES = 3, (12, 48)
LIMIT, DEPTH, WIDTH, MEMBERS = 4.0, 3, 192, 6
EPOCHS, BATCH, RATE, DECAY, JITTER = 10, 512, 5e-3, 3e-2, 0.003


def examples(rng, law):
    """Vectors of statistics of a law and of neighbourhoods in it, with what is known of them."""
    rows, first = np.unique(law.rows, axis=0, return_index=True)
    if len(rows) < 10:
        return
    intrinsic = None if law.intrinsic is None else law.intrinsic[first]
    law = Law(rows, law.dimensions[first], law.kind, intrinsic)
    pick = rng.choice(len(rows), min(len(rows), QUERIES), replace=False)
    some, d, seen = rows[pick], law.dimensions[pick], visible(law, pick)
    statistics = NeighbourhoodStatistics(rows)(some)
    whole = WholeStatistics.of(rows, some)
    yield summarise(statistics, whole), d.mean(), law.kind, seen.mean()
    for _ in range(NEIGHBOURHOODS):
        centre = some[rng.integers(len(some))]
        size = int(np.exp(rng.uniform(*np.log(SIZES))))
        near = np.argsort(((some - centre) ** 2).sum(axis=1))[:size]
        part = RowStatistics(*(values[near] for values in statistics))
        yield summarise(part, whole), d[near].mean(), f"{law.kind}, local", seen[near].mean()


def draw(block, folder):
    rng = np.random.default_rng(block)
    make = LAWS[block // 100]
    rows = [(*example, k) for k in range(LAWS_PER_BLOCK) for example in examples(rng, make(rng))]
    vectors, dimensions, kinds, seen, laws = (np.array(part) for part in zip(*rows, strict=True))
    assert np.isfinite(vectors).all()
    path = Path(folder) / f"block_{block}.npz"
    np.savez(path, vectors=vectors, dimensions=dimensions, kinds=kinds, laws=laws, seen=seen)


def load(folder):
    """Vectors, logarithms of dimensions, kinds, whether held out and what hundred they are of."""
    blocks = sorted(Path(folder).glob("block_*.npz"), key=lambda p: int(p.stem.split("_")[1]))
    parts = [np.load(path) for path in blocks]
    vectors, dimensions, kinds, laws, seen = (
        np.concatenate([part[name] for part in parts])
        for name in ("vectors", "dimensions", "kinds", "laws", "seen")
    )
    hundreds = [int(path.stem.split("_")[1]) // 100 for path in blocks]
    source = np.repeat(hundreds, [len(part["laws"]) for part in parts])
    shown = (seen >= LEAST_VISIBLE) | (dimensions > MOST_FOLDED)
    print(f"{len(parts)} blocks, {1 - shown.mean():.1%} of the examples left out")
    held_out = (laws % 8 == 0) | (source == UNSEEN)
    return tuple(a[shown] for a in (vectors, np.log(dimensions), kinds, held_out, source))


class Perceptron(torch.nn.Module):
    """A few hidden layers, and the vector itself beside them."""

    def __init__(self, n_inputs):
        super().__init__()
        sizes = [n_inputs, *[WIDTH] * DEPTH, 2]
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(before, after) for before, after in pairwise(sizes)
        )
        self.skip = torch.nn.Linear(n_inputs, 2, bias=False)
        torch.nn.init.zeros_(self.skip.weight)

    def forward(self, v):
        hidden = v
        for layer in self.layers[:-1]:
            hidden = torch.nn.functional.silu(layer(hidden))
        return self.layers[-1](hidden) + self.skip(v)


def train(v, log_d, often, seed, epochs=EPOCHS):
    """A perceptron taught by examples, as often as they are listed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Perceptron(v.shape[1])
        optimiser = torch.optim.AdamW(net.parameters(), weight_decay=DECAY)
        n_steps = epochs * len(often) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, n_steps, pct_start=0.15)
        for _ in range(n_steps):
            index = often[torch.randint(0, len(often), (BATCH,))]
            outputs = net(v[index] + JITTER * torch.randn(BATCH, v.shape[1]))
            log_error = outputs[:, 1].clamp(-5, 2)
            loss = ((outputs[:, 0] - log_d[index]).abs() * torch.exp(-log_error) + log_error).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return net


def fit(folder, path=_dimension_calibration.WEIGHTS):
    vectors, log_d, kinds, held_out, _ = load(folder)
    mean, scale = vectors[~held_out].mean(axis=0), vectors[~held_out].std(axis=0) + 1e-3
    v = np.clip((vectors - mean) / scale, -LIMIT, LIMIT)
    seen = torch.tensor(v[~held_out], dtype=torch.float32)
    truth = torch.tensor(log_d[~held_out], dtype=torch.float32)
    local = np.char.endswith(kinds[~held_out], "local")
    often = np.repeat(np.arange(len(local)), np.where(local, 1, NEIGHBOURHOODS))
    nets = Parallel(n_jobs=-1)(
        delayed(train)(seen, truth, torch.tensor(often), seed) for seed in range(MEMBERS)
    )
    weights = {}
    for k in range(DEPTH + 1):
        weights[f"weight_{k}"] = _stacked([net.layers[k].weight.T for net in nets])
        weights[f"bias_{k}"] = _stacked([net.layers[k].bias for net in nets])
    weights["weight_skip"] = _stacked([net.skip.weight.T for net in nets])
    weights = {name: np.float16(values) for name, values in weights.items()}
    np.savez_compressed(path, mean=mean, scale=scale, limit=LIMIT, **weights)
    _dimension_calibration._weights.cache_clear()


def report(folder):
    """Errors on laws that were not seen, beside those of one uncorrected statistic."""
    vectors, log_d, kinds, held_out, source = load(folder)
    found, error = _dimension_calibration.calibrated(vectors)
    ratio, raw = found / np.exp(log_d), np.exp(-vectors[:, 3] - log_d)
    off = np.abs(ratio - 1)
    kinds = np.where(source == BORDERS, np.char.add("bordered ", kinds), kinds)
    unseen, many = source == UNSEEN, log_d > np.log(12.5)
    groups = {kind: kinds == kind for kind in np.unique(kinds)}
    groups |= {
        "all but unseen": ~unseen,
        "all unseen": unseen,
        "unseen, below 13 dimensions": unseen & ~many,
        "unseen, 13 to 40 dimensions": unseen & many,
    }
    lines = []
    for kind, rows in groups.items():
        rows = held_out & rows
        lines.append(
            {
                "laws": kind,
                "examples": rows.sum(),
                "mean error": f"{off[rows].mean():.3f}",
                "median": f"{np.median(off[rows]):.3f}",
                "expected mean": f"{error[rows].mean():.3f}",
                "median answer / truth": f"{np.median(ratio[rows]):.3f}",
                "maximum likelihood, k = 16": f"{np.abs(raw[rows] - 1).mean():.3f}",
            }
        )
    text = " ".join(__doc__.split("\n\n")[2].split())
    text += f" {len(off)} examples in all; mean error on those seen {off[~held_out].mean():.3f}."
    text = table(lines, list(lines[0])) + "\n\n" + text
    title = "Calibration of dimension: laws held out"
    write("dimension_calibration", title, text, ("numpy", "scikit-learn", "torch"))


def _stacked(tensors):
    return np.stack([tensor.detach().numpy() for tensor in tensors])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=["draw", "fit", "report"])
    parser.add_argument("blocks", nargs="*", type=int)
    parser.add_argument("--folder", default="dimension_laws")
    options = parser.parse_args()
    Path(options.folder).mkdir(exist_ok=True)
    torch.set_num_threads(1)
    if options.action == "fit":
        fit(options.folder)
    if options.action != "draw":
        report(options.folder)
        return
    start = time.time()
    for block in options.blocks or BLOCKS:
        if not (Path(options.folder) / f"block_{block}.npz").exists():
            draw(block, options.folder)
            print(f"block {block} after {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
