"""One pass of EM over rows with missing values, beside conditional laws one row at a time."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from skdiffusion.estimators import _missing
from skdiffusion.estimators._mixture_forms import FullForm, Mixture


def problem(d, share, seed):
    """A mixture of three, and rows of which some share patterns."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((3, d, 2 * d))
    mixture = Mixture(
        np.array([0.2, 0.3, 0.5]),
        rng.standard_normal((3, d)),
        factors @ factors.transpose(0, 2, 1) / d,
    )
    X = 2 * rng.standard_normal((60, d))
    gaps = rng.random((40, d)) < share
    gaps[gaps.all(axis=1), 0] = False
    gaps[~gaps.any(axis=1), 0] = True
    X[:40][gaps] = np.nan
    X[40:][:, : d // 2] = np.nan
    return mixture, X, rng.uniform(0.5, 2.0, len(X))


def row_by_row(mixture, X, weights):
    """The same from the textbook: marginals of what is seen, and laws of the rest given it."""
    k, d = mixture.means.shape
    total, count, first, second = 0.0, np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    for x, weight in zip(X, weights, strict=True):
        o, m = np.flatnonzero(~np.isnan(x)), np.flatnonzero(np.isnan(x))
        laws = zip(mixture.means, mixture.spread, strict=True)
        logs = [multivariate_normal(mu[o], C[np.ix_(o, o)]).logpdf(x[o]) for mu, C in laws]
        joint = mixture.weights * np.exp(logs)
        total += weight * np.log(joint.sum())
        for j, gamma in enumerate(weight * joint / joint.sum()):
            mu, C = mixture.means[j], mixture.spread[j]
            slopes = np.linalg.solve(C[np.ix_(o, o)], C[np.ix_(o, m)])
            z = np.zeros(d)
            z[o] = x[o] - mu[o]
            z[m] = z[o] @ slopes
            V = np.zeros((d, d))
            V[np.ix_(m, m)] = C[np.ix_(m, m)] - C[np.ix_(m, o)] @ slopes
            count[j] += gamma
            first[j] += gamma * z
            second[j] += gamma * (np.outer(z, z) + V)
    return total, count, first, second


@pytest.mark.parametrize("d, share", [(2, 0.5), (6, 0.3), (25, 0.6)])
@pytest.mark.parametrize("block", [2**18, 1])
def test_a_pass_is_that_of_conditional_laws(d, share, block, monkeypatch):
    # in 25 columns more values are missing than are swept; of one number a block is one row
    monkeypatch.setattr(_missing, "BLOCK", block)
    mixture, X, weights = problem(d, share, d)
    form = FullForm(1e-6, 0.0)
    found = form.nothing(mixture)
    rows = _missing.IncompleteRows(X, weights)
    total = rows.log_likelihood_and_add(form, mixture, found)
    expected = row_by_row(mixture, X, weights)
    # covariances of condition below 1e4, in double precision
    for ours, theirs in zip((total, found.count, found.first, found.second), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_inverses_by_sweeps_and_one_by_one():
    rng = np.random.default_rng(0)
    for m in (1, _missing.SWEPT, _missing.SWEPT + 1):
        factor = rng.standard_normal((7, m, 2 * m))
        matrices = factor @ factor.transpose(0, 2, 1)
        inverses, log_dets = _missing._inverses(np.moveaxis(matrices, 0, -1).copy())
        np.testing.assert_allclose(
            np.moveaxis(inverses, -1, 0) @ matrices, [np.eye(m)] * 7, atol=1e-9
        )
        np.testing.assert_allclose(log_dets, np.linalg.slogdet(matrices)[1], atol=1e-10)
