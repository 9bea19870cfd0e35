"""Spheres of any dimension, the ring, and two rings."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.datasets._embed import (
    check_ambient,
    check_noise,
    embed_model,
    embed_points,
    random_rotation,
)
from skdiffusion.models import SmoothedModel, SphereModel, SuperpositionModel
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["make_concentric_circles", "make_embedded_circles", "make_ring", "make_sphere"]


def make_ring(
    n_samples: int = 100, *, radius: float = 1.0, noise: float | None = None, random_state=None
):
    """Draws of the uniform law on a circle in the plane, and its score model.

    Parameters
    ----------
    n_samples : int
    radius : float
    noise : float, optional
        Standard deviation of isotropic Gaussian noise in the plane.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    X : ndarray of shape (n_samples, 2)
    model : SphereModel or SmoothedModel
        Without noise the law has no density: levels above zero only.

    Examples
    --------
    >>> X, model = make_ring(5, radius=2.0, random_state=0)
    >>> ((X**2).sum(axis=1)).round(12)
    array([4., 4., 4., 4., 4.])
    """
    n_samples, noise = check_count(n_samples, "n_samples"), check_noise(noise)
    model = embed_model(SphereModel(2, radius), 2, None, noise)
    return model.sample(n_samples, random_state=random_state), model


def make_sphere(
    n_samples: int = 100,
    dimension: int = 2,
    n_features: int | None = None,
    *,
    radius: float = 1.0,
    noise: float | None = None,
    rotate: bool = True,
    random_state: Any = None,
):
    r"""Draws of the uniform law on a sphere :math:`S^k \subset \mathbb{R}^D`, and its score model.

    Parameters
    ----------
    n_samples : int
    dimension : int
        Intrinsic dimension ``k``; 0 is a pair of points, 1 a ring.
    n_features : int, optional
        Dimension ``D`` of the space, at least ``dimension + 1``, the default.
    radius : float
    noise : float, optional
        Standard deviation of isotropic Gaussian noise in all ``D`` directions.
    rotate : bool
        Whether the sphere's subspace is turned at random; otherwise it is the first columns.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    model : BaseScoreModel
        Without noise the law has no density: levels above zero only.

    Examples
    --------
    >>> import numpy as np
    >>> X, model = make_sphere(50, dimension=10, n_features=100, random_state=0)
    >>> X.shape, np.linalg.matrix_rank(X)
    ((50, 100), np.int64(11))
    """
    n_samples = check_count(n_samples, "n_samples")
    own = check_count(dimension, "dimension", 0) + 1
    d, noise, rng = check_ambient(n_features, own), check_noise(noise), as_generator(random_state)
    rotation = random_rotation(d, rng) if rotate and d > own else None
    model = embed_model(SphereModel(own, radius), d, rotation, noise)
    return model.sample(n_samples, random_state=rng), model


def make_concentric_circles(
    n_samples: int = 100,
    n_features: int = 2,
    *,
    factor: float = 0.5,
    noise: float | None = 0.02,
    random_state: Any = None,
    return_labels: bool = False,
):
    r"""Draws of two concentric noisy circles in a random plane, and their score model.

    The law of scikit-learn's ``make_circles`` with random angles, turned into
    :math:`\mathbb{R}^D` by a random orthonormal embedding. As there, the noise lies in the plane of
    the circles: every other direction is exactly empty.

    Parameters
    ----------
    n_samples : int
        Half of them on each circle on average.
    n_features : int
        Dimension ``D`` of the space; in the plane itself (2) nothing is turned.
    factor : float in (0, 1)
        Radius of the inner circle; the outer one has radius one.
    noise : float, optional
        Standard deviation of the noise in the plane.
    random_state : None, int, Generator or RandomState
    return_labels : bool
        Whether to return the circle of each row too: 0 outer, 1 inner.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    model : BaseScoreModel
        At level zero only with noise and in the plane.
    labels : ndarray of shape (n_samples,)
        Only with ``return_labels``.

    References
    ----------
    M. Sahraee-Ardakan, M. Delbracio and P. Milanfar, "The Geometry of Noise: Why Diffusion
    Models Don't Need Noise Conditioning", 2026, section 7.

    Examples
    --------
    >>> X, model = make_concentric_circles(20, 32, random_state=0)
    >>> X.shape, model.has_density
    ((20, 32), False)
    """
    rotation, model, noise, rng = _circles_law(n_features, factor, noise, random_state)
    labels = rng.integers(2, size=check_count(n_samples, "n_samples"))
    angles = rng.uniform(0, 2 * np.pi, len(labels))
    X = _on_circles(labels, angles, factor, noise, rotation, model.n_features, rng)
    return (X, model, labels) if return_labels else (X, model)


def make_embedded_circles(
    n_samples: int = 100,
    n_features: int = 32,
    *,
    factor: float = 0.5,
    noise: float | None = 0.02,
    random_state: Any = None,
    return_plane: bool = False,
):
    r"""Two concentric circles in a random plane at even angles, and the score model of their law.

    Exactly scikit-learn's ``make_circles``, half of the rows on each circle, turned into
    :math:`\mathbb{R}^D` by a random orthonormal embedding: what models without noise
    conditioning are tried on. :func:`make_concentric_circles` draws from the same law at random.

    Parameters
    ----------
    n_samples : int
        The inner circle has the larger half.
    n_features : int
        Dimension ``D`` of the space; in the plane itself (2) nothing is turned.
    factor : float in (0, 1)
        Radius of the inner circle; the outer one has radius one.
    noise : float, optional
        Standard deviation of the noise in the plane.
    random_state : None, int, Generator or RandomState
    return_plane : bool
        Whether to return the plane too.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    model : BaseScoreModel
        At level zero only with noise and in the plane.
    plane : ndarray of shape (n_features, 2)
        Only with ``return_plane``: orthonormal columns that span the plane, so that ``X @ plane``
        are the circles.

    References
    ----------
    M. Sahraee-Ardakan, M. Delbracio and P. Milanfar, "The Geometry of Noise: Why Diffusion
    Models Don't Need Noise Conditioning", 2026, section 7.

    Examples
    --------
    >>> X, model, plane = make_embedded_circles(20, 32, random_state=0, return_plane=True)
    >>> bool(np.allclose(X @ plane @ plane.T, X))
    True
    """
    rotation, model, noise, rng = _circles_law(n_features, factor, noise, random_state)
    n_samples = check_count(n_samples, "n_samples")
    n_outer = n_samples // 2
    halves = n_outer, n_samples - n_outer
    labels = np.repeat([0, 1], halves)
    angles = np.concatenate([2 * np.pi * np.arange(half) / half for half in halves if half])
    X = _on_circles(labels, angles, factor, noise, rotation, model.n_features, rng)
    if not return_plane:
        return X, model
    return X, model, np.eye(2) if rotation is None else rotation[:, :2]


def _circles_law(n_features, factor, noise, random_state):
    """The plane, the law and the checked parameters of two circles."""
    d, noise = check_count(n_features, "n_features", 2), check_noise(noise)
    factor, rng = check_number(factor, "factor", above=0), as_generator(random_state)
    if factor >= 1:
        raise ValueError(f"factor must lie between 0 and 1; got {factor:g}.")
    rotation = random_rotation(d, rng) if d > 2 else None
    plane = SuperpositionModel([SphereModel(2, 1.0), SphereModel(2, factor)])
    if noise > 0:
        plane = SmoothedModel(plane, noise)
    return rotation, embed_model(plane, d, rotation), noise, rng


def _on_circles(labels, angles, factor, noise, rotation, d, rng):
    """Points on the outer (0) and inner (1) circle, with noise in their plane."""
    z = np.where(labels, factor, 1.0)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    z = z + noise * rng.standard_normal(z.shape)
    return embed_points(z, d, rotation, 0.0, rng)
