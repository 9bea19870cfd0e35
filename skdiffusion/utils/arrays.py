r"""Arrays that stay where the user put them.

A score model computes in the array library, on the device and in the floating
dtype of the points it is given. Its parameters are stored once, as float64
NumPy arrays, and shown to the computation *as seen from* those points:

.. math:: \theta \;\mapsto\; \theta|_{\mathrm{library,\ device,\ dtype\ of\ } x}.

:class:`Parameters` does that and remembers the conversions. The functions here
are the only place of the package that asks which array library is at work.
"""

from __future__ import annotations

import functools
import math
import operator
from types import SimpleNamespace
from typing import Any

import array_api_compat
import array_api_compat.numpy as numpy_namespace
import numpy as np
from scipy.linalg.blas import daxpy, saxpy

__all__ = [
    "LARGEST",
    "SMALLEST",
    "Parameters",
    "as_directions",
    "as_levels",
    "as_points",
    "by_place",
    "functions",
    "host_views",
    "is_torch",
    "labels_of",
    "like",
    "linear_combination",
    "namespace",
    "shifted",
    "to_numpy",
]

IN_CACHE = 2**13
"""Numbers of an array that a core's own cache holds while others stream past; so few also that
BLAS does not share them among threads, which would wait for each other."""
SMALLEST, LARGEST = 1e-150, 1e150
"""Numbers that float64 can square, and divide by the square of."""


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor; never imports torch."""
    return array_api_compat.is_torch_array(x)


def namespace(x: Any):
    """Array namespace of ``x``; NumPy's for scalars and lists."""
    if isinstance(x, (np.ndarray, float)) or not array_api_compat.is_array_api_obj(x):
        return numpy_namespace
    return array_api_compat.array_namespace(x)


def functions(x: Any):
    """Where ``exp``, ``sqrt``, ... of ``x`` live: ``math`` for a float, so that it stays one."""
    return math if isinstance(x, (int, float)) else namespace(x)


def to_numpy(x: Any) -> np.ndarray:
    """``x`` as a NumPy array on the host, without its autograd graph."""
    if is_torch(x):
        return x.detach().cpu().numpy()
    return np.asarray(x)


def host_views(*values: Any) -> list | None:
    """NumPy views of tensors that are mere numbers on the host; ``None`` if one is not.

    Mere numbers are those that nothing follows: no graph, no tangent, no transform of
    ``torch.func``. What is not a tensor stays as it is.

    Examples
    --------
    >>> import torch
    >>> host_views(torch.ones(2, requires_grad=True), 1.0) is None
    True
    """
    import torch
    from torch.autograd.forward_ad import unpack_dual

    views = []
    for x in values:
        if is_torch(x):
            if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
                return None
            if x.requires_grad or unpack_dual(x).tangent is not None:
                return None
            try:
                x = x.numpy()
            except RuntimeError:  # wrapped by a transform
                return None
        views.append(x)
    return views


def like(values: Any, x: Any):
    """``values`` in the namespace, on the device and in the dtype of ``x``."""
    if is_torch(x):
        import torch

        if is_torch(values):
            return values.to(device=x.device, dtype=x.dtype)
        # torch.tensor copies: parameters are read-only, and torch warns of sharing such memory
        return torch.tensor(np.asarray(values), dtype=x.dtype, device=x.device)
    return np.asarray(to_numpy(values), dtype=x.dtype)


def as_points(x: Any, n_features: int, name: str = "x"):
    """Points as a floating ``(n, d)`` array in their own namespace.

    Raises
    ------
    ValueError
        If ``x`` is not two-dimensional with ``n_features`` columns.
    """
    if is_torch(x):
        if not x.is_floating_point():
            raise ValueError(f"{name} must have a floating dtype; got {x.dtype}.")
    else:
        x = np.asarray(x)
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64)
    if x.ndim != 2 or x.shape[1] != n_features:
        raise ValueError(
            f"{name} must have shape (n, {n_features}), one point per row; "
            f"got shape {tuple(x.shape)}."
        )
    return x


def as_directions(v: Any, x: Any, name: str = "v"):
    """One direction per row of ``x``, like ``x``."""
    if tuple(np.shape(v)) != tuple(x.shape):
        raise ValueError(
            f"{name} must hold one direction per row of x, shape {tuple(x.shape)}; "
            f"got shape {tuple(np.shape(v))}."
        )
    if not is_torch(v):
        v = np.ascontiguousarray(v)  # torch takes no negative strides
    return like(v, x)


def as_levels(sigma: Any, x: Any, name: str = "sigma", allow_zero: bool = True):
    """A noise level ready to broadcast against the rows of ``x``.

    Parameters
    ----------
    sigma : float or array of shape (n,)
        One level for all rows or one per row.
    x : array of shape (n, d)
        The points the levels belong to.
    name : str
        What to call ``sigma`` in an error.
    allow_zero : bool
        Whether a level of exactly zero is a valid request.

    Returns
    -------
    float or array of shape (n, 1)
        A Python float for a scalar (a 0-d tensor stays one, with its graph).

    Raises
    ------
    ValueError
        If a level is no number, negative, not finite, beyond what float64 can square, or of the
        wrong shape. The values of torch tensors are trusted: looking at them would stall the
        device.
    """
    bound = "non-negative" if allow_zero else "positive"
    if is_torch(sigma):
        sigma = like(sigma, x)
        if sigma.ndim == 0:
            return sigma
    elif isinstance(sigma, float) and SMALLEST <= sigma <= LARGEST:
        return float(sigma)
    else:
        try:
            values = np.asarray(sigma, dtype=np.float64)
        except (TypeError, ValueError):
            values = None
        if values is None or sigma is None:
            raise ValueError(
                f"{name} must be a {bound} number, or one per row; got {sigma!r}."
            ) from None
        held = (values >= SMALLEST) & (values <= LARGEST) | (values == 0) & allow_zero
        if not np.all(held):
            bad = values[~held].flat[0]
            if 0 < bad < math.inf:
                bound += f", from {SMALLEST:g} to {LARGEST:g},"
            raise ValueError(f"{name} must be {bound} and finite; got {bad:g}.")
        if values.ndim == 0:
            return float(values)
        sigma = like(values, x)
    if tuple(sigma.shape) != (x.shape[0],):
        raise ValueError(
            f"{name} must be a scalar or hold one level per row, shape ({x.shape[0]},); "
            f"got shape {tuple(sigma.shape)}."
        )
    return sigma[:, None]


def by_place(y: Any):
    """Labels whose rows are found by their place, whatever the index of a Series is.

    Parameters
    ----------
    y : array-like of shape (n,), tensor or None

    Returns
    -------
    ndarray, tensor or None
    """
    return y if y is None or is_torch(y) else np.asarray(y)


def labels_of(y: Any, x: Any):
    """Labels of the rows of ``x`` by their place, one of each; ``None`` for none.

    Parameters
    ----------
    y : array-like of shape (n,), tensor or None
    x : array of shape (n, d)

    Returns
    -------
    ndarray, tensor or None

    Raises
    ------
    ValueError
        If there is not one label per row.
    """
    y = by_place(y)
    if y is not None and (not y.ndim or len(y) != len(x)):
        got = len(y) if y.ndim else "a single one"
        raise ValueError(f"y must hold one label per row, {len(x)}; got {got}.")
    return y


def linear_combination(factors: list, arrays: list):
    """Sum of arrays of shape ``(n, d)`` times factors, in one pass over them.

    Parameters
    ----------
    factors : list of float or array of shape (n, 1)
    arrays : list of array of shape (n, d)
        All of one library and dtype.

    Returns
    -------
    array of shape (n, d)

    Examples
    --------
    >>> linear_combination([1.0, -2.0], [np.ones((1, 2)), np.eye(1, 2)])
    array([[-1.,  1.]])
    """
    if not all(isinstance(factor, float) for factor in factors):
        terms = (factor * x for factor, x in zip(factors, arrays, strict=True))
        return functools.reduce(operator.add, terms)
    if is_torch(arrays[0]):
        total = factors[0] * arrays[0]
        for factor, x in zip(factors[1:], arrays[1:], strict=True):
            total.add_(x, alpha=factor)
        return total
    first, *others = (x.reshape(-1) for x in arrays)
    total = np.empty_like(first)
    add = saxpy if total.dtype == np.float32 else daxpy  # half the passes of a product and a sum
    for start in range(0, len(total), IN_CACHE):
        rows = slice(start, start + IN_CACHE)
        part = np.multiply(first[rows], factors[0], out=total[rows])
        for factor, x in zip(factors[1:], others, strict=True):
            add(x[rows], part, a=factor)
    return total.reshape(arrays[0].shape)


def shifted(x: Any, factor: Any, by: Any):
    """``x + factor * by`` without a temporary; a NumPy ``by`` is used up.

    Parameters
    ----------
    x, by : array of shape (n, d)
    factor : array of shape (n, 1)

    Returns
    -------
    array of shape (n, d)

    Examples
    --------
    >>> shifted(np.ones((1, 2)), np.array([[2.0]]), np.eye(1, 2))
    array([[3., 1.]])
    """
    if is_torch(by):
        return x.addcmul(factor, by)
    by *= factor
    by += x
    return by


class Parameters:
    """Named read-only float64 arrays, seen in the terms of the points they meet.

    Parameters
    ----------
    **arrays : array-like or None
        The parameters; ``None`` stays ``None``.

    Examples
    --------
    >>> import numpy as np
    >>> theta = Parameters(mean=[0.0, 1.0])
    >>> theta.like(np.zeros((1, 2), dtype=np.float32)).mean.dtype
    dtype('float32')
    """

    def __init__(self, **arrays: Any):
        self._host = {}
        for name, values in arrays.items():
            if values is not None:
                values = np.array(to_numpy(values), dtype=np.float64)
                values.setflags(write=False)
            self._host[name] = values
        self._seen: dict = {}

    def __getattr__(self, name: str):
        try:
            return self.__dict__["_host"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __getstate__(self):
        return self._host

    def __setstate__(self, state):
        self._host, self._seen = state, {}
        for values in state.values():
            if values is not None:
                values.setflags(write=False)

    def like(self, x: Any) -> SimpleNamespace:
        """All parameters in the namespace, on the device and in the dtype of ``x``."""
        key = (is_torch(x), x.dtype, getattr(x, "device", "cpu"))
        if key in self._seen:
            return self._seen[key]
        seen = SimpleNamespace(
            **{k: None if v is None else like(v, x) for k, v in self._host.items()}
        )
        # tensors made in inference mode can never take part in a graph: not for keeping
        if not any(is_torch(v) and v.is_inference() for v in vars(seen).values()):
            self._seen[key] = seen
        return seen
