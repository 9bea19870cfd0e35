r"""Laws along curves: the swiss roll, the two moons, thirteen points on an arc.

The uniform law of a parameter on a curve :math:`c(t)` has the noised density
:math:`p_\sigma(x) = \int N(x; c(t), \sigma^2 I)\,dt`, an integral without closed form. A
composite Gauss-Legendre rule turns it into the weighted points of an
:class:`~skdiffusion.models.EmpiricalModel`,

.. math:: p_\sigma(x) \approx \textstyle\sum_i w_i\, N(x; c(t_i), \sigma^2 I),

whose error falls as :math:`e^{-2\pi^2\sigma^2/\Delta^2}` with the largest arc :math:`\Delta`
between neighbouring nodes, for the integrand is a Gaussian bump along the arc: below
:math:`10^{-18}` from :math:`\sigma = 1.5\,\Delta` on. What is left comes from the panels, below
:math:`10^{-9}` of the density within the curve's own radius of curvature; where a curve ends
they are halved until a point forty levels beyond still meets a smooth integrand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skdiffusion.datasets._embed import (
    check_ambient,
    check_noise,
    embed_model,
    embed_points,
    random_rotation,
)
from skdiffusion.models import AffineModel, EmpiricalModel, IndependentModel, UniformModel
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count

__all__ = ["CurveModel", "make_moons", "make_swiss_roll", "make_thirteen_points"]

PER_PANEL = 16
N_HALVINGS = 6
"""How often the first and the last panel are halved towards the ends of the curve."""

SPACINGS = 1.5
"""Smallest noise level in units of the largest arc between nodes."""


class CurveModel(EmpiricalModel):
    """The uniform law of a parameter on one or several curves, to quadrature accuracy.

    Parameters
    ----------
    curves : sequence of callable
        Each maps parameters in [0, 1], shape ``(n,)``, to points ``(n, d)``; all have the same
        weight. The parameter is uniform, the speed along the curve need not be.
    n_nodes : int
        Nodes per curve, rounded up to whole panels of 16.

    Attributes
    ----------
    sigma_range : tuple of float
        From 1.5 times the largest arc between two nodes.

    Examples
    --------
    >>> import numpy as np
    >>> segment = CurveModel([lambda u: np.stack([2 * u - 1, 0 * u], axis=1)], n_nodes=64)
    >>> segment.denoise(np.array([[5.0, 1.0]]), 0.1).round(2)
    array([[1., 0.]])
    """

    def __init__(self, curves: Sequence[Callable], n_nodes: int = 2048):
        self.curves = tuple(curves)
        n_panels = -(-check_count(n_nodes, "n_nodes") // PER_PANEL)
        points, weights, largest = [], [], 0.0
        for curve in self.curves:
            u, weight, arc = _nodes(curve, n_panels)
            points.append(curve(u))
            weights.append(weight / len(self.curves))
            largest = max(largest, arc)
        super().__init__(
            np.concatenate(points), np.concatenate(weights), sigma_min=SPACINGS * largest
        )

    def _draw(self, n_samples, rng):
        return self.draw(n_samples, rng)[0]

    def draw(self, n_samples: int, rng: np.random.Generator):
        """Exact draws from the curves themselves, their labels and their parameters."""
        labels = rng.integers(len(self.curves), size=n_samples)
        u = rng.random(n_samples)
        x = np.empty((n_samples, self.n_features))
        for k, curve in enumerate(self.curves):
            x[labels == k] = curve(u[labels == k])
        return x, labels, u


def _nodes(curve, n_panels):
    """Parameters and weights of the rule, panels of equal arc, and the largest arc between."""
    fine = np.linspace(0, 1, 20 * n_panels + 1)
    arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(curve(fine), axis=0), axis=1))]
    # where the panels end need not be exact: the rule integrates over any panels
    ends = np.interp(np.linspace(0, arc[-1], n_panels + 1), arc, fine)
    # beyond the end of a curve the integrand decays from it over sigma^2/distance: finer there
    fractions = np.r_[0, 0.5 ** np.arange(N_HALVINGS, 0, -1)]
    ends = np.r_[fractions * ends[1], ends[1:-1], 1 - fractions[::-1] * (1 - ends[-2])]
    nodes, weights = np.polynomial.legendre.leggauss(PER_PANEL)
    half = np.diff(ends)[:, None] / 2
    u = (ends[:-1, None] + half * (nodes + 1)).ravel()
    return u, (half * weights).ravel(), np.diff(np.interp(u, fine, arc)).max()


def _spiral(u):
    """Scikit-learn's roll seen from its end: angle uniform from 1.5 pi to 4.5 pi."""
    t = 1.5 * np.pi * (1 + 2 * u)
    return np.stack([t * np.cos(t), t * np.sin(t)], axis=1)


def _upper_moon(u):
    return np.stack([np.cos(np.pi * u), np.sin(np.pi * u)], axis=1)


def _lower_moon(u):
    return np.stack([1 - np.cos(np.pi * u), 0.5 - np.sin(np.pi * u)], axis=1)


def make_swiss_roll(
    n_samples: int = 100,
    n_features: int = 3,
    *,
    noise: float | None = None,
    n_nodes: int = 4096,
    random_state: Any = None,
    return_labels: bool = False,
):
    r"""Draws of the swiss roll, and its score model.

    The law of scikit-learn's ``make_swiss_roll``: columns
    :math:`(t\cos t,\ h,\ t\sin t)` with :math:`t` uniform on :math:`[1.5\pi, 4.5\pi]` and
    the height :math:`h` uniform on [0, 21]. In more than three dimensions it is turned at random.

    Parameters
    ----------
    n_samples : int
    n_features : int
        At least 3.
    noise : float, optional
        Standard deviation of isotropic Gaussian noise in all directions.
    n_nodes : int
        Nodes of the spiral. The model is defined from 1.5 times their largest distance, 0.05
        at the default; ``noise`` counts towards that.
    random_state : None, int, Generator or RandomState
    return_labels : bool
        Whether to return the position ``t`` of each row along the roll too.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    model : BaseScoreModel
    t : ndarray of shape (n_samples,)
        Only with ``return_labels``.

    Examples
    --------
    >>> X, model = make_swiss_roll(10, random_state=0)
    >>> X.shape, round(model.sigma_range[0], 3)
    ((10, 3), 0.05)
    """
    n_samples, d = check_count(n_samples, "n_samples"), check_ambient(n_features, 3)
    noise, rng = check_noise(noise), as_generator(random_state)
    rotation = random_rotation(d, rng) if d > 3 else None
    spiral, height = CurveModel([_spiral], n_nodes), UniformModel([0.0], [21.0])
    order = np.eye(3)[[0, 2, 1]]  # (x, z, height) to (x, height, z)
    roll = AffineModel(IndependentModel([spiral, height]), rotation=order)
    model = embed_model(roll, d, rotation, noise)

    z, _, u = spiral.draw(n_samples, rng)
    z = np.hstack([z, height._draw(n_samples, rng)]) @ order.T
    X = embed_points(z, d, rotation, noise, rng)
    return (X, model, 1.5 * np.pi * (1 + 2 * u)) if return_labels else (X, model)


def make_moons(
    n_samples: int = 100,
    *,
    noise: float | None = 0.05,
    n_nodes: int = 512,
    random_state: Any = None,
    return_labels: bool = False,
):
    """Draws of two interleaving half circles, and their score model.

    The law of scikit-learn's ``make_moons`` with random angles.

    Parameters
    ----------
    n_samples : int
        Half of them on each moon on average.
    noise : float, optional
        Standard deviation of isotropic Gaussian noise.
    n_nodes : int
        Nodes per moon. The model is defined from 1.5 times their largest distance, 0.014 at
        the default; ``noise`` counts towards that, so the default has all levels.
    random_state : None, int, Generator or RandomState
    return_labels : bool
        Whether to return the moon of each row too: 0 upper, 1 lower.

    Returns
    -------
    X : ndarray of shape (n_samples, 2)
    model : BaseScoreModel
    labels : ndarray of shape (n_samples,)
        Only with ``return_labels``.

    Examples
    --------
    >>> X, model = make_moons(10, random_state=0)
    >>> X.shape, model.sigma_range
    ((10, 2), (0.0, inf))
    """
    n_samples, noise = check_count(n_samples, "n_samples"), check_noise(noise)
    rng = as_generator(random_state)
    moons = CurveModel([_upper_moon, _lower_moon], n_nodes)
    z, labels, _ = moons.draw(n_samples, rng)
    X, model = embed_points(z, 2, None, noise, rng), embed_model(moons, 2, None, noise)
    return (X, model, labels) if return_labels else (X, model)


def make_thirteen_points(n_samples: int | None = None, *, random_state: Any = None):
    r"""Thirteen points on an arc of a sine, and the score model of their empirical law.

    The setting of He, Qiu & Tao in which the ridge of the smoothed empirical law joins
    points that the law itself keeps apart: :math:`u_i` equispaced on [-1.8, 1.8],
    :math:`y_i = 0.7 \sin 1.7 u_i`.

    Parameters
    ----------
    n_samples : int, optional
        Draws from the points; by default the thirteen points themselves, in order.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    X : ndarray of shape (13, 2) or (n_samples, 2)
    model : EmpiricalModel

    References
    ----------
    Y. He, Y. Qiu and M. Tao, arXiv:2602.06021, 2026.

    Examples
    --------
    >>> X, model = make_thirteen_points()
    >>> X[[0, 6, 12]].round(3)
    array([[-1.8  , -0.057],
           [ 0.   ,  0.   ],
           [ 1.8  ,  0.057]])
    """
    u = 1.8 * np.arange(-6, 7) / 6
    X = np.stack([u, 0.7 * np.sin(1.7 * u)], axis=1)
    model = EmpiricalModel(X)
    if n_samples is None:
        return X, model
    rng = as_generator(random_state)
    return X[rng.integers(13, size=check_count(n_samples, "n_samples"))], model
