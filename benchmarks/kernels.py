"""How fast and how right are kernel densities? EmpiricalScore beside KernelDensity.

Points and queries are standard normal; the bandwidth is Scott's rule in 2 and 8 columns and 0.5 in
64 and 784, where all points matter (there the trees answer a twentieth of the queries, and their
time is multiplied). The peer is the faster of scikit-learn's two trees. Errors are largest absolute
differences from the exact sum in extended precision: in float64 and for the tree at the queries as
given, in float32 (asked of the score model) at the queries rounded to float32, which is what it is
given. "Rounding" is what float32 costs anyone: how far the exact sum moves when the queries are
rounded, and half a unit in the last place of the largest result. The floor is a plain chunked GEMM
with an in-place log-sum-exp in NumPy.

    python benchmarks/kernels.py [--quick]
"""

import argparse
import time

import numpy as np
from _report import interleaved, table, write
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity

from skdiffusion import EmpiricalScore

TREES = ("kd_tree", "ball_tree")


def exact(queries, points, h):
    """The kernel sum without any shortcut, in extended precision."""
    n, d = points.shape
    constant = -np.log(n) - 0.5 * d * np.log(2 * np.pi * h**2)
    result = np.empty(len(queries))
    for i, query in enumerate(queries):
        squared = ((points - query) ** 2).sum(1, dtype=np.longdouble)
        result[i] = logsumexp((-0.5 * squared / h**2).astype(np.float64)) + constant
    return result


def floor(queries, points, h):
    """GEMM and log-sum-exp, chunked to stay in memory; nothing else."""
    n, d = points.shape
    half = 0.5 * (points**2).sum(1)
    result = np.empty(len(queries), queries.dtype)
    for start in range(0, len(queries), 250):
        part = queries[start : start + 250]
        logits = part @ points.T
        logits -= half
        logits /= h**2
        top = logits.max(1, keepdims=True)
        logits -= top
        # float32 exponentials far below one are denormal, and slow by a factor of ten
        np.maximum(logits, -80, out=logits)
        np.exp(logits, out=logits)
        squares = 0.5 * (part**2).sum(1) / h**2
        result[start : start + 250] = np.log(logits.sum(1)) + top[:, 0] - squares
    return result - np.log(n) - 0.5 * d * np.log(2 * np.pi * h**2)


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def one(d, h, n, m):
    rng = np.random.default_rng(0)
    points, queries = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    small, small_points = queries.astype(np.float32), points.astype(np.float32)
    ours = EmpiricalScore(h, scaling="none").fit(points)
    peers = {tree: KernelDensity(bandwidth=h, algorithm=tree).fit(points) for tree in TREES}
    # in many columns a tree takes minutes: a twentieth of the queries says how many
    slow = d > 8
    part = queries[: len(queries) // 20] if slow else queries
    first = {tree: seconds(lambda t=tree: peers[t].score_samples(part)) for tree in TREES}
    first = {tree: value * len(queries) / len(part) for tree, value in first.items()}
    tree = min(first, key=first.get)
    runs = {
        "float64": lambda: ours.score_samples(queries),
        "float32": lambda: ours.model_.log_prob(small, 0.0),
        "floor64": lambda: floor(queries, points, h),
        "floor32": lambda: floor(small, small_points, h),
    }
    if not slow:
        runs["tree"] = lambda: peers[tree].score_samples(queries)
    found = interleaved(runs, 3)
    found.setdefault("tree", first[tree])
    some = slice(0, 30)
    truth = exact(queries[some], points, h)
    rounded = exact(small[some].astype(np.float64), points, h)
    error = {
        "float64": np.abs(ours.score_samples(queries[some]) - truth).max(),
        "float32": np.abs(ours.model_.log_prob(small[some], 0.0) - rounded).max(),
        "queries": np.abs(rounded - truth).max(),
        "result": np.spacing(np.abs(truth).max().astype(np.float32)) / 2,
        "tree": np.abs(peers[tree].score_samples(queries[some]) - truth).max(),
    }
    return {
        "columns": d,
        "bandwidth": f"{h:.3f}",
        "float64, s": f"{found['float64']:.3f}",
        "float32, s": f"{found['float32']:.3f}",
        "best tree, s": f"{found['tree']:.2f} ({tree})",
        "speed-up": f"x{found['tree'] / found['float64']:.0f} / "
        f"x{found['tree'] / found['float32']:.0f}",
        "over floor": f"{found['float64'] / found['floor64']:.2f} / "
        f"{found['float32'] / found['floor32']:.2f}",
        "error, nats": f"{error['float64']:.1g} / {error['float32']:.1g}",
        "rounding, queries / result": f"{error['queries']:.1g} / {error['result']:.1g}",
        "tree's error": f"{error['tree']:.2g}",
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the points")
    quick = parser.parse_args().quick
    n, m = (5_000, 500) if quick else (50_000, 2_000)
    scott = {d: n ** (-1 / (d + 4)) for d in (2, 8)}
    rows = [one(d, h, n, m) for d, h in [(2, scott[2]), (8, scott[8]), (64, 0.5), (784, 0.5)]]
    text = (
        f"{n:,} points, {m:,} queries. Pairs are float64 / float32.\n\n"
        + table(rows, list(rows[0]))
        + "\n\n"
        + " ".join(__doc__.split("\n\n")[1].split())
    )
    write("kernels_quick" if quick else "kernels", "Kernel densities beside scikit-learn", text)


if __name__ == "__main__":
    main()
