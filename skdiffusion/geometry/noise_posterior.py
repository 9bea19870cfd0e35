r"""How much noise is in a point: the posterior over noise levels, by quadrature.

With :math:`\ell = \log(b/a)` the logarithm of the noise level and :math:`p(\ell)` its prior,

.. math:: p(u) = \int p(u \mid \ell)\, p(\ell)\, d\ell, \qquad
          q(\ell \mid u) = p(u \mid \ell)\, p(\ell) / p(u).

Around a manifold of codimension :math:`k` the posterior is as narrow as :math:`1/\sqrt{2k}`, so no
fixed grid will do. Each row begins on one that all share. As long as its sum over every other node
differs from the sum over all of them, the row gets nodes of its own on the part of the axis where
its mass lies. Nodes follow :math:`\ell = l + w\,(\theta - \sin 2\pi\theta / 2\pi)` with even
:math:`\theta`: a trapezoidal sum that converges fast whether the density ends abruptly or fades.
All masses are logarithms: in a thousand dimensions densities are beyond any floating range.
A model that does not know its density has it integrated (``skdiffusion.geometry._level_density``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.utils import gen_batches

from skdiffusion.estimators.noise_level import log_nearness
from skdiffusion.geometry._level_density import LevelDensity
from skdiffusion.geometry.noise_prior import NoisePrior, path_coefficients
from skdiffusion.noising import FAR
from skdiffusion.schedules import NoiseSchedule
from skdiffusion.utils.memory import rows_in_memory

__all__ = ["NoisePath", "NoisePosterior"]

GOAL = 1e-6
"""Difference of the sums over all and half of the nodes; the error of all is much smaller."""
NEGLIGIBLE = 40.0
"""Nodes whose mass is this many nats below the highest are left out of a new window."""
NARROWER = 0.5
"""Where windows do not become narrower than this share of the last, there are twice the nodes."""
MOST_NODES = 16
"""Nodes that a row may have, in units of those it begins with."""
AT_THE_END = 2.0
"""Nats from the end of an unbounded support within which a posterior has no level of its own."""
STILL_THERE = 1e-6
"""Share of an integrand's highest value at which it does not fade at the end of the axis."""
LEAST_WEIGHT = 1e-17
"""Nodes of less weight do not count in an average."""
FEW_ROWS = 50
"""Rows up to which a model is quicker asked for all nodes at once than for one after the other."""


@dataclass(frozen=True)
class NoisePosterior:
    """Posterior over the noise levels of points.

    Attributes
    ----------
    log_levels : ndarray of shape (n, n_nodes)
        Natural logarithms of the noise level ``b/a`` at the nodes, increasing.
    alpha, sigma : ndarray of shape (n, n_nodes)
        Coefficients of the path there.
    weights : ndarray of shape (n, n_nodes)
        Probability of each node; rows sum to one.
    log_density_at_nodes : ndarray of shape (n, n_nodes)
        Logarithm of the posterior density over the logarithm of the level.
    log_evidence : ndarray of shape (n,)
        Log-density of each point, whatever its noise.
    error : ndarray of shape (n,)
        Bound on the error of ``log_evidence``: what half of the nodes give otherwise, and the
        rounding of the densities.
    """

    log_levels: np.ndarray
    alpha: np.ndarray = field(repr=False)
    sigma: np.ndarray = field(repr=False)
    rates: tuple = field(repr=False)
    times: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    log_density_at_nodes: np.ndarray = field(repr=False)
    log_evidence: np.ndarray = field(repr=False)
    error: np.ndarray = field(repr=False)

    def mean(self, of: Any = "log_level") -> np.ndarray:
        """Posterior mean of each row.

        Parameters
        ----------
        of : {"log_level", "level", "sigma", "alpha", "time"} or ndarray of shape (n, n_nodes)
            Which quantity, or its values at the nodes.
        """
        return (self.weights * self._values(of)).sum(axis=1)

    def std(self, of: Any = "log_level") -> np.ndarray:
        """Posterior standard deviation of each row; ``of`` as in :meth:`mean`."""
        values = self._values(of)
        mean = (self.weights * values).sum(axis=1, keepdims=True)
        return np.sqrt((self.weights * (values - mean) ** 2).sum(axis=1))

    def quantile(self, q: Any) -> np.ndarray:
        """Quantiles of the noise level.

        Parameters
        ----------
        q : float or array-like of shape (k,)

        Returns
        -------
        ndarray of shape (n,) or (n, k)
        """
        # masses sit on nodes: the distribution function passes each in the middle of its jump
        total = np.cumsum(self.weights, axis=1) - self.weights / 2
        wanted = np.atleast_1d(np.asarray(q, dtype=float))
        if not ((wanted > 0) & (wanted < 1)).all():
            raise ValueError(f"q must lie between 0 and 1; got {q!r}.")
        found = np.stack(
            [np.interp(wanted, row, logs) for row, logs in zip(total, self.log_levels, strict=True)]
        ).reshape(len(total), -1)
        return np.exp(found if np.ndim(q) else found[:, 0])

    def _values(self, of):
        if not isinstance(of, str):
            return of
        if of == "log_level":
            return self.log_levels
        if of == "level":
            return np.exp(self.log_levels)
        if of in ("sigma", "alpha"):
            return getattr(self, of)
        if of == "time":
            return self.times
        raise ValueError(
            "of must be 'log_level', 'level', 'sigma', 'alpha', 'time' or values at the nodes; "
            f"got {of!r}."
        )


class NoisePath:
    """A score model on the path of a schedule, with a prior over its noise levels.

    Parameters
    ----------
    model : BaseScoreModel
    schedule : NoiseSchedule
    prior : NoisePrior
    n_nodes : int
        Nodes of the quadrature, even.
    rescaled : bool
        Whether points are ``u = a x_0 + b eps``, or divided by ``a``: ``x = x_0 + (b/a) eps``.
    far_field : GaussianModel, optional
        What the law tends to at high levels; for models without exact ``log_prob``.
    """

    def __init__(
        self,
        model: Any,
        schedule: NoiseSchedule,
        prior: NoisePrior,
        n_nodes: int = 256,
        rescaled: bool = False,
        far_field: Any = None,
    ):
        self.model = model
        self.schedule = schedule
        self.prior = prior
        self.n_nodes = n_nodes
        self.rescaled = rescaled
        self.far_field = far_field
        self.support = self._clipped(prior.support(schedule))

    def _clipped(self, support):
        """The support, within the levels at which the model may be asked."""
        low, high = (np.log(max(level, 1e-300)) for level in self.model.sigma_range)
        if low >= support.high or high <= support.low:
            raise ValueError(
                f"the prior has levels from {np.exp(support.low):g} to {np.exp(support.high):g}, "
                f"but the model is defined from {np.exp(low):g} to {np.exp(high):g}."
            )
        return support._replace(
            low=max(low, support.low),
            high=min(high, support.high),
            open_below=support.open_below and low <= support.low,
            open_above=support.open_above and high >= support.high,
        )

    # ------------------------------------------------------------------ posterior

    def posterior(self, u: np.ndarray, near: np.ndarray | None = None) -> NoisePosterior:
        """Posterior over the noise levels of points.

        Parameters
        ----------
        u : ndarray of shape (n, d)
        near : ndarray of shape (n,), optional
            Levels that the points have within a factor of e or so: the prior of each is
            multiplied by how near a level is, and the evidence is not normalised.

        Returns
        -------
        NoisePosterior
        """
        n, m = len(u), self.n_nodes
        low, high = np.full(n, self.support.low), np.full(n, self.support.high)
        nodes, mass, density = (np.empty((n, m - 1)) for _ in range(3))
        error, peak, evidence = np.empty(n), np.empty(n), np.empty(n)
        active, given_level = np.arange(n), self._given_level(u)
        while True:
            start, width = low[active], high[active] - low[active]
            shape, log_step = _rule(m)
            # one row of nodes serves all points as long as all share it
            rows = slice(1) if not (np.ptp(start) or np.ptp(width)) else slice(None)
            grid = (start[:, None] + width[:, None] * shape)[rows]
            joint = given_level(active, grid) + self.prior.log_density(grid, self.schedule)
            if near is not None:
                joint = joint + log_nearness(grid, near[active, None])
            # far away densities are as small as e^-1e18: what nodes weigh counts from the highest
            peak[active] = joint.max(axis=1)
            joint = joint - peak[active, None]
            terms = joint + log_step + np.log(width)[:, None]
            nodes[active], density[active], mass[active] = grid, joint, terms
            evidence[active] = logsumexp(terms, axis=1)
            half = logsumexp(terms[:, 1::2], axis=1) + np.log(2)
            error[active] = np.abs(half - evidence[active])
            # no more nodes help where the densities themselves are rounded by more
            rough = error[active] > np.maximum(GOAL, 4 * np.spacing(np.abs(peak[active])))
            active = active[rough]
            if not len(active) or m >= MOST_NODES * self.n_nodes:
                break
            low[active], high[active] = _windows(
                nodes[active], mass[active], low[active], high[active]
            )
            if ((high - low)[active] > NARROWER * width[rough]).any():
                m *= 2
                nodes = _padded(nodes, m - 1, nodes[:, -1:])
                density, mass = (_padded(table, m - 1, -np.inf) for table in (density, mass))
        alpha, sigma, rates = path_coefficients(self.schedule, nodes)
        found = NoisePosterior(
            nodes,
            alpha,
            sigma,
            rates,
            np.asarray(self.schedule.time_of(np.exp(nodes))),
            np.exp(mass - evidence[:, None]),
            density - evidence[:, None],
            peak + evidence,
            np.maximum(error, np.spacing(np.abs(peak))),
        )
        self._refuse_the_data(u, found)
        return found

    def _given_level(self, u):
        """Log-densities of points at levels, as a function of their index and of log-levels."""
        if self.model.has_log_prob:
            return lambda index, nodes: self._log_density(u[index], nodes)
        ends = self.support.low, max(self.support.high, self._far_level())
        return LevelDensity(self.model, self.schedule, ends, self.far_field, u, self.rescaled)

    def _far_level(self):
        """Logarithm of the highest level at which the model may be asked, or is Gaussian."""
        variance = float(self.far_field.covariance.variances.sum())
        return np.log(min(self.model.sigma_range[1], FAR * max(variance, 1e-300) ** 0.5))

    def _log_density(self, u, nodes):
        """Log-densities by the model's own; one row of ``nodes`` serves all points."""
        alpha, _, _ = path_coefficients(self.schedule, nodes)
        levels = np.exp(nodes)
        if self.rescaled:
            alpha = np.ones_like(alpha)
        found = np.empty((len(u), nodes.shape[1]))
        if len(nodes) == 1 and len(u) > FEW_ROWS:
            for k in range(nodes.shape[1]):
                found[:, k] = self.model.log_prob(u / alpha[0, k], float(levels[0, k]))
        else:
            alpha, levels = (np.broadcast_to(one, found.shape) for one in (alpha, levels))
            for rows in _blocks(len(u), nodes.shape[1] * u.shape[1]):
                x = (u[rows, None] / alpha[rows, :, None]).reshape(-1, u.shape[1])
                value = self.model.log_prob(x, levels[rows].ravel())
                found[rows] = value.reshape(-1, nodes.shape[1])
        return found - u.shape[1] * np.log(alpha)

    def _refuse_the_data(self, u, found):
        rows = np.flatnonzero(found.mean("log_level") < self.support.low + AT_THE_END)
        if self.support.open_below and len(rows) and self.model.has_log_prob:
            rows = rows[self._grows_without_bound(u[rows])]
        if self.support.open_below and len(rows):
            raise ValueError(
                f"row {rows[0]} lies on the data, where the marginal energy is minus infinity "
                "under a prior that reaches noise level zero; give the prior a lowest level, "
                "such as UniformPrior(t_min=0.001)."
            )

    def _grows_without_bound(self, u):
        """Whether the density of rows goes on growing as the level falls.

        By one nat an e-fold at least on data without density; of a law with density, rows that
        are far away may have a level at the end of the axis too.
        """
        levels = np.exp(self.support.low + AT_THE_END + np.array([2.0, 4.0]))
        quiet, louder = (self.model.log_prob(u, level) for level in levels)
        return quiet - louder > 1 + 64 * np.spacing(np.abs(louder))

    def dominated_by_ends(self, found: NoisePosterior, factor: np.ndarray) -> np.ndarray:
        """Whether the mean of a factor does not converge where an unbounded support is cut.

        Parameters
        ----------
        found : NoisePosterior
        factor : ndarray of shape (n, n_nodes)
            Values at the nodes, not negative.

        Returns
        -------
        ndarray of bool of shape (n,)
        """
        with np.errstate(divide="ignore"):
            size = found.log_density_at_nodes + np.log(factor)
        least = size.max(axis=1) + np.log(STILL_THERE)
        low = found.log_levels < self.support.low + 1
        high = found.log_levels > self.support.high - 1
        near = (low & self.support.open_below) | (high & self.support.open_above)
        return (near & (size > least[:, None])).any(axis=1)

    # ------------------------------------------------------------------ expectations

    def average(self, u: np.ndarray, found: NoisePosterior, data: Any, noise: Any) -> np.ndarray:
        """Posterior mean of ``data * E[x_0 | u, t] + noise * E[eps | u, t]``.

        Parameters
        ----------
        u : ndarray of shape (n, d)
        found : NoisePosterior
        data, noise : ndarray of shape (n, n_nodes)
            Coefficients at the nodes.

        Returns
        -------
        ndarray of shape (n, d)
        """
        total = np.zeros_like(u)
        factors = np.maximum(np.maximum(np.abs(data), np.abs(noise)), 1.0)
        for rows in _blocks(len(u), found.weights.shape[1] * u.shape[1]):
            weights = found.weights[rows]
            row, node = np.nonzero(weights * factors[rows] > LEAST_WEIGHT)
            alpha = np.ones(len(row)) if self.rescaled else found.alpha[rows][row, node]
            x = u[rows][row] / alpha[:, None]
            level = np.exp(found.log_levels[rows][row, node])
            c = (weights * data[rows])[row, node][:, None]
            d = (weights * noise[rows])[row, node][:, None]
            part = np.zeros_like(x)
            if c.any():
                part += c * self.model.denoise(x, level)
            if d.any():
                part += d * self.model.predict_noise(x, level)
            # rows come in order
            starts = np.flatnonzero(np.r_[True, np.diff(row) > 0])
            total[rows][row[starts]] = np.add.reduceat(part, starts)
        return total


def _windows(nodes, mass, low, high):
    """The part of the axis where the mass of each row lies, with a node to spare."""
    heavy = mass > mass.max(axis=1, keepdims=True) - NEGLIGIBLE
    edges = np.column_stack([low, nodes, high])
    first = heavy.argmax(axis=1)
    last = heavy.shape[1] - heavy[:, ::-1].argmax(axis=1) + 1
    rows = np.arange(len(nodes))
    return edges[rows, first], edges[rows, last]


def _rule(m):
    """Places in the unit interval of ``m - 1`` nodes, and logarithms of their weights."""
    theta = np.arange(1, m) / m
    shape = theta - np.sin(2 * np.pi * theta) / (2 * np.pi)
    return shape, np.log1p(-np.cos(2 * np.pi * theta)) - np.log(m)


def _padded(table, width, value):
    """A table with columns of no weight added."""
    more = np.broadcast_to(value, (len(table), width - table.shape[1]))
    return np.hstack([table, more])


def _blocks(n, numbers_per_row):
    """Slices of rows whose nodes fit the working memory."""
    return gen_batches(n, rows_in_memory(8 * numbers_per_row))
