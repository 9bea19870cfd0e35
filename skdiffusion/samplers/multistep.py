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

The first steps have the order that their history allows. The step to level zero is
:math:`x' = D`, since no polynomial in the logarithm reaches there; in the clock of the spectrum,
which begins at zero, one does.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any, NamedTuple

import numpy as np

from skdiffusion.samplers.base import BaseSampler, hyperparameters, is_zero
from skdiffusion.samplers.ode import euler
from skdiffusion.samplers.spectrum import SpectralClock
from skdiffusion.utils.arrays import (
    functions,
    is_torch,
    like,
    linear_combination,
    namespace,
    shifted,
)
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
SHARES, MASSES = 0.5 * (1 + NODES), 0.5 * MASSES
"""Gauss-Legendre rule on (0, 1): integrands are a cubic in a clock, smooth over a step."""


REACH = {2: 2.0, 3: 1.8, 4: 1.6}
"""Longest step, in distances of the last two points, over which so many points are followed."""


AWAY = 1e12
"""A time that no clock says."""


OTHERS = {
    n: np.array([[k for k in range(n) if k != i] for i in range(n)], dtype=int).reshape(n, n - 1)
    for n in range(1, 5)
}
"""Of each of so many nodes, the others."""


class Reading(NamedTuple):
    """What a clock says in a step: at the nodes of a rule with these masses, and at its end."""

    masses: Any
    inside: Any
    end: Any


class History(NamedTuple):
    """What a multistep solver remembers: what was denoised where, and the last step."""

    clock: Any
    levels: list
    times: list
    denoised: list
    code: Any = None
    x: Any = None
    reading: Any = None

    def seen(self, level, time, denoised):
        """One more point."""
        return self._replace(
            levels=[*self.levels, level],
            times=[*self.times, time],
            denoised=[*self.denoised, denoised],
        )

    def last(self, n):
        """The last ``n`` points."""
        return self._replace(
            levels=self.levels[-n:], times=self.times[-n:], denoised=self.denoised[-n:]
        )


@hyperparameters
class _ExponentialAdams(BaseSampler):
    """Predict with ``order`` denoised points, correct with a number of them."""

    exponential = True

    def _begin(self, model, x, level, denoised):
        """The clock, and what is known of higher levels at the first."""
        return History(_logarithm, [], [], [])

    def _corrector_nodes(self):
        """How many denoised points correct a step, the new one included; zero for none."""
        return 0

    def step(self, model, x, level, next_level, state, noise):
        """One evaluation of the model: it corrects the last step and predicts the next."""
        if _same(level, next_level):
            return x, state
        denoised, back = model.denoise(x, level), None
        if state is None:
            past = self._begin(model, x, level, denoised)
            past = past.seen(level, _time(past.clock, level), denoised)
        else:
            past = state.seen(level, state.reading.end, denoised)
            back = self._back(past)
        if is_zero(next_level):
            return self._moved(past, x, back, self._to_zero(past))[1], None
        reading = _read(past.clock, level, next_level)
        ahead = [next_level / level, *_followed(reading, past.last(self.order))]
        past, x = self._moved(past, x, back, ahead)
        kept = past.last(max(self.order, self._corrector_nodes() - 1))
        return x, kept._replace(reading=reading)

    def _back(self, past):
        """Factors of the last step with its end as a node; ``None`` without a corrector."""
        n_nodes = self._corrector_nodes()
        if not n_nodes:
            return None
        weights = _weights(past.reading, past.times[-n_nodes:])
        return [past.levels[-1] / past.levels[-2], *weights]

    def _moved(self, past, x, back, ahead):
        """The history with the last step corrected, and points ahead, by their factors."""
        if back is not None:
            corrected = _combined(back, past.x, past.denoised)
            past, x = self._remembered(past, x, corrected), corrected
        return past._replace(x=x), _combined(ahead, x, past.denoised)

    def _remembered(self, past, x, corrected):
        """The history, where points at which the model was asked were corrected since."""
        return past

    def _to_zero(self, past):
        """Factors of the step to level zero."""
        return [0.0, 1.0]


@hyperparameters
class AdamsSampler(_ExponentialAdams):
    r"""Exponential Adams predictor-corrector in the clock of the data's spectrum.

    In the :class:`~skdiffusion.samplers.SpectralClock` denoised points are nearly polynomial over
    the whole range; in the logarithm of the level they are an S.

    **Infinite noise** is the end of the clock, where the denoised point is the mean of the law.
    The first step takes it as a node: the mean is what is denoised less what the far field sees
    of the point, so a model whose mean is its own (labels, guidance, a network's bias) keeps it.

    **Zero** is the other end. Along the flow :math:`dx/d\sigma^2 = -\nabla\log p_\sigma / 2`, so
    near it everything is a function of :math:`\sigma^2`, and the step to zero follows the
    polynomial in the square of the clock.

    **Correction** moves a point from :math:`x`, where the model was asked, to :math:`x'`, where it
    would denoise :math:`D + J(x'-x)` with the Jacobian :math:`J` of the denoiser. On an axis of a
    normal law :math:`J = 1 - \varepsilon^2/z^2`, with the predicted noise
    :math:`\varepsilon = (x - D)/\sigma` and the latent code :math:`z`, which the flow keeps. So
    what is remembered is

    .. math:: D' = D + \lambda\,(x' - x), \qquad
              \lambda = 1 - \frac{|x - D|^2}{\sigma^2 |z|^2},

    between zero and one: the mean of :math:`J` over axes, weighted by :math:`z^2`. Without it an
    error of the predictor goes on as one of the denoised point.

    Without a far field the clock is the logarithm, and none of this is done.

    Parameters
    ----------
    order : {1, 2, 3, 4}
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

    order: int = 4

    def check(self):
        """Raise ``ValueError`` for an order that is not 1, 2, 3 or 4."""
        _check_order(self.order, 4)

    def _begin(self, model, x, level, denoised):
        far_field = model.far_field
        if far_field is None:
            return super()._begin(model, x, level, denoised)
        clock, infinity = SpectralClock(far_field.covariance), level * float("inf")
        centred = x - like(far_field.mean, x)
        felt = far_field.covariance.apply(lambda v: v / (v + level**2), centred)
        code = far_field.covariance.quadratic(lambda v: 1 / (v + level**2), centred)[:, None]
        begun = History(clock, [], [], [], code)
        return begun.seen(infinity, _time(clock, infinity), denoised - felt)

    def _corrector_nodes(self):
        return self.order

    def _remembered(self, past, x, corrected):
        if past.code is None:
            return past
        level, denoised = past.levels[-1], past.denoised[-1]
        # a row without a code, at the mean, has no noise either
        length = past.code.clip(min=np.finfo(np.float32).tiny)
        felt = 1 - _squares(x - denoised) / (level**2 * length)
        there = shifted(denoised, felt.clip(min=0.0), corrected - x)
        return past._replace(denoised=[*past.denoised[:-1], there])

    def _to_zero(self, past):
        if past.code is None:
            return super()._to_zero(past)
        nodes = past.last(max(self.order - 1, 1))
        nodes = nodes._replace(times=[time**2 for time in nodes.times])
        zero = 0 * nodes.times[-1]
        return [0.0, *_followed(Reading(1 + zero, zero, zero), nodes)]


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
        _check_order(self.order, 3)

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
        if _same(level, next_level):
            return x, state
        denoised = model.denoise(x, level)
        if is_zero(next_level):
            return denoised, None
        ahead = denoised
        if state is not None:
            before, last = state
            log = functions(level).log
            behind = log(before / level)
            if not isinstance(behind, float):  # a row that was left at its level has no slope
                behind = namespace(behind).where(behind == 0, math.inf, behind)
            reach = log(level / next_level) / behind
            near = reach <= REACH[2]  # over a longer step the last point says more alone
            more = 0.5 * reach * near
            ahead = linear_combination([1 + more, -more], [denoised, last])
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
    return _weights(_read(clock, level, next_level), [_time(clock, s) for s in known])


def _same(level, next_level):
    """Whether a step of all rows has no length: it would be a second point of a polynomial."""
    return isinstance(level, float) and level == next_level


def _time(clock, level):
    """What a clock says at a level: a float at a float."""
    return float(clock(np.asarray([level]))[0]) if isinstance(level, float) else clock(level)


def _read(clock, level, next_level):
    """The :class:`Reading` of a step; of one step for all rows a rule and a float."""
    if isinstance(level, float):
        first = next_level / level
        q = first + (1 - first) * SHARES
        said = clock(np.append(next_level / q, next_level))
        return Reading((1 - first) * MASSES, said[:-1], float(said[-1]))
    xp = namespace(level)
    if isinstance(next_level, float):
        next_level = xp.full_like(level, next_level)
    first = next_level / level
    q = first + (1 - first) * like(SHARES, level)
    said = clock(xp.concat([next_level / q, next_level], axis=-1))
    return Reading((1 - first) * like(MASSES, level), said[..., :-1], said[..., -1:])


def _weights(reading, times):
    """Integrals of the Lagrange polynomials of these times over a step."""
    if isinstance(times[0], float):
        return _weights_for_all(reading, np.array(times))
    times = _last_ones(times)
    weights, indices = [], range(len(times))
    apart = [reading.inside - time for time in times]
    for i, time in enumerate(times):
        others = [k for k in indices if k != i]
        basis = functools.reduce(operator.mul, [apart[k] for k in others], reading.masses)
        total = namespace(basis).sum(basis, axis=-1, keepdims=True)
        weights.append(total / math.prod(time - times[k] for k in others))
    return weights


def _last_ones(times):
    """Of what a row has several times, of a level that it was left at, the last counts.

    The others stand so far away that they weigh nothing, and nothing weighs otherwise for them.
    """
    *earlier, last = times
    kept = []
    for i, time in enumerate(earlier):
        again = functools.reduce(operator.or_, [time == later for later in times[i + 1 :]])
        kept.append(namespace(time).where(again, AWAY * (i + 1), time))
    return [*kept, last]


def _weights_for_all(reading, times):
    """The same for one step of all rows: all polynomials at once, since their arrays are tiny."""
    others = OTHERS[len(times)]
    apart = np.atleast_1d(reading.inside) - times[:, None]
    bases = apart[others].prod(axis=1) / (times[:, None] - times[others]).prod(axis=1)[:, None]
    return (bases @ np.atleast_1d(reading.masses)).tolist()


def _followed(reading, nodes):
    """Weights of a step beyond the known points: of fewer of them where it is a long one.

    A polynomial through points that lie close together says little far from them, and amplifies
    what is not polynomial. Schedules that are uniform in time end with such a step. Infinite noise
    as a point is the end of its clock, and what is denoised there is known exactly.
    """
    times = nodes.times
    weights = _weights(reading, times)
    if len(times) == 1:
        return weights
    near = abs(reading.end - times[-1]) <= REACH[len(times)] * abs(times[-1] - times[-2])
    near = near | functions(nodes.levels[0]).isinf(nodes.levels[0])
    if near is True or (near is not False and bool(near.all())):
        return weights
    fewer = _followed(reading, nodes.last(len(times) - 1))
    if near is False:
        return fewer
    xp = namespace(reading.end)
    fewer = [xp.zeros_like(near, dtype=reading.end.dtype)] * (len(times) - len(fewer)) + fewer
    return [xp.where(near, w, f) for w, f in zip(weights, fewer, strict=True)]


def _combined(factors, x, denoised):
    """The step of an integral: a factor of the point, and weights of the last denoised ones."""
    return linear_combination(factors, [x, *denoised[-(len(factors) - 1) :]])


def _squares(vectors):
    """Squared lengths of rows, as a column; in one pass."""
    if is_torch(vectors):
        return namespace(vectors).linalg.vector_norm(vectors, axis=1, keepdims=True) ** 2
    return np.einsum("nd,nd->n", vectors, vectors)[:, None]


def _logarithm(level):
    return namespace(level).log(level)


def _check_order(order, highest):
    if check_count(order, "order") > highest:
        *lower, last = range(1, highest + 1)
        names = ", ".join(map(str, lower))
        raise ValueError(f"order must be {names} or {last}; got {order!r}.")
