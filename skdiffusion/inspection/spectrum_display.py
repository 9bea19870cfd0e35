"""Pictures of a spectrum: when its axes emerge, and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.inspection.feature_emergence import FeatureEmergence, feature_emergence
from skdiffusion.utils.validation import check_count, lookup

__all__ = ["SpectrumDisplay"]

KINDS = ("levels", "amplitude")


class SpectrumDisplay:
    r"""Noise level at which each principal axis emerges, or how it grows on the way.

    Parameters
    ----------
    emergence : FeatureEmergence
        What :func:`~skdiffusion.inspection.feature_emergence` found.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GaussianScore
    >>> from skdiffusion.inspection import SpectrumDisplay
    >>> display = SpectrumDisplay.from_estimator(GaussianScore().fit(load_iris().data))
    >>> display.ax_.get_ylabel()
    'noise level $\\sigma$'
    """

    def __init__(self, emergence: FeatureEmergence):
        self.emergence = emergence

    @classmethod
    def from_estimator(cls, estimator: Any, *, kind: str = "levels", ax: Any = None, **params: Any):
        """Draw what a fitted estimator does on its trajectories.

        Parameters
        ----------
        estimator : fitted score estimator
        kind : {"levels", "amplitude"}
            As in :meth:`plot`.
        ax : matplotlib Axes, optional
        **params : dict
            As in :func:`~skdiffusion.inspection.feature_emergence`.

        Returns
        -------
        SpectrumDisplay
        """
        return cls(feature_emergence(estimator, **params)).plot(ax=ax, kind=kind)

    @classmethod
    def from_predictions(
        cls, trajectory: Any, levels: Any, *, kind: str = "levels", ax: Any = None, **params: Any
    ):
        """Draw what happens on given trajectories.

        Parameters
        ----------
        trajectory : array-like of shape (n_levels, n_samples, n_features)
        levels : array-like of shape (n_levels,)
            Falling noise levels.
        kind, ax, **params
            As in :meth:`from_estimator`.

        Returns
        -------
        SpectrumDisplay
        """
        return cls(feature_emergence(trajectory, levels, **params)).plot(ax=ax, kind=kind)

    def plot(self, *, ax: Any = None, kind: str = "levels", n_axes: int = 6):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        kind : {"levels", "amplitude"}
            Level of emergence of each axis beside that of a Gaussian; or the growth of some axes,
            dashed for a Gaussian.
        n_axes : int
            Axes whose growth is drawn, spread evenly over the logarithm of their rank.

        Returns
        -------
        SpectrumDisplay
        """
        import matplotlib.pyplot as plt

        lookup(kind, dict.fromkeys(KINDS), "kind")
        n_axes = check_count(n_axes, "n_axes")
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.lines_ = []
        if kind == "levels":
            self._levels(ax)
        else:
            self._amplitude(ax, n_axes)
        ax.legend(frameon=False, fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _levels(self, ax):
        found = self.emergence
        rank = np.arange(1, len(found.variances) + 1)
        self.lines_ += ax.plot(rank, found.observed, "o", ms=4, label="on the trajectories")
        self.lines_ += ax.plot(rank, found.predicted, "k-", lw=1, label="a Gaussian")
        ax.set(
            yscale="log",
            xlabel="principal axis",
            ylabel=r"noise level $\sigma$",
            title=f"{found.fraction:.0%} of the axis has emerged",
        )
        ax.xaxis.get_major_locator().set_params(integer=True)

    def _amplitude(self, ax, n_axes):
        found, r = self.emergence, len(self.emergence.variances)
        for j, k in enumerate(np.unique(np.geomspace(1, r, n_axes).round().astype(int)) - 1):
            self.lines_ += ax.plot(
                found.levels, found.amplitude[:, k], color=f"C{j}", label=f"axis {k + 1}"
            )
            ax.plot(found.levels, found.predicted_amplitude[:, k], "--", color=f"C{j}", lw=1)
        ax.axhline(found.fraction, color="0.7", lw=0.8, ls=":")
        ax.set(
            xscale="log",
            xlabel=r"noise level $\sigma$",
            ylabel="share of the axis that has emerged",
            ylim=(0, 1.1),
        )
        ax.invert_xaxis()
