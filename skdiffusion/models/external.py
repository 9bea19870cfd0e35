r"""The one door for models that were not made here.

:func:`~skdiffusion.as_score_model` takes a fitted estimator, a score model, a ``torch.nn.Module``
or any callable. A callable says what it predicts and on which schedule; at noise
level :math:`\bar\sigma` it is asked at

.. math:: t = t(\bar\sigma), \qquad x_t = \alpha(t)\, x,

and the denoiser is read off its output (:mod:`skdiffusion.parameterizations`).
Without a schedule it is asked at ``(x, sigma)`` itself: :math:`\alpha = 1`. Models of other
libraries are recognised by :mod:`skdiffusion.models.adapters`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from skdiffusion.models.adapters import Preconditioned, recognise
from skdiffusion.models.base import BaseScoreModel
from skdiffusion.parameterizations import PREDICTIONS, denoised_from_prediction
from skdiffusion.schedules import EDMSchedule, check_schedule
from skdiffusion.utils.arrays import is_torch, like, namespace, to_numpy
from skdiffusion.utils.validation import check_count, lookup
from skdiffusion.utils.warning import warn_user

__all__ = ["CallableModel", "as_score_model", "check_shape", "labels_beside"]

NEEDED = "a score model, a fitted score estimator, a torch module or a callable is needed"


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
    input_shape : tuple of int, optional
        Shape of a point as ``fn`` takes and returns it, ``(channels, height, width)`` for
        images; by default ``(n_features,)``.
    batch_size : int, optional
        Largest number of points ``fn`` is called with; by default all at once.
    conditional : bool
        Whether ``fn`` takes labels ``(n,)`` as its last argument where there are some.
    noise_conditioning : bool
        Whether ``fn`` is given the times; if not, it is called as ``fn(x_t)``.
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
        input_shape: tuple[int, ...] | None = None,
        batch_size: int | None = None,
        conditional: bool = False,
        noise_conditioning: bool = True,
    ):
        if backend not in (None, "numpy", "torch"):
            raise ValueError(f"backend must be 'torch', 'numpy' or None; got {backend!r}.")
        lookup(prediction, PREDICTIONS, "prediction")
        self.fn = fn
        self.n_features = check_count(n_features, "n_features")
        self.schedule = EDMSchedule() if schedule is None else check_schedule(schedule)
        self.prediction = prediction
        self.backend = backend
        if not _rise(sigma_range):
            raise ValueError(f"sigma_range must be two rising noise levels; got {sigma_range!r}.")
        self.sigma_range = sigma_range
        self.input_shape = (self.n_features,) if input_shape is None else check_shape(input_shape)
        if math.prod(self.input_shape) != self.n_features:
            raise ValueError(
                f"input_shape {self.input_shape} holds {math.prod(self.input_shape)} numbers, "
                f"but a point has {self.n_features}."
            )
        self.batch_size = None if batch_size is None else check_count(batch_size, "batch_size")
        self.is_conditional = bool(conditional)
        self.noise_conditioning = bool(noise_conditioning)

    @property
    def is_differentiable(self) -> bool:
        """Whether torch sees inside: not for NumPy functions."""
        return self.backend != "numpy"

    @property
    def blind_target(self) -> str | None:
        """What a function predicts that is not told the noise level."""
        return None if self.noise_conditioning else self.prediction

    @property
    def _keeps_library(self) -> bool:
        return self.backend is None

    def _denoise(self, x, sigma, y=None):
        times = self.schedule.time_of(sigma)
        alpha, noise = self.schedule.alpha(times), self.schedule.sigma(times)
        rates = self.schedule.rates(times)
        x_t = alpha * x
        output = self._call(x_t, times, y)
        return denoised_from_prediction(self.prediction, output, x_t, alpha, noise, rates)

    def _call(self, x_t, times, y):
        if isinstance(times, float) or times.ndim == 0:
            times = x_t[:, 0] * 0 + times
        else:
            times = times[:, 0]
        if self.backend is None or (self.backend == "torch") == is_torch(x_t):
            point = x_t
            if self.backend == "torch":
                point, times = self._as_parameters(x_t, times)
            return like(self._ask(point, times, y), x_t)
        if self.backend == "numpy":
            return like(self._ask(to_numpy(x_t), to_numpy(times), y), x_t)
        import torch

        with torch.no_grad():
            point, times = self._as_parameters(
                torch.tensor(np.ascontiguousarray(x_t)), torch.tensor(np.ascontiguousarray(times))
            )
            return like(self._ask(point, times, y).cpu().double(), x_t)  # NumPy has no bfloat16

    def _ask(self, x, times, y):
        """What ``fn`` returns at rows, as rows."""
        arguments = [x, times] if self.noise_conditioning else [x]
        if y is not None:
            arguments.append(labels_beside(x, y))
        if self.batch_size is None or len(x) <= self.batch_size:
            return self._ask_batch(*arguments)
        batches = gen_batches(len(x), self.batch_size)
        parts = [self._ask_batch(*(a[rows] for a in arguments)) for rows in batches]
        return namespace(x).concat(parts, axis=0)

    def _ask_batch(self, x, *more):
        points = x.reshape(len(x), *self.input_shape)
        output = self.fn(points, *more)
        if not hasattr(output, "shape"):
            raise TypeError(
                f"the wrapped callable must return an array; got {type(output).__name__}."
            )
        if tuple(output.shape) != tuple(points.shape):
            raise ValueError(
                f"the wrapped callable must return shape {tuple(points.shape)}; "
                f"got {tuple(output.shape)}."
            )
        return output.reshape(x.shape)

    def _as_parameters(self, x, times):
        """Points where the module's weights are, in their dtype."""
        weight = next(iter(getattr(self.fn, "parameters", tuple)()), None)
        if weight is None:
            return x, times
        return (a.to(device=weight.device, dtype=weight.dtype) for a in (x, times))


def check_shape(shape: Any) -> tuple[int, ...]:
    """The shape of a point as a tuple, or a ``ValueError`` that says what it must be."""
    if np.ndim(shape) != 1:
        raise ValueError(
            "input_shape must be a tuple of integers, such as (channels, height, width); got "
            f"{shape!r}."
        )
    return tuple(check_count(size, "every entry of input_shape") for size in shape)


def _rise(levels):
    """Whether these are two noise levels, the second above the first."""
    try:
        low, high = levels
        return 0 <= low < high
    except (TypeError, ValueError):
        return False


def labels_beside(x, y):
    """One label per row, in the library of ``x``."""
    if np.shape(y) != (len(x),):
        raise ValueError(
            f"y must hold one label per row, shape ({len(x)},); got shape {np.shape(y)}."
        )
    if is_torch(x):
        import torch

        return torch.as_tensor(y if is_torch(y) else np.asarray(y), device=x.device)
    return to_numpy(y)


def as_score_model(
    obj: Any,
    *,
    schedule: Any = None,
    prediction: str | None = None,
    n_features: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    sigma_data: float = 0.5,
    backend: str | None = None,
    sigma_range: tuple[float, float] | None = None,
    batch_size: int | None = None,
    conditional: bool | None = None,
    noise_conditioning: bool = True,
) -> BaseScoreModel:
    r"""A score model from whatever holds one.

    Parameters
    ----------
    obj : BaseScoreModel, fitted estimator, torch.nn.Module, callable or diffusers pipeline
        Estimators (also inside a ``FrozenEstimator``) give their ``model_``; networks that come
        with a scheduler of diffusers, its pipelines around a ``UNet2DModel`` and EDM's networks
        (``img_channels``, ``img_resolution``) need nothing else.
    schedule : str, NoiseSchedule, diffusers scheduler or None
        For callables: the schedule of their arguments ``(x_t, t)``; ``None`` means
        ``(x, sigma)`` at noise levels. A scheduler says what is predicted, too.
    prediction : {"noise", "data", "velocity", "v", "score", "edm"}
        For callables: what they return. Has to be said. ``"edm"`` is the network ``F`` inside
        :math:`D = c_{skip} x + c_{out} F(c_{in} x, \log(\sigma)/4)` (Karras et al. 2022).
    n_features : int
        For callables: dimension of a point. Has to be said, here or by ``input_shape``.
    input_shape : tuple of int
        For callables: shape of a point as they take it, ``(channels, height, width)``; by
        default ``(n_features,)``.
    sigma_data : float
        For ``prediction="edm"``: the standard deviation of the data in its coefficients.
    backend : {"torch", "numpy", None}
        For callables: what they compute with (modules: torch). ``None`` passes
        points through as they are.
    sigma_range : tuple of float
        For callables: the noise levels they may be asked at; by default all, or those that a
        scheduler was made for.
    batch_size : int
        For callables: largest number of points in one call.
    conditional : bool
        For callables: whether they take labels ``(n,)`` as their last argument where there are
        some; by default where a network of another library says so.
    noise_conditioning : bool
        For callables: whether they are told the noise level; if not they are called with ``x_t``
        alone (labels beside it, where there are some).

    Returns
    -------
    BaseScoreModel

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If an estimator has not been fitted.
    ValueError
        If a callable comes without ``prediction`` or ``n_features``, or a scheduler is of an
        unknown kind.
    TypeError
        If ``obj`` is none of these.

    Warns
    -----
    UserWarning
        If a module is in training mode and has layers that then behave at random.

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
    if isinstance(obj, type):
        raise TypeError(f"{NEEDED}; got the class {obj.__name__}: give an instance of it.")
    if hasattr(obj, "model_"):
        return as_score_model(obj.model_)
    if isinstance(obj, BaseEstimator):
        if not _is_unfitted(obj):
            raise TypeError(f"{NEEDED}; got {type(obj).__name__}, which is no score estimator.")
        raise NotFittedError(
            f"This {type(obj).__name__} holds no fitted score model: call fit before using it."
        )
    known = recognise(obj, schedule, prediction)
    if known is not None:
        if not noise_conditioning:
            raise ValueError(
                f"{type(obj).__name__} is told the noise level by its library: noise_conditioning "
                "must be True."
            )
        obj, schedule, prediction = known.fn, known.schedule, known.prediction
        input_shape = known.input_shape if input_shape is None else input_shape
        sigma_range = known.sigma_range if sigma_range is None else sigma_range
        conditional = known.conditional if conditional is None else conditional
        backend = "torch"
    if not callable(obj):
        raise TypeError(f"{NEEDED}; got {type(obj).__name__}.")
    if n_features is None and input_shape is not None:
        n_features = math.prod(check_shape(input_shape))
    if prediction is None or n_features is None:
        raise ValueError(
            "a callable needs prediction= (one of "
            f"{', '.join(repr(p) for p in (*PREDICTIONS, 'edm'))}) and n_features= or "
            "input_shape=."
        )
    torch = sys.modules.get("torch")
    if backend is None and torch is not None and isinstance(obj, torch.nn.Module):
        backend = "torch"
    _warn_of_training_mode(obj)
    if prediction == "edm":
        if not noise_conditioning:
            raise ValueError(
                'prediction="edm" scales its input by the noise level, which a model with '
                "noise_conditioning=False is not told: wrap a callable that predicts 'data'."
            )
        if schedule is not None:
            raise ValueError('prediction="edm" is at noise levels: schedule must be None.')
        obj, prediction = Preconditioned(obj, sigma_data), "data"
    return CallableModel(
        obj,
        n_features,
        schedule=schedule,
        prediction=prediction,
        backend=backend,
        sigma_range=(0.0, float("inf")) if sigma_range is None else sigma_range,
        input_shape=input_shape,
        batch_size=batch_size,
        conditional=bool(conditional),
        noise_conditioning=noise_conditioning,
    )


def _is_unfitted(estimator):
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return True
    except TypeError:  # nothing that could be fitted
        pass
    return False


def _warn_of_training_mode(fn):
    modules = getattr(fn, "modules", tuple)()
    random = ("Dropout", "BatchNorm")
    at_random = {
        type(module).__name__
        for module in modules
        if module.training and type(module).__name__.startswith(random) and getattr(module, "p", 1)
    }
    if at_random:
        warn_user(
            f"the module is in training mode, in which {', '.join(sorted(at_random))} make its "
            "answers random or depend on the batch: call its eval() first.",
        )
