r"""Classifier two-sample test: can a classifier tell generated rows from real ones?

The cross-validated accuracy of a classifier on the balanced task *real or generated* is on average
one half for equal laws, whatever the classifier, if each fold holds as many rows of either kind, so
that what it lacks is not what the training rows have more of. It is at most

.. math:: \tfrac12 + \tfrac12\, \mathrm{TV}(P, Q),

the total variation (Friedman 2003; Lopez-Paz & Oquab 2017). It finds what a classifier of that
kind can find: a lower bound on the difference, not a proof of equality.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_score

from skdiffusion.metrics._frame import in_one_frame
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count

__all__ = ["c2st"]

LEAF = 20
"""Rows of a leaf of the default classifier, of samples that have so many to spare."""


def c2st(
    real: Any,
    generated: Any,
    *,
    classifier: Any = None,
    cv: int = 5,
    n_jobs: int | None = None,
    standardize: bool = True,
    random_state: Any = 0,
) -> float:
    """Cross-validated accuracy of a classifier between real and generated rows.

    Parameters
    ----------
    real : array-like of shape (n, d)
    generated : array-like of shape (m, d)
        The larger sample is cut to the size of the smaller by a random choice.
    classifier : classifier, optional
        Gradient boosting by default; a clone is fitted in each fold.
    cv : int
        Number of folds.
    n_jobs : int, optional
        Folds fitted at a time.
    standardize : bool
        Whether columns are scaled by the standard deviations of ``real``; trees do not mind.
    random_state : None, int, Generator or RandomState
        Of the choice, the folds and the default classifier.

    Returns
    -------
    float
        0.5 where they cannot be told apart (its standard error is then near
        ``0.5 / sqrt(2 * min(n, m))``), 1 where they always can.

    References
    ----------
    D. Lopez-Paz and M. Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import c2st
    >>> X, Y = np.random.default_rng(0).standard_normal((2, 200, 2))
    >>> abs(c2st(X, Y) - 0.5) < 0.06, c2st(X, Y + 5) > 0.98
    (True, True)
    """
    cv = check_count(cv, "cv", 2)
    X, Y = in_one_frame(real, generated, standardize=standardize, least=cv)
    rng = as_generator(random_state)
    size = min(len(X), len(Y))
    rows = np.concatenate([sample[rng.permutation(len(sample))[:size]] for sample in (X, Y)])
    labels = np.repeat([0, 1], size)
    seed = int(rng.integers(2**31))
    if classifier is None:
        leaf = min(LEAF, max(size // 5, 1))  # more than half of the rows are never split
        classifier = HistGradientBoostingClassifier(
            early_stopping=False, min_samples_leaf=leaf, random_state=seed
        )
    shuffle = np.random.RandomState(seed).permutation
    fold_of_pair = np.sort(np.arange(size) % cv)
    folds = PredefinedSplit(np.concatenate([shuffle(fold_of_pair), shuffle(fold_of_pair)]))
    scores = cross_val_score(
        clone(classifier), rows, labels, cv=folds, scoring="accuracy", n_jobs=n_jobs
    )
    return float(scores.mean())
