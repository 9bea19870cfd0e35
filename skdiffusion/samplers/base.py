r"""The one loop that moves points through noise levels.

A sampler is a stateless object of hyper-parameters with one ``step`` from a level to
the next; the model is its argument. :func:`run_sampler` does the rest: the grid of
levels, the last step to zero, progress, callbacks, trajectories, Ctrl-C.
What a multistep method remembers between steps is its ``state``, never a second loop.

Levels may also rise: a deterministic sampler then encodes points into noise.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skdiffusion.utils.arrays import as_points, namespace, to_numpy
from skdiffusion.utils.random import as_generator

__all__ = ["BaseSampler", "run_sampler"]


class BaseSampler(BaseEstimator):
    """Base class of the samplers: hyper-parameters and one step.

    Attributes
    ----------
    order : int
        Order of convergence in the step.
    stochastic : bool
        Whether steps draw noise.
    """

    order: int = 1
    stochastic: bool = False

    def step(
        self,
        model: Any,
        x: Any,
        level: float,
        next_level: float,
        state: Any,
        rng: np.random.Generator,
        condition: dict,
    ) -> tuple[Any, Any]:
        """Points at ``next_level`` from points at ``level``, and the new state.

        Parameters
        ----------
        model : BaseScoreModel
        x : array of shape (n, d)
        level, next_level : float
            ``next_level`` is zero in the last step of a generation.
        state : object
            What the previous step returned; ``None`` in the first.
        rng : numpy.random.Generator
        condition : dict
            Keyword arguments for the model's field: ``y`` or nothing.
        """
        raise NotImplementedError


def run_sampler(
    sampler: BaseSampler,
    model: Any,
    x: Any,
    levels: Any,
    *,
    y: Any = None,
    random_state: Any = None,
    callback: Callable[[int, float, Any], None] | None = None,
    verbose: bool = False,
    return_trajectory: bool = False,
):
    """Move points along a sequence of noise levels.

    Parameters
    ----------
    sampler : BaseSampler
    model : BaseScoreModel
    x : array of shape (n, d)
        Points at ``levels[0]``.
    levels : sequence of float
        Noise levels in order. A generation ends with zero.
    y : array of shape (n,), optional
        Labels, for conditional models.
    random_state : None, int, Generator or RandomState
        For stochastic samplers.
    callback : callable, optional
        Called as ``callback(step, level, x)`` after every step.
    verbose : bool
        Whether to show a progress bar.
    return_trajectory : bool
        Whether to return the points at every level.

    Returns
    -------
    x : array of shape (n, d)
        Points at ``levels[-1]``.
    trajectory : ndarray of shape (n_levels, n, d)
        Only if asked for.

    Raises
    ------
    FloatingPointError
        If a step produced a value that is not finite; it names the step and the level.

    Warns
    -----
    UserWarning
        If interrupted: what has been reached is returned.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> from skdiffusion.samplers import RK4Sampler
    >>> model = GaussianModel([0.0], 1.0)
    >>> levels = np.geomspace(8, 0.5, 40)
    >>> x = run_sampler(RK4Sampler(), model, np.array([[8.0]]), levels)
    >>> bool(abs(x - 8 * (1.25 / 65) ** 0.5) < 1e-6)
    True
    """
    x = as_points(x, model.n_features)
    levels = [float(level) for level in levels]
    rng = as_generator(random_state)
    condition = {} if y is None else {"y": y}
    trajectory = [to_numpy(x)] if return_trajectory else None
    state, reached = None, levels[0]
    steps = list(itertools.pairwise(levels))
    progress = _progress(steps, verbose)
    try:
        for k, (level, next_level) in enumerate(progress):
            x, state = sampler.step(model, x, level, next_level, state, rng, condition)
            if not bool(namespace(x).all(namespace(x).isfinite(x))):
                raise FloatingPointError(
                    f"step {k + 1} of {len(steps)} of {type(sampler).__name__}, from noise level "
                    f"{level:g} to {next_level:g}, produced values that are not finite."
                )
            reached = next_level
            if trajectory is not None:
                trajectory.append(to_numpy(x))
            if callback is not None:
                callback(k, next_level, x)
    except KeyboardInterrupt:
        warnings.warn(
            f"sampling was interrupted at noise level {reached:g}; the points there are returned.",
            stacklevel=2,
        )
    return (x, np.stack(trajectory)) if return_trajectory else x


def _progress(steps, verbose):
    if not verbose:
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, desc="sampling", unit="step")
