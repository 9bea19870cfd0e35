r"""Mixtures of probabilistic PCA: leading axes plus an isotropic rest per component.

The covariances are ``(variances, axes, residuals)`` of shapes ``(k, r)``, ``(k, d, r)`` and
``(k,)``. In few columns the axes are the leading eigenvectors of the components' scatters
and the rest is the mean of the other eigenvalues (Tipping & Bishop 1999, appendix C).

In many columns no scatter is formed. With loadings :math:`W = U(\Lambda - s)^{1/2}`, so that
:math:`W^\top W + s = \Lambda`, the EM step for the factors too (section 3.3 there),

.. math:: W \leftarrow S W (s + \Lambda^{-1} W^\top S W)^{-1}, \qquad
          s \leftarrow \operatorname{tr}(S - S W_{old} \Lambda^{-1} W^\top)/d,

needs the product :math:`S U` and the trace only. It increases the likelihood as well, and
turns the axes as subspace iteration does.
"""

from __future__ import annotations

import math

import numpy as np

from skdiffusion.estimators._mixture_experts import LowRankExpert
from skdiffusion.estimators._mixture_forms import FullForm, weighted_rows
from skdiffusion.estimators._pull import shape_and_scales
from skdiffusion.estimators._seeding import nearest
from skdiffusion.models import SpectralCovariance

__all__ = ["LowRankForm"]

MATRIX_UP_TO = 256
"""Number of columns up to which the axes come from whole scatter matrices."""
START_ROWS = 400
"""Rows per component from which the first axes are found in many columns."""


class LowRankForm(FullForm):
    """Leading axes plus isotropic rest per component: a mixture of probabilistic PCA."""

    whitens_columns = False
    matrix_up_to = MATRIX_UP_TO

    def enough(self, d):
        return self.rank + 2

    def _whole(self, d):
        return d <= self.matrix_up_to

    def _first_spread(self, centres, X, weights):
        if self._whole(X.shape[1]):
            return None
        k, d, r = len(centres), X.shape[1], self.rank
        labels = nearest(X, centres)
        variances, axes = np.empty((k, r)), np.empty((k, d, r))
        total = float(weights @ np.einsum("nd,nd->n", X, X, dtype=np.float64)) / weights.sum() / d
        for j in range(k):
            rows = np.flatnonzero(labels == j)
            rows = rows[:: max(len(rows) // START_ROWS, 1)]
            sample = (X[rows] - centres[j]) / math.sqrt(max(len(rows), 1))
            variances[j], axes[j] = _leading(sample.astype(np.float64, copy=False), r)
        # every axis starts above the rest: one that does not could never leave it
        rest = np.maximum(variances.min(axis=1) / 2, 1e-3 * total)
        return np.maximum(variances, 1.1 * rest[:, None]), axes, rest

    def expert(self, mixture, dtype):
        return LowRankExpert(mixture.means, *mixture.spread, dtype)

    def add(self, statistics, X, gamma, mixture):
        if self._whole(X.shape[1]):
            super().add(statistics, X, gamma, mixture)
            return
        axes = mixture.spread[1].astype(X.dtype, copy=False)
        for k, scaled in weighted_rows(statistics, X, gamma):
            statistics.second[k, :, :-1] += scaled.T @ (scaled @ axes[k])
            statistics.second[k, 0, -1] += np.einsum("nd,nd->", scaled, scaled)

    def add_scatter(self, statistics, k, scatter, mixture):
        if self._whole(len(scatter)):
            statistics.second[k] += scatter
            return
        statistics.second[k, :, :-1] += scatter @ mixture.spread[1][k]
        statistics.second[k, 0, -1] += np.trace(scatter)

    def matrices(self, mixture):
        variances, axes, residuals = mixture.spread
        excess = (variances - residuals[:, None])[:, None, :]
        rest = residuals[:, None, None] * np.eye(axes.shape[1])
        return np.matmul(axes * excess, axes.transpose(0, 2, 1)) + rest

    def from_matrices(self, matrices, weights):
        d, r = matrices.shape[1], self.rank
        variances, axes = np.linalg.eigh(matrices)
        variances, axes = np.maximum(variances[:, ::-1], 0), axes[:, :, ::-1]
        rest = variances[:, r:].mean(axis=1) if r < d else np.zeros(len(variances))
        return variances[:, :r], np.ascontiguousarray(axes[:, :, :r]), rest

    def covariances(self, mixture, scale):
        squared = scale[0] ** 2
        return [
            SpectralCovariance(squared * variances, axes, squared * residual)
            for variances, axes, residual in zip(*mixture.spread, strict=True)
        ]

    def from_covariances(self, covariances, weights, scale):
        shape = (len(scale), self.rank)
        if any(c.axes is None or c.axes.shape != shape for c in covariances):
            return super().from_covariances(covariances, weights, scale)
        squared = scale[0] ** 2
        return (
            np.stack([c.variances for c in covariances]) / squared,
            np.stack([c.axes for c in covariances]),
            np.array([c.residual for c in covariances]) / squared,
        )

    def _no_second(self, k, d):
        # in high dimension the products with the axes and, in a last column, the trace
        return np.zeros((k, d, d if self._whole(d) else self.rank + 1))

    def _spread(self, statistics, shift, old):
        if not self._whole(shift.shape[1]):
            return self._from_products(statistics, shift, *old.spread)
        return self.from_matrices(super()._spread(statistics, shift, old), None)

    def _from_products(self, statistics, shift, variances, axes, residuals):
        d, count = shift.shape[1], statistics.count
        along = np.einsum("kd,kdr->kr", shift, axes)
        products = statistics.second[:, :, :-1] - (
            count[:, None, None] * shift[:, :, None] * along[:, None, :]
        )
        traces = statistics.second[:, 0, -1] - count * (shift**2).sum(axis=1)
        # here the pull is towards a sphere of the component's own scale
        pooled, scales = shape_and_scales(
            np.maximum(traces, 0) / d, count, self.pull, self.enough(d)
        )
        weight = np.maximum(count + self.pull, np.finfo(float).tiny)
        isotropic = self.pull * scales * pooled / weight + self.floor
        new_variances, new_axes, new_residuals = (a.copy() for a in (variances, axes, residuals))
        for k in np.flatnonzero(count > 0):
            root = np.sqrt(np.maximum(variances[k] - residuals[k], 0))
            product = (products[k] / weight[k] + isotropic[k] * axes[k]) * root
            trace = max(traces[k], 0) / weight[k] + d * isotropic[k]
            inner = (root[:, None] * axes[k].T) @ product / variances[k][:, None]
            system = inner + residuals[k] * np.eye(len(root))
            loadings = np.linalg.solve(system.T, product.T).T
            explained = np.sum(product / variances[k] * loadings)
            # at most the floor is in every direction
            rest = max((trace - explained) / d, self.floor, np.finfo(float).tiny)
            left, singular, _ = np.linalg.svd(loadings, full_matrices=False)
            new_axes[k], new_residuals[k] = left, rest
            new_variances[k] = singular**2 + rest
        return new_variances, new_axes, new_residuals

    def _n_spread(self, k, d):
        r = self.rank
        return k * (d * r - r * (r - 1) // 2 + 1)


def _leading(rows, r):
    """Squared lengths and directions of the ``r`` longest principal axes of some rows."""
    lengths, across = np.linalg.eigh(rows @ rows.T)
    lengths, across = lengths[::-1][:r], across[:, ::-1][:, :r]
    found = int(np.sum(lengths > 1e-10 * lengths.max(initial=0)))
    axes = rows.T @ (across[:, :found] / np.sqrt(lengths[:found]))
    if found < r:  # rows too few for all axes: the others start anywhere
        rest = np.random.default_rng(0).standard_normal((rows.shape[1], r - found))
        axes = np.linalg.qr(np.hstack([axes, rest]))[0]
    return np.r_[lengths[:found], np.zeros(r - found)], axes
