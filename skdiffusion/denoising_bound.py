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
from skdiffusion.utils.arrays import to_numpy
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import as_generator, balanced_by_row
from skdiffusion.utils.validation import check_count

__all__ = ["DenoisingBound", "denoising_bound"]

STEP = 0.5
"""Distance of the nodes in the logarithm of the noise."""
PSEUDO_DRAWS = 2.0
"""Weight of the prior on the control variate's coefficient."""
PILOT_ROWS, PILOT_PAIRS = 16, 4
"""Points that the model draws, and pairs of noise at each, to see which nodes need more noise."""
LEAST_PAIRS = 2
"""At every node: its noise is judged by two halves."""


class DenoisingBound(NamedTuple):
    """The bound row by row, in nats, and the standard errors of its noise.

    Attributes
    ----------
    bound, std_error : ndarray of shape (n,)
        Only the mean is a bound: a single row may lie above its log-density.
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
    alone and in a batch. Pairs come in two halves, independent of each other, which say how large
    the error of their mean is; within a half directions are orthogonal and lengths stratified. The
    error of G under the same noise, whose mean is known, is a control variate; its coefficient in a
    half comes from the other half, which leaves the mean untouched, and is held near one while
    pairs are few. For a Gaussian model the coefficient is one and nothing is left to chance.

    Nodes where the errors of the two denoisers vary more have more pairs, ``n_noise`` on average:
    a few points that the model itself draws on its way down the nodes show where. With labels all
    nodes have the same number.

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
    x = to_numpy(x).astype(np.float64)
    curve = _Curve(model, far_field, sigma_min, sigma_max)
    n, d = x.shape
    pairs = curve.pairs(n_noise, allocates=y is None)
    bound, variance = np.empty(n), np.empty(n)
    for rows in gen_batches(n, rows_in_memory(16 * max(pairs) * d)):
        labels = None if y is None else np.asarray(y)[rows]
        bound[rows], variance[rows] = curve.integral(x[rows], labels, pairs, seed)
    return DenoisingBound(bound, np.sqrt(variance))


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
        n_steps = int(np.ceil(np.log(4 * high / self.low) / STEP))
        self.nodes = np.geomspace(self.low / 4, high, n_steps + 1)
        self.levels = np.hypot(self.low, self.nodes)
        self.weights = np.full(n_steps + 1, np.log(4 * high / self.low) / n_steps)
        self.weights[[0, -1]] /= 2
        self.weights[0] += 0.5  # all that is below the first node, where the integrand is t^2

    def integral(self, x, y, pairs, seed):
        """The bound of each row and the variance of its noise."""
        bound = np.array(self.log_prob(x, self.low))
        variance = np.zeros(len(x))
        for k, weight in enumerate(self.weights):
            if not pairs[k]:
                continue
            n_first = (pairs[k] + 1) // 2
            halves = slice(None, n_first), slice(n_first, None)
            noise = np.concatenate(
                [
                    balanced_by_row(x, n_first, seed + 2 * k),
                    balanced_by_row(x, pairs[k] - n_first, seed + 2 * k + 1),
                ]
            )
            found, expected, deviation, spread = self._both_errors(x, y, noise, k)
            means = []
            for own, other in (halves, halves[::-1]):
                slope = _slope(found[other], deviation[other], spread)
                means.append((found[own] - slope * deviation[own]).mean(axis=0))
            share = n_first / pairs[k]
            bound += weight * (expected - share * means[0] - (1 - share) * means[1])
            # of two halves whose variances are as one over their pairs
            variance += weight**2 * share * (1 - share) * (means[0] - means[1]) ** 2
        return bound, variance

    def pairs(self, n_noise, *, allocates):
        """Pairs of noise at each node: none where the model is not defined."""
        lowest, highest = self.model.sigma_range
        defined = (self.levels >= lowest) & (self.levels <= highest)
        pairs = np.where(defined, n_noise, 0)
        need = self._need(np.flatnonzero(defined)) if allocates else np.zeros(0)
        if not (need.any() and np.isfinite(need).all()):
            return pairs
        extra = (n_noise - LEAST_PAIRS) * defined.sum() * need / need.sum()
        return np.where(defined, LEAST_PAIRS + np.floor(extra).astype(int), 0)

    def _need(self, nodes):
        """Standard deviation of a pair's contribution at each node, roughly; NaN if that fails."""
        need = np.zeros(len(self.nodes))
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                for k, x in self._path(nodes):
                    noise = balanced_by_row(x, PILOT_PAIRS, k)
                    found, _, deviation, _ = self._both_errors(x, None, noise, k)
                    need[k] = self.weights[k] * np.sqrt((found - deviation).var(axis=0).mean())
        except FloatingPointError:  # the rows may be where the model is sound
            need[:] = np.nan
        return need

    def _path(self, nodes):
        """What the model draws, at each node: its flow, in one step from node to node."""
        rng = np.random.default_rng(0)
        normal = rng.standard_normal((PILOT_ROWS, self.model.n_features))
        top = self.levels[nodes].max(initial=0)
        z = self.mean + self.covariance.apply(lambda v: np.sqrt(v + top**2), normal)
        z = z * self.scale
        for k in nodes[::-1]:
            clean = self.model.denoise(z, self.levels[k])
            yield k, clean
            z = clean + (z - clean) * (self.levels[max(k - 1, 0)] / self.levels[k])

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


def _slope(values, control, variance):
    """For each row the regression slope of ``values`` on ``control`` over its draws.

    Shrunk to one, the slope of a Gaussian model, by as much as ``PSEUDO_DRAWS`` draws of the
    control's known variance would: two or three draws alone have slopes with Cauchy tails.
    """
    values, control = values - values.mean(axis=0), control - control.mean(axis=0)
    prior = np.maximum(PSEUDO_DRAWS * variance, 1e-300)
    return ((values * control).sum(axis=0) + prior) / ((control**2).sum(axis=0) + prior)
