r"""Can a model that is not told the noise level be sampled from? Level by level.

With the flow :math:`du/dt = \mu u + \nu f(u)` of a target (:mod:`skdiffusion.targets`), what it
costs not to know the time at typical points of each level :math:`t` is

.. math:: \text{drift error} = |\nu(t)| \, |f^*(u) - f_t(u)|, \qquad
          \text{Jensen gap} = b(t)\, E[1/b \mid u] - 1, \qquad
          \text{desynchronisation} = \operatorname{median} \hat s(u) / s(t),

and what becomes of it at the data if the field does not react to where the points are,

.. math:: \text{amplification}(t) = \int_0^t e^{-\int_0^r \mu}\, |\nu(r)|\, dr ,

the last of which is the highest level itself for noise and one for velocities of the straight path.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted

from skdiffusion.geometry import MarginalEnergy, NoisePath
from skdiffusion.geometry.noise_prior import path_coefficients
from skdiffusion.inspection._axes import pair_of_axes
from skdiffusion.models import BlindModel, as_score_model
from skdiffusion.samplers import EulerSampler, run_sampler
from skdiffusion.schedules import check_schedule
from skdiffusion.targets import TARGETS, check_target, target_coefficients, target_gains
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_points, middle_of
from skdiffusion.utils.validation import check_count

__all__ = [
    "StabilityDisplay",
    "StabilityReport",
    "StabilityTable",
    "StabilityTableDisplay",
    "diagnose_stability",
    "stability_table",
]

QUIETEST, LOUDEST = 1e-3, 1e2
"""Levels between which a schedule is looked at, in units of the data."""
STYLES = "-", "--", ":", "-."
"""Of the lines: some targets have the same, and one must not hide the other."""
STEP = 1e-4
"""Distance over which the slope of a field is taken, in units of the level."""
SAME_UNIT = 0.5
"""Shares of a unit by which centres and units of few rows of one law may differ."""


@dataclass(frozen=True)
class StabilityTable:
    r"""How targets enter the flow of a schedule, from the data to the noise.

    Attributes
    ----------
    schedule : NoiseSchedule
    levels : ndarray of shape (n_levels,)
        Increasing noise levels ``b/a``.
    gain : dict of str to ndarray of shape (n_levels,)
        :math:`|\nu|` of each target: by how much an error of it moves the flow.
    amplification : dict of str to ndarray of shape (n_levels,)
        What an error of one, made from there on, comes to at the data.
    """

    schedule: Any
    levels: np.ndarray = field(repr=False)
    gain: dict = field(repr=False)
    amplification: dict = field(repr=False)

    def __str__(self):
        lines = [
            f"{self.schedule}, levels {self.levels[0]:.3g} to {self.levels[-1]:.3g}",
            f"{'target':<12} {'gain at low':>12} {'at high noise':>14} {'amplification':>14}",
        ]
        for name, gain in self.gain.items():
            total = self.amplification[name][-1]
            lines.append(f"{name:<12} {gain[0]:>12.3g} {gain[-1]:>14.3g} {total:>14.3g}")
        return "\n".join(lines)


@dataclass(frozen=True)
class StabilityReport:
    r"""What it costs a target not to be told the noise level; arrays by increasing level.

    Attributes
    ----------
    target : str
    levels : ndarray of shape (n_levels,)
        Noise levels in the units of the data.
    gain, amplification : ndarray of shape (n_levels,)
        As in :class:`StabilityTable`.
    error : ndarray of shape (n_levels,)
        Root mean square of the difference between the blind and the conditional field.
    drift_error : ndarray of shape (n_levels,)
        The same times the gain: how far the flow is off per unit of time.
    jensen_gap, jensen_gap_std : ndarray of shape (n_levels,)
        Mean and standard deviation of :math:`b\,E[1/b \mid u] - 1`; infinite where the mean of
        :math:`1/b` is.
    desynchronisation : ndarray of shape (n_levels,)
        Median of the level that points seem to have, over the one they have.
    path_desynchronisation : ndarray of shape (n_levels,)
        The same along the path of a sampler that goes by the schedule.
    bound : ndarray of shape (n_levels,)
        Bound on the final error that comes from the steps from the highest level down to this one
        (Sun et al. 2025), with slopes of the field as found along random directions.
    residual : float
        Median distance of such a sampler's points from the nearest row, in units of the median
        distance between nearest distinct rows.
    """

    target: str
    levels: np.ndarray = field(repr=False)
    gain: np.ndarray = field(repr=False)
    amplification: np.ndarray = field(repr=False)
    error: np.ndarray = field(repr=False)
    drift_error: np.ndarray = field(repr=False)
    jensen_gap: np.ndarray = field(repr=False)
    jensen_gap_std: np.ndarray = field(repr=False)
    desynchronisation: np.ndarray = field(repr=False)
    path_desynchronisation: np.ndarray = field(repr=False)
    bound: np.ndarray = field(repr=False)
    residual: float

    def __str__(self):
        shown = np.unique(np.linspace(0, len(self.levels) - 1, 8).astype(int))
        columns = ("levels", "gain", "error", "drift_error", "path_desynchronisation")
        lines = [
            f"blind {self.target}: samples end {self.residual:.3g} neighbour distances from rows",
            " ".join(f"{name:>12.12}" for name in columns),
        ]
        for k in shown:
            lines.append(" ".join(f"{getattr(self, name)[k]:>12.3g}" for name in columns))
        return "\n".join(lines)


def stability_table(schedule: Any, *, n_levels: int = 200) -> StabilityTable:
    """How all targets enter the flow of a schedule.

    Parameters
    ----------
    schedule : str or NoiseSchedule
    n_levels : int
        Levels from a thousandth to a hundred, or between those of the schedule.

    Returns
    -------
    StabilityTable

    Examples
    --------
    >>> from skdiffusion.inspection import stability_table
    >>> table = stability_table("flow_matching")
    >>> table.gain["velocity"].max(), round(table.amplification["noise"][-1])
    (np.float64(1.0), 80)
    """
    schedule = check_schedule(schedule)
    low, high = max(QUIETEST, schedule.sigma_min), min(LOUDEST, schedule.sigma_max)
    levels = np.geomspace(low, high, check_count(n_levels, "n_levels", 2))
    gains = {name: _gains(name, schedule, levels) for name in TARGETS}
    return StabilityTable(
        schedule,
        levels,
        {name: np.abs(found.sampler) for name, found in gains.items()},
        {name: _amplification(found, schedule, levels) for name, found in gains.items()},
    )


def diagnose_stability(
    model: MarginalEnergy,
    X: Any,
    *,
    target: str = "noise",
    field: Any = None,
    n_levels: int = 32,
    n_draws: int = 200,
    random_state: Any = 0,
) -> StabilityReport:
    """What it costs not to be told the noise level, at typical points of every level.

    Parameters
    ----------
    model : MarginalEnergy
        Fitted: it knows what a perfect network says, with and without the noise level.
    X : array-like of shape (n_samples, n_features)
        Clean rows.
    target : str
        What the blind field predicts; that of ``field`` where one is given.
    field : BlindScore or BlindModel, optional
        A trained field to look at, on the path of ``model``; by default the perfect one.
    n_levels : int
        Noise levels.
    n_draws : int
        Noised rows per level, and samples.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    StabilityReport

    Raises
    ------
    ValueError
        If all rows are the same, or ``field`` is on another path than ``model``, of another
        schedule or of rows in other units, or cannot tell the noise level of points.

    Examples
    --------
    >>> from skdiffusion import GaussianScore, MarginalEnergy
    >>> from skdiffusion.datasets import make_embedded_circles
    >>> from skdiffusion.inspection import diagnose_stability
    >>> X, law = make_embedded_circles(100, 8, random_state=0)
    >>> energy = MarginalEnergy(GaussianScore()).fit(X)
    >>> report = diagnose_stability(energy, X, target="data", n_levels=6, n_draws=20)
    >>> report.levels.shape, bool((report.error >= 0).all())
    ((6,), True)
    """
    if not isinstance(model, MarginalEnergy):
        raise TypeError(
            "a fitted MarginalEnergy is needed, which knows both fields; a trained one goes in as "
            f"field; got {type(model).__name__}."
        )
    check_is_fitted(model)
    X = check_points(X, model.n_features_in_, ensure_min_samples=2)
    if not np.ptp(X, axis=0).any():
        raise ValueError("X has no variance: all of its rows are the same.")
    blind = model.blind_model(check_target(target)) if field is None else as_score_model(field)
    if not isinstance(blind, BlindModel):
        raise TypeError(f"field must be a blind model; got {type(blind).__name__}.")
    target, schedule, scale = blind.target, model.schedule_, model.scale_
    path: NoisePath = model._path
    levels = _levels_of(path, check_count(n_levels, "n_levels", 2))
    _check_field(blind, model, levels)
    rng = as_generator(random_state)
    rows = X[rng.integers(len(X), size=check_count(n_draws, "n_draws", 2))]
    noise = rng.standard_normal(rows.shape)
    gains = _gains(target, schedule, levels)
    found = [
        _at_level(model, blind, level, rows, noise, target, rng.standard_normal(rows.shape))
        for level in levels
    ]
    error, slope, gap, gap_std, seen = np.array(found).T
    x = model.center_ + scale * levels[-1] * rng.standard_normal(rows.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it leaves noise is what we look at
        _, trajectory = run_sampler(
            EulerSampler(clock="schedule"),
            blind,
            x,
            [*(scale * levels[::-1]), 0.0],
            return_trajectory=True,
        )
    believed = [np.median(blind.noise_level(x)) for x in trajectory[:-1]][::-1]
    middle = middle_of(X)
    distinct = np.unique(X - middle, axis=0)
    neighbours = NearestNeighbors().fit(distinct)
    apart = np.median(neighbours.kneighbors(distinct, 2)[0][:, 1])
    residual = np.median(neighbours.kneighbors(trajectory[-1] - middle, 1)[0])
    return StabilityReport(
        target,
        scale * levels,
        np.abs(gains.sampler),
        _amplification(gains, schedule, levels),
        error,
        np.abs(gains.sampler) * error,
        gap,
        gap_std,
        seen / levels,
        np.array(believed) / (scale * levels),
        _bound(target, schedule, levels, error, slope),
        float(residual / apart),
    )


def _check_field(blind, model, levels):
    """Raise unless a field answers at the points of the model's path."""
    if blind.noise_level is None:
        raise ValueError("field must tell the noise level of points: give its model noise_level=.")
    schedules = blind.schedule, model.schedule_
    seen, own = (np.vstack(_flat_coefficients(s, levels)) for s in schedules)
    if not np.allclose(seen, own):
        raise ValueError(
            f"field is on the path of {schedules[0]} and model on that of {schedules[1]}: give "
            "both the same schedule."
        )
    apart = np.sqrt(np.mean((blind.shift - model.center_) ** 2)) / model.scale_
    if max(apart, abs(np.log(blind.scale / model.scale_))) > SAME_UNIT:
        raise ValueError(
            "field and model are of rows in other units: fit both to the same rows, and the "
            "MarginalEnergy with standardize=True if the field is of standardised rows."
        )


def _flat_coefficients(schedule, levels):
    alpha, sigma, rates = path_coefficients(schedule, np.log(levels))
    return alpha, sigma, *rates


def _levels_of(path, n):
    """Levels that the prior visits, within reach of the data's scale."""
    low = max(np.exp(path.support.low), QUIETEST)
    high = min(np.exp(path.support.high), LOUDEST)
    return np.geomspace(low * 1.01, high / 1.01, n)


def _at_level(model, blind, level, rows, noise, target, direction):
    """Error, slope, Jensen gap with its deviation, and the level that is believed, at one level."""
    schedule, path = model.schedule_, model._path
    alpha, sigma, rates = path_coefficients(schedule, np.array([np.log(level)]))
    z = (rows - model.center_) / model.scale_
    u = alpha * z + sigma * noise
    found = path.posterior(u)
    c, d = target_coefficients(target, alpha, sigma, rates)
    x = u / alpha
    told = c * path.model.denoise(x, level) + d * path.model.predict_noise(x, level)
    answer = blind.field(u)
    step = STEP * sigma * direction
    slope = np.linalg.norm(blind.field(u + step) - answer, axis=1) / np.linalg.norm(step, axis=1)
    error = np.sqrt(((answer - told) ** 2).sum(axis=1).mean())
    if path.dominated_by_ends(found, 1 / found.sigma).any():
        gap, gap_std = np.inf, np.inf
    else:
        gaps = sigma * found.mean(1 / found.sigma) - 1
        gap, gap_std = gaps.mean(), gaps.std()
    return error, slope.max(), gap, gap_std, np.median(np.exp(found.mean("log_level")))


def _gains(target, schedule, levels):
    return target_gains(target, *path_coefficients(schedule, np.log(levels)))


def _amplification(gains, schedule, levels):
    """Integral of the gain over time, as it arrives at the lowest level."""
    time = np.asarray(schedule.time_of(levels), dtype=float)
    growth = _cumulated(gains.drift, time)
    return _cumulated(np.exp(-growth) * np.abs(gains.sampler), time)


def _cumulated(values, at):
    steps = np.diff(at) * (values[1:] + values[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


def _bound(target, schedule, levels, error, slope):
    """Errors of all steps from the highest level down to each, grown by the steps that follow."""
    alpha, sigma, rates = path_coefficients(schedule, np.log(levels))
    c, d = (
        value * np.ones_like(levels) for value in target_coefficients(target, alpha, sigma, rates)
    )
    m = alpha * d - sigma * c
    # the step from level k + 1 to level k: u' = kappa u + eta f
    kappa = (alpha[:-1] * d[1:] - sigma[:-1] * c[1:]) / m[1:]
    eta = (sigma[:-1] * alpha[1:] - alpha[:-1] * sigma[1:]) / m[1:]
    growth = np.abs(kappa) + np.abs(eta) * slope[1:]
    factor = np.concatenate([[1.0], np.cumprod(growth)])  # from level k down to the lowest
    parts = factor[:-1] * np.abs(eta) * error[1:]
    return np.concatenate([np.cumsum(parts[::-1])[::-1], [0.0]])


class StabilityTableDisplay:
    """Gains and amplifications of all targets on a schedule.

    Parameters
    ----------
    table : StabilityTable

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, table: StabilityTable):
        self.table = table

    @classmethod
    def from_schedule(cls, schedule: Any, *, n_levels: int = 200, ax: Any = None):
        """Plot :func:`stability_table`; ``ax`` are two axes."""
        return cls(stability_table(schedule, n_levels=n_levels)).plot(ax)

    def plot(self, ax: Any = None):
        """Draw the table on two axes."""
        ax = pair_of_axes(ax, (9, 3.6))
        for name, style in zip(self.table.gain, itertools.cycle(STYLES)):
            options = {"label": name, "linestyle": style}
            ax[0].loglog(self.table.levels, self.table.gain[name], **options)
            ax[1].loglog(self.table.levels[1:], self.table.amplification[name][1:], **options)
        ax[0].set(xlabel="noise level", ylabel="gain of an error")
        ax[1].set(xlabel="noise level", ylabel="amplification up to there")
        ax[0].legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax[0].figure
        return self


class StabilityDisplay:
    """What it costs not to be told the noise level.

    Parameters
    ----------
    reports : list of StabilityReport

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, reports: list[StabilityReport]):
        self.reports = reports

    @classmethod
    def from_estimator(
        cls,
        model: MarginalEnergy,
        X: Any,
        *,
        targets: Any = ("noise", "data", "velocity"),
        ax: Any = None,
        **options,
    ):
        """Plot :func:`diagnose_stability` for several targets; ``ax`` are two axes."""
        return cls(
            [diagnose_stability(model, X, target=target, **options) for target in targets]
        ).plot(ax)

    def plot(self, ax: Any = None):
        """Draw the reports on two axes."""
        ax = pair_of_axes(ax, (9, 3.6))
        for report, style in zip(self.reports, itertools.cycle(STYLES)):
            options = {"label": report.target, "linestyle": style}
            ax[0].loglog(report.levels, report.drift_error, **options)
            ax[1].loglog(report.levels, report.path_desynchronisation, **options)
        ax[1].axhline(1.0, color="0.7", linewidth=1)
        ax[0].set(xlabel="noise level", ylabel="drift error")
        ax[1].set(xlabel="noise level of the schedule", ylabel="level believed, over it")
        ax[0].legend()
        self.ax_, self.figure_ = ax, ax[0].figure
        return self
