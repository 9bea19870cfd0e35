r"""How much of what a network adds to a mixture is kept.

Rows that neither has seen, noised to :math:`z`, are :math:`r = x_0 - D_0(z)` away from what the
mixture says; let :math:`\delta(z)` be what the network adds. To add :math:`g\,\delta` moves the
denoising bound (:mod:`skdiffusion.denoising_bound`) by

.. math:: 2 g A - g^2 B, \qquad A = \int E\langle r, \delta\rangle \frac{d\sigma}{\sigma^3}, \quad
          B = \int E|\delta|^2 \frac{d\sigma}{\sigma^3},

which is best at :math:`g = A/B`: one where the network is right, zero where it is noise. A network
that knows its rows too well is right in direction and wrong in size: half of it may be worth more
than all of it. Few rows know little of g: from :math:`n` of them it has the variance
:math:`v = \operatorname{Var}(A_i - g B_i)/(n B^2)`, and the **gain** is what they say together with
:math:`g \sim N(0, 1)`, within its range,

.. math:: g = \frac{A/B}{1 + v} \in [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.denoising_bound import nodes_and_weights
from skdiffusion.utils.random import balanced_by_row

__all__ = ["gain", "gain_of"]


def gain_of(products: np.ndarray, squares: np.ndarray, weights: np.ndarray) -> float:
    """The gain from what single rows say.

    Parameters
    ----------
    products, squares : ndarray of shape (n,)
        The row's integrals of ``<r, delta>`` and ``|delta|^2``.
    weights : ndarray of shape (n,)
        How often each row counts.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> gain_of(np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.ones(2))
    0.5
    """
    n, total = len(products), float(weights @ squares)
    if n < 2 or not total > 0:
        return 0.0
    found = float(weights @ products) / total
    rest = weights * (products - found * squares)
    variance = n / (n - 1) * float(rest @ rest) / total**2
    return float(np.clip(found / (1 + variance), 0, 1))


def gain(
    model: Any,
    mixture: Any,
    rows: np.ndarray,
    weights: np.ndarray,
    codes: np.ndarray | None,
    n_noise: int,
) -> float:
    """The gain of a network over the mixture that it adds to, on held-out rows.

    Parameters
    ----------
    model : NeuralModel
        With all that the network adds.
    mixture : LabelledMixture
        What it adds to.
    rows : ndarray of shape (n, d)
        In the coordinates of the network.
    weights : ndarray of shape (n,)
        How often each row counts.
    codes : ndarray of shape (n, n_conditions), optional
        Of the rows' labels.
    n_noise : int
        Pairs of opposite noise per row and level.

    Returns
    -------
    float
    """
    low, high = model.sigma_range
    levels, share = nodes_and_weights(low, high)  # below, both fall like the square of the level
    opposite = np.reshape([1, -1] * n_noise, (-1, 1, 1))
    tiled = None if codes is None else np.tile(codes, (2 * n_noise, 1))
    products, squares = np.zeros((2, len(rows)))
    for k, level in enumerate(levels):
        z = rows + level * opposite * np.repeat(balanced_by_row(rows, n_noise, k), 2, axis=0)
        flat = z.reshape(-1, rows.shape[1])
        expected = mixture.denoise(flat, np.full(len(flat), level), tiled)
        added = (model.denoise(flat, level, y=tiled) - expected).reshape(z.shape)
        missing = rows - expected.reshape(z.shape)
        factor = share[k] / level**2 / len(z)
        products += factor * (missing * added).sum(axis=(0, 2))
        squares += factor * (added**2).sum(axis=(0, 2))
    return gain_of(products, squares, weights)
