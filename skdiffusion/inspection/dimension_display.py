r"""Pictures of dimension: against the noise level, and across the data.

The curve :math:`d(\sigma)` shows at which scales the question has an answer: each plateau is one,
and the slopes between them are none. The map shows where the data have which dimension, as the
colour of each row on a plane, by default that of the two widest principal axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from skdiffusion.utils.validation import lookup

__all__ = ["IntrinsicDimensionDisplay"]

KINDS = ("curve", "map")


class IntrinsicDimensionDisplay:
    """Dimension against noise level, or as colour on an embedding of the rows.

    Use :meth:`from_estimator`.

    Parameters
    ----------
    dimension : float
        Dimension of the whole.
    curve : DimensionCurve, optional
    plateaus : list of Plateau
    embedding : ndarray of shape (n, 2), optional
        Where the rows are drawn.
    local : ndarray of shape (n,), optional
        Their dimension.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D or None
        The curve.
    scatter_ : matplotlib PathCollection or None
        The map.

    Examples
    --------
    >>> from skdiffusion import IntrinsicDimensionEstimator
    >>> from skdiffusion.datasets import make_swiss_roll
    >>> from skdiffusion.inspection import IntrinsicDimensionDisplay
    >>> X, _ = make_swiss_roll(500, random_state=0)
    >>> est = IntrinsicDimensionEstimator(random_state=0).fit(X)
    >>> display = IntrinsicDimensionDisplay.from_estimator(est)
    >>> display.ax_.get_xlabel()
    'noise level'
    """

    def __init__(self, dimension, *, curve=None, plateaus=(), embedding=None, local=None):
        self.dimension = dimension
        self.curve = curve
        self.plateaus = plateaus
        self.embedding = embedding
        self.local = local

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any = None, *, kind: str = "curve", embedding: Any = None, ax=None
    ):
        """Draw what a fitted estimator found.

        Parameters
        ----------
        estimator : IntrinsicDimensionEstimator
            Fitted.
        X : array-like of shape (n, n_features), optional
            Rows of the map.
        kind : {"curve", "map"}
        embedding : array-like of shape (n, 2), optional
            Where the rows of the map are drawn; by their two widest principal axes if not given.
        ax : matplotlib Axes, optional

        Returns
        -------
        IntrinsicDimensionDisplay

        Raises
        ------
        ValueError
            If a map comes without rows, or with another number of places than of rows, or there
            is no curve.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "curve_"):
            raise TypeError(
                f"an IntrinsicDimensionEstimator is needed; got {type(estimator).__name__}."
            )
        lookup(kind, dict.fromkeys(KINDS), "kind")
        if kind == "curve":
            if not len(estimator.curve_.levels):
                raise ValueError("all fitted rows are the same: a point has no curve.")
            display = cls(
                estimator.dimension_, curve=estimator.curve_, plateaus=estimator.plateaus_
            )
            return display.plot(ax=ax)
        if X is None:
            raise ValueError("kind='map' needs the rows X to draw.")
        local = estimator.predict(X)
        if embedding is None:
            rows = np.asarray(X, dtype=float)
            embedding = rows - rows.mean(axis=0)
            if len(rows) > 1:
                embedding = PCA(min(2, rows.shape[1]), svd_solver="full").fit_transform(rows)
            embedding = embedding[:, :2]
            embedding = np.pad(embedding, ((0, 0), (0, 2 - embedding.shape[1])))
        embedding = np.asarray(embedding, dtype=float)
        if embedding.shape != (len(local), 2):
            raise ValueError(
                f"embedding must hold one place in the plane per row, shape ({len(local)}, 2); "
                f"got {embedding.shape}."
            )
        return cls(estimator.dimension_, embedding=embedding, local=local).plot(ax=ax)

    def plot(self, ax=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        IntrinsicDimensionDisplay
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        self.line_ = self.scatter_ = None
        if self.local is None:
            self._plot_curve(ax)
        else:
            self._plot_map(ax)
        return self

    def _plot_curve(self, ax):
        from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

        levels, values, error = self.curve.levels, self.curve.dimension, self.curve.std_error
        for plateau in self.plateaus:
            ax.axvspan(plateau.low, plateau.high, color="C1", alpha=0.15, linewidth=0)
            ax.annotate(
                f"{plateau.dimension:.3g}",
                (plateau.sigma, plateau.dimension),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                color="C1",
            )
        ax.fill_between(levels, values - error, values + error, alpha=0.3, linewidth=0)
        (self.line_,) = ax.plot(levels, values, marker=".")
        ax.axhline(self.dimension, color="grey", linestyle="--", linewidth=1)
        ax.annotate(
            f"dimension {self.dimension:.3g}",
            (1, self.dimension),
            xycoords=("axes fraction", "data"),
            xytext=(-4, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color="grey",
        )
        ax.set(xscale="log", xlabel="noise level", ylabel="dimension")
        first, last = np.log10(ax.get_xlim())
        if np.floor(last) <= np.ceil(first):  # one power of ten does not say where others are
            ax.xaxis.set(
                major_locator=LogLocator(subs=(1, 2, 5)),
                major_formatter=ScalarFormatter(),
                minor_formatter=NullFormatter(),
            )
        ax.set_ylim(0, 1.15 * max(values.max(initial=0), self.dimension, 0.5))

    def _plot_map(self, ax):
        order = np.argsort(self.local)  # the rare high ones on top
        self.scatter_ = ax.scatter(
            *self.embedding[order].T, c=self.local[order], s=8, cmap="viridis", rasterized=True
        )
        ax.set_aspect("equal", adjustable="datalim")
        ax.set(xticks=[], yticks=[])
        self.figure_.colorbar(self.scatter_, ax=ax, label="local dimension")
