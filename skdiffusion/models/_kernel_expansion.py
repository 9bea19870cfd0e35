r"""Gaussian kernel sums in one and two dimensions at a cost that does not grow with the points.

Around a box centre :math:`c`, with :math:`u = (x-c)/\sigma` and :math:`v = (y-c)/\sigma`, the
kernel of one coordinate, whose width may be its own, separates,

.. math:: e^{-(u-v)^2/2} = \sum_a \phi_a(u)\, \phi_a(v), \qquad
          \phi_a(u) = e^{-u^2/2} u^a / \sqrt{a!},

and on boxes of width :math:`2\sigma` (:math:`|v| \le 1`) what is left out by stopping before
the :math:`p`-th term is below :math:`1/\sqrt{p!}`. The points enter once, through the matrix
:math:`A_{(c,a),(c',b)} = \sum_i w_i \phi_a(v_i) \phi_b(v_i')` (the fast Gauss transform of
Greengard & Strain 1991 on a product grid, where it is one matrix product); a query costs the
boxes within reach. The error is absolute, so it is compared with the sum that was found:
rows whose sum is too small for the promise are left to the exact routes.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

__all__ = ["Expansion"]

TERMS = {np.float32: (20, 4), np.float64: (30, 5)}
"""Number of terms, and of boxes on either side that a query sees."""
ERROR = {np.float32: 2e-9, np.float64: 2e-15}
"""Absolute error of a sum of total weight one: what is cut off, and rounding."""
PROMISED = {np.float32: 1e-5, np.float64: 1e-11}
LARGEST = 2**22
"""Number of entries up to which the matrix is formed."""


class Expansion:
    """Expansion of weighted points for one kernel.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        In one or two dimensions.
    weights : ndarray of shape (n,)
        Of sum one.
    sigma : float or ndarray of shape (d,)
        Standard deviation of the kernel, of all coordinates or of each.
    dtype : {numpy.float32, numpy.float64}
        Accuracy to aim for; the arithmetic is float64.
    """

    def __init__(self, points, weights, sigma, dtype):
        self.points, self.weights = points, weights
        self.sigma = np.broadcast_to(sigma, points.shape[1])
        self.terms, self.reach = TERMS[dtype]
        self.error, self.promised = ERROR[dtype], PROMISED[dtype]
        self.low = points.min(axis=0)
        self.count = _box(points, self.low, self.sigma).max(axis=0) + 1
        self._matrices: dict = {}

    def _matrix(self, k):
        """The matrix of the weights (``k = 0``) or of the weights times column ``k - 1``."""
        if k not in self._matrices:
            d = self.points.shape[1]
            boxes = _box(self.points, self.low, self.sigma)
            groups = _groups(boxes)
            order = np.concatenate(groups)  # box after box
            points, weights, boxes = self.points[order], self.weights[order], boxes[order]
            factors = [self._factor(points[:, j], boxes[:, j], j) for j in range(d)]
            factors[0] *= (weights if k == 0 else weights * points[:, k - 1])[:, None]
            # empty boxes around the grid, so that every query sees a full window
            boxes += self.reach
            n_boxes = self.count + 2 * self.reach
            if d == 1:
                boxes = np.column_stack([boxes, np.zeros_like(boxes)])
                factors.append(np.ones((len(boxes), 1)))
                n_boxes = np.append(n_boxes, 1)
            left, right = factors
            matrix = np.zeros((n_boxes[0], left.shape[1], n_boxes[1], right.shape[1]))
            ends = np.cumsum([0, *(len(group) for group in groups)])
            for start, stop in pairwise(ends):
                i, j = boxes[start]
                matrix[i, :, j] = left[start:stop].T @ right[start:stop]
            self._matrices[k] = matrix.reshape(n_boxes[0] * left.shape[1], -1)
        return self._matrices[k]

    @staticmethod
    def affordable(points, sigma, dtype) -> bool:
        """Whether the points spread so little, in units of the kernel, that the matrix is small."""
        if points.shape[1] > 2:
            return False
        terms, reach = TERMS[dtype]
        boxes = np.ptp(points, axis=0) / (2 * sigma) + 1 + 2 * reach
        return float(np.prod(boxes * terms)) <= LARGEST

    def _factor(self, values, box, j):
        """The functions ``phi_a`` of one coordinate around given boxes, ``(..., terms)``."""
        u = (values - self.low[j]) / self.sigma[j] - (2 * box + 1)
        factor = np.empty((*u.shape, self.terms))
        factor[..., 0] = np.exp(-0.5 * u**2)
        for a in range(1, self.terms):
            np.multiply(factor[..., a - 1], u / math.sqrt(a), out=factor[..., a])
        return factor

    def sums(self, x, hidden=None, *, of_points: bool = True):
        """Kernel sums, and which of them are as accurate as promised.

        Parameters
        ----------
        x : ndarray of shape (m, d)
        of_points : bool
            Whether to sum the points times the kernel too.
        hidden : ndarray of int of shape (m,), optional
            Index of the point that each row does not see, or -1.

        Returns
        -------
        sums : ndarray of shape (m, 1 + d) or (m, 1)
            Of the kernel, and of the kernel times the points.
        accurate : ndarray of bool of shape (m,)
        """
        m, d = x.shape
        boxes = _box(x, self.low, self.sigma)
        # a query outside the grid sees what is within reach of its edge
        boxes = np.clip(boxes, 0, self.count - 1)
        window = np.arange(-self.reach, self.reach + 1)
        factors = []
        for j in range(d):
            factor = self._factor(x[:, j, None], boxes[:, j, None] + window, j)
            factors.append(factor.reshape(m, -1))
        width = len(window) * self.terms
        sums = np.empty((m, 1 + d * of_points))
        for part in _groups(boxes):
            first = boxes[part[0]] * self.terms
            rows = slice(first[0], first[0] + width)
            for k in range(sums.shape[1]):
                if d == 1:
                    sums[part, k] = factors[0][part] @ self._matrix(k)[rows, 0]
                    continue
                block = self._matrix(k)[rows, first[1] : first[1] + width]
                sums[part, k] = np.einsum("ij,ij->i", factors[0][part] @ block, factors[1][part])
        if hidden is not None:
            rows = np.flatnonzero(hidden >= 0)
            own = self.points[hidden[rows]]
            kernel = np.exp(-0.5 * (((x[rows] - own) / self.sigma) ** 2).sum(axis=1))
            kernel *= self.weights[hidden[rows]]
            sums[rows, 0] -= kernel
            if of_points:
                sums[rows, 1:] -= kernel[:, None] * own
        return sums, sums[:, 0] * self.promised > self.error


def _box(values, low, sigma):
    # of what is further away than any grid is wide it does not matter by how much
    return np.clip(np.floor((values - low) / (2 * sigma)), -LARGEST, LARGEST).astype(np.intp)


def _groups(boxes):
    """Indices of the rows in each box."""
    if not len(boxes):
        return []
    order = np.lexsort(boxes.T)
    return np.split(order, np.flatnonzero(np.diff(boxes[order], axis=0).any(axis=1)) + 1)
