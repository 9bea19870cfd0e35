r"""Samplers that add noise on the way down: discretised reverse diffusions.

For every :math:`\eta \ge 0` the diffusion that runs from high levels to low ones by

.. math:: dx = \tfrac{1+\eta^2}{2}\, \nabla\log p_\sigma(x)\, |d\sigma^2|
               + \eta\, |d\sigma^2|^{1/2}\, dw

has the laws :math:`p_\sigma` as marginals: :math:`\eta = 0` is the probability flow and
:math:`\eta = 1` the time reversal of adding noise (Anderson 1982; Song et al. 2021, appendix D).
Noise forgets what earlier steps got wrong, and costs more steps.

=================== ======= ==========================================================
sampler             order   step from :math:`s` to :math:`s'`
=================== ======= ==========================================================
``"ddpm"``          1       exact posterior of :math:`x_{s'}` given :math:`x_s, x_0 = D`
``"euler_maruyama"``  1     the diffusion with the score frozen
``"edm"``           2       noise up to :math:`s (1 + \gamma)`, then a Heun step down
=================== ======= ==========================================================

Orders are weak: of the error of a mean of the samples. The step to level zero is :math:`x' = D`
for all.
"""

from __future__ import annotations

import math

from skdiffusion.samplers.base import BaseSampler, hyperparameters, is_zero
from skdiffusion.samplers.ode import HeunSampler, euler
from skdiffusion.utils.arrays import functions, namespace
from skdiffusion.utils.validation import check_number

__all__ = ["DDPMSampler", "EDMSampler", "EulerMaruyamaSampler"]

MOST_CHURN = math.sqrt(2) - 1
"""Largest rise of the level in one step: no more noise is added than there is."""


@hyperparameters
class DDPMSampler(BaseSampler):
    r"""Ancestral sampling, and DDIM with any share of its noise. One evaluation per step.

    With :math:`\tau = \eta\, s' \sqrt{1 - s'^2/s^2}`,

    .. math:: x' = D + \sqrt{s'^2 - \tau^2}\; (x - D)/s + \tau z .

    If the denoiser is constant, points of :math:`p_s` become points of :math:`p_{s'}` exactly.

    Parameters
    ----------
    eta : float
        Share of the noise, from 0 (DDIM, the same as ``"euler"``) to 1 (DDPM).

    References
    ----------
    J. Ho, A. Jain and P. Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020;
    J. Song, C. Meng and S. Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, equation 16.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> from skdiffusion.samplers import DDPMSampler, run_sampler
    >>> model = GaussianModel([3.0], 0.0)  # a point
    >>> run_sampler(DDPMSampler(), model, np.array([[50.0]]), [20.0, 1.0, 0.0], random_state=0)
    array([[3.]])
    """

    eta: float = 1.0

    stochastic = True
    exponential = True

    def check(self):  # noqa: D102
        check_number(self.eta, "eta", least=0, most=1)

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        denoised = model.denoise(x, level)
        if is_zero(next_level) or self.eta == 0:
            return euler(x, denoised, level, next_level), None
        sqrt = functions(level).sqrt
        fresh = self.eta**2 * (1 - (next_level / level) ** 2)
        kept = next_level * sqrt(1 - fresh)
        return euler(x, denoised, level, kept) + next_level * sqrt(fresh) * noise.normal(x), None


@hyperparameters
class EulerMaruyamaSampler(BaseSampler):
    r"""The reverse diffusion by the Euler-Maruyama scheme. One evaluation per step.

    With :math:`\Delta = s^2 - s'^2`,

    .. math:: x' = x + \tfrac{1+\eta^2}{2} \tfrac{\Delta}{s^2} (D - x) + \eta \sqrt{\Delta}\, z .

    Parameters
    ----------
    eta : float
        Amount of noise: 0 is the probability flow, 1 the reverse of adding noise, more is allowed.

    References
    ----------
    Y. Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations",
    ICLR 2021, equation 6 and appendix D.

    Examples
    --------
    >>> from skdiffusion.samplers import EulerMaruyamaSampler
    >>> EulerMaruyamaSampler(eta=0.5)
    EulerMaruyamaSampler(eta=0.5)
    """

    eta: float = 1.0

    stochastic = True

    def check(self):  # noqa: D102
        check_number(self.eta, "eta", least=0)

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        denoised = model.denoise(x, level)
        if is_zero(next_level):
            return denoised, None
        lost = level**2 - next_level**2
        x = x + (1 + self.eta**2) / 2 * (lost / level**2) * (denoised - x)
        if self.eta == 0:
            return x, None
        return x + self.eta * functions(level).sqrt(lost) * noise.normal(x), None


@hyperparameters
class EDMSampler(BaseSampler):
    r"""The stochastic sampler of EDM: a little noise up, then a Heun step down.

    Between ``s_min`` and ``s_max`` a step first raises the level to :math:`\hat s = (1+\gamma) s`
    by noise of standard deviation :math:`S_\text{noise} \sqrt{\hat s^2 - s^2}`, then solves the
    probability flow from :math:`\hat s` to :math:`s'`. Two evaluations of the model per step,
    one in the step to zero.

    Parameters
    ----------
    churn : float
        The rise :math:`\gamma` of every step: the paper's :math:`S_\text{churn}/N`, with
        :math:`N` the number of steps. From 0 (the same as ``"heun"``) to :math:`\sqrt2 - 1`.
    s_min, s_max : float
        Noise levels between which noise is added.
    s_noise : float
        Standard deviation of the noise added, as a share of what keeps the level right.

    References
    ----------
    T. Karras, M. Aittala, T. Aila and S. Laine, "Elucidating the Design Space of Diffusion-Based
    Generative Models", NeurIPS 2022, algorithm 2.

    Examples
    --------
    >>> from skdiffusion.samplers import EDMSampler
    >>> EDMSampler(churn=40 / 256, s_min=0.05, s_max=50.0, s_noise=1.003).order
    2
    """

    churn: float = 0.15
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    order = 2
    stochastic = True

    def check(self):  # noqa: D102
        check_number(self.churn, "churn", least=0, most=MOST_CHURN)
        check_number(self.s_min, "s_min", least=0)
        if self.s_max != math.inf:
            check_number(self.s_max, "s_max", least=self.s_min)
        check_number(self.s_noise, "s_noise", least=0)

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        raised = self._raised(level, model.model.sigma_range[1])
        if self.churn > 0:
            added = functions(level).sqrt(raised**2 - level**2)
            x = x + self.s_noise * added * noise.normal(x)
        return HeunSampler().step(model, x, raised, next_level, None, noise)

    def _raised(self, level, highest):
        """The level that a step starts from: raised within the window and the model's range."""
        if isinstance(level, float):
            inside = self.s_min <= level <= self.s_max
            return max(level, min(level * (1 + self.churn), highest)) if inside else level
        xp = namespace(level)
        inside = (level >= self.s_min) & (level <= self.s_max)
        raised = xp.clip(level * (1 + self.churn), max=highest)
        return xp.where(inside, xp.maximum(raised, level), level)
