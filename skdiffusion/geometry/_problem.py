"""Rows with a field at them, dealt out into folds; errors that know which rows are copies."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import check_cv

from skdiffusion.utils.validation import check_count

__all__ = ["Problem", "conservative_fraction", "mean_and_error", "simplest_of_the_best"]


class Problem(NamedTuple):
    """Distinct rows with the field at them, folds, and which rows are copies of one."""

    X: np.ndarray
    V: Any
    weights: np.ndarray
    folds: list
    groups: np.ndarray
    index: np.ndarray

    @property
    def centre(self):
        return (self.weights / self.weights.sum()) @ self.X

    @classmethod
    def of(cls, X, V, weights, cv, rng):
        """Equal rows become one with the sum of their weights, in an order that turns with them."""
        kept = np.flatnonzero(weights)
        columns = [X[kept]] if V is None else [X[kept], V[kept]]
        if not isinstance(cv, Integral):  # copies of a row stay where the splitter put them
            columns.append(_fold_numbers(cv, X)[kept, None])
        table, which = np.unique(np.hstack(columns) + 0.0, axis=0, return_inverse=True)
        if len(table) < 2:
            raise ValueError("X needs at least two distinct rows of positive weight.")
        merged = np.bincount(which.ravel(), weights[kept])
        # by the distance from the mean: an order that rotations and copies leave as it is
        d = X.shape[1]
        centred = table[:, :d] - merged @ table[:, :d] / merged.sum()
        order = np.argsort((centred**2).sum(axis=1), kind="stable")
        table, merged = table[order], merged[order]
        index = np.full(len(X), -1)
        index[kept] = np.argsort(order)[which.ravel()]
        n = len(table)
        if isinstance(cv, Integral):
            folds = np.array_split(rng.permutation(n), min(check_count(cv, "cv", 2), n))
        else:
            folds = [np.flatnonzero(table[:, -1] == k) for k in np.unique(table[:, -1])]
            if len(folds) < 2:
                raise ValueError("cv must put rows of positive weight into at least two folds.")
        V = None if V is None else table[:, d : 2 * d]
        return cls(table[:, :d], V, merged, folds, np.arange(n), index)

    def noised(self, noise):
        """Copies with noise ``(n_copies, n, d)``; the copies of a row share its fold."""
        n_copies, n, d = noise.shape
        starts = np.arange(n_copies)[:, None] * n
        return Problem(
            (self.X + noise).reshape(-1, d),
            None,
            np.tile(self.weights, n_copies),
            [(starts + rows).ravel() for rows in self.folds],
            np.tile(self.groups, n_copies),
            self.index,
        )


def _fold_numbers(cv, X):
    """Which fold holds out each row."""
    numbers = np.full(len(X), -1)
    for k, (_, test) in enumerate(check_cv(cv).split(X)):
        if (numbers[test] >= 0).any():
            break
        numbers[test] = k
    else:
        if numbers.min() >= 0 and numbers.max() >= 1:
            return numbers
    raise ValueError("cv must hold out every row once, in at least two folds.")


def mean_and_error(values, problem):
    """Weighted mean over rows and its standard error; copies of a row are one observation."""
    total = problem.weights.sum()
    exponent = int(np.frexp(np.abs(values).max())[1])  # squares of squares of a field are numbers
    values = np.ldexp(values, -exponent)
    mean = problem.weights @ values / total
    sums = np.bincount(problem.groups, problem.weights * (values - mean))
    n = len(sums)
    error = np.sqrt((sums**2).sum() * n / max(n - 1, 1)) / total
    return np.ldexp(mean, exponent), np.ldexp(error, exponent)


def conservative_fraction(losses, problem):
    """Conservative fraction and its standard error, that of a ratio of means."""
    squares = (problem.V**2).sum(axis=1)
    energy = problem.weights @ squares / problem.weights.sum()
    if energy == 0:
        return 1.0, 0.0
    rest = problem.weights @ losses / problem.weights.sum() / energy
    return 1 - rest, mean_and_error((losses - rest * squares) / energy, problem)[1]


def simplest_of_the_best(candidates, problem):
    """The candidate and strength of fewest degrees of freedom within one standard error.

    The error is that of the difference from the best, row by row: most of a loss is the gauge,
    which all candidates share.
    """
    shares = problem.weights / problem.weights.sum()
    best_mean, best = np.inf, None
    for candidate in candidates:
        means = shares @ candidate.losses
        if means.min() < best_mean:
            best_mean, best = means.min(), candidate.losses[:, means.argmin()]
    chosen, fewest = None, np.inf
    for candidate in candidates:
        for k, dof in enumerate(candidate.final.dof):
            excess, error = mean_and_error(candidate.losses[:, k] - best, problem)
            if excess <= error and (chosen is None or dof < fewest):
                chosen, fewest = (candidate, k), dof
    return chosen
