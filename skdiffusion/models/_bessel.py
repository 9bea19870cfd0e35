r"""The ratio of modified Bessel functions that rules the uniform law on a sphere.

For :math:`A_\nu(z) = I_{\nu+1}(z)/I_\nu(z)`, :math:`\nu \ge -1/2,\ z \ge 0`, three numbers are
computed to nearly full precision for every ``z``, in the array library of the argument and
with its autograd graph:

.. math::
    T = \frac{A_\nu(z)}{z}, \qquad A_\nu'(z), \qquad
    G = \int_0^z A_\nu = \log\frac{\Gamma(\nu+1)\, I_\nu(z)}{(z/2)^\nu}.

*Large orders.* :math:`Y = \nu + zA_\nu` solves :math:`zY' = z^2 + \nu^2 - Y^2`, so with
:math:`\rho = \sqrt{z^2+\nu^2}` and :math:`q = \nu/\rho` it is a series
:math:`Y = \rho + (1-q^2)\sum_{j\ge1} e_j(q)\,\rho^{1-j}` whose coefficients are polynomials
(Debye's expansion in closed form, uniform in ``z``). *Small orders* come down from a large
one by :math:`T_\nu = 1/(2(\nu+1) + z^2 T_{\nu+1})`: all terms positive, hence stable.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import polynomial as poly

from skdiffusion.utils.arrays import namespace

__all__ = ["BesselRatio", "bessel_ratio"]

LARGE = 30.0
"""Value of ``rho`` from which the series has full precision with this many terms."""

N_TERMS = 16


class BesselRatio(NamedTuple):
    """``A/z``, the derivative of ``A``, and the integral of ``A`` minus ``z``."""

    quotient: Any
    slope: Any
    log_mean_exp: Any


@lru_cache(maxsize=1)
def _coefficients():
    """Polynomials ``e_j``, ``d_j = l_j - e_j`` and the integrals of ``e_j t^(j-2)``, ``j >= 1``.

    ``c_j = (1 - q^2) e_j`` by comparing powers of ``rho`` in the equation of ``Y``, and
    ``(1 - q^2) l_j`` are the coefficients of ``z Y'``.
    """
    bump = np.array([1.0, 0.0, -1.0])  # 1 - q^2
    c, ell = [np.array([1.0])], [np.array([1.0])]
    for j in range(1, N_TERMS + 2):
        products = np.array([0.0])
        for i in range(1, j):
            products = poly.polyadd(products, poly.polymul(c[i], c[j - i]))
        c.append(-0.5 * poly.polyadd(poly.polymul(bump, ell[j - 1]), products))
        ell.append(poly.polysub((1 - j) * c[j], poly.polymulx(poly.polyder(c[j]))))
    e = [None] + [poly.polydiv(c_j, bump)[0] for c_j in c[1:]]
    d = [None] + [poly.polysub(ell[j], e[j]) for j in range(1, N_TERMS + 1)]
    integrals = [None, None]
    for j in range(2, N_TERMS + 1):
        integrals.append(poly.polyint(np.concatenate([np.zeros(j - 2), e[j]])))
    return e[: N_TERMS + 1], d, integrals


def _series(order, z):
    """The three numbers at ``rho >= LARGE``; the last one needs ``order > 0``."""
    xp = namespace(z)
    e, d, integrals = _coefficients()
    rho = xp.sqrt(z**2 + order**2)
    q = order / rho
    quotient, slope = _horner(e[N_TERMS], q), _horner(d[N_TERMS], q)
    for j in range(N_TERMS - 1, 0, -1):
        quotient = quotient / rho + _horner(e[j], q)
        slope = slope / rho + _horner(d[j], q)
    # 1/(rho + order) and its companion are the leading terms, free of cancellation
    quotient = 1 / (rho + order) + quotient / rho**2
    slope = order / (rho * (rho + order)) + slope / rho**2
    if order <= 0:
        return quotient, slope, None
    log_mean = order**2 / (rho + z) - order - order * xp.log((order + rho) / (2 * order))
    log_mean = log_mean - 0.5 * xp.log(rho / order)
    for j in range(2, N_TERMS + 1):
        at_zero = float(poly.polyval(1.0, integrals[j]))
        log_mean = log_mean + (at_zero - _horner(integrals[j], q)) * order ** (1 - j)
    return quotient, slope, log_mean


def _horner(coefficients, q):
    value = q * 0 + float(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * q + float(coefficient)
    return value


def bessel_ratio(order: float, z: Any) -> BesselRatio:
    """``A/z``, ``A'`` and ``G - z`` for ``A = I_{order+1}/I_{order}``, elementwise.

    Parameters
    ----------
    order : float
        At least -1/2.
    z : array
        Non-negative.

    Returns
    -------
    BesselRatio
        Arrays like ``z``.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.array([1e-3, 2.0])
    >>> ratio = bessel_ratio(0.5, z)  # the Langevin function coth z - 1/z
    >>> (z * ratio.quotient).round(12)
    array([3.33333311e-04, 5.37314721e-01])
    """
    xp = namespace(z)
    n_down = max(0, int(np.ceil(LARGE - order)))
    quotient, slope, log_mean = _series(order + n_down, z)
    square = z**2
    for k in range(n_down - 1, -1, -1):
        twice = 2 * (order + k + 1)
        log_mean = log_mean + xp.log1p(square * quotient / twice)
        above = quotient
        quotient = 1 / (twice + square * above)
        slope = quotient * (1 - square * quotient * (above + slope))
    if n_down:
        # coming down, the slope at large z is a difference of ones: take it from the series
        far = z > LARGE
        slope = xp.where(far, _series(order, xp.where(far, z, z * 0 + LARGE))[1], slope)
    return BesselRatio(quotient, slope, log_mean)
