r"""Networks of other libraries: what they predict, on which schedule, at what points.

======================================= =========================== ==========================
what comes                              network is asked at         it answers
======================================= =========================== ==========================
diffusers' DDPM, DDIM, Euler, ...       :math:`(\alpha x, t)`       noise, v or data
diffusers' EDM schedulers               :math:`(c_{in} x, \tfrac14\log\sigma)`  F, below
diffusers' flow matching                :math:`((1-t) x, N t)`      velocity
diffusers' variance-exploding SDE       :math:`(x, \sigma)`         score
EDM's own networks                      :math:`(x, \sigma)`         data
======================================= =========================== ==========================

The schedulers with numbered timesteps all share the network, whatever their own coordinates:
:math:`\alpha x` is their model input. Between timesteps the network is asked at fractions of
one (:class:`~skdiffusion.discrete_schedule.DiscreteSchedule`). Inside EDM's networks, with
:math:`\sigma_d` the standard deviation of the data (Karras et al. 2022, table 1),

.. math:: D = \frac{\sigma_d^2}{\sigma^2+\sigma_d^2}\, x + \frac{\sigma\,\sigma_d}
          {\sqrt{\sigma^2+\sigma_d^2}}\, F\Big(\frac{x}{\sqrt{\sigma^2+\sigma_d^2}},
          \tfrac14\log\sigma\Big).

Everything is recognised by its looks: no other library is imported. Clipping of the denoised
points, an option of samplers there, is left out: a score model is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from skdiffusion.discrete_schedule import DiscreteSchedule
from skdiffusion.schedules import FlowMatchingSchedule, NoiseSchedule
from skdiffusion.utils.arrays import namespace
from skdiffusion.utils.validation import check_number, lookup

__all__ = ["Foreign", "Preconditioned", "recognise"]

PREDICTION_TYPES = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}
"""What the schedulers of diffusers call predictions."""
ROUNDING = 1e-6
"""How far their levels, in single precision, may lie outside the range in double."""


class Foreign(NamedTuple):
    """What there is to know of a network from elsewhere."""

    fn: Callable
    schedule: NoiseSchedule | None
    prediction: str | None
    input_shape: tuple[int, ...] | None
    sigma_range: tuple[float, float]
    conditional: bool


class Preconditioned:
    """The denoiser ``D(x, sigma)`` around a network of Karras et al. (2022).

    Parameters
    ----------
    network : callable
        ``F(c_in x, log(sigma) / 4)``.
    sigma_data : float
        Standard deviation of the data.
    sign : {1.0, -1.0}
        Of ``F``: one of the conventions predicts its opposite.
    """

    def __init__(self, network: Callable, sigma_data: float = 0.5, sign: float = 1.0):
        self.network = network
        self.sigma_data = check_number(sigma_data, "sigma_data", above=0)
        self.sign = sign

    def __call__(self, x, sigma, *labels):
        """Denoised points of any shape ``(n, ...)`` at levels ``(n,)``."""
        level = sigma.reshape((-1,) + (1,) * (x.ndim - 1))
        total = level**2 + self.sigma_data**2
        output = self.network(x / total**0.5, namespace(sigma).log(sigma) / 4, *labels)
        out = self.sign * level * self.sigma_data / total**0.5
        return self.sigma_data**2 / total * x + out * output

    def parameters(self):
        """Weights of the network, where it has any."""
        return getattr(self.network, "parameters", tuple)()

    def modules(self):
        """Layers of the network, where it has any."""
        return getattr(self.network, "modules", tuple)()


class _Network:
    """A torch network of images and times as a plain function.

    The network computes in the precision and on the device of its weights, times in float32 at
    least: half precision does not tell timesteps apart.
    """

    def __init__(
        self,
        network: Any,
        channels: int | None = None,
        time_unit: float = 1.0,
        n_labels: int = 0,
    ):
        self.network, self.channels, self.time_unit = network, channels, time_unit
        self.n_labels = n_labels

    def __call__(self, x, times, *labels):
        import torch

        weight = next(iter(getattr(self.network, "parameters", tuple)()), x)
        wide = torch.promote_types(weight.dtype, torch.float32)
        times = (times * self.time_unit).to(device=weight.device, dtype=wide)
        labels = [label.to(weight.device) for label in labels]
        if self.n_labels:  # as unit vectors
            labels = [self._as_unit_vectors(label).to(weight) for label in labels]
        output = self.network(x.to(device=weight.device, dtype=weight.dtype), times, *labels)
        if not torch.is_tensor(output):
            output = output[0]
        # learned variances, where there are any, follow the prediction
        return output[:, : self.channels].to(device=x.device, dtype=x.dtype)

    def _as_unit_vectors(self, label):
        import torch

        whole = not (label.is_floating_point() or label.is_complex())
        if not whole or bool(((label < 0) | (label >= self.n_labels)).any()):
            raise ValueError(
                f"labels y of this network are whole numbers from 0 to {self.n_labels - 1}."
            )
        return torch.nn.functional.one_hot(label.long(), self.n_labels)

    def modules(self):
        """Layers of the network."""
        return getattr(self.network, "modules", tuple)()


def recognise(obj: Any, schedule: Any = None, prediction: str | None = None) -> Foreign | None:
    """What is known of a network by the looks of it and of its scheduler.

    Parameters
    ----------
    obj : object
        A torch module or callable, or a diffusers pipeline with ``unet`` and ``scheduler``.
    schedule : object
        A scheduler of diffusers, or anything else.
    prediction : str, optional
        What the user said it predicts: it has the last word.

    Returns
    -------
    Foreign or None
        ``None`` where neither is known here.

    Raises
    ------
    ValueError
        If a scheduler is of a kind that is not known.
    """
    if hasattr(obj, "scheduler") and hasattr(obj, "unet"):
        obj, schedule = obj.unet, obj.scheduler if schedule is None else schedule
    if hasattr(schedule, "config") and hasattr(schedule, "set_timesteps"):
        return _scheduled(obj, schedule, prediction)
    if schedule is None and all(hasattr(obj, name) for name in ("img_channels", "img_resolution")):
        shape = obj.img_channels, obj.img_resolution, obj.img_resolution
        low, high = getattr(obj, "sigma_min", 0.0), getattr(obj, "sigma_max", float("inf"))
        levels, n_labels = (float(low), float(high)), getattr(obj, "label_dim", 0)
        fn = _Network(obj, n_labels=n_labels)
        return Foreign(fn, None, prediction or "data", shape, levels, n_labels > 0)
    return None


def _scheduled(network, scheduler, prediction):
    """A network with a scheduler of diffusers."""
    name, config = type(scheduler).__name__, scheduler.config
    shape, labels = _shape(network), getattr(network, "class_embedding", None) is not None
    channels = None if shape is None else shape[0]
    kind = config.get("prediction_type")
    if "FlowMatch" in name or kind == "flow_prediction":
        n_steps = config["num_train_timesteps"]
        fn = _Network(network, channels, n_steps)
        levels = 1 / (n_steps - 1), float("inf")
        return Foreign(fn, FlowMatchingSchedule(), prediction or "velocity", shape, levels, labels)
    if "ScoreSdeVe" in name:
        levels = config["sigma_min"], config["sigma_max"]
        fn = _Network(network, channels)
        return Foreign(fn, None, prediction or "score", shape, levels, labels)
    if name.startswith("EDM"):
        fn = Preconditioned(
            _Network(network, channels), config["sigma_data"], -1.0 if kind[0] == "v" else 1.0
        )
        levels = config["sigma_min"], config["sigma_max"]
        return Foreign(fn, None, prediction or "data", shape, levels, labels)
    if not hasattr(scheduler, "alphas_cumprod") or config.get("timestep_type") == "continuous":
        raise ValueError(
            f"{name} is of no kind that is known here: schedulers of diffusers with numbered "
            "timesteps (alphas_cumprod), EDM, FlowMatch and ScoreSdeVe are. Give schedule= and "
            "prediction= of this package instead."
        )
    if prediction is None:
        prediction = lookup(kind, PREDICTION_TYPES, "prediction_type of the scheduler")
    schedule = DiscreteSchedule(scheduler.alphas_cumprod.double().numpy())
    levels = schedule.sigma_min * (1 - ROUNDING), schedule.sigma_max * (1 + ROUNDING)
    return Foreign(_Network(network, channels), schedule, prediction, shape, levels, labels)


def _shape(network):
    """Shape of the images of a diffusers model, where its configuration says."""
    config = getattr(network, "config", None)
    size, channels = (getattr(config, name, None) for name in ("sample_size", "in_channels"))
    if size is None or channels is None:
        return None
    return (channels, *((size, size) if isinstance(size, int) else size))
