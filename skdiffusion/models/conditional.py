r"""Marginals, conditionals and sums of normal laws, in the form their covariances have.

With columns ``a`` unknown, ``b`` known with error :math:`s`, and :math:`B = C_{bb} + s^2`:

.. math:: E[a \mid b] = \mu_a + C_{ab} B^{-1} (b - \mu_b), \qquad
          \operatorname{Cov}[a \mid b] = C_{aa} - C_{ab} B^{-1} C_{ba}.

A diagonal stays diagonal. Low rank plus isotropic, :math:`C = U \Delta U^\top + s_0 I`,
stays so: the conditional covariance is :math:`s_0 I + U_a M U_a^\top` with
:math:`M = \Delta^{1/2} (I + \Delta^{1/2} U_b^\top U_b \Delta^{1/2} / (s_0+s^2))^{-1}
\Delta^{1/2}`, a sum of positive parts where the textbook formula is a difference.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from skdiffusion.models.covariance import SpectralCovariance

__all__ = [
    "conditional_gaussian",
    "correlation_factor",
    "marginal_covariance",
    "total_covariance",
]

LOG_2PI = math.log(2 * math.pi)
ROUNDING = 1e-13
"""Share of a variance that may be rounding: of products of matrices, some hundred times eps."""


def marginal_covariance(covariance: SpectralCovariance, kept: np.ndarray) -> SpectralCovariance:
    """Covariance of the columns ``kept``.

    Parameters
    ----------
    covariance : SpectralCovariance
    kept : ndarray of int

    Returns
    -------
    SpectralCovariance
    """
    if covariance.axes is None:
        return SpectralCovariance(covariance.variances[kept])
    axes = covariance.axes[kept]
    if covariance.n_residual and axes.shape[1] < len(kept):
        excess = covariance.variances - covariance.residual
        return _plus_isotropic(axes, np.diag(excess), covariance.residual)
    return SpectralCovariance.from_matrix(_matrix(covariance)[np.ix_(kept, kept)])


def conditional_gaussian(
    covariance: SpectralCovariance,
    known: np.ndarray,
    unknown: np.ndarray,
    deviation: np.ndarray,
    noise: float = 0.0,
) -> tuple[float, np.ndarray, SpectralCovariance]:
    """Law of the unknown columns given how far the known ones are from their mean.

    Parameters
    ----------
    covariance : SpectralCovariance
    known, unknown : ndarray of int
    deviation : ndarray of shape (len(known),)
    noise : float
        Standard deviation of the error of the known values.

    Returns
    -------
    log_density : float
        Of the known values.
    shift : ndarray of shape (len(unknown),)
        Conditional mean less the mean.
    covariance : SpectralCovariance
        Conditional covariance.

    Raises
    ------
    ValueError
        If the known columns have a singular covariance and there is no noise.
    """
    if covariance.axes is None:
        variances = covariance.variances[known] + noise**2
        if not variances.min() > 0:
            raise ValueError(_SINGULAR)
        log_density = -0.5 * np.sum(deviation**2 / variances + np.log(variances) + LOG_2PI)
        rest = SpectralCovariance(covariance.variances[unknown])
        return log_density, np.zeros(len(unknown)), rest
    excess = covariance.variances - covariance.residual
    isotropic = covariance.residual + noise**2
    if covariance.n_residual and isotropic > 0 and (excess >= 0).all():
        return _low_rank(covariance, excess, isotropic, known, unknown, deviation)
    return _dense(_matrix(covariance), known, unknown, deviation, noise)


def total_covariance(mixture) -> SpectralCovariance:
    r"""Covariance of a mixture, :math:`\sum_k w_k [C_k + (\mu_k - \mu)(\mu_k - \mu)^\top]`.

    Parameters
    ----------
    mixture : MixtureModel

    Returns
    -------
    SpectralCovariance
        Low rank plus isotropic where the components are and it is worth it.
    """
    weights, covariances = mixture.weights, mixture.covariances
    if len(covariances) == 1:
        return covariances[0]
    spread = np.sqrt(weights)[:, None] * (mixture.means - weights @ mixture.means)
    if all(c.axes is not None and c.n_residual for c in covariances):
        excesses = [c.variances - c.residual for c in covariances]
        factors = [
            np.sqrt(w) * c.axes * np.sqrt(np.maximum(excess, 0))
            for w, c, excess in zip(weights, covariances, excesses, strict=True)
        ]
        axes = np.hstack([*factors, spread.T])
        if axes.shape[1] < axes.shape[0] and all((excess >= 0).all() for excess in excesses):
            isotropic = float(weights @ [c.residual for c in covariances])
            return _plus_isotropic(axes, np.eye(axes.shape[1]), isotropic)
    matrix = spread.T @ spread
    for weight, covariance in zip(weights, covariances, strict=True):
        if weight > 0:
            matrix = matrix + weight * covariance.to_matrix()
    return SpectralCovariance.from_matrix((matrix + matrix.T) / 2)


def correlation_factor(correlations: np.ndarray) -> np.ndarray | None:
    """Cholesky factors of correlation matrices ``(..., m, m)``; ``None`` if one is singular.

    What is left of a variance where the others are known may be rounding, positive or not: the
    matrix is singular then, too.
    """
    try:
        factors = np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        return None
    left = np.diagonal(factors, axis1=-2, axis2=-1) ** 2
    return factors if left.min(initial=1.0) > ROUNDING else None


_SINGULAR = "the known columns have a singular covariance: give a positive noise for their values."


def _dense(matrix, known, unknown, deviation, noise):
    inner = matrix[np.ix_(known, known)] + noise**2 * np.eye(len(known))
    scale = np.sqrt(inner.diagonal())
    if not scale.min() > 0:
        raise ValueError(_SINGULAR)
    # of the correlation: the units of the columns do not matter then
    factor = correlation_factor(inner / np.outer(scale, scale))
    if factor is None:
        raise ValueError(_SINGULAR)

    def solve(rows):
        return scipy.linalg.solve_triangular(factor, (rows.T / scale[:, None]), lower=True)

    white = solve(deviation[None, :])[:, 0]
    cross = solve(matrix[np.ix_(unknown, known)])
    log_det = 2 * np.log(factor.diagonal() * scale).sum()
    log_density = -0.5 * (white @ white + log_det + len(known) * LOG_2PI)
    whole = matrix[np.ix_(unknown, unknown)]
    return log_density, cross.T @ white, _difference(whole, cross.T @ cross)


def _difference(whole, explained):
    """Covariance ``whole - explained``; what rounding makes negative is zero."""
    rest = whole - explained
    rest = (rest + rest.T) / 2
    try:
        return SpectralCovariance.from_matrix(rest)
    except ValueError:
        variances, axes = np.linalg.eigh(rest)
        if variances.min() < -1e-10 * np.trace(whole):
            raise
        return SpectralCovariance(np.maximum(variances[::-1], 0), axes[:, ::-1])


def _low_rank(covariance, excess, isotropic, known, unknown, deviation):
    root = np.sqrt(excess)
    inward = covariance.axes[known] * root
    outward = covariance.axes[unknown] * root
    inner = np.eye(len(root)) + inward.T @ inward / isotropic
    factor = np.linalg.cholesky(inner)
    # E[factors | known] = inner^-1 inward' deviation / isotropic, and Cov = inner^-1
    projected = inward.T @ deviation / isotropic
    factors = scipy.linalg.cho_solve((factor, True), projected)
    remainder = deviation - inward @ factors
    quadratic = remainder @ remainder / isotropic + factors @ factors
    log_det = 2 * np.log(factor.diagonal()).sum() + len(known) * math.log(isotropic)
    log_density = -0.5 * (quadratic + log_det + len(known) * LOG_2PI)
    core = scipy.linalg.cho_solve((factor, True), np.eye(len(root)))
    rest = _plus_isotropic(outward, core, covariance.residual)
    return log_density, outward @ factors, rest


def _plus_isotropic(axes, core, isotropic):
    """``axes core axes' + isotropic I`` for axes that need not be orthonormal."""
    if axes.shape[1] >= axes.shape[0]:
        matrix = axes @ core @ axes.T
        return SpectralCovariance.from_matrix(
            (matrix + matrix.T) / 2 + isotropic * np.eye(len(axes))
        )
    basis, triangle = np.linalg.qr(axes)
    excess, turn = np.linalg.eigh(triangle @ core @ triangle.T)
    order = np.argsort(excess, kind="stable")[::-1]
    variances = np.maximum(isotropic + excess[order], 0)
    return SpectralCovariance(variances, basis @ turn[:, order], isotropic)


def _matrix(covariance):
    matrix = covariance.to_matrix()
    return (matrix + matrix.T) / 2
