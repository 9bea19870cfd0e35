r"""EM for rows of which only a part was observed.

With the observed part :math:`o` of a row and the missing part :math:`m` (Ghahramani & Jordan
1994; missing at random), responsibilities come from the marginals :math:`N(x_o; \mu_{k,o},
C_{k,oo})`, and moments from the completed row and the uncertainty of the completion:

.. math:: \hat x_m = \mu_{k,m} + B_k (x_o - \mu_{k,o}), \quad B_k = C_{k,mo} C_{k,oo}^{-1},
          \qquad V_k = C_{k,mm} - B_k C_{k,om} .

Rows with the same pattern of missing values share one factorisation.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from skdiffusion.estimators._mixture_experts import (
    TriangularExpert,
    cholesky,
    normalised,
    weighted_log_densities,
)

__all__ = ["IncompleteRows", "completed"]


class IncompleteRows:
    """Rows with missing values, grouped by pattern.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        NaN where missing; no row is entirely so.
    weights : ndarray of shape (n,)
    """

    def __init__(self, X, weights):
        self.X, self.weights = np.asarray(X, dtype=np.float64), weights
        self.total = float(weights.sum())
        patterns, labels = np.unique(np.isnan(self.X), axis=0, return_inverse=True)
        labels = np.reshape(labels, -1)
        self.groups = [
            (np.flatnonzero(~missing), np.flatnonzero(missing), np.flatnonzero(labels == p))
            for p, missing in enumerate(patterns)
        ]

    def log_likelihood_and_add(self, form, mixture, statistics) -> float:
        """Weighted log-likelihood; expected statistics are added to ``statistics``."""
        matrices, centres = form.matrices(mixture), mixture.means
        scatters = np.zeros(matrices.shape)
        log_likelihood = 0.0
        for seen, missing, rows in self.groups:
            X, weights = self.X[np.ix_(rows, seen)], self.weights[rows]
            inner = matrices[:, seen[:, None], seen]
            expert = TriangularExpert(centres[:, seen], inner, np.float64)
            gamma, evidence = normalised(weighted_log_densities(expert, mixture, X))
            log_likelihood += float(weights @ evidence)
            gamma *= weights[:, None]
            factors = cholesky(inner)
            for k in np.flatnonzero(gamma.any(axis=0)):
                cross = matrices[k][np.ix_(seen, missing)]
                slopes = scipy.linalg.cho_solve((factors[k], True), cross)
                completed = np.empty((len(rows), len(centres[k])))
                completed[:, seen] = X - centres[k, seen]
                completed[:, missing] = completed[:, seen] @ slopes
                mass = gamma[:, k].sum()
                statistics.count[k] += mass
                statistics.first[k] += gamma[:, k] @ completed
                scatters[k] += (completed * gamma[:, k, None]).T @ completed
                scatters[k][np.ix_(missing, missing)] += mass * (
                    matrices[k][np.ix_(missing, missing)] - cross.T @ slopes
                )
        for k, scatter in enumerate(scatters):
            form.add_scatter(statistics, k, scatter, mixture)
        return log_likelihood


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
