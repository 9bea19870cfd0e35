r"""Expectation-maximisation in blocks of rows, for any form of covariance.

One pass over the rows gives the log-likelihood of the current parameters and the
statistics of the next (Dempster, Laird & Rubin 1977):

.. math:: \ell_i = \log \sum_k w_k N(x_i; \mu_k, C_k), \qquad
          \gamma_{ik} = \exp(\log w_k N(x_i; \mu_k, C_k) - \ell_i).

Responsibilities below a threshold are dropped from the statistics, where they change
nothing a digit could show and cost most of the arithmetic; the log-likelihood keeps all.
A block of rows goes through both steps while it is in the cache, so no ``(n, k)`` array
is ever whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skdiffusion.estimators._missing import IncompleteRows
from skdiffusion.estimators._mixture_experts import (
    SingularCovariance,
    normalised,
    weighted_log_densities,
)
from skdiffusion.estimators._mixture_forms import Mixture, Statistics
from skdiffusion.estimators._seeding import nearest, seeds
from skdiffusion.utils.warning import warn_user

__all__ = ["Progress", "Rows", "Run", "best_of", "expectation_maximisation", "one_pass"]

BLOCK = 2048
SHORT_RUN = 10
"""Iterations after which several starts are compared."""
NEGLIGIBLE = {np.dtype(np.float64): 1e-11, np.dtype(np.float32): 1e-7}


class Progress:
    """A progress bar of EM iterations, or nothing."""

    def __init__(self, verbose):
        self.verbose, self.bar = verbose, None

    def __enter__(self):
        if self.verbose:
            from tqdm.auto import tqdm

            self.bar = tqdm(desc="EM", unit="iteration")
        return self

    def __call__(self, log_likelihood):
        if self.bar is not None:
            self.bar.set_postfix(log_likelihood=f"{log_likelihood:.6g}", refresh=False)
            self.bar.update()

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()


class Rows:
    """Standardised rows with their weights; incomplete ones are kept apart, by pattern.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        NaN where missing.
    weights : ndarray of shape (n,)
        Positive.
    """

    def __init__(self, X, weights):
        self.all_X, self.all_weights = X, weights
        self.total = float(weights.sum())
        missing = np.isnan(X).any(axis=1)
        if missing.any():
            self.X, self.weights = X[~missing], weights[~missing]
            self.incomplete = IncompleteRows(X[missing], weights[missing])
        else:
            self.X, self.weights, self.incomplete = X, weights, None

    def sums(self, function, *shared):
        """``function(rows, *shared)``, a sum over rows."""
        return function(self, *shared)

    @property
    def few(self) -> Rows:
        """Rows in memory to find a start from: these."""
        return self

    @property
    def seen(self) -> np.ndarray:
        """Weight of the values that are not missing, by column."""
        return self.all_weights @ ~np.isnan(self.all_X)

    def subset(self, index) -> Rows:
        """Some of the rows."""
        return Rows(self.all_X[index], self.all_weights[index])

    def in_double(self) -> Rows:
        """These rows in double precision."""
        return Rows(self.all_X.astype(np.float64), self.all_weights)

    def imputed(self):
        """All rows with missing values at the mean of the column, which is zero."""
        return self.all_X if self.incomplete is None else np.nan_to_num(self.all_X)


@dataclass
class Run:
    """Where EM ended."""

    mixture: Mixture
    log_likelihood: float  # mean over rows, of these parameters
    history: list
    n_iter: int
    converged: bool
    interrupted: bool


@dataclass
class Pass:
    """What one pass over rows gathers; passes over parts of them add up."""

    statistics: Statistics
    log_likelihood: float

    def __add__(self, other: Pass) -> Pass:
        return Pass(self.statistics + other.statistics, self.log_likelihood + other.log_likelihood)


def one_pass(form, mixture: Mixture, rows) -> tuple[Statistics, float]:
    """Statistics of the next parameters and mean log-likelihood of these."""
    found = rows.sums(_expectation, form, mixture)
    return found.statistics, found.log_likelihood / rows.total


def _expectation(rows: Rows, form, mixture: Mixture) -> Pass:
    statistics = form.nothing(mixture)
    expert = form.expert(mixture, rows.X.dtype)
    negligible = NEGLIGIBLE[rows.X.dtype]
    log_likelihood = 0.0
    for start in range(0, len(rows.X), BLOCK):
        block = slice(start, start + BLOCK)
        X, weights = rows.X[block], rows.weights[block]
        gamma, evidence = normalised(weighted_log_densities(expert, mixture, X))
        log_likelihood += float(weights @ evidence)
        gamma[gamma < negligible] = 0.0
        gamma *= (weights / gamma.sum(axis=1))[:, None]
        form.add(statistics, X, gamma, mixture)
    if rows.incomplete is not None:
        log_likelihood += rows.incomplete.log_likelihood_and_add(form, mixture, statistics)
    return Pass(statistics, log_likelihood)


def expectation_maximisation(
    form, start: Mixture, rows: Rows, *, tol: float, max_iter: int, progress=None
) -> Run:
    """Iterate until the mean log-likelihood of a row gains less than ``tol``.

    Twice running where pseudo-rows pull: their target moves, so that the likelihood may turn, and
    stand still for an iteration, on its way. Ctrl-C ends it with the best parameters so far and a
    warning.
    """
    mixture, history, converged, interrupted = start, [], False, False
    candidate, n_iter, still, patience = start, 0, 0, 2 if form.pull else 1
    try:
        for iteration in range(max_iter + 1):
            statistics, log_likelihood = one_pass(form, candidate, rows)
            if not np.isfinite(log_likelihood):
                raise ValueError(
                    "the log-likelihood is not finite: increase reg_covar or shrinkage."
                )
            mixture, n_iter = candidate, iteration
            history.append(log_likelihood)
            if progress is not None:
                progress(log_likelihood)
            gains = iteration == 0 or abs(history[-1] - history[-2]) >= tol
            still = 0 if gains else still + 1
            if still == patience:
                converged = True
                break
            if iteration == max_iter:
                break
            candidate = form.maximise(statistics, candidate)
    except KeyboardInterrupt:
        interrupted = True
        warn_user(
            f"fitting was interrupted: the parameters after {n_iter} iterations are kept.",
        )
    level = history[-1] if history else -np.inf
    return Run(mixture, level, history, n_iter, converged, interrupted)


def partition(form, rows, centres) -> Mixture:
    """Parameters when every row belongs to its nearest centre."""
    mixture = form.at(centres, rows.few.imputed(), rows.few.all_weights)
    return form.maximise(rows.sums(_assignment, form, mixture, centres), mixture)


def _assignment(rows: Rows, form, mixture: Mixture, centres) -> Statistics:
    X, k = rows.imputed(), len(mixture.means)
    statistics = form.nothing(mixture)
    labels = nearest(X, centres)
    for start in range(0, len(X), BLOCK):
        block = slice(start, start + BLOCK)
        gamma = (labels[block, None] == np.arange(k)) * rows.all_weights[block, None]
        form.add(statistics, X[block], gamma, mixture)
    return statistics


def best_of(form, rows: Rows, k: int, init, n_init: int, rng, **options) -> Run:
    """EM from the best of several seeds: short runs from all of them, the best one to the end.

    Where a short run stands tells nearly as much as where it would end (Biernacki, Celeux &
    Govaert 2003), and costs a tenth of it. Where single precision makes a covariance of narrow
    and wide columns singular, all is done again in double.

    Parameters
    ----------
    form, rows
        What to fit to what.
    k : int
        Number of components.
    init : str, ndarray of shape (k, d) or Mixture
        Method of seeding, the centres, or the parameters to start from.
    n_init : int
        Number of seeds.
    rng : Generator
    **options
        For :func:`expectation_maximisation`: ``tol``, by which a later seed must be better too, so
        that rounding chooses none, and ``max_iter``, the short iterations included.
    """
    try:
        return _best_of(form, rows, k, init, n_init, rng, **options)
    except SingularCovariance:
        if rows.few.all_X.dtype == np.float64:
            raise
        return _best_of(form, rows.in_double(), k, init, n_init, rng, **options)


def _best_of(form, rows, k, init, n_init, rng, *, tol, max_iter, **options):
    options = {"tol": tol, **options}
    if not isinstance(init, str):
        start = init if isinstance(init, Mixture) else partition(form, rows, init)
        return expectation_maximisation(form, start, rows, max_iter=max_iter, **options)
    best, first = None, max_iter if n_init == 1 else min(SHORT_RUN, max_iter)
    for _ in range(n_init):
        start = partition(form, rows, seeds(rows.imputed(), rows.all_weights, k, init, rng))
        run = expectation_maximisation(form, start, rows, max_iter=first, **options)
        interrupted = run.interrupted
        if best is None or run.log_likelihood > best.log_likelihood + tol:
            best = run
        if interrupted:
            best.interrupted = True
            return best
    if best.converged or best.n_iter == max_iter:
        return best
    rest = expectation_maximisation(
        form, best.mixture, rows, max_iter=max_iter - best.n_iter, **options
    )
    rest.history = best.history[:-1] + rest.history
    rest.n_iter += best.n_iter
    return rest
