r"""Maximum mean discrepancy and energy distance, with permutation tests.

Both compare the mean similarity within the samples to that between them. For a kernel ``k``

.. math:: \mathrm{MMD}^2 = E\,k(X, X') + E\,k(Y, Y') - 2 E\,k(X, Y),

zero only for equal laws if ``k`` is Gaussian (Gretton et al. 2012); the energy distance is the same
with :math:`k(x, y) = -|x - y|` (Székely & Rizzo 2013). Under equality the labels of the rows are
exchangeable: the share of permutations with a statistic as large is a p-value that holds in
finite samples, as long as units and bandwidth do not know the labels. With ``K`` without its
diagonal, :math:`r = K 1` and ``a`` a column of labels,

.. math:: S_{XX} = a^\top K a, \quad S_{XY} = a^\top r - a^\top K a, \quad
          S_{YY} = 1^\top r - 2 a^\top r + a^\top K a :

all permutations together take one product of ``K`` with a matrix, and ``K`` is never stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.metrics._frame import distance_chunks, distances, in_one_frame, pairwise_sum
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["TwoSampleTest", "energy_distance", "energy_test", "mmd", "mmd_test"]

MEDIAN_ROWS = 2000
"""Rows that the median distance is taken of, evenly spaced."""


class TwoSampleTest(NamedTuple):
    """A statistic and its permutation p-value.

    Attributes
    ----------
    statistic : float
        Unbiased estimate; near zero for equal laws.
    pvalue : float
        Share of relabellings with a statistic at least as large, the observed one included.
    """

    statistic: float
    pvalue: float


def mmd(
    real: Any, generated: Any, *, bandwidth: float | None = None, standardize: bool = True
) -> float:
    r"""Squared maximum mean discrepancy with the kernel :math:`\exp(-|x-y|^2/(2h^2))`.

    Parameters
    ----------
    real : array-like of shape (n, d)
    generated : array-like of shape (m, d)
    bandwidth : float, optional
        The width ``h``; by default the median distance between rows of ``real``.
    standardize : bool
        Whether columns are scaled by the standard deviations of ``real``.

    Returns
    -------
    float
        Unbiased estimate: around zero, also below, for equal laws.

    References
    ----------
    A. Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import mmd
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.standard_normal((2, 400, 3))
    >>> abs(mmd(X, Y)) < 0.005 < 0.1 < mmd(X, Y + 1)
    True
    """
    X, Y = in_one_frame(real, generated, standardize=standardize)
    kernel = _gaussian_kernel(_bandwidth(bandwidth, X))
    n, m = len(X), len(Y)
    within_x = (pairwise_sum(kernel, X, X) - n) / (n * (n - 1))
    within_y = (pairwise_sum(kernel, Y, Y) - m) / (m * (m - 1))
    return within_x + within_y - 2 * pairwise_sum(kernel, X, Y) / (n * m)


def energy_distance(real: Any, generated: Any, *, standardize: bool = True) -> float:
    r"""Energy distance :math:`\sqrt{2E|X-Y| - E|X-X'| - E|Y-Y'|}` of two samples.

    Parameters
    ----------
    real : array-like of shape (n, d)
    generated : array-like of shape (m, d)
    standardize : bool
        Whether columns are scaled by the standard deviations of ``real``.

    Returns
    -------
    float
        Of the empirical laws: never negative, zero for equal samples; in one dimension that of
        :func:`scipy.stats.energy_distance`.

    References
    ----------
    G. J. Székely and M. L. Rizzo, "Energy statistics: A class of statistics based on distances",
    JSPI 2013.

    Examples
    --------
    >>> from skdiffusion.metrics import energy_distance
    >>> round(energy_distance([[0.0], [0.0]], [[2.0], [2.0]], standardize=False), 6)
    2.0
    """
    X, Y = in_one_frame(real, generated, standardize=standardize)
    n, m = len(X), len(Y)
    squared = (
        2 * pairwise_sum(_identity, X, Y) / (n * m)
        - pairwise_sum(_identity, X, X) / n**2
        - pairwise_sum(_identity, Y, Y) / m**2
    )
    return float(np.sqrt(max(squared, 0.0)))


def mmd_test(
    real: Any,
    generated: Any,
    *,
    bandwidth: float | None = None,
    n_permutations: int = 999,
    standardize: bool = True,
    random_state: Any = 0,
) -> TwoSampleTest:
    """Test of equal laws by the maximum mean discrepancy.

    Parameters
    ----------
    real, generated, bandwidth, standardize
        As in :func:`mmd`, except that both samples together set the units and the bandwidth: the
        p-value is exact only if these do not know which row is real.
    n_permutations : int
        Random relabellings; the p-value is at least ``1 / (n_permutations + 1)``.
    random_state : None, int, Generator or RandomState
        Of the relabellings.

    Returns
    -------
    TwoSampleTest
        ``statistic`` and ``pvalue``.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import mmd_test
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.standard_normal((2, 100, 3))
    >>> mmd_test(X, Y).pvalue > 0.05, mmd_test(X, Y + 1).pvalue
    (True, 0.001)
    """
    X, Y = in_one_frame(real, generated, standardize=standardize, pooled=True)
    kernel = _gaussian_kernel(_bandwidth(bandwidth, np.concatenate([X, Y])))
    return _permutation_test(kernel, X, Y, n_permutations, random_state)


def energy_test(
    real: Any,
    generated: Any,
    *,
    n_permutations: int = 999,
    standardize: bool = True,
    random_state: Any = 0,
) -> TwoSampleTest:
    """Test of equal laws by the energy distance; arguments as in :func:`mmd_test`.

    Returns
    -------
    TwoSampleTest
        ``statistic``, an unbiased estimate of the *squared* energy distance, and ``pvalue``.
    """
    X, Y = in_one_frame(real, generated, standardize=standardize, pooled=True)
    return _permutation_test(np.negative, X, Y, n_permutations, random_state)


def _permutation_test(kernel, X, Y, n_permutations, random_state):
    n_permutations, n, m = check_count(n_permutations, "n_permutations"), len(X), len(Y)
    rng = as_generator(random_state)
    labels = np.zeros((n + m, n_permutations + 1))
    labels[:n] = 1.0
    labels[:, 1:] = rng.permuted(labels[:, 1:], axis=0)
    rows = np.concatenate([X, Y])

    products = []
    for chunk, found in distance_chunks(rows, rows):
        similarity = kernel(found)
        similarity[np.arange(len(found)), np.arange(chunk.start, chunk.stop)] = 0.0
        products.append(np.column_stack([similarity @ labels, similarity.sum(axis=1)]))
    product = np.concatenate(products)
    within_x = (labels * product[:, :-1]).sum(axis=0)
    row_sums = labels.T @ product[:, -1]
    within_y = product[:, -1].sum() - 2 * row_sums + within_x
    between = row_sums - within_x
    statistics = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
    # relabellings that give the same split tie with the observed one but for rounding
    slack = 1e-12 * np.abs(statistics).max()
    return TwoSampleTest(float(statistics[0]), float(np.mean(statistics >= statistics[0] - slack)))


def _gaussian_kernel(bandwidth):
    return lambda distances: np.exp(-(distances**2) / (2 * bandwidth**2))


def _identity(distances):
    return distances


def _bandwidth(bandwidth, rows):
    """The width asked for, or the median distance between distinct rows."""
    if bandwidth is not None:
        return check_number(bandwidth, "bandwidth", above=0)
    some = rows[:: -(-len(rows) // MEDIAN_ROWS)]
    apart = distances(some, some)[np.triu_indices(len(some), 1)]
    positive = apart[apart > 0]
    return float(np.median(positive)) if len(positive) else 1.0
