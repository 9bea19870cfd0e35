r"""Families of potentials whose gradients are regressed on: :math:`\phi = \sum_k c_k \psi_k`.

With :math:`z = (x - \mu)/s`, s the scale of the data,

=================== ===================================================================
polynomial          monomials of :math:`z` of degree 3 and more
kernel              :math:`\sum_j T_{jk}\, k(z, z_j)` around rows :math:`z_j`, the Matern kernel of
                    smoothness 5/2 and width :math:`\ell`; :math:`T T^\top = K^{-1}`: coefficients
                    have the kernel's own norm
random features     :math:`\cos(\omega_k^\top z + b_k)`, :math:`\omega_k` from the spectrum of
                    the same kernel, a t law of five degrees of freedom
=================== ===================================================================

Quadratics are not among them: the linear part of a field is fitted exactly beside them
(:mod:`skdiffusion.geometry.linear`). Every family gives values, gradients and Hessians with respect
to ``x``.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import comb
from typing import Any

import numpy as np
from scipy.special import factorial

from skdiffusion.models.covariance import GRADED
from skdiffusion.utils.arrays import Parameters, namespace

__all__ = ["Kernel", "Polynomial", "RandomFeatures", "Units"]


class Units:
    """Centre and scale of the rows: one scale, or one per column where those are far apart."""

    def __init__(self, rows: np.ndarray, weights: np.ndarray):
        shares = weights / weights.sum()
        self.centre = shares @ rows
        spread = np.sqrt(shares @ (rows - self.centre) ** 2)
        typical = float(np.sqrt(np.mean(spread**2))) or 1.0
        positive = spread[spread > 0]
        graded = len(positive) and positive.max() > GRADED * positive.min()
        # one scale for all commutes with rotations; a column without variance has no scale
        self.scale = (
            np.where(spread > 0, spread, typical) if graded else np.full(len(spread), typical)
        )

    def inward(self, x):
        """Points in these units."""
        return (x - self.centre) / self.scale


class Polynomial:
    r"""Monomials :math:`\sqrt{k!/\alpha!}\, z^\alpha` of degree k from three to ``degree``.

    With these factors a rotation leaves the norm of the coefficients as it is. Those of one degree
    have gradients of mean square one.
    """

    def __init__(self, units: Units, rows: np.ndarray, weights: np.ndarray, degree: int):
        d = rows.shape[1]
        self.powers = np.array(
            [
                np.bincount(columns, minlength=d)
                for k in range(3, degree + 1)
                for columns in combinations_with_replacement(range(d), k)
            ],
            dtype=int,
        ).reshape(-1, d)
        self._seen = Parameters(centre=units.centre, scale=units.scale)
        degrees = self.powers.sum(axis=1)
        self.factor = np.sqrt(factorial(degrees) / factorial(self.powers).prod(axis=1))
        gradients = self.gradients(rows)
        squares = np.einsum("nkd,nkd,n->k", gradients, gradients, weights / weights.sum())
        for k in range(3, degree + 1):
            size = np.sqrt(squares[degrees == k].mean())
            self.factor[degrees == k] /= size or 1.0

    @staticmethod
    def count(d: int, degree: int) -> int:
        """Number of monomials of degree three to ``degree`` in ``d`` variables."""
        return sum(comb(d + k - 1, k) for k in range(3, degree + 1))

    def values(self, x):
        """Values ``(n, m)``."""
        return self._monomials(x, self.powers, 1.0)

    def gradients(self, x):
        """Gradients ``(n, m, d)``."""
        xp = namespace(x)
        return xp.stack([self._derivative(x, (i,)) for i in range(x.shape[1])], axis=2)

    def gradient(self, x, coefficients):
        """Gradient of the weighted sum, ``(n, d)``."""
        xp = namespace(x)
        return xp.stack(
            [self._derivative(x, (i,)) @ coefficients for i in range(x.shape[1])], axis=1
        )

    def hessian(self, x, coefficients):
        """Hessian of the weighted sum, ``(n, d, d)``."""
        xp, d = namespace(x), range(x.shape[1])
        rows = [[self._derivative(x, (i, j)) @ coefficients for j in d] for i in d]
        return xp.stack([xp.stack(row, axis=1) for row in rows], axis=1)

    def _derivative(self, x, columns):
        powers, factor = self.powers.copy(), np.ones(len(self.powers))
        for j in columns:
            factor = factor * powers[:, j]
            powers[:, j] = np.maximum(powers[:, j] - 1, 0)
        unit = self._seen.scale[list(columns)].prod()
        return self._monomials(x, powers, factor / unit)

    def _monomials(self, x, powers, factor):
        seen, xp = self._seen.like(x), namespace(x)
        z = (x - seen.centre) / seen.scale
        tables = [z * 0 + 1]
        for _ in range(int(self.powers.max(initial=0))):
            tables.append(tables[-1] * z)
        table = xp.stack(tables, axis=0)
        product = Parameters(factor=factor * self.factor).like(x).factor
        for j in range(x.shape[1]):
            product = product * xp.permute_dims(table[:, :, j][powers[:, j]], (1, 0))
        return product


class RandomFeatures:
    """Cosines of random directions: the kernel, approximately."""

    def __init__(self, units: Units, n_components: int, width: float, rng: np.random.Generator):
        d = len(units.scale)
        tails = np.sqrt(rng.chisquare(5, (n_components, 1)) / 5)
        directions = rng.standard_normal((n_components, d)) / (width * tails)
        self._seen = Parameters(
            directions=directions / units.scale,
            phases=rng.uniform(0, 2 * np.pi, n_components),
            centre=units.centre,
            # of unit mean squared gradient in these units, whatever the width
            size=np.sqrt((directions**2).sum(axis=1) / 2) / np.mean(units.scale),
        )

    def _angles(self, x):
        seen = self._seen.like(x)
        return (x - seen.centre) @ seen.directions.T + seen.phases

    def values(self, x):
        """Values ``(n, m)``."""
        return namespace(x).cos(self._angles(x)) / self._seen.like(x).size

    def gradients(self, x):
        """Gradients ``(n, m, d)``."""
        seen = self._seen.like(x)
        return -(namespace(x).sin(self._angles(x)) / seen.size)[..., None] * seen.directions

    def gradient(self, x, coefficients):
        """Gradient of the weighted sum, ``(n, d)``."""
        seen = self._seen.like(x)
        return -(namespace(x).sin(self._angles(x)) * (coefficients / seen.size)) @ seen.directions

    def hessian(self, x, coefficients):
        """Hessian of the weighted sum, ``(n, d, d)``."""
        seen, xp = self._seen.like(x), namespace(x)
        weights = -xp.cos(self._angles(x)) * (coefficients / seen.size)
        return xp.matmul(weights[:, None, :] * seen.directions.T, seen.directions)


class Kernel:
    """Matern bumps around some of the rows, orthonormal in the kernel's own space."""

    def __init__(self, units: Units, landmarks: np.ndarray, width: float):
        z = units.inward(landmarks) / width
        values, axes = np.linalg.eigh(_matern(_distances(z, z))[0])
        kept = values > 1e-8 * values[-1]  # below is the rounding of what is squared later
        # gradients of order one, as those of the other families
        mix = axes[:, kept] / np.sqrt(values[kept]) * (width * np.mean(units.scale))
        self._seen = Parameters(centres=z, mix=mix, centre=units.centre, scale=width * units.scale)

    def _bumps(self, x):
        seen = self._seen.like(x)
        z = (x - seen.centre) / seen.scale
        return z, *_matern(_distances(z, seen.centres))

    def values(self, x):
        """Values ``(n, m)``."""
        return self._bumps(x)[1] @ self._seen.like(x).mix

    def gradients(self, x):
        """Gradients ``(n, m, d)``."""
        seen, xp = self._seen.like(x), namespace(x)
        z, _, slope, _ = self._bumps(x)
        columns = [
            (slope * (seen.centres[:, j] - z[:, j : j + 1])) @ seen.mix / seen.scale[j]
            for j in range(x.shape[1])
        ]
        return xp.stack(columns, axis=2)

    def gradient(self, x, coefficients):
        """Gradient of the weighted sum, ``(n, d)``."""
        seen = self._seen.like(x)
        z, _, slope, _ = self._bumps(x)
        slope = slope * (seen.mix @ coefficients)
        return (slope @ seen.centres - slope.sum(-1)[:, None] * z) / seen.scale

    def hessian(self, x, coefficients):
        """Hessian of the weighted sum, ``(n, d, d)``."""
        seen, xp = self._seen.like(x), namespace(x)
        z, _, slope, bend = self._bumps(x)
        weights = seen.mix @ coefficients
        slope, bend = slope * weights, bend * weights
        identity = Parameters(eye=np.eye(x.shape[1])).like(x).eye
        first = (bend @ seen.centres)[:, :, None] * z[:, None, :]
        outer = xp.matmul(bend[:, None, :] * seen.centres.T, seen.centres)
        outer = outer - first - xp.permute_dims(first, (0, 2, 1))
        outer = outer + bend.sum(-1)[:, None, None] * (z[:, :, None] * z[:, None, :])
        return (outer - slope.sum(-1)[:, None, None] * identity) / (
            seen.scale * seen.scale[:, None]
        )


def _distances(a: Any, b: Any):
    xp = namespace(a)
    squares = (a * a).sum(-1)[:, None] + (b * b).sum(-1) - 2 * (a @ b.T)
    return xp.sqrt(xp.clip(squares, min=0.0) + 1e-30)  # the root has no derivative at zero


def _matern(distances: Any):
    """Matern kernel of smoothness 5/2, ``-k'/r`` and ``-(k'/r)'/r`` with its sign turned."""
    xp, r = namespace(distances), 5**0.5 * distances
    decay = xp.exp(-r)
    return (1 + r + r * r / 3) * decay, 5 / 3 * (1 + r) * decay, 25 / 3 * decay
