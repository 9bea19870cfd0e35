r"""EM for rows of which only a part was observed.

With the observed part :math:`o` of a row and the missing part :math:`m` (Ghahramani & Jordan
1994; missing at random), responsibilities come from the marginals :math:`N(x_o; \mu_{k,o},
C_{k,oo})`, and moments from the completed row and the uncertainty of the completion. All of it
follows from the precision :math:`\Lambda_k = C_k^{-1}` and inverses of its missing blocks, which
are small: with :math:`z = x - \mu_k`, zero where missing, and :math:`p = \Lambda_k z`,

.. math:: V_k = \Lambda_{k,mm}^{-1}, \quad \hat z_m = -V_k p_m, \quad
          q_k = z^\top p + p_m^\top \hat z_m, \quad
          \log\det C_{k,oo} = \log\det C_k + \log\det \Lambda_{k,mm} .

Rows that miss as many values are taken together, and rows with the same pattern share an inverse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from skdiffusion.estimators._mixture_experts import (
    LOG_2PI,
    cholesky,
    inverse_factors,
    log_weights,
    normalised,
)

__all__ = ["IncompleteRows", "completed"]

BLOCK = 2**18
"""Numbers in the inverses of a group, at most, for each component."""
SWEPT = 10
"""Missing values up to which many inverses at once are faster by sweeps than one by one."""


class Group(NamedTuple):
    """Rows that miss as many values, zero there.

    Attributes
    ----------
    X, weights : ndarray of shape (n, d), (n,)
    seen : ndarray of bool of shape (n, d)
    missing : ndarray of shape (n, m)
        Columns that each row misses.
    patterns : ndarray of shape (n_patterns, m)
        The same of every pattern.
    pattern : ndarray of shape (n,)
        That of each row.
    """

    X: np.ndarray
    weights: np.ndarray
    seen: np.ndarray
    missing: np.ndarray
    patterns: np.ndarray
    pattern: np.ndarray


class Given(NamedTuple):
    """What a component says of a group: log-density, missing deviations, their covariances."""

    log_density: np.ndarray
    filled: np.ndarray
    covariances: np.ndarray


class IncompleteRows:
    """Rows with missing values.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        NaN where missing; every row misses a value and has one.
    weights : ndarray of shape (n,)
    """

    def __init__(self, X, weights):
        self.groups = list(_grouped(np.asarray(X, dtype=np.float64), weights))

    def log_likelihood_and_add(self, form, mixture, statistics) -> float:
        """Weighted log-likelihood; expected statistics are added to ``statistics``."""
        halves, log_dets = inverse_factors(form.matrices(mixture))
        precisions = halves.transpose(0, 2, 1) @ halves
        scatters = np.zeros(precisions.shape)
        log_likelihood = 0.0
        for group in self.groups:
            deviations = [(group.X - mean) * group.seen for mean in mixture.means]
            found = [
                _given(group, *known)
                for known in zip(deviations, precisions, log_dets, strict=True)
            ]
            log_densities = np.stack([given.log_density for given in found], axis=1)
            gamma, evidence = normalised(log_densities + log_weights(mixture))
            log_likelihood += float(group.weights @ evidence)
            gamma *= group.weights[:, None]
            for k in np.flatnonzero(gamma.any(axis=0)):
                mass, whole = gamma[:, k], deviations[k]
                np.put_along_axis(whole, group.missing, found[k].filled, axis=1)
                statistics.count[k] += mass.sum()
                statistics.first[k] += mass @ whole
                scatters[k] += (whole * mass[:, None]).T @ whole
                scatters[k] += _scattered(group, found[k].covariances, mass, len(whole.T))
        for k, scatter in enumerate(scatters):
            form.add_scatter(statistics, k, scatter, mixture)
        return log_likelihood


def _grouped(X, weights):
    """Groups of rows, small enough for their inverses to stay in a cache."""
    gaps = np.isnan(X)
    counts = gaps.sum(axis=1)
    for m in np.unique(counts):
        rows = np.flatnonzero(counts == m)
        missing = np.nonzero(gaps[rows])[1].reshape(len(rows), m)
        patterns, pattern = np.unique(missing, axis=0, return_inverse=True)
        pattern = np.reshape(pattern, -1)
        order = np.argsort(pattern, kind="stable")
        size = max(BLOCK // m**2, 1)
        for start in range(0, len(rows), size):
            part = order[start : start + size]
            first, last = pattern[part[0]], pattern[part[-1]]
            index, kinds = rows[part], patterns[first : last + 1]
            yield Group(
                np.nan_to_num(X[index]),
                weights[index],
                ~gaps[index],
                missing[part],
                kinds,
                pattern[part] - first,
            )


def _given(group, deviations, precision, log_det) -> Given:
    """What the observed part says, of deviations that are zero where values are missing."""
    pulled = deviations @ precision
    columns = group.patterns.T
    covariances, more = _inverses(precision[columns[:, None], columns])
    pull = np.take_along_axis(pulled, group.missing, axis=1)
    filled = -np.einsum("ijn,nj->ni", covariances[:, :, group.pattern], pull)
    quadratic = np.einsum("nd,nd->n", pulled, deviations) + np.einsum("nm,nm->n", pull, filled)
    n_seen = deviations.shape[1] - len(columns)
    constant = log_det + more[group.pattern] + n_seen * LOG_2PI
    return Given(-0.5 * (quadratic + constant), filled, covariances)


def _inverses(matrices):
    """Inverses and log-determinants of positive definite matrices ``(m, m, n)``, used up."""
    m = len(matrices)
    if m > SWEPT:
        stacked = np.moveaxis(matrices, -1, 0)
        return np.moveaxis(np.linalg.inv(stacked), 0, -1), np.linalg.slogdet(stacked)[1]
    log_det = np.zeros(matrices.shape[2])
    for k in range(m):
        pivot = matrices[k, k].copy()
        log_det += np.log(pivot)
        row = matrices[k].copy()
        share = row / pivot
        matrices -= row[:, None] * share
        matrices[k] = matrices[:, k] = share
        matrices[k, k] = -1 / pivot
    return np.negative(matrices, out=matrices), log_det


def _scattered(group, covariances, mass, d):
    """Weighted sum of the covariances of missing values, each in its place of ``(d, d)``."""
    columns = group.patterns.T
    masses = np.bincount(group.pattern, mass, len(group.patterns))
    places = (columns[:, None] * d + columns).ravel()
    return np.bincount(places, (covariances * masses).ravel(), d * d).reshape(d, d)


def completed(model, X) -> np.ndarray:
    """Rows with missing values replaced by their expectation given the observed ones.

    Parameters
    ----------
    model : MixtureModel
        With a density.
    X : ndarray of shape (n, d)
        NaN where missing.

    Returns
    -------
    ndarray of shape (n, d)
    """
    X = np.array(X)
    matrices = [covariance.to_matrix() for covariance in model.covariances]
    patterns, labels = np.unique(np.isnan(X), axis=0, return_inverse=True)
    for p, pattern in enumerate(patterns):
        if not pattern.any():
            continue
        rows = np.flatnonzero(np.reshape(labels, -1) == p)
        seen, missing = np.flatnonzero(~pattern), np.flatnonzero(pattern)
        if not len(seen):
            X[rows] = model.weights @ model.means
            continue
        observed = X[np.ix_(rows, seen)].astype(np.float64)
        gamma = model.marginal(seen).responsibilities(observed)
        expected = gamma @ model.means[:, missing]
        for k, matrix in enumerate(matrices):
            factor = cholesky(matrix[np.ix_(seen, seen)])
            slopes = scipy.linalg.cho_solve((factor, True), matrix[np.ix_(seen, missing)])
            expected += gamma[:, k, None] * ((observed - model.means[k, seen]) @ slopes)
        X[np.ix_(rows, missing)] = expected
    return X
