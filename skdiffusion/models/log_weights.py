r"""Posterior weights from log-weights, for rows anywhere.

.. math:: \gamma_{ik} = e^{\ell_{ik} - L_i}, \qquad L_i = \log \textstyle\sum_k e^{\ell_{ik}}
          = m_i + \log \sum_k e^{\ell_{ik} - m_i}, \quad m_i = \max_k \ell_{ik}.

:math:`m_i` cancels and is a constant to autograd. :math:`-\infty` is a weight of zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skdiffusion.utils.arrays import is_torch, namespace

__all__ = ["log_sum_exp", "softmax"]


def _highest(logits):
    """Row maxima; constants to autograd, since they cancel."""
    if is_torch(logits):
        return namespace(logits).max(logits, axis=1, keepdims=True).detach()
    return np.ascontiguousarray(logits.T).max(axis=0)[:, None]  # along long rows, not short ones


def log_sum_exp(logits: Any):
    """Logarithm of the sum of exponentials of each row, shape ``(n, 1)``."""
    xp, highest = namespace(logits), _highest(logits)
    return highest + xp.log(xp.sum(xp.exp(logits - highest), axis=1, keepdims=True))


def softmax(logits: Any):
    """Exponentials of each row divided by their sum; negligible ones are exactly zero."""
    xp = namespace(logits)
    weights = logits - _highest(logits)
    # below this the weights are denormal numbers: no effect but a hundredfold cost
    floor = 0.9 * math.log(xp.finfo(logits.dtype).smallest_normal)
    counts = weights >= floor
    if is_torch(weights):
        weights = xp.where(counts, xp.exp(weights), xp.zeros_like(weights))
        return weights / xp.sum(weights, axis=1, keepdims=True)
    np.maximum(weights, floor, out=weights)
    np.exp(weights, out=weights)
    weights *= counts
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
