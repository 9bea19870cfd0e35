r"""Is a field a gauge field? A test with a p-value, from rows of the law and values of the field.

A field ``r`` moves no marginal if :math:`E\langle r, \nabla\psi\rangle = 0` for all potentials. The
*weak residuals* are these means for given :math:`\psi`; the largest over the unit ball of a
reproducing space is the kernel gauge discrepancy,

.. math:: \mathrm{KGD}^2 = E_{x,x'}\; r(x)^\top \big[\nabla_x \nabla_{x'}^\top k\big]\, r(x'),
    \quad \nabla_x\nabla_{x'}^\top k = \frac{k}{\ell^2}\Big(I - \frac{(x-x')(x-x')^\top}{\ell^2}
    \Big),

for :math:`k = e^{-|x-x'|^2/2\ell^2}`: zero if and only if :math:`\nabla\cdot(p\,r) = 0`. Neither
density nor score is needed. Its U-statistic is degenerate under the hypothesis; the law of
:math:`\sum_{i \ne j} \epsilon_i \epsilon_j H_{ij}` with random signs is then that of the statistic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.geometry._families import RandomFeatures, Units
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_points
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["GaugeTest", "WeakResidual", "kernel_gauge_test", "weak_gauge_residual"]


class GaugeTest(NamedTuple):
    """The squared discrepancy, an unbiased estimate, and the p-value of the hypothesis of zero."""

    statistic: float
    p_value: float
    length_scale: float


class WeakResidual(NamedTuple):
    """Means of the field along gradients of unit size, and their standard errors: ``(m,)``."""

    residual: np.ndarray
    std_error: np.ndarray


def kernel_gauge_test(
    X: Any,
    R: Any,
    *,
    length_scale: float | None = None,
    n_bootstrap: int = 1000,
    random_state: Any = None,
) -> GaugeTest:
    r"""Test the hypothesis that a field moves no marginal, :math:`\nabla\cdot(p\,r) = 0`.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Independent rows of the law, not those that ``R`` was fitted to.
    R : array-like of shape (n_samples, n_features)
        The field at the rows: a candidate gauge field, or the error of a score.
    length_scale : float, optional
        Of the kernel, in the units of X; by default the square root of half of the median squared
        distance.
    n_bootstrap : int
        Draws of random signs.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    GaugeTest
        ``statistic``, ``p_value`` and ``length_scale``.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.geometry import kernel_gauge_test
    >>> X = np.random.default_rng(0).normal(size=(300, 2))
    >>> turn = np.stack([-X[:, 1], X[:, 0]], axis=1)
    >>> kernel_gauge_test(X, turn, random_state=0).p_value > 0.05
    True
    >>> kernel_gauge_test(X, turn + 0.3 * X, random_state=0).p_value < 0.01
    True
    """
    X, R = _rows_and_field(X, R)
    n_bootstrap = check_count(n_bootstrap, "n_bootstrap")
    rng = as_generator(random_state)
    n = len(X)
    X = X - X.mean(axis=0)
    if length_scale is not None:
        squared = check_number(length_scale, "length_scale", above=0) ** 2
    else:
        some = X[np.sort(rng.permutation(n)[:1000])]
        distances = _squared_distances(some, some)[np.triu_indices(len(some), 1)]
        squared = float(np.median(distances)) / 2 or 1.0
    signs = np.where(rng.random((n, n_bootstrap)) < 0.5, -1.0, 1.0)
    signs = np.concatenate([np.ones((n, 1)), signs], axis=1)
    sums = np.zeros(n_bootstrap + 1)
    for rows in gen_batches(n, rows_in_memory(6 * n + n_bootstrap)):
        pairs = _discrepancies(X[rows], R[rows], X, R, squared)
        pairs[np.arange(len(pairs)), np.arange(n)[rows]] = 0.0
        sums += ((pairs @ signs) * signs[rows]).sum(axis=0)
    observed, drawn = sums[0], sums[1:]
    p_value = (1 + np.count_nonzero(drawn >= observed)) / (1 + n_bootstrap)
    return GaugeTest(float(observed / (n * (n - 1))), float(p_value), float(np.sqrt(squared)))


def weak_gauge_residual(
    X: Any, R: Any, *, n_potentials: int = 64, random_state: Any = None
) -> WeakResidual:
    r"""Means :math:`E\langle r, \nabla\psi_k\rangle` over rows, zero for a gauge field.

    Parameters
    ----------
    X, R : array-like of shape (n_samples, n_features)
        Rows of the law and the field at them.
    n_potentials : int
        Random potentials :math:`\psi_k` besides the coordinates and the squared radius; all have
        gradients of mean square one.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    WeakResidual
        ``residual`` and ``std_error``: the first ``n_features`` are the mean of the field, the
        next is along the radius.
    """
    X, R = _rows_and_field(X, R)
    n, d = X.shape
    n_potentials = check_count(n_potentials, "n_potentials")
    units = Units(X, np.ones(n))
    features = RandomFeatures(units, n_potentials, np.sqrt(d), as_generator(random_state))
    radius = (X - units.centre)[:, None, :]
    axes = np.broadcast_to(np.eye(d), (n, d, d))
    products, squares = [], 0.0
    for rows in gen_batches(n, max(int(2**22 / ((n_potentials + d + 1) * d)), 1)):
        some = features.gradients(X[rows])
        gradients = np.concatenate([axes[rows], radius[rows], some], axis=1)
        products.append(np.einsum("nkd,nd->nk", gradients, R[rows]))
        squares = squares + (gradients**2).sum(axis=(0, 2))
    sizes = np.sqrt(squares / n)
    values = np.concatenate(products) / np.where(sizes > 0, sizes, 1.0)
    return WeakResidual(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(n))


def _rows_and_field(X, R):
    X = check_points(X, ensure_min_samples=4)
    R = check_points(R, name="R")
    if R.shape != X.shape:
        raise ValueError(
            f"R must hold the field at each row of X, shape {X.shape}; got shape {R.shape}."
        )
    return X, R


def _squared_distances(a, b):
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0)


def _discrepancies(x, r, y, s, squared):
    """``r' [grad grad k] s`` for all pairs of rows of ``x`` and ``y``."""
    kernel = np.exp(-_squared_distances(x, y) / (2 * squared)) / squared
    along = (r * x).sum(axis=1)[:, None] - r @ y.T
    across = x @ s.T - (s * y).sum(axis=1)
    return kernel * (r @ s.T - along * across / squared)
