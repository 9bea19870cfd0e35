"""The picture of reach, align and slide."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.inspection._axes import pair_of_axes
from skdiffusion.inspection.reach_align_slide import ReachAlignSlide, as_ridge, reach_align_slide
from skdiffusion.utils.validation import check_count

__all__ = ["ReachAlignSlideDisplay"]

STAGE_COLORS = {"reach": "tab:blue", "align": "tab:orange", "slide": "tab:green"}
QUANTILES = (0.1, 0.5, 0.9)


class ReachAlignSlideDisplay:
    """Trajectories beside the ridge, and distance and motion against the noise level.

    Parameters
    ----------
    report : ReachAlignSlide
        What :func:`~skdiffusion.inspection.reach_align_slide` found.
    rows : ndarray of shape (n, D), optional
        Training rows to show.
    ridge : ndarray of shape (m, D), optional
        Points on the ridge to show.

    Attributes
    ----------
    axes_ : pair of matplotlib Axes
        The plane and the levels.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from skdiffusion import RidgeProjector
    >>> from skdiffusion.datasets import make_thirteen_points
    >>> from skdiffusion.inspection import ReachAlignSlideDisplay
    >>> X, law = make_thirteen_points()
    >>> ridge = RidgeProjector(bandwidth=0.3).fit(X)
    >>> display = ReachAlignSlideDisplay.from_estimator(law, ridge, n_samples=30, random_state=0)
    """

    def __init__(self, report: ReachAlignSlide, rows: Any = None, ridge: Any = None):
        self.report, self.rows, self.ridge = report, rows, ridge

    @classmethod
    def from_estimator(
        cls, model: Any, reference: Any, sampler: Any = "euler", *, ax=None, **params
    ):
        """Run :func:`~skdiffusion.inspection.reach_align_slide` and draw what it found.

        Parameters
        ----------
        model, reference, sampler, **params
            As there.
        ax : pair of matplotlib Axes, optional

        Returns
        -------
        ReachAlignSlideDisplay
        """
        ridge = as_ridge(reference)
        report = reach_align_slide(model, ridge, sampler, **params)
        rows = ridge.training_points_
        return cls(report, rows, spread_along(ridge, rows)).plot(ax=ax)

    def plot(self, *, ax: Any = None, n_paths: int = 40):
        """Draw.

        Parameters
        ----------
        ax : pair of matplotlib Axes, optional
            For the plane and for the levels; a new figure by default.
        n_paths : int
            Trajectories to draw at most.

        Returns
        -------
        ReachAlignSlideDisplay
        """
        n_paths = check_count(n_paths, "n_paths")
        self.axes_ = tuple(pair_of_axes(ax, (10, 4.2)))
        self.figure_ = self.axes_[0].figure
        self._plane(self.axes_[0], n_paths)
        self._levels(self.axes_[1])
        return self

    def _plane(self, ax, n_paths):
        """Two columns, or the leading plane of the end points."""
        report = self.report
        ends = report.points[-1]
        centre, plane = np.zeros(ends.shape[1]), np.eye(2)
        if ends.shape[1] > 2:
            centre = ends.mean(axis=0)
            plane = np.linalg.svd(ends - centre, full_matrices=False)[2][:2].T

        def seen(points):
            return ((points - centre) @ plane).T

        stage_of = self._stage_of_levels()
        for i in range(0, len(ends), -(-len(ends) // n_paths)):
            x, y = seen(report.points[:, i])
            for stage, color in STAGE_COLORS.items():
                part = np.flatnonzero(stage_of == stage)
                if len(part):
                    part = slice(part[0], part[-1] + 2)
                    ax.plot(x[part], y[part], color=color, lw=0.7, alpha=0.6, zorder=1)
        if self.ridge is not None:
            ax.plot(*seen(self.ridge), ".", color="0.65", ms=3, zorder=2, label="ridge")
        ax.plot(*seen(ends), ".", color="k", ms=3, alpha=0.7, zorder=3, label="samples")
        if self.rows is not None:
            ax.plot(*seen(self.rows), "o", color="tab:red", mfc="none", zorder=4, label="data")
        # samples start far away: show where they end
        shown = [seen(points) for points in (self.rows, ends) if points is not None]
        low, high = np.min([s.min(1) for s in shown], 0), np.max([s.max(1) for s in shown], 0)
        room = 0.15 * (high - low).max()
        ax.set(xlim=(low[0] - room, high[0] + room), ylim=(low[1] - room, high[1] + room))
        ax.set_aspect("equal", adjustable="box")
        ax.legend(fontsize=8, framealpha=0.8)

    def _stage_of_levels(self):
        stages = self.report.stages
        names = np.full(len(self.report.levels), "reach", dtype=object)
        for name in ("align", "slide"):
            names[self.report.levels <= stages[name][0]] = name
        return names

    def _levels(self, ax):
        report, levels = self.report, self.report.levels
        for name, (high, low) in report.stages.items():
            if high > low:
                ax.axvspan(low, high, color=STAGE_COLORS[name], alpha=0.12, lw=0)
                middle = np.sqrt(low * high)
                ax.text(middle, 1.01, name, transform=ax.get_xaxis_transform(), ha="center")
        length = np.linalg.norm(report.along, axis=2)
        # counted from where the ridge was reached, it means nothing before
        length = np.where(levels[:, None] <= report.reach_level, length, np.nan)
        for values, color, label in (
            (report.distance, "k", "distance to the ridge"),
            (length, "tab:green", "moved along it"),
        ):
            known = np.isfinite(values).mean(axis=1) > 0.5
            if not known.any():
                continue
            low, middle, high = np.nanquantile(values[known], QUANTILES, axis=1)
            ax.plot(levels[known], middle, color=color, label=label)
            ax.fill_between(levels[known], low, high, color=color, alpha=0.15, lw=0)
        ax.axvline(report.level, color="0.5", lw=0.8, ls=":")
        ax.axhline(report.tube, color="0.5", lw=0.8, ls="--", label="tube")
        least = np.nanmin(report.distance[report.distance > 0], initial=report.tube)
        ax.set(xscale="log", yscale="log", xlabel=r"noise level $\sigma$")
        ax.set_ylim(bottom=max(least, 1e-3 * report.tube))
        ax.invert_xaxis()
        ax.legend(loc="lower left", fontsize=8, framealpha=0.8)


def spread_along(ridge: Any, rows: np.ndarray, n_points: int = 1500) -> np.ndarray:
    """Points of a ridge: projections of rows and of places between neighbouring ones."""
    rng = np.random.default_rng(0)
    pick = rng.integers(len(rows), size=n_points)
    near = rows[pick] + ridge.bandwidth_ * rng.standard_normal((n_points, rows.shape[1]))
    found = ridge.diagnostics(near)
    return found.points[found.on_ridge]
