r"""One fitted potential, and the score model that potentials at several noise levels make.

At level :math:`\sigma_j` the gradient part is that of a reference, whose score :math:`s_0` is a
gradient itself, plus :math:`\nabla\phi_j`. Between levels the denoiser's distance from that of the
reference is interpolated in :math:`\log\sigma`,

.. math:: D(x, \sigma) = D_0(x, \sigma)
          + \sum_j w_j(\sigma)\, \min(\sigma, \sigma_j)^2\, \nabla\phi_j(x),

with hat functions :math:`w_j`: below the first level the score's distance is kept, above the last
it fades to zero within one more step. At every level this is the gradient of a potential again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.wrapper import Wrapper
from skdiffusion.utils.arrays import Parameters, functions, namespace

__all__ = ["Potential", "ProjectedModel"]


class Potential:
    r""":math:`\phi = b^\top(x-\mu) + \tfrac12 (x-\mu)^\top S (x-\mu) + \sum_k c_k \psi_k(x)`.

    Parameters
    ----------
    centre, constant : ndarray of shape (d,)
        :math:`\mu` and :math:`b`.
    matrix : ndarray of shape (d, d)
        Symmetric S.
    features : family of potentials, optional
    coefficients : ndarray of shape (m,), optional
    """

    def __init__(self, centre, constant, matrix, features=None, coefficients=None):
        self.features = features
        self.offset = 0.0
        self._seen = Parameters(
            centre=centre, constant=constant, matrix=matrix, coefficients=coefficients
        )

    @property
    def matrix(self) -> np.ndarray:
        """Symmetric matrix S of the quadratic part."""
        return self._seen.matrix

    @property
    def has_hessian(self) -> bool:
        """Whether second derivatives are known in closed form."""
        return self.features is None or hasattr(self.features, "hessian")

    def value(self, x: Any):
        """Potential at points ``(n, d)``, shape ``(n,)``."""
        seen = self._seen.like(x)
        y = x - seen.centre
        value = y @ seen.constant + ((y @ seen.matrix) * y).sum(-1) / 2 - self.offset
        if self.features is None:
            return value
        return value + self.features.values(x) @ seen.coefficients

    def gradient(self, x: Any):
        """Its gradient, ``(n, d)``."""
        seen = self._seen.like(x)
        gradient = (x - seen.centre) @ seen.matrix + seen.constant
        if self.features is None:
            return gradient
        return gradient + self.features.gradient(x, seen.coefficients)

    def hessian(self, x: Any):
        """Its Hessian, ``(n, d, d)``."""
        seen = self._seen.like(x)
        if self.features is None:
            return namespace(x).broadcast_to(seen.matrix, (*x.shape, x.shape[1]))
        return seen.matrix + self.features.hessian(x, seen.coefficients)


class ProjectedModel(Wrapper):
    """The gradient part of a score at several noise levels as one score model.

    Parameters
    ----------
    reference : BaseScoreModel
        Conservative.
    levels : array-like of shape (n_levels,)
        Rising and positive.
    potentials : sequence of Potential
        One per level: what is added to the reference, in coordinates of isotropic noise.
    """

    has_density = has_log_prob = has_sample = has_flow = False

    def __init__(self, reference: BaseScoreModel, levels: Any, potentials: Any):
        super().__init__(reference)
        self.levels = np.asarray(levels, dtype=np.float64)
        self.potentials = tuple(potentials)

    @property
    def reference(self) -> BaseScoreModel:
        """What the potentials are added to."""
        return self._models[0]

    @property
    def has_jacobian(self) -> bool:
        """Whether Hessians of all potentials are known in closed form."""
        return self.reference.has_jacobian and all(p.has_hessian for p in self.potentials)

    def _shares(self, sigma):
        """Weight of each level, and what its score's distance is multiplied by in the denoiser."""
        u, nodes = functions(sigma).log(sigma), np.log(self.levels).tolist()
        step = nodes[-1] - nodes[-2] if len(nodes) > 1 else math.log(2.0)
        nodes = [-math.inf, *nodes, nodes[-1] + step]
        clip = _clip if isinstance(u, float) else namespace(u).clip
        shares = []
        for before, node, after in zip(nodes, nodes[1:], nodes[2:], strict=False):
            share = clip((after - u) / (after - node), 0.0, 1.0)
            if math.isfinite(before):
                share = share * clip((u - before) / (node - before), 0.0, 1.0)
            variance = (sigma - clip(sigma - math.exp(node), 0.0, math.inf)) ** 2
            shares.append(share * variance)
        return shares

    def _distance(self, name, x, sigma):
        """Distance from the reference of the denoiser, or of its Jacobian, at isotropic noise."""
        total = x * 0.0 if name == "gradient" else 0.0
        for potential, share in zip(self.potentials, self._shares(sigma), strict=True):
            if isinstance(share, float) and share == 0:
                continue
            here = getattr(potential, name)(x)
            if np.ndim(share):
                share = namespace(x).reshape(share, (-1,) + (1,) * (here.ndim - 1))
            total = total + share * here
        return total

    def _denoise(self, x, sigma):
        scale = self._noise_scale_like(x)
        distance = scale * self._distance("gradient", x / scale, sigma)
        return self.reference._denoise(x, sigma) + distance

    def _score(self, x, sigma):
        scale = self._noise_scale_like(x)
        distance = self._distance("gradient", x / scale, sigma) / scale
        return self.reference._score(x, sigma) + distance / sigma**2

    def _denoise_jacobian(self, x, sigma):
        scale = self._noise_scale_like(x)
        distance = self._distance("hessian", x / scale, sigma)
        if np.ndim(scale):
            distance = distance * scale[:, None] / scale
        return self.reference._denoise_jacobian(x, sigma) + distance


def _clip(value, low, high):
    return min(max(value, low), high)
