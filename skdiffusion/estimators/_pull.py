r"""What small components are pulled to: a common shape, at scales of their own.

Components of one mixture often share a shape and differ in size, by factors of a thousand in
natural images; and a column may hardly vary in one component and widely in the others, as an
amount that is zero for a third of the rows does. With scatters :math:`S_k` of :math:`N_k` rows in
:math:`d` columns, :math:`\nu` pseudo-rows pull to a common shape :math:`P` between scales of a
component's columns,

.. math::
    C_k = \frac{S_k + \nu\, T_k^{1/2} P T_k^{1/2}}{N_k + \nu}, \qquad
    P = \sum_k T_k^{-1/2} S_k T_k^{-1/2} \Big/ \sum_k N_k .

The scales come from what the rows say of them, :math:`s`, by the positive root :math:`t` of a
quadratic equation,

.. math::
    n_k \Big( \frac{s}{t} - 1 \Big) = c\, \frac{t - 1}{t + 1}, \qquad n_k = (N_k - 1)_+ .

That is the posterior mode of :math:`\log t` (one row goes into the mean) with the prior
:math:`(\sqrt t + 1/\sqrt t)^{-2c}`, a ratio of two chi-squares about the common scale with the
information of :math:`c/2` rows. Its tails are heavy: a scale may be of any size, and is then
pulled by :math:`c` rows at most. The unit of :math:`\nu` is the number of rows :math:`e` that
determine a covariance of this form. A component's scale :math:`\tau_k` has the prior of one row,
:math:`c = 2\nu/e`. A column's scale about it, :math:`t_{kj}`, has that of four, and counts only
where it is beyond a factor of three,

.. math:: T_{kj} = \tau_k\, t_{kj} / \min(\max(t_{kj}, 1/3), 3),

as variances of some ten rows differ by chance: what they have in common, such as a column that
is the sum of others, must not be lost to it. (Held-out densities of tables change little with
either number, by a factor of two or three.) The prior decides where rows do not: a component of
one row, or of none, has the common scales. As :math:`\nu \to \infty` all components have one
covariance.

A component's scale is found first, by the proportional model (Flury 1986), in turn
:math:`P \propto \sum_k S_k / \tau_k` and :math:`n_k s_k = \operatorname{mean}_j (S_k)_{jj}/P_{jj}`.
The mean over columns is a robust one, the root of
:math:`\operatorname{mean}_j (1+b)\, r_j/(r_j + b\, m) = 1`, :math:`b = 10`: a column that varies in
one component alone would otherwise inflate that component's scale, thereby count for little in
:math:`P`, and inflate it more. What :math:`P` and :math:`\tau` share is fixed by the same mean of
:math:`\sum_k S_k / \sum_k N_k`, which is 1.
"""

from __future__ import annotations

import numpy as np

__all__ = ["pulled_covariances", "shape_and_scales"]

ROUNDS = 4
"""Turns of shape and scales; a fixed number, as a target need not be exact but reproducible."""
BOUND = 10.0
"""A column counts at most as 1 + BOUND ordinary ones."""
TURNS, DONE = 8, 1e-8
"""Of Newton's method for the robust mean, at most; a step after which the next is rounding."""
COLUMN = 8.0
"""Strength of a column's prior where that of a component's scale is 2."""
ALIKE = 3.0
"""Factor within which a column's variance in a component is like the others'."""
COLUMN_ROUNDS = 8
"""Turns of the columns' scales and their common level; each costs ``k * d``."""
TINY = float(np.finfo(np.float64).tiny)
SMALLEST = 1e-12
"""Least scale: the scatter of equal rows is rounding, whose shape must not count."""


def pulled_covariances(scatters, counts, pull: float, enough: int):
    """Covariances of components from their scatters, pulled to a common shape.

    Parameters
    ----------
    scatters : ndarray of shape (k, d, d), (k, d) or (k,)
        Matrices, diagonals, or means of diagonals, about the components' own means.
    counts : ndarray of shape (k,)
        Weights of the rows in the components.
    pull : float
        Pseudo-rows of the common shape; without any, covariances are those of the rows, and a
        component without rows has the common one.
    enough : int
        Number of rows :math:`e` that determine a covariance of this form.

    Returns
    -------
    ndarray like ``scatters``
    """
    shape, scales = shape_and_scales(scatters, counts, pull, enough)
    rows, widths = np.reshape(counts, (-1,) + (1,) * shape.ndim), scales
    if not pull or not shape.any():
        return np.where(rows > 0, scatters / np.where(rows > 0, rows, 1), shape)
    if scatters.ndim > 1:  # columns have scales of their own
        squares = np.diagonal(scatters, axis1=1, axis2=2) if scatters.ndim == 3 else scatters
        widths = _columns(np.maximum(squares, 0), counts, scales, COLUMN * pull / enough)
        if scatters.ndim == 3:
            roots = np.sqrt(widths)
            widths = roots[:, :, None] * roots[:, None, :]
        shape = (scatters / widths).sum(axis=0) / counts.sum()
    return (scatters + pull * widths * shape) / (rows + pull)


def _columns(squares, counts, scales, prior):
    """Scales by component and column, shape (k, d)."""
    rows, total = np.maximum(counts - 1, 0), counts.sum()
    widths = np.repeat(scales[:, None], squares.shape[1], axis=1)
    # one row of each component goes into its mean: the level is that of the rows left
    left = (max(rows.sum(), 1.0) / total / scales)[:, None] * squares
    per_row = np.full(len(counts), 1 / total)
    least = SMALLEST * (per_row @ squares)
    for _ in range(COLUMN_ROUNDS):
        level = per_row @ (squares / widths)
        empty = level <= 0
        level_or_none = np.where(empty, np.inf, level)
        relative = _scales(left / level_or_none, rows[:, None], prior)
        relative = relative / np.minimum(np.maximum(relative, 1 / ALIKE), ALIKE)
        # a smaller share of the pooled variance is rounding, whose shape must not count
        widths = np.maximum(scales[:, None] * relative, least / level_or_none)
        widths[:, empty] = 1.0
    return widths


def shape_and_scales(scatters, counts, pull: float, enough: int):
    """Common shape of the components and the scale of each.

    Parameters
    ----------
    scatters : ndarray of shape (k, d, d), (k, d) or (k,)
        Matrices, diagonals, or means of diagonals, about the components' own means.
    counts : ndarray of shape (k,)
        Weights of the rows in the components.
    pull : float
        Pseudo-rows of the prior.
    enough : int
        Number of rows :math:`e` that determine a covariance of this form.

    Returns
    -------
    shape : ndarray like one of ``scatters``
        At the pooled scale.
    scales : ndarray of shape (k,)

    References
    ----------
    B. K. Flury, "Proportionality of k covariance matrices", Statistics & Probability
    Letters 4, 1986.
    """
    pooled, scales = scatters.sum(axis=0) / counts.sum(), np.ones(len(counts))
    if not pull or not pooled.any():
        return pooled, scales
    # scales are found from the diagonals alone
    squares = np.diagonal(scatters, axis1=1, axis2=2) if scatters.ndim == 3 else scatters
    squares = squares.reshape(len(counts), -1)
    rows, prior = np.maximum(counts - 1, 0), 2 * pull / enough
    parts = squares.sum(axis=0) / counts.sum()
    both = np.concatenate([squares, parts[None]])
    shares = robust = None
    for turn in range(ROUNDS):
        means, robust = _mean_square(parts, both, robust)
        level = means[-1] or 1.0
        scales = np.maximum(_scales(means[:-1] / level, rows, prior), SMALLEST)
        if turn < ROUNDS - 1:
            shares = 1 / scales
            parts = shares @ squares
    shape = pooled if shares is None else np.tensordot(shares, scatters, axes=1)
    return shape * level, scales


def _scales(squares, rows, prior):
    """Posterior modes: positive roots of ``(n + c) t^2 - (ns - n + c) t - ns``, stably."""
    half, leading = 0.5 * (squares - rows + prior), rows + prior
    larger = np.abs(half) + np.sqrt(half * half + leading * squares)
    upper = half >= 0
    return np.where(upper, larger, squares) / np.where(upper, leading, larger)


def _mean_square(shape, squares, guess=None):
    """Robust means over columns of ``squares``, shape (k, d), in units of ``shape``, (d,).

    And their ratios to the plain means: a guess of those for a similar shape.
    """
    # the scatter of rows that are all centres is rounding, of either sign
    kept = shape > np.finfo(np.float64).eps * len(shape) * max(shape.max(), 0.0)
    if not kept.all():
        if not kept.any():
            return np.zeros(len(squares)), None
        shape, squares = shape[kept], squares[:, kept]
    ratios = np.maximum(squares, 0) / shape
    average = np.full(len(shape), 1 / len(shape))
    # Newton's method in the logarithm, from the plain mean, which is above the root
    plain = ratios @ average
    means = plain if guess is None else guess * plain
    for _ in range(TURNS):
        rest = ratios / (ratios + (BOUND * means + TINY)[:, None])
        excess = (1 + BOUND) * (rest @ average) - 1
        slope = (1 + BOUND) * ((rest - rest * rest) @ average)
        step = excess / np.maximum(slope, SMALLEST)
        means = means * np.exp(np.minimum(np.maximum(step, -2.0), 2.0))
        if np.abs(step).max() < DONE:
            break
    return means, means / (plain + TINY)
