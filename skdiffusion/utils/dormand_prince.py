r"""One step of the embedded Runge-Kutta pair of orders 5 and 4 (Dormand & Prince 1980).

.. math:: k_i = f\Big(c_i,\; x + h \sum_{j<i} a_{ij} k_j\Big), \qquad
          x' = x + h \sum_i b_i k_i, \qquad e = h \sum_i (b_i - \hat b_i)\, k_i,

with ``x'`` of fifth order and ``e`` the error of the fourth-order solution. The last of the seven
slopes is taken at ``x'`` and is the first of the next step: six evaluations a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["dormand_prince"]

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
WEIGHTS = (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
ERROR_WEIGHTS = (
    71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40,
)  # fmt: skip


def dormand_prince(slope_at: Callable, x: Any, slope: Any, h: Any) -> tuple[Any, Any, Any]:
    """Point and slope after a step, and the estimate of its error.

    Parameters
    ----------
    slope_at : callable
        ``slope_at(x, c)``: slope at a point, a share ``c`` of the step along; ``c`` is the
        integer 1 at its end.
    x, slope : array
        Where the step begins, and the slope there.
    h : float or array
        Length of the step, to be multiplied with slopes.

    Examples
    --------
    >>> x, slope, error = dormand_prince(lambda x, c: -x, 1.0, -1.0, 0.1)
    >>> abs(x - 2.718281828459045**-0.1) < 1e-9, abs(error) < 1e-6
    (True, True)
    """
    slopes = [slope]
    for node, stage in zip(NODES, STAGES, strict=True):
        slopes.append(slope_at(x + h * _combined(stage, slopes), node))
    after = x + h * _combined(WEIGHTS, slopes)
    slopes.append(slope_at(after, 1))
    return after, slopes[-1], h * _combined(ERROR_WEIGHTS, slopes)


def _combined(weights, slopes):
    return sum(w * slope for w, slope in zip(weights, slopes, strict=True) if w)
