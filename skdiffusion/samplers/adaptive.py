r"""The probability flow with a step size of its own for every row.

In :math:`u = \log\sigma` the flow is :math:`dx/du = x - D`. A step of length :math:`h` by the pair
of Dormand and Prince (1980) gives a point of fifth order and the error :math:`e` of the
fourth-order one. A row accepts the step if the root mean square of :math:`e` over columns is within
its tolerance, and its next step is
:math:`0.9\,(\text{tolerance}/\|e\|)^{1/5}\, h`, within a factor of five. Rows that have arrived
are asked no more.

Tolerances are relative to :math:`(\sigma^2 + \|x - c\|^2)^{1/2}`, where ``c`` is the row's denoised
point at the first level, near the mean of the data: the size of the noised data at high levels,
that of the data at low ones, and the same wherever the origin of the coordinates is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from skdiffusion.samplers.base import BaseSampler, hyperparameters, is_zero, named
from skdiffusion.utils.arrays import functions, like, namespace
from skdiffusion.utils.dormand_prince import dormand_prince
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["AdaptiveSampler"]

FIRST_STEP = 0.25
"""First step tried, in the logarithm of the level, in which the flow has scale one."""
SAFETY, SLOWEST, FASTEST = 0.9, 0.2, 5.0


@hyperparameters
class AdaptiveSampler(BaseSampler):
    """Dormand-Prince 5(4) in the logarithm of the level, with a step size per row.

    Levels given are stops: the fewest evaluations are with the first level, the last and zero
    (``n_steps=2`` of an estimator). Up or down, six evaluations of the model for a step of a row,
    and one for every stop.

    Parameters
    ----------
    rtol : float
        Error allowed in a step, over the size of the noised data: of all columns together, so that
        columns a thousandth as wide as the widest may come out with errors of their own width.
    atol : float
        Error allowed besides, in the units of the data.
    max_steps : int
        Most steps from one level to the next.

    References
    ----------
    J. R. Dormand and P. J. Prince, "A family of embedded Runge-Kutta formulae", Journal of
    Computational and Applied Mathematics 1980; step sizes per sample: A. Jolicoeur-Martineau et
    al., "Gotta Go Fast When Generating Data with Score-Based Models", 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> from skdiffusion.samplers import AdaptiveSampler, run_sampler
    >>> model = GaussianModel([0.0], 1.0)
    >>> x = run_sampler(AdaptiveSampler(rtol=1e-6), model, np.array([[8.0]]), [8.0, 0.5])
    >>> bool(abs(x - 8 * (1.25 / 65) ** 0.5) < 1e-5)
    True
    """

    rtol: float = 1e-3
    atol: float = 0.0
    max_steps: int = 1000

    order = 5

    def check(self):  # noqa: D102
        check_number(self.rtol, "rtol", least=1e-13)
        check_number(self.atol, "atol", least=0)
        check_count(self.max_steps, "max_steps")

    def step(self, model, x, level, next_level, state, noise):  # noqa: D102
        denoised = model.denoise(x, level)
        if is_zero(next_level):
            return denoised, state
        xp = namespace(x)
        column = xp.zeros_like(x[:, :1])
        log = functions(level).log
        start, end = column + log(level), column + log(next_level)
        if state is None:
            state = _State(column + FIRST_STEP, denoised)
        noise_scale = model.model.noise_scale
        scale = noise_scale if isinstance(noise_scale, float) else like(noise_scale, x)

        arrived, lengths = 1 * x, 1 * state.length  # copies
        rows = xp.nonzero((start != end)[:, 0])[0]
        u, end, point, slope = start[rows], end[rows], x[rows], (x - denoised)[rows]
        length, centre = lengths[rows], state.centre[rows]
        for _ in range(self.max_steps):
            if len(rows) == 0:
                break
            left = end - u
            last = xp.abs(left) <= length * (1 + 1e-9)
            h = xp.where(last, left, xp.sign(left) * length)
            ahead = xp.where(last, end, u + h)
            slope_at = _slopes(model.rows(rows), u, ahead, h)
            moved, its_slope, error = dormand_prince(slope_at, point, slope, h)
            size = _rms(xp.maximum(xp.abs(point - centre), xp.abs(moved - centre)) / scale)
            tolerance = self.atol + self.rtol * xp.sqrt(xp.exp(2 * ahead) + size**2)
            ratio = _rms(error / scale) / tolerance
            # not "ratio <= 1": what is not a number is accepted, to be seen and reported
            refused = ratio > 1
            factor = SAFETY * xp.clip(ratio, min=1e-10) ** -0.2
            factor = xp.clip(factor, min=SLOWEST, max=FASTEST)
            # a step cut short by a stop says how much longer it might be, not that it is short
            tried = xp.abs(h) * factor
            length = xp.where(last & ~refused, xp.maximum(tried, length), tried)
            u, point = xp.where(refused, u, ahead), xp.where(refused, point, moved)
            slope = xp.where(refused, slope, its_slope)
            done = ((u == end) | xp.isnan(ratio))[:, 0]
            if bool(xp.any(done)):
                arrived[rows[done]], lengths[rows[done]] = point[done], length[done]
                on = ~done
                rows, u, end, length = rows[on], u[on], end[on], length[on]
                point, slope, centre = point[on], slope[on], centre[on]
        if len(rows) > 0:
            raise RuntimeError(
                f"AdaptiveSampler took {self.max_steps} steps from noise level {named(level)} to "
                f"{named(next_level)}, and {len(rows)} of {len(x)} rows have not arrived: raise "
                "rtol, atol or max_steps."
            )
        return arrived, _State(lengths, state.centre)


class _State(NamedTuple):
    """Step size of each row, and its denoised point at the first level."""

    length: Any
    centre: Any


def _slopes(model, u, ahead, h):
    """The flow's slope at a point, a share of the step along."""

    def slope_at(point, share):
        at = ahead if share == 1 else u + share * h
        return point - model.denoise(point, namespace(point).exp(at))

    return slope_at


def _rms(x):
    """Root mean square of each row, as a column."""
    xp = namespace(x)
    return xp.sqrt(xp.mean(x**2, axis=1, keepdims=True))
