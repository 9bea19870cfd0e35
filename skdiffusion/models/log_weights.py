r"""Posterior weights from log-weights, for rows anywhere.

.. math:: \gamma_{ik} = e^{\ell_{ik} - L_i}, \qquad L_i = \log \textstyle\sum_k e^{\ell_{ik}}
          = m_i + \log \sum_k e^{\ell_{ik} - m_i}, \quad m_i = \max_k \ell_{ik}.

:math:`m_i` cancels and is a constant to autograd. :math:`-\infty` is a weight of zero.
"""

from __future__ import annotations

import math
from typing import Any

from skdiffusion.utils.arrays import is_torch, namespace

__all__ = ["log_sum_exp", "softmax"]


def _highest(logits):
    """Row maxima; constants to autograd, since they cancel."""
    highest = namespace(logits).max(logits, axis=1, keepdims=True)
    return highest.detach() if is_torch(highest) else highest


def log_sum_exp(logits: Any):
    """Logarithm of the sum of exponentials of each row, shape ``(n, 1)``."""
    xp, highest = namespace(logits), _highest(logits)
    return highest + xp.log(xp.sum(xp.exp(logits - highest), axis=1, keepdims=True))


def softmax(logits: Any):
    """Exponentials of each row divided by their sum; negligible ones are exactly zero."""
    xp = namespace(logits)
    lower = logits - _highest(logits)
    # below this the weights are denormal numbers: no effect but a hundredfold cost
    floor = 0.9 * math.log(xp.finfo(logits.dtype).smallest_normal)
    weights = xp.where(lower < floor, xp.zeros_like(lower), xp.exp(lower))
    return weights / xp.sum(weights, axis=1, keepdims=True)
