r"""How many components: by a penalty on the training rows, or by rows held out.

``"bic"`` takes the least :math:`-2 \sum_i \ell_i + p \log n`. ``"held_out"`` takes the largest mean
log-likelihood of held-out rows over a few folds (one, when rows are many), and then tunes
the two regularisations the same way where they were left to be chosen: pseudo-rows of the
pooled shape and the additive share of the data's variance; and whether there is a background.

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
FLOORS = (1e-3, 1e-2, 5e-2, 0.2, 0.8)
"""Shares of the variance tried besides the default: the larger ones for fewer rows than columns."""


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
        The form for a floor, a pull, whether there is a background, and the rows to fit.
    rows : Rows
    most : int
        Largest number of components.
    rng : Generator
    init : str
        Method of seeding.
    n_init : int
        Number of seeds.
    tune : tuple of bool
        Whether the floor, the pull and the background are to be chosen.
    defaults : tuple of float, float, bool
        Floor, pull and background to start from.
    **options
        For :func:`best_of`.

    Returns
    -------
    k : int
    floor, pull : float
    background : bool
    table : list of (k, floor, pull, background, value)
        All that was tried; larger values are better.
    """
    evaluate = _Criterion(criterion, make_form, rows, rng, init, n_init, options)
    n = len(rows.all_X)
    candidates = [k for k in CANDIDATES if k <= min(most, n)]
    if most <= n and most not in candidates:
        candidates.append(most)
    best = _grow(evaluate, candidates, defaults)
    if criterion == "held_out":
        _, k, floor, pull, background = best
        if tune[2]:
            best = max(best, evaluate(k, floor, pull, not background))
            background = best[4]
        if tune[1]:
            best = max([best, *(evaluate(k, floor, share * pull, background) for share in PULLS)])
            pull = best[3]
        if tune[0]:
            best = max([best, *(evaluate(k, share, pull, background) for share in FLOORS)])
        if best[2:] != defaults:  # a stronger prior may afford more components
            later = [more for more in candidates if more >= k]
            best = max(best, _grow(evaluate, later, best[2:]))
    _, k, floor, pull, background = best
    table = [(*found[1:], found[0]) for found in evaluate.seen.values()]
    return k, floor, pull, background, table


def _grow(evaluate, candidates, setting):
    best, misses = None, 0
    for k in candidates:
        result = evaluate(k, *setting)
        if best is None or result[0] > best[0]:
            best, misses = result, 0
        else:
            misses += 1
        if misses == PATIENCE or evaluate.interrupted:
            break
    return best


class _Criterion:
    """A value, larger is better, for a number of components and their setting."""

    def __init__(self, name, make_form, rows, rng, init, n_init, options):
        self.name, self.make_form, self.rows = name, make_form, rows
        self.init, self.n_init, self.options = init, n_init, options
        self.seeds = rng.integers(2**62, size=N_FOLDS)
        self.seen: dict = {}
        self.interrupted = False
        if name == "held_out":
            self.folds = self._split()

    def __call__(self, k, *setting):
        key = (k, *setting)
        if key not in self.seen:
            self.seen[key] = (self._value_or_worst(k, setting), *key)
        return self.seen[key]

    def _value_or_worst(self, k, setting):
        if self.interrupted:
            return -np.inf
        try:
            return self._value(k, setting)
        except ValueError:  # a component is singular: this candidate is out
            return -np.inf

    def _value(self, k, setting):
        if self.name == "bic":
            form, run = self._fit(setting, self.rows, k, 0)
            d = self.rows.all_X.shape[1]
            penalty = form.n_parameters(k, d) * np.log(self.rows.total)
            return 2 * run.log_likelihood * self.rows.total - penalty
        total = 0.0
        for fold, (train, test) in enumerate(self.folds):
            if k > len(train.all_X):
                return -np.inf
            form, run = self._fit(setting, train, k, fold)
            total += one_pass(form, run.mixture, test)[1] * test.total
        return total / sum(test.total for _, test in self.folds)

    def _fit(self, setting, rows, k, fold):
        form = self.make_form(*setting, rows)
        rng = np.random.default_rng(self.seeds[fold])
        run = best_of(form, rows, k, self.init, self.n_init, rng, **self.options)
        self.interrupted = self.interrupted or run.interrupted
        return form, run

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
