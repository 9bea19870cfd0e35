r"""One-step solvers of the probability-flow ODE :math:`dx/d\sigma = (x - D(x,\sigma))/\sigma`.

=================== ======= =====================================================
sampler             order   step from :math:`s` to :math:`s'`
=================== ======= =====================================================
``"euler"``         1       :math:`x' = \tfrac{s'}{s} x + (1 - \tfrac{s'}{s}) D`: exact for
                            constant D; DDIM in every schedule
``"heun"``          2       Euler, then the average of the two slopes (Karras et al. 2022)
``"rk4"``           4       classical Runge-Kutta in :math:`\log\sigma`, where
                            :math:`dx/d\log\sigma = x - D` is not stiff
``"flow"``          exact   the model's own closed-form flow
=================== ======= =====================================================

The step to level zero is the Euler step :math:`x' = D` for all but the exact flow.
"""

from __future__ import annotations

from skdiffusion.samplers.base import BaseSampler, is_zero
from skdiffusion.utils.arrays import functions, linear_combination

__all__ = ["EulerSampler", "FlowSampler", "HeunSampler", "RK4Sampler", "euler"]


class EulerSampler(BaseSampler):
    """First order: DDIM (Song et al. 2021). One evaluation of the model per step."""

    exponential = True
    needs_level = False

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        return euler(x, model.denoise(x, level), level, next_level), None


class HeunSampler(BaseSampler):
    r"""Second order: the deterministic sampler of EDM (Karras et al. 2022, algorithm 1).

    The average of the slopes at both ends is Euler's step with a denoised point beyond both,

    .. math:: x' = r x + (1 - r) \Big[D + \frac{D' - D}{2r}\Big], \qquad r = s'/s.

    Two evaluations of the model per step, one in the step to zero.
    """

    order = 2

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        denoised = model.denoise(x, level)
        ahead = euler(x, denoised, level, next_level)
        if is_zero(next_level):
            return ahead, None
        ratio = next_level / level
        share = (1 - ratio) / (2 * ratio)
        denoised_ahead = model.denoise(ahead, next_level)
        factors = [ratio, 1 - ratio - share, share]
        return linear_combination(factors, [x, denoised, denoised_ahead]), None


class RK4Sampler(BaseSampler):
    """Fourth order in the logarithm of the level. Four evaluations of the model per step."""

    order = 4

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        if is_zero(next_level):
            return model.denoise(x, level), None
        log, sqrt = functions(level).log, functions(level).sqrt
        h = log(next_level / level)
        middle = sqrt(level * next_level)

        def slope(point, at):
            return point - model.denoise(point, at)

        k1 = slope(x, level)
        k2 = slope(x + 0.5 * h * k1, middle)
        k3 = slope(x + 0.5 * h * k2, middle)
        k4 = slope(x + h * k3, next_level)
        return x + (h / 6) * (k1 + 2 * (k2 + k3) + k4), None


class FlowSampler(BaseSampler):
    """The model's closed-form probability flow: exact for any step, of models that have one."""

    exponential = True

    def prepare(self, model, x, levels, noise):  # noqa: D102
        if not model.model.has_flow:
            raise ValueError(
                f"sampler='flow' takes the closed-form flow of the model, and "
                f"{type(model.model).__name__} has none: Gaussian models have one; other samplers, "
                "such as 'adams', take any model."
            )
        return x, levels

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        return model.flow(x, level, next_level), None


def euler(x, denoised, level, next_level):
    """The step that is exact for a constant denoiser."""
    ratio = next_level / level
    return linear_combination([ratio, 1 - ratio], [x, denoised])
