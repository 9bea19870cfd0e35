r"""Small networks as potentials, trained on their gradients.

A network :math:`e(z) = w_3^\top h(W_2^\top h(W_1^\top z + b_1) + b_2)` with
:math:`h(a) = a/(1 + e^{-a})` has a gradient that can be written down,

.. math:: \nabla e = W_1\, g_1, \quad g_1 = h'(a_1) \odot W_2\, g_2, \quad g_2 = h'(a_2) \odot w_3,

and so has its Hessian. Training minimises :math:`E|v - \nabla\phi|^2` over the weights with one
backward pass through this formula; torch is needed for that alone. Whatever fits isolated rows
exactly would fit a pure gauge field too: training stops where rows held out of it say, which may be
before the first step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.geometry._projection import Candidate, Path, field_sums, solve
from skdiffusion.utils.arrays import Parameters, namespace

__all__ = ["Networks", "cross_validate_networks"]

N_STEPS, BATCH, RATE, LOOK_EVERY = 1000, 256, 5e-3, 25
HELD_OUT = 0.15
"""Share of the training rows that decides when to stop."""


class Networks:
    """Sums of networks: a family of potentials that is as large as the list.

    Parameters
    ----------
    units : Units
    weights : list of dict of ndarray
        ``W1 (d, h)``, ``b1``, ``W2 (h, h)``, ``b2``, ``w3`` of each network.
    """

    def __init__(self, units: Any, weights: list):
        self._units = Parameters(centre=units.centre, scale=units.scale)
        self._networks = [Parameters(**arrays) for arrays in weights]

    def _inputs(self, x):
        units = self._units.like(x)
        return (x - units.centre) / units.scale, units.scale, [p.like(x) for p in self._networks]

    def values(self, x):
        """Values ``(n, m)``."""
        z, _, networks = self._inputs(x)
        return namespace(x).stack([_value(z, p) for p in networks], axis=1)

    def gradient(self, x, coefficients):
        """Gradient of the weighted sum, ``(n, d)``."""
        z, scale, networks = self._inputs(x)
        parts = [c * _gradient(z, p) for c, p in zip(coefficients, networks, strict=True)]
        return sum(parts) / scale

    def hessian(self, x, coefficients):
        """Hessian of the weighted sum, ``(n, d, d)``."""
        z, scale, networks = self._inputs(x)
        parts = [c * _hessian(z, p) for c, p in zip(coefficients, networks, strict=True)]
        return sum(parts) / scale / scale[:, None]


def _activation(a):
    """The unit and its first two derivatives."""
    gate = (1 + namespace(a).tanh(a / 2)) / 2
    rest = 1 - gate
    return a * gate, gate * (1 + a * rest), gate * rest * (2 + a * (1 - 2 * gate))


def _value(z, p):
    first = _activation(z @ p.W1 + p.b1)[0]
    return _activation(first @ p.W2 + p.b2)[0] @ p.w3


def _gradient(z, p):
    unit, slope, _ = _activation(z @ p.W1 + p.b1)
    outer = _activation(unit @ p.W2 + p.b2)[1] * p.w3
    return (slope * (outer @ p.W2.T)) @ p.W1.T


def _hessian(z, p):
    xp = namespace(z)
    unit, slope, bend = _activation(z @ p.W1 + p.b1)
    _, slope2, bend2 = _activation(unit @ p.W2 + p.b2)
    weights = bend * ((slope2 * p.w3) @ p.W2.T)
    own = xp.matmul(p.W1 * weights[:, None, :], p.W1.T)
    deep = xp.matmul(p.W1 * slope[:, None, :], p.W2)
    return own + xp.matmul(deep * (bend2 * p.w3)[:, None, :], xp.permute_dims(deep, (0, 2, 1)))


def cross_validate_networks(units, X, V, weights, folds, width: int, rng, progress) -> Candidate:
    """One network per fold on what the linear part leaves; the potential is their mean.

    Parameters
    ----------
    units : Units
    X, V : ndarrays of shape (n, d)
    weights : ndarray of shape (n,)
    folds : list of ndarray of int
    width : int
        Units of each hidden layer.
    rng : Generator
    progress : callable
        Wraps the iteration over the folds.
    """
    alphas, centre = np.zeros(1), units.centre
    oof, networks, lines = np.empty_like(X), [], []
    for test in progress(folds):
        train = np.setdiff1d(np.arange(len(X)), test)
        line = solve(field_sums(None, centre, X[train], V[train], weights[train]), alphas)
        rest = V[train] - line.gradients(X[train] - centre, None)[:, 0]
        networks.append(_train(units, X[train], rest, weights[train], width, rng))
        lines.append(line)
        alone = Networks(units, networks[-1:])
        oof[test] = line.gradients(X[test] - centre, None)[:, 0] + alone.gradient(X[test], [1.0])
    share = 1 / len(folds)
    matrices = np.mean([line.matrices for line in lines], axis=0)
    constants = np.mean(
        [line.constants - np.einsum("aij,j->ai", line.matrices, line.mean) for line in lines],
        axis=0,
    )
    coefficients = np.full((1, len(folds)), share)
    final = Path(np.zeros_like(centre), constants, matrices, coefficients, np.array([np.inf]))
    losses = ((V - oof) ** 2).sum(axis=1, keepdims=True)
    return Candidate("neural", Networks(units, networks), alphas, losses, final, lambda k: oof)


def _train(units, X, V, weights, width, rng):
    """Weights of one network, as arrays."""
    import torch

    n, d = X.shape
    size = float(np.sqrt(np.average((V**2).sum(axis=1), weights=weights) / d)) or 1.0

    def tensor(values, grad=False):
        return torch.tensor(values, dtype=torch.float32, requires_grad=grad)

    class Weights:
        W1 = tensor(rng.standard_normal((d, width)) / np.sqrt(d), True)
        b1 = tensor(rng.standard_normal(width), True)
        W2 = tensor(rng.standard_normal((width, width)) / np.sqrt(width), True)
        b2 = tensor(np.zeros(width), True)
        w3 = tensor(np.zeros(width), True)

    names = ("W1", "b1", "W2", "b2", "w3")
    trained = [getattr(Weights, name) for name in names]
    order = rng.permutation(n)
    n_out = max(int(HELD_OUT * n), 1)
    held, rows = order[:n_out], order[n_out:]
    z, target, mass = (
        tensor(a) for a in (units.inward(X), V * units.scale / size, weights / weights.mean())
    )
    metric = tensor(1 / units.scale**2 / np.mean(1 / units.scale**2))

    def loss(index):
        error = (target[index] - _gradient(z[index], Weights)) ** 2 * metric
        return (error.sum(1) * mass[index]).sum() / mass[index].sum()

    optimizer = torch.optim.Adam(trained, lr=RATE)
    best, kept = np.inf, None
    for step in range(N_STEPS + 1):
        if step % LOOK_EVERY == 0:
            with torch.no_grad():
                found = float(loss(held))
            if found < best:
                best, kept = found, [w.detach().numpy().astype(np.float64) for w in trained]
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + np.cos(np.pi * step / N_STEPS)) / 2
        optimizer.zero_grad()
        loss(rows[rng.integers(len(rows), size=min(BATCH, len(rows)))]).backward()
        optimizer.step()
    arrays = dict(zip(names, kept, strict=True))
    arrays["w3"] = arrays["w3"] * size
    return arrays
