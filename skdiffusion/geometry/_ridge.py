"""A ridge that can be asked: a model, a level and a dimension, and what holds at points.

Points come in blocks that fit the memory, by as many threads as asked for. A point has *arrived*
where its projection converged, the density falls off in all normal directions,
:math:`r_{k+1} < 1`, and the mean shift is short enough for data to be near.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils.parallel import Parallel, delayed

from skdiffusion.geometry._scms import Projection, gaps, project, returns

__all__ = ["Ridge"]

BLOCK = 16384
"""Most points on their way at once."""


@dataclass(frozen=True)
class Ridge:
    """The ``k``-dimensional ridge of a model at a level.

    Attributes
    ----------
    space : Plane or Sphere
    model : BaseScoreModel
    level : float
        In the units of the points of the space.
    k : int
    route : str
        How tangent spaces are found.
    newton : bool
    max_iter : int
    tol, gap_tol, support_factor : float
        As in :class:`RidgeProjector`.
    n_jobs : int, optional
    verbose : bool
    """

    space: Any
    model: Any
    level: float
    k: int
    route: str
    newton: bool
    max_iter: int
    tol: float
    gap_tol: float
    support_factor: float
    n_jobs: int | None
    verbose: bool

    def at(self, level: float) -> Ridge:
        """The ridge of the same model at another level."""
        return replace(self, level=level)

    @property
    def spaces(self):
        """Tangent spaces of the model at the level."""
        return self.space.tangent_spaces(self.model, self.level, self.route)

    def project(self, points: np.ndarray) -> Projection:
        """Bring points to the ridge."""
        spaces = self.spaces
        blocks = self._in_blocks(
            lambda rows: project(
                spaces,
                points[rows],
                self.k,
                max_iter=self.max_iter,
                tol=self.tol,
                gap_tol=self.gap_tol,
                newton=self.newton,
            ),
            len(points),
            spaces,
            verbose=self.verbose,
        )
        return Projection.concatenate(blocks)

    def ratios(self, points: np.ndarray) -> np.ndarray:
        """Leading ratios at points as they are, ``(n, p)``, descending."""
        spaces = self.spaces
        blocks = self._in_blocks(
            lambda rows: spaces(points[rows], self.k).ratios, len(points), spaces
        )
        return np.concatenate(blocks)

    def gaps(self, points: np.ndarray) -> np.ndarray:
        """Gap of the ratios on the two sides of the tangent space at points, ``(n,)``."""
        return gaps(self.ratios(points), self.k)

    def share_without_gap(self, points: np.ndarray) -> float:
        """Share of points at which the ridge is numerically undefined."""
        return float(np.mean(self.gaps(points) < self.gap_tol))

    def axes(self, points: np.ndarray) -> np.ndarray:
        """Orthonormal tangent axes at points as they are, ``(n, D, k)``."""
        spaces = self.spaces
        blocks = self._in_blocks(
            lambda rows: spaces(points[rows], self.k).axes[:, :, : self.k], len(points), spaces
        )
        return np.concatenate(blocks)

    def stable(self, found: Projection) -> np.ndarray:
        """Whether points beside each projection return to the ridge."""
        spaces = self.spaces
        blocks = self._in_blocks(
            lambda rows: returns(spaces, found.points[rows], found.axes[rows], self.k),
            len(found.points),
            spaces,
        )
        return np.concatenate(blocks)

    def concave(self, found: Projection) -> np.ndarray:
        """Whether the density falls off in all directions across."""
        return found.ratios[:, self.k : self.k + 1].max(axis=1, initial=0.0) < 1

    def supported(self, found: Projection) -> np.ndarray:
        """Whether there are data near."""
        reach = self.support_factor * self.level * np.sqrt(found.points.shape[1])
        return found.shift <= reach

    def arrived(self, found: Projection) -> np.ndarray:
        """Whether each point is on the ridge."""
        return found.converged & self.concave(found) & self.supported(found)

    def _in_blocks(self, function, n, spaces, verbose=False):
        """Results for consecutive slices of ``n`` rows."""
        n_jobs = effective_n_jobs(self.n_jobs)
        size = min(spaces.rows_per_block(self.k), BLOCK, -(-n // n_jobs) or 1)
        slices = [slice(start, start + size) for start in range(0, max(n, 1), size)]
        if verbose:
            from tqdm.auto import tqdm

            slices = tqdm(slices, desc="projecting", unit="block")
        if n_jobs == 1:
            return [function(rows) for rows in slices]
        return Parallel(n_jobs, prefer="threads")(delayed(function)(rows) for rows in slices)
