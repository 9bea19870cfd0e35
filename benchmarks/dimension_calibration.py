"""Calibrate the statistics of neighbours on random laws of known dimension.

    python benchmarks/dimension_calibration.py draw [BLOCK ...] --folder FOLDER
    python benchmarks/dimension_calibration.py fit --folder FOLDER
    python benchmarks/dimension_calibration.py further --folder FOLDER
    python benchmarks/dimension_calibration.py report --folder FOLDER

The first draws blocks of laws (``_dimension_laws.py``, ``_dimension_images.py``) and keeps their
statistics in the folder; the second fits the perceptrons to all blocks there, the third goes on
from the weights that are there. Both write ``skdiffusion/geometry/dimension_calibration.npz`` and
hold out one law in eight; the last says how well weights do on those. Every law gives one example
for the whole and a few for neighbourhoods of it. Images of the scenes called unseen
(``_dimension_image_test.py``) share no code with those that teach. The package's own weights were
fitted to ``BLOCKS`` and then further to ``FURTHER_BLOCKS``.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _dimension_image_test import unseen_images
from _dimension_images import image_law
from _dimension_laws import BORDERED, CURVED, EVEN, FOLDED, TURNED, random_law
from _report import table, write

from skdiffusion.geometry import _dimension_calibration
from skdiffusion.geometry._neighbourhood_statistics import (
    NeighbourhoodStatistics,
    RowStatistics,
    WholeStatistics,
    summarise,
)

LAWS_PER_BLOCK = 200
PRIORS = [EVEN] * 3 + [CURVED, FOLDED, TURNED, BORDERED]
BORDERS, IMAGES, UNSEEN = 6, 7, 8
LAWS = [*(partial(random_law, prior=prior) for prior in PRIORS), image_law, unseen_images]
"""What draws the laws of each hundred of blocks; the last, ``UNSEEN``, teaches nothing."""
BLOCKS = [*range(9), *range(200, 224), *range(300, 311), *range(400, 402), *range(500, 503)]
FURTHER_BLOCKS = [
    *range(0, 6),
    *range(200, 207),
    *range(300, 304),
    *range(400, 402),
    *range(500, 503),
    *range(600, 602),
    *range(700, 707),
    800,
]
QUERIES = 128
NEIGHBOURHOODS, SIZES = 3, (12, 48)
LIMIT, WIDTH, MEMBERS = 4.0, 96, 4
EPOCHS, BATCH, RATE, DECAY, JITTER = 40, 256, 8e-3, 3e-2, 0.003
FURTHER_EPOCHS, FURTHER_RATE = 12, 2e-3


def examples(rng, law):
    """Vectors of statistics of one law and of neighbourhoods in it, with their dimensions."""
    X, d, kind = law(rng)
    X, first = np.unique(X, axis=0, return_index=True)
    if len(X) < 10:
        return
    pick = rng.choice(len(X), min(len(X), QUERIES), replace=False)
    some, d = X[pick], d[first][pick]
    statistics = NeighbourhoodStatistics(X)(some)
    whole = WholeStatistics.of(X, some)
    yield summarise(statistics, whole), d.mean(), kind
    for _ in range(NEIGHBOURHOODS):
        centre = some[rng.integers(len(some))]
        size = int(np.exp(rng.uniform(*np.log(SIZES))))
        near = np.argsort(((some - centre) ** 2).sum(axis=1))[:size]
        part = RowStatistics(*(values[near] for values in statistics))
        yield summarise(part, whole), d[near].mean(), f"{kind}, local"


def draw(block, folder):
    rng = np.random.default_rng(block)
    make = LAWS[block // 100]
    rows = [
        (v, d, kind, law) for law in range(LAWS_PER_BLOCK) for v, d, kind in examples(rng, make)
    ]
    vectors, dimensions, kinds, laws = (np.array(part) for part in zip(*rows, strict=True))
    assert np.isfinite(vectors).all()
    path = Path(folder) / f"block_{block}.npz"
    np.savez(path, vectors=vectors, dimensions=dimensions, kinds=kinds, laws=laws)


def load(folder):
    blocks = sorted(Path(folder).glob("block_*.npz"), key=lambda p: int(p.stem.split("_")[1]))
    parts = [np.load(path) for path in blocks]
    vectors, dimensions, kinds, laws = (
        np.concatenate([part[name] for part in parts])
        for name in ("vectors", "dimensions", "kinds", "laws")
    )
    hundreds = [int(path.stem.split("_")[1]) // 100 for path in blocks]
    source = np.repeat(hundreds, [len(part["laws"]) for part in parts])
    print(len(parts), "blocks")
    held_out = (laws % 8 == 0) | (source == UNSEEN)
    return vectors, np.log(dimensions), kinds, held_out, source


class Perceptron(torch.nn.Module):
    """Two hidden layers, and the vector itself beside them."""

    def __init__(self, n_inputs):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            [
                torch.nn.Linear(n_inputs, WIDTH),
                torch.nn.Linear(WIDTH, WIDTH),
                torch.nn.Linear(WIDTH, 2),
            ]
        )
        self.skip = torch.nn.Linear(n_inputs, 2, bias=False)
        torch.nn.init.zeros_(self.skip.weight)

    def forward(self, v):
        hidden = v
        for layer in self.layers[:-1]:
            hidden = torch.nn.functional.silu(layer(hidden))
        return self.layers[-1](hidden) + self.skip(v)


def train(v, log_d, often, seed, epochs=EPOCHS, rate=RATE, start=None):
    """A perceptron taught from scratch, or from the stored arrays ``start``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Perceptron(v.shape[1])
        if start is not None:
            net.load_state_dict(_state(start, seed))
        optimiser = torch.optim.AdamW(net.parameters(), weight_decay=DECAY)
        n_steps = epochs * len(often) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, n_steps, pct_start=0.15)
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


def _state(stored, member):
    """Parameters of one of the stored perceptrons."""
    state = {"skip.weight": stored["weight_skip"][member].T}
    for k in range(3):
        state[f"layers.{k}.weight"] = stored[f"weight_{k}"][member].T
        state[f"layers.{k}.bias"] = stored[f"bias_{k}"][member]
    return {name: torch.tensor(values) for name, values in state.items()}


def fit(folder, further=False, path=_dimension_calibration.WEIGHTS):
    vectors, log_d, kinds, held_out, _ = load(folder)
    mean, scale = vectors[~held_out].mean(axis=0), vectors[~held_out].std(axis=0) + 1e-3
    how = {}
    if further:
        with np.load(path) as stored:
            how = dict(start=dict(stored), epochs=FURTHER_EPOCHS, rate=FURTHER_RATE)
        mean, scale = how["start"]["mean"], how["start"]["scale"]
    v = np.clip((vectors - mean) / scale, -LIMIT, LIMIT)
    seen = torch.tensor(v[~held_out], dtype=torch.float32)
    truth = torch.tensor(log_d[~held_out], dtype=torch.float32)
    local = np.char.endswith(kinds[~held_out], "local")
    often = np.repeat(np.arange(len(local)), np.where(local, 1, NEIGHBOURHOODS))
    nets = [train(seen, truth, torch.tensor(often), seed, **how) for seed in range(MEMBERS)]
    weights = {"mean": mean, "scale": scale, "limit": LIMIT}
    for k in range(3):
        weights[f"weight_{k}"] = _stacked([net.layers[k].weight.T for net in nets])
        weights[f"bias_{k}"] = _stacked([net.layers[k].bias for net in nets])
    weights["weight_skip"] = _stacked([net.skip.weight.T for net in nets])
    np.savez(path, **{name: np.float32(values) for name, values in weights.items()})
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
    parser.add_argument("action", choices=["draw", "fit", "further", "report"])
    parser.add_argument("blocks", nargs="*", type=int)
    parser.add_argument("--folder", default="dimension_laws")
    options = parser.parse_args()
    Path(options.folder).mkdir(exist_ok=True)
    torch.set_num_threads(1)
    if options.action in ("fit", "further"):
        fit(options.folder, options.action == "further")
    if options.action != "draw":
        report(options.folder)
        return
    start = time.time()
    for block in options.blocks or FURTHER_BLOCKS:
        if not (Path(options.folder) / f"block_{block}.npz").exists():
            draw(block, options.folder)
            print(f"block {block} after {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
