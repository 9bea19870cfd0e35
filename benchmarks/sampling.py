"""How fast is a big sample, and how far from the floor?

100,000 rows in 64 columns from a mixture of 20 full components through the default sampler. The
floor is the one matrix product that an evaluation cannot do without, of its rows with the matrices
of all components (64 x 1,280), in the same blocks, on the same threads, and nothing else; the share
is floor over wall time. (Coordinates along axes need a second product, back.) The peer for the
whole is a plain loop around the same evaluations without driver: its ratio is what progress,
batches, noise and checks cost.

    python benchmarks/sampling.py [--quick]
"""

import argparse
import itertools
import resource

import numpy as np
from _report import interleaved, table, write

from skdiffusion import GMMScore
from skdiffusion.models import mixture as mixture_module
from skdiffusion.utils.blocks import blas_threads, map_blocks


def law(d, k):
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((k, d, d)) / d**0.5
    covariances = factors @ factors.mT + 0.01 * np.eye(d)
    means = 1.5 * rng.standard_normal((k, d))
    return GMMScore.from_parameters(np.full(k, 1 / k), means, covariances)


class Evaluations:
    """Counts evaluations of a model, in rows."""

    def __init__(self, model):
        self.model, self.inner, self.rows = model, model._denoise, 0

    def __enter__(self):
        def counted(x, sigma):
            self.rows += len(x)
            return self.inner(x, sigma)

        self.model._denoise = counted
        return self

    def __exit__(self, *error):
        del self.model._denoise


def plain_loop(model, x, levels):
    """Euler steps with nothing around them."""
    for level, after in itertools.pairwise(levels):
        ratio = after / level
        x = ratio * x + (1 - ratio) * model.denoise(x, level)
    return x


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    quick = parser.parse_args().quick
    n, d, k = (10_000 if quick else 100_000), 64, 20
    est = law(d, k)
    with Evaluations(est.model_) as counter:
        est.sample(256, n_steps=32, random_state=0)
    per_row = counter.rows / 256

    rng = np.random.default_rng(0)
    x = 5 * rng.standard_normal((n, d))
    basis = rng.standard_normal((d, k * d))
    block = max(mixture_module.BLOCK // (3 * k * d), 1)

    def product(rows):
        x[rows] @ basis  # nothing is kept: 1,280 columns of all rows would not fit

    def products():
        map_blocks(product, n, block)

    levels = [*est.noise_levels(32), 0.0]
    found = interleaved(
        {
            "default": lambda: est.sample(n, n_steps=32, random_state=0),
            "euler": lambda: est.sample(n, sampler="euler", n_steps=32, random_state=0),
            "loop": lambda: plain_loop(est.model_, x, levels),
            "products": products,
        },
        3,
    )
    floor = found["products"] * per_row
    rows = [
        ("default sampler", per_row, found["default"], floor),
        ("Euler, through the driver", 32, found["euler"], 32 * found["products"]),
        ("Euler, a plain loop", 32, found["loop"], 32 * found["products"]),
    ]
    text = table(
        [
            {
                "run": what,
                "evaluations a row": f"{evaluations:.0f}",
                "s": f"{seconds:.1f}",
                "rows/s": f"{n / seconds:,.0f}",
                "GFLOP/s": f"{n * evaluations * 2 * d * k * d / seconds / 1e9:.0f}",
                "share of the product": f"{least / seconds:.0%}",
            }
            for what, evaluations, seconds, least in rows
        ],
        ["run", "evaluations a row", "s", "rows/s", "GFLOP/s", "share of the product"],
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    text = (
        f"{n:,} rows, {d} columns, {k} full components, 32 noise levels, {blas_threads()} threads; "
        f"peak memory of the process {peak:.2f} GB. Driver over plain loop: "
        f"{found['euler'] / found['loop']:.3f}.\n\n{text}\n\n"
        + " ".join(__doc__.split("\n\n")[1].split())
    )
    write("sampling_quick" if quick else "sampling", "A big sample from a mixture", text)


if __name__ == "__main__":
    main()
