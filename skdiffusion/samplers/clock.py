r"""What a sampler believes the noise level to be.

A sampler moves points from level :math:`s` to :math:`s'`. On the **schedule's** clock it takes for
granted that they have the noise of the level. A model without noise conditioning answers for the
noise that it sees instead, and where the two differ the difference stays: noise is left behind.
On an **estimated** clock every step first asks for the level :math:`\hat s(x)` of each row and goes
from there by the same ratio,

.. math:: \hat s \;\to\; \hat s\, s'/s ,

so that no error of the past is carried on. A row whose level stays above that of the schedule,
between two modes for instance, would not be down at the last level :math:`s_0`: it takes the share
of its own way that the step is of the schedule's, if that is further,

.. math:: \hat s \;\to\; \hat s\, (s_0/\hat s)^{\log(s'/s) / \log(s_0/s)} .

Estimators that are told the level of the schedule, and answer near it, arrive with it anyway.
Models that know what their field believes read the level off the point of the path at which the
field is asked (:meth:`~skdiffusion.models.BlindModel.at_own_level`): near the data any posterior
will do, but where the signal is small those of :math:`u` and of :math:`x` differ by its power.

**Without** a clock the model is never told a level. The
points stay on the path of the field, :math:`u = \alpha x_0 + \sigma\varepsilon`, and move towards
the data that it predicts,

.. math:: u' = u + (1 - s'/s)\,(D(u) - u), \qquad \hat s = |D(u) - u| / \sqrt d ,

gradient descent in equilibrium matching (Wang and Du 2025), with momentum by
:class:`~skdiffusion.samplers.NesterovSampler`, and with a sampler that adds noise the algorithm of
Kadkhodaie and Simoncelli (2020).
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from skdiffusion.models import BaseScoreModel, BlindModel
from skdiffusion.samplers.base import is_zero
from skdiffusion.utils.arrays import like, to_numpy
from skdiffusion.utils.warning import warn_user

__all__ = ["Clock", "ClockFreeModel", "set_clock"]

CLOCK_FREE_TARGETS = ("data", "equilibrium")


class Clock:
    """Reads noise levels off points.

    Parameters
    ----------
    read : callable
        Levels ``(n,)`` of NumPy points ``(n, d)``. If it has a parameter ``near``, that is the
        level of the schedule, ``(n,)``: what the sampler would believe without a clock. If it has
        one ``believed``, that is the level at which the last step left the points, ``(n,)``, and
        the answer is a pair: the points as those of their own levels, and these.
    sigma_range : tuple of float
        Levels at which the model may be asked.
    arrives : bool
        Whether rows that are behind the schedule catch up until its last level.
    """

    def __init__(self, read: Any, sigma_range: tuple[float, float], arrives: bool = True):
        self.read = read
        asks = inspect.signature(read).parameters
        self.knows_near, self.knows_believed = "near" in asks, "believed" in asks
        self.low = max(sigma_range[0], np.finfo(float).tiny ** 0.5)
        self.high = sigma_range[1]
        self.arrives = arrives and not self.knows_near  # near the schedule they arrive with it

    def __call__(
        self, x: Any, believed: Any, level: Any, next_level: Any, end: Any
    ) -> tuple[Any, Any, Any]:
        """Points and levels of a step; ``end`` is the last level of the schedule above zero."""
        points = to_numpy(x)
        if self.knows_believed:
            points, seen = self.read(points, believed=_of_each(believed, points))
            x = like(points, x)
        elif self.knows_near:
            seen = self.read(points, near=_of_each(level, points))
        else:
            seen = self.read(points)
        seen = np.clip(seen, self.low, self.high)[:, None]
        if is_zero(next_level):
            return x, like(seen, x), 0.0
        ratio = to_numpy(next_level) / to_numpy(level)
        if self.arrives:
            ratio = _ratio_to_arrive(seen, ratio, to_numpy(end) / to_numpy(level), to_numpy(end))
        # the next level is one at which samplers of higher order ask
        return x, like(seen, x), like(np.clip(seen * ratio, self.low, self.high), x)


def _of_each(level, points):
    """A level per row."""
    return np.broadcast_to(np.ravel(to_numpy(level)), len(points))


def _ratio_to_arrive(seen, ratio, whole, end):
    """The ratio of the schedule's step, or the same share of a row's own way, if that is further.

    ``whole`` is the ratio of all that is left of the schedule.
    """
    share = np.log(ratio) / np.where(whole == 1, np.inf, np.log(whole))
    own = (end / seen) ** share
    return np.where(ratio < 1, np.minimum(ratio, own), np.maximum(ratio, own))


class ClockFreeModel(BaseScoreModel):
    """A blind field on its own path, whatever level it is asked at.

    Parameters
    ----------
    model : BlindModel
        That predicts data.
    """

    is_differentiable = False

    def __init__(self, model: BlindModel):
        self.model = model
        self.n_features = model.n_features

    def _denoise(self, x, sigma):
        inner = self.model
        u = (to_numpy(x) - inner.shift) / inner.scale
        field = inner.field(u)
        data = field if inner.target == "data" else u - field
        return like(inner.shift + inner.scale * data, x)

    def noise_level(self, x):
        """Distance from the data that are predicted, per column."""
        return np.linalg.norm(self._denoise(x, None) - x, axis=1) / np.sqrt(self.n_features)

    def enter(self, x: Any, level: Any):
        """The point of the path that a point at a noise level is, in the units of ``x``."""
        u = self.model.path_point(to_numpy(x), to_numpy(level))
        return like(self.model.shift + self.model.scale * u, x)


def set_clock(sampler: Any, model: Any):
    """The model and the clock that a sampler works with.

    Parameters
    ----------
    sampler : BaseSampler
    model : BaseScoreModel

    Returns
    -------
    model : BaseScoreModel
        A :class:`ClockFreeModel` for a sampler without a clock: points enter its path first.
    clock : Clock or None
        ``None`` is the schedule's: also where nothing hangs on the level.

    Raises
    ------
    ValueError
        If the clock is unknown, or the model has nothing to read it from.

    Warns
    -----
    UserWarning
        If a model that is not told the level predicts noise for a sampler without noise on the
        schedule's clock.
    """
    clock = sampler.clock
    own = getattr(model, "noise_level", None)
    if getattr(model, "path_level", None) is not None:
        own = model.at_own_level
    if clock is None:
        if getattr(model, "target", None) not in CLOCK_FREE_TARGETS:
            raise ValueError(
                "clock=None needs a blind model that predicts 'data' or 'equilibrium', such as "
                f"BlindScore(target='data'); got {type(model).__name__}."
            )
        model = ClockFreeModel(model)
        reads = None
        if sampler.needs_level:  # the residual says what to draw; how far to go, the schedule
            reads = Clock(model.noise_level, model.sigma_range, arrives=False)
        return model, reads
    if hasattr(clock, "predict_noise_level"):
        return model, Clock(clock.predict_noise_level, model.sigma_range)
    if not isinstance(clock, str) or clock not in ("auto", "schedule", "estimated"):
        raise ValueError(
            "clock must be 'auto', 'schedule', 'estimated', None or a fitted NoiseLevelEstimator; "
            f"got {clock!r}."
        )
    if clock == "estimated" and own is None:
        raise ValueError(
            f"{type(model).__name__} does not say which noise level a point has; give "
            "clock=NoiseLevelEstimator().fit(X)."
        )
    if clock != "schedule" and own is not None:
        return model, Clock(own, model.sigma_range)
    deterministic = not sampler.stochastic or getattr(sampler, "eta", 1) == 0
    if deterministic and model.blind_target == "noise":
        warn_user(
            "a model that is not told the noise level and predicts noise leaves noise behind where "
            "the sampler draws none and goes by the schedule; give the sampler "
            "clock=NoiseLevelEstimator().fit(X), or take sampler='ddpm' or the target 'data'.",
        )
    return model, None
