r"""The one loop that moves points through noise levels.

:func:`run_sampler` takes points at :math:`\sigma_0` through a sequence of levels
:math:`\sigma_0, \sigma_1, \dots`: down to zero generates, up encodes (samplers without noise).
A sampler gives the step; everything else is here, once: the jump over the far field, batches
that fit the working memory, noise that does not depend on them, progress, callbacks,
trajectories, Ctrl-C.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from skdiffusion.models.external import as_score_model
from skdiffusion.samplers.base import (
    BaseSampler,
    BoundModel,
    is_finite,
    march,
    named,
    without_graph,
    working_dtype,
)
from skdiffusion.samplers.clock import ClockFreeModel, set_clock
from skdiffusion.samplers.teleport import plan_jump
from skdiffusion.utils.arrays import as_points, labels_of, like, namespace, to_numpy
from skdiffusion.utils.memory import rows_in_cache
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.row_noise import RowNoise
from skdiffusion.utils.validation import check_callback, check_count
from skdiffusion.utils.warning import warn_user

__all__ = ["run_sampler"]

ARRAYS_PER_STEP = 24
"""Arrays of the size of the points that a step is reckoned to hold, the model's included."""
CACHED = 2**20
"""Numbers per array of points: what a multistep solver combines then stays in a cache."""
FEWEST_ROWS = 1024
"""Rows that a batch has anyway, if they fit the memory: networks want many."""


def run_sampler(
    sampler: str | BaseSampler,
    model: Any,
    x: Any,
    levels: Any,
    *,
    y: Any = None,
    far_field: Any = None,
    random_state: Any = None,
    chunk_size: int | None = None,
    callback: Callable[[int, Any, Any], None] | None = None,
    verbose: bool = False,
    return_trajectory: bool = False,
):
    """Move points along a sequence of noise levels.

    Parameters
    ----------
    sampler : str or BaseSampler
    model : BaseScoreModel or fitted estimator
    x : array of shape (n, d)
        Points at ``levels[0]``.
    levels : sequence of float, or array of shape (n_levels, n)
        Noise levels in order, the same for all points or one sequence per point. A generation
        ends with zero.
    y : array of shape (n,), optional
        Labels, for conditional models.
    far_field : GaussianModel, optional
        The law that the noised law tends to. A teleporting sampler needs one; a multistep
        solver knows from it where the law takes shape.
    random_state : None, int, Generator or RandomState
        For stochastic samplers. Row ``i`` has the same noise in any batch.
    chunk_size : int, optional
        Rows per batch; by default as many as fit a processor's cache, and scikit-learn's
        ``working_memory``.
    callback : callable, optional
        Called as ``callback(step, level, x)`` after every step of every batch.
    verbose : bool
        Whether to show a progress bar.
    return_trajectory : bool
        Whether to return the points at every level.

    Returns
    -------
    x : array of shape (n, d)
        Points at the last level, like ``x``.
    trajectory : ndarray of shape (n_levels, n, d)
        Only if asked for. Teleported points start at the level of the hand-over.

    Raises
    ------
    ValueError
        If the points are not finite, there is not one label per row, the levels are not valid for
        the sampler, or the callback is not a function.
    FloatingPointError
        If a step produced a value that is not finite; it names the step and the level.

    Warns
    -----
    UserWarning
        If interrupted: what is finished is returned, or the points of the first batch where
        they are.

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
    from skdiffusion.samplers import check_sampler  # the registry knows every sampler

    sampler, model = check_sampler(sampler), as_score_model(model)
    x = _checked_points(x, model)
    y = labels_of(y, x)
    check_callback(callback)
    levels = _checked_levels(levels, len(x), sampler)
    jump = plan_jump(sampler.teleport, model, levels, far_field, y=y)
    if jump is not None:
        levels = jump.levels
        if verbose:
            print(jump)
    model, clock = set_clock(sampler, model)
    key = RowNoise.key_from(as_generator(random_state))
    size = _rows_per_chunk(x) if chunk_size is None else check_count(chunk_size, "chunk_size")
    starts = range(0, max(len(x), 1), size)
    finished = []
    with _progress(len(starts) * (len(levels) - 1), verbose) as tick:
        for start in starts:
            rows = slice(start, start + size)
            watch = _Watch(callback, tick, return_trajectory)
            bound = BoundModel(model, x.dtype, None if y is None else y[rows], far_field)
            noise = RowNoise(key, start, model.noise_scale)
            point = namespace(x).astype(x[rows], working_dtype(x))
            try:
                if jump is not None:
                    point = jump(point, noise)
                path = [_of_rows(level, rows, point) for level in levels]
                if isinstance(model, ClockFreeModel):
                    point = model.enter(point, path[0])
                with without_graph(point):
                    point, path = sampler.prepare(bound, point, path, noise)
                watch.begin(path[0], point)
                march(sampler, bound, point, path, noise, watch, clock)
            except KeyboardInterrupt:
                if not finished and watch.level is None:
                    raise
                _warn_of_interruption(watch, finished, x)
                if not finished:
                    finished.append(watch)
                break
            finished.append(watch)
    xp = namespace(x)
    result = xp.astype(xp.concat([watch.point for watch in finished], axis=0), x.dtype)
    if not return_trajectory:
        return result
    path = np.concatenate([np.stack(watch.path) for watch in finished], axis=1)
    return result, path.astype(to_numpy(x[:0]).dtype, copy=False)


class _Watch:
    """What is known of a batch under way: where it is, and the path it took."""

    def __init__(self, callback, tick, keeps_path):
        self.callback, self.tick, self.keeps_path = callback, tick, keeps_path
        self.level = self.point = None
        self.path = []

    def begin(self, level, point):
        self.level, self.point = level, point
        if self.keeps_path:
            self.path.append(to_numpy(point))

    def __call__(self, step, level, point):
        self.begin(level, point)
        self.tick()
        if self.callback is not None:
            self.callback(step, level, point)


def _warn_of_interruption(watch, finished, x):
    if finished:
        n_rows = sum(len(watch.point) for watch in finished)
        what = f"the {n_rows} of {len(x)} rows that are finished are returned"
    else:
        what = f"the points there are returned ({len(watch.point)} of {len(x)} rows)"
    where = "before a first step" if watch.level is None else f"at noise level {named(watch.level)}"
    warn_user(f"sampling was interrupted {where}; {what}.")


def _checked_points(x, model):
    """Points with the model's columns, all of them finite."""
    x = as_points(x, model.n_features)
    if not is_finite(x):
        row = int(np.flatnonzero(~np.isfinite(to_numpy(x)).all(axis=1))[0])
        raise ValueError(f"x must be finite; row {row} is not.")
    return x


def _checked_levels(levels, n, sampler):
    """Levels as floats, or arrays of one level per row, checked for the sampler."""
    try:
        values = [np.asarray(to_numpy(level), dtype=np.float64) for level in levels]
    except (TypeError, ValueError):
        raise ValueError(f"levels must be numbers; got {levels!r}.") from None
    shapes = {value.shape for value in values}
    if not (shapes == {()} or shapes == {(n,)}):
        got = "none" if not values else f"levels of shapes {sorted(shapes)}"
        raise ValueError(
            "levels must be one noise level or more, or an array of shape "
            f"(n_levels, {n}); got {got}."
        )
    values = np.stack(values)
    ends = values[-1] == 0
    if not np.isfinite(values).all() or (values < 0).any() or (values[:-1] == 0).any():
        raise ValueError("levels must be finite and positive; only the last may be zero.")
    if ends.any() and not ends.all():
        raise ValueError("of the levels only the last may be zero, that of all rows at once.")
    if (sampler.stochastic or sampler.teleport is not False) and (
        np.diff(values, axis=0) > 0
    ).any():
        raise ValueError(
            f"{type(sampler).__name__} only goes down: levels must not rise for a sampler that "
            "draws noise or teleports."
        )
    if values.ndim == 1:
        return values.tolist()
    return [*values[:-1], 0.0 if ends.any() else values[-1]]


def _of_rows(level, rows, point):
    """A level as a float, or those of some rows as a column that meets their points."""
    return level if isinstance(level, float) else like(level[rows], point)[:, None]


def _rows_per_chunk(x):
    return rows_in_cache(x.shape[1], CACHED, n_arrays=ARRAYS_PER_STEP, fewest=FEWEST_ROWS)


@contextlib.contextmanager
def _progress(n_steps, verbose):
    if not verbose:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=n_steps, desc="sampling", unit="step") as bar:
        yield bar.update
