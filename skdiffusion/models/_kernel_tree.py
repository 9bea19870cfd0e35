r"""Which points can matter to which query: boxes around groups of near points.

Distances are in units of the kernel, which may have one width per coordinate.
A group of mass :math:`W_g` in a box at distance :math:`\delta_g` from :math:`x` contributes at
most :math:`W_g e^{-\delta_g^2/2}` to the kernel sum, and by Jensen's inequality at
least :math:`W_g e^{-\overline{|x-y|^2}_g/2}`, the average over the group. With
:math:`S` the sum of the lower bounds over all groups, leaving out every group with

.. math:: e^{-\delta_g^2/2} \le \epsilon\, S

loses at most the share :math:`\epsilon` of the sum, since the masses add up to one. Far from all
groups both sides are large and their difference is rounding, by which more groups are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["PointGroups", "median_groups"]

ROUNDING = 16 * float(np.finfo(float).eps)
"""Of a mean squared distance, over the squares that it is the difference of."""


def median_groups(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups of at most ``size`` near points, by halving the widest column at its median.

    Returns
    -------
    order : ndarray of int of shape (n,)
        Indices of the points, group after group.
    starts : ndarray of int
        Where each group starts, and ``n`` at the end.
    """
    pending = [np.arange(len(points))]
    groups = []
    while pending:
        indices = pending.pop()
        if len(indices) <= size:
            groups.append(indices)
            continue
        members = points[indices]
        column = members[:, np.ptp(members, axis=0).argmax()]
        half = len(indices) // 2
        split = np.argpartition(column, half)
        pending += [indices[split[half:]], indices[split[:half]]]
    starts = np.cumsum([0, *(len(group) for group in groups)])
    return np.concatenate(groups), starts


class PointGroups:
    """Weighted points in groups with bounds on their kernel sums.

    Parameters
    ----------
    points : ndarray of shape (n, d)
    weights : ndarray of shape (n,)
        Positive, of sum one.
    size : int
        Largest number of points in a group.
    units : float or ndarray of shape (d,)
        In which points are near.
    """

    def __init__(self, points: np.ndarray, weights: np.ndarray, size: int = 256, units: Any = 1.0):
        self.order, self.starts = median_groups(points / units, size)
        self.position = np.empty(len(points), np.intp)
        self.position[self.order] = np.arange(len(points))
        self.points, self.weights = points[self.order], weights[self.order]
        first = self.starts[:-1]
        self.group_of = np.repeat(np.arange(len(first)), np.diff(self.starts))
        low = np.minimum.reduceat(self.points, first)
        high = np.maximum.reduceat(self.points, first)
        self.middle, self.half = (low + high) / 2, (high - low) / 2
        self.mass = np.add.reduceat(self.weights, first)
        self.centre = np.add.reduceat(self.points * self.weights[:, None], first)
        self.centre /= self.mass[:, None]
        away = (self.points - self.centre[self.group_of]) ** 2
        self.spread = np.add.reduceat(away * self.weights[:, None], first) / self.mass[:, None]

    def runs(self, wanted) -> list[tuple[int, int]]:
        """Slices ``(start, stop)`` of the points in the wanted groups, neighbours merged."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]])))
        return list(zip(self.starts[edges[::2]], self.starts[edges[1::2]], strict=True))

    def within(self, runs, position):
        """Position among the points of the runs, or -1 for points that are not."""
        result = np.full(len(position), -1)
        before = 0
        for start, stop in runs:
            inside = (position >= start) & (position < stop)
            result[inside] = position[inside] - start + before
            before += stop - start
        return result

    def matter(self, x, variance, log_share, hidden=None) -> np.ndarray:
        """Groups that cannot be left out.

        Parameters
        ----------
        x : ndarray of shape (m, d)
        variance : ndarray of shape (m, 1), (m, d) or (1, d)
        log_share : float
            Logarithm of the share of a row's kernel sum that may be lost.
        hidden : ndarray of int of shape (m,), optional
            Position, in the order of the groups, of the point that a row does not see, or -1.

        Returns
        -------
        ndarray of bool of shape (m, n_groups)
        """
        precision = np.broadcast_to(1 / variance, x.shape)
        nearest = np.zeros((len(x), len(self.mass)))
        columns = x.T, np.sqrt(precision).T, self.middle.T, self.half.T
        for column, root, middle, half in zip(*columns, strict=True):
            gap = column[:, None] - middle
            np.abs(gap, out=gap)
            gap -= half
            np.maximum(gap, 0.0, out=gap)
            gap *= root[:, None]
            gap *= gap
            nearest += gap
        average = (-2.0 * x * precision) @ self.centre.T
        own_square = (x**2 * precision).sum(axis=1)[:, None]
        squares = precision @ (self.spread + self.centre**2).T
        rounding = ROUNDING * (own_square + squares.max(axis=1, keepdims=True))
        average += own_square
        average += squares
        mass = self.mass
        if hidden is not None:
            mass = np.tile(mass, (len(x), 1))
            row = np.flatnonzero(hidden >= 0)
            point = hidden[row]
            own = self.group_of[point]
            weight = self.weights[point]
            distance = ((x[row] - self.points[point]) ** 2 * precision[row]).sum(axis=1)
            left = self.mass[own] - weight
            alone = left <= 1e-12 * self.mass[own]
            left[alone] = 1.0
            average[row, own] = (average[row, own] * self.mass[own] - weight * distance) / left
            mass[row, own] = np.where(alone, 0.0, left)
        with np.errstate(divide="ignore"):
            bounds = np.log(mass) - 0.5 * average
        top = bounds.max(axis=1, keepdims=True)
        log_sum = top + np.log(np.exp(bounds - top).sum(axis=1, keepdims=True))
        return -0.5 * nearest > log_share + log_sum - rounding
