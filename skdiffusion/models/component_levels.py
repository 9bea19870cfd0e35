r"""The components of a mixture where every row has a noise level of its own: rows come last.

With coordinates :math:`c_{kr}` of a row along axis :math:`r` of component :math:`k`, of variance
:math:`\lambda_{kr}`, all that a level asks for is one vector of pulls,

.. math:: t_{kr} = \frac{c_{kr}}{\lambda_{kr} + \sigma^2}, \qquad
          (x - m_k)^\top P_k (x - m_k) = \sum_r c_{kr} t_{kr}, \qquad
          \log\det P_k = \log \prod_r \frac{1}{\lambda_{kr} + \sigma^2} ,

and :math:`f(C_k)(x - m_k)` has the coordinates :math:`t` for the precision and
:math:`\lambda t` for the shrinkage. Components have few axes and there are many rows, so arrays
are ``(k, r, n)``: every operation then runs along rows. Of the product there is one logarithm for
as many factors as its exponent can hold.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Pulls", "locate_by_row"]

HELD = 0.9
"""Share of the range of exponents that a product may use."""


class Pulls(NamedTuple):
    """Where rows lie: coordinates, and these over variance and noise, of shape ``(k, r, n)``."""

    coordinates: np.ndarray
    pulls: np.ndarray

    def rows_first(self) -> np.ndarray:
        """The coordinates as ``(n, k, r)``."""
        return self.coordinates.transpose(2, 0, 1)

    def squares(self) -> np.ndarray:
        """Squared lengths of the pulls, shape ``(n, k)``."""
        return np.einsum("krn,krn->nk", self.pulls, self.pulls)

    def back(self, weights: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Weighted sum over components of the pulls along their axes; it uses the pulls up.

        Parameters
        ----------
        weights : ndarray of shape (n, k)
        basis : ndarray of shape (d, k r)
            Axes, times variances for what is shrunk.

        Returns
        -------
        ndarray of shape (n, d)
        """
        weighted = np.multiply(self.pulls, weights.T[:, None, :], out=self.pulls)
        return (basis @ weighted.reshape(basis.shape[1], -1)).T


def locate_by_row(x: np.ndarray, level: np.ndarray, seen: Any):
    """Where rows lie, quadratic forms and log-determinants of their components.

    Parameters
    ----------
    x : ndarray of shape (n, d)
    level : ndarray of shape (n,)
        Noise variances.
    seen : namespace
        The ``basis`` of shape ``(d, k r)``, ``offsets`` and ``variances`` of shape ``(k, r)``.

    Returns
    -------
    where : Pulls
    quadratic, log_det : ndarray of shape (n, k)
    """
    k, r = seen.variances.shape
    c = (seen.basis.T @ x.T).reshape(k, r, len(x))
    c -= seen.offsets[:, :, None]
    precision = seen.variances[:, :, None] + level
    np.reciprocal(precision, out=precision)
    log_det = -_log_of_products(precision, seen.variances, level)
    pulls = np.multiply(precision, c, out=precision)
    quadratic = np.einsum("krn,krn->kn", c, pulls)
    return Pulls(c, pulls), quadratic.T, log_det.T


def _log_of_products(precision, variances, level):
    """Logarithm of the product of precisions along axes, shape ``(k, n)``."""
    reach = max(
        abs(_log(variances.min() + level.min(initial=math.inf))),
        abs(_log(variances.max() + level.max(initial=0))),
    )
    held = HELD * math.log(np.finfo(precision.dtype).max)
    size = int(max(1, min(precision.shape[1], held / max(reach, 1e-3))))
    return sum(
        np.log(np.multiply.reduce(precision[:, start : start + size], axis=1))
        for start in range(0, precision.shape[1], size)
    )


def _log(value):
    return math.log(value) if 0 < value < math.inf else math.inf
