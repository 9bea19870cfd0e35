r"""Which noise levels training visits.

What a network can still learn at a level is at most the linear denoiser's error there. In the
bound on the log-likelihood that error counts per unit of :math:`u = \log\sigma` as

.. math:: \ell(\sigma) = \frac1d \sum_k \frac{\lambda_k}{\lambda_k + \sigma^2},

so a quarter of the levels is drawn with density :math:`\ell` in :math:`u`, where errors that count
as shares of the linear one weigh as in the likelihood. The others are log-normal (Karras et al.
2022): there structure forms, and samples are decided. A schedule that is named says itself which
levels it visits.

The levels of a batch are stratified: one per equal share of the law.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["level_quantiles"]

TABLE = 4097
MIDDLE, WIDTH = -1.2, 1.2
LINEAR_SHARE = 0.25


def level_quantiles(
    schedule: Any, variances: np.ndarray, low: float, high: float, seed: int
) -> np.ndarray:
    """Quantiles of the logarithm of the training levels, at equal shares from 0 to 1.

    Parameters
    ----------
    schedule : NoiseSchedule or None
        ``None``: from the variances of the data.
    variances : ndarray of shape (d,)
        Of the columns as the network sees them.
    low, high : float
        Range of the levels.
    seed : int
        For schedules that draw.

    Returns
    -------
    ndarray of shape (n,)
    """
    if schedule is not None:
        levels = schedule.sample_levels(64 * TABLE, random_state=seed)
        logs = np.sort(np.log(np.clip(levels, low, high)))
        return np.quantile(logs, np.linspace(0, 1, TABLE))
    u = np.linspace(np.log(low), np.log(high), TABLE)
    kept = np.unique(np.quantile(variances, np.linspace(0, 1, 64)))
    linear = (kept / (kept + np.exp(2 * u)[:, None])).mean(axis=1)
    bell = np.exp(-0.5 * ((u - MIDDLE) / WIDTH) ** 2)
    density = LINEAR_SHARE * linear / linear.sum() + (1 - LINEAR_SHARE) * bell / bell.sum()
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(np.linspace(0, 1, TABLE), below / below[-1], u)
