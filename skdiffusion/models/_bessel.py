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

from skdiffusion.utils.arrays import like, namespace

__all__ = ["BesselRatio", "bessel_ratio"]

LARGE = 30.0
"""Value of ``rho`` from which the series has full precision with this many terms."""

N_TERMS = 16


FIELDS = ("quotient", "slope", "log_mean_exp")


class BesselRatio(NamedTuple):
    """``A/z``, the derivative of ``A``, and the integral of ``A`` minus ``z``."""

    quotient: Any
    slope: Any
    log_mean_exp: Any


@lru_cache(maxsize=1)
def _coefficients():
    """Coefficients ``[k, j - 1]`` of ``q^k`` in ``e_j``, ``d_j = l_j - e_j``, and the integrals.

    ``c_j = (1 - q^2) e_j`` by comparing powers of ``rho`` in the equation of ``Y``;
    ``(1 - q^2) l_j`` are the coefficients of ``z Y'``; the integrals are those of
    ``e_j t^(j-2)`` from ``q`` to one, for ``j >= 2``.
    """
    bump = np.array([1.0, 0.0, -1.0])  # 1 - q^2
    c, ell = [np.array([1.0])], [np.array([1.0])]
    for j in range(1, N_TERMS + 2):
        products = np.array([0.0])
        for i in range(1, j):
            products = poly.polyadd(products, poly.polymul(c[i], c[j - i]))
        c.append(-0.5 * poly.polyadd(poly.polymul(bump, ell[j - 1]), products))
        ell.append(poly.polysub((1 - j) * c[j], poly.polymulx(poly.polyder(c[j]))))
    e = [poly.polydiv(c_j, bump)[0] for c_j in c[1 : N_TERMS + 1]]
    d = [poly.polysub(ell_j, e_j) for ell_j, e_j in zip(ell[1:], e, strict=False)]
    integrals = [np.array([0.0])]
    for j in range(2, N_TERMS + 1):
        primitive = poly.polyint(np.concatenate([np.zeros(j - 2), e[j - 1]]))
        integrals.append(poly.polysub([poly.polyval(1.0, primitive)], primitive))
    width = max(len(p) for family in (e, d, integrals) for p in family)
    tables = [np.stack([np.pad(p, (0, width - len(p))) for p in f]) for f in (e, d, integrals)]
    return [table.T.copy() for table in tables]


def _series(order, z, want):
    """What is wanted of the three numbers, at ``rho >= LARGE``; the last needs ``order > 0``."""
    xp = namespace(z)
    # small enough to be shown to the array library anew: a cache in the module would outlive
    # torch's inference mode, whose tensors autograd refuses
    e, d, integrals = (like(table, z) for table in _coefficients())
    rho = xp.sqrt(z**2 + order**2)
    q_powers = (order / rho)[..., None] ** like(np.arange(len(e)), z)
    terms = like(np.arange(N_TERMS), z)
    rho_powers = (1 / rho)[..., None] ** terms
    quotient = slope = log_mean = None
    # 1/(rho + order) and its companion are the leading terms, free of cancellation
    if "quotient" in want:
        corrections = xp.sum(rho_powers * (q_powers @ e), axis=-1)
        quotient = 1 / (rho + order) + corrections / rho**2
    if "slope" in want:
        corrections = xp.sum(rho_powers * (q_powers @ d), axis=-1)
        slope = order / (rho * (rho + order)) + corrections / rho**2
    if "log_mean_exp" in want:
        log_mean = order**2 / (rho + z) - order - order * xp.log((order + rho) / (2 * order))
        log_mean = log_mean - 0.5 * xp.log(rho / order)
        corrections = (q_powers @ integrals) * (1 / order) ** terms
        log_mean = log_mean + xp.sum(corrections, axis=-1)
    return quotient, slope, log_mean


def bessel_ratio(order: float, z: Any, want: tuple[str, ...] = FIELDS) -> BesselRatio:
    """``A/z``, ``A'`` and ``G - z`` for ``A = I_{order+1}/I_{order}``, elementwise.

    Parameters
    ----------
    order : float
        At least -1/2.
    z : array
        Non-negative.
    want : tuple of str
        The fields to compute.

    Returns
    -------
    BesselRatio
        Arrays like ``z``; ``None`` where not wanted.

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
    quotient, slope, log_mean = _series(order + n_down, z, ("quotient", *want))
    square = z**2
    for k in range(n_down - 1, -1, -1):
        twice, above = 2 * (order + k + 1), quotient
        quotient = 1 / (twice + square * above)
        if log_mean is not None:
            log_mean = log_mean + xp.log1p(square * above / twice)
        if slope is not None:
            slope = quotient * (1 - square * quotient * (above + slope))
    if n_down and slope is not None:
        # coming down, the slope at large z is a difference of ones: take it from the series
        far = z > LARGE
        direct = _series(order, xp.where(far, z, z * 0 + LARGE), ("slope",))[1]
        slope = xp.where(far, direct, slope)
    return BesselRatio(quotient, slope, log_mean)
