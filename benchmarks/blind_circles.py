"""Two circles in many dimensions, sampled without telling the model the noise level.

    python benchmarks/blind_circles.py [columns ...]

Chosen numbers of columns are measured, and the others kept as they were last found.

Perfect blind fields, by quadrature over the noise level (no network), through the package's
samplers: on the schedule's clock, on an estimated one, and without a clock. Next to them stand the
numbers read off Figure 5 of Sahraee-Ardakan, Delbracio and Milanfar (2026), for trained networks,
and those of an independent computation with the same fields. A cell is the mean distance from the
nearest circle, the share of points further than 0.1 from it, the share on the inner circle and the
mean distance from the plane of the circles, which a picture of that plane does not show.

Fields are functions of two distances, and tabulated. At D columns they change over a sixteenth of
their argument (the square root of 2 D), wherever noise is about as large as it can be: the tables
have lines of their own there.
"""

import json
import sys
import warnings
from functools import partial

import numpy as np
from _report import RESULTS, table, write
from scipy.interpolate import RectBivariateSpline
from scipy.special import i0e, i1e

from skdiffusion.datasets import make_embedded_circles
from skdiffusion.geometry import MarginalEnergy, UniformPrior
from skdiffusion.geometry.noise_prior import path_coefficients
from skdiffusion.models import BaseScoreModel, BlindModel
from skdiffusion.samplers import DDPMSampler, EulerSampler, NesterovSampler, run_sampler
from skdiffusion.schedules import check_schedule
from skdiffusion.targets import target_coefficients

N, STEPS, DIMENSIONS = 1000, 100, (2, 8, 32, 128)
COLUMNS = [f"D = {d}" for d in DIMENSIONS]
FIRST = {"flow_matching": 0.999, "vp": 1.0}
LAST = 1e-3
TARGETS = ("velocity", "noise", "data")
RADII, WIDTH = np.array([[1.0], [0.5]]), 0.02
"""The circles, and the deviation of the noise in their plane."""
MISS, ROUNDS = 5e-3, 4
"""Error of a table between its lines, relative to one plus the value; halvings of a line."""

PAPER = {  # mean / share beyond 0.1, read off Figure 5
    "paper, flow matching": (".0913 / .417", ".0833 / .266", ".0613 / .170", ".0410 / .088"),
    "paper, DDPM": (".1441 / .608", ".0859 / .327", ".0413 / .107", ".0265 / .032"),
}
# name, path, target, sampler, clock, first time, number of steps, and what an independent
# computation with the same fields found: (mean, share) or None
RUNS = [
    ("straight path, velocity, Euler", "flow_matching", "velocity", EulerSampler, "schedule", 0.999,
     STEPS, [(0.0905, 0.413), (0.0813, 0.251), (0.0576, 0.138), (0.0402, 0.084)]),
    ("variance preserving, noise, ancestral", "vp", "noise", DDPMSampler, "schedule", 1.0, STEPS,
     [(0.1387, 0.581), (0.0893, 0.356), (0.0417, 0.126), (0.0203, 0.027)]),
    ("variance preserving, noise, DDIM", "vp", "noise", EulerSampler, "schedule", 1.0, STEPS,
     [(0.1612, 0.727), (0.0513, 0.208), (0.0454, 0.181), (0.0463, 0.194)]),
    ("straight path, noise, Euler from t = .99", "flow_matching", "noise", EulerSampler, "schedule",
     0.99, STEPS, [(0.0105, 0.015), (0.0680, 0.048), (0.0749, 0.066), (0.0953, 0.139)]),
    ("variance preserving, velocity, Euler", "vp", "velocity", EulerSampler, "schedule", 1.0, STEPS,
     [(0.1809, 0.537), (0.1195, 0.284), (0.1163, 0.266), (0.1121, 0.265)]),
    ("straight path, data, Euler", "flow_matching", "data", EulerSampler, "schedule", 0.999, STEPS,
     [(0.2840, 1.0), (0.0129, 0.001), (0.0135, 0.0), (0.0135, 0.0)]),
    ("variance preserving, data, Euler", "vp", "data", EulerSampler, "schedule", 1.0, STEPS,
     [(0.4638, 1.0), (0.0124, 0.003), (0.0118, 0.0), (0.0126, 0.003)]),
    ("straight path, data, no clock, 400 steps", "flow_matching", "data", EulerSampler, None,
     0.999, 400, None),
    *[
        (f"straight path, data, no clock, momentum {momentum}, 100 steps", "flow_matching", "data",
         partial(NesterovSampler, momentum=momentum), None, 0.999, STEPS, None)
        for momentum in (0.0, 0.3, 0.6)
    ],
    *[
        (f"{where}, {target}, estimated clock", schedule, target, EulerSampler, "estimated",
         min(FIRST[schedule], 0.99), STEPS, None)
        for where, schedule in (("straight path", "flow_matching"), ("variance preserving", "vp"))
        for target in TARGETS
    ],
]  # fmt: skip


# cells of the independent computation with what is known, or found here, to be different in it:
# run, columns, what is different, and how: points at the start of unit variance, the lowest time
# that fields know of, whether the last step is to the data, the number of steps
VARIANTS = [
    ("straight path, noise, Euler from t = .99", 128, "start of unit variance, not .99",
     {"unit": True}),
    ("straight path, noise, Euler from t = .99", 128, "400 steps", {"steps": 400}),
    ("variance preserving, velocity, Euler", 8, "times of the prior from .0001", {"t_min": 1e-4}),
    ("variance preserving, velocity, Euler", 8, "times from .0001, another start",
     {"t_min": 1e-4, "seed": 5}),
    ("variance preserving, velocity, Euler", 8, "400 steps", {"steps": 400}),
    ("variance preserving, velocity, Euler", 8, "400 steps, times from .0001",
     {"steps": 400, "t_min": 1e-4}),
    ("variance preserving, velocity, Euler", 128, "times of the prior from .0001",
     {"t_min": 1e-4}),
    ("straight path, data, Euler", 2, "left at t = .001, without the step to the data",
     {"last": False}),
    ("straight path, data, Euler", 2, "400 steps", {"steps": 400}),
]  # fmt: skip


class Reduced(BaseScoreModel):
    """The circles in their plane, and the distance from it that stands for D - 2 columns.

    The law of ``make_embedded_circles`` by SciPy's Bessel functions, which take a tenth of the time
    of those that have a gradient.
    """

    n_features = 3
    has_log_prob = True

    def __init__(self, d):
        self.missing = d - 2

    def _plane(self, x, sigma):
        """Distance from the axis and circles, spread, log-densities, and means of the circles."""
        rho, spread = np.linalg.norm(x[:, :2], axis=1), WIDTH**2 + sigma**2
        kappa = rho * RADII / spread
        bessel = i0e(kappa)
        log = np.log(bessel) - (rho - RADII) ** 2 / (2 * spread)
        return rho, spread, log, RADII * i1e(kappa) / bessel

    def _log_prob(self, x, sigma):
        sigma = np.broadcast_to(np.ravel(sigma), len(x))
        _, spread, log, _ = self._plane(x, sigma)
        away = -0.5 * (x[:, 2] / sigma) ** 2 if self.missing else 0.0
        plane = np.logaddexp(*log) - np.log(4 * np.pi * spread)
        return plane + away - self.missing * np.log(sigma * np.sqrt(2 * np.pi))

    def _denoise(self, x, sigma):
        sigma = np.broadcast_to(np.ravel(sigma), len(x))
        rho, spread, log, means = self._plane(x, sigma)
        share = np.exp(log - np.logaddexp(*log))
        mean = (share * means).sum(axis=0)
        mean = mean + WIDTH**2 / spread * (rho - mean)
        plane = x[:, :2] * (mean / np.maximum(rho, 1e-300))[:, None]
        return np.hstack([plane, 0 * x[:, 2:]])


class OfPlane(UniformPrior):
    """The uniform prior, with the volume of the columns that ``Reduced`` leaves out."""

    def __init__(self, missing, t_min=None, t_max=None):
        super().__init__(t_min, t_max)
        self.missing = missing

    def log_density(self, log_level, schedule):
        alpha = path_coefficients(schedule, log_level)[0]
        return super().log_density(log_level, schedule) - self.missing * np.log(alpha)


def radial(u, plane):
    inside = u @ plane
    away = u - inside @ plane.T
    return np.linalg.norm(inside, axis=1), np.linalg.norm(away, axis=1), inside, away


def tabulated(values, axes):
    """Cubic splines of functions of two arguments, on lines as close as they have to be.

    ``values`` are of points ``(n, 2)``, one column per function. Lines are put half way between
    others where the splines through those miss what is found there by more than ``MISS``.
    """
    axes, rough = list(axes), [np.ones(len(axis) - 1, dtype=bool) for axis in axes]
    table = values(_grid(*axes)).reshape(*map(len, axes), -1)
    for _ in range(ROUNDS):
        for k in (0, 1):
            if not rough[k].any():
                continue
            splines = [RectBivariateSpline(*axes, table[..., j]) for j in range(table.shape[-1])]
            lower = np.flatnonzero(rough[k])
            between = (axes[k][lower] + axes[k][lower + 1]) / 2
            lines = [between, axes[1]] if k == 0 else [axes[0], between]
            found = values(_grid(*lines)).reshape(*map(len, lines), -1)
            guess = np.stack([spline(*lines) for spline in splines], axis=-1)
            misses = (np.abs(found - guess) > MISS * (1 + np.abs(found))).any(axis=(1 - k, 2))
            # a line that was missed calls for others on both of its sides
            axes[k] = np.insert(axes[k], lower + 1, between)
            table = np.insert(table, lower + 1, found, axis=k)
            flags = np.zeros(len(axes[k]) - 1, dtype=bool)
            at = lower + np.arange(len(lower))
            flags[at] = flags[at + 1] = misses
            rough[k] = flags
    return [RectBivariateSpline(*axes, table[..., j]) for j in range(table.shape[-1])]


def _grid(first, second):
    return np.column_stack([g.ravel() for g in np.meshgrid(first, second, indexing="ij")])


class Fields:
    """Blind fields and noise levels, tabulated over the distances from the axis and the plane."""

    def __init__(self, d, schedule, t_min=None):
        self.schedule, self.d = check_schedule(schedule), d
        self.ends = np.array([[0.0, 6.0], np.log([1e-4, 25.0])])
        model = Reduced(d)
        self.times = {
            "t_min": t_min,
            "t_max": FIRST[schedule] + (schedule == "flow_matching") * 0.001,
        }
        self.made = MarginalEnergy(
            model,
            schedule=schedule,
            prior=OfPlane(d - 3, **self.times),
            standardize=False,
            n_nodes=64,
        ).fit(np.zeros((2, 3)))
        rho = np.r_[np.linspace(0, 0.3, 5), np.linspace(0.35, 1.15, 41), np.linspace(1.2, 6, 12)]
        away = np.linspace(*self.ends[1], 24 if d > 2 else 4)
        self.splines = tabulated(self.values, (rho, away))

    def values(self, at):
        """Fields of each target along both distances, and the logarithm of the level."""
        made, points = self.made, np.column_stack([at[:, 0], 0 * at[:, 0], np.exp(at[:, 1])])
        path, found = made._path, made._path.posterior(points)
        columns = []
        for target in TARGETS:
            pair = target_coefficients(target, found.alpha, found.sigma, found.rates)
            f = path.average(points, found, *(value + 0 * found.sigma for value in pair))
            columns += [f[:, 0], f[:, 2]]
        columns.append(np.log(made.blind_model("noise").path_level(points)))
        return np.column_stack(columns)

    def __call__(self, rho, away):
        at = np.column_stack([rho, np.log(np.maximum(away, 1e-12))])
        at = np.clip(at, *self.ends.T)
        return np.column_stack([spline(*at.T, grid=False) for spline in self.splines])

    def model(self, target, plane):
        first = 2 * TARGETS.index(target)

        def field(u):
            rho, away, inside, out = radial(u, plane)
            along, across = self(rho, away)[:, first : first + 2].T
            part = (along / np.maximum(rho, 1e-12))[:, None] * inside @ plane.T
            return part + (across / np.maximum(away, 1e-12))[:, None] * out

        def level(u):
            rho, away, _, _ = radial(u, plane)
            return np.exp(self(rho, away)[:, -1])

        return BlindModel(field, self.d, self.schedule, target, path_level=level)

    def misses(self, n=200):
        """Largest difference of noise and data fields from the law of the data set, untabulated."""
        rng, d = np.random.default_rng(3), self.d
        times = rng.uniform(0.01, self.times["t_max"] - 1e-3, n)[:, None]
        X, law, plane = make_embedded_circles(n, d, random_state=3, return_plane=True)
        u = self.schedule.alpha(times) * X
        u += self.schedule.sigma(times) * rng.standard_normal(X.shape)
        exact = MarginalEnergy(
            law, schedule=self.schedule, prior=UniformPrior(**self.times), standardize=False
        ).fit(X)
        return max(
            np.abs(exact.blind_field(u, target) - self.model(target, plane).field(u)).max()
            for target in ("noise", "data")
        )


def summary(x, plane):
    rho, away, _, _ = radial(x, plane)
    error = np.minimum(np.abs(rho - 1), np.abs(rho - 0.5))
    return [float(v.mean()) for v in (error, error > 0.1, rho < 0.75, away)]


def measured(d, runs=RUNS, variants=()):
    """Summaries of the data and of some runs in so many columns."""
    X, _, plane = make_embedded_circles(N, d, random_state=0, return_plane=True)
    found = {"the data": summary(X, plane)}
    fields = {}
    for run in runs:
        if run[1] not in fields:
            fields[run[1]] = Fields(d, run[1])
            found["table", run[1]] = fields[run[1]].misses()
        found[run[0]] = summary(sampled(run, fields[run[1]], plane), plane)
        print(d, run[0], cell(found[run[0]]), flush=True)
    for name, columns, what, how in variants:
        chosen = [run for run in runs if run[0] == name and columns == d]
        for run in chosen:
            own = fields[run[1]]
            if "t_min" in how:
                own = Fields(d, run[1], how["t_min"])
            found[name, what] = summary(sampled(run, own, plane, **how), plane)
            print(d, name, what, cell(found[name, what]), flush=True)
    return {name if isinstance(name, str) else ": ".join(name): v for name, v in found.items()}


def sampled(run, fields, plane, steps=None, unit=False, last=True, t_min=None, seed=1):
    """Samples of a run, or of one that is different in some way."""
    _, path, target, sampler, clock, first, n_steps, _ = run
    schedule, n_steps = check_schedule(path), steps or n_steps
    model = fields.model(target, plane)
    levels = schedule.noise_level(np.linspace(first, LAST, n_steps))
    if clock is None:  # gradient descent: equal steps of a twentieth
        levels = levels[0] * 0.95 ** np.arange(n_steps)
    elif clock == "estimated":  # each step by the same share of what there is
        levels = np.geomspace(levels[0], LAST, n_steps)
    start = np.random.default_rng(seed).standard_normal((N, fields.d))
    start *= 1 / schedule.alpha(first) if unit else levels[0]
    levels = [*levels, 0.0] if last else levels
    x = run_sampler(sampler(clock=clock), model, start, levels, random_state=2)
    return x if last else x * schedule.alpha(LAST)


def main(chosen):
    warnings.filterwarnings("ignore", "a model that is not told")  # it is what is measured
    kept = RESULTS / "blind_circles.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for d in chosen:
        found[str(d)] = measured(d, variants=VARIANTS)
        kept.write_text(json.dumps(found, indent=1))
    rows = [
        {"fields": name, **dict(zip(COLUMNS, cells, strict=True))} for name, cells in PAPER.items()
    ]
    rows += [
        {"fields": name, **{f"D = {d}": cell(found[str(d)][name]) for d in DIMENSIONS}}
        for name in ("the data", *(run[0] for run in RUNS))
    ]
    gaps = [
        (*np.abs(np.array(found[str(d)][run[0]][:2]) - run[-1][k]), run[0], d)
        for run in RUNS
        for k, d in enumerate(DIMENSIONS)
        if run[-1] is not None
    ]
    outside = [g for g in gaps if g[0] > 0.01 or g[1] > 0.05]
    named = [f"{g[2]} (D = {g[3]}: {g[0]:.3f}, {g[1]:.3f})" for g in outside]
    misses = max(v for d in DIMENSIONS for k, v in found[str(d)].items() if k[:6] == "table:")
    theirs = {run[0]: dict(zip(DIMENSIONS, run[-1], strict=True)) for run in RUNS if run[-1]}
    other = [
        {
            "run": name,
            "D": d,
            "independent": "{:.4f} / {:.3f}".format(*theirs[name][d]),
            "here": cell(found[str(d)][name]),
            "different": what,
            "then": cell(found[str(d)][f"{name}: {what}"]),
        }
        for name, d, what, _ in VARIANTS
    ]
    text = (
        table(rows, ["fields", *COLUMNS])
        + "\n\nCells: mean distance from the nearest circle / share beyond 0.1 / share on the "
        "inner circle / mean distance from the plane. Paper: the first two, trained networks. "
        f"{STEPS} steps unless the row says otherwise, {N} points.\n\n"
        f"Tables of fields differ from the fields themselves by {misses:.0e} at most (noise and "
        "data, at 200 points of the path).\n\n"
        f"Against an independent computation with the same fields ({len(gaps)} cells): mean and "
        f"share agree within .01 and .05 in {len(gaps) - len(outside)}. The others, with their "
        f"differences: {'; '.join(named) or 'none'}. What they differ by, one thing at a time:\n\n"
        + table(other, ["run", "D", "independent", "here", "different", "then"])
        + "\n\nPredictions of noise multiply what the start has too much or too little: it begins "
        "at level 99. On the variance-preserving path the velocity grows without bound towards the "
        "data where the prior reaches time zero, so that the outcome hangs on the steps; a lowest "
        "time bounds it. In two columns the data's step takes points the rest of the way to where "
        "they collapse."
    )
    write("blind_circles", "Two circles without noise conditioning", text)


def cell(found):
    return " / ".join(f"{value:.4f}" if k == 0 else f"{value:.3f}" for k, value in enumerate(found))


if __name__ == "__main__":
    main([int(d) for d in sys.argv[1:]] or DIMENSIONS)
