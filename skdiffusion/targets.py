r"""What a network may be trained to say, and what a sampler does with it.

On a path :math:`u = a\,x_0 + b\,\varepsilon` a target is :math:`r = c\,x_0 + d\,\varepsilon`. With
:math:`W = b'a - a'b` and :math:`m = ad - bc`, the probability flow in terms of the target's
conditional mean :math:`f_t(u) = E[r \mid u, t]`, and the mean in terms of the energy
:math:`E_t = -\log p_t`, are

.. math::
    \frac{du}{dt} = \mu\,u + \nu f_t(u), \quad \mu = \frac{a'd - b'c}{m},\ \nu = \frac{W}{m};
    \qquad f_t = \lambda \nabla E_t + \tfrac ca u, \quad \lambda = \tfrac ba (da - cb).

A **blind** network is not told the time and learns :math:`f^*(u) = E[f_t(u) \mid u]`. An error of
it moves the sampler by :math:`|\nu|` as much (Sahraee-Ardakan, Delbracio and Milanfar 2026,
equations 4 to 22).

================= ================================== ===============================
target            (c, d)                             note
================= ================================== ===============================
``"noise"``       :math:`(0, 1)`
``"data"``        :math:`(1, 0)`
``"velocity"``    :math:`(a', b')`                   :math:`\nu = 1`
``"v"``           :math:`(-b, a)`
``"score"``       :math:`(0, -1/b)`
``"edm"``         :math:`(s/q, -1/q)`                :math:`s = b/a,\ q^2 = 1 + s^2`
``"equilibrium"`` :math:`(a - 1, b)`                 :math:`u - x_0`, equilibrium matching
================= ================================== ===============================

EDM's is written for data of unit scale. Equilibrium matching is written for the straight path,
where :math:`u - x_0 = t(\varepsilon - x_0)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from skdiffusion.parameterizations import PREDICTIONS
from skdiffusion.utils.validation import lookup

__all__ = ["TARGETS", "Gains", "check_target", "target_coefficients", "target_gains"]


def _edm(alpha, sigma, rates):
    level = sigma / alpha
    q = (1 + level**2) ** 0.5
    return level / q, -1 / q


def _equilibrium(alpha, sigma, rates):
    return alpha - 1, sigma


TARGETS = {**PREDICTIONS, "edm": _edm, "equilibrium": _equilibrium}


class Gains(NamedTuple):
    r"""How a target enters the flow and the energy; arrays like the path's coefficients.

    Attributes
    ----------
    drift : array
        :math:`\mu`, factor of the point in the flow.
    sampler : array
        :math:`\nu`, factor of the prediction in the flow.
    energy : array
        :math:`\lambda`, factor of the energy's gradient in the prediction.
    scale : array
        :math:`c/a`, factor of the point in the prediction.
    """

    drift: Any
    sampler: Any
    energy: Any
    scale: Any


def check_target(target: str) -> str:
    """The name of a target, or a ``ValueError`` that lists them."""
    lookup(target, TARGETS, "target")
    return target


def target_coefficients(target: str, alpha: Any, sigma: Any, rates: tuple[Any, Any]):
    """Coefficients ``(c, d)`` of the target ``c x_0 + d eps``.

    Parameters
    ----------
    target : str
        A key of ``TARGETS``.
    alpha, sigma : float or array
        Coefficients of the path.
    rates : pair of float or array
        Their time derivatives.

    Examples
    --------
    >>> target_coefficients("equilibrium", 0.75, 0.25, (-1.0, 1.0))
    (-0.25, 0.25)
    """
    return lookup(target, TARGETS, "target")(alpha, sigma, rates)


def target_gains(target: str, alpha: Any, sigma: Any, rates: tuple[Any, Any]) -> Gains:
    r"""How a target enters the flow and the energy.

    Parameters
    ----------
    target, alpha, sigma, rates
        As in :func:`target_coefficients`.

    Returns
    -------
    Gains

    Examples
    --------
    >>> target_gains("velocity", 0.75, 0.25, (-1.0, 1.0)).sampler
    1.0
    """
    c, d = target_coefficients(target, alpha, sigma, rates)
    alpha_rate, sigma_rate = rates
    m = alpha * d - sigma * c
    return Gains(
        (alpha_rate * d - sigma_rate * c) / m,
        (sigma_rate * alpha - alpha_rate * sigma) / m,
        sigma / alpha * m,
        c / alpha,
    )
