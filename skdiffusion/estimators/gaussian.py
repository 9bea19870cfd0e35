r"""GaussianScore: fit a normal law, diffuse it in closed form.

The model is :math:`N(\mu, C)` and everything about its diffusion is a function of
:math:`C` (:mod:`skdiffusion.models.gaussian`). Fitting is choosing :math:`C`:

- maximum likelihood, its diagonal, or a multiple of the identity;
- low rank plus isotropic (probabilistic PCA, Tipping & Bishop 1999):
  :math:`C = U \Lambda U^\top + s_0 (I - UU^\top)` with the leading eigenpairs of the
  sample covariance and :math:`s_0` the mean of the other eigenvalues, without ever
  forming a :math:`d \times d` matrix;
- any covariance estimator of scikit-learn.

Wang & Vastola (2024) find that this model explains most of a trained network's score
at high and medium noise; it is also the linear denoiser of least error for any law.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from skdiffusion.estimators._moments import (
    DiagonalMoments,
    FactorMoments,
    FullMoments,
    gathered,
)
from skdiffusion.estimators._singular import where_singular
from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.models import GaussianModel, SpectralCovariance
from skdiffusion.utils.lazy_rows import LazyRows, is_lazy
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_rows, check_weights
from skdiffusion.utils.validation import check_count, check_number, lookup
from skdiffusion.utils.warning import warn_user
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["GaussianScore"]

AUTO_REGULARISATION = 1e-6
"""Share of each column's variance that is added to a singular covariance."""
MAX_RANK = 200
"""Largest rank that ``rank=None`` considers."""
FULL_UP_TO = 1024
"""Number of columns up to which low rank starts from the whole covariance."""

_FORMS = ("empirical", "ledoit_wolf", "oas", "low_rank", "diag", "isotropic")


def _has_named_covariance(estimator) -> bool:
    """Whether the covariance is a function of moments, which can be updated."""
    return isinstance(estimator.covariance, str)


class GaussianScore(BaseScoreEstimator):
    r"""Gaussian score model: the diffusion of a normal law, exact at every noise level.

    Parameters
    ----------
    covariance : str or scikit-learn covariance estimator
        ``"empirical"`` (maximum likelihood), ``"ledoit_wolf"`` or ``"oas"`` (shrunk, as in
        scikit-learn, and also with weights and by batches), ``"low_rank"`` (leading axes plus
        isotropic rest), ``"diag"``, ``"isotropic"``, or an estimator that finds
        ``covariance_`` (and ``location_``).
    rank : int, optional
        Number of axes for ``"low_rank"``; by default the one of least Bayesian
        information criterion, at most 200.
    reg_covar : "auto" or float
        Share of each column's variance added to the diagonal, at least 0. ``"auto"`` adds
        nothing where the covariance is regular, and 1e-6 with a warning where it is singular.
    schedule : "auto", str or NoiseSchedule
        Spacing of noise levels for samplers and trajectories, and default of ``at_time``;
        ``"auto"`` spaces them by the spectrum of the data, where that suits the sampler.
    sampler : str, BaseSampler or None
        Default of ``sample``; ``None`` draws exactly.
    sigma_min, sigma_max : float, optional
        Range of noise levels in the units of ``X``; by default from the data.
    random_state : None, int, Generator or RandomState
        For the randomised decomposition in high dimension.

    Attributes
    ----------
    model_ : GaussianModel
        The fitted score model.
    mean_ : ndarray of shape (n_features,)
    components_ : ndarray of shape (n_components, n_features)
        Principal axes, largest variance first.
    explained_variance_ : ndarray of shape (n_components,)
        Variance along each axis.
    noise_variance_ : float
        Variance in all other directions (zero if there are none).
    covariance_ : ndarray of shape (n_features, n_features)
        The whole matrix, formed when asked for.
    covariance_estimator_ : estimator
        The fitted covariance estimator, where one was used.
    n_samples_seen_ : int
        Rows of positive weight seen by ``fit`` or ``partial_fit``.
    scale_, sigma_min_, sigma_max_ : float
        Scale of the data and range of noise levels.
    far_field_ : GaussianModel
        The same law: a Gaussian is its own far field.

    See Also
    --------
    sklearn.decomposition.PCA : the same axes, without densities at noise levels.

    References
    ----------
    B. Wang and J. J. Vastola, "The Unreasonable Effectiveness of Gaussian Score
    Approximation for Diffusion Models and its Applications", TMLR 2024.

    M. E. Tipping and C. M. Bishop, "Probabilistic principal component analysis",
    JRSS B 61, 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GaussianScore
    >>> X = load_iris().data
    >>> est = GaussianScore().fit(X)
    >>> est.sample(2, random_state=0).shape
    (2, 4)
    >>> round(est.score(X), 3)  # mean log-density, nats
    -2.533
    >>> est.denoise(X[:1] + 0.5, sigma=0.5).round(2)
    array([[5.43, 3.57, 2.11, 0.56]])
    """

    def __init__(
        self,
        covariance="empirical",
        *,
        rank=None,
        reg_covar="auto",
        schedule="auto",
        sampler=None,
        sigma_min=None,
        sigma_max=None,
        random_state=None,
    ):
        self.covariance = covariance
        self.rank = rank
        self.reg_covar = reg_covar
        self.schedule = schedule
        self.sampler = sampler
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.random_state = random_state

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None):
        """Fit the mean and the covariance.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Or a dask array or data frame: its blocks are summed where they lie.
            At least two rows.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            A weight of 2 equals a repeated row. Not for covariance estimators that take none.

        Returns
        -------
        GaussianScore

        Raises
        ------
        ValueError
            If ``X`` is not finite, has fewer than two rows or no variance, or a parameter is
            out of its range.

        Warns
        -----
        UserWarning
            If the covariance is singular and ``reg_covar="auto"``.
        """
        self._check_parameters()
        if is_lazy(X):
            return self._fit_lazy(X, sample_weight)
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        weights = check_weights(sample_weight, len(X))
        if not _has_named_covariance(self):
            return self._fit_estimator(X, sample_weight)
        moments = self._new_moments(X.shape[1])
        moments.update(X, weights)
        return self._set_from_moments(moments)

    @available_if(_has_named_covariance)
    @whole_or_not_at_all
    def partial_fit(self, X, y=None, sample_weight=None):
        """Update the fit by a batch of rows.

        Exact for all forms of the covariance but ``"low_rank"`` above 1024 columns, where the
        directions beyond the kept ones are merged into the isotropic rest. Not available with
        covariance estimators, of whose fits it begins anew.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        GaussianScore
        """
        self._check_parameters()
        first = not hasattr(self, "_moments")
        X = check_rows(self, X, reset=first, dtype=np.float64, ensure_min_samples=2 if first else 1)
        weights = check_weights(sample_weight, len(X))
        moments = self._new_moments(X.shape[1])
        if not first and type(self._moments) is not type(moments):
            raise ValueError(
                f"covariance={self.covariance!r} cannot go on from what was gathered of earlier "
                "batches for another: call fit, or partial_fit of a new estimator."
            )
        moments.update(X, weights)
        return self._set_from_moments(moments if first else self._moments + moments)

    @classmethod
    def from_parameters(
        cls,
        mean,
        covariance=None,
        *,
        components=None,
        explained_variance=None,
        noise_variance=0.0,
        **params,
    ):
        """A fitted estimator from known parameters.

        Parameters
        ----------
        mean : array-like of shape (n_features,)
        covariance : float, array-like of shape (n_features,) or (n_features, n_features)
            One variance for all columns, the diagonal, or the matrix.
        components : array-like of shape (n_components, n_features), optional
            Orthonormal axes instead of ``covariance``.
        explained_variance : array-like of shape (n_components,), optional
            Variance along each of ``components``.
        noise_variance : float
            Variance in all directions but ``components``.
        **params
            Constructor parameters.

        Returns
        -------
        GaussianScore

        Raises
        ------
        ValueError
            If not exactly one of ``covariance`` and ``components`` is given, or they do
            not fit the mean.

        Examples
        --------
        >>> est = GaussianScore.from_parameters(mean=[0.0, 0.0], covariance=[4.0, 1.0])
        >>> est.score_samples([[0.0, 0.0]]).round(6)  # -log(2 pi 2)
        array([-2.531024])
        """
        if (covariance is None) == (components is None):
            raise ValueError("exactly one of covariance and components must be given.")
        if components is not None:
            if explained_variance is None:
                raise ValueError("components need explained_variance, one variance per axis.")
            covariance = SpectralCovariance(
                explained_variance, np.asarray(components, dtype=np.float64).T, noise_variance
            )
        self = cls(**params)
        model = GaussianModel(mean, covariance)
        self._check_parameters()
        self.n_features_in_ = model.n_features
        self.n_samples_seen_ = 0
        return self._set_gaussian(model.mean, model.covariance)

    def _check_parameters(self):
        super()._check_parameters()
        if isinstance(self.covariance, str):
            lookup(self.covariance, dict.fromkeys(_FORMS), "covariance", "a covariance estimator")
        elif not hasattr(self.covariance, "fit"):
            raise ValueError(
                "covariance must be a name or a scikit-learn covariance estimator; "
                f"got {self.covariance!r}."
            )
        if not (isinstance(self.reg_covar, str) and self.reg_covar == "auto"):
            check_number(self.reg_covar, "reg_covar", least=0)
        if self.rank is not None:
            check_count(self.rank, "rank")

    def _new_moments(self, d):
        if self.rank is not None and self.rank > d:
            raise ValueError(f"rank must be at most the number of columns, {d}; got {self.rank}.")
        if self.covariance in ("diag", "isotropic"):
            return DiagonalMoments(d)
        if self.covariance != "low_rank" or d <= FULL_UP_TO:
            return FullMoments(d)
        # a margin of directions, so that later batches can change which ones lead
        n_kept = min(d, (self.rank or MAX_RANK) + 10)
        seed = int(as_generator(self.random_state).integers(2**31))
        return FactorMoments(d, n_kept, seed)

    def _fit_lazy(self, X, sample_weight):
        if not _has_named_covariance(self):
            raise ValueError(
                f"{type(self.covariance).__name__} needs X in memory; of a dask array the "
                f"covariances are {', '.join(repr(form) for form in _FORMS)}."
            )
        rows = LazyRows(self, X, sample_weight)
        moments = rows.total(gathered, self._new_moments(rows.n_features))
        if moments.n_rows < 2:
            raise ValueError(f"X must have at least 2 rows; got {moments.n_rows}.")
        return self._set_from_moments(moments)

    def _fit_estimator(self, X, sample_weight):
        estimator = clone(self.covariance)
        options = {}
        if sample_weight is not None:
            if not has_fit_parameter(estimator, "sample_weight"):
                raise ValueError(
                    f"{type(estimator).__name__} takes no sample_weight; the covariances that do "
                    f"are {', '.join(repr(form) for form in _FORMS)}."
                )
            options["sample_weight"] = sample_weight
        moments = DiagonalMoments(X.shape[1])
        moments.update(X, check_weights(sample_weight, len(X)))
        if not moments.column_variances().any():
            raise ValueError("X has no variance: all of its rows are the same.")
        estimator.fit(X, **options)
        mean = getattr(estimator, "location_", moments.mean)
        covariance = np.array(estimator.covariance_, dtype=np.float64)
        self.covariance_estimator_ = estimator
        self.__dict__.pop("_moments", None)  # of rows that are not those of this fit
        self.n_samples_seen_ = moments.n_rows
        return self._set_gaussian(mean, self._regular(covariance))

    def _set_from_moments(self, moments):
        variances = moments.column_variances()
        if not variances.any():
            raise ValueError("X has no variance: all of its rows are the same.")
        if self.covariance == "empirical":
            covariance = self._regular(moments.covariance())
        elif self.covariance == "ledoit_wolf":
            covariance = self._regular(moments.ledoit_wolf())
        elif self.covariance == "oas":
            covariance = self._regular(moments.oas())
        elif self.covariance == "diag":
            covariance = self._regular_diagonal(variances)
        elif self.covariance == "isotropic":
            covariance = SpectralCovariance(np.full(len(variances), variances.mean()))
        else:
            covariance = self._low_rank(moments, variances)
        self._moments = moments
        self.__dict__.pop("covariance_estimator_", None)  # of an earlier fit
        self.n_samples_seen_ = moments.n_rows
        return self._set_gaussian(moments.mean, covariance)

    def _set_gaussian(self, mean, covariance):
        model = GaussianModel(mean, covariance)
        axes = covariance.axes
        variances = covariance.variances
        order = np.argsort(variances, kind="stable")[::-1]
        axes = np.eye(len(mean))[order] if axes is None else axes.T[order]
        self._set_model(model, model, covariance.diagonal)
        self.mean_ = model.mean
        self.components_ = axes
        self.explained_variance_ = variances[order]
        self.noise_variance_ = covariance.residual if covariance.n_residual else 0.0
        return self

    # ------------------------------------------------------------------ regularisation

    def _regular(self, matrix):
        """Spectrum of the covariance after adding the share of each column's variance."""
        variances = matrix.diagonal()
        constant = variances <= 0
        scales = np.where(constant, variances[~constant].mean(), variances)
        share = self.reg_covar
        if share == "auto":
            deviations = np.sqrt(scales)
            correlation = matrix / np.outer(deviations, deviations)
            floor = 10 * len(matrix) * np.finfo(np.float64).eps
            if not _is_singular(correlation, floor):
                spectrum = SpectralCovariance.from_matrix(matrix)
                if spectrum.smallest > 0:  # pivots can hide what rounding then brings to light
                    return spectrum
            share = AUTO_REGULARISATION
            n_directions = int((np.linalg.eigvalsh(correlation) > floor).sum())
            self._warn_singular(constant, min(n_directions, len(matrix) - 1))
        return SpectralCovariance.from_matrix(matrix + np.diag(share * scales))

    def _regular_diagonal(self, variances):
        constant = variances <= 0
        scales = np.where(constant, variances[~constant].mean(), variances)
        share = self.reg_covar
        if share == "auto":
            share = AUTO_REGULARISATION if constant.any() else 0.0
            if share:
                self._warn_singular(constant, int((~constant).sum()))
        return SpectralCovariance(variances + share * scales)

    def _low_rank(self, moments, column_variances):
        total, d = float(column_variances.sum()), len(column_variances)
        if isinstance(moments, FactorMoments):
            variances, axes = moments.spectrum()
        else:
            spectrum = SpectralCovariance.from_matrix(moments.covariance())
            variances, axes = spectrum.variances, spectrum.axes
        rank = self.rank
        if rank is None:
            rank = _rank_by_bic(variances[:MAX_RANK], total, d, moments.weight)
        variances, axes = variances[:rank], axes[:, :rank]
        rest = d - len(variances)
        residual = max(total - float(variances.sum()), 0.0) / rest if rest else 0.0
        share = self.reg_covar
        if share == "auto":
            floor = 10 * d * np.finfo(np.float64).eps * max(variances.max(initial=0), residual)
            n_directions = int((variances > floor).sum()) + rest * (residual > floor)
            share = AUTO_REGULARISATION if n_directions < d else 0.0
            if share:
                self._warn_singular(column_variances <= 0, n_directions)
        extra = share * total / d
        return SpectralCovariance(variances + extra, axes, residual + extra)

    def _warn_singular(self, constant, n_directions):
        warn_user(
            f"{where_singular(self, constant, n_directions)}: {AUTO_REGULARISATION:g} of each "
            "column's variance was added to give it a density; set reg_covar, or use "
            "covariance='ledoit_wolf' or 'oas', to choose otherwise.",
        )

    # ------------------------------------------------------------------ closed forms

    @property
    def covariance_(self) -> np.ndarray:
        """The fitted covariance as a matrix."""
        check_is_fitted(self)
        return self.model_.covariance.to_matrix()

    def flow(self, X, sigma_from, sigma_to):
        """Exact probability-flow map of rows from one noise level to another.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows at noise level ``sigma_from``.
        sigma_from, sigma_to : float or array-like of shape (n_samples,)
            Zero is the law of the data.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        return self.model_.flow(self._rows(X), sigma_from, sigma_to)

    def emergence_levels(self, *, fraction=None, rho=7.0):
        """Noise level at which each principal axis emerges; see ``GaussianModel``.

        Parameters
        ----------
        fraction : float in (0, 1), optional
            Level at which this fraction of the final amplitude is reached; by default the
            level at which the amplitude changes fastest.
        rho : float
            The clock by which fastest is judged: uniform in ``sigma**(1 / rho)``.

        Returns
        -------
        ndarray of shape (n_components,)
            In the order of ``components_``; ``schedule.time_of`` turns them into times.
        """
        check_is_fitted(self)
        return np.sort(self.model_.emergence_levels(fraction=fraction, rho=rho))[::-1]


def _is_singular(correlation, floor):
    """Whether some column is a linear function of those before it: a Cholesky pivot below floor."""
    try:
        pivots = np.linalg.cholesky(correlation).diagonal() ** 2
    except np.linalg.LinAlgError:
        return True
    return bool(pivots.min() < floor)


def _rank_by_bic(variances, total, d, n):
    """Number of axes of least Bayesian information criterion of probabilistic PCA."""
    candidates = np.arange(min(len(variances), d - 1) + 1)
    explained = np.concatenate([[0.0], np.cumsum(variances)])[candidates]
    residual = np.maximum(total - explained, 0) / (d - candidates)
    floor = np.finfo(np.float64).eps * total
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.maximum(variances, floor)))])[candidates]
    deviance = n * (logs + (d - candidates) * np.log(np.maximum(residual, floor)))
    n_parameters = d * candidates - candidates * (candidates - 1) / 2 + 1
    return int(candidates[np.argmin(deviance + n_parameters * np.log(n))])
