r"""Pictures of a score in the plane: arrows over the density, at one noise level or several.

At high noise the arrows of :math:`\nabla\log p_\sigma` all point to the mean; as the level falls
they turn to the nearest cluster, then to the nearest curve or row. They are drawn in the direction
of the score with lengths in proportion to it, the longest twentieth cut to one spacing of the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.models import as_score_model
from skdiffusion.utils.rows import check_points
from skdiffusion.utils.validation import as_numbers, check_count, check_number

__all__ = ["ScoreFieldDisplay"]

BACKGROUND = 4
"""How many times finer the density is drawn than the arrows."""
LONGEST = 0.95
"""Quantile of the lengths beyond which arrows are cut."""
DEPTH = 12.0
"""Nats below the highest log-density at which its colours end."""


class ScoreFieldDisplay:
    r"""Stein score of a model of two columns, as arrows over its log-density.

    Use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    points : ndarray of shape (n_points, 2)
        Where the arrows stand.
    score : ndarray of shape (n_levels, n_points, 2)
    sigmas : ndarray of shape (n_levels,)
    log_density : ndarray of shape (n_levels, m, m), optional
        On a grid over the same square, rows from bottom to top.
    extent : tuple of float
        Left, right, bottom and top of it.
    rows : ndarray of shape (n, 2), optional
        Data to show.
    names : sequence of two str, optional
        Of the columns.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Of the first level.
    axes_ : ndarray of matplotlib Axes
        One per level.
    figure_ : matplotlib Figure
    quiver_ : list of matplotlib Quiver
    surface_ : list of matplotlib AxesImage or None

    Examples
    --------
    >>> from skdiffusion import GMMScore
    >>> from skdiffusion.datasets import make_moons
    >>> from skdiffusion.inspection import ScoreFieldDisplay
    >>> X, _ = make_moons(300, random_state=0)
    >>> est = GMMScore(8, random_state=0).fit(X)
    >>> display = ScoreFieldDisplay.from_estimator(est, X, sigma=[0.1, 1.0])
    >>> [ax.get_title() for ax in display.axes_]
    ['noise level 0.1', 'noise level 1']
    """

    def __init__(
        self, *, points, score, sigmas, log_density=None, extent=None, rows=None, names=None
    ):
        self.points = points
        self.score = score
        self.sigmas = sigmas
        self.log_density = log_density
        self.extent = extent
        self.rows = rows
        self.names = names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        sigma: Any = None,
        grid_resolution: int = 20,
        eps: float = 0.5,
        ax: Any = None,
        **kwargs: Any,
    ):
        """Draw the score of a fitted estimator or a score model.

        Parameters
        ----------
        estimator : score model or fitted estimator
            Of two columns.
        X : array-like of shape (n_samples, 2)
            Rows: they are shown, and say what is drawn of the plane. Columns of a DataFrame name
            the axes.
        sigma : float or sequence of float, optional
            Noise levels, one axes each; a fifth of the scale of ``X`` by default.
        grid_resolution : int
            Arrows along each axis.
        eps : float
            Room around the rows, as a share of their wider range; where that is nothing, three
            times the highest level.
        ax : matplotlib Axes or one per level, optional
        **kwargs : dict
            For ``Axes.quiver``.

        Returns
        -------
        ScoreFieldDisplay

        Raises
        ------
        ValueError
            If the model has not two columns.
        """
        model = as_score_model(estimator)
        if model.n_features != 2:
            raise ValueError(
                f"a score is drawn in two columns; the model has {model.n_features}: fit one to "
                "two of them."
            )
        names = _names(X)
        X = check_points(X, 2)
        n = check_count(grid_resolution, "grid_resolution", 2)
        if sigma is None:
            sigma = 0.2 * np.sqrt(X.var(axis=0).mean())
            if not sigma > 0:
                raise ValueError("X has no variance: all of its rows are the same; give sigma=.")
        sigmas = as_numbers(sigma)
        if sigmas.ndim != 1 or not len(sigmas):
            raise ValueError(f"sigma must be a noise level or a list of them; got {sigma!r}.")
        low, high = X.min(axis=0), X.max(axis=0)
        room = check_number(eps, "eps", least=0) * (high - low).max()
        room = room if room > 0 else 3 * sigmas.max()
        low, high = low - room, high + room
        extent = (low[0], high[0], low[1], high[1])
        points = _grid(low, high, n)
        fine = _grid(low, high, BACKGROUND * n)
        log_density = None
        if model.has_log_prob:
            log_density = np.stack([model.log_prob(fine, float(level)) for level in sigmas])
            log_density = log_density.reshape(len(sigmas), BACKGROUND * n, BACKGROUND * n)
        return cls(
            points=points,
            score=np.stack([model.score(points, float(level)) for level in sigmas]),
            sigmas=sigmas,
            log_density=log_density,
            extent=extent,
            rows=X,
            names=names,
        ).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, points: Any, score: Any, *, sigma: float, X: Any = None, ax: Any = None, **kwargs: Any
    ):
        """Draw the values of a score at points.

        Parameters
        ----------
        points, score : array-like of shape (n_points, 2)
        sigma : float
            Noise level, for the title.
        X : array-like of shape (n_samples, 2), optional
            Rows to show.
        ax : matplotlib Axes, optional
        **kwargs : dict
            For ``Axes.quiver``.

        Returns
        -------
        ScoreFieldDisplay
        """
        points, score = np.asarray(points, dtype=float), np.asarray(score, dtype=float)
        if points.ndim != 2 or points.shape[1] != 2 or score.shape != points.shape:
            raise ValueError(
                "points and score must both have shape (n_points, 2); "
                f"got {points.shape} and {score.shape}."
            )
        return cls(
            points=points,
            score=score[None],
            sigmas=np.array([check_number(sigma, "sigma", least=0)]),
            rows=None if X is None else check_points(X, 2),
            names=_names(X),
        ).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or one per level, optional
        **kwargs : dict
            For ``Axes.quiver``.

        Returns
        -------
        ScoreFieldDisplay
        """
        import matplotlib.pyplot as plt

        n = len(self.sigmas)
        if ax is None:
            _, ax = plt.subplots(1, n, figsize=(4.2 * n, 4.0), layout="constrained", squeeze=False)
        self.axes_ = np.ravel(ax)
        if len(self.axes_) != n:
            raise ValueError(f"ax must be one axes per noise level, {n}; got {len(self.axes_)}.")
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        self.quiver_, self.surface_ = [], None if self.log_density is None else []
        for k, axis in enumerate(self.axes_):
            if self.log_density is not None:
                values = self.log_density[k]
                top = values.max()
                colours = {"cmap": "Blues", "vmin": top - DEPTH, "vmax": top + 0.4 * DEPTH}
                image = axis.imshow(values, origin="lower", extent=self.extent, **colours)
                self.surface_.append(image)
            if self.rows is not None:
                axis.plot(*self.rows.T, ".", color="tab:orange", ms=2.5, alpha=0.5)
            options = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.0035, **kwargs}
            arrows = self._arrows(self.score[k])
            self.quiver_.append(axis.quiver(*self.points.T, *arrows.T, **options))
            axis.set_title(f"noise level {self.sigmas[k]:.3g}")
            axis.set_aspect("equal", adjustable="box")
            if self.names is not None:
                axis.set(xlabel=self.names[0], ylabel=self.names[1])
        return self

    def _arrows(self, score):
        """Arrows whose longest twentieth is one spacing of the points long."""
        length = np.linalg.norm(score, axis=1)
        longest = np.quantile(length, LONGEST)
        if not longest > 0:
            return score
        size = np.ptp(self.points, axis=0)
        spacing = np.sqrt(max(size.prod(), size.max() ** 2 * 1e-3) / len(self.points))
        cut = np.minimum(1.0, longest / np.maximum(length, np.finfo(float).tiny))
        return score * cut[:, None] * (spacing / longest)


def _names(X):
    """Names of the columns of a DataFrame."""
    return list(X.columns) if hasattr(X, "columns") else None


def _grid(low, high, n):
    """``n x n`` points, row by row from the bottom."""
    x, y = (np.linspace(low[j], high[j], n) for j in range(2))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
