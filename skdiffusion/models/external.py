r"""The one door for models that were not made here.

:func:`as_score_model` takes a fitted estimator, a score model, a ``torch.nn.Module``
or any callable. A callable says what it predicts and on which schedule; at noise
level :math:`\bar\sigma` it is asked at

.. math:: t = t(\bar\sigma), \qquad x_t = \alpha(t)\, x,

and the denoiser is read off its output (:mod:`skdiffusion.parameterizations`).
Without a schedule it is asked at ``(x, sigma)`` itself: :math:`\alpha = 1`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.parameterizations import PREDICTIONS, denoised_from_prediction
from skdiffusion.schedules import EDMSchedule, check_schedule
from skdiffusion.utils.arrays import is_torch, like, to_numpy
from skdiffusion.utils.validation import check_count, lookup

__all__ = ["CallableModel", "as_score_model"]


class CallableModel(BaseScoreModel):
    """A score model around a callable ``fn(x_t, t)``.

    Parameters
    ----------
    fn : callable or torch.nn.Module
        Called with points ``(n, d)`` and times ``(n,)``; returns ``(n, d)``.
    n_features : int
    schedule : str, NoiseSchedule or None
        Schedule of ``x_t`` and ``t``; ``None``: ``fn(x, sigma)`` at noise levels.
    prediction : {"noise", "data", "velocity", "v", "score"}
        What ``fn`` returns.
    backend : {"torch", "numpy", None}
        What ``fn`` computes with. Points are converted on the way in and out; ``None``
        hands them over as they are, for functions of either.
    sigma_range : tuple of float
        Noise levels at which ``fn`` may be asked.
    """

    def __init__(
        self,
        fn: Callable,
        n_features: int,
        *,
        schedule: Any = None,
        prediction: str = "data",
        backend: str | None = None,
        sigma_range: tuple[float, float] = (0.0, float("inf")),
    ):
        if backend not in (None, "numpy", "torch"):
            raise ValueError(f"backend must be 'torch', 'numpy' or None; got {backend!r}.")
        lookup(prediction, PREDICTIONS, "prediction")
        self.fn = fn
        self.n_features = check_count(n_features, "n_features")
        self.schedule = EDMSchedule() if schedule is None else check_schedule(schedule)
        self.prediction = prediction
        self.backend = backend
        self.sigma_range = sigma_range

    @property
    def is_differentiable(self) -> bool:
        """Whether torch sees inside: not for NumPy functions."""
        return self.backend != "numpy"

    @property
    def _keeps_library(self) -> bool:
        return self.backend is None

    def _denoise(self, x, sigma):
        times = self.schedule.time_of(sigma)
        alpha, noise = self.schedule.alpha(times), self.schedule.sigma(times)
        rates = self.schedule.rates(times)
        x_t = alpha * x
        output = self._call(x_t, times)
        if tuple(output.shape) != tuple(x.shape):
            raise ValueError(
                f"the wrapped callable must return shape {tuple(x.shape)}; "
                f"got {tuple(output.shape)}."
            )
        return denoised_from_prediction(self.prediction, output, x_t, alpha, noise, rates)

    def _call(self, x_t, times):
        if isinstance(times, float) or times.ndim == 0:
            times = x_t[:, 0] * 0 + times
        else:
            times = times[:, 0]
        if self.backend is None or (self.backend == "torch") == is_torch(x_t):
            point = x_t
            if self.backend == "torch":
                point, times = self._as_parameters(x_t, times)
            return like(self.fn(point, times), x_t)
        if self.backend == "numpy":
            return like(self.fn(to_numpy(x_t), to_numpy(times)), x_t)
        import torch

        with torch.no_grad():
            point, times = self._as_parameters(
                torch.tensor(np.ascontiguousarray(x_t)), torch.tensor(np.ascontiguousarray(times))
            )
            return like(self.fn(point, times).cpu().numpy(), x_t)

    def _as_parameters(self, x, times):
        """Points where the module's weights are, in their dtype."""
        weight = next(iter(getattr(self.fn, "parameters", tuple)()), None)
        if weight is None:
            return x, times
        return (a.to(device=weight.device, dtype=weight.dtype) for a in (x, times))


def as_score_model(
    obj: Any,
    *,
    schedule: Any = None,
    prediction: str | None = None,
    n_features: int | None = None,
    backend: str | None = None,
    sigma_range: tuple[float, float] = (0.0, float("inf")),
) -> BaseScoreModel:
    """A score model from whatever holds one.

    Parameters
    ----------
    obj : BaseScoreModel, fitted estimator, torch.nn.Module or callable
        Estimators (also inside a ``FrozenEstimator``) give their ``model_``.
    schedule : str, NoiseSchedule or None
        For callables: the schedule of their arguments ``(x_t, t)``; ``None`` means
        ``(x, sigma)`` at noise levels.
    prediction : {"noise", "data", "velocity", "v", "score"}
        For callables: what they return. Has to be said.
    n_features : int
        For callables: dimension of a point. Has to be said.
    backend : {"torch", "numpy", None}
        For callables: what they compute with (modules: torch). ``None`` passes
        points through as they are.
    sigma_range : tuple of float
        For callables: the noise levels they may be asked at.

    Returns
    -------
    BaseScoreModel

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If an estimator has not been fitted.
    ValueError
        If a callable comes without ``prediction`` or ``n_features``.
    TypeError
        If ``obj`` is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> model = as_score_model(
    ...     lambda x, sigma: -x / (1 + sigma[:, None] ** 2), prediction="score", n_features=2
    ... )
    >>> model.denoise(np.array([[1.0, 3.0]]), 1.0)
    array([[0.5, 1.5]])
    """
    if isinstance(obj, BaseScoreModel):
        return obj
    if hasattr(obj, "model_"):
        return as_score_model(obj.model_)
    if isinstance(obj, BaseEstimator):
        raise NotFittedError(
            f"This {type(obj).__name__} holds no fitted score model: call fit before using it."
        )
    if not callable(obj):
        raise TypeError(
            "a score model, a fitted score estimator, a torch module or a callable is needed; "
            f"got {type(obj).__name__}."
        )
    if prediction is None or n_features is None:
        raise ValueError(
            "a callable needs prediction= (one of "
            f"{', '.join(repr(p) for p in PREDICTIONS)}) and n_features=."
        )
    torch = sys.modules.get("torch")
    if backend is None and torch is not None and isinstance(obj, torch.nn.Module):
        backend = "torch"
    return CallableModel(
        obj,
        n_features,
        schedule=schedule,
        prediction=prediction,
        backend=backend,
        sigma_range=sigma_range,
    )
