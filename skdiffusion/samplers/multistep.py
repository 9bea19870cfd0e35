r"""Multistep solvers of the probability flow: one evaluation of the model per step.

The linear part of :math:`dx/d\sigma = (x - D)/\sigma` is solved exactly,

.. math:: x' = \tfrac{s'}{s}\, x + \int_{s'/s}^{1} D(x_{s'/q},\, s'/q)\, dq ,

and under the integral :math:`D` is replaced by the polynomial through denoised points at levels
already visited, in some **clock** :math:`\tau(\sigma)`. With :math:`p` points behind, this is
an exponential Adams-Bashforth step; once the model has been evaluated at :math:`s'`, the same step
with that point as a node is Adams-Moulton and corrects :math:`x'` at no further cost.
No schedule enters: data-prediction solvers of all schedules are the same in noise levels.

================== =================== =================== =====================================
sampler            clock               corrector           is
================== =================== =================== =====================================
``"adams"``        of the spectrum     ``order`` nodes     the most accurate of them
``"unipc"``        :math:`\log\sigma`  ``order`` + 1 nodes UniPC (Zhao et al. 2023)
``"dpmpp_3m"``     :math:`\log\sigma`  none                DPM-Solver++(3M) (Lu et al. 2022)
``"dpmpp_2m"``     :math:`\log\sigma`  none                DPM-Solver++(2M), a midpoint rule
``"dpmpp_2m_sde"`` :math:`\log\sigma`  none                the same with noise
================== =================== =================== =====================================

The first steps have the order that their history allows, and the step to level zero is
:math:`x' = D`, since no polynomial in the logarithm reaches there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.samplers.base import BaseSampler, hyperparameters, of_rows
from skdiffusion.samplers.ode import euler, is_zero
from skdiffusion.samplers.spectrum import SpectralClock
from skdiffusion.utils.arrays import functions, like, namespace
from skdiffusion.utils.validation import check_count

__all__ = [
    "AdamsSampler",
    "DPMSolver3Sampler",
    "DPMSolverSampler",
    "SDEDPMSolverSampler",
    "UniPCSampler",
    "interpolation_weights",
]

NODES, MASSES = np.polynomial.legendre.leggauss(12)
"""Gauss-Legendre rule on (-1, 1): integrands are a cubic in a clock, smooth over a step."""


REACH = {2: 2.0, 3: 1.8}
"""Longest step, in distances of the last two points, over which so many points are followed."""


class History(NamedTuple):
    """What a multistep solver remembers: its clock, what was denoised, where a step began."""

    clock: Any
    levels: list
    denoised: list
    x: Any = None


@hyperparameters
class _ExponentialAdams(BaseSampler):
    """Predict with ``order`` denoised points, correct with a number of them."""

    exponential = True

    def _begin(self, model, x, level, denoised):
        """The clock, and what is known of higher levels at the first."""
        return History(_logarithm, [], [])

    def _corrector_nodes(self):
        """How many denoised points correct a step, the new one included; zero for none."""
        return 0

    def step(self, model, x, level, next_level, state, noise):
        """One evaluation of the model: it corrects the last step and predicts the next."""
        denoised = model.denoise(x, level)
        if is_zero(next_level):
            return denoised, None
        before = self._begin(model, x, level, denoised) if state is None else state
        clock, n_nodes = before.clock, self._corrector_nodes()
        levels, points = [*before.levels, level], [*before.denoised, denoised]
        if n_nodes and state is not None:
            last, nodes = before.levels[-1], levels[-n_nodes:]
            weights = interpolation_weights(clock, nodes, last, level)
            x = _advance(before.x, weights, points[-n_nodes:], last, level)
        kept = -max(self.order, n_nodes - 1)
        levels, points = levels[kept:], points[kept:]
        weights = _extrapolation_weights(clock, levels[-self.order :], level, next_level)
        ahead = _advance(x, weights, points[-self.order :], level, next_level)
        return ahead, History(clock, levels, points, x)


@hyperparameters
class AdamsSampler(_ExponentialAdams):
    r"""Exponential Adams predictor-corrector in the clock of the data's spectrum.

    In the :class:`~skdiffusion.samplers.SpectralClock` denoised points are nearly polynomial over
    the whole range; in the logarithm of the level they are an S. The clock has an end,
    at infinite noise, where the denoised point is the mean of the law. The first step takes it
    as a node: the mean is what is denoised less what the far field sees of the point, so a model
    whose mean is its own (labels, guidance, a network's bias) keeps it. Without a far field
    the clock is the logarithm.

    Parameters
    ----------
    order : {1, 2, 3}
        Order of convergence: number of denoised points that a step uses.
    teleport : False, "auto", float or Teleport
        As for every sampler.

    References
    ----------
    M. Hochbruck and A. Ostermann, "Exponential integrators", Acta Numerica 2010, for exponential
    Adams methods; Q. Zhang and Y. Chen, "Fast Sampling of Diffusion Models with Exponential
    Integrator", ICLR 2023, for diffusion.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> from skdiffusion.samplers import run_sampler, spectral_levels
    >>> model = GaussianModel([0.0, 0.0], [1.0, 0.01])
    >>> levels = [*spectral_levels(model.covariance, 17, 0.0002, 20.0), 0.0]
    >>> x = model.sample(5, 20.0, random_state=0)
    >>> there = run_sampler(AdamsSampler(), model, x, levels, far_field=model)
    >>> bool(np.abs(there - model.flow(x, 20.0, 0.0)).max() < 2e-3)
    True
    """

    order: int = 3

    def check(self):
        """Raise ``ValueError`` for an order that is not 1, 2 or 3."""
        _check_order(self.order)

    def _begin(self, model, x, level, denoised):
        far_field = model.far_field
        if far_field is None:
            return super()._begin(model, x, level, denoised)
        clock = SpectralClock(far_field.covariance)
        felt = far_field.denoise(x, of_rows(level)) - like(far_field.mean, x)
        return History(clock, [level * float("inf")], [denoised - felt])

    def _corrector_nodes(self):
        return self.order


@hyperparameters
class UniPCSampler(_ExponentialAdams):
    """UniPC for data prediction: corrector one order above the predictor, log-level clock.

    Its coefficients are those of the interpolating polynomial; the free function of the paper
    cancels when they are solved for exactly.

    Parameters
    ----------
    order : {1, 2, 3}
        Order of the predictor.
    teleport : False, "auto", float or Teleport
        As for every sampler.

    References
    ----------
    W. Zhao, L. Bai, Y. Rao, J. Zhou and J. Lu, "UniPC: A Unified Predictor-Corrector Framework
    for Fast Sampling of Diffusion Models", NeurIPS 2023.
    """

    order: int = 3

    def check(self):
        """Raise ``ValueError`` for an order that is not 1, 2 or 3."""
        _check_order(self.order)

    def _corrector_nodes(self):
        return self.order + 1


@hyperparameters
class DPMSolver3Sampler(_ExponentialAdams):
    """DPM-Solver++(3M): the parabola through three denoised points in the log-level, integrated.

    Parameters
    ----------
    teleport : False, "auto", float or Teleport
        As for every sampler.

    References
    ----------
    C. Lu, Y. Zhou, F. Bao, J. Chen, C. Li and J. Zhu, "DPM-Solver++: Fast Solver for Guided
    Sampling of Diffusion Probabilistic Models", 2022.
    """

    order = 3


@hyperparameters
class DPMSolverSampler(BaseSampler):
    r"""DPM-Solver++(2M): second order, one evaluation of the model per step.

    With :math:`h = \log(s/s')` and :math:`h_-` that of the step before,

    .. math:: x' = \tfrac{s'}{s} x + (1 - e^{-h}) \tilde D, \qquad
              \tilde D = D + \tfrac{h}{2 h_-} (D - D_-).

    Parameters
    ----------
    teleport : False, "auto", float or Teleport
        As for every sampler.

    References
    ----------
    C. Lu, Y. Zhou, F. Bao, J. Chen, C. Li and J. Zhu, "DPM-Solver++: Fast Solver for Guided
    Sampling of Diffusion Probabilistic Models", 2022.
    """

    order = 2
    exponential = True

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        denoised = model.denoise(x, level)
        if is_zero(next_level):
            return denoised, None
        ahead = denoised
        if state is not None:
            before, last = state
            log = functions(level).log
            reach = log(level / next_level) / log(before / level)
            near = reach <= REACH[2]  # over a longer step the last point says more alone
            ahead = denoised + (0.5 * reach * near) * (denoised - last)
        return self._advance(x, ahead, level, next_level, noise), (level, denoised)

    def _advance(self, x, denoised, level, next_level, noise):
        return euler(x, denoised, level, next_level)


@hyperparameters
class SDEDPMSolverSampler(DPMSolverSampler):
    r"""SDE-DPM-Solver++(2M): the same for the reverse stochastic differential equation.

    .. math:: x' = \tfrac{s'}{s} e^{-h} x + (1 - e^{-2h}) \tilde D + s' \sqrt{1 - e^{-2h}}\, z,
              \qquad z \sim N(0, I),

    exact for a constant denoiser.

    Parameters
    ----------
    teleport : False, "auto", float or Teleport
        As for every sampler.

    References
    ----------
    C. Lu, Y. Zhou, F. Bao, J. Chen, C. Li and J. Zhu, "DPM-Solver++: Fast Solver for Guided
    Sampling of Diffusion Probabilistic Models", 2022.
    """

    stochastic = True

    def _advance(self, x, denoised, level, next_level, noise):
        kept = (next_level / level) ** 2
        spread = next_level * functions(kept).sqrt(1 - kept)
        return kept * x + (1 - kept) * denoised + spread * noise.normal(x)


def interpolation_weights(clock: Any, known: list, level: Any, next_level: Any) -> list:
    r"""Weights of denoised points in the integral of the polynomial through them.

    Parameters
    ----------
    clock : callable
        The variable :math:`\tau` of the polynomial, elementwise on arrays of levels.
    known : list of float or array of shape (n, 1)
        Levels of the denoised points.
    level, next_level : float or array of shape (n, 1)
        Ends :math:`s, s'` of the step.

    Returns
    -------
    list of float or array of shape (n, 1)
        :math:`w_i = \int_{s'/s}^1 \ell_i(\tau(s'/q))\, dq`; they sum to :math:`1 - s'/s`.

    Examples
    --------
    >>> [round(w, 6) for w in interpolation_weights(np.log, [1.0], 1.0, 0.25)]
    [0.75]
    """
    if isinstance(level, float):
        known, level, next_level = [np.asarray([s]) for s in known], np.asarray([level]), next_level
        weights = interpolation_weights(clock, known, level, np.asarray([next_level]))
        return [float(w[0]) for w in weights]
    xp = namespace(level)
    first = next_level / level
    q = first + (1 - first) * like(0.5 * (1 + NODES), level)
    mass = (1 - first) * like(0.5 * MASSES, level)
    at, nodes = clock(next_level / q), clock(xp.concat(known, axis=-1))
    nodes = [nodes[..., k : k + 1] for k in range(len(known))]
    weights = []
    for i, node in enumerate(nodes):
        basis = mass
        for k, other in enumerate(nodes):
            if k != i:
                basis = basis * (at - other) / (node - other)
        weights.append(xp.sum(basis, axis=-1, keepdims=True))
    return weights


def _extrapolation_weights(clock, known, level, next_level):
    """Weights of a step beyond the known points: of fewer of them where it is a long one.

    A polynomial through points that lie close together says little far from them, and amplifies
    what is not polynomial. Schedules that are uniform in time end with such a step. Infinite noise
    as a point is the end of its clock, and what is denoised there is known exactly.
    """
    weights = interpolation_weights(clock, known, level, next_level)
    if len(known) == 1:
        return weights
    reach = abs(_gap(clock, level, next_level)) / abs(_gap(clock, known[-2], level))
    near = (reach <= REACH[len(known)]) | functions(level).isinf(known[0])
    if isinstance(level, float) and near:
        return weights
    fewer = _extrapolation_weights(clock, known[1:], level, next_level)
    fewer = [0.0 * weights[0], *fewer]
    if isinstance(level, float):
        return fewer
    choose = namespace(level).where
    return [choose(near, w, f) for w, f in zip(weights, fewer, strict=True)]


def _gap(clock, level, next_level):
    if isinstance(next_level, float):
        level, next_level = np.asarray([level]), np.asarray([next_level])
        return float((clock(next_level) - clock(level))[0])
    return clock(next_level) - clock(level)


def _advance(x, weights, denoised, level, next_level):
    """The step of an integral with these weights: exact if they are those of the polynomial."""
    result = (next_level / level) * x
    for weight, point in zip(weights, denoised, strict=True):
        result += weight * point  # in place: allocation is what such a step costs
    return result


def _logarithm(level):
    return namespace(level).log(level)


def _check_order(order):
    if check_count(order, "order") > 3:
        raise ValueError(f"order must be 1, 2 or 3; got {order!r}.")
