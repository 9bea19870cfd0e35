r"""Markov chains at a noise level: Langevin moves, adjusted or not, and their samplers.

The diffusion :math:`dx = \tfrac12 \nabla\log p_s(x)\, dt + dw` leaves :math:`p_s` as it is. With
a time step :math:`h s^2`, ``h`` relative to the noise level and free of units, one move is

.. math:: x' = x + \tfrac h2 (D(x, s) - x) + \sqrt h\, s\, z .

**Unadjusted** moves have a bias of first order in ``h``: of a Gaussian they keep the mean, and the
variance :math:`\lambda + s^2` of an axis becomes

.. math:: \frac{\lambda + s^2}{1 - h r/4}, \qquad r = \frac{s^2}{\lambda + s^2} \le 1 .

**Adjusted** moves (MALA) are accepted with probability :math:`\min\{1, p_s(x') q(x | x') /
(p_s(x) q(x' | x))\}` and leave :math:`p_s` invariant exactly, if the model knows its density.

Memory of an axis fades by :math:`1 - h r/2` per move: moves are short where the noise is small.
"""

from __future__ import annotations

import math
from typing import Any

from skdiffusion.samplers.base import BaseSampler, BoundModel, hyperparameters, is_zero
from skdiffusion.utils.arrays import like, namespace
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["LangevinSampler", "MALASampler", "langevin_moves"]


def langevin_moves(
    model: BoundModel,
    x: Any,
    level: Any,
    noise: Any,
    *,
    step_size: float,
    n_moves: int,
    adjusted: bool = False,
):
    """Langevin moves at a noise level.

    Parameters
    ----------
    model : BoundModel
    x : array of shape (n, d)
    level : float or array of shape (n, 1)
    noise : RowNoise
    step_size : float
        Time step over the squared level.
    n_moves : int
    adjusted : bool
        Whether moves are accepted or rejected by Metropolis' rule; needs ``log_prob``.

    Returns
    -------
    x : array of shape (n, d)
    accepted : array of shape (n, 1) or float
        Share of the moves that each row accepted.
    """
    xp = namespace(x)
    half, width = step_size / 2, level * math.sqrt(step_size)
    pull = half * (model.denoise(x, level) - x)
    if not adjusted:
        for left in range(n_moves, 0, -1):
            x = x + pull + width * noise.normal(x)
            if left > 1:
                pull = half * (model.denoise(x, level) - x)
        return x, 1.0

    scale = noise.scale if isinstance(noise.scale, float) else like(noise.scale, x)
    log_prob = model.log_prob(x, level)[:, None]
    accepted = 0.0
    for _ in range(n_moves):
        forth = width * noise.normal(x)
        proposal = x + pull + forth
        its_pull = half * (model.denoise(proposal, level) - proposal)
        its_log_prob = model.log_prob(proposal, level)[:, None]
        back = x - proposal - its_pull
        # (forth - back)(forth + back): no difference of large squares
        gain = (forth - back) * (forth + back) / (width * scale) ** 2
        log_ratio = its_log_prob - log_prob + 0.5 * xp.sum(gain, axis=1, keepdims=True)
        # not "uniform < ratio": what is not a number must be accepted, to be seen and reported
        no = noise.uniform(x) >= xp.exp(xp.clip(log_ratio, max=0.0))
        x, pull = xp.where(no, x, proposal), xp.where(no, pull, its_pull)
        log_prob = xp.where(no, log_prob, its_log_prob)
        accepted = accepted + xp.astype(~no, x.dtype) / n_moves
    return x, accepted


@hyperparameters
class LangevinSampler(BaseSampler):
    """Annealed Langevin dynamics: moves at every level on the way down.

    Each step makes ``n_moves`` unadjusted moves at the level it goes to, starting from where the
    last level left the points; the step to zero denoises. Levels may repeat: ``[s, s, s]`` is a
    Markov chain at noise level ``s``. One evaluation of the model per move.

    Parameters
    ----------
    n_moves : int
        Moves per level.
    step_size : float
        Time step over the squared level, below 4. The variance of pure noise comes out too large
        by ``1 / (1 - step_size / 4)``.

    References
    ----------
    Y. Song and S. Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution",
    NeurIPS 2019, algorithm 1; the last denoising step: A. Jolicoeur-Martineau et al.,
    "Adversarial score matching and improved sampling for image generation", ICLR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> from skdiffusion.samplers import LangevinSampler, run_sampler
    >>> model = GaussianModel([0.0], 1.0)
    >>> x = run_sampler(LangevinSampler(), model, np.ones((500, 1)), [0.5] * 21, random_state=0)
    >>> bool(abs(x.var() - 1.25) < 0.25)
    True
    """

    n_moves: int = 10
    step_size: float = 0.2

    stochastic = True

    def check(self):  # noqa: D102
        check_count(self.n_moves, "n_moves")
        step_size = check_number(self.step_size, "step_size", above=0)
        if step_size >= 4:
            raise ValueError(
                f"step_size must be below 4, where unadjusted moves diverge; got {step_size:g}."
            )

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        if is_zero(next_level):
            return model.denoise(x, level), None
        x, _ = langevin_moves(
            model, x, next_level, noise, step_size=self.step_size, n_moves=self.n_moves
        )
        return x, None


@hyperparameters
class MALASampler(BaseSampler):
    r"""Metropolis-adjusted Langevin moves at every level on the way down.

    As :class:`LangevinSampler`, but exact at every level: ``[s, s, s]`` is a Markov chain with
    invariant law :math:`p_s` whatever the step size. The model must know its log-density.

    Parameters
    ----------
    n_moves : int
        Moves per level.
    step_size : float
        Time step over the squared level, in one dimension; it is multiplied by
        :math:`d^{-1/3}`, which keeps the acceptance rate as the dimension grows. At 1 some nine
        moves in ten are accepted where the law is mostly noise.

    References
    ----------
    G. O. Roberts and R. L. Tweedie, "Exponential convergence of Langevin distributions and their
    discrete approximations", Bernoulli 1996; G. O. Roberts and J. S. Rosenthal, "Optimal scaling
    of discrete approximations to Langevin diffusions", JRSS B 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> from skdiffusion.samplers import MALASampler, run_sampler
    >>> model = GaussianModel([0.0], 1.0)
    >>> x = run_sampler(MALASampler(), model, np.ones((500, 1)), [0.5] * 6, random_state=0)
    >>> bool(abs(x.var() - 1.25) < 0.25)
    True
    """

    n_moves: int = 5
    step_size: float = 1.0

    stochastic = True

    def check(self):  # noqa: D102
        check_count(self.n_moves, "n_moves")
        check_number(self.step_size, "step_size", above=0)

    def prepare(self, model, x, levels, noise):  # noqa: D102
        if not model.model.has_log_prob:
            raise ValueError(
                f"MALASampler needs a model with an exact log-density, and "
                f"{type(model.model).__name__} has none; LangevinSampler needs none."
            )
        return x, levels

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        if is_zero(next_level):
            return model.denoise(x, level), None
        step_size = self.step_size / x.shape[1] ** (1 / 3)
        x, _ = langevin_moves(
            model, x, next_level, noise, step_size=step_size, n_moves=self.n_moves, adjusted=True
        )
        return x, None
