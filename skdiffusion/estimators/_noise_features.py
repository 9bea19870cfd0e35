r"""What a row shows of the noise in it.

In principal axes of the data, in units of their scale, with :math:`y` the coordinates of a row:

- the coordinates, bounded by the length of the row;
- the energies of the trailing axes, :math:`\tfrac12\log\tfrac1{d-j}\sum_{k\ge j} y_k^2`: where the
  data fill fewer dimensions than they have columns, noise is what is left there;
- the distance to the nearest of some rows of the data, :math:`\log\min_i |x - x_i|`, which counts
  *all* the directions off the data. On noised rows it tells little more than the energies. Points
  of a sampler, whose errors are not isotropic, may be clean in the empty directions and between two
  parts of the data all the same; by the energies alone they pass for clean.
"""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from skdiffusion.utils.covariance import covariance_of

__all__ = ["NoiseFeatures"]

REFERENCES = 2000
"""Rows among which the nearest is sought."""
ENERGIES = 16
"""Numbers of leading axes left out, at most, among those whose energies are features."""


class NoiseFeatures:
    """Features of rows from which the noise level can be told.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Clean rows.
    scale : float
        Unit of length.
    rng : Generator
        Draws the rows of reference.
    """

    def __init__(self, X: np.ndarray, scale: float, rng: np.random.Generator):
        self.center, self.scale = X.mean(axis=0), scale
        self.axes = np.linalg.eigh(covariance_of(X))[1][:, ::-1]
        chosen = rng.choice(len(X), min(len(X), REFERENCES), replace=False)
        self.place = np.full(len(X), -1)
        self.place[chosen] = np.arange(len(chosen))
        self.neighbours = NearestNeighbors().fit(self._standardised(X[chosen]))

    def __call__(self, X: np.ndarray, origin: np.ndarray | None = None) -> np.ndarray:
        """Features of rows.

        Parameters
        ----------
        X : ndarray of shape (n, d)
        origin : ndarray of int of shape (n,), optional
            Which clean rows these are copies of: their nearest row is another one, as it is for
            rows that are new.
        """
        z = self._standardised(X)
        y = z @ self.axes
        d = y.shape[1]
        tails = np.cumsum((y**2)[:, ::-1], axis=1)[:, ::-1] / np.arange(d, 0, -1)
        left_out = np.unique(np.geomspace(1, d, ENERGIES).astype(int)) - 1
        bounded = y / np.sqrt(1 + tails[:, :1])
        distance = self._distance(z, origin)[:, None]
        tiny = np.finfo(float).tiny
        return np.hstack(
            [bounded, 0.5 * np.log(tails[:, left_out] + tiny), np.log(distance + tiny)]
        )

    def _standardised(self, X):
        return (X - self.center) / self.scale

    def _distance(self, z, origin):
        if origin is None:
            return self.neighbours.kneighbors(z, 1)[0][:, 0]
        distances, found = self.neighbours.kneighbors(z, 2)
        return np.where(found[:, 0] == self.place[origin], distances[:, 1], distances[:, 0])
