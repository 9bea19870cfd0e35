r"""Analytical teleportation: skip the far field by a closed-form flow.

At high noise every law looks like the Gaussian :math:`N(\mu, C + \sigma^2 I)` with its moments,
whose probability flow is known. A sampler may therefore jump from :math:`\sigma_{\max}` to a
hand-over level :math:`s` at no cost,

.. math:: x_s = \mu + \Big(\tfrac{C + s^2}{C + \sigma_{\max}^2}\Big)^{1/2} (x - \mu),

and spend all its steps below (Wang & Vastola 2024, section 5). What that costs is known to first
order: an error :math:`\delta = D - D_G` of the Gaussian's denoiser, met at level :math:`\sigma` on
the Gaussian's own path, arrives at the data as

.. math:: e = \int_s^{\sigma_{\max}} \Big(\tfrac{C}{C + \sigma^2}\Big)^{1/2}
          \delta(x_\sigma, \sigma)\, \frac{d\sigma}{\sigma},

since :math:`(C/(C+\sigma^2))^{1/2}` is the derivative of the flow from :math:`\sigma` to zero.
``level="auto"`` evaluates it on a few paths, from above, and hands over at the lowest level at
which nine paths in ten stay within a tolerance. Errors are heavy-tailed: a few points near a
watershed end in another cluster, and the median is much smaller than the quantile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from skdiffusion.flow import isotropic_view, under_noise_of
from skdiffusion.models import AffineModel, GaussianModel, as_score_model
from skdiffusion.models.wrapper import check_same_space
from skdiffusion.samplers.base import BoundModel, march
from skdiffusion.samplers.ode import RK4Sampler
from skdiffusion.utils.arrays import like, namespace
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.validation import as_numbers, check_count, check_number, lookup

__all__ = ["Jump", "Teleport", "TeleportReport", "plan_jump", "teleport_report"]

QUANTILE = 0.9
LEVELS_PER_DECADE = 12
"""Of the probed levels: the integrand varies over a factor of e, the rule is a trapezoid."""
FLOW_STEPS_PER_DECADE = 32
"""Runge-Kutta steps of a law without closed-form flow: they cost no evaluation of the model."""


class Teleport(Configurable):
    """How a sampler skips the far field.

    Parameters
    ----------
    level : "auto" or float
        Noise level of the hand-over, in the units of the data; ``"auto"`` is the lowest that
        keeps the tolerance.
    tol : float
        Largest expected error of nine rows in ten, as a root mean square over columns and a
        share of the data's scale. For ``level="auto"``.
    law : score model or fitted estimator, optional
        What carries the points: by default the Gaussian with the moments of the data. A mixture
        goes further down; its flow is integrated finely, which asks nothing of the model.
    start : {"flow", "draw"}
        ``"flow"`` maps starting points to the hand-over, so that the same noise gives the same
        row; ``"draw"`` draws afresh from the Gaussian at that level.
    n_probes : int
        Paths on which ``level="auto"`` asks the model, at a dozen levels or so each.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdiffusion import GMMScore
    >>> from skdiffusion.samplers import HeunSampler, Teleport
    >>> est = GMMScore(5, covariance_type="low_rank", random_state=0).fit(load_digits().data)
    >>> sampler = HeunSampler(teleport=Teleport(tol=0.05))
    >>> est.sample(2, sampler=sampler, n_steps=8, random_state=0).shape
    (2, 64)
    """

    def __init__(self, level="auto", *, tol=0.02, law=None, start="flow", n_probes=128):
        self.level = level
        self.tol = tol
        self.law = law
        self.start = start
        self.n_probes = n_probes

    def plan(self, model: Any, levels: Any, far_field: Any = None, *, y: Any = None) -> Jump | None:
        """Where to jump, and what is expected to be lost; ``None`` if no jump is safe.

        Parameters
        ----------
        model : BaseScoreModel
        levels : sequence of float
            Falling noise levels of the sampler; the last may be zero.
        far_field : GaussianModel, optional
            The Gaussian with the moments of the data; needed unless ``law`` is one.
        y : array, optional
            Labels: the model is probed with the first ``n_probes`` of them.

        Returns
        -------
        Jump or None
        """
        lookup(self.start, dict.fromkeys(("flow", "draw")), "start")
        law = far_field if self.law is None else as_score_model(self.law)
        gaussian = law if isinstance(law, GaussianModel) else far_field
        if gaussian is None or law is None:
            raise ValueError(
                "teleportation needs the Gaussian with the moments of the data: sample from an "
                "estimator, pass far_field=, or teleport=Teleport(law=GaussianScore().fit(X))."
            )
        if law.n_features != model.n_features:
            raise ValueError(
                f"the law of a teleport must have the model's {model.n_features} columns; "
                f"got {law.n_features}."
            )
        law = _under_noise_of(model, law)
        if self.start == "draw" and not law.has_flow:
            raise ValueError("start='draw' needs a Gaussian law; use start='flow'.")
        high, low = levels[0], min(level for level in levels if level > 0)
        if not (isinstance(self.level, str) and self.level == "auto"):
            level = check_number(self.level, "teleport", above=0)
            if not low <= level <= high:
                raise ValueError(
                    f"a hand-over must lie between the lowest and the first level, {low:g} and "
                    f"{high:g}; got {level:g}."
                )
            return Jump(law, self.start, level, respaced(levels, level), None)
        tol = check_number(self.tol, "tol", above=0)
        n_probes = check_count(self.n_probes, "n_probes", 2)
        found = []
        for probe in _probes(model, law, gaussian, high, low, n_probes, y):
            found.append(probe)
            if probe.quantile > tol:
                break
        report = TeleportReport(*map(np.array, zip(*found, strict=True)))
        level = max(report.level(tol), low)
        if level >= high:
            return None
        return Jump(law, self.start, level, respaced(levels, level), report)


class TeleportReport(NamedTuple):
    """Expected error of a jump to each of several noise levels.

    Errors are root mean squares over columns, as shares of the data's scale.

    Attributes
    ----------
    levels : ndarray of shape (n_levels,)
        Falling.
    median, quantile : ndarray of shape (n_levels,)
        Median and 90% quantile over paths.
    """

    levels: np.ndarray
    median: np.ndarray
    quantile: np.ndarray

    def level(self, tol: float) -> float:
        """Lowest level at which nine paths in ten stay within ``tol``; infinite if at none."""
        above = np.flatnonzero(self.quantile > tol)
        if len(above) == 0:
            return float(self.levels[-1])
        last = above[0]
        if last == 0:
            return float("inf")
        # the error grows like a power of the level: linear in the logarithms
        e0, e1 = np.log(np.maximum(self.quantile[last - 1 : last + 1], 1e-300))
        s0, s1 = np.log(self.levels[last - 1 : last + 1])
        return float(np.exp(s0 + (s1 - s0) * (np.log(tol) - e0) / (e1 - e0)))

    def error_at(self, level: float) -> tuple[float, float]:
        """Median and 90% quantile of the expected error of a jump to ``level``."""
        position = np.log(level)
        where = np.log(self.levels[::-1])
        return (
            float(np.interp(position, where, self.median[::-1])),
            float(np.interp(position, where, self.quantile[::-1])),
        )


class Jump:
    """A planned jump: called with points at the first level, it returns them at ``level``.

    Attributes
    ----------
    level : float
        Noise level of the hand-over.
    levels : list of float
        Levels of the sampler from there on: as many as before, spaced alike.
    report : TeleportReport or None
        What the plan rests on, for ``level="auto"``.
    """

    def __init__(self, law, start, level, levels, report):
        self.law, self.start, self.report = law, start, report
        self.level = level
        self.first, self.levels = levels[0], levels[1]

    def __call__(self, x: Any, noise: Any):
        """Points at the hand-over from points at the first level."""
        if self.start == "draw":
            codes = noise.normal(x) / (like(noise.scale, x) if np.ndim(noise.scale) else 1.0)
            return self.law.from_latent(codes, self.level)
        return _carry(self.law, x, self.first, self.level)

    def __str__(self):
        text = f"teleported from noise level {self.first:g} to {self.level:g}"
        if self.report is None:
            return text
        median, quantile = self.report.error_at(self.level)
        return (
            f"{text}; expected error of a row, as a share of the data's scale: "
            f"{median:.2%} (median), {quantile:.2%} (90% quantile)"
        )


def plan_jump(teleport: Any, model: Any, levels: Any, far_field: Any, *, y: Any = None):
    """The jump that a sampler's ``teleport`` asks for, or ``None``.

    Raises
    ------
    ValueError
        If ``teleport`` is not ``False``, ``"auto"``, a level or a :class:`Teleport`.
    """
    if teleport is False or teleport is None:
        return None
    if not isinstance(teleport, Teleport):
        if teleport is True or (isinstance(teleport, str) and teleport != "auto"):
            raise ValueError(
                "teleport must be False, 'auto', a noise level or a Teleport instance; "
                f"got {teleport!r}."
            )
        teleport = Teleport(teleport)
    if not all(isinstance(level, float) for level in levels):
        raise ValueError("teleportation needs the same noise levels for all rows.")
    return teleport.plan(model, levels, far_field, y=y)


def teleport_report(
    model: Any, far_field: Any = None, levels: Any = None, *, law: Any = None, n_probes: int = 256
) -> TeleportReport:
    """Expected error of a jump to every level: how far down the Gaussian carries.

    Parameters
    ----------
    model : score model or fitted estimator
    far_field : GaussianModel, optional
        The Gaussian with the moments of the data; an estimator's own by default.
    levels : pair of float, optional
        First and last noise level; an estimator's range by default.
    law : score model or fitted estimator, optional
        What carries the points; ``far_field`` by default.
    n_probes : int
        Number of paths.

    Returns
    -------
    TeleportReport

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GMMScore
    >>> est = GMMScore(3, random_state=0).fit(load_iris().data)
    >>> report = teleport_report(est)
    >>> bool((np.diff(report.quantile) > 0).all())  # further down costs more
    True
    """
    if far_field is None:
        far_field = getattr(model, "far_field_", None)
    if levels is None and hasattr(model, "sigma_max_"):
        levels = model.sigma_max_, model.sigma_min_
    if far_field is None or levels is None:
        raise ValueError("a model that is not a fitted estimator needs far_field= and levels=.")
    ends = as_numbers(levels)
    if ends.shape != (2,) or not 0 < ends.min() < ends.max() < np.inf:
        raise ValueError(f"levels must be two different noise levels above zero; got {levels!r}.")
    low, high = float(ends.min()), float(ends.max())
    n_probes = check_count(n_probes, "n_probes", 2)
    model = as_score_model(model)
    law = _under_noise_of(model, far_field if law is None else as_score_model(law))
    probes = _probes(model, law, far_field, high, low, n_probes)
    return TeleportReport(*map(np.array, zip(*probes, strict=True)))


class _Probe(NamedTuple):
    level: float
    median: float
    quantile: float


def _probes(model, law, gaussian, high, low, n_probes, y=None) -> Iterator[_Probe]:
    """Expected errors of jumps to falling levels, each at the cost of one evaluation per path."""
    n_levels = max(int(np.ceil(LEVELS_PER_DECADE * np.log10(high / low))), 1) + 1
    levels = np.geomspace(high, low, n_levels)
    if y is not None:
        y = np.asarray(y)[:n_probes]
        n_probes = len(y)
    # errors are measured where the noise is isotropic
    model, gaussian, scale = isotropic_view(model, gaussian)
    law = AffineModel(law, scale=1 / scale) if np.ndim(scale) else law
    x = gaussian.sample(n_probes, high, random_state=0)
    spectrum = gaussian.covariance
    scale = np.sqrt(spectrum.trace(lambda variance: variance, x))  # its d cancels the rms's
    arrived, last, last_level = 0.0, None, high
    for level in levels.tolist():
        x = _carry(law, x, last_level, level)
        delta = model.denoise(x, level, y=y) - law.denoise(x, level)
        felt = spectrum.apply(
            lambda variance, s=level: np.sqrt(variance / (variance + s**2)), delta
        )
        if last is not None:
            arrived = arrived + 0.5 * (felt + last) * np.log(last_level / level)
            errors = np.linalg.norm(arrived, axis=1) / scale
            yield _Probe(level, float(np.median(errors)), float(np.quantile(errors, QUANTILE)))
        last, last_level = felt, level


def _under_noise_of(model, law):
    """The law under the model's own noise, which may differ by column."""
    law = under_noise_of(model, law) if isinstance(law, GaussianModel) else law
    check_same_space([model, law])
    return law


def _carry(law, x, first, level):
    """Points of ``law`` at the first level, at ``level``: by its flow."""
    if law.has_flow:
        return law.flow(x, first, level)
    if first == level:
        return x
    n_steps = max(int(np.ceil(FLOW_STEPS_PER_DECADE * np.log10(first / level))), 1)
    path = np.geomspace(first, level, n_steps + 1).tolist()
    return march(RK4Sampler(), BoundModel(law, namespace(x).float64), x, path, None)


def respaced(levels: Any, level: float) -> tuple[float, list[float]]:
    """As many levels as before, from ``level`` on and spaced alike, behind the first level.

    The logarithm of the level is interpolated as a function of the fraction of steps taken.
    """
    positive = [s for s in levels if s > 0]
    tail = list(levels[len(positive) :])
    if len(positive) == 1 or level <= positive[-1]:
        return levels[0], [level, *tail]
    steps = np.arange(len(positive))
    logs = np.log(positive)
    curve = PchipInterpolator(steps, logs)
    # a level that is given several times counts where it is left, so that the step is unique
    rising, where = np.unique(logs[::-1], return_index=True)
    first = float(PchipInterpolator(rising, steps[::-1][where])(np.log(level)))
    spaced = np.exp(curve(np.linspace(first, steps[-1], len(steps))))
    return levels[0], [level, *spaced[1:-1].tolist(), positive[-1], *tail]
