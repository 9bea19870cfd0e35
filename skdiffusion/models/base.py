r"""What every score model is, and what follows from one function of it.

Let :math:`p_\sigma` be the law of :math:`x = x_0 + \sigma \varepsilon`. A score
model is its denoiser :math:`D(x, \sigma) = E[x_0 \mid x]` or, what is the same by
Tweedie's formula, its score:

.. math::
    \nabla \log p_\sigma(x) = \frac{D(x,\sigma) - x}{\sigma^2}, \qquad
    \hat\varepsilon = \frac{x - D}{\sigma}, \qquad
    \frac{dx}{d\sigma} = \frac{x - D}{\sigma}, \qquad
    \operatorname{Cov}[x_0 \mid x] = \sigma^2\, \partial D / \partial x .

A subclass of :class:`BaseScoreModel` implements ``_score`` or ``_denoise`` and
declares by flags what else it knows in closed form. Noise is isotropic except
under a column-wise scaling, where ``noise_scale`` holds its standard deviation
per column at level one (:class:`~skdiffusion.models.AffineModel`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.utils.arrays import as_directions, as_levels, as_points, is_torch, like, namespace
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count

__all__ = ["BaseScoreModel", "check_columns"]


class BaseScoreModel:
    """Base class of the score models: immutable, and polymorphic in the array library.

    Results live where ``x`` lives: same namespace, device and floating dtype; a
    torch input keeps its autograd graph.

    A subclass sets ``n_features`` and implements one of

    ``_score(x, sigma)``, ``_denoise(x, sigma)``
        Score or denoiser at validated points ``(n, d)`` and levels that
        broadcast against them: a float, a 0-d array or an ``(n, 1)`` array.

    and whatever it knows exactly of ``_log_prob(x, sigma)`` (``has_log_prob``);
    ``_denoise_jacobian`` or ``_score_jacobian``, both ``(n, d, d)``
    (``has_jacobian``); ``_draw(n, rng)`` (``has_sample``);
    ``_flow(x, sigma_from, sigma_to)`` (``has_flow``).

    Attributes
    ----------
    n_features : int
        Dimension ``d`` of a point.
    sigma_range : tuple of float
        Noise levels between which the model may be asked.
    noise_scale : float or array of shape (d,)
        Standard deviation of the noise per column at level one.
    has_density : bool
        Whether ``p_0`` itself has a density, so that level zero is allowed.
    has_log_prob, has_jacobian, has_sample, has_flow : bool
        Exact ``log_prob``, closed-form Jacobians, exact draws, exact
        probability-flow map and latent code.
    is_differentiable : bool
        Whether the autograd graph of a torch input reaches the output.
    is_conservative : bool or None
        Whether the score is known to be a gradient; ``None`` is unknown.
    is_conditional : bool
        Whether the model takes labels ``y``.
    blind_target : str or None
        What a model that is not told the noise level predicts; ``None`` for others.

    Examples
    --------
    >>> import numpy as np
    >>> class StandardNormal(BaseScoreModel):
    ...     n_features = 2
    ...     def _denoise(self, x, sigma):
    ...         return x / (1 + sigma**2)
    >>> StandardNormal().score(np.array([[1.0, 2.0]]), 1.0)
    array([[-0.5, -1. ]])
    """

    n_features: int
    sigma_range: tuple[float, float] = (0.0, float("inf"))
    noise_scale: Any = 1.0
    has_density = False
    has_log_prob = False
    has_jacobian = False
    has_sample = False
    has_flow = False
    is_differentiable = True
    is_conservative: bool | None = None
    is_conditional = False
    blind_target: str | None = None
    # whether NumPy points must stay NumPy: a foreign function may not know torch
    _keeps_library = False

    # ------------------------------------------------------------------ the field

    def score(self, x: Any, sigma: Any, *, y: Any = None):
        r"""Stein score :math:`\nabla_x \log p_\sigma(x)`.

        Parameters
        ----------
        x : array of shape (n, d)
            Points.
        sigma : float or array of shape (n,)
            Noise level, one for all or one per row.
        y : array of shape (n,), optional
            Labels, for conditional models only.

        Returns
        -------
        array of shape (n, d)
            Like ``x``.
        """
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._score(x, sigma, **condition)

    def denoise(self, x: Any, sigma: Any, *, y: Any = None):
        r"""Denoiser :math:`D(x, \sigma) = E[x_0 \mid x]`; arguments as in :meth:`score`."""
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._denoise(x, sigma, **condition)

    def predict_noise(self, x: Any, sigma: Any, *, y: Any = None):
        r"""Expected standard normal noise :math:`E[\varepsilon \mid x] = (x - D)/\sigma`."""
        x, sigma, condition = self._prepare(x, sigma, y)
        return -sigma * self._noise_scale_like(x) * self._score(x, sigma, **condition)

    def _score(self, x, sigma, **condition):
        scale = sigma * self._noise_scale_like(x)
        return (self._denoise(x, sigma, **condition) - x) / scale**2

    def _denoise(self, x, sigma, **condition):
        scale = sigma * self._noise_scale_like(x)
        return x + scale**2 * self._score(x, sigma, **condition)

    # -------------------------------------------------- what some models know exactly

    def log_prob(self, x: Any, sigma: Any = 0.0, *, y: Any = None):
        r"""Exact :math:`\log p_\sigma(x)` in nats; ``sigma=0`` is the density of the data.

        Returns
        -------
        array of shape (n,)
        """
        self._require("has_log_prob", "exact log-density")
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._log_prob(x, sigma, **condition)

    def jacobian(self, x: Any, sigma: Any, *, y: Any = None, of: str = "score"):
        """Closed-form Jacobian of the score or the denoiser.

        Models without one: :func:`skdiffusion.models.jacobian`.

        Parameters
        ----------
        x, sigma, y
            As in :meth:`score`.
        of : {"score", "denoise"}
            The field to differentiate.

        Returns
        -------
        array of shape (n, d, d)
            ``[k, i, j]`` is the derivative of component ``i`` by coordinate ``j``
            at row ``k``.
        """
        self._require("has_jacobian", "closed-form Jacobian")
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._field_hook("jacobian", of)(x, sigma, **condition)

    def jvp(self, x: Any, sigma: Any, v: Any, *, y: Any = None, of: str = "score"):
        """Closed-form product of the Jacobian at each row of ``x`` with that row of ``v``."""
        self._require("has_jacobian", "closed-form Jacobian")
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._field_hook("jvp", of)(x, sigma, as_directions(v, x), **condition)

    def divergence(self, x: Any, sigma: Any, *, y: Any = None, of: str = "score"):
        """Closed-form trace of the Jacobian, shape ``(n,)``."""
        self._require("has_jacobian", "closed-form Jacobian")
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._field_hook("divergence", of)(x, sigma, **condition)

    def denoise_and_divergence(self, x: Any, sigma: Any, *, y: Any = None):
        """Denoiser and closed-form trace of its Jacobian, ``(n, d)`` and ``(n,)``, in one pass."""
        self._require("has_jacobian", "closed-form Jacobian")
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._denoise_and_divergence(x, sigma, **condition)

    def denoise_and_jacobian(self, x: Any, sigma: Any, *, y: Any = None):
        """Denoiser and its closed-form Jacobian, ``(n, d)`` and ``(n, d, d)``, in one pass."""
        self._require("has_jacobian", "closed-form Jacobian")
        x, sigma, condition = self._prepare(x, sigma, y)
        return self._denoise_and_jacobian(x, sigma, **condition)

    def posterior_covariance(self, x: Any, sigma: Any, *, y: Any = None):
        r"""Covariance of the clean point: :math:`\operatorname{Cov}[x_0|x] = \sigma^2 \partial D`.

        Returns
        -------
        array of shape (n, d, d)
        """
        from skdiffusion.models.jacobian import jacobian

        x, levels, _ = self._prepare(x, sigma, y)
        scale = levels * self._noise_scale_like(x)
        variance = scale[..., None, :] ** 2 if np.ndim(scale) else scale**2
        return jacobian(self, x, sigma, y=y, of="denoise") * variance

    def sample(self, n_samples: int = 1, sigma: float = 0.0, *, random_state: Any = None):
        r"""Exact draws from :math:`p_\sigma`.

        Parameters
        ----------
        n_samples : int
        sigma : float
            Noise level; zero draws from the law of the data.
        random_state : None, int, Generator or RandomState
            ``None`` is fresh entropy.

        Returns
        -------
        ndarray of shape (n_samples, d)
        """
        self._require("has_sample", "exact draws")
        n_samples = check_count(n_samples, "n_samples")
        sigma = as_levels(sigma, np.empty((n_samples, 0)))
        return self._sample(n_samples, sigma, as_generator(random_state))

    def flow(self, x: Any, sigma_from: Any, sigma_to: Any):
        r"""Exact probability-flow map from one noise level to another.

        It carries :math:`p_a` to :math:`p_b` along :math:`dx/d\sigma = (x - D)/\sigma`.

        Parameters
        ----------
        x : array of shape (n, d)
            Points at level ``sigma_from``.
        sigma_from, sigma_to : float or array of shape (n,)

        Returns
        -------
        array of shape (n, d)
        """
        self._require("has_flow", "closed-form flow")
        x, sigma_from, _ = self._prepare(x, sigma_from, None, "sigma_from")
        return self._flow(x, sigma_from, as_levels(sigma_to, x, "sigma_to"))

    def to_latent(self, x: Any, sigma: Any = 0.0):
        r"""Latent code of ``x``, the limit of :math:`x_\sigma/\sigma` along the flow.

        Standard normal if ``x`` follows :math:`p_\sigma`.
        """
        self._require("has_flow", "closed-form flow")
        x, sigma, _ = self._prepare(x, sigma, None)
        return self._to_latent(x, sigma)

    def from_latent(self, z: Any, sigma: Any = 0.0):
        """Point at level ``sigma`` with latent code ``z``: inverse of :meth:`to_latent`."""
        self._require("has_flow", "closed-form flow")
        z = as_points(z, self.n_features, "z")
        return self._from_latent(z, as_levels(sigma, z))

    def at_time(self, schedule: Any):
        """The ``(x_t, t)`` view of this model in a schedule's coordinates.

        Parameters
        ----------
        schedule : str or NoiseSchedule

        Returns
        -------
        AtTime
        """
        from skdiffusion.models.at_time import AtTime

        return AtTime(self, schedule)

    # ------------------------------------------------------------------ inner workings

    def _prepare(self, x, sigma, y, name="sigma"):
        x = as_points(x, self.n_features)
        sigma = as_levels(sigma, x, name, allow_zero=self.has_density)
        if not is_torch(sigma):
            self._check_range(sigma)
        if y is None:
            return x, sigma, {}
        if not self.is_conditional:
            raise ValueError(f"{type(self).__name__} is unconditional: y must be None.")
        return x, sigma, {"y": y}

    def _check_range(self, sigma, name=None):
        """Raise ``ValueError`` for levels out of range; ``name`` is what the user knows it as."""
        low, high = self.sigma_range
        if isinstance(sigma, float) and low <= sigma <= high:
            return
        slack = 1e-9  # relative: a level computed as sqrt(s**2) must not fail by rounding
        lowest, highest = np.min(sigma, initial=np.inf), np.max(sigma, initial=0)
        if lowest < low * (1 - slack) or highest > high * (1 + slack):
            raise ValueError(
                f"{name or type(self).__name__} is defined for noise levels from {low:g} to "
                f"{high:g}; got {lowest if lowest < low * (1 - slack) else highest:g}."
            )

    def _require(self, flag: str, what: str) -> None:
        if not getattr(self, flag):
            raise NotImplementedError(f"{type(self).__name__} has no {what}.")

    def _noise_scale_like(self, x):
        scale = self.noise_scale
        return scale if isinstance(scale, float) else like(scale, x)

    def _field_hook(self, kind: str, of: str):
        if of not in ("score", "denoise"):
            raise ValueError(f"of must be 'score' or 'denoise'; got {of!r}.")
        return getattr(self, f"_{of}_{kind}")

    def _score_jacobian(self, x, sigma, **condition):
        jacobian = self._denoise_jacobian(x, sigma, **condition)
        return (jacobian - self._identity(x)) / self._row_variance(x, sigma)

    def _denoise_jacobian(self, x, sigma, **condition):
        jacobian = self._score_jacobian(x, sigma, **condition)
        return self._identity(x) + jacobian * self._row_variance(x, sigma)

    def _identity(self, x):
        return like(np.eye(self.n_features), x)

    def _row_variance(self, x, sigma):
        """Noise variance of each output component, to divide ``(n, d, d)`` Jacobians by."""
        scale = sigma * self._noise_scale_like(x)
        return scale[..., :, None] ** 2 if np.ndim(scale) else scale**2

    def _score_jvp(self, x, sigma, v, **condition):
        return namespace(x).matmul(self._score_jacobian(x, sigma, **condition), v[..., None])[
            ..., 0
        ]

    def _denoise_jvp(self, x, sigma, v, **condition):
        return namespace(x).matmul(self._denoise_jacobian(x, sigma, **condition), v[..., None])[
            ..., 0
        ]

    def _score_divergence(self, x, sigma, **condition):
        return _trace(self._score_jacobian(x, sigma, **condition))

    def _denoise_divergence(self, x, sigma, **condition):
        return _trace(self._denoise_jacobian(x, sigma, **condition))

    def _denoise_and_divergence(self, x, sigma, **condition):
        """Both at once: to override where one pass gives both for less than two."""
        return (
            self._denoise(x, sigma, **condition),
            self._denoise_divergence(x, sigma, **condition),
        )

    def _denoise_and_jacobian(self, x, sigma, **condition):
        """Both at once: to override where one pass gives both for less than two."""
        return (
            self._denoise(x, sigma, **condition),
            self._denoise_jacobian(x, sigma, **condition),
        )

    def _sample(self, n_samples, sigma, rng):
        x0 = self._draw(n_samples, rng)
        if isinstance(sigma, float) and sigma == 0:
            return x0
        return x0 + sigma * self._noise_scale_like(x0) * rng.standard_normal(x0.shape)


def _trace(jacobian):
    xp = namespace(jacobian)
    return xp.sum(xp.linalg.diagonal(jacobian), axis=-1)


def check_columns(model: BaseScoreModel, X: Any) -> None:
    """Raise ``ValueError`` unless the model has the columns of X."""
    if model.n_features != X.shape[1]:
        raise ValueError(f"the score model has {model.n_features} columns, but X has {X.shape[1]}.")
