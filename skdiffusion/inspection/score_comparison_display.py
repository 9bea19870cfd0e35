"""Pictures of a comparison of scores: what is left unexplained, and who denoises how well."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.inspection.score_comparison import MODEL, ScoreComparison, compare_scores
from skdiffusion.utils.validation import lookup

__all__ = ["ScoreComparisonDisplay"]

KINDS = ("unexplained", "error")
FLOOR = 1e-4
"""Smallest excess of the denoising error that is drawn: the best has none."""

TOP = 5.0
"""Largest fraction unexplained that is drawn: what is wrong is wrong."""


class ScoreComparisonDisplay:
    """What references leave unexplained of a score, or how much more they err than the best.

    Parameters
    ----------
    comparison : ScoreComparison
        What :func:`~skdiffusion.inspection.compare_scores` found.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : dict of str to matplotlib Line2D

    Examples
    --------
    >>> from skdiffusion.datasets import make_gaussian_mixture
    >>> from skdiffusion.inspection import ScoreComparisonDisplay
    >>> X, law = make_gaussian_mixture(200, random_state=0)
    >>> display = ScoreComparisonDisplay.from_estimator(law, {"gaussian": law.gaussian()}, X)
    >>> list(display.lines_)
    ['gaussian']
    """

    def __init__(self, comparison: ScoreComparison):
        self.comparison = comparison

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        references: Any,
        X: Any,
        *,
        kind: str = "unexplained",
        ax: Any = None,
        **params: Any,
    ):
        """Run :func:`~skdiffusion.inspection.compare_scores` and draw what it found.

        Parameters
        ----------
        estimator, references, X, **params
            As there.
        kind : {"unexplained", "error"}
            As in :meth:`plot`.
        ax : matplotlib Axes, optional

        Returns
        -------
        ScoreComparisonDisplay
        """
        return cls(compare_scores(estimator, references, X, **params)).plot(ax=ax, kind=kind)

    @classmethod
    def from_predictions(
        cls, comparison: ScoreComparison, *, kind: str = "unexplained", ax: Any = None
    ):
        """Draw a comparison that is at hand."""
        return cls(comparison).plot(ax=ax, kind=kind)

    def plot(self, *, ax: Any = None, kind: str = "unexplained", **kwargs: Any):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        kind : {"unexplained", "error"}
            Fraction of the model left unexplained, or denoising error relative to the best of all
            at each level, less one.
        **kwargs : dict
            For ``Axes.plot``.

        Returns
        -------
        ScoreComparisonDisplay

        Raises
        ------
        ValueError
            If errors are asked for and the comparison has none.
        """
        import matplotlib.pyplot as plt

        lookup(kind, dict.fromkeys(KINDS), "kind")
        found = self.comparison
        if kind == "error" and found.error is None:
            raise ValueError("a comparison at probes that are not noised rows has no errors.")
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        curves = found.unexplained if kind == "unexplained" else found.excess
        ax.set(xscale="log", yscale="log", xlabel=r"noise level $\sigma$")
        self.lines_ = {}
        for k, name in enumerate([name for name in curves if name != MODEL]):
            options = {"marker": ".", "color": f"C{k}", "label": name, **kwargs}
            self._draw(ax, name, curves[name], kind, options)
        if MODEL in curves:
            options = {"marker": ".", "color": "k", "lw": 2, "label": MODEL, **kwargs}
            self._draw(ax, MODEL, curves[MODEL], kind, options)
        if kind == "unexplained":
            ax.axhline(1.0, color="0.7", lw=0.8, ls=":")
            ax.set_ylabel(f"fraction of the {found.target} left unexplained")
            ax.set_ylim(top=2 * np.clip(np.max(list(curves.values())), 1.0, TOP))
        else:
            ax.set_ylabel("denoising error over the best, less one")
            ax.set_ylim(bottom=FLOOR / 2)
            ax.axhline(FLOOR, color="0.7", lw=0.8, ls=":", zorder=0)
            place = {"xy": (1, FLOOR), "xycoords": ("axes fraction", "data")}
            shift = {"xytext": (-4, -4), "textcoords": "offset points"}
            ax.annotate("the best", **place, **shift, ha="right", va="top", color="0.4", size=8)
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw(self, ax, name, values, kind, options):
        values = np.maximum(values, FLOOR) if kind == "error" else values
        (self.lines_[name],) = ax.plot(self.comparison.sigmas, values, **options)
