r"""The mixture whose denoiser a network adds to; with class labels, one for each class too.

A mixture is fitted to standardised rows :math:`(x - b)/s` and told in the network's coordinates
:math:`z = (x - b)/s\,Q`, where a component :math:`N(\mu, U \Lambda U^\top)` is
:math:`N(Q^\top \mu, (Q^\top U) \Lambda (Q^\top U)^\top)`. It is not fitted there: columns of a
table are often rounded, bounded or nearly constant, which axes across them no longer show.

Rows that were held out to train a network teach the mixture at the end. Before, they say of which
columns the network is told their own law (:mod:`skdiffusion.estimators._column_laws`).
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skdiffusion.estimators._averaging import average
from skdiffusion.estimators._column_laws import column_laws, telling_columns
from skdiffusion.estimators._far_rows import told_once
from skdiffusion.estimators._held_out import HeldOut
from skdiffusion.estimators._training_rows import Coordinates, effective_rows, read_rows
from skdiffusion.estimators.mixture import GMMScore
from skdiffusion.models import MixtureModel, SpectralCovariance
from skdiffusion.models.column_laws import ColumnLaws
from skdiffusion.models.labelled_mixture import LabelledMixture
from skdiffusion.utils.rows import evenly_spaced

__all__ = ["Base", "serves"]

MOST_ROWS = 10_000
"""Rows, evenly spaced, that a mixture is fitted to, at most."""
ROWS_PER_COMPONENT, MOST_COMPONENTS = 50, 20
FULL_UP_TO, ROWS_PER_COLUMN = 128, 5
"""Columns up to which components have whole covariances, and rows per column from which, unless
held-out rows choose: of fewer rows a covariance knows directions without any spread."""
ROWS_PER_CLASS, MOST_CLASSES = 20, 20
"""Rows from which a class has a mixture of its own; so many classes at most by default."""
FEW_STEPS = 5
"""Of EM, on rows that the network was not trained on: as many as leave its mixture recognisable."""
SHARED, NEGLIGIBLE = 0.1, 1e-4
"""Weight that the components of all rows have in the mixture of a class; what is left out."""


def serves(n: float, d: int, of_classes: np.ndarray | None = None) -> bool:
    """Whether a mixture knows so many rows better than their Gaussian, and each of their classes.

    Parameters
    ----------
    n, d : float, int
        Numbers of rows and columns.
    of_classes : ndarray of shape (n_classes,), optional
        Numbers of rows of each class.
    """
    if of_classes is not None and (
        len(of_classes) > MOST_CLASSES or of_classes.min() < ROWS_PER_CLASS
    ):
        return False
    return n >= 2 * ROWS_PER_COMPONENT and d <= FULL_UP_TO


class Base:
    """The mixtures of a parameterization, fitted to some rows and taken on to others.

    That of a class is for a tenth the mixture of all, whose components then weigh as much as the
    rows of the class fall into them: it knows what classes have in common from more rows. A class
    of few rows has nothing else.

    Parameters
    ----------
    parameterization : MixtureParameterization
    X : ndarray, memmap or Dataset
    weights : ndarray of shape (n,), optional
    coordinates : Coordinates
    seed : int
    codes : ndarray of shape (n, n_classes), optional
        Unit vectors of the rows' classes.
    """

    def __init__(self, parameterization, X, weights, coordinates, seed, codes=None):
        self.parameterization, self.seed = parameterization, seed
        self.X, self.weights, self.coordinates = X, weights, coordinates
        self.codes = codes
        self.mixtures: list[GMMScore | None] = []

    def fit(self, order: np.ndarray) -> LabelledMixture:
        """The mixtures of rows at some positions, in the coordinates of the network."""
        members = self._members(order)
        enough = [True, *(self._count(index) >= ROWS_PER_CLASS for index in members[1:])]
        self.mixtures = [
            self._unfitted(index) if own else None
            for index, own in zip(members, enough, strict=True)
        ]
        return self._fitted(members)

    def go_on(self, order: np.ndarray) -> LabelledMixture:
        """The same after a few steps of EM on other rows: what a network adds to one, it adds to
        the other.
        """
        for mixture in filter(None, self.mixtures):
            mixture.set_params(warm_start=True, max_iter=FEW_STEPS)
        return self._fitted(self._members(order))

    def column_laws(
        self, order: np.ndarray, held_out: HeldOut, low: float, index: np.ndarray | None = None
    ) -> ColumnLaws | None:
        """Laws of some columns, in the coordinates of the network; ``None`` of none.

        By default of those whose law, of rows at some positions, tells more of others than the
        mixture does.
        """
        asked = np.arange(len(self.coordinates.shift)) if index is None else index
        laws = column_laws(*self._straight(order), asked, low)
        kept = np.arange(len(asked))
        if index is None:
            others = self._straight(held_out.index)[0], held_out.weights
            kept = telling_columns(laws, self.mixtures[0].model_, *others, low)
        if not len(kept):
            return None
        return laws.among(kept, self.coordinates.rotation)

    def _members(self, order):
        """Positions of all rows and of those of each class."""
        classes = [] if self.codes is None else self.codes[order].T
        return [order, *(order[code > 0] for code in classes)]

    def _count(self, index):
        """How many rows those at some positions stand for."""
        return len(index) if self.weights is None else effective_rows(self.weights[index])

    def _fitted(self, members):
        law, *classes = self.mixtures
        law = self._law(law, *self._straight(members[0]))
        owns = [
            self._of_class(law, own, *self._straight(index))
            for own, index in zip(classes, members[1:], strict=True)
        ]
        turn = self.coordinates.rotation
        return LabelledMixture(_turned(law, turn), [_turned(own, turn) for own in owns])

    def _straight(self, members):
        """Standardised rows at some positions, and their weights."""
        index = evenly_spaced(members, MOST_ROWS)
        straight = Coordinates(self.coordinates.shift, self.coordinates.scale)
        rows = straight.inward(read_rows(self.X, index)).numpy()
        return rows, None if self.weights is None else self.weights[index]

    def _of_class(self, law, own, rows, weights) -> MixtureModel:
        counts = np.ones(len(rows)) if weights is None else weights
        # and one row of any class
        shares = counts @ law.responsibilities(rows.astype(np.float64), sigma=0.0) + law.weights
        shared = MixtureModel(shares, law.means, law.covariances)
        if own is None:
            return shared
        both = average(
            [shared, self._law(own, rows, weights)], [SHARED, 1 - SHARED], background=False
        )
        kept = np.flatnonzero(both.weights > NEGLIGIBLE)
        return MixtureModel(
            both.weights[kept], both.means[kept], [both.covariances[k] for k in kept]
        )

    def _unfitted(self, members) -> GMMScore:
        index = evenly_spaced(members, MOST_ROWS)
        n = self._count(index)
        k, d = self.parameterization.n_components, len(self.coordinates.shift)
        whole = d <= FULL_UP_TO and n >= ROWS_PER_COLUMN * d
        if k == "auto" and d <= FULL_UP_TO:
            k, whole = "held_out", True
        elif k == "auto":
            k = int(np.clip(n // ROWS_PER_COMPONENT, 1, MOST_COMPONENTS))
        return GMMScore(
            k,
            covariance_type="full" if whole else "low_rank",
            n_averaged=self.parameterization.n_averaged,
            random_state=self.seed,
        )

    def _law(self, mixture, rows, weights) -> MixtureModel:
        with told_once():  # by the network
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # one not quite there serves as well
            return mixture.fit(rows, sample_weight=weights).model_


def _turned(model, turn) -> MixtureModel:
    """A mixture in axes that are the columns of ``turn``."""
    if turn is None:
        return model
    covariances = [
        SpectralCovariance(c.variances, turn.T @ c.axes, c.residual) for c in model.covariances
    ]
    return MixtureModel(model.weights, model.means @ turn, covariances)
