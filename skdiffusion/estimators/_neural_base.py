r"""The mixture whose denoiser a network adds to; with class labels, one for each class too.

A mixture is fitted to standardised rows :math:`(x - b)/s` and told in the network's coordinates
:math:`z = (x - b)/s\,Q`, where a component :math:`N(\mu, U \Lambda U^\top)` is
:math:`N(Q^\top \mu, (Q^\top U) \Lambda (Q^\top U)^\top)`. It is not fitted there: columns of a
table are often rounded, bounded or nearly constant, which axes across them no longer show.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skdiffusion.estimators._averaging import average
from skdiffusion.estimators._far_rows import told_once
from skdiffusion.estimators._training_rows import Coordinates, effective_rows, read_rows
from skdiffusion.estimators.mixture import GMMScore
from skdiffusion.models import MixtureModel, SpectralCovariance
from skdiffusion.models.labelled_mixture import LabelledMixture
from skdiffusion.parameterizations import MixtureParameterization
from skdiffusion.utils.rows import evenly_spaced

__all__ = ["fitted_base", "serves"]

MOST_ROWS = 10_000
"""Rows, evenly spaced, that a mixture is fitted to, at most."""
ROWS_PER_COMPONENT, MOST_COMPONENTS = 50, 20
FULL_UP_TO, ROWS_PER_COLUMN = 128, 5
"""Columns up to which components have whole covariances, and rows per column from which, unless
held-out rows choose: of fewer rows a covariance knows directions without any spread."""
ROWS_PER_CLASS, MOST_CLASSES = 20, 20
"""Rows from which a class has a mixture of its own; so many classes at most by default."""
SHARED, NEGLIGIBLE = 0.1, 1e-4
"""Weight that the components of all rows have in the mixture of a class; what is left out."""


def serves(n: int, d: int, codes: np.ndarray | None = None) -> bool:
    """Whether a mixture knows so many rows better than their Gaussian, and each of their classes.

    Parameters
    ----------
    n, d : int
        Numbers of rows and columns.
    codes : ndarray of shape (n, n_classes), optional
        Unit vectors of the rows' classes.
    """
    if codes is not None:
        counts = codes.sum(axis=0)
        if len(counts) > MOST_CLASSES or counts.min() < ROWS_PER_CLASS:
            return False
    return n >= 2 * ROWS_PER_COMPONENT and d <= FULL_UP_TO


def fitted_base(
    parameterization: MixtureParameterization,
    X: Any,
    order: np.ndarray,
    weights: np.ndarray | None,
    coordinates: Coordinates,
    seed: int,
    codes: np.ndarray | None = None,
) -> LabelledMixture:
    """The mixtures of a parameterization in the coordinates of the network.

    That of a class is for a tenth the mixture of all, whose components then weigh as much as the
    rows of the class fall into them: it knows what classes have in common from more rows. A class
    of few rows has nothing else.

    Parameters
    ----------
    parameterization : MixtureParameterization
    X : ndarray, memmap or Dataset
    order : ndarray of int
        Positions of the training rows.
    weights : ndarray of shape (n,), optional
    coordinates : Coordinates
    seed : int
    codes : ndarray of shape (n, n_classes), optional
        Unit vectors of the rows' classes.

    Returns
    -------
    LabelledMixture
    """

    def read(members):
        index = evenly_spaced(members, MOST_ROWS)
        rows = Coordinates(coordinates.shift, coordinates.scale).inward(read_rows(X, index)).numpy()
        return rows, None if weights is None else weights[index]

    law = _fitted(parameterization, *read(order), seed)
    classes = [
        _of_class(parameterization, law, *read(order[code > 0]), seed)
        for code in ([] if codes is None else codes[order].T)
    ]
    turn = coordinates.rotation
    return LabelledMixture(_turned(law, turn), [_turned(own, turn) for own in classes])


def _of_class(parameterization, law, rows, weights, seed) -> MixtureModel:
    counts = np.ones(len(rows)) if weights is None else weights
    # and one row of any class
    shares = counts @ law.responsibilities(rows.astype(np.float64), sigma=0.0) + law.weights
    shared = MixtureModel(shares, law.means, law.covariances)
    if len(rows) < ROWS_PER_CLASS:
        return shared
    own = _fitted(parameterization, rows, weights, seed)
    both = average([shared, own], [SHARED, 1 - SHARED], background=False)
    kept = np.flatnonzero(both.weights > NEGLIGIBLE)
    return MixtureModel(both.weights[kept], both.means[kept], [both.covariances[k] for k in kept])


def _fitted(parameterization, rows, weights, seed) -> MixtureModel:
    n, d = len(rows) if weights is None else effective_rows(weights), rows.shape[1]
    k, whole = parameterization.n_components, d <= FULL_UP_TO and n >= ROWS_PER_COLUMN * d
    if k == "auto":
        k = int(np.clip(n // ROWS_PER_COMPONENT, 1, MOST_COMPONENTS))
        if d <= FULL_UP_TO and k < MOST_COMPONENTS:  # it is quick, and few rows are particular
            k, whole = "held_out", True
    mixture = GMMScore(
        k,
        covariance_type="full" if whole else "low_rank",
        n_averaged=parameterization.n_averaged,
        random_state=seed,
    )
    with told_once():  # by the network
        warnings.simplefilter("ignore", ConvergenceWarning)  # one not quite there serves as well
        return mixture.fit(rows, sample_weight=weights).model_


def _turned(model, turn) -> MixtureModel:
    """A mixture in axes that are the columns of ``turn``."""
    if turn is None:
        return model
    covariances = [
        SpectralCovariance(c.variances, turn.T @ c.axes, c.residual) for c in model.covariances
    ]
    return MixtureModel(model.weights, model.means @ turn, covariances)
