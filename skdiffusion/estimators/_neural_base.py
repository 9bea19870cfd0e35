r"""The mixture whose denoiser a network adds to.

It is fitted to standardised rows :math:`(x - b)/s` and told in the network's coordinates
:math:`z = (x - b)/s\,Q`, where a component :math:`N(\mu, U \Lambda U^\top)` is
:math:`N(Q^\top \mu, (Q^\top U) \Lambda (Q^\top U)^\top)`. It is not fitted there: columns of a
table are often rounded, bounded or nearly constant, which axes across them no longer show.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skdiffusion.estimators._training_rows import Coordinates, effective_rows, read_rows
from skdiffusion.estimators.mixture import GMMScore
from skdiffusion.models import MixtureModel, SpectralCovariance
from skdiffusion.parameterizations import MixtureParameterization
from skdiffusion.utils.rows import evenly_spaced

__all__ = ["fitted_base", "serves"]

MOST_ROWS = 10_000
"""Rows, evenly spaced, that the mixture is fitted to, at most."""
ROWS_PER_COMPONENT, MOST_COMPONENTS = 50, 20
FULL_UP_TO, ROWS_PER_COLUMN = 128, 5
"""Columns up to which components have whole covariances, and rows per column from which; else
they have a few axes each: of fewer rows a covariance knows directions without any spread."""


def serves(n: int, d: int) -> bool:
    """Whether so many rows make a mixture of more than one component with whole covariances."""
    return n >= 2 * ROWS_PER_COMPONENT and _know_covariances(n, d)


def _know_covariances(n: int, d: int) -> bool:
    return d <= FULL_UP_TO and n >= ROWS_PER_COLUMN * d


def fitted_base(
    parameterization: MixtureParameterization,
    X: Any,
    order: np.ndarray,
    weights: np.ndarray | None,
    coordinates: Coordinates,
    seed: int,
) -> MixtureModel:
    """The mixture of a parameterization in the coordinates of the network.

    Parameters
    ----------
    parameterization : MixtureParameterization
    X : ndarray, memmap or Dataset
    order : ndarray of int
        Positions of the training rows.
    weights : ndarray of shape (n,), optional
    coordinates : Coordinates
    seed : int

    Returns
    -------
    MixtureModel
    """
    index = evenly_spaced(order, MOST_ROWS)
    rows = Coordinates(coordinates.shift, coordinates.scale).inward(read_rows(X, index)).numpy()
    weights = None if weights is None else weights[index]
    n = len(index) if weights is None else effective_rows(weights)
    k, whole = parameterization.n_components, _know_covariances(n, rows.shape[1])
    if k == "auto":
        k = int(np.clip(n // ROWS_PER_COMPONENT, 1, MOST_COMPONENTS))
        if whole and k < MOST_COMPONENTS:  # it is quick, and few rows are particular
            k = "held_out"
    mixture = GMMScore(
        k,
        covariance_type="full" if whole else "low_rank",
        n_averaged=parameterization.n_averaged,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one not quite there serves as well
        warnings.filterwarnings("ignore", "a few far rows")  # said of the network already
        model = mixture.fit(rows, sample_weight=weights).model_
    turn = coordinates.rotation
    if turn is None:
        return model
    covariances = [
        SpectralCovariance(c.variances, turn.T @ c.axes, c.residual) for c in model.covariances
    ]
    return MixtureModel(model.weights, model.means @ turn, covariances)
