r"""How many components: by a penalty on the training rows, or by rows held out.

``"bic"`` takes the least :math:`-2 \sum_i \ell_i + p \log n`. ``"held_out"`` takes the largest mean
log-likelihood of held-out rows over a few folds (one, when rows are many), and then tunes
the two regularisations the same way where they were left to be chosen: pseudo-rows of the
pooled shape and the additive share of the data's variance.

Candidates grow until three in a row bring nothing. Folds are drawn by the *content* of
the rows, so that copies of a row, or its weight, never straddle training and test.
"""

from __future__ import annotations

import numpy as np

from skdiffusion.estimators._em import Rows, best_of, one_pass
from skdiffusion.estimators._seeding import canonical_key

__all__ = ["choose"]

CANDIDATES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200)
PATIENCE = 3
MANY_ROWS = 5000
N_FOLDS = 4
PULLS = (0.1, 0.5, 2.0)
"""Shares of the default number of pseudo-rows tried besides it."""
FLOORS = (1e-3, 1e-2, 5e-2)
"""Shares of the variance tried besides the default."""


def choose(
    criterion: str,
    make_form,
    rows: Rows,
    most: int,
    rng,
    *,
    init,
    n_init,
    tune,
    defaults,
    **options,
):
    """Number of components and regularisations of the best value of a criterion.

    Parameters
    ----------
    criterion : {"bic", "held_out"}
    make_form : callable
        The form for a floor and a pull.
    rows : Rows
    most : int
        Largest number of components.
    rng : Generator
    init : str
        Method of seeding.
    n_init : int
        Number of seeds.
    tune : tuple of bool
        Whether the floor and the pull are to be chosen.
    defaults : tuple of float
        Floor and pull to start from.
    **options
        For :func:`best_of`.

    Returns
    -------
    k : int
    floor, pull : float
    table : list of (k, floor, pull, value)
        All that was tried; larger values are better.
    """
    evaluate = _Criterion(criterion, make_form, rows, rng, init, n_init, options)
    floor, pull = defaults
    n = len(rows.all_X)
    candidates = [k for k in CANDIDATES if k <= min(most, n)]
    if most <= n and most not in candidates:
        candidates.append(most)
    best = _grow(evaluate, candidates, floor, pull)
    if criterion == "held_out":
        if tune[1]:
            best = max([best, *(evaluate(best[1], best[2], share * pull) for share in PULLS)])
        if tune[0]:
            best = max([best, *(evaluate(best[1], share, best[3]) for share in FLOORS)])
        if best[2:] != (floor, pull):  # a stronger prior may afford more components
            later = [k for k in candidates if k >= best[1]]
            best = max(best, _grow(evaluate, later, best[2], best[3]))
    _, k, floor, pull = best
    return k, floor, pull, [(k, f, p, value) for value, k, f, p in evaluate.seen.values()]


def _grow(evaluate, candidates, floor, pull):
    best, misses = None, 0
    for k in candidates:
        result = evaluate(k, floor, pull)
        if best is None or result[0] > best[0]:
            best, misses = result, 0
        else:
            misses += 1
        if misses == PATIENCE or evaluate.interrupted:
            break
    return best


class _Criterion:
    """A value, larger is better, for a number of components and regularisations."""

    def __init__(self, name, make_form, rows, rng, init, n_init, options):
        self.name, self.make_form, self.rows = name, make_form, rows
        self.init, self.n_init, self.options = init, n_init, options
        self.seeds = rng.integers(2**62, size=N_FOLDS)
        self.seen: dict = {}
        self.interrupted = False
        if name == "held_out":
            self.folds = self._split()

    def __call__(self, k, floor, pull):
        key = (k, floor, pull)
        if key not in self.seen:
            self.seen[key] = (self._value_or_worst(k, floor, pull), k, floor, pull)
        return self.seen[key]

    def _value_or_worst(self, k, floor, pull):
        if self.interrupted:
            return -np.inf
        try:
            return self._value(self.make_form(floor, pull), k)
        except ValueError:  # a component is singular: this candidate is out
            return -np.inf

    def _value(self, form, k):
        if self.name == "bic":
            run = self._fit(form, self.rows, k, 0)
            d = self.rows.all_X.shape[1]
            penalty = form.n_parameters(k, d) * np.log(self.rows.total)
            return 2 * run.log_likelihood * self.rows.total - penalty
        total = 0.0
        for fold, (train, test) in enumerate(self.folds):
            if k > len(train.all_X):
                return -np.inf
            run = self._fit(form, train, k, fold)
            total += one_pass(form, run.mixture, test)[1] * test.total
        return total / sum(test.total for _, test in self.folds)

    def _fit(self, form, rows, k, fold):
        rng = np.random.default_rng(self.seeds[fold])
        run = best_of(form, rows, k, self.init, self.n_init, rng, **self.options)
        self.interrupted = self.interrupted or run.interrupted
        return run

    def _split(self):
        _, labels = np.unique(canonical_key(self.rows.imputed()), return_inverse=True)
        n_groups = labels.max() + 1
        turn = np.random.default_rng(self.seeds).permutation(n_groups) % N_FOLDS
        fold_of = turn[labels]
        n_folds = 1 if len(labels) > MANY_ROWS else N_FOLDS
        folds = []
        for fold in range(n_folds):
            test = fold_of == fold
            if test.any() and not test.all():
                folds.append((self.rows.subset(~test), self.rows.subset(test)))
        return folds or [(self.rows, self.rows)]
