r"""Ways in which a score can fail to be a gradient, side by side: they are not the same thing.

With :math:`J = \partial s/\partial x`, S its symmetric and A its antisymmetric part:

- *asymmetry* :math:`\tfrac14 E|J - J^\top|^2 / E|J|^2 = |A|^2/(|S|^2 + |A|^2) \in [0, 1]`, blind to
  the law: :math:`v = (x_2, 0)` has 1/2 under every law, but a gauge fraction of 0.2, 0.5 or 0.8
  under N(0, diag(1, 4)), N(0, I), N(0, diag(4, 1));
- *gauge fraction*, one less the conservative fraction of ``ConservativityDecomposer``: the only one
  that says how much of the score moves nothing;
- *turn per step* :math:`z = h\,|A|_2` of the flow in :math:`\log\sigma`: what a coarse solver pays.
  Covariances grow by :math:`1 + z^2` per step under Euler's rule, :math:`1 + z^4/4` under Heun's;
- *loop integrals* :math:`\oint s\cdot dl`, zero for gradients;
- *residual of the heat equation* :math:`\partial_\sigma s = \sigma\nabla(\nabla\cdot s + |s|^2)`,
  the score Fokker-Planck equation of Lai et al. (2023) at noise levels: zero for exact scores
  alone, so that a gauge counts as an error.

Where the true score is known, the *strong gauge residual*
:math:`\nabla\cdot r + \langle r, s\rangle` of :math:`r = \hat s - s` is the rate at which density
would flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skdiffusion.models import as_score_model, divergence, jacobian, jvp, vjp
from skdiffusion.models.jacobian import EXACT_TRACE_UP_TO
from skdiffusion.models.wrapper import check_same_space
from skdiffusion.utils.random import as_generator, rademacher_like
from skdiffusion.utils.rows import check_points
from skdiffusion.utils.validation import check_count, check_number

__all__ = [
    "ConservativityReport",
    "Estimate",
    "StepInflation",
    "conservativity_report",
    "jacobian_asymmetry",
    "loop_integrals",
    "score_fpe_residual",
    "step_inflation",
    "strong_gauge_residual",
]

STEP = 1e-3
"""Of differences, in units of the noise."""


class Estimate(NamedTuple):
    """A mean over rows, and its standard error over rows and probes."""

    value: float
    std_error: float


class StepInflation(NamedTuple):
    """Turn of a step in radians, and the factors by which solvers inflate a covariance in it."""

    turn: np.ndarray
    euler: np.ndarray
    heun: np.ndarray


def jacobian_asymmetry(
    model: Any,
    X: Any,
    sigma: float,
    *,
    method: str = "auto",
    n_probes: int = 16,
    random_state: Any = 0,
) -> Estimate:
    r"""Share of the score's Jacobian that is antisymmetric: 0 for gradients, 1 for rotations.

    Parameters
    ----------
    model : score model, fitted estimator
        Anything :func:`~skdiffusion.as_score_model` takes.
    X : array-like of shape (n_samples, n_features)
        Points at noise level ``sigma``.
    sigma : float
    method : {"auto", "exact", "hutchinson"}
        Whole Jacobians, or :math:`E|Ju|^2` and :math:`E\langle Ju, J^\top u\rangle` over random
        signs ``u``; ``"auto"`` is exact up to 128 columns.
    n_probes : int
        Of Hutchinson's method, per row.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    Estimate
        Ratio of means over rows, and its standard error over rows and probes. The ratio of norms
        :math:`|J - J^\top|/|J|` is twice its square root. Where the noise differs by column,
        in coordinates where it does not.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.geometry import jacobian_asymmetry
    >>> from skdiffusion.models import AdditiveGauge, GaussianModel
    >>> law = GaussianModel(np.zeros(2), 1.0)
    >>> turned = AdditiveGauge(law, [[0.0, -1.0], [1.0, 0.0]])
    >>> jacobian_asymmetry(turned, np.zeros((1, 2)), 1.0).value  # as much turn as pull
    0.5
    """
    model, X = _asked(model, X)
    if method not in ("auto", "exact", "hutchinson"):
        raise ValueError(f"method must be 'auto', 'exact' or 'hutchinson'; got {method!r}.")
    scale = np.broadcast_to(model.noise_scale, X.shape[1])
    if method == "exact" or (method == "auto" and X.shape[1] <= EXACT_TRACE_UP_TO):
        matrices = scale[:, None] * jacobian(model, X, sigma) * scale
        whole = (matrices**2).sum(axis=(1, 2))
        mixed = np.einsum("nij,nji->n", matrices, matrices)
    else:
        seed = int(as_generator(random_state).integers(2**62))
        whole, mixed = 0.0, 0.0
        for u in rademacher_like(X, check_count(n_probes, "n_probes"), seed):
            forward, backward = (scale * f(model, X, sigma, scale * u) for f in (jvp, vjp))
            # both products serve both means
            whole = whole + ((forward**2).sum(axis=1) + (backward**2).sum(axis=1)) / 2
            mixed = mixed + (forward * backward).sum(axis=1)
    return _ratio((whole - mixed) / 2, whole)


def step_inflation(model: Any, X: Any, sigma: float, step: float) -> StepInflation:
    r"""What a solver of the probability flow pays for turns, at each row.

    Parameters
    ----------
    model, X, sigma
        As in :func:`jacobian_asymmetry`.
    step : float
        Size of a step in :math:`\log\sigma`.

    Returns
    -------
    StepInflation
        ``turn``, the angle :math:`h|A|_2` of the velocity :math:`dx/d\log\sigma = -\sigma^2 s` in
        coordinates of isotropic noise, and the factors ``euler`` :math:`1 + z^2` and ``heun``
        :math:`1 + z^4/4`, ``(n,)`` each. The implicit midpoint rule has one.
    """
    model, X = _asked(model, X)
    sigma, step = check_number(sigma, "sigma", least=0), check_number(step, "step", above=0)
    # in coordinates where the noise is isotropic: there gradients do not turn
    scale = np.broadcast_to(sigma * np.asarray(model.noise_scale), X.shape[1])
    field = scale[:, None] * jacobian(model, X, sigma) * scale
    skew = (field - np.swapaxes(field, 1, 2)) / 2
    turn = step * np.linalg.norm(skew, ord=2, axis=(1, 2))
    return StepInflation(turn, 1 + turn**2, 1 + turn**4 / 4)


def loop_integrals(
    model: Any,
    X: Any,
    sigma: float,
    *,
    radius: float,
    n_nodes: int = 32,
    random_state: Any = 0,
) -> np.ndarray:
    r"""Integrals :math:`\oint s\cdot dl` over a circle around each row, in a random plane.

    Parameters
    ----------
    model, X, sigma
        As in :func:`jacobian_asymmetry`.
    radius : float
        Of the circles, in the units of X; where the noise differs by column, in coordinates where
        it does not.
    n_nodes : int
        Of the trapezoidal rule, whose error falls exponentially on a circle.
    random_state : None, int, Generator or RandomState
        Of the planes.

    Returns
    -------
    ndarray of shape (n_samples,)
        Zero where the score is a gradient. Dimensionless.
    """
    model, X = _asked(model, X)
    radius = check_number(radius, "radius", above=0)
    n_nodes = check_count(n_nodes, "n_nodes", 3)
    n, d = X.shape
    if d < 2:
        return np.zeros(n)
    planes = as_generator(random_state).standard_normal((n, d, 2))
    planes = np.linalg.qr(planes)[0]
    scale, total = np.asarray(model.noise_scale), np.zeros(n)
    for angle in 2 * np.pi * np.arange(n_nodes) / n_nodes:
        out, along = (
            np.array([np.cos(angle), np.sin(angle)]),
            np.array([-np.sin(angle), np.cos(angle)]),
        )
        score = scale * model.score(X + scale * radius * (planes @ out), sigma)
        total += (score * (planes @ along)).sum(axis=1)
    return total * 2 * np.pi * radius / n_nodes


def strong_gauge_residual(model: Any, truth: Any, X: Any, sigma: float) -> np.ndarray:
    r"""Rate :math:`\nabla\cdot r + \langle r, s\rangle` of the density by a score's error, per row.

    Parameters
    ----------
    model : as in :func:`jacobian_asymmetry`
    truth : BaseScoreModel
        With the exact score ``s``; the error is ``r = model - s``.
    X, sigma
        As in :func:`jacobian_asymmetry`.

    Returns
    -------
    ndarray of shape (n_samples,)
        Zero everywhere if and only if the error is a gauge field. Where the noise differs by
        column, that of :math:`n_j^2 r_j`, which is what moves points.
    """
    model, X = _asked(model, X)
    truth = as_score_model(truth)
    check_same_space([model, truth])
    score = truth.score(X, sigma)
    error = model.score(X, sigma) - score
    growth = (np.asarray(truth.noise_scale) ** 2 * error * score).sum(axis=1)
    return _divergence(model, X, sigma) - _divergence(truth, X, sigma) + growth


def score_fpe_residual(model: Any, X: Any, sigma: float) -> np.ndarray:
    r"""Residual of :math:`\partial_\sigma s = \sigma\nabla(\nabla\cdot s + |s|^2)` at each row.

    Derivatives by level and position are central differences of scores and exact divergences, with
    steps of a thousandth of the noise.

    Parameters
    ----------
    model, X, sigma
        As in :func:`jacobian_asymmetry`.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        In units of the score over those of the level; zero for the score of any noised law. Where
        the noise differs by column, of the equation with
        :math:`\sum_j n_j^2 (\partial_j s_j + s_j^2)`.

    References
    ----------
    C.-H. Lai et al., "FP-Diffusion: Improving Score-based Diffusion Models by Enforcing the
    Underlying Score Fokker-Planck Equation", ICML 2023.
    """
    model, X = _asked(model, X)
    sigma = check_number(sigma, "sigma", above=0)
    scale = np.broadcast_to(model.noise_scale, X.shape[1])

    def energy(x):
        squares = (scale * model.score(x, sigma)) ** 2
        return _divergence(model, x, sigma) + squares.sum(axis=1)

    steps = STEP * sigma * np.diag(scale)
    gradient = np.stack([energy(X + step) - energy(X - step) for step in steps], axis=1)
    return _by_level(model, X, sigma) - sigma * gradient / (2 * steps.diagonal())


@dataclass(frozen=True)
class ConservativityReport:
    r"""The diagnostics of one score at one noise level.

    Attributes
    ----------
    sigma : float
    asymmetry : Estimate
        Share of the Jacobian that is antisymmetric.
    gauge_fraction : Estimate
        One less the conservative fraction, out of fold.
    turn : float
        Median turn, in radians, of a step of one in the logarithm of the level.
    loop : float
        Root mean square of loop integrals on circles of half the level in radius.
    fpe : float
        Root mean square residual of the heat equation, as a share of :math:`|\partial_\sigma s|`.
    """

    sigma: float
    asymmetry: Estimate
    gauge_fraction: Estimate
    turn: float
    loop: float
    fpe: float

    def __str__(self):
        return (
            f"at noise level {self.sigma:.3g}\n"
            f"  asymmetry of the Jacobian  {self.asymmetry.value:.2%} "
            f"± {self.asymmetry.std_error:.2%}\n"
            f"  gauge fraction             {self.gauge_fraction.value:.2%} "
            f"± {self.gauge_fraction.std_error:.2%}\n"
            f"  turn per unit log level    {self.turn:.3g} rad\n"
            f"  loop integrals             {self.loop:.3g}\n"
            f"  heat equation off by       {self.fpe:.2%}"
        )


def conservativity_report(
    model: Any, X: Any, sigma: float, *, max_rows: int = 200, random_state: Any = 0
) -> ConservativityReport:
    """All diagnostics of a score at one noise level.

    Parameters
    ----------
    model : score model, fitted estimator
    X : array-like of shape (n_samples, n_features)
        Clean rows; noise is added here.
    sigma : float
        Noise level.
    max_rows : int
        All but the gauge fraction look at this many rows.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    ConservativityReport

    Examples
    --------
    >>> from skdiffusion.datasets import make_gaussian
    >>> from skdiffusion.geometry import conservativity_report
    >>> from skdiffusion.models import AdditiveGauge
    >>> X, law = make_gaussian(1000, 2, covariance=1.0, random_state=0)
    >>> print(conservativity_report(AdditiveGauge(law, [[0.0, -1.0], [1.0, 0.0]]), X, 1.0))
    at noise level 1
      asymmetry of the Jacobian  50.00% ± 0.00%
      gauge fraction             50.03% ± 0.11%
      turn per unit log level    0.5 rad
      loop integrals             0.785
      heat equation off by       100.00%
    """
    from skdiffusion.geometry.conservativity import ConservativityDecomposer

    model, X = _asked(model, X)
    sigma = check_number(sigma, "sigma", above=0)
    rng = as_generator(random_state)
    split = ConservativityDecomposer(
        score_estimator=model, sigma=sigma, random_state=int(rng.integers(2**31))
    ).fit(X)
    fraction = split.conservative_fraction_
    rows = X[np.sort(rng.permutation(len(X))[: check_count(max_rows, "max_rows")])]
    scale = np.asarray(model.noise_scale)
    rows = rows + sigma * scale * rng.standard_normal(rows.shape)
    by_level = scale * _by_level(model, rows, sigma)
    residual = scale * score_fpe_residual(model, rows, sigma)
    loops = loop_integrals(model, rows, sigma, radius=sigma / 2, random_state=rng)
    return ConservativityReport(
        sigma,
        jacobian_asymmetry(model, rows, sigma, random_state=rng),
        Estimate(1 - fraction, split.conservative_fraction_std_error_),
        float(np.median(step_inflation(model, rows, sigma, 1.0).turn)),
        float(np.sqrt((loops**2).mean())),
        float(np.sqrt((residual**2).sum() / (by_level**2).sum())),
    )


def _by_level(model, X, sigma):
    """Derivative of the score by the level."""
    h = STEP * sigma
    return (model.score(X, sigma + h) - model.score(X, sigma - h)) / (2 * h)


def _divergence(model, X, sigma):
    """Divergence of the score in coordinates where the noise is isotropic."""
    if not np.ndim(model.noise_scale):
        return divergence(model, X, sigma, method="exact")
    slopes = np.diagonal(jacobian(model, X, sigma), axis1=1, axis2=2)
    return slopes @ model.noise_scale**2


def _asked(model, X):
    model = as_score_model(model)
    return model, check_points(X, model.n_features)


def _ratio(above, below):
    """Ratio of means over rows, with the standard error of a ratio."""
    mean = below.mean()
    if mean == 0:
        return Estimate(0.0, 0.0)
    ratio = above.mean() / mean
    spread = (above - ratio * below).std(ddof=1) if len(below) > 1 else 0.0
    return Estimate(float(ratio), float(spread / mean / np.sqrt(len(below))))
