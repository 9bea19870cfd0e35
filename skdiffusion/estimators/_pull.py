r"""What small components are pulled to: the pooled shape at their own scale.

Components of one mixture often share a shape and differ in size, by factors of a thousand in
natural images. With scatters :math:`S_k` of :math:`N_k` rows in :math:`d` columns, the targets
:math:`\tau_k P` of the pull are the proportional model of the components (Flury 1986): in turn

.. math::
    P \propto \sum_k S_k / \tau_k, \qquad
    n_k \Big( \frac{s_k}{\tau_k} - 1 \Big) = \frac{2\nu}{e}\, \frac{\tau_k - 1}{\tau_k + 1}, \qquad
    n_k s_k = \operatorname*{mean}_j\, (S_k)_{jj}/P_{jj}, \quad n_k = (N_k - 1)_+ .

The first maximises the likelihood of the shape. The mean over columns is a robust one, the root
of :math:`\operatorname{mean}_j (1+c)\, r_j/(r_j + c\, m) = 1`: a column that varies in one
component alone would otherwise inflate that component's scale, thereby count for little in
:math:`P`, and inflate it more. The second, a quadratic equation, is the posterior mode of
:math:`\log\tau_k`: :math:`s_k` is what the component's rows say (one row goes into its mean), the
prior :math:`(\sqrt\tau + 1/\sqrt\tau)^{-2\nu d/e}` is a ratio of two
chi-squares about the pooled scale, :math:`\tau = 1`, with the information of :math:`\nu/e` rows.
As many pseudo-rows as determine what they are for is the unit of both: :math:`e` for the shape,
by the form of covariance, and one for the scale. Its tails are heavy: a component may be of any
size, and is then pulled by two rows at most. The prior decides where rows do not: a component of
one row, or of none, has the pooled scale. With many rows :math:`\tau_k \to s_k`, and as
:math:`\nu\to\infty` all are 1. What :math:`P` and :math:`\tau` share is fixed by the same mean of
:math:`\sum_k S_k / \sum_k N_k`, which is 1.
"""

from __future__ import annotations

import numpy as np

__all__ = ["shape_and_scales"]

ROUNDS = 4
"""Turns of shape and scales; a fixed number, as a target need not be exact but reproducible."""
BOUND = 10.0
"""A column counts at most as 1 + BOUND ordinary ones."""
TURNS = 8
"""Of Newton's method for the robust mean."""
SMALLEST = 1e-12
"""Least scale: the scatter of equal rows is rounding, whose shape must not count."""


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
    rows, parts, both = np.maximum(counts - 1, 0), pooled, np.concatenate([scatters, pooled[None]])
    for _ in range(ROUNDS):
        squares = _mean_square(parts, both)
        level = squares[-1] or 1.0
        shape = parts * level
        scales = np.maximum(_scales(squares[:-1] / level, rows, 2 * pull / enough), SMALLEST)
        parts = np.tensordot(1 / scales, scatters, axes=1)
    return shape, scales


def _scales(squares, rows, prior):
    """Posterior modes: positive roots of ``(n + c) t^2 - (ns - n + c) t - ns``, stably."""
    half = 0.5 * (squares - rows + prior)
    root = np.sqrt(half**2 + (rows + prior) * squares)
    # a branch that is not taken may divide by zero
    other = np.maximum(root - half, np.finfo(np.float64).tiny)
    return np.where(half >= 0, (half + root) / (rows + prior), squares / other)


def _mean_square(shape, scatters):
    """Robust means over columns of the diagonals of ``scatters``, in units of ``shape``."""
    if shape.ndim == 2:
        shape, scatters = np.diagonal(shape), np.diagonal(scatters, axis1=1, axis2=2)
    shape, scatters = np.atleast_1d(shape), scatters.reshape(len(scatters), -1)
    # the scatter of rows that are all centres is rounding, of either sign
    kept = shape > np.finfo(np.float64).eps * len(shape) * max(shape.max(), 0.0)
    if not kept.any():
        return np.zeros(len(scatters))
    ratios = np.maximum(scatters[:, kept], 0) / shape[kept]
    # Newton's method in the logarithm, from the plain mean, which is above the root
    means = ratios.mean(axis=1)
    for _ in range(TURNS):
        share = BOUND * np.maximum(means, SMALLEST)[:, None]
        share = share / (ratios + share)
        excess = (1 + BOUND) * (1 - share).mean(axis=1) - 1
        slope = (1 + BOUND) * (share * (1 - share)).mean(axis=1)
        step = excess / np.maximum(slope, SMALLEST)
        means = means * np.exp(np.clip(step, -2.0, 2.0))
    return means
