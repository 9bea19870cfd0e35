r"""MarginalEnergy: the landscape that a model without noise conditioning lives in.

A point :math:`u = a\,x_0 + b\,\varepsilon` of unknown noise level has the density and the energy

.. math:: p(u) = \int p(u \mid t)\, p(t)\, dt, \qquad E(u) = -\log p(u), \qquad
          \nabla E = E[\nabla E_t \mid u],

and a network that is not told the time learns :math:`f^*(u) = E[c\,x_0 + d\,\varepsilon \mid u]`,
a mean over the posterior of the noise level. With :math:`\lambda = \tfrac ba (da - cb)`,

.. math::
    f^* = \bar\lambda\, \nabla E + \operatorname{Cov}(\lambda, \nabla E_t)
          + E[\tfrac ca \mid u]\, u
        = \bar\lambda\, \nabla E_\lambda + E[\tfrac ca \mid u]\, u, \qquad
    E_\lambda = -\log \int p(u \mid t)\, |\lambda|\, p(t)\, dt,

exactly: blind fields are gradients of tilted energies times their mean gains.
Near a law of codimension :math:`k`, at distance :math:`r` and with a prior like :math:`b^q`,
:math:`r/b` given :math:`u` has the law :math:`\chi_K` with :math:`K = k - q - 1`: the gradient is
:math:`K/r` and the logarithm of the noise is known to :math:`1/\sqrt{2K}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import DensityMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators import EmpiricalScore
from skdiffusion.estimators.noise_level import near_levels
from skdiffusion.geometry._codimension import degrees_of_freedom
from skdiffusion.geometry._given import fitted_model
from skdiffusion.geometry.noise_posterior import NoisePath, NoisePosterior
from skdiffusion.geometry.noise_prior import check_prior, path_coefficients
from skdiffusion.models import AffineModel, BlindModel, GaussianModel
from skdiffusion.models.base import check_columns
from skdiffusion.schedules import check_schedule
from skdiffusion.targets import check_target, target_coefficients, target_gains
from skdiffusion.utils.covariance import covariance_of
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import check_count, check_flag
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["EnergyDecomposition", "MarginalEnergy"]

UNITS = {"noise": 0, "edm": 0, "score": -1}
"""Power of the unit of ``X`` in a target; one for all others."""


@dataclass(frozen=True)
class EnergyDecomposition:
    """A blind field as motion in the marginal energy; rows in the units of the field.

    Attributes
    ----------
    natural_gradient : ndarray of shape (n, d)
        Mean gain times the gradient of the marginal energy.
    transport_correction : ndarray of shape (n, d)
        Covariance of gain and gradient over the posterior.
    drift : ndarray of shape (n, d)
        Multiple of the point itself.
    gain : ndarray of shape (n,)
        Mean gain.
    tilted_gradient : ndarray of shape (n, d)
        Gradient of the tilted energy; ``gain`` times it is the sum of the first two.
    """

    natural_gradient: np.ndarray
    transport_correction: np.ndarray
    drift: np.ndarray
    gain: np.ndarray
    tilted_gradient: np.ndarray

    @property
    def field(self) -> np.ndarray:
        """The sum of the three terms: the blind field."""
        return self.natural_gradient + self.transport_correction + self.drift


class MarginalEnergy(TransformerMixin, DensityMixin, Configurable):
    r"""Energy of points of unknown noise level, and what a blind network learns.

    Parameters
    ----------
    score_estimator : estimator or score model, optional
        What the law is learned with: a clone is fitted to ``X``. A model that is fitted already
        comes as ``FrozenEstimator(model)`` or as a score model. Of models that do not know their
        density at every noise level, such as networks, it is integrated from their scores and
        traces, up to the far field of ``X``. By default :class:`~skdiffusion.EmpiricalScore`.
    schedule : str or NoiseSchedule
        The path of the points; by default :math:`x_0` plus noise, so that rows are noised rows as
        they come. On a path with a signal coefficient, such as ``"flow_matching"``, they must be
        scaled by it.
    prior : {"uniform", "log_normal", "power"} or NoisePrior
        How often each noise level occurs; ``"uniform"`` in the time of the schedule, which by
        default is uniform in the logarithm of the level.
    standardize : bool
        Whether the path is that of the rows in units of their own spread around their mean:
        :math:`u = m + a (x_0 - m) + b\,s\,\varepsilon`. Otherwise :math:`u = a x_0 + b\varepsilon`
        as it stands.
    n_nodes : int
        Nodes that the quadrature begins with, even; where they do not do there are more.

    Attributes
    ----------
    model_ : BaseScoreModel
        The score model.
    center_, scale_ : ndarray of shape (n_features,), float
        The mean :math:`m` and the unit :math:`s` of the path; zero and one if not standardised.
    schedule_, prior_ : NoiseSchedule, NoisePrior
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    References
    ----------
    M. Sahraee-Ardakan, M. Delbracio and P. Milanfar, "The Geometry of Noise: Why Diffusion
    Models Don't Need Noise Conditioning", 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.geometry import MarginalEnergy
    >>> from skdiffusion.models import EmpiricalModel
    >>> X = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> two_points = MarginalEnergy(
    ...     EmpiricalModel(X), schedule="flow_matching", standardize=False
    ... ).fit(X)
    >>> two_points.energy([[0.5, 0.2]]).round(6), two_points.gradient([[0.5, 0.2]]).round(6)
    (array([1.329454]), array([[-1.326315,  1.645462]]))
    >>> two_points.blind_field([[0.5, 0.2]], "data").round(6)
    array([[0.702916, 0.      ]])
    """

    def __init__(
        self,
        score_estimator=None,
        *,
        schedule="ve",
        prior="uniform",
        standardize=True,
        n_nodes=128,
    ):
        self.score_estimator = score_estimator
        self.schedule = schedule
        self.prior = prior
        self.standardize = standardize
        self.n_nodes = n_nodes

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None):
        """Fit the score model, and the unit of the path.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows.
        y : ignored

        Returns
        -------
        MarginalEnergy

        Raises
        ------
        ValueError
            If a parameter is out of its range, or the noise of the score model is not isotropic.
        """
        schedule, prior = check_schedule(self.schedule), check_prior(self.prior)
        if check_count(self.n_nodes, "n_nodes", 8) % 2:
            raise ValueError(f"n_nodes must be even; got {self.n_nodes}.")
        check_flag(self.standardize, "standardize")
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        model = self._fitted_model(X)
        center, scale = np.zeros(X.shape[1]), 1.0
        if self.standardize:
            center, scale = X.mean(axis=0), float(np.sqrt(X.var(axis=0).mean()))
            if not scale > 0:
                raise ValueError("X has no variance: all of its rows are the same.")
        inner = AffineModel(model, shift=-center / scale, scale=1 / scale)
        if not self.standardize:
            inner = model
        far_field = None
        if not model.has_log_prob:  # it is integrated from there
            covariance = covariance_of(X) / scale**2
            far_field = GaussianModel((X.mean(axis=0) - center) / scale, covariance)
        path = NoisePath(inner, schedule, prior, self.n_nodes, far_field=far_field)
        self.model_, self.center_, self.scale_ = model, center, scale
        self.schedule_, self.prior_, self._path = schedule, prior, path
        return self

    def _fitted_model(self, X):
        given = EmpiricalScore() if self.score_estimator is None else self.score_estimator
        given, _ = fitted_model(given, X)
        check_columns(given, X)
        if np.ndim(given.noise_scale):
            raise ValueError(
                "the noise of the score model has one scale per column, and a marginal energy "
                "needs the same noise in every direction: scale the columns of X first."
            )
        return given

    # ------------------------------------------------------------------ energy

    def energy(self, X: Any) -> np.ndarray:
        r"""Marginal energy :math:`-\log p(u)` of each row, in nats and in the units of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points of any noise level.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If a row lies on data without density, where the energy is minus infinity.
        """
        return -self.score_samples(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """Minus the energy: the log-density of each row, whatever its noise."""
        z = self._standardised(X)
        return self._path.posterior(z).log_evidence - z.shape[1] * np.log(self.scale_)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`; not the Stein score."""
        return float(np.mean(self.score_samples(X)))

    def gradient(self, X: Any) -> np.ndarray:
        """Gradient of the energy at each row, shape ``(n_samples, n_features)``."""
        z = self._standardised(X)
        found = self._path.posterior(z)
        return self._path.average(z, found, 0 * found.sigma, 1 / found.sigma) / self.scale_

    def tilted_energy(self, X: Any, target: str = "noise") -> np.ndarray:
        r"""Energy :math:`E_\lambda` tilted by the gain of a target: its field's own potential.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        target : str
            See :meth:`blind_field`.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        z = self._standardised(X)
        found = self._path.posterior(z)
        gain = np.abs(self._gains(found, target).energy)
        return -(
            found.log_evidence
            + np.log((found.weights * gain).sum(axis=1))
            - z.shape[1] * np.log(self.scale_)
        )

    # ------------------------------------------------------------------ noise level

    def noise_posterior(self, X: Any) -> NoisePosterior:
        """Posterior over the noise level of each row, in units of ``scale_``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        NoisePosterior
            With ``mean``, ``std``, ``quantile`` and the density at its nodes.
        """
        return self._path.posterior(self._standardised(X))

    def predict_noise_level(self, X: Any, near: Any = None) -> np.ndarray:
        r"""Noise level that each row seems to have, in the units of ``X``.

        The posterior mean of its logarithm, exponentiated.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        near : float or array-like of shape (n_samples,), optional
            Level that the rows have within a factor of e or so, as for
            :class:`~skdiffusion.NoiseLevelEstimator`: the prior is multiplied by
            :math:`N(\log s, 1)` in the logarithm of the level.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If ``near`` is no positive number, or not one per row.
        """
        z = self._standardised(X)
        if near is not None:
            near = near_levels(near, z) / self.scale_
        return self.scale_ * np.exp(self._path.posterior(z, near).mean("log_level"))

    def codimension(self, X: Any) -> np.ndarray:
        r"""Codimension of the law around each row, from how well its noise level is known.

        The logarithm of the noise :math:`b` has variance :math:`\psi'(K/2)/4` where the law is
        flat, and :math:`k = K + q + 1`. Meaningful for rows near the law, not on it: with noise up
        to about its spread.
        :class:`~skdiffusion.IntrinsicDimensionEstimator` reads the dimension of clean rows from
        the same law (``method="noise_posterior"``).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        found = self.noise_posterior(X)
        at, step = found.mean("log_level"), 1e-4
        ahead, behind = (self._log_prior_of_noise(at + h) for h in (step, -step))
        slope = (ahead - behind) / (2 * step) / self._noise_rate(at)
        variances = found.std(np.log(found.sigma)) ** 2
        return np.array([degrees_of_freedom(v) for v in variances]) + slope

    def _noise_rate(self, log_level):
        """Slope of the logarithm of the noise coefficient by that of the level."""
        alpha, sigma, (alpha_rate, sigma_rate) = path_coefficients(self.schedule_, log_level)
        return sigma_rate * alpha / (sigma_rate * alpha - alpha_rate * sigma)

    def _log_prior_of_noise(self, log_level):
        """Logarithm of the prior's density over that of the noise coefficient, at levels."""
        of_level = self.prior_.log_density(log_level, self.schedule_)
        return of_level - np.log(self._noise_rate(log_level))

    # ------------------------------------------------------------------ fields

    def blind_field(self, X: Any, target: str = "noise") -> np.ndarray:
        """What a network without noise conditioning learns to say at each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Points of any noise level.
        target : {"noise", "data", "velocity", "v", "score", "edm", "equilibrium"}
            What it is trained on (:mod:`skdiffusion.targets`).

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Noise has unit variance, data are rows of ``X``; velocities are in units of ``X``.
        """
        field = self._field(self._standardised(X), target)
        return self._in_units(field, target) + self.center_ * (target == "data")

    def decompose(self, X: Any, target: str = "noise") -> EnergyDecomposition:
        """The blind field as natural gradient, transport correction and drift.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        target : str
            See :meth:`blind_field`.

        Returns
        -------
        EnergyDecomposition
            Their sum is the blind field (for data, around ``center_``).

        Raises
        ------
        ValueError
            If the terms are infinite one by one, as they are where the prior reaches the end of
            a path without signal, although their sum is not.
        """
        z = self._standardised(X)
        found = self._path.posterior(z)
        gains = self._gains(found, target)
        zero = 0 * found.sigma
        gain = found.mean(gains.energy)
        gradient = self._path.average(z, found, zero, 1 / found.sigma)
        covariance = self._path.average(
            z, found, zero, (gains.energy - gain[:, None]) / found.sigma
        )
        drift = found.mean(gains.scale)[:, None] * z
        natural = gain[:, None] * gradient
        parts = [self._in_units(part, target) for part in (natural, covariance, drift)]
        unit = self.scale_ ** (UNITS.get(target, 1) + 1)
        tilted = (natural + covariance) / gain[:, None] / self.scale_
        return EnergyDecomposition(*parts, gain * unit, tilted)

    def blind_model(self, target: str = "data") -> BlindModel:
        """The blind field as a score model for samplers, with an estimated clock.

        The clock reads the posterior of the points of the path that the field is asked at, not
        that of rows of a level: it believes what the field believes, and no schedule.

        Parameters
        ----------
        target : str
            See :meth:`blind_field`.

        Returns
        -------
        BlindModel
        """
        check_is_fitted(self)
        return BlindModel(
            partial(self._field, target=check_target(target)),
            self.n_features_in_,
            self.schedule_,
            target,
            self.center_,
            self.scale_,
            self._level_of_scaled,
            path_level=self._level_on_path,
        )

    def _level_of_scaled(self, x):
        """Noise levels of points ``x_0 + sigma eps``, divided by their signal."""
        path = NoisePath(
            self._path.model,
            self.schedule_,
            self.prior_,
            self.n_nodes,
            rescaled=True,
            far_field=self._path.far_field,
        )
        found = path.posterior((x - self.center_) / self.scale_)
        return self.scale_ * np.exp(found.mean("log_level"))

    def _level_on_path(self, z):
        """The level at which the path has the mean coefficients of standardised points of it."""
        found = self._path.posterior(z)
        # the noise is a scale, and may reach zero or infinity; the signal enters as it is
        return np.exp((found.weights * np.log(found.sigma)).sum(axis=1)) / found.mean("alpha")

    def _field(self, z, target):
        found = self._path.posterior(z)
        c, d = target_coefficients(target, found.alpha, found.sigma, found.rates)
        zero = 0 * found.sigma
        return self._path.average(z, found, c + zero, d + zero)

    def _gains(self, found, target):
        gains = target_gains(check_target(target), found.alpha, found.sigma, found.rates)
        weighted = found.weights > 0  # rows may have fewer nodes than others
        for values in (gains.energy, gains.scale):
            size = np.where(weighted, np.abs(values), 0.0)
            if self._path.dominated_by_ends(found, size).any():
                raise ValueError(
                    f"the mean gain of the target {target!r} is infinite under a prior that "
                    "reaches the end of the path; give the prior a shorter range, such as "
                    "UniformPrior(t_max=0.99)."
                )
        return gains

    def _in_units(self, field, target):
        return field * self.scale_ ** UNITS.get(target, 1)

    # ------------------------------------------------------------------ features

    def transform(self, X: Any) -> np.ndarray:
        """Energy, and mean and standard deviation of the logarithm of the noise level.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, 3)
        """
        z = self._standardised(X)
        found = self._path.posterior(z)
        energy = z.shape[1] * np.log(self.scale_) - found.log_evidence
        level = found.mean("log_level") + np.log(self.scale_)
        return np.column_stack([energy, level, found.std("log_level")])

    def get_feature_names_out(self, input_features=None):
        """Names of the columns that :meth:`transform` returns.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        return np.array(["energy", "log_level_mean", "log_level_std"], dtype=object)

    def _standardised(self, X):
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, dtype=np.float64)
        return (X - self.center_) / self.scale_
