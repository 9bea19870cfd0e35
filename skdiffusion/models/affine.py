r"""A score model seen through an affine change of coordinates.

For :math:`x = b + s\,Q z`, with ``z`` known to the inner model at level
:math:`\sigma/\bar s`,

.. math::
    D_x = b + s\,Q D_z, \qquad
    \nabla_x \log p = Q\, \nabla_z \log p / s, \qquad
    \log p_x = \log p_z - \textstyle\sum_j \log |s_j| .

A scalar scale keeps the noise isotropic. One scale per column makes it
:math:`\sigma s_j/\bar s` in column ``j``, with :math:`\bar s` the geometric mean of
:math:`|s_j|`, so that its volume does not depend on the scales.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.wrapper import Wrapper
from skdiffusion.utils.arrays import Parameters

__all__ = ["AffineModel"]


class AffineModel(Wrapper):
    r"""The law of :math:`x = b + s\,Q z` when the inner model knows the law of ``z``.

    This is how standardisation is folded into a model, log-determinant included.

    Parameters
    ----------
    model : BaseScoreModel
        Model of ``z``.
    shift : float or array-like of shape (d,)
        Offset :math:`b`.
    scale : float or array-like of shape (d,)
        Scale :math:`s`, not zero. A scalar keeps the noise isotropic. With one
        scale per column the noise has standard deviation :math:`\sigma s_j / \bar s`
        in column ``j``, :math:`\bar s` the geometric mean: isotropic as the inner model
        sees it, of unchanged volume, and ``sigma`` stays in the units of the data.
    rotation : array-like of shape (d, d), optional
        Orthogonal :math:`Q`; needs a scalar scale.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> unit = GaussianModel(mean=np.zeros(2), covariance=1.0)
    >>> model = AffineModel(unit, shift=5.0, scale=2.0)
    >>> model.log_prob(np.array([[5.0, 5.0]]), 0.0).round(6)  # -log(2 pi 4)
    array([-3.224171])
    """

    def __init__(self, model: Any, shift: Any = 0.0, scale: Any = 1.0, rotation: Any = None):
        super().__init__(model)
        d = self.n_features
        scale = np.asarray(scale, dtype=np.float64)
        if scale.shape not in ((), (d,)) or not (np.isfinite(scale).all() and (scale != 0).all()):
            raise ValueError(f"scale must be a finite non-zero scalar or vector of shape ({d},).")
        if np.shape(shift) not in ((), (d,)) or not np.isfinite(shift).all():
            raise ValueError(f"shift must be a finite scalar or vector of shape ({d},).")
        if rotation is not None:
            rotation = np.asarray(rotation, dtype=np.float64)
            if scale.ndim or np.ndim(model.noise_scale):
                raise ValueError("a rotation needs isotropic noise: give a scalar scale.")
            if rotation.shape != (d, d) or np.abs(rotation @ rotation.T - np.eye(d)).max() > 1e-8:
                raise ValueError(f"rotation must be an orthogonal matrix of shape ({d}, {d}).")
        size = np.abs(scale)
        unit = float(np.exp(np.mean(np.log(size)))) if size.ndim else float(size)
        self._seen = Parameters(
            shift=shift, scale=scale, sign=np.sign(scale), rotation=rotation, metric=scale / unit
        )
        self._unit = unit
        self._log_det = float(np.log(np.abs(scale)).sum() * (1 if scale.ndim else d))

    @property
    def model(self) -> BaseScoreModel:
        """The inner model."""
        return self._models[0]

    @property
    def noise_scale(self):
        """Standard deviation of the noise per column at level one."""
        if not self._seen.scale.ndim:
            return self.model.noise_scale
        scale = np.abs(self._seen.metric) * self.model.noise_scale
        # scaled back to where the noise is isotropic
        return 1.0 if np.ptp(scale) < 1e-12 else scale

    @property
    def sigma_range(self):
        """Noise levels between which the model may be asked."""
        low, high = self.model.sigma_range
        return low * self._unit, high * self._unit

    def _inward(self, x):
        seen = self._seen.like(x)
        x = x - seen.shift
        return (x if seen.rotation is None else x @ seen.rotation) / seen.scale

    def _outward(self, z):
        return self._turn(self._seen.like(z).scale * z) + self._seen.like(z).shift

    def _turn(self, z):
        rotation = self._seen.like(z).rotation
        return z if rotation is None else z @ rotation.T

    def _level(self, sigma):
        return sigma / self._unit

    def _denoise(self, x, sigma, **condition):
        return self._outward(self.model._denoise(self._inward(x), self._level(sigma), **condition))

    def _score(self, x, sigma, **condition):
        score = self.model._score(self._inward(x), self._level(sigma), **condition)
        return self._turn(score / self._seen.like(x).scale)

    def _log_prob(self, x, sigma, **condition):
        log_prob = self.model._log_prob(self._inward(x), self._level(sigma), **condition)
        return log_prob - self._log_det

    def _score_jacobian(self, x, sigma, **condition):
        inner = self.model._score_jacobian(self._inward(x), self._level(sigma), **condition)
        scale = self._seen.like(x).scale
        return self._turn_matrices(inner / (scale * (scale[:, None] if scale.ndim else scale)), x)

    def _denoise_jacobian(self, x, sigma, **condition):
        inner = self.model._denoise_jacobian(self._inward(x), self._level(sigma), **condition)
        scale = self._seen.like(x).scale
        return self._turn_matrices(inner * scale[:, None] / scale if scale.ndim else inner, x)

    def _score_jvp(self, x, sigma, v, **condition):
        inner = self._inner_jvp("_score_jvp", x, sigma, v, condition)
        return self._turn(inner / self._seen.like(x).scale)

    def _denoise_jvp(self, x, sigma, v, **condition):
        inner = self._inner_jvp("_denoise_jvp", x, sigma, v, condition)
        return self._turn(inner * self._seen.like(x).scale)

    def _inner_jvp(self, name, x, sigma, v, condition):
        seen = self._seen.like(x)
        v = (v if seen.rotation is None else v @ seen.rotation) / seen.scale
        return getattr(self.model, name)(self._inward(x), self._level(sigma), v, **condition)

    def _score_divergence(self, x, sigma, **condition):
        if self._seen.scale.ndim:  # the diagonal is weighted: it takes the whole matrix
            return super()._score_divergence(x, sigma, **condition)
        inner = self.model._score_divergence(self._inward(x), self._level(sigma), **condition)
        return inner / self._seen.like(x).scale ** 2

    def _denoise_divergence(self, x, sigma, **condition):
        return self.model._denoise_divergence(self._inward(x), self._level(sigma), **condition)

    def _denoise_and_divergence(self, x, sigma, **condition):
        denoised, trace = self.model._denoise_and_divergence(
            self._inward(x), self._level(sigma), **condition
        )
        return self._outward(denoised), trace

    def _turn_matrices(self, inner, x):
        rotation = self._seen.like(x).rotation
        return inner if rotation is None else rotation @ inner @ rotation.T

    def _flow(self, x, sigma_from, sigma_to):
        return self._outward(
            self.model._flow(self._inward(x), self._level(sigma_from), self._level(sigma_to))
        )

    def _to_latent(self, x, sigma):
        inner = self.model._to_latent(self._inward(x), self._level(sigma))
        return self._turn(inner * self._seen.like(x).sign)

    def _from_latent(self, z, sigma):
        seen = self._seen.like(z)
        z = (z if seen.rotation is None else z @ seen.rotation) * seen.sign
        return self._outward(self.model._from_latent(z, self._level(sigma)))

    def _sample(self, n_samples, sigma, rng):
        return self._outward(self.model._sample(n_samples, self._level(sigma), rng))
