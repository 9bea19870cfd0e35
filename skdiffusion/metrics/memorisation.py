r"""Has a model learned the law, or its training rows?

The **distance to the closest record** of a row is the distance to the nearest training row. Rows
held out from training tell how large it is without any copying, so what counts is a ratio: of the
medians of generated and held-out rows, one where nothing is memorised. With as many held-out rows
as training rows (the larger set is thinned) a generated row is as likely to be closer to either,

.. math:: P\big(d(y, \mathrm{train}) < d(y, \mathrm{holdout})\big) = \tfrac12,

and more where it is not. A row is called a **copy** if its nearest training row is three times as
near as the second nearest (Yoon et al. 2023).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.metrics._frame import in_one_frame, nearest
from skdiffusion.utils.random import as_generator

__all__ = ["Memorisation", "distance_to_closest_record", "memorisation"]

COPY_RATIO = 1 / 3


class Memorisation(NamedTuple):
    """How much closer generated rows are to the training rows than held-out rows are.

    Attributes
    ----------
    distance : float
        Median distance of generated rows to their closest training row.
    holdout_distance : float
        That of the held-out rows.
    ratio : float
        The first over the second: about one if nothing is memorised, near zero for copies. One
        where both are zero: held-out rows are in the training rows as well.
    closer_to_train : float
        Share of generated rows closer to the training rows than to as many held-out rows: about
        one half if nothing is memorised. Ties count by halves.
    copies : float
        Share of generated rows three times as near to one training row as to any other.
    holdout_copies : float
        That of the held-out rows, which are copies by chance alone.
    """

    distance: float
    holdout_distance: float
    ratio: float
    closer_to_train: float
    copies: float
    holdout_copies: float


def distance_to_closest_record(
    train: Any, generated: Any, *, standardize: bool = True
) -> np.ndarray:
    """Distance of each generated row to the nearest training row.

    Parameters
    ----------
    train : array-like of shape (n, d)
    generated : array-like of shape (m, d)
    standardize : bool
        Whether columns are scaled by the standard deviations of ``train``.

    Returns
    -------
    ndarray of shape (m,)

    Examples
    --------
    >>> from skdiffusion.metrics import distance_to_closest_record
    >>> distance_to_closest_record([[0.0], [4.0]], [[1.0], [4.0]], standardize=False)
    array([1., 0.])
    """
    X, Y = in_one_frame(
        train, generated, standardize=standardize, least=1, names=("train", "generated")
    )
    return nearest(X, 1, Y)[:, 0]


def memorisation(
    train: Any,
    generated: Any,
    holdout: Any,
    *,
    standardize: bool = True,
    random_state: Any = 0,
) -> Memorisation:
    """Compare how close generated and held-out rows come to the training rows.

    Parameters
    ----------
    train : array-like of shape (n, d)
        The rows that the model was fitted to.
    generated : array-like of shape (m, d)
    holdout : array-like of shape (k, d)
        Rows of the same law that it was not fitted to.
    standardize : bool
        Whether columns are scaled by the standard deviations of ``train``.
    random_state : None, int, Generator or RandomState
        Of the thinning of the larger of ``train`` and ``holdout``.

    Returns
    -------
    Memorisation

    References
    ----------
    T. Yoon et al., "Diffusion Probabilistic Models Generalize when They Fail to Memorize", ICML
    2023 workshop on structured probabilistic inference.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import memorisation
    >>> train, fresh, holdout = np.random.default_rng(0).standard_normal((3, 500, 2))
    >>> memorisation(train, train, holdout).ratio
    0.0
    >>> 0.9 < memorisation(train, fresh, holdout).ratio < 1.1
    True
    """
    X, Y, Z = in_one_frame(
        train, generated, holdout, standardize=standardize, names=("train", "generated", "holdout")
    )
    near, control = nearest(X, 2, Y), nearest(X, 2, Z)
    rng, size = as_generator(random_state), min(len(X), len(Z))
    to_train, to_holdout = (
        nearest(rows[rng.permutation(len(rows))[:size]], 1, Y)[:, 0] for rows in (X, Z)
    )
    distance, holdout_distance = np.median(near[:, 0]), np.median(control[:, 0])
    with np.errstate(divide="ignore"):
        ratio = 1.0 if distance == holdout_distance else distance / holdout_distance
    closer = (to_train < to_holdout).mean() + (to_train == to_holdout).mean() / 2
    return Memorisation(
        distance=float(distance),
        holdout_distance=float(holdout_distance),
        ratio=float(ratio),
        closer_to_train=float(closer),
        copies=_copies(near),
        holdout_copies=_copies(control),
    )


def _copies(near):
    # a row that occurs twice in training is no single row's copy
    return float((near[:, 0] < COPY_RATIO * near[:, 1]).mean())
