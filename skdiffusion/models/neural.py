r"""A network as a score model.

.. math:: D(x, \sigma) = c_{skip} x + c_{out}\, F_\theta(c_{in} x, c_{noise}, y), \qquad
          c_{noise} = \tfrac14 \log\sigma,

with the coefficients of a parameterization (:mod:`skdiffusion.parameterizations`), or the denoiser
:math:`D_0` of a mixture for :math:`c_{skip} x`. Beside the point the network may see **hints**.
With a mixture, :math:`(D_0 - c_{skip} x)/c_{out}`: where the mixture is wrong, its error has the
edges of its components, which a network does not learn but can take back; and of what it adds a
share, the **gain**, may be kept. Of columns whose own law (:mod:`skdiffusion.models.column_laws`)
is sharper than the mixture's, as that of counts, of rounded or bounded numbers, it sees the same:

.. math:: \big(E_j[v_j \mid v] - (A D_0)_j\big)/c_{out}, \qquad v = A x,

along the columns' axes. With a Gaussian skip, direction and distance of the point in the
noised Gaussian,

.. math:: \frac{z}{r}, \ \log r^2, \qquad z_j = \frac{x_j}{\sqrt{\lambda_j + \sigma^2}}, \qquad
          r^2 = \tfrac1d |z|^2 + \epsilon :

where rows differ in scale, as patches of an image do in contrast, the best denoiser along an axis
is a function of :math:`r` times :math:`z_j`, and products are hard to learn. A **blind** network is
told neither :math:`c_{noise}` nor an input scale that depends on the level: it sees the point
:math:`x_t = \alpha x` of its schedule alone.

A **conservative** one is the gradient of an energy: with :math:`u = c_{in} x` and
:math:`\phi(u) = u \cdot G_\theta(u)`,

.. math:: D = c_{skip} x + a\, c_{in} \nabla \phi(c_{in} x), \qquad
          a^2 = \textstyle\sum c_{out}^2 / \sum c_{in}^2 ,

whose Jacobian is symmetric whatever the weights.

Weights live in float32; rows in float64 are served by a float64 copy, because a matrix product in
float32 depends on the batch in its last digits, and a density must not.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.column_laws import ColumnLaws
from skdiffusion.models.labelled_mixture import LabelledMixture
from skdiffusion.models.labels import LabelCode
from skdiffusion.parameterizations import Parameterization
from skdiffusion.utils.arrays import is_torch, like, namespace, to_numpy

__all__ = ["NeuralModel", "Preconditioner"]

FEATURES = 2**22, 2**25
"""Numbers in the widest layer of a network for the rows it is given at once: so many stay near a
processor, whose pace halves beyond; a GPU is busy from there on."""
AT_THE_MEAN = 0.01
"""Square of the distance, in standard deviations, within which a direction fades: at the mean
there is none."""
TINY = 1e-30
"""Variance of a constant column without noise, which float32 can divide by."""


class Preconditioner:
    """What stands around a network: pure arithmetic on tensors, without weights.

    Parameters
    ----------
    parameterization : Parameterization
    schedule : NoiseSchedule
        On whose path predictions are defined.
    variances : array of shape (d,)
        Variances of the columns as the network sees them.
    noise_conditioning : bool
        Whether the network is told the noise level.
    conservative : bool
        Whether the network's output is the gradient of an energy.
    base : LabelledMixture, optional
        Whose denoiser stands in the place of the skip connection.
    hints : bool
        Whether the network sees, beside the point, what the base would have it say; without a base
        the point's direction and distance in the noised Gaussian.
    gain : float
        Share that is kept of what a trained network adds.
    columns : ColumnLaws, optional
        Columns of which the network sees, beside that, what their own law would have it say.
    """

    gain, columns = 1.0, None  # of pickles that know of none

    def __init__(
        self,
        parameterization: Parameterization,
        schedule: Any,
        variances: Any,
        noise_conditioning: bool = True,
        conservative: bool = False,
        base: LabelledMixture | None = None,
        hints: bool = False,
        gain: float = 1.0,
        columns: ColumnLaws | None = None,
    ):
        self.parameterization = parameterization
        self.schedule = schedule
        self.variances = np.array(variances, dtype=np.float64)
        self.noise_conditioning = noise_conditioning
        self.conservative = conservative
        self.base = base
        self.hints = hints
        self.gain = gain
        self.columns = columns

    @property
    def n_inputs(self) -> int:
        """Columns of the points that the network sees."""
        d = len(self.variances)
        own = 0 if self.columns is None else len(self.columns)
        return d + self.hints * (d if self.base is not None else d + 1) + own

    def coefficients(self, sigma):
        """Coefficients at levels ``(n, 1)``, as the network is used."""
        seen = sigma, self.schedule, like(self.variances, sigma)
        found = self.parameterization.coefficients(*seen)
        found = found._replace(out=found.out * self.parameterization.units(*seen))
        if not self.noise_conditioning:
            alpha = self.schedule.alpha(self.schedule.time_of(sigma)) * (0 * sigma + 1.0)
            found = found._replace(input=alpha)
        if self.conservative:
            ratio = (found.out**2).mean(-1) / (found.input**2).mean(-1)
            found = found._replace(out=ratio[..., None] ** 0.5 * found.input)
        return found

    def noise(self, sigma):
        """What the network is told of levels ``(n, 1)``: one number per row."""
        return sigma.log()[:, 0] / 4 if self.noise_conditioning else 0 * sigma[:, 0]

    def output(self, module, point, noise, condition):
        """What the network adds at scaled points, before its output scale."""
        if not self.conservative:
            return module(point, noise, condition)
        from torch.func import vjp

        value, pullback = vjp(lambda u: (u * module(u, noise, condition)).sum(-1), point)
        return pullback(value.new_ones(value.shape))[0]

    def denoise(self, module, x, sigma, codes=None):
        """Denoiser at tensors ``x`` of shape ``(n, d)`` and ``sigma`` of shape ``(n, 1)``.

        Codes of labels are an array: a transform that follows ``x`` would hide their values.
        """
        found = self.coefficients(sigma)
        skip = self.skip(x, sigma, found, codes)
        point = self.point(x, sigma, found, skip)
        condition = None if codes is None else like(codes, x)
        added = found.out * self.output(module, point, self.noise(sigma), condition)
        return skip + (added if self.gain == 1.0 else self.gain * added)

    def skip(self, x, sigma, found, codes):
        """What the network adds to at tensors ``x``, ``sigma`` and codes, and the coefficients."""
        return found.skip * x if self.base is None else self.base.denoise(x, sigma[:, 0], codes)

    def point(self, x, sigma, found, skip):
        """What the network sees of tensors ``x``, given the coefficients and what it adds to."""
        point = found.input * x
        if not self.hints:
            return point
        if self.base is None:
            hints = list(_place(x, like(self.variances, x) + sigma**2))
        else:
            hints = [(skip - found.skip * x) / found.out]
        if self.columns is not None:
            own = self.columns.denoise(x, sigma) - self.columns.along(skip)
            hints.append(own / found.out)
        return namespace(x).concat([point, *hints], axis=1)


def _place(x, variances):
    """Direction, of length near the root of ``d``, and log squared distance of centred rows."""
    z = x / variances.clamp(min=TINY) ** 0.5
    square = (z * z).mean(1, keepdim=True) + AT_THE_MEAN
    return z / square**0.5, square.log()


class NeuralModel(BaseScoreModel):
    """A score model around a torch network.

    Parameters
    ----------
    module : torch.nn.Module
        ``module(points, noise, condition)`` of ``(n, d)``, ``(n,)`` and ``(n, n_conditions)``.
    preconditioner : Preconditioner
    n_features : int
    sigma_range : tuple of float
        Noise levels it was trained on.
    labels : LabelCode, optional
        For conditional models.
    compute_dtype : torch.dtype, optional
        Precision of the network; by default that of the points.
    arguments : dict, optional
        Constructor arguments of the network: copies then hold its weights as NumPy arrays, and
        not the module as it is.
    """

    def __init__(
        self,
        module: Any,
        preconditioner: Preconditioner,
        n_features: int,
        sigma_range: tuple[float, float],
        labels: LabelCode | None = None,
        compute_dtype: Any = None,
        arguments: dict | None = None,
    ):
        self.module = module.eval().requires_grad_(False)
        self.preconditioner = preconditioner
        self.n_features = n_features
        self.sigma_range = sigma_range
        self.labels = labels
        self.compute_dtype = compute_dtype
        self.arguments = arguments
        self._copies: dict = {}
        self._widest: int | None = None

    @property
    def is_conditional(self) -> bool:
        """Whether the model takes labels."""
        return self.labels is not None

    @property
    def is_conservative(self):
        """True for a network that is the gradient of an energy."""
        return True if self.preconditioner.conservative else None

    @property
    def is_blind(self) -> bool:
        """Whether the network is not told the noise level."""
        return not self.preconditioner.noise_conditioning

    @property
    def blind_target(self) -> str | None:
        """What a blind network predicts; ``"data"`` where it adds to a skip connection."""
        if not self.is_blind:
            return None
        return getattr(self.preconditioner.parameterization, "prediction", "data")

    def in_precision(self, dtype: Any) -> NeuralModel:
        """The same model, whose network computes in ``dtype`` whatever the points come in."""
        model = copy.copy(self)
        model.compute_dtype = dtype
        return model

    def __getstate__(self):
        state = {**self.__dict__, "_copies": {}}
        if self.arguments is not None:
            weights = {name: to_numpy(w) for name, w in self.module.state_dict().items()}
            state["module"] = type(self.module), weights
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.arguments is not None:
            self.module = rebuilt(*state["module"], self.arguments)

    def _denoise(self, x, sigma, y=None):
        import torch

        if is_torch(x):
            return self._denoise_tensor(x, sigma, y)
        with torch.no_grad():
            device = next(self.module.parameters()).device
            point = torch.from_numpy(np.ascontiguousarray(x)).to(device)
            return to_numpy(self._denoise_tensor(point, sigma, y))

    def _denoise_tensor(self, x, sigma, y):
        point = x if self.compute_dtype is None else x.to(self.compute_dtype)
        if is_torch(sigma) or np.ndim(sigma):
            level = like(sigma, point).expand(len(x), 1)
        else:
            level = point.new_full((len(x), 1), sigma)
        codes = None
        if self.labels is not None:
            codes = self.labels.encode(to_numpy(y) if is_torch(y) else y, len(x))
        module, size = self._module_for(point), self._rows_at_once(point.device.type != "cpu")
        if len(x) <= size:
            return self.preconditioner.denoise(module, point, level, codes).to(x.dtype)
        parts = [
            self.preconditioner.denoise(
                module, point[rows], level[rows], None if codes is None else codes[rows]
            )
            for rows in gen_batches(len(x), size)
        ]
        return namespace(x).concat(parts, axis=0).to(x.dtype)

    def _rows_at_once(self, on_gpu: bool) -> int:
        """Rows that the widest layer of the network has room for."""
        if self._widest is None:
            n_inputs = self.preconditioner.n_inputs
            self._widest = _widest_layer(self.module, n_inputs, self.labels)
        return max(1, FEATURES[on_gpu] // self._widest)

    def _module_for(self, point):
        """The network in the dtype and on the device of the points."""
        weight = next(self.module.parameters())
        if weight.dtype == point.dtype and weight.device == point.device:
            return self.module
        key = (point.dtype, str(point.device))
        if key not in self._copies:
            self._copies[key] = _converted(self.module, point)
        return self._copies[key]


def _widest_layer(module, n_inputs, labels):
    """Most numbers that a layer of the network gives for one row."""
    import torch

    found = [n_inputs]
    hooks = [
        part.register_forward_hook(
            lambda _, __, out: found.append(out.numel()) if is_torch(out) else None
        )
        for part in module.modules()
    ]
    weight = next(module.parameters())
    try:
        with torch.no_grad():
            condition = None if labels is None else weight.new_zeros((1, labels.n_conditions))
            module(weight.new_zeros((1, n_inputs)), weight.new_zeros(1), condition)
    finally:
        for hook in hooks:
            hook.remove()
    return max(found)


def _converted(module, point):
    """A copy in the dtype and on the device of ``point``; not in place, for ``torch.func``."""
    from torch.nn import Parameter

    module = copy.deepcopy(module)
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    dtype = point.dtype if tensor.is_floating_point() else tensor.dtype
                    moved = tensor.detach().to(device=point.device, dtype=dtype)
                    is_weight = tensors is part._parameters
                    tensors[name] = Parameter(moved, requires_grad=False) if is_weight else moved
    return module


def rebuilt(network: type, weights: dict, arguments: dict):
    """A network from its class, its weights as NumPy arrays and its constructor arguments."""
    import torch

    with torch.random.fork_rng([]):
        module = network(**arguments)
    module.load_state_dict({k: torch.from_numpy(np.array(w)) for k, w in weights.items()})
    return module.eval().requires_grad_(False)
