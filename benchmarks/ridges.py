"""How fast and how exactly are points brought to a ridge? RidgeProjector beside its peers.

Noisy rings and sines, 500 queries, one kernel density of given bandwidth, CPU seconds of one
thread; at 50,000 rows the peers, whose time is proportional to the queries, get every twentieth
query and their time is multiplied. RidgeProjector runs to 1e-7 bandwidths, sconce-scms to about
1e-6, crispy-learn likewise (it is float32 inside; at most 100 iterations, kernel cut at five
bandwidths as by default); dredge, which always starts from its own mesh of 50,000 points, is given
the queries and 15 sweeps of its own update, about what sconce-scms needs. The residual is the
length of the normal part of the mean shift where the points end, in bandwidths, by a few
independent lines of the script: zero on the ridge. crispy-learn 1.3.1 and dredge 1.0.0 add the
squared length of the gradient to every entry of the Hessian, where the outer product belongs: both
come to rest on another set. Peers that are not installed are left out.

In 10 to 784 columns, where the peers do not run: a noisy ring in random directions, and MNIST if
the data directory (SKDIFFUSION_DATA) has it. Memory is the growth of the process's peak while
100,000 queries are projected.

    python benchmarks/ridges.py [--quick] [--data FOLDER]
"""

import argparse
import contextlib
import gzip
import io
import os
import resource
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from _report import table, write

from skdiffusion import RidgeProjector
from skdiffusion.datasets import make_ring

PEERS = ("sconce-scms", "crispy-learn", "dredge")


def curve(name, n, rng):
    t = rng.uniform(0, 2 * np.pi, n)
    clean = [np.cos(t), np.sin(t)] if name == "ring" else [t, np.sin(2 * t)]
    return np.stack(clean, axis=1) + 0.1 * rng.standard_normal((n, 2))


def residual(points, data, h):
    """Normal part of the mean shift of a plane kernel density, in bandwidths."""
    found = np.empty(len(points))
    for i, y in enumerate(np.asarray(points, dtype=np.float64)):
        away = data - y
        weights = -0.5 * (away**2).sum(1) / h**2
        weights = np.exp(weights - weights.max())
        weights /= weights.sum()
        shift = weights @ away
        covariance = (weights[:, None] * (away - shift)).T @ (away - shift)
        normal = np.linalg.eigh(covariance)[1][:, 0]
        found[i] = abs(normal @ shift) / h
    return found


def sconce(data, queries, h):
    from sconce.EucSCMS import SCMSLog

    # its tolerance is for the gradient, the mean shift over h^2; its path holds every iteration
    return SCMSLog(queries, data, d=1, h=h, eps=1e-6 / h, max_iter=300)[:, :, -1]


def crispy(data, queries, h):
    from crispy.scms import find_ridge

    ends = find_ridge(
        data[:, :, None], queries[:, :, None].copy(), D=2, h=h, d=1, eps=1e-6, maxT=100,
        weights=np.ones(len(data)), converge_frac=100, ncpu=1,
    )  # fmt: skip
    return np.concatenate(ends)[:, :, 0]


def dredge(data, queries, h):
    from dredge.dredge import update_function

    points = queries.copy()
    for _ in range(15):
        for i in range(len(points)):
            points[i] += update_function(points[i], data, h)
    return points


def ours(data, queries, h):
    return RidgeProjector(bandwidth=h, tol=1e-7).fit(data).transform(queries)


def installed(peer):
    with contextlib.suppress(PackageNotFoundError):
        return version(peer)


def cpu_seconds(run):
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        result = run()
    return time.process_time() - start, result


def beside_peers(name, n, h, repeats):
    rng = np.random.default_rng(0)
    data = curve(name, n, rng)
    queries = curve(name, 500, rng)
    runs = {"ours": ours}
    for peer, run in zip(PEERS, (sconce, crispy, dredge), strict=True):
        if installed(peer):
            runs[peer] = run
    seconds, ends = {key: [] for key in runs}, {}
    few = queries[::20] if n > 10_000 else queries
    for _ in range(repeats):
        for key, run in runs.items():
            given = queries if key == "ours" else few
            spent, ends[key] = cpu_seconds(lambda run=run, given=given: run(data, given, h))
            seconds[key].append(spent * len(queries) / len(given))
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    rows = []
    for key in runs:
        left = residual(ends[key], data, h)
        rows.append(
            {
                "data": name,
                "n": f"{n:,}",
                "bandwidth": h,
                "method": key,
                "CPU s": f"{medians[key]:.3g}",
                "over ours": f"x{medians[key] / medians['ours']:.0f}" if key != "ours" else "",
                "residual, median / max": f"{np.median(left):.1g} / {left.max():.1g}",
                "at most 1e-5": f"{np.mean(left <= 1e-5):.1%}",
            }
        )
    return rows


def many_columns(d, n=1000, m=500, data=None, k=1, h=0.3):
    rng = np.random.default_rng(0)
    if data is None:
        rows = np.zeros((n + m, d))
        rows[:, :2] = make_ring(n + m, random_state=0)[0]
        rows += 0.1 / np.sqrt(d) * rng.standard_normal(rows.shape)
        rows = rows @ np.linalg.qr(rng.standard_normal((d, d)))[0]
        data, queries = rows[:n], rows[n:]
        name = "ring"
    else:
        data, queries = data[:n], data[n : n + m]
        name = "MNIST"
    ridge = RidgeProjector(k, bandwidth=h)
    fit = cpu_seconds(lambda: ridge.fit(data))[0]
    spent, found = cpu_seconds(lambda: ridge.diagnostics(queries))
    left = found.residual / ridge.bandwidth_
    good = found.on_ridge
    return {
        "data": name,
        "columns": data.shape[1],
        "n": f"{len(data):,}",
        "k": k,
        "level": f"{ridge.bandwidth_:.3g}",
        "route": ridge.ridge_.spaces.route,
        "fit, CPU s": f"{fit:.2f}",
        "queries": len(queries),
        "projection and flags, CPU s": f"{spent:.2f}",
        "steps, median / max": f"{np.median(found.n_iter):.0f} / {found.n_iter.max()}",
        "on the ridge": f"{good.mean():.1%}",
        "largest residual of these": f"{left[good].max(initial=0):.1g}",
        "undefined": f"{np.mean(~found.defined):.1%}",
    }


def memory(d, n, m):
    rng = np.random.default_rng(0)
    data = np.zeros((n + m, d))
    data[:, 0] = rng.uniform(-4, 4, n + m)
    data[:, 1] = np.sin(data[:, 0])
    data += 0.2 * rng.standard_normal(data.shape)
    ridge = RidgeProjector(bandwidth=0.3).fit(data[:1000])
    ridge.transform(data[:100])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ridge = RidgeProjector(bandwidth=0.3).fit(data[:n])
    spent, found = cpu_seconds(lambda: ridge.ridge_.project(data[n:]))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "columns": d,
        "rows": f"{n:,}",
        "queries": f"{m:,}",
        "CPU s": f"{spent:.1f}",
        "peak memory, MiB more": f"{(after - before) / 1024:.0f}",
        "converged": f"{found.converged.mean():.2%}",
        "largest residual": f"{(found.residual[found.converged] / 0.3).max():.1g}",
    }


def mnist(folder):
    path = Path(folder) / "mnist" / "train-images-idx3-ubyte.gz"
    if not path.exists():
        return None
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
    return pixels[: 4000 * 784].reshape(4000, 784) / 255.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the small cases only")
    parser.add_argument("--data", default=os.environ.get("SKDIFFUSION_DATA", ""))
    options = parser.parse_args()
    # memory first: a peak can only be seen to grow
    bounded = [memory(d, 5_000, 10_000 if options.quick else 100_000) for d in (2, 3)]
    cases = [("ring", 1000, 0.15, 3), ("sine", 1000, 0.15, 3), ("ring", 5000, 0.12, 1)]
    cases += [("sine", 5000, 0.12, 1), ("ring", 50_000, 0.08, 1), ("sine", 50_000, 0.08, 1)]
    rows = [row for case in cases[: 2 if options.quick else 6] for row in beside_peers(*case)]
    wide = [many_columns(d) for d in ((10, 100) if options.quick else (10, 100, 784))]
    images = mnist(options.data) if options.data else None
    if images is not None and not options.quick:
        wide.append(many_columns(784, n=3000, m=200, data=images, h="loo"))
    report(rows, wide, bounded, "ridges_quick" if options.quick else "ridges")


def report(rows, wide, bounded, name="ridges"):
    note = " ".join(" ".join(__doc__.split("\n\n")[1:3]).split())
    text = "\n\n".join(
        [
            "## Beside the peers", table(rows, list(rows[0])),
            "## Many columns", table(wide, list(wide[0])),
            "## Memory", table(bounded, list(bounded[0])),
            note,
        ]
    )  # fmt: skip
    packages = ("numpy", "scipy", "scikit-learn", *filter(installed, PEERS))
    write(name, "Ridges beside the peers", text, packages)


if __name__ == "__main__":
    main()
