r"""What small components are pulled to: the pooled shape at their own scale.

Components of one mixture often share a shape and differ in size, by factors of a thousand in
natural images. With scatters :math:`S_k` of :math:`N_k` rows in :math:`d` columns, the targets
:math:`\tau_k P` of the pull are the proportional model of the components (Flury 1986): in turn

.. math::
    P \propto \sum_k S_k / \tau_k, \qquad
    n_k \Big( \frac{s_k}{\tau_k} - 1 \Big) = \frac{2\nu}{e}\, \frac{\tau_k - 1}{\tau_k + 1}, \qquad
    n_k s_k = \operatorname{tr}(P^{-1} S_k)/d, \quad n_k = (N_k - 1)_+ .

The first maximises the likelihood of the shape. The second, a quadratic equation, is the
posterior mode of :math:`\log\tau_k`: :math:`s_k` is what the component's rows say (one row goes
into its mean), the prior :math:`(\sqrt\tau + 1/\sqrt\tau)^{-2\nu d/e}` is a ratio of two
chi-squares about the pooled scale, :math:`\tau = 1`, with the information of :math:`\nu/e` rows.
As many pseudo-rows as determine what they are for is the unit of both: :math:`e` for the shape,
by the form of covariance, and one for the scale. Its tails are heavy: a component may be of any
size, and is then pulled by two rows at most. The prior decides where rows do not: a component of
one row, or of none, has the pooled scale. With many rows :math:`\tau_k \to s_k`, and as
:math:`\nu\to\infty` all are 1. What :math:`P` and :math:`\tau` share is fixed by
:math:`\operatorname{tr}(P^{-1} \sum_k S_k) = d \sum_k N_k`.
"""

from __future__ import annotations

import numpy as np

__all__ = ["shape_and_scales"]

ROUNDS = 4
"""Turns of shape and scales; a fixed number, as a target need not be exact but reproducible."""
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
    """``tr(P^-1 S_k)`` over the rank of ``P``, within which all scatters are."""
    if shape.ndim == 2:
        values, axes = np.linalg.eigh(shape)
    else:
        values, scatters = np.atleast_1d(shape), scatters.reshape(len(scatters), -1)
    # the scatter of rows that are all centres is rounding, of either sign
    kept = values > np.finfo(np.float64).eps * shape.size * max(values.max(), 0.0)
    rank = max(kept.sum(), 1)
    if shape.ndim == 2:
        inverse = (axes[:, kept] / values[kept]) @ axes[:, kept].T
        flat = scatters.reshape(len(scatters), -1)
        return np.maximum(flat @ inverse.ravel(), 0) / rank
    return (scatters[:, kept] / values[kept]).sum(axis=1) / rank
