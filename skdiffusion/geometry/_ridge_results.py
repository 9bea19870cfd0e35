"""What a projection tells about each point, and about a family of ridges."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["RidgeDiagnostics", "RidgeTrace"]


@dataclass(frozen=True)
class RidgeDiagnostics:
    """How far each point's projection can be trusted; all lengths in the units of the data.

    Attributes
    ----------
    points : ndarray of shape (n_samples, n_features)
        The projections.
    distance : ndarray of shape (n_samples,)
        From each point to its projection.
    residual : ndarray of shape (n_samples,)
        Length of the normal part of the mean shift that is left.
    ratios : ndarray of shape (n_samples, p)
        Leading ratios of posterior to noise variance at the projections, descending.
    gap : ndarray of shape (n_samples,)
        Ratio of the last tangent direction minus that of the first normal one.
    defined : ndarray of bool of shape (n_samples,)
        Whether the gap is large enough for the tangent space to mean anything.
    concave : ndarray of bool of shape (n_samples,)
        Whether the density falls off in all normal directions: first normal ratio below one.
    supported : ndarray of bool of shape (n_samples,)
        Whether there are data near: the mean shift is but a few noise levels.
    stable : ndarray of bool of shape (n_samples,)
        Whether points beside the projection return to the ridge: the normal block of the
        Jacobian of the projected mean shift has eigenvalues of negative real part.
    converged : ndarray of bool of shape (n_samples,)
    n_iter : ndarray of int of shape (n_samples,)
    """

    points: np.ndarray = field(repr=False)
    distance: np.ndarray = field(repr=False)
    residual: np.ndarray = field(repr=False)
    ratios: np.ndarray = field(repr=False)
    gap: np.ndarray = field(repr=False)
    defined: np.ndarray = field(repr=False)
    concave: np.ndarray = field(repr=False)
    supported: np.ndarray = field(repr=False)
    stable: np.ndarray = field(repr=False)
    converged: np.ndarray = field(repr=False)
    n_iter: np.ndarray = field(repr=False)

    @property
    def on_ridge(self) -> np.ndarray:
        """Points that have passed every check."""
        return self.defined & self.concave & self.supported & self.stable & self.converged

    def __str__(self):
        n = len(self.points)
        lines = [f"{n} points, {self.on_ridge.sum()} on the ridge"]
        for name, words in {
            "defined": "the tangent space is undefined (no gap between the ratios)",
            "concave": "the density does not fall off in all normal directions",
            "supported": "there are no data near",
            "stable": "points beside it would leave the ridge",
            "converged": "not converged",
        }.items():
            count = n - int(getattr(self, name).sum())
            if count:
                lines.append(f"  {count}: {words}")
        return "\n".join(lines)


@dataclass(frozen=True)
class RidgeTrace:
    """Points followed along the ridges of a family of noise levels.

    Attributes
    ----------
    levels : ndarray of shape (n_levels,)
    points : ndarray of shape (n_levels, n_samples, n_features)
    gap : ndarray of shape (n_levels, n_samples)
    on_ridge : ndarray of bool of shape (n_levels, n_samples)
        Converged, with a gap, with data near, and concave in the normal directions. A point that
        is lost at one level stays where it was and is not taken up again.
    """

    levels: np.ndarray
    points: np.ndarray = field(repr=False)
    gap: np.ndarray = field(repr=False)
    on_ridge: np.ndarray = field(repr=False)
