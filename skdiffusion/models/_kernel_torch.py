r"""Gaussian kernel sums for torch queries: on their device, with their autograd graph.

The exponents are one matrix product, as in ``_kernel_tiles``; where its terms are so large
that their difference would not be accurate, they are computed anew in coordinates relative
to the best point :math:`y_*` of each row, which costs :math:`O(mnd)` memory in chunks:

.. math:: L_i - L_* = (y_i - y_*)\cdot(x - y_* - \tfrac12 (y_i - y_*))/\sigma^2 + \log w_i/w_*.
"""

from __future__ import annotations

import numpy as np
import sklearn

from skdiffusion.models._kernel_tiles import KernelMoments
from skdiffusion.utils.arrays import like

__all__ = ["torch_moments"]


def torch_moments(seen, x, variance, want, v, hidden):
    """Moments of the points ``seen`` at the torch rows ``x``; see :class:`KernelSums`."""
    import torch

    n, d = seen.points.shape
    x = x - seen.centre
    precision = 1 / like(variance, x) if not isinstance(variance, float) else 1 / variance
    if not isinstance(precision, float):
        precision = precision.expand(len(x), precision.shape[-1] if precision.ndim else 1)
    v = None if v is None else like(v, x)
    anchored = _cancels(seen.points, precision, x)
    copies = 4 * d if anchored or want == "covariance" else 4
    memory = sklearn.get_config()["working_memory"] * 2**20 / x.element_size()
    tall = max(1, int(memory / (copies * n)))
    parts = []
    for start in range(0, max(len(x), 1), tall):
        rows = slice(start, start + tall)
        parts.append(
            _part(
                seen,
                x[rows],
                precision if isinstance(precision, float) else precision[rows],
                want,
                None if v is None else v[rows],
                None if hidden is None else torch.as_tensor(hidden[rows], device=x.device),
                anchored,
            )
        )
    fields = zip(*parts, strict=True)
    return KernelMoments(*(None if f[0] is None else torch.cat(f) for f in fields))


def _cancels(points, precision, x):
    """Whether the terms of the exponent are too large for their difference to be accurate."""
    import torch

    if x.device.type != "cpu" or not len(x):
        return False  # looking would stall the device
    radius = (points**2).sum(dim=1).max() ** 0.5
    size = radius * (radius + (x**2).sum(dim=1, keepdim=True) ** 0.5) * precision
    try:
        size = float(size.detach().max())
    except RuntimeError:
        return False  # values cannot be looked at inside torch.func.vmap
    return size * np.finfo(str(x.dtype)[6:]).eps > (1e-4 if x.dtype == torch.float32 else 1e-11)


def _part(seen, x, precision, want, v, hidden, anchored):
    import torch

    points = seen.points
    by_column = not isinstance(precision, float) and precision.shape[1] > 1
    squares = points**2 if by_column else (points**2).sum(dim=1, keepdim=True)
    if isinstance(precision, float):
        norms = 0.5 * precision * squares.T
    else:
        norms = 0.5 * precision @ squares.T
    logits = (x * precision) @ points.T - norms + seen.log_weights
    barred = None
    if hidden is not None:
        barred = hidden[:, None] == torch.arange(len(points), device=x.device)
        logits = logits.masked_fill(barred, -torch.inf)
    origin = torch.zeros_like(x)
    if anchored:
        origin = points[logits.detach().argmax(dim=1)]
        points = points - origin[:, None]
        scale = precision if isinstance(precision, float) else precision[:, None]
        lag = (x - origin)[:, None]
        logits = (points * scale * (lag - 0.5 * points)).sum(dim=2) + seen.log_weights
        if barred is not None:
            logits = logits.masked_fill(barred, -torch.inf)
    lag = x - origin
    log_sum = torch.logsumexp(logits, dim=1) - 0.5 * (lag**2 * precision).sum(dim=1)
    if want == "log_sum":
        return KernelMoments(log_sum, None, None, None)
    weights = torch.softmax(logits, dim=1)
    average = "mn,mnd->md" if anchored else "mn,nd->md"
    mean = torch.einsum(average, weights, points)
    second = None
    if want == "covariance":
        away = (points if anchored else points[None]) - mean[:, None]
        second = torch.einsum("mni,mnj->mij", weights[:, :, None] * away, away)
    if want == "diagonal":
        second = torch.einsum(average, weights, points**2) - mean**2
    if want == "product":
        along = torch.einsum("mnd,md->mn" if anchored else "nd,md->mn", points, v)
        along = weights * (along - (weights * along).sum(dim=1, keepdim=True))
        second = torch.einsum(average, along, points)
    return KernelMoments(log_sum, origin + mean, mean - lag, second)
