r"""Two samplers in one: a predictor goes to the next level, a corrector mends the law there.

If :math:`P_{s \to s'}` carries points from level to level with some error and :math:`C_{s'}` is a
Markov chain with invariant law :math:`p_{s'}`, then :math:`C_{s'} P_{s \to s'}` goes to the next
level, and errors that the predictor makes fade by what the chain forgets.
"""

from __future__ import annotations

from typing import Any

from skdiffusion.samplers.base import BaseSampler, hyperparameters, is_zero
from skdiffusion.samplers.langevin import LangevinSampler

__all__ = ["PredictorCorrectorSampler", "inner_sampler"]


@hyperparameters
class PredictorCorrectorSampler(BaseSampler):
    """A step of one sampler, then moves of another at the level reached.

    Parameters
    ----------
    predictor : str or BaseSampler
        What goes from level to level, including the step to zero.
    corrector : str, BaseSampler or None
        What then steps from that level to itself: ``"langevin"``, ``"mala"`` or an instance. By
        default one Langevin move with ``step_size=0.1``, the paper's signal-to-noise ratio of
        0.16: ``step_size`` is four times its square.

    References
    ----------
    Y. Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations",
    ICLR 2021, algorithms 2 and 4.

    Examples
    --------
    >>> from skdiffusion.samplers import MALASampler, PredictorCorrectorSampler
    >>> PredictorCorrectorSampler(predictor="heun", corrector=MALASampler(n_moves=2))
    PredictorCorrectorSampler(corrector=MALASampler(n_moves=2), predictor='heun')
    """

    predictor: Any = "euler"
    corrector: Any = None

    stochastic = True

    def check(self):  # noqa: D102
        self._parts()

    def prepare(self, model, x, levels, noise):  # noqa: D102
        predictor, corrector = self._parts()
        x, levels = predictor.prepare(model, x, levels, noise)
        return corrector.prepare(model, x, levels, noise)

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        predictor, corrector = self._parts()
        x, state = predictor.step(model, x, level, next_level, state, noise)
        if not is_zero(next_level):
            x, _ = corrector.step(model, x, next_level, next_level, None, noise)
        return x, state

    def _parts(self):
        corrector = LangevinSampler(n_moves=1, step_size=0.1)
        if self.corrector is not None:
            corrector = inner_sampler(self.corrector)
        return inner_sampler(self.predictor), corrector


def inner_sampler(sampler: Any) -> BaseSampler:
    """A sampler that another one uses, from its short name or itself, checked."""
    from skdiffusion.samplers import check_sampler  # the registry knows every sampler

    sampler = check_sampler(sampler)
    if sampler.teleport is not False:
        raise ValueError(
            f"a {type(sampler).__name__} used by another sampler must not teleport: set teleport "
            "on the outer one."
        )
    if not (isinstance(sampler.clock, str) and sampler.clock == "auto"):
        raise ValueError(
            f"a {type(sampler).__name__} used by another sampler goes by the clock of that: set "
            f"clock on the outer one; got {sampler.clock!r}."
        )
    return sampler
