r"""Tangent spaces of a smoothed law: leading eigenvectors of the denoiser's Jacobian.

With the mean shift :math:`u(y) = D(y, \sigma) - y = \sigma^2 \nabla\log p_\sigma`, a length, the
Hessian of the log-density is

.. math:: \sigma^2\, \nabla^2 \log p_\sigma = J - I, \qquad
          J = \partial D/\partial y = \operatorname{Cov}[x_0 \mid y] / \sigma^2,

so its largest eigenvalues are those of the positive semi-definite :math:`J`: the *ratios*
:math:`r_1 \ge r_2 \ge \dots \ge 0` of posterior to noise variance. The ``k`` leading eigenvectors
span the tangent space of a ``k``-dimensional ridge; the ``D - k`` others are never needed. Three
routes: all of :math:`J` (dense); for data, the Gram matrix of the few points that carry the
posterior; and block Krylov spaces of products :math:`J v` (Lanczos), for any model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdiffusion.models import EmpiricalModel, denoise_and_jacobian, jvp, vjp
from skdiffusion.utils.memory import rows_in_memory

__all__ = ["ROUTES", "Frames", "TangentSpaces"]

ROUTES = ("dense", "gram", "lanczos")
DENSE_UP_TO = 64
"""Dimension up to which the whole Jacobian is cheapest."""
LOCAL_UP_TO = 256
"""Number of points that carry a posterior up to which their Gram matrix is cheapest."""
NEGLIGIBLE = 1e-15
"""Share of the largest posterior weight that a point may have and still be left out."""
EXTRA = 3
"""Leading directions beyond the tangent space: normal directions in which Newton's step gains."""
MAX_BLOCKS = 12
"""Blocks of a Krylov space before it is restarted from the best directions in it."""
MAX_RESTARTS = 8


class Frames(NamedTuple):
    """Mean shift, leading ratios and their directions at some points.

    Attributes
    ----------
    shift : ndarray of shape (m, D)
    ratios : ndarray of shape (m, p)
        In descending order.
    axes : ndarray of shape (m, D, p)
        Orthonormal.
    """

    shift: np.ndarray
    ratios: np.ndarray
    axes: np.ndarray


class TangentSpaces:
    """Frames of one model at one level, by the cheapest route.

    Parameters
    ----------
    model : BaseScoreModel
        Of isotropic noise.
    sigma : float
    route : {"auto", "dense", "gram", "lanczos"}
    """

    def __init__(self, model: Any, sigma: float, route: str = "auto"):
        self.model, self.sigma = model, float(sigma)
        self.n_features = model.n_features
        if route == "auto":
            route = "dense" if self.n_features <= DENSE_UP_TO else "lanczos"
            if route == "lanczos" and is_bare(model) and self._is_local():
                route = "gram"
        self.route = route
        self.exact = route != "lanczos"

    def _is_local(self):
        """Whether few points carry the posterior, judged at some of the points themselves."""
        points = self.model.points
        some = points[:: -(-len(points) // 32)]
        kept = posterior_weights(self.model, some, self.sigma) > NEGLIGIBLE
        return np.percentile(kept.sum(axis=1), 90) <= min(LOCAL_UP_TO, self.n_features)

    def rows_per_block(self, k: int) -> int:
        """Rows whose frames for ``k`` directions fit the working memory."""
        d = self.n_features
        floats = {
            "dense": 6 * d * d,
            "gram": 3 * len(getattr(self.model, "points", ())) + 6 * LOCAL_UP_TO * d,
            "lanczos": 3 * MAX_BLOCKS * (k + EXTRA) * d,
        }[self.route]
        return rows_in_memory(floats)

    def move(self, points: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Points after a step: in a Euclidean space their sum."""
        return points + step

    def __call__(self, points: np.ndarray, k: int, start=None, accuracy=None) -> Frames:
        """Frames at points, with at least ``min(k + 1, D)`` leading directions.

        Parameters
        ----------
        points : ndarray of shape (m, D)
        k : int
            Dimension of the tangent space.
        start : ndarray of shape (m, D, p), optional
            Directions to start from, where the route iterates.
        accuracy : ndarray of shape (m,), optional
            Largest sine of the error of the tangent space, where the route iterates.
        """
        return getattr(self, f"_{self.route}")(points, k, start, accuracy)

    def _dense(self, points, k, start, accuracy):
        denoised, jacobian = denoise_and_jacobian(self.model, points, self.sigma)
        ratios, axes = np.linalg.eigh(0.5 * (jacobian + np.swapaxes(jacobian, 1, 2)))
        return Frames(denoised - points, ratios[:, ::-1], axes[:, :, ::-1])

    def _gram(self, points, k, start, accuracy):
        """Singular vectors of the points that carry the posterior of each row."""
        weights = posterior_weights(self.model, points, self.sigma)
        counts = (weights > NEGLIGIBLE).sum(axis=1)
        few = counts <= 2 * LOCAL_UP_TO
        if few.all():
            return self._local(points, weights, counts.max(), k)
        rest = self._lanczos(points[~few], k, None, None)
        if not few.any():
            return rest
        frames = self._local(points[few], weights[few], counts[few].max(), k)
        return Frames(*(_merged(few, a, b) for a, b in zip(frames, rest, strict=True)))

    def _local(self, points, weights, count, k):
        n_leading = min(k + EXTRA, self.n_features)
        local = np.argpartition(weights, -count, axis=1)[:, -count:]
        weights = np.take_along_axis(weights, local, axis=1)
        offsets = self.model.points[local] - points[:, None, :]
        shift = np.einsum("mi,mid->md", weights, offsets)
        offsets -= shift[:, None, :]
        offsets *= np.sqrt(weights)[:, :, None] / self.sigma
        if count < n_leading:  # directions without variance complete the frame
            offsets = np.pad(offsets, [(0, 0), (0, n_leading - count), (0, 0)])
        across = np.swapaxes(offsets, 1, 2)
        values, vectors = np.linalg.eigh(offsets @ across)
        values = np.maximum(values[:, ::-1][:, :n_leading], 0)
        # orthonormal also where the variance is zero
        axes = np.linalg.qr(across @ vectors[:, :, ::-1][:, :, :n_leading])[0]
        return Frames(shift, values, axes)

    def _lanczos(self, points, k, start, accuracy):
        shift = self.model.denoise(points, self.sigma) - points
        n_leading = min(k + EXTRA, self.n_features)
        if start is None or start.shape[2] != n_leading:
            start = np.random.default_rng(0).standard_normal((self.n_features, n_leading))
            start = np.broadcast_to(start, (len(points), *start.shape)).copy()
            start[:, :, 0] = shift
        if accuracy is None:
            accuracy = np.full(len(points), 1e-8)
        return Frames(shift, *leading_eigenpairs(self._product(points), start, k, accuracy))

    def _product(self, points):
        """``(rows, V) -> J V`` for a block of directions per row, symmetrised."""
        symmetric = self.model.is_conservative is True

        def product(rows, directions):
            m, d, b = directions.shape
            flat = np.ascontiguousarray(np.swapaxes(directions, 1, 2)).reshape(m * b, d)
            at = np.repeat(points[rows], b, axis=0)
            image = jvp(self.model, at, self.sigma, flat, of="denoise")
            if not symmetric:
                image = 0.5 * (image + vjp(self.model, at, self.sigma, flat, of="denoise"))
            return np.swapaxes(image.reshape(m, b, d), 1, 2)

        return product


def _merged(which, first, second):
    """Rows of two arrays, those where ``which`` from the first."""
    merged = np.empty((len(which), *first.shape[1:]))
    merged[which], merged[~which] = first, second
    return merged


def is_bare(model: Any) -> bool:
    """Whether a model is the empirical law of points without a kernel of their own."""
    return isinstance(model, EmpiricalModel) and model.kernel is None


def posterior_weights(model: EmpiricalModel, y: np.ndarray, sigma: float) -> np.ndarray:
    """Posterior weights of the points of an empirical law, shape ``(m, n_points)``."""
    centre = model.weights @ model.points
    points = model.points - centre
    logits = (y - centre) @ points.T
    logits -= 0.5 * np.einsum("ij,ij->i", points, points)
    logits /= sigma**2
    with np.errstate(divide="ignore"):
        logits += np.log(model.weights)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return logits / logits.sum(axis=1, keepdims=True)


def leading_eigenpairs(product, start: np.ndarray, k: int, accuracy: np.ndarray):
    """Largest eigenpairs of one symmetric operator per row, by block Krylov spaces.

    Rayleigh-Ritz in the space of ``start``, its image, the image of that, ..., restarted from its
    best directions, until the residual of the ``k`` leading directions is below ``accuracy`` times
    their gap to the next.

    Parameters
    ----------
    product : callable
        ``product(rows, V)`` with an index array and directions ``(len(rows), D, b)``.
    start : ndarray of shape (m, D, b)
        With ``b > k``, or ``b = D``.
    k : int
    accuracy : ndarray of shape (m,)

    Returns
    -------
    values : ndarray of shape (m, b)
    vectors : ndarray of shape (m, D, b)
    """
    m, d, b = start.shape
    values, vectors = np.zeros((m, b)), np.array(start)
    rows = np.arange(m)
    most = max(min(MAX_BLOCKS, d // b), 1)
    for _ in range(MAX_RESTARTS):
        block = np.linalg.qr(vectors[rows])[0]
        basis = images = np.empty((len(rows), d, 0))
        for n_blocks in range(1, most + 1):
            basis = np.concatenate([basis, block], axis=2)
            images = np.concatenate([images, product(rows, block)], axis=2)
            ritz, mixing = np.linalg.eigh(_symmetric(np.swapaxes(basis, 1, 2) @ images))
            mixing = mixing[:, :, ::-1][:, :, :b]
            values[rows] = ritz[:, ::-1][:, :b]
            vectors[rows] = basis @ mixing
            error = images @ mixing[:, :, :k] - vectors[rows][:, :, :k] * values[rows, None, :k]
            found = values[rows]
            gap = found[:, k - 1] - found[:, k] if 0 < k < b else np.ones(len(rows))
            error = np.linalg.norm(error, axis=(1, 2))
            # no sharper than rounding allows
            floor = 1e-13 * (1 + np.abs(found[:, 0]))
            left = error > np.maximum(accuracy[rows] * gap, floor)
            if not left.any() or n_blocks * b >= d:
                return values, vectors
            rows, basis, images = rows[left], basis[left], images[left]
            block = images[:, :, -b:]
            for _ in range(2):  # once more, since once loses digits
                block = block - basis @ (np.swapaxes(basis, 1, 2) @ block)
                block = np.linalg.qr(block)[0]
    return values, vectors


def _symmetric(matrices):
    return 0.5 * (matrices + np.swapaxes(matrices, 1, 2))
