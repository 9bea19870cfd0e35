r"""A gauge field on top of a score model: other paths, the same laws.

A field ``r`` may be added to the score at a level without changing any marginal, neither of the
flow nor of the reverse diffusion, if and only if

.. math:: \nabla \cdot (p_\sigma\, r) = 0
          \;\Leftrightarrow\; \nabla\cdot r + \langle r, \nabla \log p_\sigma \rangle = 0

(Horvat & Pfister 2024, equation 6). Every antisymmetric :math:`Q(x)` gives one,

.. math:: p\, r_i = \sum_j \partial_j (p\, Q_{ij}), \qquad
          r_i = \sum_j \big(\partial_j Q_{ij} + Q_{ij}\, \partial_j \log p_\sigma\big),

because second derivatives are symmetric. The gradient part of :math:`\nabla\log p_\sigma + r` in
:math:`L^2(p_\sigma)` is :math:`\nabla\log p_\sigma` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skdiffusion.models.jacobian import difference_steps
from skdiffusion.models.wrapper import Wrapper
from skdiffusion.utils.arrays import Parameters, is_torch, like, namespace, to_numpy
from skdiffusion.utils.validation import check_number

__all__ = ["AdditiveGauge"]

ANTISYMMETRY = 1e-6
"""Largest symmetric part of Q, as a share of Q, that is taken for rounding (of float32)."""


class AdditiveGauge(Wrapper):
    r"""A score model plus an exact gauge field: the same marginals along other paths.

    Samples, densities along the flow and the law at every level stay; codes and trajectories do
    not, and a coarse solver has to follow the turns.

    Parameters
    ----------
    model : BaseScoreModel
        An exact one, whose score is the gradient of a log-density.
    Q : array-like of shape (d, d), or callable
        Antisymmetric matrix, the same everywhere; or a function of points ``(n, d)`` that returns
        ``(n, d, d)``.
    divergence : callable, optional
        Of a position-dependent Q: points ``(n, d)`` to :math:`\sum_j \partial_j Q_{ij}`,
        ``(n, d)``. By central differences without.
    fade : float, optional
        Noise level around which the gauge fades, by the factor :math:`1/(1 + (\sigma/f)^4)`. A
        constant gauge that does not fade turns latent codes at all levels without end: their norms
        and densities are defined, their directions are not.

    Raises
    ------
    ValueError
        If Q is not antisymmetric or of another shape.

    References
    ----------
    C. Horvat and J.-P. Pfister, "On gauge freedom, conservativity and intrinsic dimensionality
    estimation in diffusion models", ICLR 2024, equation 6 and section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> turning = AdditiveGauge(GaussianModel([0.0, 0.0], 1.0), [[0.0, -1.0], [1.0, 0.0]])
    >>> turning.score(np.array([[1.0, 0.0]]), 0.0)  # the score (-1, 0) and as much across
    array([[-1., -1.]])
    """

    has_log_prob = has_flow = False  # the score is not the gradient of the log-density any more
    is_conservative = False

    def __init__(
        self,
        model: Any,
        Q: Any,
        *,
        divergence: Callable | None = None,
        fade: float | None = None,
    ):
        super().__init__(model)
        self.divergence_of_Q = divergence
        self.fade = None if fade is None else check_number(fade, "fade", above=0)
        self.Q = Q
        if callable(Q):
            return
        if divergence is not None:
            raise ValueError("divergence belongs to a position-dependent Q: a matrix has none.")
        Q = np.asarray(to_numpy(Q), dtype=np.float64)
        if Q.shape != (self.n_features,) * 2 or not np.isfinite(Q).all():
            raise ValueError(
                f"Q must be a finite matrix of shape ({self.n_features}, {self.n_features}) or a "
                f"callable; got shape {Q.shape}."
            )
        _check_antisymmetric(Q)
        self._seen = Parameters(Q=(Q - Q.T) / 2)
        self.Q = self._seen.Q

    @property
    def model(self) -> Any:
        """The inner model."""
        return self._models[0]

    @property
    def is_constant(self) -> bool:
        """Whether Q is the same everywhere."""
        return not callable(self.Q)

    has_jacobian = property(lambda self: self.is_constant and self.model.has_jacobian)
    _keeps_library = property(lambda self: not self.is_constant or self.model._keeps_library)

    def gauge(self, x: Any, sigma: Any, *, y: Any = None):
        """The gauge field alone, ``(n, d)``; arguments as in :meth:`score`."""
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._gauge(x, sigma, self.model._score(x, sigma, **condition))

    def _gauge(self, x, sigma, score):
        if self.is_constant:
            turned = score @ self._seen.like(x).Q.T
        else:
            turned = namespace(x).matmul(self._matrices(x), score[..., None])[..., 0]
            turned = turned + self._divergence(x, sigma)
        return turned * self._weight(x, sigma)

    def _weight(self, x, sigma):
        """What the gauge is multiplied by: the velocity of the flow is noise variance times r."""
        strength = 1.0 if self.fade is None else 1 / (1 + (sigma / self.fade) ** 4)
        return strength / self._noise_scale_like(x) ** 2

    def _matrices(self, x):
        matrices = like(self.Q(x), x)
        if tuple(matrices.shape) != (*x.shape, self.n_features):
            raise ValueError(
                f"Q must return shape {(*x.shape, self.n_features)}, a matrix per point; "
                f"got {tuple(matrices.shape)}."
            )
        if not is_torch(matrices):
            _check_antisymmetric(matrices)
        return matrices

    def _divergence(self, x, sigma):
        if self.divergence_of_Q is not None:
            found = like(self.divergence_of_Q(x), x)
            if tuple(found.shape) != tuple(x.shape):
                raise ValueError(
                    f"divergence must return shape {tuple(x.shape)}; got {tuple(found.shape)}."
                )
            return found
        scale = self._noise_scale_like(x)
        h = difference_steps(x / scale, sigma) * scale  # Q has no scale of its own but the noise's
        columns = []
        for j, axis in enumerate(np.eye(self.n_features)):
            step = h * like(axis, x)
            ahead, behind = x + step, x - step
            width = (ahead - behind)[:, j : j + 1]  # as it is after rounding
            columns.append((self._matrices(ahead) - self._matrices(behind))[:, :, j] / width)
        return sum(columns)

    def _score(self, x, sigma, **condition):
        score = self.model._score(x, sigma, **condition)
        return score + self._gauge(x, sigma, score)

    def _score_jacobian(self, x, sigma, **condition):
        inner = self.model._score_jacobian(x, sigma, **condition)
        weight = self._weight(x, sigma)
        weight = weight[..., None] if np.ndim(weight) else weight
        return inner + weight * (self._seen.like(x).Q @ inner)

    def _score_jvp(self, x, sigma, v, **condition):
        inner = self.model._score_jvp(x, sigma, v, **condition)
        return inner + self._weight(x, sigma) * (inner @ self._seen.like(x).Q.T)

    def _sample(self, n_samples, sigma, rng):
        return self.model._sample(n_samples, sigma, rng)


def _check_antisymmetric(Q):
    error = np.abs(Q + np.swapaxes(Q, -1, -2)).max(initial=0)
    if error > ANTISYMMETRY * np.abs(Q).max(initial=0):
        raise ValueError(f"Q must be antisymmetric; Q + Q^T is as large as {error:.2g}.")
