r"""More computing at sampling time: candidates, and a user's verifier that says which is best.

A sampler without noise is a map :math:`x = \Phi(z)` of a standard normal code. Given a verifier
:math:`v(x)`, larger is better,

- **best of n** takes, for each row, the best of n independent draws:
  :math:`\max_k v(\Phi(z_k))`;
- **search** moves the code of each row instead (Ma et al. 2025): around the best so far, candidates

  .. math:: z' = \sqrt{1 - r^2}\, z + r\, \zeta, \qquad \zeta \sim N(0, I),

  are again standard normal before selection, so that a small radius :math:`r` refines and
  :math:`r = 1` starts afresh. The best of a round is kept if it is better.

Both cost a multiple of a sample and bend its law towards what the verifier likes; where the
verifier is a log-weight with a gradient, :class:`~skdiffusion.models.GuidedModel` is cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.utils.arrays import to_numpy
from skdiffusion.utils.output import in_container
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["best_of_n", "search_codes"]


def best_of_n(
    estimator: Any,
    verifier: Callable,
    n_samples: int = 1,
    *,
    n: int = 16,
    random_state: Any = None,
    **options: Any,
):
    """For every row asked for, the best of ``n`` drawn.

    Parameters
    ----------
    estimator : fitted score estimator
    verifier : callable
        ``verifier(X)`` gives one number per row of a batch, larger is better.
    n_samples : int
    n : int
        Candidates per row.
    random_state : None, int, Generator or RandomState
    **options
        For the estimator's ``sample``: ``sampler``, ``n_steps``, ... Labels ``y`` are those of the
        candidates, which come row by row: ``np.repeat(y, n)``.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        A DataFrame under ``set_output``.

    Raises
    ------
    ValueError
        If the verifier does not return one finite number per row.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GMMScore
    >>> from skdiffusion.samplers import best_of_n
    >>> est = GMMScore(3, random_state=0).fit(load_iris().data)
    >>> long_petals = best_of_n(est, lambda X: X[:, 2], 50, n=8, random_state=0)
    >>> bool(long_petals[:, 2].mean() > 5)
    True
    """
    n_samples, n = check_count(n_samples, "n_samples"), check_count(n, "n")
    if options.get("return_trajectory"):
        raise ValueError("the best of n are rows, without their trajectories.")
    rows = estimator.sample(n_samples * n, random_state=random_state, **options)
    values = _verified(verifier, rows).reshape(n_samples, n)
    best = np.arange(n_samples) * n + values.argmax(axis=1)
    return rows.iloc[best].reset_index(drop=True) if hasattr(rows, "iloc") else rows[best]


def search_codes(
    estimator: Any,
    verifier: Callable,
    n_samples: int = 1,
    *,
    n_rounds: int = 8,
    n_candidates: int = 4,
    radius: float = 0.3,
    sampler: Any = None,
    n_steps: int | None = None,
    random_state: Any = None,
):
    """Search over the codes that a sampler starts from, each row for itself.

    Parameters
    ----------
    estimator : fitted score estimator
    verifier : callable
        ``verifier(X)`` gives one number per row of an array, larger is better.
    n_samples : int
    n_rounds, n_candidates : int
        Candidates around the best so far, and how often: a row costs
        ``1 + n_rounds * n_candidates`` samples.
    radius : float in (0, 1]
        How far candidates are from the best so far.
    sampler : str or BaseSampler, optional
        Without noise of its own, that of a jump with ``start="draw"`` included; the closed-form
        flow, or the estimator's default.
    n_steps : int, optional
    random_state : None, int, Generator or RandomState

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        A DataFrame under ``set_output``. The verifier's value of a row never falls from round
        to round.

    Raises
    ------
    TypeError
        If there is no estimator of scores to search in.
    ValueError
        If an argument is out of its range, the sampler draws noise, or the verifier does not
        return one finite number per row.

    References
    ----------
    N. Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps",
    CVPR 2025.
    """
    check_is_fitted(estimator)
    if not hasattr(estimator, "_generate"):
        raise TypeError(
            f"a search over codes needs a score estimator; got {type(estimator).__name__}."
        )
    n_samples = check_count(n_samples, "n_samples")
    n_rounds = check_count(n_rounds, "n_rounds")
    n_candidates = check_count(n_candidates, "n_candidates")
    radius = check_number(radius, "radius", above=0)
    if radius > 1:
        raise ValueError(f"radius must lie between 0 and 1; got {radius:g}.")
    sampler = estimator._sampler(sampler)
    if sampler.stochastic or getattr(sampler.teleport, "start", "flow") == "draw":
        raise ValueError("a search over codes needs a sampler that draws no noise of its own.")
    rng = as_generator(random_state)
    codes = rng.standard_normal((n_samples, estimator.n_features_in_))
    best = estimator._generate(codes, sampler, n_steps)
    values = _verified(verifier, best)
    for _ in range(n_rounds):
        fresh = rng.standard_normal((n_candidates, *codes.shape))
        moved = (1 - radius**2) ** 0.5 * codes + radius * fresh
        rows = estimator._generate(moved.reshape(-1, codes.shape[1]), sampler, n_steps)
        found = _verified(verifier, rows).reshape(n_candidates, n_samples)
        winner = found.argmax(axis=0), np.arange(n_samples)
        better = found[winner] > values
        codes = np.where(better[:, None], moved[winner], codes)
        best = np.where(better[:, None], rows.reshape(moved.shape)[winner], best)
        values = np.where(better, found[winner], values)
    return in_container(best, estimator)


def _verified(verifier, rows):
    values = verifier(rows)
    try:
        values = to_numpy(values).astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"the verifier must return one finite number per row, shape ({len(rows)},); "
            f"got {type(values).__name__}."
        ) from None
    if values.shape != (len(rows),) or not np.isfinite(values).all():
        raise ValueError(
            f"the verifier must return one finite number per row, shape ({len(rows)},); got "
            f"shape {values.shape}, {np.isfinite(values).sum()} of {values.size} values finite."
        )
    return values
