r"""What every score estimator does, once it has fitted its score model.

An estimator learns a score model ``model_`` from rows ``X``; everything a user asks
of it is then the same few lines: densities and fields come from the model, latent codes from the
probability flow

.. math:: \frac{dx}{d\sigma} = \frac{x - D(x, \sigma)}{\sigma}

run upwards, samples from the same flow run downwards (:mod:`skdiffusion.estimators._sampling`).
Methods that return rows keep their order and units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import DensityMixin, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skdiffusion.denoising_bound import denoising_bound
from skdiffusion.estimators._sampling import Sampling
from skdiffusion.flow import decode, encode
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import GaussianModel
from skdiffusion.models import jacobian as model_jacobian
from skdiffusion.noising import noise_range
from skdiffusion.samplers import check_sampler
from skdiffusion.utils.arrays import as_levels
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.random import check_random_state
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import check_number, listed, lookup
from skdiffusion.utils.warning import warn_user

__all__ = ["BaseScoreEstimator"]

LIKELIHOODS = ("denoising", "ode")
FLOW_ERROR = 0.01
"""Estimated error, in nats, from which a log-density along the flow comes with a warning."""
CODE_ERROR = 0.01
"""Estimated error, in standard deviations, from which a decoded row comes with a warning."""
BOUND_DRAWS, BOUND_PAIRS = 12_800, (16, 128)
"""Pairs of noise per level that the bound on a mean takes in all, and limits of them per row."""


class BaseScoreEstimator(
    Sampling, OneToOneFeatureMixin, TransformerMixin, DensityMixin, Configurable
):
    """Base class of the score estimators.

    A subclass has the constructor parameters ``schedule``, ``sampler``, ``sigma_min`` and
    ``sigma_max``, and a ``fit`` that begins with ``_check_parameters`` and ends with
    ``_set_model``, so that a fit that fails changes nothing.

    Attributes
    ----------
    model_ : BaseScoreModel
        The fitted score model.
    far_field_ : GaussianModel
        The Gaussian with the moments of the data: what the noised law tends to.
    scale_ : float
        Root mean square of the columns' standard deviations.
    sigma_min_, sigma_max_ : float
        Noise levels between which samplers and latent codes run, in the units of ``X``.
    """

    def _check_parameters(self) -> None:
        """Refuse what no data could mend; the first thing ``fit`` does."""
        self._schedule()
        if self.sampler is not None:
            check_sampler(self.sampler)
        if hasattr(self, "likelihood"):
            lookup(self.likelihood, dict.fromkeys(LIKELIHOODS), "likelihood")
        for name in ("sigma_min", "sigma_max"):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, above=0)
        check_random_state(getattr(self, "random_state", None))  # also where nothing is drawn

    def _set_model(self, model, far_field: GaussianModel, column_variances) -> None:
        """Store what ``fit`` found, once everything is known to be valid."""
        levels = noise_range(column_variances, self.sigma_min, self.sigma_max)
        self.model_ = model
        self.far_field_ = far_field
        self.scale_, self.sigma_min_, self.sigma_max_ = levels

    _flow_tolerances: Any = {"code": 1e-8, "density": 1e-6}
    """Errors allowed in a step along the flow: of latent codes, and of log-densities."""

    # ------------------------------------------------------------------ densities

    def score_samples(self, X: Any, y: Any = None) -> np.ndarray:
        """Log-density of each row, in nats and in the units of ``X``.

        Computed in float64, whatever the rows come in. Exact where the model has a density in
        closed form, otherwise that of the law at ``sigma_min_`` by the probability flow;
        :func:`skdiffusion.likelihood.flow_log_prob` returns its errors too.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Labels: of a conditional model, the density of each row given its label.

        Returns
        -------
        ndarray of shape (n_samples,)

        Warns
        -----
        UserWarning
            If the flow of some row could not be followed to a hundredth of a nat.
        """
        X = self._rows(X, dtype=np.float64)
        self._refuse_labels(y, len(X))
        if not self.model_.has_log_prob:
            return self._flow_log_prob(X, self.sigma_min_, y)
        self._require_density("log_density(X, sigma) is that of the law with noise added")
        return self.model_.log_prob(X, 0.0)

    def score(self, X: Any, y: Any = None) -> float:
        """How likely the rows are, in nats per row: larger is better.

        The mean log-density where the model has one in closed form. Otherwise the denoising
        bound on it (:meth:`denoising_bound`), which no model can push above the rows' own
        entropy, on noise levels that depend on the data alone; or the mean of
        :meth:`score_samples` for an estimator with ``likelihood="ode"``. All are comparable.
        Not the Stein score: that is :meth:`stein_score`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Labels, for conditional models; ignored by others.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        y = y if self.model_.is_conditional else None
        likelihood = getattr(self, "likelihood", "denoising")
        if self.model_.has_log_prob or likelihood == "ode":
            return float(np.mean(self.score_samples(X, **({} if y is None else {"y": y}))))
        return self.denoising_bound(X, y).score

    def denoising_bound(
        self, X: Any, y: Any = None, *, n_noise: int | None = None, random_state: Any = 0
    ):
        """Lower bound on the mean log-density of the rows, from denoising errors.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Labels, for conditional models.
        n_noise : int, optional
            Pairs of opposite noise per row and level, at least three. By default from 16, for
            800 rows and more, to 128, for 100 rows and fewer.
        random_state : None, int, Generator or RandomState
            Seed of the noise, which is keyed by the rows.

        Returns
        -------
        DenoisingBound
            ``bound`` and ``std_error`` row by row, their mean ``score`` and its standard error
            ``score_std_error``; see :func:`skdiffusion.denoising_bound.denoising_bound`.
        """
        X = self._rows(X, dtype=np.float64)
        self._refuse_labels(y, len(X))
        if n_noise is None:
            n_noise = int(np.clip(BOUND_DRAWS // len(X), *BOUND_PAIRS))
        return denoising_bound(
            self._quick_model(), X, self.far_field_, y=y, n_noise=n_noise, random_state=random_state
        )

    def log_density(self, X: Any, sigma: Any, y: Any = None) -> np.ndarray:
        r"""Log-density :math:`\log p_\sigma` of each row under the law with noise added.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sigma : float or array-like of shape (n_samples,)
            Noise level above zero, in the units of ``X``.
        y : array-like of shape (n_samples,), optional
            Labels, for conditional models.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        X, sigma = self._rows_at(X, sigma, dtype=np.float64)
        self._refuse_labels(y, len(X))
        if self.model_.has_log_prob:
            return self.model_.log_prob(X, sigma)
        return self._flow_log_prob(X, sigma, y)

    def _flow_log_prob(self, X, sigma, y=None):
        """Along the flow, with a warning where it cannot be trusted."""
        X = X.astype(np.float64, copy=False)
        sigma = np.asarray(sigma, dtype=np.float64) if np.ndim(sigma) else float(sigma)
        y = None if y is None else np.asarray(y)
        tol = self._flow_tolerances["density"]
        found = flow_log_prob(self.model_, X, self.far_field_, sigma, self.sigma_max_, y=y, tol=tol)
        rough = np.flatnonzero(found.error > FLOW_ERROR)
        if len(rough):
            warn_user(
                "the denoiser changes too fast to follow its flow: the log-densities of "
                f"{len(rough)} of {len(X)} rows ({listed(rough)}) are uncertain by up to "
                f"{found.error.max():.2g} nats; denoising_bound does not depend on the flow.",
            )
        return found.log_prob

    # ------------------------------------------------------------------ fields

    def denoise(self, X: Any, sigma: Any, y: Any = None) -> np.ndarray:
        r"""Expected clean row :math:`E[x_0 \mid x]` for each noised row ``x``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sigma : float or array-like of shape (n_samples,)
            Noise level above zero, in the units of ``X``.
        y : array-like of shape (n_samples,), optional
            Labels, for conditional models.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        X, sigma = self._rows_at(X, sigma)
        self._refuse_labels(y, len(X))
        return self.model_.denoise(X, sigma, y=y)

    def stein_score(self, X: Any, sigma: Any, y: Any = None) -> np.ndarray:
        r"""Gradient :math:`\nabla \log p_\sigma` at each row; arguments as in :meth:`denoise`."""
        X, sigma = self._rows_at(X, sigma)
        self._refuse_labels(y, len(X))
        return self.model_.score(X, sigma, y=y)

    def predict_noise(self, X: Any, sigma: Any, y: Any = None) -> np.ndarray:
        r"""Expected noise :math:`E[\varepsilon \mid x]`; arguments as in :meth:`denoise`."""
        X, sigma = self._rows_at(X, sigma)
        self._refuse_labels(y, len(X))
        return self.model_.predict_noise(X, sigma, y=y)

    def jacobian(self, X: Any, sigma: Any, *, of: str = "score") -> np.ndarray:
        """Jacobian of the Stein score or the denoiser at each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sigma : float or array-like of shape (n_samples,)
            Noise level above zero, in the units of ``X``.
        of : {"score", "denoise"}

        Returns
        -------
        ndarray of shape (n_samples, n_features, n_features)
        """
        X, sigma = self._rows_at(X, sigma)
        return model_jacobian(self.model_, X, sigma, of=of)

    def at_time(self, schedule: Any = None):
        """The ``(x_t, t)`` view of the fitted model in a schedule's coordinates.

        Parameters
        ----------
        schedule : str or NoiseSchedule, optional
            By default the estimator's own, or ``"edm"`` where that is ``"auto"``.

        Returns
        -------
        AtTime
            With ``score``, ``velocity``, ``predict_noise``, ``drift``, ``diffusion``.
        """
        check_is_fitted(self)
        if schedule is None:
            schedule = self._schedule() or "edm"
        return self.model_.at_time(schedule)

    # ------------------------------------------------------------------ latent codes

    def transform(self, X: Any) -> np.ndarray:
        """Latent code of each row: where the probability flow takes it; standard normal if right.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        return self._codes(self._rows(X))

    def _codes(self, X):
        """Latent codes of rows in float64 or float32."""
        rows = X.astype(np.float64)
        if self.model_.has_flow:
            self._require_density("model_.to_latent(X, sigma) has the codes of rows with noise")
            codes = self.model_.to_latent(rows)
        else:
            tol = self._flow_tolerances["code"]
            codes = encode(self.model_, rows, *self._flow_range(), tol=tol)
        return codes.astype(X.dtype, copy=False)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Rows from their latent codes: inverse of :meth:`transform`.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features)

        Warns
        -----
        UserWarning
            If the way to some row is so unstable that it may end a hundredth of a standard
            deviation elsewhere, or anywhere: rows that were between kernels or clusters, whose
            codes hardly differ. ``transform`` itself is exact to rounding there.
        """
        check_is_fitted(self)
        Z = check_rows(self, Z, reset=None)
        if self.model_.has_flow:
            rows = self.model_.from_latent(Z.astype(np.float64))
        else:
            rows = self._decoded(Z)
        return rows.astype(Z.dtype, copy=False)

    def _decoded(self, codes):
        """Rows at the end of their flow, with a warning where it cannot be trusted."""
        tol = self._flow_tolerances["code"]
        rows, error = decode(self.model_, codes, *self._flow_range(), tol=tol, return_error=True)
        unstable = np.flatnonzero(error > CODE_ERROR)
        if len(unstable):
            warn_user(
                f"the flow down to {len(unstable)} of {len(codes)} rows ({listed(unstable)}) is "
                "unstable: rounding grows on the way until they may be anywhere between their "
                "neighbours. Their codes hardly differ from those of other rows.",
            )
        return rows

    def _flow_range(self):
        return self.far_field_, self.sigma_min_, self.sigma_max_

    # ------------------------------------------------------------------ inner workings

    def _require_density(self, instead):
        """Refuse what a law at level zero has only with a density; ``instead`` there is this."""
        if not self.model_.has_density:
            raise ValueError(
                "the fitted law has no density: it lies in fewer dimensions than the data; "
                f"{instead}."
            )

    def _rows(self, X, dtype=(np.float64, np.float32), **options):
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, dtype=dtype, **options)
        return _holding_squares(X, self.sigma_min_, self.sigma_max_)

    def _rows_at(self, X, sigma, dtype=(np.float64, np.float32)):
        """Rows and the noise levels at which they are looked at."""
        X = self._rows(X, dtype)
        levels = as_levels(sigma, X.astype(np.float64, copy=False), allow_zero=False)
        self.model_._check_range(levels, type(self).__name__)
        return _holding_squares(X, np.min(levels), np.max(levels)), sigma

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _holding_squares(X, low, high):
    """Rows in float64 if their dtype holds no squares of levels so low or so high."""
    held = np.finfo(X.dtype)
    if low**2 > float(held.tiny) and high**2 < float(held.max):
        return X
    return X.astype(np.float64, copy=False)
