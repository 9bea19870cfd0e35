r"""Densities of models that have none in closed form, by following volume along the flow.

In the latent coordinates ``z`` of the far field :math:`G = N(\mu, C)` (``skdiffusion.flow``) and
with :math:`u = \log\sigma`, a small volume around ``z`` changes at the rate
:math:`\operatorname{tr} \partial D - \operatorname{tr} \partial D_G`, so

.. math::
    \log p_{\sigma_0}(x) = \log N(z_\infty; 0, I) - \tfrac12 \log\det(C + \sigma_0^2)
    + \int_{\log\sigma_0}^\infty \operatorname{tr}(\partial D_G - \partial D)\, du .

Both are integrated together, and steps are halved until the estimate
:math:`\log N(z) + \int` is right to a tolerance. Where the trace is too dear for its whole
diagonal it is Hutchinson's, with probes that a row keeps along its path (Grathwohl et al. 2019):
each probe then has an integral of its own, and their spread is the standard error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.flow import (
    WayBeyond,
    as_ends,
    as_float64,
    chunks,
    follow,
    pick,
    under_noise_of,
)
from skdiffusion.models.jacobian import denoise_and_divergence, hutchinson_probes
from skdiffusion.utils.arrays import labels_of, namespace
from skdiffusion.utils.validation import check_count

__all__ = ["FlowLogProb", "flow_log_prob"]


class FlowLogProb(NamedTuple):
    """Log-densities in nats, the error of their integration, and that of random traces.

    ``std_error`` is zero where traces are exact.
    """

    log_prob: Any
    error: Any
    std_error: Any


def flow_log_prob(
    model: Any,
    x: Any,
    far_field: Any,
    sigma_min: Any,
    sigma_max: float,
    *,
    y: Any = None,
    method: str = "auto",
    n_probes: int = 16,
    random_state: Any = 0,
    tol: float = 1e-6,
) -> FlowLogProb:
    """Log-density of each row at the lowest level, by the probability-flow ODE.

    Parameters
    ----------
    model : BaseScoreModel
    x : array of shape (n, d)
        Points at level ``sigma_min``.
    far_field : GaussianModel
        What the noised law tends to.
    sigma_min : float or array of shape (n,)
        Level of the density.
    sigma_max : float
        Level up to which the model is asked.
    y : array of shape (n,), optional
        Labels, for conditional models.
    method : {"auto", "exact", "hutchinson"}
        How to take traces; see :func:`skdiffusion.models.divergence`.
    n_probes : int
        Probes per row of Hutchinson's method, at least two: their spread is the standard error.
    random_state : None, int, Generator or RandomState
        Seed of the probes.
    tol : float
        Error allowed in each step.

    Returns
    -------
    FlowLogProb
        Three arrays of shape (n,): the log-density, an estimate of its integration error, and
        the standard error of Hutchinson's traces.

    References
    ----------
    Y. Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations",
    ICLR 2021, section 4.3. W. Grathwohl et al., "FFJORD", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import MixtureModel
    >>> law = MixtureModel([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.2])
    >>> x = np.array([[1.0, 0.5], [0.1, 0.2]])
    >>> found = flow_log_prob(law, x, law.gaussian(), 0.01, 30.0)
    >>> bool(abs(found.log_prob - law.log_prob(x, 0.01)).max() < 1e-5)
    True
    """
    x = as_float64(x, model.n_features)
    sigma_min = as_ends(sigma_min, x, "sigma_min")
    y = labels_of(y, x)
    n_probes = check_count(n_probes, "n_probes", 2)
    probes = hutchinson_probes(model, x, method, n_probes, random_state)
    if probes is not None:  # rows first, so that they are picked with the rows
        probes = namespace(x).permute_dims(probes, (1, 0, 2))
    flow = _Flow(model, under_noise_of(model, far_field), sigma_max, tol)
    parts = []
    n_more = 1 if probes is None else probes.shape[1] * probes.shape[2]
    for rows in chunks(x, 2 * n_more):
        more = {"y": y, "probes": probes}
        more = {name: values[rows] for name, values in more.items() if values is not None}
        level = pick(sigma_min, rows)
        # a row above the last level is in the far field already
        last = np.maximum(level, sigma_max) if np.ndim(level) else max(level, sigma_max)
        parts.append(flow.log_prob(x[rows], level, last, more))
    return FlowLogProb(*(namespace(x).concat(part) for part in zip(*parts, strict=True)))


class _Flow:
    """Latent codes and, in further columns, the integral of the trace: one per probe."""

    def __init__(self, model, far_field, sigma_max, tol):
        self.model, self.far_field, self.tol = model, far_field, tol
        self.d = model.n_features
        self.way_beyond = WayBeyond(self.rates, model, far_field, sigma_max, self.size)

    def log_prob(self, x, level, last, more):
        xp, d = namespace(x), self.d
        codes = self.far_field.to_latent(x, level)
        n_integrals = more["probes"].shape[1] if "probes" in more else 1
        start = xp.concat([codes] + [codes[:, :1] * 0] * n_integrals, axis=1)
        state, rate, error = follow(self.rates, start, level, last, more, self.tol, self.size)
        rest, doubt, falls = self.way_beyond(state, rate, last, more)
        z, moved, integrals = state[:, :d], rest[:, :d], state[:, d:] + rest[:, d:]
        # what turns without end keeps its length: it counts to first order
        squares = xp.sum(z * z + (2 * z + falls * moved) * moved - codes * codes, axis=1)
        log_prob = self.far_field.log_prob(x, level) - squares / 2 + xp.mean(integrals, axis=1)
        error = error + self.size(doubt, state)
        if n_integrals == 1:
            return log_prob, error, error * 0
        return log_prob, error, xp.std(integrals, axis=1, correction=1) / n_integrals**0.5

    def rates(self, state, level, more):
        xp, z = namespace(state), state[:, : self.d]
        point = self.far_field.from_latent(z, level)
        gaussian, gaussian_trace = self.far_field.denoise_and_divergence(point, level)
        more = dict(more)
        if "probes" in more:
            more["probes"] = xp.permute_dims(more["probes"], (1, 0, 2))
        denoised, trace = denoise_and_divergence(self.model, point, level, **more)
        if "probes" not in more:
            trace = trace[:, None]
        velocity = self.far_field.to_latent(point + (gaussian - denoised), level) - z
        return xp.concat([velocity, gaussian_trace[:, None] - trace], axis=1)

    def change(self, difference, state):
        """Of the log-density by a small change of the state, were all that follows Gaussian."""
        xp, d = namespace(state), self.d
        moved = xp.sum(difference[:, :d] * state[:, :d], axis=1)
        return xp.mean(difference[:, d:], axis=1) - moved

    def size(self, difference, state):
        xp = namespace(state)
        position = xp.sum(difference[:, : self.d] ** 2, axis=1) ** 0.5
        return position + xp.abs(self.change(difference, state))
