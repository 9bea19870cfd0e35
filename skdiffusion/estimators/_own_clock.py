"""Models that are not told the noise level are sampled by the level their points seem to have."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

from skdiffusion.estimators.noise_level import NoiseLevelEstimator
from skdiffusion.utils.rows import evenly_spaced

__all__ = ["OwnClock", "check_level_estimator", "fitted_level_estimator", "some_rows"]

MOST_NUMBERS = 4_000_000
"""Numbers in the rows that a level estimator learns from, at most."""


class OwnClock:
    """A score estimator with ``level_estimator_`` where its model is not told the level."""

    def _sampler(self, sampler=None):
        """The sampler asked for, reading the level of its points if its clock is not given."""
        sampler = super()._sampler(sampler)
        reads = hasattr(self, "level_estimator_") and sampler.clock in ("auto", "estimated")
        return clone(sampler).set_params(clock=self.level_estimator_) if reads else sampler


def check_level_estimator(given: Any) -> None:
    """Raise unless it is a NoiseLevelEstimator or ``None``."""
    if not isinstance(given, (NoiseLevelEstimator, type(None))):
        raise ValueError(f"level_estimator must be a NoiseLevelEstimator; got {given!r}.")


def some_rows(index: np.ndarray, n_features: int) -> np.ndarray:
    """Of the positions of rows as many, evenly, as a level estimator learns from."""
    return evenly_spaced(index, max(MOST_NUMBERS // n_features, 2))


def fitted_level_estimator(
    given: NoiseLevelEstimator | None, rows: np.ndarray, low: float, high: float, seed: int
) -> NoiseLevelEstimator:
    """A level estimator for a sampler between two levels.

    Parameters
    ----------
    given : NoiseLevelEstimator or None
        A clone of it is fitted; its own seed and range go before those that follow.
    rows : ndarray of shape (n, d)
        In coordinates where noise is isotropic.
    low, high : float
    seed : int

    Returns
    -------
    NoiseLevelEstimator
    """
    levels = NoiseLevelEstimator() if given is None else clone(given)
    if levels.random_state is None:
        levels.set_params(random_state=seed)
    if levels.sigma_min is None and levels.sigma_max is None:
        levels.set_params(sigma_min=low, sigma_max=high)
    return levels.fit(rows)
