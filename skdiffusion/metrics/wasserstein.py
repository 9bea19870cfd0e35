r"""Sliced Wasserstein distance: the mean cost of moving one sample onto another, by direction.

In one dimension the best plan couples equal quantiles, :math:`W_p^p = \int_0^1 |F^{-1}(u) -
G^{-1}(u)|^p du`, a finite sum for samples of any sizes. In ``d`` dimensions one takes the mean over
directions :math:`\theta` of the unit sphere (Rabin et al. 2011, Bonneel et al. 2015),

.. math:: SW_p^p = E_\theta\, W_p^p(\theta^\top X, \theta^\top Y).

Directions come in random orthonormal bases: over one basis the mean of
:math:`(\theta^\top v)^2` is :math:`|v|^2/d` exactly, so a shift by ``v`` costs :math:`|v|/\sqrt d`
without Monte-Carlo error, and other differences with less of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.metrics._frame import in_one_frame
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["sliced_wasserstein"]


def sliced_wasserstein(
    real: Any,
    generated: Any,
    *,
    p: float = 2.0,
    n_projections: int = 128,
    standardize: bool = True,
    random_state: Any = 0,
) -> float:
    r"""Sliced Wasserstein distance between two samples.

    Parameters
    ----------
    real : array-like of shape (n, d)
    generated : array-like of shape (m, d)
    p : float
        Order, at least 1.
    n_projections : int
        Directions; rounded up to whole orthonormal bases.
    standardize : bool
        Whether columns are scaled by the standard deviations of ``real``; otherwise the distance
        is in the units of the columns.
    random_state : None, int, Generator or RandomState
        Of the directions.

    Returns
    -------
    float
        Zero for equal samples; two samples of one law differ by order
        :math:`1/\sqrt{n}`.

    References
    ----------
    N. Bonneel, J. Rabin, G. Peyré and H. Pfister, "Sliced and Radon Wasserstein Barycenters of
    Measures", JMIV 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import sliced_wasserstein
    >>> X = np.random.default_rng(0).standard_normal((500, 4))
    >>> round(sliced_wasserstein(X, X + 3, standardize=False), 6)  # |(3, 3, 3, 3)| / sqrt(4)
    3.0
    """
    p = check_number(p, "p", least=1)
    n_projections = check_count(n_projections, "n_projections")
    X, Y = in_one_frame(real, generated, standardize=standardize, least=1)
    directions = _orthonormal_directions(X.shape[1], n_projections, as_generator(random_state))
    x_rows, y_rows, masses = _coupling(len(X), len(Y))
    size = rows_in_memory(len(X) + len(Y) + 3 * len(masses))
    costs = []
    for batch in gen_batches(len(directions), size):
        x = np.sort(X @ directions[batch].T, axis=0)[x_rows]
        y = np.sort(Y @ directions[batch].T, axis=0)[y_rows]
        costs.append(_power_mean(np.abs(x - y), masses, p))
    costs = np.concatenate(costs)[:, None]
    return float(_power_mean(costs, np.full(len(costs), 1 / len(costs)), p)[0])


def _power_mean(values, weights, p):
    """Of each column, in the unit of its largest value: powers of that are numbers."""
    unit = values.max(axis=0)
    unit = np.where(unit > 0, unit, 1.0)
    return unit * (weights @ (values / unit) ** p) ** (1 / p)


def _orthonormal_directions(d, n, rng):
    """Rows of random orthogonal matrices, at least ``n``; one is enough in one dimension."""
    if d == 1:
        return np.ones((1, 1))
    n_bases = -(-n // d)
    bases, triangles = np.linalg.qr(rng.standard_normal((n_bases, d, d)))
    # uniform over rotations: the sign of the factorisation is a convention (Mezzadri 2007)
    signs = np.sign(np.diagonal(triangles, axis1=1, axis2=2))
    return (bases * signs[:, None, :]).reshape(-1, d)


def _coupling(n, m):
    """Which order statistics of two samples meet, and the mass that each meeting carries."""
    # in units of 1/(n m) the quantile levels are integers
    levels = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    start = levels[:-1]
    return start // m, start // n, np.diff(levels) / (n * m)
