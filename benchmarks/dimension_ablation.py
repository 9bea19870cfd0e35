"""What does each part of the calibration of dimension bring?

    python benchmarks/dimension_ablation.py FOLDER

Mean relative errors on held-out laws, whole data sets but for the last column, with fewer
statistics or taught by fewer laws: the mean over three short trainings each and, after the sign,
half the range of the three, on the blocks that ``dimension_calibration.py draw`` has left in the
folder. *Unseen* are images of scenes that share no code with those that teach. *Wider* laws have
coordinates of unequal extents, columns of few forms, and other laws in columns beside them; the
last column is of neighbourhoods in laws side by side.
"""

import sys

import numpy as np
import torch
from _report import table, write
from dimension_calibration import BORDERS, IMAGES, LIMIT, MIXTURES, UNSEEN, load, train

EPOCHS, SEEDS = 3, (0, 1, 2)
GROUPS = {"distance ratios": 7, "angles": 19, "spectra of neighbours": 37, "all rows": None}
"""Where the statistics that are taken together end in the vector."""


def ablate(folder):
    vectors, log_d, kinds, held_out, source = load(folder)
    whole = ~np.char.endswith(kinds, "local")
    simple = np.isin(np.char.partition(kinds.astype(str), ",")[:, 0], ["flat", "closed"])
    plain = source < BORDERS
    wider, beside = (source > UNSEEN) & (source < MIXTURES), source >= MIXTURES
    tests = {
        "flat and closed": plain & simple,
        "others": plain & ~simple,
        "bordered": source == BORDERS,
        "wider": wider,
        "images": source == IMAGES,
        "unseen": source == UNSEEN,
    }
    tests = {name: rows & whole for name, rows in tests.items()}
    tests["side by side, local"] = beside & ~whole
    runs = {f"up to {name}": (end, ~held_out) for name, end in GROUPS.items()}
    runs["all, without images"] = None, ~held_out & (source != IMAGES)
    runs["all, without borders"] = None, ~held_out & (source != BORDERS)
    runs["all, without wider laws"] = None, ~held_out & ~wider
    runs["all, without laws side by side"] = None, ~held_out & ~beside
    runs["all, taught by the plain laws alone"] = None, ~held_out & plain
    runs["all, taught by flat and closed laws alone"] = None, ~held_out & plain & simple
    lines = []
    for name, (end, taught) in runs.items():
        mean, scale = vectors[taught].mean(axis=0), vectors[taught].std(axis=0) + 1e-3
        v = np.clip((vectors - mean) / scale, -LIMIT, LIMIT)
        part = torch.tensor(v[:, :end], dtype=torch.float32)
        off = [np.abs(np.exp(_found(part, log_d, taught, seed)) - 1) for seed in SEEDS]
        line = {"statistics": name}
        for test, rows in tests.items():
            errors = [one[held_out & rows].mean() for one in off]
            line[test] = f"{np.mean(errors):.3f} ± {np.ptp(errors) / 2:.3f}"
        lines.append(line)
        print(line, flush=True)
    text = table(lines, list(lines[0])) + "\n\n" + " ".join(__doc__.split("\n\n")[2].split())
    title = "Calibration of dimension: what each part brings"
    write("dimension_ablation", title, text, ("numpy", "scikit-learn", "torch"))


def _found(part, log_d, taught, seed):
    """Logarithms of what is found over what is true."""
    truth = torch.tensor(log_d[taught], dtype=torch.float32)
    net = train(part[taught], truth, torch.arange(int(taught.sum())), seed, EPOCHS)
    with torch.no_grad():
        return net(part)[:, 0].numpy() - log_d


if __name__ == "__main__":
    torch.set_num_threads(1)
    ablate(sys.argv[1])
