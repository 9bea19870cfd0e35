r"""Sums of Gaussian kernels over a weighted set of points, for NumPy and torch queries.

With :math:`\pi_i(x) \propto w_i \exp(-|x-y_i|^2/2\sigma^2)` these are
:math:`\log \sum_i w_i e^{-|x-y_i|^2/2\sigma^2}` and the mean and covariance of
:math:`y` under :math:`\pi(x)`, row by row.

NumPy queries take the routes of :mod:`._kernel_tiles`, after :mod:`._kernel_tree` has
said which points can matter where that leaves out enough of them. Torch queries stay on
their device with their autograd graph.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import sklearn

from skdiffusion.models._kernel_tiles import (
    Block,
    KernelMoments,
    is_well_conditioned,
    kernel_moments,
)
from skdiffusion.models._kernel_tree import PointGroups, median_groups
from skdiffusion.utils.arrays import Parameters, is_torch, like

__all__ = ["KernelSums"]

TREE_UP_TO = 16
"""Dimension up to which boxes around groups of points can be expected to help."""
TREE_PAIRS = 2**22
"""Number of pairs from which building the groups is worth it."""
GROUP_OF_QUERIES = 48
LEFT_OUT = {np.float32: 3e-6, np.float64: 1e-11}
"""Share of a kernel sum that far points may carry in and still be left out."""


class KernelSums:
    """Gaussian kernel sums over points ``(n, d)`` with weights that sum to one."""

    def __init__(self, points: np.ndarray, weights: np.ndarray):
        kept = np.flatnonzero(weights > 0)
        self._position = np.full(len(points), -1, np.intp)
        self._position[kept] = np.arange(len(kept))
        points, self._weights = points[kept], weights[kept]
        # centred, so that rounding is relative to the spread and not to the offset
        self._centre = self._weights @ points
        points = points - self._centre
        self._block = self._new_block(points, self._weights)
        self._seen = Parameters(
            centre=self._centre, points=points, log_weights=np.log(self._weights)
        )
        self._groups: PointGroups | None = None

    def __getstate__(self):
        # what can be rebuilt is not stored
        return self._weights, self._position, self._centre, self._block.points

    def __setstate__(self, state):
        self._weights, self._position, self._centre, points = state
        self._block = self._new_block(points, self._weights)
        self._seen = Parameters(
            centre=self._centre, points=points, log_weights=np.log(self._weights)
        )
        self._groups = None

    @staticmethod
    def _new_block(points, weights):
        equal = (weights == weights[0]).all()
        return Block(points, float(np.log(weights[0])) if equal else np.log(weights))

    def log_sum(self, x: Any, sigma: Any, exclude: Any = None):
        """Logarithm of the kernel sum, shape ``(m,)``."""
        return self._moments(x, sigma, "log_sum", exclude)[0]

    def mean(self, x: Any, sigma: Any, exclude: Any = None):
        """Mean of the points under the kernel weights, shape ``(m, d)``."""
        return self._moments(x, sigma, "mean", exclude)[1] + self._seen.like(x).centre

    def shift(self, x: Any, sigma: Any, exclude: Any = None):
        """Mean of the points under the kernel weights minus ``x``, shape ``(m, d)``."""
        return self._moments(x, sigma, "mean", exclude)[2]

    def covariance(self, x: Any, sigma: Any, exclude: Any = None):
        """Covariance of the points under the kernel weights, shape ``(m, d, d)``."""
        return self._moments(x, sigma, "covariance", exclude)[3]

    def covariance_product(self, x: Any, sigma: Any, v: Any, exclude: Any = None):
        """Covariance times the rows of ``v``, shape ``(m, d)``."""
        return self._moments(x, sigma, "product", exclude, v)[3]

    def _moments(self, x, sigma, want, exclude, v=None):
        hidden = None if exclude is None else np.where(exclude < 0, -1, self._position[exclude])
        if is_torch(x):
            return self._torch_moments(x, sigma, want, v, hidden)
        rows = np.asarray(x, np.float64) - self._centre
        sigma = np.broadcast_to(np.asarray(sigma, np.float64), (len(x), 1))
        v = None if v is None else np.asarray(v, np.float64)
        found = None
        # rows of similar level together, so that each tile has one route
        band = np.floor(2 * np.log2(sigma[:, 0]))
        for value in np.unique(band) if len(x) else [0.0]:
            index = np.flatnonzero(band == value)
            part = self._numpy_moments(
                rows[index],
                sigma[index] ** 2,
                want,
                x.dtype.type,
                None if v is None else v[index],
                None if hidden is None else hidden[index],
            )
            if len(index) == len(x):
                found = part
                break
            found = _place(found, part, index, len(x))
        return [None if moment is None else moment.astype(x.dtype, copy=False) for moment in found]

    # ------------------------------------------------------------------ NumPy

    def _numpy_moments(self, x, variance, want, dtype, v, hidden):
        options = {"want": want, "dtype": dtype}
        if self._tree_may_help(len(x)):
            # second moments weigh far points with their squared distance
            share = LEFT_OUT[dtype] if want in ("log_sum", "mean") else 1e-14
            found = self._by_groups(x, variance, v, hidden, np.log(share), options)
            if found is not None:
                return found
        return kernel_moments(self._block, x, variance, v=v, hidden=hidden, **options)

    def _tree_may_help(self, n_queries):
        n, d = self._block.points.shape
        if d > TREE_UP_TO or n < 2048:
            return False
        return n_queries > 0 and (self._groups is not None or n * n_queries >= TREE_PAIRS)

    def _by_groups(self, x, variance, v, hidden, log_share, options):
        if self._groups is None:
            self._groups = PointGroups(self._block.points, self._weights)
            self._grouped_block = self._new_block(self._groups.points, self._groups.weights)
        groups, whole = self._groups, self._grouped_block
        if hidden is not None:
            hidden = np.where(hidden < 0, -1, groups.position[hidden])

        def matter(index):
            rows = None if hidden is None else hidden[index]
            return groups.matter(x[index], variance[index], log_share, rows)

        probe = np.arange(0, len(x), -(-len(x) // 32))
        if (matter(probe) @ np.diff(groups.starts)).mean() > 0.6 * len(groups.points):
            return None
        local = not is_well_conditioned(whole.size(x, variance), options["dtype"])
        if not local:  # made once, for all subsets
            whole.columns(options["dtype"])
            whole.features(options["dtype"], options["want"])
        order, starts = median_groups(x, GROUP_OF_QUERIES)
        found = None
        for start, stop in pairwise(starts):
            index = order[start:stop]
            runs = groups.runs(matter(index).any(axis=0))
            block, origin = whole.subset(runs), 0.0
            if local:
                origin = x[index].mean(axis=0)
                block = block.recentred(origin)
            part = kernel_moments(
                block,
                x[index] - origin,
                variance[index],
                v=None if v is None else v[index],
                hidden=None if hidden is None else groups.within(runs, hidden[index]),
                **options,
            )
            if part.mean is not None:
                part.mean[...] += origin
            found = _place(found, part, index, len(x))
        return found

    # ------------------------------------------------------------------ torch

    def _torch_moments(self, x, sigma, want, v, hidden):
        import torch

        seen = self._seen.like(x)
        n, d = seen.points.shape
        x = x - seen.centre
        sigma = like(sigma, x).expand(len(x), 1)
        v = None if v is None else like(v, x)
        anchored = self._cancels(x, sigma)
        copies = 4 * d if anchored or want == "covariance" else 4
        memory = sklearn.get_config()["working_memory"] * 2**20 / x.element_size()
        tall = max(1, int(memory / (copies * n)))
        parts = []
        for start in range(0, max(len(x), 1), tall):
            rows = slice(start, start + tall)
            parts.append(
                _torch_part(
                    seen,
                    x[rows],
                    sigma[rows] ** 2,
                    want,
                    None if v is None else v[rows],
                    None if hidden is None else torch.as_tensor(hidden[rows], device=x.device),
                    anchored,
                )
            )
        return [None if f[0] is None else torch.cat(f) for f in zip(*parts, strict=True)]

    def _cancels(self, x, sigma):
        """Whether the terms of the exponent are too large for their difference to be accurate."""
        import torch

        if x.device.type != "cpu" or not len(x):
            return False  # looking would stall the device
        try:
            lowest = float(sigma.detach().min())
        except RuntimeError:
            return False  # inside torch.func.vmap values cannot be looked at
        return (self._block.radius / lowest) ** 2 * torch.finfo(x.dtype).eps > (
            1e-4 if x.dtype == torch.float32 else 1e-11
        )


def _torch_part(seen, x, variance, want, v, hidden, anchored):
    import torch

    points = seen.points
    logits = (x @ points.T - 0.5 * (points**2).sum(dim=1)) / variance + seen.log_weights
    if hidden is not None:
        barred = hidden[:, None] == torch.arange(len(points), device=x.device)
        logits = logits.masked_fill(barred, -torch.inf)
    origin = torch.zeros_like(x)
    if anchored:
        # coordinates relative to the best point of each row, where nothing cancels
        origin = points[logits.detach().argmax(dim=1)]
        points = points - origin[:, None]
        inner = (points * (x[:, None] - origin[:, None] - 0.5 * points)).sum(dim=2)
        logits = inner / variance + seen.log_weights
        if hidden is not None:
            logits = logits.masked_fill(barred, -torch.inf)
    lag = x - origin
    log_sum = torch.logsumexp(logits, dim=1) - 0.5 * (lag**2).sum(dim=1) / variance[:, 0]
    if want == "log_sum":
        return KernelMoments(log_sum, None, None, None)
    weights = torch.softmax(logits, dim=1)
    average = "mn,mnd->md" if anchored else "mn,nd->md"
    mean = torch.einsum(average, weights, points)
    second = None
    if want == "covariance":
        away = (points if anchored else points[None]) - mean[:, None]
        second = torch.einsum("mni,mnj->mij", weights[:, :, None] * away, away)
    if want == "product":
        along = torch.einsum("mnd,md->mn" if anchored else "nd,md->mn", points, v)
        along = weights * (along - (weights * along).sum(dim=1, keepdim=True))
        second = torch.einsum(average, along, points)
    return KernelMoments(log_sum, origin + mean, mean - lag, second)


def _place(found, part, index, length):
    """Write the moments of some rows among those of all."""
    if found is None:
        found = [None if m is None else np.empty((length, *m.shape[1:])) for m in part]
    for target, values in zip(found, part, strict=True):
        if target is not None:
            target[index] = values
    return found
