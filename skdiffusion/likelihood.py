r"""Densities of models that have none in closed form, by following volume along the flow.

In :math:`u = \log\sigma` the probability flow is :math:`dx/du = x - D(x, \sigma)` and a small
volume around ``x`` grows at the rate :math:`d - \operatorname{tr} \partial D/\partial x`, so

.. math::
    \log p_{\sigma_0}(x) = \log p_{\sigma_1}(x_{\sigma_1})
    + \int_{\log\sigma_0}^{\log\sigma_1} \big(d - \operatorname{tr} \partial D\big)\, du .

Both are integrated together by the classical Runge-Kutta rule on a fixed grid, the same for
every row; at the far end the law is its Gaussian far field. Halving the number of steps gives
an error estimate: the rule is of fourth order, so a fifteenth of the change is what is left.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from skdiffusion.models.jacobian import divergence

__all__ = ["flow_log_prob"]


def flow_log_prob(
    model: Any,
    x: Any,
    levels: Any,
    far_field: Any,
    *,
    y: Any = None,
    method: str = "auto",
    return_error: bool = False,
):
    """Log-density of each row at the lowest level, by the probability-flow ODE.

    Parameters
    ----------
    model : BaseScoreModel
    x : array of shape (n, d)
        Points at ``levels[0]``.
    levels : sequence of float
        Rising noise levels, uniform in the logarithm for full accuracy.
    far_field : GaussianModel
        The law at ``levels[-1]`` is taken to be this one's.
    y : array of shape (n,), optional
        Labels, for conditional models.
    method : {"auto", "exact", "hutchinson"}
        How to take traces; see :func:`skdiffusion.models.divergence`.
    return_error : bool
        Whether to return an error estimate too. Costs half as much again and needs an even
        number of steps.

    Returns
    -------
    log_prob : array of shape (n,)
        In nats.
    error : array of shape (n,)
        Estimate of the integration error of each row. Only if asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import GaussianModel
    >>> law = GaussianModel([0.0, 1.0], [4.0, 0.5])
    >>> x = np.array([[1.0, 1.0]])
    >>> solved = flow_log_prob(law, x, np.geomspace(0.01, 100.0, 65), law)
    >>> bool(abs(solved - law.log_prob(x, 0.01)) < 1e-5)
    True
    """
    levels = [float(level) for level in levels]
    options = {"y": y, "of": "denoise", "method": method}
    log_prob = _integrate(model, x, levels, far_field, options)
    if not return_error:
        return log_prob
    if len(levels) % 2 == 0:
        raise ValueError(f"an error estimate needs an even number of steps; got {len(levels) - 1}.")
    coarse = _integrate(model, x, levels[::2], far_field, options)
    return log_prob, abs(log_prob - coarse) / 15


def _integrate(model, x, levels, far_field, options):
    grown = 0.0
    for level, next_level in itertools.pairwise(levels):
        h = math.log(next_level / level)
        middle = math.sqrt(level * next_level)
        # the classical rule for (x, log-volume) together
        k1, g1 = _rates(model, x, level, options)
        k2, g2 = _rates(model, x + 0.5 * h * k1, middle, options)
        k3, g3 = _rates(model, x + 0.5 * h * k2, middle, options)
        k4, g4 = _rates(model, x + h * k3, next_level, options)
        x = x + (h / 6) * (k1 + 2 * (k2 + k3) + k4)
        grown = grown + (h / 6) * (g1 + 2 * (g2 + g3) + g4)
    return far_field.log_prob(x, levels[-1]) + grown


def _rates(model, x, level, options):
    velocity = x - model.denoise(x, level, y=options["y"])
    return velocity, np.shape(x)[1] - divergence(model, x, level, **options)
