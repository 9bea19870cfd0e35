r"""Precision, recall, density and coverage: fidelity and diversity apart.

With :math:`B(x)` the ball around a row that reaches its k-th neighbour in its own sample,

.. math::
    \text{precision} &= \tfrac1m \#\{y : y \in \textstyle\bigcup_i B(x_i)\}, &
    \text{recall} &= \tfrac1n \#\{x : x \in \textstyle\bigcup_j B(y_j)\}, \\
    \text{density} &= \tfrac1{km} \textstyle\sum_j \#\{i : y_j \in B(x_i)\}, &
    \text{coverage} &= \tfrac1n \#\{i : \exists j,\ y_j \in B(x_i)\}

(Kynkäänniemi et al. 2019; Naeem et al. 2020). For equal laws density has mean one, and coverage
has the mean :math:`1 - \prod_{i=1}^{k} \frac{n - i}{n + m - i}` whatever the law is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.metrics._frame import distance_chunks, in_one_frame, nearest
from skdiffusion.utils.validation import check_count

__all__ = ["Coverage", "expected_coverage", "precision_recall_coverage"]


class Coverage(NamedTuple):
    """Fidelity (precision, density) and diversity (recall, coverage) of generated rows.

    Attributes
    ----------
    precision : float
        Share of generated rows that are among the real ones.
    recall : float
        Share of real rows that are among the generated ones.
    density : float
        Real balls around a generated row, over k: above one in crowded regions.
    coverage : float
        Share of real rows with a generated neighbour.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_coverage(
    real: Any, generated: Any, *, n_neighbors: int = 5, standardize: bool = True
) -> Coverage:
    """Precision, recall, density and coverage of generated rows.

    Parameters
    ----------
    real : array-like of shape (n, d)
    generated : array-like of shape (m, d)
    n_neighbors : int
        Which neighbour in its own sample the ball of a row reaches; fewer than rows.
    standardize : bool
        Whether columns are scaled by the standard deviations of ``real``.

    Returns
    -------
    Coverage

    References
    ----------
    T. Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
    NeurIPS 2019.

    M. F. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import precision_recall_coverage
    >>> X = np.random.default_rng(0).standard_normal((200, 2))
    >>> precision_recall_coverage(X, X[:100]).precision  # half of the rows, each of them real
    1.0
    >>> precision_recall_coverage(X, X + 100).coverage
    0.0
    """
    k = check_count(n_neighbors, "n_neighbors")
    X, Y = in_one_frame(real, generated, standardize=standardize, least=k + 1)
    x_radius, y_radius = _radius(X, k), _radius(Y, k)
    caught_y, caught_x = np.zeros(len(Y), dtype=int), np.zeros(len(X), dtype=bool)
    covered = np.zeros(len(X), dtype=bool)

    for rows, distances in distance_chunks(X, Y):
        inside = distances <= x_radius[rows, None]
        covered[rows] = inside.any(axis=1)
        caught_x[rows] = (distances <= y_radius).any(axis=1)
        caught_y += inside.sum(axis=0)
    return Coverage(
        precision=float((caught_y > 0).mean()),
        recall=float(caught_x.mean()),
        density=float(caught_y.mean() / k),
        coverage=float(covered.mean()),
    )


def expected_coverage(n: int, m: int, n_neighbors: int = 5) -> float:
    """Mean coverage where both samples, of ``n`` real and ``m`` generated rows, have one law."""
    k = check_count(n_neighbors, "n_neighbors")
    n, m = check_count(n, "n", k + 1), check_count(m, "m")
    i = np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (n + m - i)))


def _radius(X, k):
    """Distance of each row to its k-th neighbour, a little more so that rounding loses none."""
    return nearest(X, k)[:, -1] * (1 + 1e-9)
