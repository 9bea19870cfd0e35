r"""Denoising MCMC: a Markov chain over points and noise levels, then a short way down.

The chain lives on pairs of a point and one of the levels :math:`s_1, \dots, s_K`, with law

.. math:: \pi(x, k) = p_{s_k}(x) / K .

It alternates a Gibbs move of the level, :math:`P(k \mid x) \propto p_{s_k}(x)`, with moves of the
point at that level, which leave :math:`p_{s_k}` invariant. At high levels modes merge, at low
ones the law is sharp: a chain that visits both crosses between modes. It starts near its law, by
a coarse run of another sampler down to a level drawn for each point, mends what that run got
wrong, and each point goes on from its own level to zero in few steps.

Where the model has no density, its ratios come from the score. By the heat equation
:math:`\partial p/\partial s^2 = \tfrac12 \Delta p`, with noise of standard deviation
:math:`s\,n_j` in column ``j``,

.. math:: \frac{\partial \log p_s(x)}{\partial \log s}
          = s^2 \sum_j n_j^2 \big(\partial_j \text{score}_j + \text{score}_j^2\big)
          = \operatorname{tr} \frac{\partial D}{\partial x} - d
            + \Big\| \frac{x - D}{s\, n} \Big\|^2 ,

integrated over :math:`\log s` by a spline through the levels.

A level is known from a point to about one part in :math:`\sqrt{2d}`, so the level makes a random
walk of that step in :math:`\log s`: a chain that is to forget its start altogether needs few
columns or a narrow range of levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from skdiffusion.samplers.base import BaseSampler, BoundModel, hyperparameters, march
from skdiffusion.samplers.langevin import LangevinSampler, MALASampler
from skdiffusion.samplers.predictor_corrector import inner_sampler
from skdiffusion.utils.arrays import like, namespace, to_numpy
from skdiffusion.utils.validation import check_count

__all__ = ["DMCMCSampler", "denoising_chain", "level_log_probs"]


@hyperparameters
class DMCMCSampler(BaseSampler):
    """Denoising MCMC: a chain over points and noise levels, then a short reverse run.

    The levels between the first and the lowest positive one are the states of the chain, equally
    likely. Each row first goes from the first level to a state drawn at random, in ``n_steps``
    steps; then the chain moves it; then it goes down by the lowest level to zero, in ``n_steps``
    steps. The first two parts show no progress.

    Parameters
    ----------
    n_moves : int
        Moves of the chain: each draws the level anew and then moves the point.
    mover : str, BaseSampler or None
        What moves points at a level: a sampler that steps from a level to itself. By default
        ``"mala"`` with one move where the model knows its density, else ``"langevin"``.
    sampler : str or BaseSampler
        What goes down to each row's level and from it.
    n_steps : int
        Number of its steps, spaced as the levels given.

    Notes
    -----
    Every row is a chain of its own and gives one sample, so that this costs more than its reverse
    run alone: it is for laws that a run from the first level does not find. The chain mends the
    run that starts it, not the one that ends it: ``n_steps`` must do for that.

    A move of the level costs a log-density at all levels, or for a model without one a divergence
    at all levels (``d`` evaluations each if it has no closed-form Jacobian; beyond 128 columns an
    estimate from random probes, and the law of the levels is then approximate).

    References
    ----------
    B. Kim and J. C. Ye, "Denoising MCMC for Accelerating Diffusion-Based Generative Models",
    ICML 2023 (arXiv 2209.14593).

    Examples
    --------
    All points start at one of two far modes:

    >>> import numpy as np
    >>> from skdiffusion.models import MixtureModel
    >>> from skdiffusion.samplers import DMCMCSampler, run_sampler
    >>> model = MixtureModel([0.5, 0.5], [[-9.0], [9.0]], [0.1, 0.1])
    >>> x = run_sampler(DMCMCSampler(n_moves=100), model, np.full((200, 1), 9.0),
    ...                 [*np.geomspace(20.0, 0.2, 10), 0.0], random_state=0)
    >>> bool(abs((x > 0).mean() - 0.5) < 0.15)
    True
    """

    n_moves: int = 50
    mover: Any = None
    sampler: Any = "heun"
    n_steps: int = 16

    stochastic = True

    def check(self):  # noqa: D102
        check_count(self.n_moves, "n_moves")
        check_count(self.n_steps, "n_steps")
        inner_sampler(self.sampler)
        if self.mover is not None:
            inner_sampler(self.mover)

    def prepare(self, model, x, levels, noise):  # noqa: D102
        grid = [level for level in levels if not (isinstance(level, float) and level == 0)]
        if not all(isinstance(level, float) for level in grid):
            raise ValueError("DMCMCSampler needs the same noise levels for all rows.")
        if len(grid) < 4 or min(-np.diff(grid)) <= 0:
            raise ValueError("DMCMCSampler needs at least four positive levels, falling.")
        sampler, mover = inner_sampler(self.sampler), self._mover(model)
        mover.prepare(model, x, levels, noise)
        n, states, to_zero = len(grid) - 2, grid[1:-1], levels[len(grid) :]

        start = 1 + np.minimum(to_numpy(noise.uniform(x))[:, 0] * n, n - 1).astype(int)
        path = [like(s, x) for s in _between(grid, 0 * start, start, self.n_steps)]
        x, path = sampler.prepare(model, x, path, noise)
        x = march(sampler, model, x, path, noise)
        x, index = denoising_chain(model, x, states, mover, self.n_moves, noise)
        end = np.full_like(start, len(grid) - 1)
        path = [like(s, x) for s in _between(grid, 1 + index, end, self.n_steps - len(to_zero))]
        return sampler.prepare(model, x, path + to_zero, noise)

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        return inner_sampler(self.sampler).step(model, x, level, next_level, state, noise)

    def _mover(self, model):
        if self.mover is not None:
            return inner_sampler(self.mover)
        return MALASampler(n_moves=1) if model.model.has_log_prob else LangevinSampler(n_moves=1)


def denoising_chain(
    model: BoundModel, x: Any, levels: list[float], mover: BaseSampler, n_moves: int, noise: Any
):
    """A Markov chain over points and noise levels, one per row.

    Parameters
    ----------
    model : BoundModel
    x : array of shape (n, d)
    levels : list of float
    mover : BaseSampler
        Steps from a level to itself.
    n_moves : int
    noise : RowNoise

    Returns
    -------
    x : array of shape (n, d)
    index : ndarray of int of shape (n,)
        Position of each row's level in ``levels``: ``x[i]`` follows the law at that level.
    """
    values = np.array(levels)
    for _ in range(n_moves):
        index = _draw(level_log_probs(model, x, levels), to_numpy(noise.uniform(x)))
        level = like(values[index][:, None], x)
        x, _ = mover.step(model, x, level, level, None, noise)
    return x, index


def level_log_probs(model: BoundModel, x: Any, levels: list[float]) -> np.ndarray:
    """Logarithm of the density of each row at each level, up to a constant per row.

    Exact where the model has a log-density, otherwise integrated from the score.

    Parameters
    ----------
    model : BoundModel
    x : array of shape (n, d)
    levels : list of float
        Falling.

    Returns
    -------
    ndarray of shape (n, n_levels)
    """
    if model.model.has_log_prob:
        return np.stack([to_numpy(model.log_prob(x, s)) for s in levels], axis=1)
    slopes = np.stack([to_numpy(_slope(model, x, s)) for s in levels], axis=1)
    logs = np.log(levels)[::-1]
    integral = CubicSpline(logs, slopes[:, ::-1], axis=1).antiderivative()
    return integral(logs)[:, ::-1]


def _slope(model, x, level):
    """Derivative of the log-density at a point by the logarithm of the level."""
    noise_scale = model.model.noise_scale
    scale = level * (noise_scale if isinstance(noise_scale, float) else like(noise_scale, x))
    deviation = (x - model.denoise(x, level)) / scale
    squared = namespace(x).sum(deviation**2, axis=1)
    return model.divergence(x, level) - x.shape[1] + squared


def _draw(log_probs, uniform):
    """One index per row, with these probabilities: where the cumulated ones pass ``uniform``."""
    weights = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    cumulated = np.cumsum(weights, axis=1)
    below = cumulated <= uniform * cumulated[:, -1:]
    return np.minimum(below.sum(axis=1), log_probs.shape[1] - 1)


def _between(levels, first, last, n_steps):
    """Levels from one position in the grid to another, for each row: columns, spaced as the grid.

    No step at all leaves the first alone.
    """
    share = np.linspace(0, 1, n_steps + 1)[:, None]
    positions = first + (last - first) * share
    return np.exp(np.interp(positions, np.arange(len(levels)), np.log(levels)))[..., None]
