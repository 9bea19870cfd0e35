"""Is a network with default parameters a good density? Beside mixtures and normalizing flows.

A quarter of the rows is held out. NeuralScore() sees raw rows and has no parameter set but its
seed, and adds to a mixture; without one, it has parameterization="gaussian". GMMScore chooses its
number of components on held-out rows, and is one mixture or the average of five. zuko's MAF and
NSF (three transforms of two layers of 64 units, as in its tutorial) train by Adam at 1e-3 on
batches of 256 standardised rows, keep a tenth of them for their weights of best validation
likelihood, and have as much processor time as NeuralScore took, or stop when half of their steps
(and there were 2000) brought nothing better. Log-densities are nats per held-out row in the units
of the data: of NeuralScore along the flow, with the mean of its integration errors, and the
denoising bound with the standard error of its noise. C2ST (0.5 is perfect) is the mean over twenty
samples of as many rows as are held out, the sliced Wasserstein distance that of all twenty
together; training rows stand for a perfect sample.

A table takes minutes: --keep names a file of what is finished, from which a later run goes on.

    pip install zuko
    OMP_NUM_THREADS=1 python benchmarks/neural_density.py [--data FOLDER] [--tables NAME ...]
"""

import argparse
import copy
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import zuko
from _report import Finished, table, write
from density_tables import prepared
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skdiffusion import GMMScore, NeuralScore
from skdiffusion.datasets import load_image_patches, make_gaussian_mixture, make_moons
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.metrics import c2st, sliced_wasserstein

ROWS, MIN_STEPS = 2000, 2000
SCORED = {2: 500, 16: 300, 64: 60}
"""Held-out rows whose density is taken along the flow, by the number of columns."""
DRAWS = 20
"""Samples of as many rows as are held out."""


def tables(folder):
    """Name and raw rows, the exact law too where there is one."""
    yield "two moons", *make_moons(ROWS, noise=0.08, random_state=0)
    yield "8 Gaussians", *make_gaussian_mixture(ROWS, random_state=0)
    digits = load_digits().data
    yield "digits", digits + np.random.default_rng(0).uniform(size=digits.shape), None
    yield "patches 4 x 4", load_image_patches(ROWS, size=4, remove_mean=True, random_state=0), None
    if folder is not None:
        with np.load(folder / "tabular" / "california.npz") as stored:
            yield "california", prepared(stored["X"].astype(np.float64), ROWS), None
    yield "wine", prepared(load_wine().data, ROWS), None


class Flow:
    """A flow of zuko, of rows or of rows given codes, trained for some seconds of the processor."""

    def __init__(self, kind, seconds):
        self.kind, self.seconds = kind, seconds

    def fit(self, X, codes=None):
        self.scaler = StandardScaler().fit(X)
        self.n_codes = 0 if codes is None else codes.shape[1]
        rows = self._seen(X, codes)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows = rows[torch.randperm(len(rows))]
            held, rows = rows[: len(rows) // 10], rows[len(rows) // 10 :]
            sizes = {"transforms": 3, "hidden_features": (64, 64)}
            self.flow = self.kind(X.shape[1], context=self.n_codes, **sizes)
            self._train(rows, held)
        return self

    def _seen(self, X, codes):
        rows = self.scaler.transform(X)
        rows = rows if codes is None else np.concatenate([rows, codes], axis=1)
        return torch.as_tensor(rows, dtype=torch.float32)

    def _law(self, codes):
        return self.flow(codes if self.n_codes else None)

    def _log_prob(self, rows):
        d = rows.shape[1] - self.n_codes
        return self._law(rows[:, d:]).log_prob(rows[:, :d])

    def _train(self, rows, held):
        optimizer = torch.optim.Adam(self.flow.parameters(), lr=1e-3)
        start, best, at, step = time.process_time(), -np.inf, 0, 0
        while time.process_time() - start < self.seconds and step <= max(MIN_STEPS, 2 * at):
            for batch in rows[torch.randperm(len(rows))].split(256):
                loss = -self._log_prob(batch).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % 20:
                    continue
                with torch.no_grad():
                    value = self._log_prob(held).mean().item()
                if value > best:
                    best, at, kept = value, step, copy.deepcopy(self.flow.state_dict())
        self.flow.load_state_dict(kept)

    def score_samples(self, X, codes=None):
        with torch.no_grad():
            found = self._log_prob(self._seen(X, codes)).numpy().astype(np.float64)
        return found - np.log(self.scaler.scale_).sum()

    def sample(self, n_samples, codes=None, random_state=0):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(random_state)
            if codes is None:
                rows = self._law(None).sample((n_samples,))
            else:
                rows = self._law(torch.as_tensor(codes, dtype=torch.float32)).sample(())
            rows = rows.numpy().astype(np.float64)
        return self.scaler.inverse_transform(rows)


def fitted(est, train):
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est.fit(train)
    return est, time.process_time() - start


def one_row(name, method, X, law, seconds):
    """What the table says of one method; ``seconds`` is what NeuralScore took."""
    train, test = train_test_split(X, test_size=0.25, random_state=0)
    scored = test[: next(n for d, n in SCORED.items() if X.shape[1] <= d)]
    row = {"table": f"{name} ({X.shape[0]} x {X.shape[1]})", "method": method}
    if method == "training rows":
        draws = [
            train[np.random.default_rng(k).permutation(len(train))[: len(test)]]
            for k in range(DRAWS)
        ]
        if law is not None:
            row["truth"] = float(law.log_prob(scored, 0.002 * X.std()).mean())
    else:
        est, row["seconds"] = fitted(METHODS[method](seconds), train)
        draws = np.split(est.sample(DRAWS * len(test), random_state=0), DRAWS)
        if method in NETWORKS:
            row.update(own_density(est, scored))
        else:
            row["log-density"] = float(est.score_samples(scored).mean())
    row["C2ST"] = np.mean([c2st(test, drawn, random_state=0) for drawn in draws])
    # of all at once: that of one sample is for the most part its own noise
    row["sliced Wasserstein"] = sliced_wasserstein(test, np.concatenate(draws), random_state=0)
    return row


def own_density(est, rows, y=None):
    """NeuralScore's log-density and bound with their errors."""
    levels = est.sigma_min_, est.sigma_max_
    flow = flow_log_prob(est.model_, rows, est.far_field_, *levels, y=y, tol=1e-4)
    bound = est.denoising_bound(rows, y)
    return {
        "log-density": float(flow.log_prob.mean()),
        "error": float(flow.error.mean()),
        "bound": bound.score,
        "bound_error": bound.score_std_error,
        "steps": est.n_steps_,
    }


NETWORKS = ("NeuralScore", "NeuralScore without a mixture")
METHODS = {
    "NeuralScore": lambda seconds: NeuralScore(random_state=0),
    "NeuralScore without a mixture": lambda seconds: NeuralScore(
        parameterization="gaussian", random_state=0
    ),
    "GMMScore": lambda seconds: GMMScore("held_out", random_state=0),
    "GMMScore, average of 5": lambda seconds: GMMScore("held_out", n_averaged=5, random_state=0),
    "zuko MAF": lambda seconds: Flow(zuko.flows.MAF, seconds),
    "zuko NSF": lambda seconds: Flow(zuko.flows.NSF, seconds),
    "training rows": None,
}


def report(results):
    shown, gains, wins, missing = [], {n: {} for n in NETWORKS}, {n: [] for n in NETWORKS}, []
    for name, rows in results.items():
        if len(rows) < len(METHODS):
            missing.append(name)
            continue
        mixture = rows["GMMScore"]
        flows = [rows["zuko MAF"]["log-density"], rows["zuko NSF"]["log-density"]]
        for network in NETWORKS:
            own = rows[network]
            gains[network][name] = own["log-density"] - max(flows)
            closer = [own[m] < mixture[m] for m in ("C2ST", "sliced Wasserstein")]
            wins[network].append([*closer, own["log-density"] > mixture["log-density"]])
        for method in METHODS:
            row = rows[method]
            cell = f"{row['log-density']:.3f}" if "log-density" in row else ""
            if "error" in row:
                cell += f" ± {row['error']:.3f}"
            if "truth" in row:
                cell = f"(the law's own: {row['truth']:.3f})"
            bound = f"{row['bound']:.3f} ± {row['bound_error']:.3f}" if "bound" in row else ""
            shown.append(
                {
                    "table": row["table"],
                    "method": row["method"],
                    "log-density": cell,
                    "bound": bound,
                    "C2ST": f"{row['C2ST']:.3f}",
                    "sliced Wasserstein": f"{row['sliced Wasserstein']:.3g}",
                    "CPU s": f"{row['seconds']:.0f}" if "seconds" in row else "",
                    "CPU ms per step": f"{1e3 * row['seconds'] / row['steps']:.1f}"
                    if "steps" in row
                    else "",
                }
            )
    text = table(shown, list(shown[0]))
    text += "\n\n" + "\n".join(_verdict(n, gains[n], np.sum(wins[n], axis=0)) for n in NETWORKS)
    text += (
        f"\n\nNot finished: {', '.join(missing) or 'none'}. One split; the flow's "
        "log-density of at most "
        + ", ".join(f"{n} rows up to d = {d}" for d, n in SCORED.items())
        + "; CPU per step of NeuralScore includes its validation.\n\n"
        + " ".join(__doc__.split("\n\n")[1].split())
    )
    write(
        "neural_density",
        "Networks with defaults as densities",
        text,
        ("numpy", "scikit-learn", "torch", "skorch", "zuko"),
    )


def _verdict(network, gains, wins):
    listed = ", ".join(f"{name} {gain:+.2f}" for name, gain in gains.items())
    better = sum(gain > 0 for gain in gains.values())
    return (
        f"- {network}: log-density better than the better flow's on {better} of {len(gains)} "
        f"tables (difference in nats: {listed}); better than the chosen mixture in log-density on "
        f"{wins[2]}, in C2ST on {wins[0]}, in sliced Wasserstein distance on {wins[1]}."
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=os.environ.get("SKDIFFUSION_DATA"))
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Finished(options.keep)
    folder = None if options.data is None else Path(options.data)
    for name, X, law in tables(folder):
        rows = results.setdefault(name, {})
        for method in options.methods:
            if method in rows or (options.tables is not None and name not in options.tables):
                continue
            seconds = rows["NeuralScore"]["seconds"] if "NeuralScore" in rows else None
            rows[method] = one_row(name, method, X, law, seconds)
            print(rows[method], flush=True)
            results.save()
    if any(len(rows) == len(METHODS) for rows in results.values()):
        report(results)


if __name__ == "__main__":
    main()
