r"""Derivatives of any score model, by the best route it offers.

For a field :math:`F(x)` (the score or the denoiser at a level) these functions give

.. math:: J v, \qquad J^\top u, \qquad J = \partial F/\partial x, \qquad \operatorname{tr} J

from the first of three routes that applies: the model's closed form
(``has_jacobian``); ``torch.func`` (``is_differentiable``; NumPy points make the
trip through float64 tensors, but not to a function of unknown library); central
differences in float64,

.. math:: J v \approx \frac{F(x + h v) - F(x - h v)}{2h}, \qquad \text{error } O(h^2).

Rows are independent points, so one product per coordinate gives the Jacobians of
all rows. Nothing assumes that a learned score has a symmetric Jacobian.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.utils.arrays import as_directions, as_points, is_torch, like, namespace, to_numpy
from skdiffusion.utils.random import as_generator, rademacher_like
from skdiffusion.utils.validation import check_count

__all__ = [
    "denoise_and_divergence",
    "denoise_and_jacobian",
    "difference_steps",
    "divergence",
    "hutchinson_probes",
    "jacobian",
    "jvp",
    "vjp",
]

EXACT_TRACE_UP_TO = 128
"""Dimension up to which ``divergence(method="auto")`` sums the whole diagonal."""


def jvp(model: Any, x: Any, sigma: Any, v: Any, *, y: Any = None, of: str = "score"):
    """Jacobian-vector products ``J(x_k) v_k``, one per row.

    Parameters
    ----------
    model : BaseScoreModel
    x : array of shape (n, d)
    sigma : float or array of shape (n,)
    v : array of shape (n, d)
        Directions.
    y : array of shape (n,), optional
        Labels, for conditional models.
    of : {"score", "denoise"}
        The field to differentiate.

    Returns
    -------
    array of shape (n, d)
        Like ``x``.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel, jvp
    >>> model = GaussianModel(mean=[0.0, 0.0], covariance=[3.0, 1.0])
    >>> jvp(model, np.zeros((1, 2)), 1.0, np.ones((1, 2)))
    array([[-0.25, -0.5 ]])
    """
    if model.has_jacobian:
        return model.jvp(x, sigma, v, y=y, of=of)
    return _Route(model, x, sigma, y, of).jvp(v)


def vjp(model: Any, x: Any, sigma: Any, u: Any, *, y: Any = None, of: str = "score"):
    """Transposed products ``J(x_k)^T u_k``, one per row; arguments as in :func:`jvp`."""
    if model.has_jacobian:
        if model.is_conservative and of == "score":
            return model.jvp(x, sigma, u, y=y, of=of)
        jacobians = model.jacobian(x, sigma, y=y, of=of)
        xp = namespace(jacobians)
        u = as_directions(u, as_points(x, model.n_features), "u")
        return xp.matmul(u[:, None, :], jacobians)[:, 0, :]
    return _Route(model, x, sigma, y, of).vjp(u)


def jacobian(model: Any, x: Any, sigma: Any, *, y: Any = None, of: str = "score"):
    """Jacobians of the field at each row; arguments as in :func:`jvp`.

    Returns
    -------
    array of shape (n, d, d)
        ``[k, i, j]``: derivative of component ``i`` by coordinate ``j`` at row ``k``.
    """
    if model.has_jacobian:
        return model.jacobian(x, sigma, y=y, of=of)
    return _Route(model, x, sigma, y, of).jacobian()


def denoise_and_jacobian(model: Any, x: Any, sigma: Any, *, y: Any = None):
    """Denoiser and its Jacobian at each row, ``(n, d)`` and ``(n, d, d)``, as in :func:`jvp`."""
    if model.has_jacobian:
        return model.denoise_and_jacobian(x, sigma, y=y)
    return model.denoise(x, sigma, y=y), jacobian(model, x, sigma, y=y, of="denoise")


def divergence(
    model: Any,
    x: Any,
    sigma: Any,
    *,
    y: Any = None,
    of: str = "score",
    method: str = "auto",
    n_probes: int = 16,
    random_state: Any = 0,
    return_std_error: bool = False,
):
    r"""Trace of the Jacobian at each row.

    Parameters
    ----------
    model, x, sigma, y, of
        As in :func:`jvp`.
    method : {"auto", "exact", "hutchinson"}
        ``"exact"`` takes the closed form or the ``d`` products of the diagonal;
        ``"hutchinson"`` averages :math:`u^\top J u` over Rademacher probes
        (Hutchinson 1989); ``"auto"`` is exact up to 128 dimensions and wherever a
        closed form exists.
    n_probes : int
        Probes per row. They are keyed by the row, so a row has the same estimate
        alone and in a batch.
    random_state : None, int, Generator or RandomState
        Seed of the probes.
    return_std_error : bool
        Whether to return the standard error of each estimate too (zero if exact).

    Returns
    -------
    array of shape (n,), or a pair of them

    Raises
    ------
    ValueError
        If ``method`` is unknown, or a standard error is asked of a single probe.
    """
    n_probes = check_count(n_probes, "n_probes", 2 if return_std_error else 1)
    probes = hutchinson_probes(model, x, method, n_probes, random_state)
    if probes is None:
        if model.has_jacobian:
            trace = model.divergence(x, sigma, y=y, of=of)
        else:
            trace = _Route(model, x, sigma, y, of).divergence()
        return (trace, trace * 0) if return_std_error else trace

    estimates = _along_probes(model, x, sigma, y, of, probes)
    xp = namespace(estimates)
    mean = xp.mean(estimates, axis=1)
    if not return_std_error:
        return mean
    return mean, xp.std(estimates, axis=1, correction=1) / n_probes**0.5


def hutchinson_probes(
    model: Any, x: Any, method: str = "auto", n_probes: int = 16, random_state: Any = 0
):
    """Probes keyed by the rows of ``x``, or ``None`` where the trace will be exact.

    Arguments as in :func:`divergence`. A row that moves keeps the probes of its starting point, so
    that its estimates are a smooth function of its path (Grathwohl et al. 2019).

    Returns
    -------
    array of shape (n_probes, n, d) or None
        Like ``x``.
    """
    if method not in ("auto", "exact", "hutchinson"):
        raise ValueError(f"method must be 'auto', 'exact' or 'hutchinson'; got {method!r}.")
    x = as_points(x, model.n_features)
    small = model.has_jacobian or model.n_features <= EXACT_TRACE_UP_TO
    if method == "exact" or (method == "auto" and small):
        return None
    seed = int(as_generator(random_state).integers(2**62))
    return rademacher_like(x, check_count(n_probes, "n_probes"), seed)


def denoise_and_divergence(model: Any, x: Any, sigma: Any, *, y: Any = None, probes: Any = None):
    """Denoiser and the trace of its Jacobian at each row, sharing their work.

    Parameters
    ----------
    model, x, sigma, y
        As in :func:`jvp`.
    probes : array of shape (n_probes, n, d), optional
        Directions of Hutchinson's estimates; see ``hutchinson_probes``. Exact without.

    Returns
    -------
    denoised : array of shape (n, d)
    trace : array of shape (n,), or (n, n_probes) with one estimate per probe
    """
    if probes is not None and model.has_jacobian:
        denoised = model.denoise(x, sigma, y=y)
        return denoised, _along_probes(model, x, sigma, y, "denoise", probes)
    if model.has_jacobian:
        return model.denoise_and_divergence(x, sigma, y=y)
    return _Route(model, x, sigma, y, "denoise").value_and_divergence(probes)


def _along_probes(model, x, sigma, y, of, probes):
    """Quadratic forms ``u' J u``, one column per probe."""
    if not model.has_jacobian:
        return _Route(model, x, sigma, y, of).value_and_divergence(probes)[1]
    products = [(model.jvp(x, sigma, u, y=y, of=of) * u).sum(-1) for u in probes]
    return namespace(products[0]).stack(products, axis=1)


def difference_steps(x: Any, level: Any):
    r"""Lengths of steps for central differences at points where the noise is isotropic.

    They balance truncation, :math:`(h/\sigma)^2`, and rounding, :math:`\epsilon |x|/h`. At level
    zero the coordinates say what is short.

    Parameters
    ----------
    x : array of shape (n, d)
    level : float or array of shape (n, 1)

    Returns
    -------
    array of shape (n, 1)
    """
    xp = namespace(x)
    size = xp.max(xp.abs(x), axis=1, keepdims=True)
    level = size * 0 + level
    level = xp.where(level > 0, level, xp.clip(size, min=1.0))
    return level * (float(xp.finfo(x.dtype).eps) * xp.clip(size / level, min=1.0)) ** (1 / 3)


class _Route:
    """Differentiation of one field at fixed points: ``torch.func`` or central differences."""

    def __init__(self, model, x, sigma, y, of):
        if of not in ("score", "denoise"):
            raise ValueError(f"of must be 'score' or 'denoise'; got {of!r}.")
        self.x = as_points(x, model.n_features)
        self.autograd = model.is_differentiable and (is_torch(x) or not model._keeps_library)
        if self.autograd and not is_torch(x):
            import torch

            self.point = torch.tensor(np.ascontiguousarray(self.x, dtype=np.float64))
        else:
            self.point = self.x if self.autograd else to_numpy(self.x).astype(np.float64)
        levels = sigma
        if not is_torch(sigma) and np.ndim(sigma):
            levels = like(np.ascontiguousarray(sigma), self.point)
        if not self.autograd and is_torch(levels):
            levels = to_numpy(levels)
        self.levels = levels
        self.scale = np.asarray(model.noise_scale)
        self.field = lambda z: getattr(model, of)(z, levels, y=y)

    def jvp(self, v):
        return self._back(self._jvp(as_directions(v, self.point)))

    def vjp(self, u):
        u = as_directions(u, self.point, "u")
        if not self.autograd:
            return self._back(np.einsum("nij,ni->nj", self._columns(), u))
        return self._back(self._pullback()(u)[0])

    def jacobian(self):
        return self._back(self._columns())

    def divergence(self):
        return self.value_and_divergence()[1]

    def value_and_divergence(self, probes=None):
        """The field and the trace of its Jacobian, or ``u' J u`` in a column per probe ``u``."""
        if self.autograd:
            import torch

            value, pullback = torch.func.vjp(self.field, self.point)
            product = lambda u: pullback(u)[0]  # noqa: E731
        else:
            value, product = self.field(self.point), self._jvp
        if probes is None:
            trace = sum(product(e)[:, j] for j, e in enumerate(self._basis()))
        else:
            directions = (like(u, self.point) for u in probes)
            forms = [(product(u) * u).sum(-1) for u in directions]
            trace = namespace(forms[0]).stack(forms, axis=1)
        return self._back(value), self._back(trace)

    def _columns(self):
        """All Jacobians: one product per coordinate, for every row at once."""
        xp = namespace(self.point)
        if self.autograd:
            pullback = self._pullback()
            return xp.stack([pullback(e)[0] for e in self._basis()], axis=1)
        return xp.stack([self._jvp(e) for e in self._basis()], axis=2)

    def _pullback(self):
        import torch

        return torch.func.vjp(self.field, self.point)[1]

    def _basis(self):
        n, d = self.point.shape
        for row in np.eye(d):
            yield like(np.broadcast_to(row, (n, d)), self.point)

    def _jvp(self, v):
        if self.autograd:
            import torch

            try:
                return torch.func.jvp(self.field, (self.point,), (v,))[1]
            except NotImplementedError:
                return self._jvp_by_reverse(v)
        length = np.linalg.norm(v / self.scale, axis=1, keepdims=True)
        h = self._steps() / np.where(length > 0, length, 1.0)
        return (self.field(self.point + h * v) - self.field(self.point - h * v)) / (2 * h)

    def _jvp_by_reverse(self, v):
        """For fields with layers that have no forward derivative, as fused attention: the pullback
        is linear, so that its own pullback is the product.
        """
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.MATH):  # fused kernels are differentiated only once
            pullback = self._pullback()
            return torch.func.vjp(lambda u: pullback(u)[0], torch.zeros_like(self.point))[1](v)[0]

    def _steps(self):
        level = np.reshape(np.asarray(self.levels, dtype=np.float64), (-1, 1))
        return difference_steps(self.point / self.scale, level)

    def _back(self, result):
        return like(result, self.x)
