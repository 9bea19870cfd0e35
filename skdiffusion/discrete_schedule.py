r"""A schedule of numbered timesteps, as DDPM's, read at any noise level.

A network trained at timesteps :math:`t = 0, 1, \dots, N-1` of a variance-preserving path comes
with a table :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` and

.. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon, \qquad
          \bar\sigma_t = \sqrt{(1 - \bar\alpha_t)/\bar\alpha_t} .

Between them :math:`\log\bar\sigma` is linear in the timestep, as other samplers of such networks
have it: with :math:`\ell` its slope,
:math:`\alpha = (1+\bar\sigma^2)^{-1/2},\ \alpha' = -\bar\sigma^2\alpha^3\ell,\
\sigma' = \bar\sigma\alpha^3\ell`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.schedules import NoiseSchedule
from skdiffusion.utils.arrays import like, namespace

__all__ = ["DiscreteSchedule"]


class DiscreteSchedule(NoiseSchedule):
    r"""Timesteps ``0`` to ``N - 1`` with a table of :math:`\bar\alpha`, and all between them.

    Time is the timestep: ``time_of(level)`` need not be whole.

    Parameters
    ----------
    alphas_cumprod : array-like of shape (N,), optional
        The decreasing table :math:`\bar\alpha`. By default that of a thousand rates from 1e-4 to
        0.02 (Ho et al. 2020). Last entries of zero (no signal at all) have no noise level and are
        left out.

    Examples
    --------
    >>> schedule = DiscreteSchedule()
    >>> round(schedule.noise_level(999), 2), round(schedule.time_of(1.0), 2)
    (157.41, 258.09)
    """

    def __init__(self, alphas_cumprod=None):
        self.alphas_cumprod = alphas_cumprod

    @property
    def sigma_min(self) -> float:
        """Noise level of timestep 0."""
        return float(np.exp(self._logs()[0]))

    @property
    def sigma_max(self) -> float:
        """Noise level of the last timestep."""
        return float(np.exp(self._logs()[-1]))

    def noise_level(self, t):  # noqa: D102
        logs = self._logs()
        return _exp(_interpolated(t, np.arange(float(len(logs))), logs)[0])

    def alpha(self, t):  # noqa: D102
        return (1 + self.noise_level(t) ** 2) ** -0.5

    def sigma(self, t):  # noqa: D102
        level = self.noise_level(t)
        return level * (1 + level**2) ** -0.5

    def rates(self, t):  # noqa: D102
        logs = self._logs()
        log, slope = _interpolated(t, np.arange(float(len(logs))), logs)
        level = _exp(log)
        common = level * (1 + level**2) ** -1.5 * slope
        return -level * common, common

    def time_of(self, level):  # noqa: D102
        logs = self._logs()
        log = np.log(level) if isinstance(level, (int, float)) else namespace(level).log(level)
        return _interpolated(log, logs, np.arange(float(len(logs))))[0]

    def _logs(self):
        """Logarithms of the noise levels of all timesteps."""
        table = self.alphas_cumprod
        if table is None:
            table = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
        table = np.asarray(table, dtype=np.float64)
        if table.ndim == 1:
            table = table[: np.count_nonzero(table)]
        valid = table.ndim == 1 and len(table) > 1 and table[-1] > 0 and table[0] < 1
        if not (valid and (np.diff(table) < 0).all()):
            raise ValueError(
                "alphas_cumprod must be a decreasing table of numbers between zero and one, two at "
                "least."
            )
        return 0.5 * (np.log1p(-table) - np.log(table))


def _interpolated(values: Any, nodes: np.ndarray, answers: np.ndarray):
    """Piecewise linear interpolation and its slope; the outer pieces go on beyond the ends.

    A float for a float, else an array like ``values``.
    """
    is_float = isinstance(values, (int, float))
    points = np.asarray(values, dtype=np.float64) if is_float else values
    xp = namespace(points)
    if not xp.isdtype(points.dtype, "real floating"):  # timesteps may be whole, tables are not
        points = xp.astype(points, xp.float64)
    slopes = np.diff(answers) / np.diff(nodes)
    inner = like(nodes[1:-1], points)
    piece = xp.searchsorted(inner, xp.reshape(points, (-1,)), side="right")
    piece = xp.reshape(piece, tuple(points.shape))
    nodes, answers, slopes = (like(table, points)[piece] for table in (nodes, answers, slopes))
    found = answers + slopes * (points - nodes)
    return (float(found), float(slopes)) if is_float else (found, slopes)


def _exp(log):
    return float(np.exp(log)) if isinstance(log, float) else namespace(log).exp(log)
