r"""Down, up again, and down: ancestral steps that are repeated.

A step from level :math:`s` to :math:`s'` is undone by adding the noise it removed,

.. math:: x_s = x_{s'} + \sqrt{s^2 - s'^2}\; z,

which is exact for any law. To go down and up several times is a Markov chain at the level: it
forgets errors of the steps before, and where some columns are held in place it lets the others
settle beside them (RePaint).
"""

from __future__ import annotations

from skdiffusion.samplers.base import BaseSampler, hyperparameters
from skdiffusion.samplers.sde import DDPMSampler
from skdiffusion.utils.arrays import functions
from skdiffusion.utils.validation import check_count

__all__ = ["TimeTravelSampler"]


@hyperparameters
class TimeTravelSampler(BaseSampler):
    """Ancestral sampling with every step repeated. ``n_repeats`` evaluations per step.

    Parameters
    ----------
    n_repeats : int
        How often each step is taken; 1 is ``"ddpm"``.

    References
    ----------
    A. Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
    CVPR 2022, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> from skdiffusion.samplers import TimeTravelSampler, run_sampler
    >>> model = GaussianModel([3.0], 0.0)  # a point
    >>> run_sampler(TimeTravelSampler(), model, np.array([[50.0]]), [20.0, 1.0, 0.0])
    array([[3.]])
    """

    n_repeats: int = 5

    order = 1
    stochastic = True
    exponential = True

    def check(self):  # noqa: D102
        check_count(self.n_repeats, "n_repeats")

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        down = DDPMSampler().step
        for _ in range(self.n_repeats - 1):
            lower, _ = down(model, x, level, next_level, None, noise)
            x = lower + functions(level).sqrt(level**2 - next_level**2) * noise.normal(x)
        return down(model, x, level, next_level, None, noise)
