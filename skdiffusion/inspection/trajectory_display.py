"""Pictures of sampling trajectories: in the plane of their ends, and how far out of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.inspection.trajectory_geometry import TrajectoryGeometry, trajectory_geometry
from skdiffusion.utils.validation import check_count, lookup

__all__ = ["TrajectoryDisplay"]

KINDS = ("plane", "residual")


class TrajectoryDisplay:
    r"""Paths in the plane of their first and last point, or their distance from it by level.

    Parameters
    ----------
    geometry : TrajectoryGeometry
        What :func:`~skdiffusion.inspection.trajectory_geometry` found.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        The paths; or the shares that were measured and predicted.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GaussianScore
    >>> from skdiffusion.inspection import TrajectoryDisplay
    >>> est = GaussianScore().fit(load_iris().data)
    >>> display = TrajectoryDisplay.from_estimator(est, n_samples=20)
    >>> len(display.lines_)
    20
    """

    def __init__(self, geometry: TrajectoryGeometry):
        self.geometry = geometry

    @classmethod
    def from_estimator(cls, estimator: Any, *, kind: str = "plane", ax: Any = None, **params: Any):
        """Draw trajectories of a fitted estimator.

        Parameters
        ----------
        estimator : fitted score estimator
        kind : {"plane", "residual"}
            As in :meth:`plot`.
        ax : matplotlib Axes, optional
        **params : dict
            As in :func:`~skdiffusion.inspection.trajectory_geometry`.

        Returns
        -------
        TrajectoryDisplay
        """
        return cls(trajectory_geometry(estimator, **params)).plot(ax=ax, kind=kind)

    @classmethod
    def from_predictions(
        cls, trajectory: Any, levels: Any, *, kind: str = "plane", ax: Any = None, **params: Any
    ):
        """Draw given trajectories.

        Parameters
        ----------
        trajectory : array-like of shape (n_levels, n_samples, n_features)
        levels : array-like of shape (n_levels,)
            Falling noise levels.
        kind, ax, **params
            As in :meth:`from_estimator`.

        Returns
        -------
        TrajectoryDisplay
        """
        return cls(trajectory_geometry(trajectory, levels, **params)).plot(ax=ax, kind=kind)

    def plot(self, *, ax: Any = None, kind: str = "plane", n_paths: int = 40):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        kind : {"plane", "residual"}
            Paths in the plane of their ends, lengths in units of the first point; or the shares
            of squared length out of that plane and off the rotation, beside those of a Gaussian.
        n_paths : int
            Paths to draw at most.

        Returns
        -------
        TrajectoryDisplay
        """
        import matplotlib.pyplot as plt

        lookup(kind, dict.fromkeys(KINDS), "kind")
        n_paths = check_count(n_paths, "n_paths")
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.lines_ = []
        if kind == "plane":
            self._plane(ax, n_paths)
        else:
            self._residual(ax)
        ax.legend(frameon=False, fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plane(self, ax, n_paths):
        plane = self.geometry.plane / np.maximum(self.geometry.plane[:1, :, :1], 1e-300)
        for i in range(min(n_paths, plane.shape[1])):
            self.lines_ += ax.plot(*plane[:, i].T, color="tab:blue", lw=0.8, alpha=0.5, zorder=1)
        ends = plane[-1, :n_paths]
        ax.plot(*ends.T, "o", color="tab:orange", ms=4, zorder=3, label="samples")
        ax.plot([1.0], [0.0], "o", color="k", ms=6, zorder=4, label="noise")
        turned = np.median(self.geometry.angle[-1])
        # the rotation whose ends are those of the typical path
        end = np.median(np.linalg.norm(ends, axis=1)) * np.array([np.cos(turned), np.sin(turned)])
        total = np.hypot(self.geometry.unit, self.geometry.levels)
        alpha, beta = self.geometry.unit / total, self.geometry.levels / total
        arc = alpha[:, None] * end + beta[:, None] * np.array([1.0, 0.0])
        ax.plot(*arc.T, color="k", ls="--", lw=1.2, zorder=2, label=r"$\alpha\, x_0 + \beta\, x_T$")
        ax.plot([0.0], [0.0], "+", color="0.4", ms=8, zorder=2)
        ax.set(xlabel="along the noise", ylabel="towards the sample")
        ax.set_aspect("equal", adjustable="datalim")

    def _residual(self, ax):
        found, positive = self.geometry, self.geometry.levels > 0
        for name, seen, predicted, color in (
            (
                "off the rotation",
                found.rotation_residual,
                found.predicted_rotation_residual,
                "C1",
            ),
            ("out of the plane", found.out_of_plane, found.predicted_out_of_plane, "C0"),
        ):
            # the ends lie in the plane: rounding is not for drawing
            for values, style, label in ((seen, "-", name), (predicted, "--", f"{name}, Gaussian")):
                shown = positive & (values > 1e-8)
                self.lines_ += ax.plot(
                    found.levels[shown], values[shown], style, color=color, label=label
                )
        ax.set(
            xscale="log",
            yscale="log",
            xlabel=r"noise level $\sigma$",
            ylabel="share of squared length",
        )
        ax.invert_xaxis()
