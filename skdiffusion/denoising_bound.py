r"""The denoising bound on the log-likelihood: how well a model denoises, in nats.

Let :math:`p_{\sigma_0}` be the law at a small noise level, :math:`G = N(\mu, C)` a Gaussian, and
add noise of standard deviation ``t`` to a row ``x``: :math:`z = x + t\varepsilon`. With the errors

.. math:: e_p = E_p[x \mid z] - x, \qquad
    E_p[x \mid z] = z + \tfrac{t^2}{\sigma^2}\,\big(D(z, \sigma) - z\big), \qquad
    \sigma^2 = \sigma_0^2 + t^2,

and :math:`e_G` likewise, the I-MMSE identity (Guo, Shamai & Verdú 2005) holds row by row (Kong,
Brekelmans & Ver Steeg 2023):

.. math::
    \log p_{\sigma_0}(x) = \log G_{\sigma_0}(x)
    + \int_0^\infty E_\varepsilon\big[|e_G|^2 - |e_p|^2\big] \frac{dt}{t^3} .

No denoiser errs less on average than the conditional mean under the law of the rows. So with
*any* denoiser the mean over rows is at most their mean log-density under their own law: a
**lower** bound, which no model can push above the entropy, and equality for the law of the rows.

The integrand is the curve's slope in :math:`\log t` and vanishes at both ends. As :math:`t \to 0`
it falls like :math:`t^2`, and the part below the first node is a half of the integrand there: that
is to keep the score of level :math:`\sigma_0`, a denoiser like any other. Above the last node the
model is replaced by G, so that this end can only lower the bound; it costs the third cumulant,
:math:`\|\kappa_3\|^2 / (12 t^6)`. What is smooth in :math:`\log t` and falls off at both ends
is what the trapezoidal rule integrates best: its error falls exponentially in the number of nodes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.flow import under_noise_of
from skdiffusion.noising import noise_range
from skdiffusion.utils.arrays import labels_of, to_numpy
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import as_generator, balanced_by_row
from skdiffusion.utils.rows import check_points
from skdiffusion.utils.validation import check_count

__all__ = ["DenoisingBound", "denoising_bound", "nodes_and_weights"]

STEP = 0.5
"""Distance of the nodes in the logarithm of the noise."""
PSEUDO_DRAWS = 2.0
"""Weight of the prior on the control variate's coefficient."""
PILOT_ROWS = 24
"""Points that the model draws, to see which nodes need more noise."""
LEAST_PAIRS = 2
"""At every node: its noise is judged by two halves."""


class DenoisingBound(NamedTuple):
    """The bound row by row, in nats, and the standard errors of its noise.

    Attributes
    ----------
    bound, std_error : ndarray of shape (n,)
        Only the mean is a bound: a single row may lie above its log-density. The standard error of
        a row is half the difference of two halves of its noise, so that its mean square over
        rows says how large errors are, and a single one says little.
    """

    bound: np.ndarray
    std_error: np.ndarray

    @property
    def score(self) -> float:
        """Mean over the rows."""
        return float(self.bound.mean())

    @property
    def score_std_error(self) -> float:
        """Standard error of the mean by the noise alone, the rows being given."""
        return float(np.sqrt((self.std_error**2).sum()) / len(self.std_error))


def denoising_bound(
    model: Any,
    x: Any,
    far_field: Any,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    *,
    y: Any = None,
    n_noise: int = 16,
    random_state: Any = 0,
) -> DenoisingBound:
    r"""Lower bound on the mean log-density of rows, from denoising errors.

    Every node has noise of its own in opposite pairs keyed by the row: a row has the same bound
    alone and in a batch. Where the denoiser is linear over the reach of the noise, and in many
    columns it nearly is, a squared error is a quadratic form :math:`\varepsilon^T M \varepsilon`
    whose ``M`` changes little from node to node: directions are orthogonal from one node to the
    next, as many in turn as there are columns, and errors of such forms cancel in the integral.
    Lengths are stratified at each node.

    The error of G under the same noise, whose mean is known, is a control variate. Pairs come in
    two halves, independent of each other; the coefficient in a half comes from the other half,
    which leaves the mean untouched, and is held near a typical one while pairs are few. For a
    Gaussian model it is one and nothing is left to chance.

    A few points that the model itself draws show the typical coefficient at each node and what
    remains to chance; nodes where more remains have more pairs, ``n_noise`` on average. With
    labels all nodes have the same number, and the typical coefficient is one.

    Parameters
    ----------
    model : BaseScoreModel
    x : array of shape (n, d)
    far_field : GaussianModel
        The Gaussian with the moments of the data.
    sigma_min, sigma_max : float, optional
        Level of the density and largest noise. By default from the variances of ``far_field``, as
        :func:`skdiffusion.noising.noise_range` does: from the data, never from the model, so that
        bounds of different models can be compared. Where a model is not defined, G denoises.
    y : array of shape (n,), optional
        Labels, for conditional models.
    n_noise : int
        Pairs of opposite noise per row and node, on average; at least three.
    random_state : None, int, Generator or RandomState
        Seed of the noise.

    Returns
    -------
    DenoisingBound

    Raises
    ------
    ValueError
        If ``x`` is not finite, has no rows or other columns than the model.
    FloatingPointError
        If the model denoises to something that is not finite; the level is named.

    References
    ----------
    D. Guo, S. Shamai and S. Verdú, "Mutual Information and Minimum Mean-Square Error in Gaussian
    Channels", IEEE Trans. Inf. Theory 2005. X. Kong, R. Brekelmans and G. Ver Steeg,
    "Information-Theoretic Diffusion", ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models import MixtureModel
    >>> law = MixtureModel([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.1])
    >>> x = law.sample(500, random_state=0)
    >>> found = denoising_bound(law, x, law.gaussian())
    >>> found.score_std_error < 0.01
    True
    >>> bool(abs(found.score - law.log_prob(x).mean()) < 3 * found.score_std_error)
    True
    """
    n_noise = check_count(n_noise, "n_noise", 3)
    seed = int(as_generator(random_state).integers(2**62))
    x = check_points(to_numpy(x), model.n_features, name="x")
    y = labels_of(y, x)
    curve = _Curve(model, far_field, sigma_min, sigma_max)
    n, d = x.shape
    pairs, slopes = curve.plan(n_noise, pilots=y is None)
    if not pairs.any():
        return DenoisingBound(curve.log_prob(x, curve.low), np.zeros(n))
    bound, error = np.empty(n), np.empty(n)
    for rows in gen_batches(n, rows_in_memory((16 * max(pairs) + 4 * sum(pairs)) * d)):
        labels = None if y is None else to_numpy(y[rows])
        bound[rows], error[rows] = curve.integral(x[rows], labels, pairs, slopes, seed)
    return DenoisingBound(bound, error)


class _Curve:
    """The integrand at its nodes, in coordinates where the noise is isotropic."""

    def __init__(self, model, far_field, sigma_min, sigma_max):
        self.model = model
        self.scale = np.broadcast_to(model.noise_scale, model.n_features)
        self.log_prob = under_noise_of(model, far_field).log_prob
        gaussian = far_field
        if np.ndim(model.noise_scale):
            gaussian = under_noise_of(model, far_field).model
        self.mean, self.covariance = gaussian.mean, gaussian.covariance
        _, self.low, high = noise_range(self.covariance.diagonal, sigma_min, sigma_max)
        self.nodes, self.weights = nodes_and_weights(self.low / 4, high)
        self.levels = np.hypot(self.low, self.nodes)

    def integral(self, x, y, pairs, slopes, seed):
        """The bound of each row and the standard error of its noise."""
        bound, off = np.array(self.log_prob(x, self.low)), np.zeros(len(x))
        first = (pairs + 1) // 2
        sequences = [
            np.split(balanced_by_row(x, number, seed + half), np.cumsum(number)[:-1])
            for half, number in enumerate((first, pairs - first))
        ]
        for k in np.flatnonzero(pairs):
            noise = np.concatenate([sequence[k] for sequence in sequences])
            halves = slice(None, first[k]), slice(first[k], None)
            found, expected, deviation, spread = self._both_errors(x, y, noise, k)
            means = []
            for own, other in (halves, halves[::-1]):
                slope = _slope(found[other], deviation[other], spread, slopes[k])
                means.append((found[own] - slope * deviation[own]).mean(axis=0))
            share = first[k] / pairs[k]
            bound += self.weights[k] * (expected - share * means[0] - (1 - share) * means[1])
            # as far off as the whole is: variances of halves are as one over their pairs
            off += self.weights[k] * np.sqrt(share * (1 - share)) * (means[0] - means[1])
        return bound, np.abs(off)

    def plan(self, n_noise, *, pilots):
        """Pairs of noise at each node, none where the model is not defined, and slopes there."""
        lowest, highest = self.model.sigma_range
        defined = (self.levels >= lowest) & (self.levels <= highest)
        pairs, slopes = np.where(defined, n_noise, 0), np.ones(len(self.nodes))
        if not (pilots and defined.any()):
            return pairs, slopes
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                typical, need = self._pilot(np.flatnonzero(defined))
        except FloatingPointError:  # the rows may be where the model is sound
            return pairs, slopes
        if need.any() and np.isfinite([typical, need]).all():
            extra = (n_noise - LEAST_PAIRS) * defined.sum() * need / need.sum()
            pairs[defined] = LEAST_PAIRS + np.floor(extra).astype(int)
            # of a model whose draws are nothing like the rows no slope is typical
            slopes[defined] = np.where(np.abs(typical - 1) < 1, typical, 1)
        return pairs, slopes

    def _pilot(self, nodes):
        """The slope that most rows have at nodes, and what a pair there leaves to chance.

        Errors that are quadratic in the noise obey the parallelogram law. What breaks it is not
        balanced by orthogonal directions, and counts as much again as all variance does.
        """
        x = self._draws(nodes)
        slopes, need = np.ones((2, len(nodes)))
        for j, k in enumerate(nodes):
            a, b = balanced_by_row(x, 2, k)
            noise = np.stack([a, b, (a + b) / np.sqrt(2), (a - b) / np.sqrt(2)])
            found, _, deviation, spread = self._both_errors(x, None, noise, k)
            flat = [(v - v.mean(axis=0)).ravel() for v in (found, deviation)]
            slopes[j] = _slope(*flat, spread.mean(), 1.0)
            rest = found - _slope(found, deviation, spread, slopes[j]) * deviation
            beyond = (found[0] + found[1] - found[2] - found[3]) / 2
            need[j] = self.weights[k] * np.sqrt((rest.var(axis=0) + beyond**2).mean())
        return slopes, need

    def _draws(self, nodes):
        """Points that the model draws: by its flow, in one step from node to node."""
        normal = np.random.default_rng(0).standard_normal((PILOT_ROWS, self.model.n_features))
        top = self.levels[nodes[-1]]
        z = self.mean + self.covariance.apply(lambda v: np.sqrt(v + top**2), normal)
        z = z * self.scale
        for k in nodes[::-1]:
            clean = self.model.denoise(z, self.levels[k])
            z = clean + (z - clean) * (self.levels[max(k - 1, 0)] / self.levels[k])
        return clean

    def _both_errors(self, x, y, noise, k):
        """Squared errors of the model at a node, and what is known of those of G."""
        t, sigma = self.nodes[k], self.levels[k]
        return self._errors(x, y, noise, t, sigma), *self._gaussian_errors(x, noise, t)

    def _errors(self, x, y, noise, t, sigma):
        """Squared errors of the model over ``t^2``, one per pair: ``(n_noise, n)``."""
        noise = np.stack([noise, -noise], axis=1)
        noised = (x + t * noise * self.scale).reshape(-1, x.shape[1])
        if y is not None:
            y = np.concatenate([y] * (len(noised) // len(x)))
        shift = (self.model.denoise(noised, sigma, y=y) - noised).reshape(noise.shape) / self.scale
        errors = noise + (t / sigma**2) * shift
        squares = np.einsum("ponk,ponk->pn", errors, errors) / 2
        if not np.isfinite(squares).all():
            raise FloatingPointError(
                f"{type(self.model).__name__} denoises to values that are not finite at noise "
                f"level {sigma:g}."
            )
        return squares

    def _gaussian_errors(self, x, noise, t):
        """The same of G: its mean over the noise, each pair's deviation, and its variance."""

        def shrinkage(variance):
            return (variance + self.low**2) / (variance + self.low**2 + t**2)

        def pull(variance):
            return t / (variance + self.low**2 + t**2)

        bias = self.covariance.apply(pull, (x / self.scale) - self.mean)
        flat = noise.reshape(-1, x.shape[1])
        spread = self.covariance.apply(shrinkage, flat).reshape(noise.shape)
        expected = self.covariance.trace(lambda v: shrinkage(v) ** 2, x)
        deviation = np.einsum("pnk,pnk->pn", spread, spread) - expected
        variance = 2 * self.covariance.trace(lambda v: shrinkage(v) ** 4, x)
        return (bias**2).sum(axis=1) + expected, deviation, variance


def nodes_and_weights(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Trapezoidal rule in the logarithm, for an integrand like the square below ``low``."""
    n_steps = max(int(np.ceil(np.log(high / low) / STEP)), 1)
    weights = np.full(n_steps + 1, np.log(high / low) / n_steps)
    weights[[0, -1]] /= 2
    weights[0] += 0.5  # all that is below the first node
    return np.geomspace(low, high, n_steps + 1), weights


def _slope(values, control, variance, typical):
    """For each row the regression slope of ``values`` on ``control`` over its draws.

    Shrunk to the typical one, by as much as ``PSEUDO_DRAWS`` draws of the control's known variance
    would: two or three draws alone have slopes with Cauchy tails.
    """
    values, control = values - values.mean(axis=0), control - control.mean(axis=0)
    prior = np.maximum(PSEUDO_DRAWS * variance, 1e-300)
    return ((values * control).sum(axis=0) + prior * typical) / ((control**2).sum(axis=0) + prior)
