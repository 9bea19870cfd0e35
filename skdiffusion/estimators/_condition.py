r"""Rows given what is known of them: ``sample(condition=...)`` of every score estimator.

.. math:: x \sim p(x \mid x_j = v_j,\ l_k \le x_k \le h_k,\ A x + s e = y) .

Values and linear measurements are exact where the model's posterior has a closed form; ranges then
by rejection, which is exact too and says when it is hopeless. Any other model, or a sampler that
is asked for, is guided (:class:`~skdiffusion.models.ConditionedModel`), and of the rows that are
generated those out of range are drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skdiffusion.models.conditioned import ConditionedModel
from skdiffusion.models.measurement import LinearMeasurement, has_posterior, posterior
from skdiffusion.samplers import check_sampler
from skdiffusion.utils.validation import check_number

__all__ = [
    "check_condition",
    "check_known",
    "column_index",
    "conditional_rows",
    "ends_of",
    "guided_rows",
]

DEFAULT_SAMPLER = "time_travel"
"""Guidance is approximate at high levels; steps taken again forget what it got wrong there."""
MOST_DRAWS = 1000
"""Draws per row wanted, after which rejection gives up."""
MOST_ROUNDS = 20
"""Rounds of a sampler, after which rejection gives up: a round costs more than a draw."""


def ends_of(known, column) -> tuple[float, float]:
    """The ends of a range, of which either may be ``None``; errors speak of ``column``."""
    pair = tuple(known)
    low, high = pair if len(pair) == 2 else (np.nan, np.nan)
    try:
        low = -np.inf if low is None else float(low)
        high = np.inf if high is None else float(high)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise ValueError(
            f"a range (low, high) must have low below high; got {known!r} for column {column!r}."
        )
    return low, high


def check_known(known, column) -> None:
    """Refuse what is neither a finite number nor a range; errors speak of ``column``."""
    if np.ndim(known) == 0:
        check_number(known, f"the value of column {column!r}")
    else:
        ends_of(known, column)


def check_condition(condition: Any, n_features: int) -> None:
    """Refuse what is neither a mapping of columns nor a measurement of so many."""
    if isinstance(condition, LinearMeasurement):
        if condition.matrix.shape[1] != n_features:
            raise ValueError(
                f"the matrix of the measurement must have {n_features} columns; "
                f"got {condition.matrix.shape[1]}."
            )
    elif not (isinstance(condition, Mapping) and condition):
        raise ValueError(
            "condition must be a mapping from columns to a value or a pair (low, high), of at "
            f"least one column, or a LinearMeasurement; got {condition!r}."
        )


def column_index(estimator: Any, column: Any) -> int:
    """Position of a column given by name or position."""
    names = getattr(estimator, "feature_names_in_", None)
    if isinstance(column, str):
        if names is None or column not in names:
            raise ValueError(f"there is no column {column!r}.")
        return int(np.flatnonzero(names == column)[0])
    if isinstance(column, (int, np.integer)) and 0 <= column < estimator.n_features_in_:
        return int(column)
    raise ValueError(
        f"a column is a name or an index from 0 to {estimator.n_features_in_ - 1}; got {column!r}."
    )


class _Known:
    """A condition in the terms of models: measured values, and ranges of the columns."""

    def __init__(self, estimator, condition):
        d = estimator.n_features_in_
        self.low, self.high = np.full(d, -np.inf), np.full(d, np.inf)
        self.noise, self.matrix, self.values = 0.0, None, np.full(d, np.nan)
        check_condition(condition, d)
        if isinstance(condition, LinearMeasurement):
            self.matrix, self.values = condition.matrix, condition.values
            self.noise = condition.noise
        else:
            self._read(estimator, condition)

    def _read(self, estimator, condition):
        seen = set()
        for column, known in condition.items():
            j = column_index(estimator, column)
            if j in seen:
                raise ValueError("condition was given the same column by name and by index.")
            seen.add(j)
            if np.ndim(known) == 0:
                self.values[j] = check_number(known, f"the value of column {column!r}")
                continue
            self.low[j], self.high[j] = ends_of(known, column)

    @property
    def has_ranges(self):
        return bool(np.isfinite(self.low).any() or np.isfinite(self.high).any())

    def inside(self, rows):
        return ((rows >= self.low) & (rows <= self.high)).all(axis=1)

    def pinned(self, rows):
        """Known columns at their values exactly."""
        if self.matrix is None:
            rows[:, ~np.isnan(self.values)] = self.values[~np.isnan(self.values)]
        return rows


def conditional_rows(estimator, model, n_samples, condition, rng, how):
    """Rows drawn under a condition; ``how`` are the other arguments of ``sample``.

    Returns
    -------
    ndarray of shape (n_samples, d)

    Raises
    ------
    ValueError
        If the condition is not valid, or the model hardly ever meets the ranges.
    """
    known = _Known(estimator, condition)
    asked = (how["sampler"], how["n_steps"], estimator.sampler)
    if has_posterior(model) and all(a is None for a in asked):

        def draw(n):
            values = np.tile(known.values, (n, 1))
            found = posterior(
                model, values, known.matrix, noise=known.noise, n_draws=1, random_state=rng
            )
            return found.draws[0]

        most = MOST_DRAWS * n_samples
    else:
        given = ConditionedModel(
            model, known.matrix, noise=known.noise, low=known.low, high=known.high
        )

        def draw(n):
            values = np.tile(known.values, (n, 1))
            return guided_rows(estimator, given, values, rng, **how)

        most = MOST_ROUNDS * n_samples
    return known.pinned(_accepted(draw, known, n_samples, most))


def _accepted(draw, known, n_samples, most):
    """Rows within their ranges, in rounds whose size follows the share accepted."""
    if not known.has_ranges:
        return draw(n_samples)
    kept, n_kept, n_drawn = [], 0, 0
    while n_kept < n_samples:
        if n_drawn >= most:
            raise ValueError(
                f"only {n_kept} of {n_drawn} rows met the ranges of the condition: the model gives "
                "them too little probability to draw from. Widen them, or ask for a sampler "
                "(n_steps=64), which is guided into the ranges, approximately."
            )
        wanted = n_samples - n_kept
        share = max(n_kept / n_drawn, 1e-3) if n_drawn else 1.0
        n = int(min(np.ceil(1.2 * wanted / share), most - n_drawn, 10 * n_samples + 1000))
        rows = draw(n)
        rows = rows[known.inside(rows)]
        kept.append(rows)
        n_kept, n_drawn = n_kept + len(rows), n_drawn + n
    return np.concatenate(kept)[:n_samples]


def guided_rows(estimator, given, values, rng, sampler=None, n_steps=None, codes=None, **options):
    """Rows by a sampler on a model that takes what is known as its labels.

    Parameters
    ----------
    estimator : fitted score estimator
        Its levels and far field are those of the run.
    given : ConditionedModel or KnownColumnsModel
    values : ndarray of shape (n, m)
        Known values of each row, NaN where nothing is.
    rng : Generator
    sampler, n_steps, **options
        As in ``sample``.
    codes : ndarray of shape (n, d), optional
        Standard normal codes of the far field that the run starts from.

    Returns
    -------
    ndarray of shape (n, d)
    """
    sampler = estimator.sampler if sampler is None else sampler
    sampler = check_sampler(DEFAULT_SAMPLER if sampler is None else sampler)
    if sampler.teleport is not False:
        raise ValueError("rows under a condition cannot teleport: set teleport=False.")
    if codes is None:
        codes = rng.standard_normal((len(values), estimator.n_features_in_))
    return estimator._generate(
        codes, sampler, n_steps, model=given, y=values, random_state=rng, **options
    )
