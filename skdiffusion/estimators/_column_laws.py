r"""Which columns have a law that a mixture misses, and that law.

The law of a column of :math:`n` rows is a kernel at each of :math:`K` quantiles :math:`q_k`, as
wide as the nearer of its neighbours is far, and the column's Gaussian for one row more, which may
be anywhere,

.. math:: p_j(v) = \frac{n}{n + 1} \frac1K \sum_k N(v; q_k, h_k^2) + \frac{1}{n + 1} N(v; m, s^2),
          \qquad h_k = \min(q_k - q_{k-1}, q_{k+1} - q_k),

but of the lowest level of noise if that is more, or if half as many rows as stand for a kernel, and
more than one, share the value :math:`q_k`: counts stay sharp, an even density has steep edges, and
what was seen once covers what is beside it. Kernels at one value are kept as one. A column is told
to a network if rows that were held out have at that level a higher likelihood under its own law
than under the mixture's,

.. math:: E[\log p_j(v) - \log \pi_j(v)] > \max(g, 3\, \text{standard errors}).
"""

from __future__ import annotations

import numpy as np

from skdiffusion.models import MixtureModel
from skdiffusion.models.column_laws import ColumnLaws

__all__ = ["column_laws", "telling_columns"]

KERNELS = 64
"""Kernels of a column's law."""
WORTH = 0.02
"""Nats per row from which a column is worth a look at every step."""
SURE = 3.0
"""Standard errors: there may be a hundred columns to be wrong about."""


def column_laws(rows: np.ndarray, weights: np.ndarray | None, index, low: float):
    """Laws of some columns of rows.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    weights : ndarray of shape (n,), optional
        How often each row counts.
    index : array of int, shape (m,)
        The columns.
    low : float
        Lowest noise level.

    Returns
    -------
    ColumnLaws
    """
    weights = np.ones(len(rows)) if weights is None else weights
    kernels = [_kernels(rows[:, j], weights, low) for j in index]
    return ColumnLaws(index, *np.swapaxes(kernels, 0, 1))


def telling_columns(
    laws: ColumnLaws, mixture: MixtureModel, rows: np.ndarray, weights: np.ndarray, low: float
):
    """Columns whose own law tells more of rows than the mixture does.

    Parameters
    ----------
    laws : ColumnLaws
        Of all columns.
    mixture : MixtureModel
        In the coordinates of the rows.
    rows : ndarray of shape (n, d)
        That were held out.
    weights : ndarray of shape (n,)
        How often each counts.
    low : float
        Lowest noise level.

    Returns
    -------
    ndarray of int
    """
    rows = rows.astype(np.float64)
    variances = np.array([covariance.diagonal for covariance in mixture.covariances])
    kept = []
    for j, kernels in enumerate(zip(laws.weights, laws.centres, laws.widths, strict=True)):
        shares, centres, widths = kernels
        own = MixtureModel(shares, centres[:, None], widths**2)
        theirs = MixtureModel(mixture.weights, mixture.means[:, [j]], variances[:, j])
        gains = own.log_prob(rows[:, [j]], low) - theirs.log_prob(rows[:, [j]], low)
        gain = np.average(gains, weights=weights)
        error = np.sqrt(weights**2 @ (gains - gain) ** 2) / weights.sum()
        if gain > max(WORTH, SURE * error):
            kept.append(j)
    return np.array(kept, dtype=int)


def _kernels(values, weights, low):
    """Weights, centres and widths of the kernels of one column."""
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(weights[order])
    total = below[-1]
    quantiles = np.searchsorted(below, (np.arange(KERNELS) + 0.5) / KERNELS * total)
    centres, counts = np.unique(values[quantiles], return_counts=True)
    gaps = np.concatenate([[np.inf], np.diff(centres), [np.inf]])
    ends = [np.searchsorted(values, centres, side) for side in ("left", "right")]
    start, end = np.insert(below, 0, 0.0)[ends]
    shared = end - start > max(1.0, total / (2 * KERNELS))
    middle = np.average(values, weights=weights[order])
    extent = np.sqrt(np.average((values - middle) ** 2, weights=weights[order]))
    widths = np.where(shared, low, np.minimum(np.minimum(gaps[:-1], gaps[1:]), extent))
    none = (0, KERNELS - len(centres))
    return (
        np.pad(np.append(counts / KERNELS * total, 1.0) / (total + 1), none),
        np.pad(np.append(centres, middle), none, mode="edge"),
        np.pad(np.maximum(np.append(widths, extent), low), none, mode="edge"),
    )
