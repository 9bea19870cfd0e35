r"""What a sampler is: hyper-parameters, and one step from a noise level to the next.

Between levels :math:`s > s'` every sampler moves points of :math:`p_s` to points of
:math:`p_{s'}`. What it knows of the law is the denoiser :math:`D`; a step is some combination

.. math:: x' = a\,x + b\,D(x, s) + c\,z, \qquad z \sim N(0, I),

of the point, denoised points and noise. :func:`march` takes the steps of one batch;
:func:`~skdiffusion.samplers.run_sampler` does all around it. What a multistep method remembers
between steps is its ``state``, never a second loop.

The state of the points is float64 whatever the caller's dtype; the model is asked in the
caller's dtype, so that a float32 network stays one and rounding does not add up over steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from skdiffusion.models.jacobian import divergence
from skdiffusion.utils.arrays import by_place, is_torch, namespace, to_numpy
from skdiffusion.utils.params import Configurable

__all__ = [
    "BaseSampler",
    "BoundModel",
    "hyperparameters",
    "is_finite",
    "is_zero",
    "march",
    "named",
    "of_rows",
    "without_graph",
    "working_dtype",
]


def hyperparameters(cls: type) -> type:
    """Class decorator: the annotated fields, inherited ones included, are the constructor."""
    return dataclasses.dataclass(kw_only=True, repr=False, eq=False)(cls)


@hyperparameters
class BaseSampler(Configurable):
    """Base class of the samplers: hyper-parameters and one step.

    Subclasses decorated with :func:`hyperparameters` declare theirs as annotated fields; they
    are scikit-learn parameters: cloned, printed, searched (``sampler__teleport``).

    Parameters
    ----------
    teleport : False, "auto", float or Teleport
        Whether to skip the far field by a Gaussian's closed-form flow: not at all, down to the
        lowest level at which that is safe, down to a given level, or as a
        :class:`~skdiffusion.samplers.Teleport` says.
    clock : {"auto", "schedule", "estimated"}, None or NoiseLevelEstimator
        Which noise level points are taken to have (``skdiffusion.samplers.clock``): that of the
        schedule, what the model or a fitted estimator reads off them, or none at all. ``"auto"``
        is ``"estimated"`` for models without noise conditioning that can, else ``"schedule"``.

    Attributes
    ----------
    order : int
        Order of convergence in the step.
    stochastic : bool
        Whether steps draw noise: such samplers only go down.
    exponential : bool
        Whether a step is exact for a constant denoiser. Levels may then be far apart where the
        denoised point hardly changes; others need steps of moderate ratio everywhere.
    needs_level : bool
        Whether a step depends on its levels themselves, not only on their ratio. One that does not
        need ask no level of a model that is told none.
    """

    teleport: Any = False
    clock: Any = "auto"

    order = 1
    stochastic = False
    exponential = False
    needs_level = True

    def check(self) -> None:
        """Raise ``ValueError`` for hyper-parameters out of their range."""

    def prepare(self, model: BoundModel, x: Any, levels: list, noise: Any) -> tuple[Any, list]:
        """Points and levels to begin with, from those given; by default as they are.

        Levels are floats, or ``(n, 1)`` arrays like ``x`` with one level per row.
        """
        return x, levels

    def step(
        self, model: BoundModel, x: Any, level: Any, next_level: Any, state: Any, noise: Any
    ) -> tuple[Any, Any]:
        """Points at ``next_level`` from points at ``level``, and the new state.

        Parameters
        ----------
        model : BoundModel
            The field: ``denoise(x, level)``, ``score(x, level)``, ...
        x : array of shape (n, d)
        level, next_level : float or array of shape (n, 1)
            ``next_level`` is the float zero in the last step of a generation.
        state : object
            What the previous step returned; ``None`` in the first.
        noise : RowNoise
            ``noise.normal(x)`` are fresh standard normals like ``x``.
        """
        raise NotImplementedError


class BoundModel:
    """A score model as steps see it: labels bound, float64 outside, the caller's dtype inside.

    Parameters
    ----------
    model : BaseScoreModel
    dtype : dtype
        Floating dtype the model is asked in.
    y : array of shape (n,), optional
        Labels of the rows.
    far_field : GaussianModel, optional
        The law that the noised law tends to, where the caller knows it.
    """

    def __init__(self, model: Any, dtype: Any, y: Any = None, far_field: Any = None):
        self.model = model
        self.dtype = dtype
        self.far_field = far_field
        self._condition = {} if y is None else {"y": by_place(y)}

    def denoise(self, x, level):
        """Denoiser at points of a level."""
        return self._ask("denoise", x, level, **self._condition)

    def score(self, x, level):
        """Stein score at points of a level."""
        return self._ask("score", x, level, **self._condition)

    def log_prob(self, x, level):
        """Exact log-density at points of a level, where the model has one."""
        return self._ask("log_prob", x, level, **self._condition)

    def flow(self, x, level, next_level):
        """Closed-form flow, where the model has one."""
        return self._ask("flow", x, level, next_level)

    def divergence(self, x, level):
        """Trace of the denoiser's Jacobian at points of a level."""
        xp = namespace(x)
        point = xp.astype(x, self.dtype)
        trace = divergence(self.model, point, of_rows(level), of="denoise", **self._condition)
        return xp.astype(trace, x.dtype)

    def rows(self, index: Any) -> BoundModel:
        """The model of some of the rows only, by an array of their positions."""
        if not self._condition:
            return self
        y = self._condition["y"]
        y = y[index if is_torch(y) else to_numpy(index)]
        return BoundModel(self.model, self.dtype, y, self.far_field)

    def _ask(self, name, x, *levels, **condition):
        xp, dtype = namespace(x), x.dtype
        levels = [of_rows(level) for level in levels]
        if dtype == self.dtype:
            return getattr(self.model, name)(x, *levels, **condition)
        return xp.astype(
            getattr(self.model, name)(xp.astype(x, self.dtype), *levels, **condition), dtype
        )


def of_rows(level):
    """Levels as models take them: a number, or one per row of a flat array."""
    return level[:, 0] if getattr(level, "ndim", 0) == 2 else level


def march(
    sampler: BaseSampler,
    model: BoundModel,
    x: Any,
    levels: list,
    noise: Any,
    seen: Any = None,
    clock: Any = None,
):
    """Take a batch of points through all levels.

    Parameters
    ----------
    sampler : BaseSampler
    model : BoundModel
    x : array of shape (n, d)
    levels : list of float or array of shape (n, 1)
    noise : RowNoise
    seen : callable, optional
        Called as ``seen(step, level, x)`` after every step.
    clock : callable, optional
        What makes of points, the levels that they were left at and those of the schedule's step
        the points and levels of a step (:class:`~skdiffusion.samplers.clock.Clock`); by default
        they are those given.

    Returns
    -------
    array of shape (n, d)

    Raises
    ------
    FloatingPointError
        If a step produced a value that is not finite; it names the step and the level.
    """
    state, n_steps = None, len(levels) - 1
    believed = levels[0]
    end = next((level for level in reversed(levels) if not is_zero(level)), believed)
    with without_graph(x):
        for k, (level, next_level) in enumerate(itertools.pairwise(levels)):
            if clock is not None:  # levels that are read anew do not go on from remembered ones
                state, (x, level, next_level) = None, clock(x, believed, level, next_level, end)
                believed = next_level
            x, state = sampler.step(model, x, level, next_level, state, noise)
            if not is_finite(x):
                raise FloatingPointError(
                    f"step {k + 1} of {n_steps} of {type(sampler).__name__}, from noise level "
                    f"{named(level)} to {named(next_level)}, produced values that are not finite."
                )
            if seen is not None:
                seen(k, next_level, x)
    return x


def is_finite(x):
    """Whether all values are: if their sum is, which is one pass, and else one by one."""
    xp = namespace(x)
    return math.isfinite(x.sum().item()) or bool(xp.all(xp.isfinite(x)))


def is_zero(level: Any) -> bool:
    """Whether this is the last level of a generation."""
    return isinstance(level, float) and level == 0


def named(level: Any) -> str:
    """A level for a message."""
    if isinstance(level, float):
        return f"{level:g}"
    return f"{float(level.min()):g}..{float(level.max()):g}"


def without_graph(x):
    """No autograd graph for torch points that do not ask for one: it would grow by every step."""
    if is_torch(x) and not x.requires_grad:
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


def working_dtype(x: Any):
    """Float64 in the namespace of ``x``, where its device has it."""
    if is_torch(x) and x.device.type == "mps":
        return x.dtype
    return namespace(x).float64 if is_torch(x) else np.float64
