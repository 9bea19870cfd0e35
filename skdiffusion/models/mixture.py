r"""The Gaussian mixture score model: closed forms at every noise level.

For :math:`p_0 = \sum_k w_k N(\mu_k, C_k)` the noised law only widens each component,
:math:`p_\sigma = \sum_k w_k N(\mu_k, C_k + \sigma^2 I)`. With the responsibilities and the
components' own scores

.. math::
    \gamma_k(x) \propto w_k N(x; \mu_k, C_k + \sigma^2 I), \qquad
    a_k = -(C_k + \sigma^2)^{-1} (x - \mu_k), \qquad s = \sum_k \gamma_k a_k,

(Wang & Vastola 2024, table of models) :math:`s` is the score and

.. math::
    D = \sum_k \gamma_k \Big[\mu_k + \tfrac{C_k}{C_k+\sigma^2}(x-\mu_k)\Big], \qquad
    \nabla^2 \log p_\sigma = \sum_k \gamma_k \big[(a_k - s)(a_k - s)^\top
    - (C_k+\sigma^2)^{-1}\big].

One eigendecomposition per component serves all levels. Weights are softmaxes of
log-densities, so a query may lie anywhere; points and centres are taken relative to the
mixture's mean, so that an offset of the data costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skdiffusion.models.base import BaseScoreModel
from skdiffusion.models.component_matrices import Precision, Shrinkage, Vectors
from skdiffusion.models.components import squared_norms, stack_components
from skdiffusion.models.conditional import (
    conditional_gaussian,
    marginal_covariance,
    total_covariance,
)
from skdiffusion.models.covariance import SpectralCovariance
from skdiffusion.models.gaussian import GaussianModel
from skdiffusion.models.log_weights import log_sum_exp, softmax
from skdiffusion.utils.arrays import (
    Parameters,
    host_views,
    is_torch,
    like,
    namespace,
    to_numpy,
)
from skdiffusion.utils.blocks import by_blocks
from skdiffusion.utils.memory import rows_in_cache, rows_in_memory
from skdiffusion.utils.validation import check_number

__all__ = ["MixtureModel"]

LOG_2PI = math.log(2 * math.pi)
BLOCK = 2**21
"""Numbers per block on the host: few enough for a shared cache, enough for products of many rows
of one component."""
FEWEST_ROWS = 128
"""Rows of a block with levels of their own."""


class MixtureModel(BaseScoreModel):
    r"""Score model of a mixture of normal laws.

    Parameters
    ----------
    weights : array-like of shape (k,)
        Non-negative and not all zero; they are divided by their sum.
    means : array-like of shape (k, d)
    covariances : array-like of shape (k,), (k, d) or (k, d, d), or a sequence
        Isotropic variances, diagonals or matrices; or a sequence with one
        :class:`SpectralCovariance`, matrix, diagonal or number per component.

    Attributes
    ----------
    weights : ndarray of shape (k,)
    means : ndarray of shape (k, d)
    covariances : tuple of SpectralCovariance
    n_components : int

    Raises
    ------
    ValueError
        If shapes disagree, a weight is negative, or a covariance is not one. When asked: for rows
        whose squares, in units of the narrowest width, float64 cannot hold. Rows for which
        float32 cannot are served by float64; tensors that are followed or on a device are trusted.

    References
    ----------
    B. Wang and J. J. Vastola, "The Unreasonable Effectiveness of Gaussian Score
    Approximation for Diffusion Models and its Applications", TMLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> model = MixtureModel([0.5, 0.5], [[-1.0], [1.0]], [0.25, 0.25])
    >>> x = np.array([[0.3]])
    >>> gamma = model.responsibilities(x, sigma=0.5)
    >>> (gamma[0, 1] - gamma[0, 0]).round(6)  # tanh(0.6)
    np.float64(0.53705)
    >>> model.denoise(x, sigma=0.5).round(6)
    array([[0.418525]])
    """

    has_log_prob = True
    has_jacobian = True
    has_sample = True
    is_conservative = True

    def __init__(self, weights: Any, means: Any, covariances: Any):
        means = np.asarray(to_numpy(means), dtype=np.float64)
        if means.ndim != 2 or not means.size or not np.isfinite(means).all():
            raise ValueError(
                "means must be a finite array of shape (n_components, n_features); "
                f"got shape {means.shape}."
            )
        k, self.n_features = means.shape
        weights = np.asarray(to_numpy(weights), dtype=np.float64)
        if weights.shape != (k,):
            raise ValueError(f"weights must have shape ({k},), one per mean; got {weights.shape}.")
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError("weights must be finite, non-negative and not all zero.")
        weights = weights / weights.sum()
        self.covariances = _as_covariances(covariances, k, self.n_features)
        self._narrowest = min(c.smallest for c in self.covariances)
        self.has_density = self._narrowest > 0

        centre = weights @ means
        with np.errstate(divide="ignore"):
            log_weights = np.log(weights)
        self._seen = Parameters(
            weights=weights,
            log_weights=log_weights,
            means=means,
            centre=centre,
            centred_means=means - centre,
        )
        self._stack = stack_components(means - centre, list(self.covariances))

    @property
    def weights(self) -> np.ndarray:
        """Weights of the components, shape ``(k,)``."""
        return self._seen.weights

    @property
    def means(self) -> np.ndarray:
        """Means of the components, shape ``(k, d)``."""
        return self._seen.means

    @property
    def n_components(self) -> int:
        """Number of components."""
        return len(self.weights)

    # ------------------------------------------------------------------ what a mixture adds

    def responsibilities(self, x: Any, sigma: Any = 0.0):
        r"""Posterior probability :math:`\gamma_k(x)` of each component at a noise level.

        Parameters
        ----------
        x : array of shape (n, d)
        sigma : float or array of shape (n,)

        Returns
        -------
        array of shape (n, k)
            Like ``x``; rows sum to one.
        """
        x, sigma, _ = self._prepare(x, sigma, None)
        return self._by_blocks(self._responsibilities_block, x, sigma)

    def marginal(self, columns: Sequence[int]) -> MixtureModel:
        """The exact law of some of the columns.

        Parameters
        ----------
        columns : sequence of int
            Columns to keep, in the order wanted.

        Returns
        -------
        MixtureModel
        """
        kept = self._columns(columns)
        return MixtureModel(
            self.weights,
            self.means[:, kept],
            [marginal_covariance(c, kept) for c in self.covariances],
        )

    def condition(self, values: Mapping[int, float], *, noise: float = 0.0) -> MixtureModel:
        r"""The exact law of the other columns when some are known.

        .. math:: p(a \mid b) = \sum_k \frac{w_k N(b; \mu_{k,b}, C_{k,bb})}{\sum_l \cdots}
                  \, N\!\big(a;\ \mu_{k,a} + C_{k,ab} C_{k,bb}^{-1}(b - \mu_{k,b}),\
                  C_{k,aa} - C_{k,ab} C_{k,bb}^{-1} C_{k,ba}\big)

        Parameters
        ----------
        values : mapping from int to float
            Known columns and their values; at least one column must stay unknown.
        noise : float
            Standard deviation of the error of the known values.

        Returns
        -------
        MixtureModel
            On the remaining columns, in their order.

        Raises
        ------
        ValueError
            If a column does not exist, a value is not finite, nothing is left, or the known
            columns have a singular covariance and ``noise`` is zero.

        Examples
        --------
        >>> model = MixtureModel([1.0], [[0.0, 0.0]], [[[1.0, 0.8], [0.8, 1.0]]])
        >>> given = model.condition({1: 2.0})
        >>> given.means, given.covariances[0].variances.round(6)
        (array([[1.6]]), array([0.36]))
        """
        noise = check_number(noise, "noise", least=0)
        known = self._columns(list(values))
        if not len(known):
            return self
        value = np.array([check_number(v, "each known value") for v in values.values()])
        unknown = np.setdiff1d(np.arange(self.n_features), known)
        if not len(unknown):
            raise ValueError("condition needs at least one column that is not given.")
        log_weights, means, covariances = [], [], []
        for log_weight, mean, covariance in zip(
            self._seen.log_weights, self.means, self.covariances, strict=True
        ):
            log_density, shift, rest = conditional_gaussian(
                covariance, known, unknown, value - mean[known], noise
            )
            log_weights.append(log_weight + log_density)
            means.append(mean[unknown] + shift)
            covariances.append(rest)
        weights = np.exp(np.array(log_weights) - np.max(log_weights))
        return MixtureModel(weights, np.array(means), covariances)

    def gaussian(self) -> GaussianModel:
        """The normal law with this mixture's mean and covariance: its far field.

        Returns
        -------
        GaussianModel
        """
        return GaussianModel(self._seen.centre, total_covariance(self))

    # ------------------------------------------------------------------ the hooks

    def _score(self, x, sigma):
        return self._by_blocks(self._score_block, x, sigma)

    def _denoise(self, x, sigma):
        return self._by_blocks(self._denoise_block, x, sigma)

    def _log_prob(self, x, sigma):
        return self._by_blocks(self._log_prob_block, x, sigma)

    def _score_jacobian(self, x, sigma):
        return self._by_blocks(self._score_jacobian_block, x, sigma, matrices=1)

    def _denoise_jacobian(self, x, sigma):
        return self._by_blocks(self._denoise_jacobian_block, x, sigma, matrices=1)

    def _score_jvp(self, x, sigma, v):
        return self._by_blocks(self._score_jvp_block, x, sigma, v)

    def _denoise_jvp(self, x, sigma, v):
        return self._by_blocks(self._denoise_jvp_block, x, sigma, v)

    def _score_divergence(self, x, sigma):
        return self._by_blocks(self._score_divergence_block, x, sigma)

    def _denoise_divergence(self, x, sigma):
        return self._by_blocks(self._denoise_divergence_block, x, sigma)

    def _denoise_and_divergence(self, x, sigma):
        both = self._by_blocks(self._denoise_and_divergence_block, x, sigma)
        return both[:, :-1], both[:, -1]

    def _sample(self, n_samples, sigma, rng):
        # component and code are drawn, so that one seed gives one trajectory over all levels
        labels = rng.choice(self.n_components, size=n_samples, p=self.weights)
        codes = rng.standard_normal((n_samples, self.n_features))
        points = np.empty_like(codes)
        sigma = to_numpy(sigma) if is_torch(sigma) else sigma
        for k in np.unique(labels):
            rows = labels == k
            level = sigma[rows] if np.ndim(sigma) else sigma
            spread = self.covariances[k].apply(_standard_deviation(level), codes[rows])
            points[rows] = self.means[k] + spread
        return points

    # ------------------------------------------------------------------ one block of rows

    def _expert(self, x, sigma, pulls=False):
        """Where rows lie in the components, and their weighted log-densities ``(n, k)``."""
        level, seen = _variance_of(sigma), self._seen.like(x)
        where, quadratic, log_det = self._stack.locate(x - seen.centre, level, pulls)
        constant = seen.log_weights - 0.5 * (log_det + self.n_features * LOG_2PI)
        return where, constant - 0.5 * quadratic

    def _deviations(self, x, sigma):
        """Responsibilities, and scores of the components about the mixture's."""
        where, logits = self._expert(x, sigma)
        gamma = softmax(logits)
        scores = -self._stack.vectors(where, Precision(_variance_of(sigma)))
        mean = namespace(x).sum(gamma[:, :, None] * scores, axis=1)
        return gamma, scores - mean[:, None, :]

    def _log_prob_block(self, x, sigma):
        return log_sum_exp(self._expert(x, sigma)[1])[:, 0]

    def _responsibilities_block(self, x, sigma):
        return softmax(self._expert(x, sigma)[1])

    def _score_block(self, x, sigma):
        where, logits = self._expert(x, sigma, pulls=True)
        return -self._stack.pull(where, softmax(logits), Precision(_variance_of(sigma)))

    def _denoise_block(self, x, sigma):
        level = _variance_of(sigma)
        where, logits = self._expert(x, sigma, pulls=True)
        gamma, seen = softmax(logits), self._seen.like(x)
        if isinstance(where, Vectors):
            return x - level * self._stack.pull(where, gamma, Precision(level))
        spread = self._stack.pull(where, gamma, Shrinkage(level))
        return seen.centre + gamma @ seen.centred_means + spread

    def _denoise_and_divergence_block(self, x, sigma):
        level, xp = _variance_of(sigma), namespace(x)
        where, logits = self._expert(x, sigma)
        gamma, seen = softmax(logits), self._seen.like(x)
        # sum gamma |a - s|^2 as a difference of squares: times sigma^2 these are squared distances
        # in units of the noise, so that no more digits are lost than in the density itself
        variance = sigma[:, 0] ** 2 if np.ndim(sigma) else sigma**2
        squares = variance * xp.sum(gamma * self._stack.squares(where, Precision(level)), axis=-1)
        within = xp.sum(gamma * self._stack.trace(Shrinkage(level), x), axis=-1)
        spread = self._stack.pull(where, gamma, Shrinkage(level))  # last: it may use where up
        denoised = seen.centre + gamma @ seen.centred_means + spread
        residual = xp.sum((x - denoised) ** 2, axis=-1) / (variance + (variance == 0))
        return xp.concat([denoised, (within + squares - residual)[:, None]], axis=1)

    def _score_jacobian_block(self, x, sigma):
        gamma, deviations = self._deviations(x, sigma)
        within = self._stack.matrices(gamma, Precision(_variance_of(sigma)))
        return _scatter(gamma, deviations) - within

    def _denoise_jacobian_block(self, x, sigma):
        level = _variance_of(sigma)
        gamma, deviations = self._deviations(x, sigma)
        within = self._stack.matrices(gamma, Shrinkage(level))
        return within + level * _scatter(gamma, deviations)

    def _score_jvp_block(self, x, sigma, v):
        gamma, deviations = self._deviations(x, sigma)
        within = self._stack.apply(gamma, Precision(_variance_of(sigma)), v)
        return _scatter_product(gamma, deviations, v) - within

    def _denoise_jvp_block(self, x, sigma, v):
        gamma, deviations = self._deviations(x, sigma)
        within = self._stack.apply(gamma, Shrinkage(_variance_of(sigma)), v)
        return within + sigma**2 * _scatter_product(gamma, deviations, v)

    def _score_divergence_block(self, x, sigma):
        gamma, deviations = self._deviations(x, sigma)
        traces = self._stack.trace(Precision(_variance_of(sigma)), x)
        return namespace(x).sum(gamma * (squared_norms(deviations) - traces), axis=-1)

    def _denoise_divergence_block(self, x, sigma):
        gamma, deviations = self._deviations(x, sigma)
        traces = self._stack.trace(Shrinkage(_variance_of(sigma)), x)
        return namespace(x).sum(gamma * (sigma**2 * squared_norms(deviations) + traces), axis=-1)

    # ------------------------------------------------------------------ inner workings

    def _by_blocks(self, function, x, sigma, *rows, matrices=0):
        """``function`` of blocks of rows that fit the working memory (and a cache).

        Tensors that are mere numbers on the host are worked on by NumPy, for the same reason.
        """
        views = host_views(x, sigma, *rows) if is_torch(x) else None
        if views is not None:
            return like(self._by_blocks(function, *views, matrices=matrices), x)
        if not is_torch(x) and self._is_beyond(x, sigma):
            more = [np.asarray(v, dtype=np.float64) for v in (x, sigma, *rows)]
            more[1] = float(sigma) if np.ndim(sigma) == 0 else more[1]
            with np.errstate(over="ignore"):  # a log-density that float32 cannot hold is -inf
                return self._by_blocks(function, *more, matrices=matrices).astype(x.dtype)
        width = 3 * self._stack.width + 4 * matrices * self.n_features * self._stack.span
        if is_torch(x):
            size = rows_in_memory(width)
        elif np.ndim(sigma) and not matrices:  # passes, more than products that want many rows
            size = rows_in_cache(width, BLOCK // 8, fewest=FEWEST_ROWS)
        else:
            size = rows_in_cache(width, BLOCK)
        return by_blocks(function, size, x, sigma, *rows)

    def _is_beyond(self, x, sigma):
        """Whether float32 cannot hold squares of the rows in units of the widths.

        Raises
        ------
        ValueError
            If float64 cannot.
        """
        if not len(x):
            return False
        reach = max(float(np.max(x)), -float(np.min(x)))
        width = math.sqrt(self._narrowest + float(np.min(sigma)) ** 2)
        # four terms of d squares where they are expanded
        held = math.sqrt(float(np.finfo(x.dtype).max) / (4 * self.n_features)) * width
        if reach <= held or not reach < math.inf:
            return False
        if x.dtype == np.float64:
            raise ValueError(
                f"x holds {reach:.3g}, and float64 no squares of that in units of the narrowest "
                f"width {width:.3g} of a component."
            )
        return True

    def _columns(self, columns):
        indices = np.asarray(columns)
        if indices.size and not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(f"columns must be integers from 0 to {self.n_features - 1}.")
        indices = indices.astype(int).reshape(-1)
        if (
            len(np.unique(indices)) < len(indices)
            or not np.isin(indices, np.arange(self.n_features)).all()
        ):
            raise ValueError(
                f"columns must be distinct and from 0 to {self.n_features - 1}; "
                f"got {indices.tolist()}."
            )
        return indices


def _as_covariances(covariances, n_components, n_features):
    """One spectral covariance per component."""
    try:
        n_given = len(covariances)
    except TypeError:
        n_given = type(covariances).__name__
    if n_given != n_components:
        raise ValueError(
            f"covariances must hold one covariance per component ({n_components}); got {n_given}."
        )
    return tuple(SpectralCovariance.from_any(c, n_features) for c in covariances)


def _variance_of(sigma):
    """Noise variance, shaped to meet ``(n, k, r)`` arrays."""
    return sigma**2 if np.ndim(sigma) == 0 else sigma[:, :, None] ** 2


def _standard_deviation(sigma):
    return lambda variance: np.sqrt(variance + sigma**2)


def _scatter(gamma, deviations):
    """Weighted covariances of the rows of ``(n, k, d)`` deviations."""
    xp = namespace(gamma)
    return xp.matmul(xp.matrix_transpose(deviations), gamma[:, :, None] * deviations)


def _scatter_product(gamma, deviations, v):
    xp = namespace(gamma)
    along = xp.sum(deviations * v[:, None, :], axis=-1)
    return xp.sum((gamma * along)[:, :, None] * deviations, axis=1)
