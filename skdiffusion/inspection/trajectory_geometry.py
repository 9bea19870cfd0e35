r"""Are sampling trajectories rotations in a plane? Measured, and predicted from the spectrum.

With the noise level in units of the data's scale :math:`u`, :math:`\alpha = u/\sqrt{u^2+\sigma^2}`
and :math:`\beta = \sigma/\sqrt{u^2+\sigma^2}`, so :math:`\alpha^2+\beta^2=1`, look at a trajectory
as the variance-preserving picture does, :math:`r = \alpha\,(x - \mu)/u`. There it resembles a
rotation from noise to data (Wang & Vastola 2024),

.. math:: r_t \approx \alpha_t\, r_0 + \beta_t\, r_T .

In the coordinates of the flow's own :math:`x` any path is a line to ten digits, since the first
level is large. For a Gaussian of variances :math:`\lambda` (in units of :math:`u^2`), mode by mode
:math:`r_t = \sqrt{\beta_t^2 + \lambda\alpha_t^2}\; z` with a standard normal :math:`z`, hence

.. math:: \frac{E\,|r_t - \alpha_t r_0 - \beta_t r_T|^2}{E\,|r_t|^2} =
   \frac{\sum_k \big(\sqrt{\beta_t^2+\lambda_k\alpha_t^2} - \alpha_t\sqrt{\lambda_k}-\beta_t\big)^2}
        {\sum_k (\beta_t^2 + \lambda_k \alpha_t^2)}

where data and first level are reached, and no path leaves its plane if there are two variances.
How far paths leave it otherwise is no such ratio, and predicted by a mean over codes :math:`z`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.inspection._paths import as_paths
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.validation import check_number

__all__ = ["TrajectoryGeometry", "trajectory_geometry"]

CODES, LEAST_AND_MOST = 100_000, (200, 4000)
"""Numbers of codes that a prediction is a mean over, and their least and most: of many columns few
paths do, as each is typical."""


@dataclass(frozen=True)
class TrajectoryGeometry:
    r"""How paths lie in space, ``K + 1`` levels, ``n`` of them; in the gauge of the module.

    Attributes
    ----------
    levels : ndarray of shape (K + 1,)
        Noise levels, falling.
    unit : float
        Scale of the data that a level of one stands for.
    principal_fractions : ndarray of shape (n, m)
        Share of each path's squared length in its first, second, ... principal direction.
    plane : ndarray of shape (K + 1, n, 2)
        Coordinates in the plane of first and last point: along the first point, and across it.
    out_of_plane : ndarray of shape (K + 1,)
        Share of the squared length outside that plane, over all paths.
    rotation_residual : ndarray of shape (K + 1,)
        Squared distance from :math:`\alpha r_0 + \beta r_T` over the squared length.
    predicted_out_of_plane, predicted_rotation_residual : ndarray of shape (K + 1,)
        The same for the Gaussian with the moments of the data.
    angle : ndarray of shape (K + 1, n)
        Between each point and the first, in radians.
    """

    levels: np.ndarray = field(repr=False)
    unit: float
    principal_fractions: np.ndarray = field(repr=False)
    plane: np.ndarray = field(repr=False)
    out_of_plane: np.ndarray = field(repr=False)
    rotation_residual: np.ndarray = field(repr=False)
    predicted_out_of_plane: np.ndarray = field(repr=False)
    predicted_rotation_residual: np.ndarray = field(repr=False)
    angle: np.ndarray = field(repr=False)

    @property
    def planarity(self) -> np.ndarray:
        """Share of each path's squared length in its best plane through the mean, ``(n,)``."""
        return self.principal_fractions[:, :2].sum(axis=1)

    def __str__(self):
        rows = [
            ("outside the plane of both ends", self.out_of_plane, self.predicted_out_of_plane),
            ("off the rotation", self.rotation_residual, self.predicted_rotation_residual),
        ]
        lines = [
            f"{self.plane.shape[1]} paths, {len(self.levels)} levels: "
            f"{np.mean(self.planarity):.3%} of a path in its best plane"
        ]
        for name, seen, predicted in rows:
            lines.append(
                f"  {name}: {seen.mean():.2%} on average, {seen.max():.2%} at worst "
                f"(a Gaussian: {predicted.mean():.2%}, {predicted.max():.2%})"
            )
        turned = np.degrees(np.median(self.angle[-1]))
        lines.append(f"  angle between noise and sample: median {turned:.0f} degrees")
        return "\n".join(lines)


def trajectory_geometry(
    source: Any,
    levels: Any = None,
    *,
    far_field: Any = None,
    unit: float | None = None,
    n_samples: int = 200,
    n_steps: int | None = None,
    sampler: Any = None,
    random_state: Any = 0,
) -> TrajectoryGeometry:
    r"""How far sampling trajectories are from rotations in a plane.

    Parameters
    ----------
    source : fitted estimator, score model or array-like of shape (n_levels, n_samples, n_features)
        What draws the trajectories, or the trajectories.
    levels : array-like of shape (n_levels,), optional
        Falling noise levels of given trajectories, or of those of a model.
    far_field : GaussianModel, optional
        Moments of the data. By default those of the end points for given trajectories, and for a
        model those that it knows.
    unit : float, optional
        Noise level at which signal and noise are alike; the root mean square of the columns'
        standard deviations by default. One is the gauge of the paper for images.
    n_samples, n_steps, sampler, random_state
        How an estimator draws; 64 levels by default.

    Returns
    -------
    TrajectoryGeometry

    Raises
    ------
    ValueError
        If trajectories and levels do not belong together, or the sampler is not a plain flow.

    References
    ----------
    B. Wang and J. J. Vastola, "Diffusion Models Generate Images Like Painters: an Analytical
    Theory of Outline First, Details Later", 2023; and TMLR 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdiffusion import GMMScore
    >>> from skdiffusion.inspection import trajectory_geometry
    >>> est = GMMScore(5, covariance_type="low_rank", random_state=0).fit(load_digits().data)
    >>> found = trajectory_geometry(est, n_samples=50)
    >>> bool(found.planarity.min() > 0.98)
    True
    """
    paths = as_paths(
        source,
        levels,
        far_field,
        n_samples=n_samples,
        n_steps=n_steps,
        sampler=sampler,
        random_state=random_state,
    )
    covariance = paths.far_field.covariance
    if unit is None:
        unit = np.sqrt(covariance.total / covariance.n_features)
    unit = check_number(unit, "unit", above=0)
    total = np.hypot(unit, paths.levels)
    alpha, beta = unit / total, paths.levels / total
    r = alpha[:, None, None] * (paths.points - paths.far_field.mean) / unit
    plane, inside = _in_plane(r)
    squares = (r**2).sum(axis=2)
    rotated = _rotation(r, alpha, beta, 2)
    variances, counts = _spectrum(covariance)
    modes = np.sqrt(beta[:, None] ** 2 + variances / unit**2 * alpha[:, None] ** 2)
    # squares of codes have mean one: one entry per variance, as often as it occurs
    typical = modes[:, None, :] * np.sqrt(counts)
    predicted = _rotation(typical, alpha, beta, 2)
    return TrajectoryGeometry(
        levels=paths.levels,
        unit=unit,
        principal_fractions=_principal_fractions(r),
        plane=plane,
        out_of_plane=_share(squares - inside, squares),
        rotation_residual=_share(rotated, squares),
        predicted_out_of_plane=_out_of_plane(modes, counts),
        predicted_rotation_residual=_share(predicted, (typical**2).sum(axis=2)),
        angle=np.arctan2(np.linalg.norm(r - _along(r, r[:1]), axis=2), _dot(r, _unit(r[:1]))),
    )


def _dot(a, b):
    return np.einsum("tnd,tnd->tn", a, np.broadcast_to(b, a.shape))


def _unit(vectors):
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def _along(r, direction):
    direction = _unit(direction)
    return _dot(r, direction)[..., None] * direction


def _in_plane(r):
    """Coordinates in the plane of first and last point, and the squared length inside it."""
    first = _unit(r[:1])
    across = r[-1:] - _along(r[-1:], first)
    across = across - _along(across, first)  # once more, against rounding
    second = _unit(across)
    plane = np.stack([_dot(r, first), _dot(r, second)], axis=2)
    return plane, (plane**2).sum(axis=2)


def _out_of_plane(modes, counts):
    """Share out of the plane over paths of a Gaussian: its modes times codes, one per path."""
    n = int(np.clip(CODES // len(counts), *LEAST_AND_MOST))
    # in equal variances together only the length of a code matters, and never its signs
    codes = np.sqrt(np.random.default_rng(0).chisquare(counts, size=(n, len(counts))))
    outside = whole = 0.0
    for some in gen_batches(n, rows_in_memory(4 * modes.size)):
        r = modes[:, None, :] * codes[some]
        squares = (r**2).sum(axis=2)
        outside = outside + (squares - _in_plane(r)[1]).sum(axis=1)
        whole = whole + squares.sum(axis=1)
    return np.maximum(outside, 0) / whole


def _rotation(r, alpha, beta, axis):
    """Squared distance from the rotation, with the ends that were reached for data and noise."""
    return ((r - alpha[:, None, None] * r[-1] - beta[:, None, None] * r[0]) ** 2).sum(axis=axis)


def _share(part, whole):
    """Of sums over the paths; never below zero by rounding."""
    return np.maximum(part.sum(axis=1), 0) / np.maximum(whole.sum(axis=1), np.finfo(float).tiny)


def _spectrum(covariance):
    """Variances, and how many directions have each."""
    counts = np.ones(len(covariance.variances))
    if not covariance.n_residual:
        return covariance.variances, counts
    return (
        np.append(covariance.variances, covariance.residual),
        np.append(counts, covariance.n_residual),
    )


def _principal_fractions(r):
    """Shares of the squared singular values of each path, ``(n, min(K + 1, d))``."""
    values = np.linalg.svd(r.transpose(1, 0, 2), compute_uv=False) ** 2
    return values / np.maximum(values.sum(axis=1, keepdims=True), np.finfo(float).tiny)
