"""Where samples are beside a ridge: their projections, and directions along it and across."""

from __future__ import annotations

import numpy as np

__all__ = ["RidgePlace"]


class RidgePlace:
    """Projections of samples at one level, with tangent frames carried on from the last.

    Parameters
    ----------
    ridge : RidgeProjector
        Fitted.
    samples : ndarray of shape (n, d)
    level : float
    before : RidgePlace, optional
        The place at the last level.
    """

    def __init__(self, ridge, samples, level, before=None):
        there = ridge.ridge_.at(level)
        found = there.project(samples)
        self.points = found.points
        self.defined = there.arrived(found)
        self.distance = np.where(
            self.defined, np.linalg.norm(samples - found.points, axis=1), np.nan
        )
        k = ridge.n_components_
        self.tangent = found.axes[:, :, :k]
        self.across, self.ratios = found.axes[:, :, k:], found.ratios[:, k:]
        self.model, self.level = ridge.model_, level
        if before is not None:  # the rotation of the frame that is nearest to the last frame
            left, _, right = np.linalg.svd(np.swapaxes(self.tangent, 1, 2) @ before.tangent)
            self.tangent = self.tangent @ (left @ right)

    def drift(self):
        """What the reference's denoiser moves the projections by."""
        return self.model.denoise(self.points, self.level) - self.points

    def tangential(self, vectors):
        """Components in the frame."""
        return np.einsum("ndk,nd->nk", self.tangent, vectors)

    def normal(self, vectors):
        """The rest, as vectors."""
        return vectors - np.einsum("ndk,nk->nd", self.tangent, self.tangential(vectors))

    def pulled(self, offset):
        """What the reference's Jacobian makes of a normal offset, in the known directions."""
        inside = np.einsum("ndj,nd->nj", self.across, offset)
        return np.einsum("ndj,nj->nd", self.across, self.ratios * inside)
