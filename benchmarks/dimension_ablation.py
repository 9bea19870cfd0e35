"""What does each part of the calibration of dimension bring?

    python benchmarks/dimension_ablation.py FOLDER

Mean and median relative errors on held-out laws, whole data sets alone, with fewer statistics or
taught by fewer laws: one short training each, on the blocks that
``dimension_calibration.py draw`` has left in the folder.
"""

import sys

import numpy as np
import torch
from _report import table, write
from dimension_calibration import LIMIT, load, train

EPOCHS = 12
GROUPS = {"distance ratios": 7, "angles": 19, "spectra of neighbours": 37, "all rows": None}
"""Where the statistics that are taken together end in the vector."""


def ablate(folder):
    vectors, log_d, kinds, held_out, _ = load(folder)
    v = (vectors - vectors[~held_out].mean(axis=0)) / (vectors[~held_out].std(axis=0) + 1e-3)
    v = np.clip(v, -LIMIT, LIMIT)
    simple = np.isin(np.char.partition(kinds.astype(str), ",")[:, 0], ["flat", "closed"])
    runs = {f"up to {name}": (end, ~held_out) for name, end in GROUPS.items()}
    runs["all, taught by flat and closed laws alone"] = None, ~held_out & simple
    lines = []
    for name, (end, taught) in runs.items():
        part = torch.tensor(v[:, :end], dtype=torch.float32)
        truth = torch.tensor(log_d[taught], dtype=torch.float32)
        net = train(part[taught], truth, torch.arange(int(taught.sum())), 0, EPOCHS)
        with torch.no_grad():
            found = np.exp(net(part)[:, 0].numpy() - log_d)
        off = np.abs(found - 1)
        whole = held_out & ~np.char.endswith(kinds, "local")
        lines.append(
            {
                "statistics": name,
                "flat and closed": f"{off[whole & simple].mean():.3f}",
                "others": f"{off[whole & ~simple].mean():.3f}",
                "all": f"{off[whole].mean():.3f}",
                "median": f"{np.median(off[whole]):.3f}",
            }
        )
    text = table(lines, list(lines[0])) + "\n\n" + " ".join(__doc__.split("\n\n")[2].split())
    title = "Calibration of dimension: what each part brings"
    write("dimension_ablation", title, text, ("numpy", "scikit-learn", "torch"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    ablate(sys.argv[1])
