r"""A score model bent towards rows that weigh more.

Where rows are to follow :math:`\tilde p_0 \propto p_0\, w` with a known weight
:math:`w(x_0) > 0`, the clean row behind a noised one has the law
:math:`\tilde p(x_0 \mid x) \propto p(x_0 \mid x)\, w(x_0)`. To first order in the spread of the
posterior its mean is

.. math:: \tilde D(x, \sigma) = D + \operatorname{Cov}[x_0 \mid x]\, \nabla \log w(D), \qquad
          \operatorname{Cov}[x_0 \mid x] = \sigma^2 (\partial D / \partial x)^\top,

which is the gradient of :math:`\log w(D(x))` taken through the denoiser (Chung et al. 2023). It
is exact where the posterior is normal and :math:`\log w` linear. A weight that is sharp beside the
posterior's spread overshoots at high noise: use a smaller ``scale``, or the exact conditional of a
Gaussian or a mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skdiffusion.models.jacobian import vjp
from skdiffusion.models.wrapper import Wrapper
from skdiffusion.utils.arrays import is_torch, like, to_numpy
from skdiffusion.utils.validation import check_number

__all__ = ["GuidedModel", "LabelGuidedModel"]


class GuidedModel(Wrapper):
    """Guidance of a score model by a differentiable log-weight.

    Parameters
    ----------
    model : BaseScoreModel
    log_weight : callable, optional
        ``log_weight(x)`` of torch points ``(n, d)`` gives ``(n,)``; autograd differentiates it.
    gradient : callable, optional
        Instead: the gradient itself, ``(n, d)`` of points ``(n, d)`` as they come.
    scale : float
        Exponent of the weight.

    Raises
    ------
    ValueError
        If not exactly one of ``log_weight`` and ``gradient`` is given; when it is asked, if what
        they return is not of the points.

    References
    ----------
    H. Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> law = GaussianModel([0.0, 0.0], [4.0, 1.0])
    >>> tilted = GuidedModel(law, gradient=lambda x: np.ones_like(x))  # w = exp(x_1 + x_2)
    >>> tilted.denoise(np.zeros((1, 2)), sigma=1e6).round(6)  # the mean moves by C (1, 1)
    array([[4., 1.]])
    """

    has_log_prob = has_jacobian = has_sample = has_flow = False
    is_differentiable = False
    is_conservative = None

    def __init__(
        self,
        model: Any,
        log_weight: Callable | None = None,
        *,
        gradient: Callable | None = None,
        scale: float = 1.0,
    ):
        super().__init__(model)
        if (log_weight is None) == (gradient is None) or not callable(log_weight or gradient):
            raise ValueError("give one callable: log_weight (of torch points) or gradient.")
        self.log_weight = log_weight
        self.gradient = gradient
        self.scale = check_number(scale, "scale")

    @property
    def model(self) -> Any:
        """The inner model."""
        return self._models[0]

    def _denoise(self, x, sigma, **condition):
        denoised = self.model._denoise(x, sigma, **condition)
        variance = (sigma * self._noise_scale_like(x)) ** 2
        return denoised + variance * self._tilt(x, sigma, denoised, condition)

    def _score(self, x, sigma, **condition):
        denoised = self.model._denoise(x, sigma, **condition)
        score = self.model._score(x, sigma, **condition)
        return score + self._tilt(x, sigma, denoised, condition)

    def _tilt(self, x, sigma, denoised, condition):
        """What guidance adds to the score: the gradient of ``scale log w(D(x))``."""
        pull = like(self._gradient_at(denoised), x)
        if tuple(pull.shape) != tuple(x.shape):
            raise ValueError(
                f"the gradient of the log-weight must have shape {tuple(x.shape)}; "
                f"got {tuple(pull.shape)}."
            )
        level = sigma[:, 0] if np.ndim(sigma) else sigma
        return self.scale * vjp(self.model, x, level, pull, of="denoise", **condition)

    def _gradient_at(self, points):
        if self.gradient is not None:
            return self.gradient(points)
        import torch

        tensor = points.detach() if is_torch(points) else torch.tensor(points)
        with torch.enable_grad():
            tensor = tensor.requires_grad_()
            log_weight = self.log_weight(tensor)
            if not is_torch(log_weight) or tuple(log_weight.shape) != (len(tensor),):
                raise ValueError(
                    f"log_weight must return a tensor of shape ({len(tensor)},), one per row."
                )
            if not log_weight.requires_grad:
                raise ValueError(
                    "log_weight must be computed from the points by torch: autograd finds no way "
                    "from them to what it returned."
                )
            (gradient,) = torch.autograd.grad(log_weight.sum(), tensor)
        return gradient if is_torch(points) else to_numpy(gradient)


class LabelGuidedModel(Wrapper):
    r"""Classifier-free guidance: labels count more, or less, than in the law itself.

    The score is that of :math:`p(x)\,(p(x \mid y)/p(x))^{w}` noise level by noise level,

    .. math:: \tilde D(x, \sigma) = D(x, \sigma) + w\,[D(x, \sigma \mid y) - D(x, \sigma)],

    which is the law itself for :math:`w = 1`, and for other weights the noised law of nothing.

    Parameters
    ----------
    model : BaseScoreModel
        Conditional.
    scale : float
        The weight :math:`w`.

    Raises
    ------
    ValueError
        If the model is unconditional.

    References
    ----------
    J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance", 2022.
    """

    has_log_prob = has_jacobian = has_sample = has_flow = has_density = False
    is_conservative = None

    def __init__(self, model: Any, scale: float = 1.0):
        super().__init__(model)
        if not model.is_conditional:
            raise ValueError("guidance by labels needs a model that was fitted with labels y.")
        self.scale = check_number(scale, "scale")

    @property
    def model(self) -> Any:
        """The inner model."""
        return self._models[0]

    def _denoise(self, x, sigma, y=None):
        without = self.model._denoise(x, sigma)
        if y is None:
            return without
        return without + self.scale * (self.model._denoise(x, sigma, y=y) - without)
