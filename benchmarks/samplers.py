"""Are the samplers at least as accurate per model evaluation as azula's and diffusers'?

Laws: mixtures of 20 normal laws fitted to digits and to image patches (d = 64), whose denoiser is
exact. All start from the same points of N(mean, C + sigma_max^2 I), at the same level, and may
ask the model a given number of times. The referee is the exact flow (Runge-Kutta, 400 steps) from
the same points, and sliced Wasserstein distance to exact draws. The peers run at their best: every
sampler or scheduler, on every spacing of levels they offer, ending at the range's lowest level or
higher, in the units of the data and in units of its typical scale; for each number of evaluations
the five combinations with the smallest error on 100 points (of the thirty best with 8 and the
thirty best with 18) are run on 2,000 others, and the best is shown.

Needs the extra ``benchmarks``: pip install -e '.[benchmarks]'.
"""

import functools
import math
import sys
import warnings

import numpy as np
import torch
from _report import interleaved, table, write
from sklearn.datasets import load_digits

from skdiffusion import GMMScore
from skdiffusion.datasets import load_image_patches
from skdiffusion.samplers import (
    AdamsSampler,
    HeunSampler,
    RK4Sampler,
    Teleport,
    check_sampler,
    run_sampler,
)
from skdiffusion.schedules import EDMSchedule, FlowMatchingSchedule, VPSchedule

warnings.simplefilter("ignore")
torch.set_num_threads(1)
BUDGETS = (8, 12, 18, 35)
N_CHOICE, N_REFEREE, N_JUMP, N_PROJECTIONS = 100, 2000, 500, 200
SHORTLISTED_AT = (8, 18)
OF_SCALE = (0.0, 0.002, 0.02, 0.1)
"""Lowest levels that peers may end at instead of the range's, as shares of the typical scale."""


class Law:
    """A fitted mixture with its starting points, their exact ends, and exact draws."""

    def __init__(self, name, X, n_choice=N_CHOICE, n_referee=N_REFEREE):
        self.name, self.fitted = name, GMMScore(20, random_state=0).fit(X)
        self.model, self.far_field = self.fitted.model_, self.fitted.far_field_
        self.low, self.high = self.fitted.sigma_min_, self.fitted.sigma_max_
        self.scale = self.fitted.scale_
        n = n_choice + n_referee
        self.x = self.far_field.sample(n, self.high, random_state=1)
        fine = [*np.geomspace(self.high, self.low, 401), 0.0]
        self.exact = run_sampler(RK4Sampler(), self.model, self.x, fine)
        self.choice, self.referee = slice(0, n_choice), slice(n_choice, n)
        self.draws = self.model.sample(n_referee, random_state=2)
        self.floor = sliced_wasserstein(self.model.sample(n_referee, random_state=3), self.draws)

    def denoise(self, x, level):
        return self.model.denoise(x, level)

    def errors(self, result, rows):
        """Root mean square and median error of rows, as shares of the typical scale."""
        rows = np.sqrt(np.mean((result - self.exact[rows]) ** 2, axis=1)) / self.scale
        return np.sqrt(np.mean(rows**2)), np.median(rows)


def sliced_wasserstein(a, b):
    """W2 along random directions, root mean square, per unit of coordinate."""
    directions = np.random.default_rng(0).standard_normal((a.shape[1], N_PROJECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    gaps = np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)
    return float(np.sqrt(np.mean(gaps**2)))


# ---------------------------------------------------------------------- ours


def ours(law, x, n, sampler, levels=None):
    n_levels = (n + 1) // 2 if isinstance(sampler, HeunSampler) else n
    if levels is None:
        levels = law.fitted.noise_levels(n_levels)
    return run_sampler(sampler, law.model, x, [*levels, 0.0], far_field=law.far_field)


def karras(law, n_levels):
    return EDMSchedule().grid(n_levels, sigma_min=law.low, sigma_max=law.high)


# ---------------------------------------------------------------------- azula


def azula_choices(low, high):
    import azula.noise
    import azula.sample

    schedules = {
        "VE": azula.noise.VESchedule(low, high),
        "VP": azula.noise.VPSchedule((1 + high**2) ** -0.5, low),
        "cosine": azula.noise.CosineSchedule((1 + high**2) ** -0.5, low),
        "rectified": azula.noise.RectifiedSchedule(1 / high, low),
        "decay": azula.noise.DecaySchedule(1 / high, low),
    }
    samplers = {
        "DDIM": (azula.sample.DDIMSampler, {}, 1),
        "Heun": (azula.sample.HeunSampler, {}, 2),
    }
    for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
        for order in (2, 3, 4):
            cls = getattr(azula.sample, f"{kind}Sampler")
            samplers[f"{kind}-{order}"] = (cls, {"order": order}, 1)
    for schedule_name, schedule in schedules.items():
        for name, (cls, options, cost) in samplers.items():
            yield (
                f"{name}, {schedule_name}",
                functools.partial(azula_run, cls, options, cost, schedule),
            )


def azula_run(cls, options, cost, schedule, denoise, x, n):
    from azula.denoise import Denoiser, DiracPosterior

    class Exact(Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t, t):
            alpha, sigma = schedule(t)
            return DiracPosterior(mean=denoise(x_t / alpha, float(sigma / alpha)))

    sampler = cls(Exact(), steps=n // cost, silent=True, dtype=torch.float64, **options)
    alpha, _ = schedule(torch.tensor(1.0, dtype=torch.float64))
    return sampler(alpha * x)


# ---------------------------------------------------------------------- diffusers


def diffusers_choices(low, high):
    import diffusers

    vp = {"prediction_type": "sample", "timestep_spacing": "trailing"}
    schedulers = {"Euler": (diffusers.EulerDiscreteScheduler, vp, False)}
    schedulers["Heun"] = (diffusers.HeunDiscreteScheduler, vp, False)
    for order in (2, 3):
        vp = {"prediction_type": "sample", "solver_order": order}
        for name, cls in {
            "DPM-Solver++": diffusers.DPMSolverMultistepScheduler,
            "UniPC": diffusers.UniPCMultistepScheduler,
            "DEIS": diffusers.DEISMultistepScheduler,
        }.items():
            schedulers[f"{name}-{order}"] = (cls, vp, True)
        schedulers[f"UniPC-{order} (bh1)"] = (
            diffusers.UniPCMultistepScheduler,
            {**vp, "solver_type": "bh1"},
            True,
        )
    for name, (cls, options, is_vp) in schedulers.items():
        for spacing in ("karras", "exponential", "beta", "linear betas", "flow"):
            yield (
                f"{name}, {spacing}",
                functools.partial(diffusers_run, cls, options, is_vp, spacing, low, high),
            )


def diffusers_run(cls, options, is_vp, spacing, low, high, denoise, x, n):
    scheduler = cls(**options)
    heun, deis = (cls.__name__.startswith(kind) for kind in ("Heun", "DEIS"))
    n_levels = (n + 1) // 2 if heun else n
    if deis or options.get("solver_type") == "bh1":  # undefined at zero: they end at the last level
        levels = diffusers_levels(spacing, n_levels + 1, low, high)
    else:
        levels = np.append(diffusers_levels(spacing, n_levels, low, high), 0.0)
    scheduler.set_timesteps(n_levels)
    levels = torch.tensor(levels, dtype=torch.float64)
    if heun:
        levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    scheduler.sigmas = levels
    # names of the steps, no more
    scheduler.timesteps = torch.arange(len(levels) - 1, 0, -1, dtype=torch.float32)
    scheduler.set_begin_index(0)
    scheduler.num_inference_steps = len(levels) - 1
    scheduler.is_scale_input_called = True
    point = x / (1 + levels[0] ** 2) ** 0.5 if is_vp else x
    for k, timestep in enumerate(scheduler.timesteps):
        # the second stage of Heun's step is asked at the level it has gone to
        level = levels[k]
        alpha = (1 + level**2) ** -0.5 if is_vp else 1.0
        output = denoise(point / alpha, float(level))
        point = scheduler.step(output, timestep, point).prev_sample
    return point


def diffusers_levels(spacing, n, low, high):
    """Levels as the schedulers space them, by their own functions where they have them."""
    import diffusers

    scheduler = diffusers.UniPCMultistepScheduler()
    ends = torch.tensor([high, low], dtype=torch.float64)
    if spacing == "linear betas":
        return VPSchedule().grid(n, sigma_min=low, sigma_max=high)
    if spacing == "flow":
        return FlowMatchingSchedule().grid(n, sigma_min=low, sigma_max=high)
    convert = getattr(scheduler, f"_convert_to_{spacing}")
    return np.asarray(convert(in_sigmas=ends, num_inference_steps=n), dtype=np.float64)


# ---------------------------------------------------------------------- the comparison


SCALE_FREE = ("VE", "karras", "exponential", "beta")
"""Spacings that are the same in any unit."""


def peer_choices(law, library, ends):
    """All that a library offers, by name: functions of points and a number of evaluations."""
    for unit_name, unit in (("", 1.0), (", scaled", law.scale)):
        for share in ends:
            low = max(law.low, share * law.scale) / unit
            if share and low == law.low / unit:
                continue
            end = f", to {share:g}" if share else ""
            for name, run in library(low, law.high / unit):
                if unit == 1 or not name.endswith(SCALE_FREE):
                    yield name + end + unit_name, functools.partial(in_unit, run, law.denoise, unit)


def in_unit(run, denoise, unit, x, n):
    def scaled(points, level):
        return denoise(points * unit, level * unit) / unit

    return unit * run(scaled, x / unit, n)


def errors_of(law, choices, n):
    """Errors on the choosing points, smallest first."""
    x = torch.tensor(law.x[law.choice])
    found = []
    for name, run in choices:
        error = law.errors(run(x, n).numpy(), law.choice)[0]
        if math.isfinite(error):
            found.append((error, name, run))
    return sorted(found, key=lambda entry: entry[0])


def shortlist(law, library, ends, keep=30):
    """The best of a library in few evaluations and in many."""
    choices = list(peer_choices(law, library, ends))
    best = {}
    for n in SHORTLISTED_AT:
        best |= {name: run for _, name, run in errors_of(law, choices, n)[:keep]}
    return list(best.items())


def best_of(law, choices, n, keep=5):
    """The best on the other points, of the few with the smallest errors on the choosing ones."""
    x = torch.tensor(law.x[law.referee])
    measured = []
    for _, name, run in errors_of(law, choices, n)[:keep]:
        result = run(x, n).numpy()
        measured.append((*law.errors(result, law.referee), name, result))
    return min(measured, key=lambda entry: entry[0])


def accuracy(law):
    x = law.x[law.referee]
    rows = []

    def add(n, name, result):
        print(law.name, n, name, file=sys.stderr, flush=True)
        rmse, median = law.errors(result, law.referee)
        rows.append(
            {
                "evaluations": n,
                "sampler": name,
                "error": f"{rmse:.4f}",
                "median": f"{median:.4f}",
                "sliced W": f"{sliced_wasserstein(result, law.draws):.4f}",
            }
        )

    peers = {
        "azula": shortlist(law, azula_choices, OF_SCALE[:2]),
        "diffusers": shortlist(law, diffusers_choices, OF_SCALE),
    }
    exact = sliced_wasserstein(law.exact[law.referee], law.draws)
    for n in BUDGETS:
        add(n, "**adams, spectral levels**", ours(law, x, n, AdamsSampler()))
        for title, choices in peers.items():
            *_, name, result = best_of(law, choices, n)
            add(n, f"{title}: {name}", result)
        for name in ("unipc", "dpmpp_2m", "heun"):
            add(n, f"{name}, spectral levels", ours(law, x, n, check_sampler(name)))
        for name in ("unipc", "dpmpp_2m", "heun"):
            n_levels = (n + 1) // 2 if name == "heun" else n
            result = ours(law, x, n, check_sampler(name), karras(law, n_levels))
            add(n, f"{name}, Karras levels", result)
    columns = ["evaluations", "sampler", "error", "median", "sliced W"]
    return (
        f"## {law.name}\n\nNoise from {law.high:.3g} down to {law.low:.2g}, typical scale "
        f"{law.scale:.3g}. Errors are root mean squares over rows, and medians, of a row's error "
        f"as a share of the scale. Sliced Wasserstein of the exact flow {exact:.4f}, of other "
        f"exact draws {law.floor:.4f}.\n\n{table(rows, columns)}"
    )


def teleportation(law):
    """Evaluations needed to reach the error of EDM's Heun with 35."""
    rows_of = slice(law.referee.start, law.referee.start + N_JUMP)
    x = law.x[rows_of]
    aim = law.errors(ours(law, x, 35, HeunSampler(), karras(law, 18)), rows_of)[0]
    rows = []
    for name, make, cost, grid in (
        ("heun, Karras levels", HeunSampler, 2, lambda n: karras(law, (n + 1) // 2)),
        ("heun, spectral levels", HeunSampler, 2, lambda n: None),
        ("adams, spectral levels", AdamsSampler, 1, lambda n: None),
    ):
        for teleport in (False, Teleport(tol=0.005), Teleport(tol=0.02)):
            needed = "more than 35"
            for n in range(5, 36, cost):
                result = ours(law, x, n, make(teleport=teleport), grid(n))
                error = law.errors(result, rows_of)[0]
                if error <= aim:
                    needed = n
                    break
            row = {"sampler": name, "jump": "none", "level": "", "evaluations": needed}
            if teleport is not False:
                plan = teleport.plan(law.model, [law.high, law.low, 0.0], law.far_field)
                row["jump"] = f"tol {teleport.tol:g}"
                row["level"] = "none" if plan is None else f"{plan.level:.2g}"
            rows.append({**row, "error": f"{error:.4f}"})
    columns = ["sampler", "jump", "level", "evaluations", "error"]
    return f"{law.name}: Heun with 35 evaluations has error {aim:.4f}.\n\n{table(rows, columns)}"


def speed(law, n=18, n_rows=1000):
    x = torch.tensor(law.x[:n_rows])
    az = dict(azula_choices(law.low, law.high))
    df = dict(diffusers_choices(law.low, law.high))
    levels = law.fitted.noise_levels(n)

    def bare():
        point = x
        for level in levels.tolist():
            point = 0.5 * (point + law.denoise(point, level))

    runs = {
        "n evaluations alone": bare,
        "adams": lambda: ours(law, x, n, AdamsSampler()),
        "dpmpp_2m": lambda: ours(law, x, n, check_sampler("dpmpp_2m")),
        "azula xEAB-3": lambda: az["xEAB-3, rectified"](law.denoise, x, n),
        "azula vAB-3": lambda: az["vAB-3, rectified"](law.denoise, x, n),
        "diffusers DPM-Solver++-2": lambda: df["DPM-Solver++-2, flow"](law.denoise, x, n),
        "diffusers UniPC-3": lambda: df["UniPC-3, flow"](law.denoise, x, n),
    }
    seconds = interleaved(runs, 11)
    rows = [
        {
            "sampler": name,
            "ms per evaluation": f"{1e3 * s / n:.2f}",
            "relative": f"{s / seconds['n evaluations alone']:.3f}",
        }
        for name, s in seconds.items()
    ]
    return table(rows, ["sampler", "ms per evaluation", "relative"])


if __name__ == "__main__":
    small = "--quick" in sys.argv
    sizes = {"n_choice": 60, "n_referee": 200} if small else {}
    laws = [
        Law("Digits", load_digits().data / 8 - 1, **sizes),
        Law("Image patches", 2 * load_image_patches(20_000, size=8, random_state=0) - 1, **sizes),
    ]
    text = "\n\n".join(accuracy(law) for law in laws)
    jumps = "\n\n".join(teleportation(law) for law in laws)
    about = __doc__.split("\n\n")[1]
    write(
        "samplers",
        "Samplers beside azula's and diffusers'",
        f"{about}\n\n{text}\n\n## Teleportation\n\n{jumps}\n\n## Time\n\n"
        f"1,000 rows of the digits, 18 evaluations, torch in float64, medians of eleven "
        f"interleaved runs.\n\n{speed(laws[0])}",
        ("numpy", "torch", "azula", "diffusers"),
    )
