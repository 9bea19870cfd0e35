r"""Where do generated points end? Reach, align, slide along a ridge of the data.

On its way down the noise levels a sample comes near the ridge of the smoothed data (reach), its
distance to it settles (align), and it moves along it (slide; He, Qiu & Tao 2026). With a model
:math:`D_\theta = D + \varepsilon`, :math:`D` a reference denoiser of the data, any step is

.. math:: y_{k+1} = \rho_k y_k + (1-\rho_k)\,(D + \varepsilon_k + \eta_k), \qquad
          \rho_k = (\sigma_{k+1}/\sigma_k)^\kappa,

where :math:`\eta_k` is the solver's own: noise, and what a higher order adds. Then, exactly,

.. math:: y_K = \frac{\sigma_K^\kappa}{\sigma_0^\kappa}\, y_0
          + \sum_k w_k\,(D + \varepsilon_k + \eta_k), \qquad
          w_k = \sigma_K^\kappa (\sigma_{k+1}^{-\kappa} - \sigma_k^{-\kappa}) .

To first order around the ridge, with the ratios :math:`r_N` across it, normal errors saturate and
tangential ones add up to the drift :math:`u` of the reference:

.. math:: \delta \leftarrow \big(\rho + (1-\rho)\, r_N\big)\,\delta + (1-\rho)\,\varepsilon_N,
          \qquad \xi \leftarrow \xi + (1-\rho)\,(u + \varepsilon + \eta)_T .

Below the level of the ridge the reference is held at it: there the law of a finite data set is a
set of points, and has no ridge.

At least half of the budget comes from the last factor of two in the noise, where
:math:`D_\theta(y) \approx y`: a sample that has come to rest has the errors
:math:`\varepsilon \approx y - D(y)` that keep it there. Over the samples, the lengths of their
parts then correlate as those of the mean shift of the data do, whatever moved the samples. That is
told by intervention: leave one part out, :math:`D_\theta \to D + P\varepsilon`, and see where
the samples end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.geometry import RidgeProjector
from skdiffusion.inspection._error_parts import HeldModel, PartOfErrors
from skdiffusion.inspection._ridge_place import RidgePlace
from skdiffusion.models import as_score_model
from skdiffusion.noising import noise_range
from skdiffusion.samplers import check_sampler, run_sampler
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_points
from skdiffusion.utils.validation import (
    check_count,
    check_flag,
    check_levels,
    check_number,
    lookup,
)

__all__ = ["HeldModel", "PartOfErrors", "ReachAlignSlide", "as_ridge", "reach_align_slide"]

ERRORS = ("all", "normal", "tangential", "none")

SETTLED = 0.1
"""Share of the tube within which a distance counts as that of the end."""
STEPS = 100
BELOW = 50.0
"""How far below the level of the ridge the levels go by default."""


@dataclass(frozen=True)
class ReachAlignSlide:
    r"""The record of samples on their way to a ridge and along it.

    ``K + 1`` levels, ``n`` samples, ``D`` columns, a ridge of dimension ``d``. Lengths are in the
    units of the data. Where a sample has no projection, distances are NaN.

    Attributes
    ----------
    levels : ndarray of shape (K + 1,)
        Noise levels of the run, falling.
    level : float
        Level of the reference ridge. At higher levels the ridge is that of the level.
    tube : float
        Distance within which a sample is at the ridge: :math:`\sigma\sqrt{D-d}` at ``level``.
    points, projections : ndarray of shape (K + 1, n, D)
        The samples and their projections on the ridge of each level.
    distance : ndarray of shape (K + 1, n)
    along : ndarray of shape (K + 1, n, d)
        Position of the projection along the ridge, in a frame carried along, counted from where
        the sample reached it.
    normal_error, tangential_error : ndarray of shape (K, n)
        Lengths of the two parts of the model's error at each step.
    weights : ndarray of shape (K,)
        Shares of the steps in the end points; with ``start_weight`` their sum is one.
    start_weight : float
        Share of the start.
    normal_budget : ndarray of shape (n, D)
        Weighted sum of the errors, its part normal to the ridge at the end.
    tangential_budget : ndarray of shape (n, d)
        The same along the ridge.
    solver_budget : ndarray of shape (n, D)
        Weighted sum of noise and of what the solver adds to the denoiser.
    identity_error : float
        Largest violation of the budget identity: rounding.
    predicted_offset : ndarray of shape (n, D)
        Of the end points from the ridge, from the normal errors alone.
    slide_of_reference, slide_of_error, slide_of_solver : ndarray of shape (n, d)
        What the reference's own drift, the tangential errors and the solver add to the position
        along the ridge after it was reached; to first order their sum is ``slide``.
    reach_level : ndarray of shape (n,)
        Level from which a sample stays in the tube; for one that is not there at the end the first
        at which it was, or zero.
    align_level : ndarray of shape (n,)
        Level from which its distance stays within a tenth of the tube of that at the end.
    """

    levels: np.ndarray = field(repr=False)
    level: float
    tube: float
    points: np.ndarray = field(repr=False)
    projections: np.ndarray = field(repr=False)
    distance: np.ndarray = field(repr=False)
    along: np.ndarray = field(repr=False)
    normal_error: np.ndarray = field(repr=False)
    tangential_error: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    start_weight: float
    normal_budget: np.ndarray = field(repr=False)
    tangential_budget: np.ndarray = field(repr=False)
    solver_budget: np.ndarray = field(repr=False)
    identity_error: float
    predicted_offset: np.ndarray = field(repr=False)
    slide_of_reference: np.ndarray = field(repr=False)
    slide_of_error: np.ndarray = field(repr=False)
    slide_of_solver: np.ndarray = field(repr=False)
    reach_level: np.ndarray = field(repr=False)
    align_level: np.ndarray = field(repr=False)

    @property
    def offset(self) -> np.ndarray:
        """From the ridge to the end points, ``(n, D)``."""
        return self.points[-1] - self.projections[-1]

    @property
    def slide(self) -> np.ndarray:
        """Motion along the ridge in all, ``(n, d)``."""
        return self.along[-1]

    @property
    def stages(self) -> dict[str, tuple[float, float]]:
        """Noise levels between which the median sample reaches, aligns and slides."""
        reached = float(np.median(self.reach_level))
        aligned = min(float(np.median(self.align_level)), reached)
        first, last = float(self.levels[0]), float(self.levels[-1])
        return {
            "reach": (first, max(reached, last)),
            "align": (max(reached, last), max(aligned, last)),
            "slide": (max(aligned, last), last),
        }

    @property
    def correlations(self) -> dict[str, float]:
        """Over the samples: of the final distance with the lengths of the two budgets."""
        return {
            "normal": _correlation(self.distance[-1], self.normal_budget),
            "tangential": _correlation(self.distance[-1], self.tangential_budget),
        }

    def __str__(self):
        lines = [f"{self.points.shape[1]} samples, ridge at level {self.level:.3g}"]
        for name, (high, low) in self.stages.items():
            lines.append(f"  {name}: sigma {high:.3g} to {low:.3g}")
        within = np.mean(self.distance[-1] <= self.tube)
        size = [np.sqrt(np.mean((b**2).sum(-1))) for b in self._budgets]
        found = self.correlations
        lines += [
            f"  distance at the end: median {np.nanmedian(self.distance[-1]):.3g}, "
            f"{within:.1%} within {self.tube:.3g}",
            f"  error budget, rms: normal {size[0]:.3g}, tangential {size[1]:.3g}; "
            f"of the solver {size[2]:.3g}",
            f"  correlation of the distance with the normal budget {found['normal']:.2f}, "
            f"with the tangential {found['tangential']:.2f}",
        ]
        return "\n".join(lines)

    @property
    def _budgets(self):
        return self.normal_budget, self.tangential_budget, self.solver_budget


def reach_align_slide(
    model: Any,
    reference: Any,
    sampler: Any = "euler",
    *,
    n_samples: int = 300,
    levels: Any = None,
    start: Any = None,
    kappa: float | None = None,
    hold: bool = True,
    errors: str = "all",
    random_state: Any = None,
    verbose: bool = False,
) -> ReachAlignSlide:
    r"""Follow samples of a model to a ridge of the data, and say what moved them.

    Parameters
    ----------
    model : score model, fitted score estimator, ...
        The model that generates: anything that
        :func:`~skdiffusion.as_score_model` takes.
    reference : RidgeProjector or array-like of shape (n_rows, n_features)
        The ridge, fitted: errors are measured from its own denoiser. For rows, the default
        :class:`~skdiffusion.RidgeProjector` is fitted to them.
    sampler : str or BaseSampler
        How samples are drawn; without a jump (``teleport=False``).
    n_samples : int
    levels : array-like, optional
        Falling positive levels. By default 100, from twenty times the spread of the rows to a
        fiftieth of the level of the ridge, in equal ratios.
    start : array-like of shape (n_samples, n_features), optional
        Points at the first level; by default rows with noise of that level.
    kappa : float, optional
        Exponent of the identity: 1 for the probability flow, 2 for the reverse diffusion. By
        default as the sampler is, deterministic or not. The identity is exact for any.
    hold : bool
        Whether the reference denoiser is held at the level of the ridge below it, as the laws of
        first order take it. Without, errors are those of training: from the denoiser of the rows
        at every level, which in the end sends every sample to a row; predictions then miss that.
    errors : {"all", "normal", "tangential", "none"}
        The part of the model's errors with which samples are drawn, and which the report then is
        about: by leaving one out, it is seen what that did. Compare runs from one ``start`` near
        the level of the ridge: far above it small changes decide where a sample goes.
    random_state : None, int, Generator or RandomState
        For the start and for stochastic samplers.
    verbose : bool

    Returns
    -------
    ReachAlignSlide

    Raises
    ------
    ValueError
        If the reference is not a Euclidean ridge, the noise of the model differs by column, levels
        do not fall, or the sampler goes through other levels.

    References
    ----------
    Y. He, Y. Qiu and M. Tao, arXiv:2602.06021, 2026.

    Examples
    --------
    >>> from skdiffusion.datasets import make_thirteen_points
    >>> from skdiffusion import RidgeProjector
    >>> from skdiffusion.inspection import reach_align_slide
    >>> X, law = make_thirteen_points()
    >>> ridge = RidgeProjector(bandwidth=0.3).fit(X)
    >>> found = reach_align_slide(law, ridge, n_samples=50, random_state=0)
    >>> found.identity_error < 1e-12
    True
    >>> bool((found.distance[-1] < found.tube).all())
    True
    """
    model = as_score_model(model)
    ridge = as_ridge(reference)
    if model.n_features != ridge.n_features_in_:
        raise ValueError(
            f"the model has {model.n_features} columns, the ridge {ridge.n_features_in_}."
        )
    if np.ndim(model.noise_scale):
        raise ValueError(
            "the noise of the model differs by column, and samples are seen beside a ridge of "
            "isotropic noise: a NeuralScore has that with scaling='global'."
        )
    sampler = check_sampler(sampler)
    levels = _as_levels(levels, ridge)
    if sampler.teleport is not False:
        raise ValueError("the sampler must go through all levels: teleport=False.")
    lookup(errors, dict.fromkeys(ERRORS), "errors")
    check_flag(hold, "hold")
    rng = as_generator(random_state)
    kappa = 1.0 + sampler.stochastic if kappa is None else check_number(kappa, "kappa", above=0)
    start = _start(start, n_samples, ridge, levels[0], rng)
    held = HeldModel(ridge.model_, ridge.bandwidth_) if hold else ridge.model_
    if errors != "all":
        model = PartOfErrors(model, held, ridge, errors)
    points = _run(sampler, model, start, levels, rng, verbose)
    return _Record(model, held, ridge, levels, points, kappa).report()


def as_ridge(reference: Any) -> RidgeProjector:
    """A fitted Euclidean ridge with directions along and across, of itself or of rows."""
    ridge = reference
    if not isinstance(reference, RidgeProjector):
        ridge = RidgeProjector().fit(reference)
    check_is_fitted(ridge)
    if ridge.metric != "euclidean":
        raise ValueError("reach_align_slide needs a ridge with metric='euclidean'.")
    if not 0 < ridge.n_components_ < ridge.n_features_in_:
        raise ValueError(
            "reach_align_slide needs a ridge with directions along and across: n_components from 1 "
            f"to {ridge.n_features_in_ - 1}; got {ridge.n_components_}."
        )
    return ridge


def _as_levels(levels, ridge):
    if levels is None:
        variances = ridge.training_points_.var(axis=0)
        return np.geomspace(noise_range(variances).sigma_max, ridge.bandwidth_ / BELOW, STEPS)
    said = "levels must be at least two noise levels, falling"
    return check_levels(levels, said, minimum=2, slope=-1)


def _start(start, n_samples, ridge, sigma, rng):
    if start is None:
        rows = ridge.training_points_
        drawn = rows[rng.integers(len(rows), size=check_count(n_samples, "n_samples", 2))]
        return drawn + sigma * rng.standard_normal(drawn.shape)
    return check_points(start, ridge.n_features_in_, name="start", ensure_min_samples=2)


def _run(sampler, model, start, levels, rng, verbose):
    """Points at all levels, ``(K + 1, n, D)``; the sampler must not have levels of its own."""
    seen, path = [], [start]

    def watch(_, level, x):
        seen.append(level)
        path.append(np.array(x))

    run_sampler(
        sampler, model, start, levels, random_state=rng, chunk_size=len(start), callback=watch,
        verbose=verbose,
    )  # fmt: skip
    same = len(seen) == len(levels) - 1 and all(np.ndim(level) == 0 for level in seen)
    if not same or not np.allclose(seen, levels[1:], rtol=1e-12, atol=0):
        raise ValueError(
            f"{type(sampler).__name__} goes through levels of its own, not through those asked for."
        )
    return np.stack(path)


class _Record:
    """The walk through the levels that fills a report."""

    def __init__(self, model, reference, ridge, levels, points, kappa):
        self.model, self.reference, self.ridge = model, reference, ridge
        self.levels, self.points = levels, points
        self.k, self.level = ridge.n_components_, ridge.bandwidth_
        self.rho = (levels[1:] / levels[:-1]) ** kappa
        last = levels[-1] ** kappa
        self.weights = last * (levels[1:] ** -kappa - levels[:-1] ** -kappa)
        self.start_weight = float(last / levels[0] ** kappa)
        self.tube = self.level * np.sqrt(points.shape[2] - self.k)

    def report(self) -> ReachAlignSlide:
        """Everything, level by level."""
        shape = self.points.shape
        n_levels, n, _ = shape
        projections, distance = np.empty(shape), np.empty((n_levels, n))
        along = np.zeros((n_levels, n, self.k))
        parts = {name: _Part(shape, self.k) for name in ("reference", "error", "solver")}
        normal_error, tangential_error = np.empty((2, n_levels - 1, n))
        offset, place = np.zeros(shape[1:]), None
        for i, sigma in enumerate(self.levels):
            before = place
            place = RidgePlace(self.ridge, self.points[i], max(sigma, self.level), before)
            projections[i], distance[i] = place.points, place.distance
            offset = place.normal(offset)
            if before is not None:
                moved = np.where(before.defined[:, None], place.points - before.points, 0.0)
                along[i] = along[i - 1] + place.tangential(moved)
            if i == n_levels - 1:
                break
            y, rho = self.points[i], self.rho[i]
            known = self.reference.denoise(y, sigma)
            error = self.model.denoise(y, sigma) - known
            added = (self.points[i + 1] - rho * y) / (1 - rho) - known - error
            parts["reference"].add(
                i, self.weights[i], known, 1 - rho, place.tangential(place.drift())
            )
            parts["error"].add(i, self.weights[i], error, 1 - rho, place.tangential(error))
            parts["solver"].add(i, self.weights[i], added, 1 - rho, place.tangential(added))
            across = place.normal(error)
            normal_error[i] = np.linalg.norm(across, axis=1)
            tangential_error[i] = np.linalg.norm(place.tangential(error), axis=1)
            offset = rho * offset + (1 - rho) * (place.pulled(offset) + across)
        reached = _reached(distance, self.tube)
        total = self.start_weight * self.points[0] + sum(part.total for part in parts.values())
        return ReachAlignSlide(
            levels=self.levels,
            level=float(self.level),
            tube=float(self.tube),
            points=self.points,
            projections=projections,
            distance=distance,
            along=along - along[reached, np.arange(n)],
            normal_error=normal_error,
            tangential_error=tangential_error,
            weights=self.weights,
            start_weight=self.start_weight,
            normal_budget=place.normal(parts["error"].total),
            tangential_budget=place.tangential(parts["error"].total),
            solver_budget=parts["solver"].total,
            identity_error=float(np.abs(total - self.points[-1]).max()),
            predicted_offset=offset,
            slide_of_reference=parts["reference"].slide_since(reached),
            slide_of_error=parts["error"].slide_since(reached),
            slide_of_solver=parts["solver"].slide_since(reached),
            reach_level=np.append(self.levels, 0.0)[
                np.where((distance <= self.tube).any(axis=0), reached, n_levels)
            ],
            align_level=self.levels[_settled(distance, SETTLED * self.tube)],
        )


class _Part:
    """One of the terms of a step, summed over the run."""

    def __init__(self, shape, k):
        self.total = np.zeros(shape[1:])
        self.path = np.zeros((shape[0], shape[1], k))

    def add(self, i, weight, vector, share, tangential):
        """Its vector at step ``i``, and how that moves along the ridge."""
        self.total += weight * vector
        self.path[i + 1] = self.path[i] + share * tangential

    def slide_since(self, index):
        """Motion along the ridge since the level of an index per sample."""
        return self.path[-1] - self.path[index, np.arange(self.path.shape[1])]


def _reached(distance, tube):
    """Index of the level from which each sample stays in the tube, or first was; else the last."""
    inside = distance <= tube
    first = np.where(inside.any(axis=0), inside.argmax(axis=0), len(inside) - 1)
    outside = len(inside) - inside[::-1].argmin(axis=0)
    stays = np.where(inside.all(axis=0), 0, outside)
    return np.where(inside[-1], stays, first)


def _settled(distance, slack):
    """Index of the level from which on each distance stays near that at the end."""
    near = np.abs(distance - distance[-1]) <= slack
    outside = len(near) - near[::-1].argmin(axis=0)
    return np.minimum(np.where(near.all(axis=0), 0, outside), len(near) - 1)


def _correlation(distance, budget):
    length = np.linalg.norm(budget, axis=1)
    known = np.isfinite(distance)
    if known.sum() < 2 or not np.ptp(distance[known]) or not np.ptp(length[known]):
        return float("nan")
    return float(np.corrcoef(distance[known], length[known])[0, 1])
