r"""GMMScore: fit a Gaussian mixture by EM, diffuse it in closed form.

The model is :math:`\sum_k w_k N(\mu_k, C_k)`; noise only widens its components
(:mod:`skdiffusion.models.mixture`). Fitting is EM (Dempster, Laird & Rubin 1977) on columns
made free of units, with two regularisations of each covariance in the M-step,

.. math:: C_k \leftarrow \frac{S_k + \nu\, T_k^{1/2} P T_k^{1/2}}{N_k + \nu}
          + \rho \operatorname{diag}(v),

:math:`S_k, N_k` scatter and mass of the component, :math:`P` the shape that the components have
in common, :math:`T_k` the scales of the component's columns, :math:`v` the variances of the
columns (:mod:`skdiffusion.estimators._pull`). The additive share :math:`\rho` (``reg_covar``) keeps
covariances regular. The :math:`\nu` pseudo-rows (``shrinkage``) keep small components honest:
they matter where a component has few rows for its :math:`d^2/2` parameters and vanish where it
has many, and they are what makes mixtures of many components safe on small tables. A ``background``
keeps a row far from all components from costing more than the others are worth
(:mod:`skdiffusion.estimators._background`).

The mean of several mixtures (``n_averaged``) is nearly always the better density
(:mod:`skdiffusion.estimators._averaging`).
"""

from __future__ import annotations

import copy

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators import _em
from skdiffusion.estimators._averaging import apart, average, distinct
from skdiffusion.estimators._background import background_of
from skdiffusion.estimators._far_rows import QUANTILE_ROWS, warn_of_far_rows
from skdiffusion.estimators._frame import Frame
from skdiffusion.estimators._lazy_mixture_rows import LazyMixtureRows
from skdiffusion.estimators._low_rank_form import LowRankForm
from skdiffusion.estimators._mixture_answers import MixtureAnswers
from skdiffusion.estimators._mixture_forms import (
    DiagonalForm,
    FullForm,
    SphericalForm,
    TiedForm,
)
from skdiffusion.estimators._seeding import distinct_rows
from skdiffusion.estimators._selection import choose
from skdiffusion.estimators._singular import warn_of_many_components, warn_of_singular_rows
from skdiffusion.estimators._stepwise import Stepwise
from skdiffusion.models import MixtureModel
from skdiffusion.utils.lazy_rows import LazyRows, is_lazy
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_rows, check_weights, evenly_spaced
from skdiffusion.utils.validation import (
    as_numbers,
    check_count,
    check_flag,
    check_number,
    lookup,
)
from skdiffusion.utils.warning import warn_user
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["DEFAULT_REGULARISATION", "GMMScore"]

FORMS = {
    "full": FullForm,
    "tied": TiedForm,
    "diag": DiagonalForm,
    "spherical": SphericalForm,
    "low_rank": LowRankForm,
}
INITS = ("kmeans", "k-means++", "random")
CRITERIA = ("bic", "held_out")
FLOOR = "The least variance of a component is a share of its square, beyond that of other rows"
DEFAULT_REGULARISATION = 1e-6
"""Who names it has chosen it: rows without a density are then not warned of."""
DEFAULT_RANK = 8
FEW_ROWS = 10_000
"""Distinct rows up to which several starts are affordable by default."""


def _is_one_mixture(estimator):
    if estimator.n_averaged == 1:
        return True
    raise AttributeError("partial_fit updates one mixture: n_averaged must be 1.")


class GMMScore(MixtureAnswers):
    r"""Gaussian mixture score model: fitted by EM, exact at every noise level.

    Parameters
    ----------
    n_components : int or {"bic", "held_out"}
        Number of components, or how to choose it: least Bayesian information criterion, or
        best log-likelihood of held-out rows, which then also chooses the regularisations
        that are ``"auto"``.
    covariance_type : {"full", "tied", "diag", "spherical", "low_rank"}
        One matrix per component, one for all, diagonals, isotropic, or leading axes plus an
        isotropic rest (mixture of probabilistic PCA), which is affordable in many columns.
    rank : int, optional
        Number of axes per component for ``"low_rank"``, fewer than columns; 8 by default, or
        all but one where there are fewer.
    init : {"kmeans", "k-means++", "random"} or array-like of shape (n_components, n_features)
        Seeds of the components, which start from the rows nearest to them: spread out and
        refined, spread out, any rows, or these.
    reg_covar : "auto" or float
        Share of each column's variance added to the covariances: free of units. ``"auto"`` is
        1e-6, or chosen with ``n_components="held_out"``.
    shrinkage : "auto" or float
        Pseudo-rows that pull the covariance of every component to the shape that the components
        have in common. Its size, and the width of each column in it, are its own as soon as a
        handful of rows tell them. 0 is maximum likelihood. ``"auto"`` is as many as rows determine
        a component: one more than columns for ``"full"``, two more than the rank for
        ``"low_rank"``, else 2; or chosen with ``n_components="held_out"``.
    background : "auto" or bool
        Whether a last component, three times as wide as the data, stands for rows that no other
        component expects: of one row in ``n`` where none was seen. It costs ``1/n`` nats a row and
        keeps one far row from costing hundreds; samples may be such rows. ``"auto"`` is
        ``False``, or chosen with ``n_components="held_out"``.
    n_init : "auto" or int
        Number of starts: all are run for ten iterations, the one of the best likelihood to the
        end. ``"auto"`` is 3 up to 10,000 distinct rows and 1 beyond, and 1 for averages.
    n_averaged : int
        Number of mixtures, each from starts of its own, whose average density is the model, with
        so many times the components, or fewer where starts end in the same optimum. With 5 or 10
        the density of rows not seen is nearly always better; with 1, the default, components are
        clusters.
    tol : float
        EM stops when the mean log-likelihood of a row gains less than this.
    max_iter : int
        Largest number of EM iterations.
    max_components : int
        Largest number tried when ``n_components`` is to be chosen.
    warm_start : bool
        Whether ``fit`` starts from the present parameters, of every mixture that is averaged; what
        was chosen stays.
    schedule : "auto", str or NoiseSchedule
        Spacing of noise levels for samplers and trajectories, and default of ``at_time``;
        ``"auto"`` spaces them by the spectrum of the data, where that suits the sampler.
    sampler : str, BaseSampler or None
        Default of ``sample``; ``None`` draws exactly.
    sigma_min, sigma_max : float, optional
        Range of noise levels in the units of ``X``; by default from the data.
    verbose : bool
        Whether to show the progress of EM.
    random_state : None, int, Generator or RandomState
        Of the seeds.

    Attributes
    ----------
    model_ : MixtureModel
        The fitted score model.
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_ : ndarray
        ``(k, d, d)`` for full and low rank, ``(d, d)`` tied (``(k, d, d)`` if averaged), ``(k, d)``
        diagonal, ``(k,)`` spherical; formed when asked for.
    n_components_ : int
        Of all averaged mixtures; the background, which is the last, included.
    background_ : bool
    reg_covar_, shrinkage_ : float
        Regularisation that was used.
    lower_bound_ : float
        Mean log-likelihood of the training rows, in nats and in the units of ``X``; of averaged
        mixtures the mean of theirs, which their average exceeds.
    lower_bounds_ : list of float
        The same after every iteration, of the mixture that was found last.
    n_iter_ : int
        Iterations of the best start; the most that an averaged mixture took.
    converged_ : bool
    selection_ : list of tuple
        ``(n_components, reg_covar, shrinkage, background, value)`` of all candidates, where
        ``n_components`` was chosen; larger values are better.
    scale_, sigma_min_, sigma_max_ : float
        Scale of the data and range of noise levels.
    far_field_ : GaussianModel
        The Gaussian with the mixture's moments.

    See Also
    --------
    GaussianScore : one component.
    sklearn.mixture.GaussianMixture : EM without noise levels; see ``from_sklearn``.

    Notes
    -----
    Equal rows are merged and all are put in a canonical order first: a fit does not depend on
    the order of the rows, and a weight of 2 equals a repeated row to the last digit.
    Rows with missing values (NaN) contribute what was observed of them. The products of EM
    are computed in the precision of ``X``: float32 rows fit in about half the time.
    ``low_rank`` and ``spherical`` depend on the relative units of the columns; the other
    forms do not.

    References
    ----------
    B. Wang and J. J. Vastola, "The Unreasonable Effectiveness of Gaussian Score
    Approximation for Diffusion Models and its Applications", TMLR 2024.

    D. Ormoneit and V. Tresp, "Averaging, maximum penalized likelihood and Bayesian estimation
    for improving Gaussian mixture probability density estimates", IEEE Transactions on Neural
    Networks 9, 1998.

    M. E. Tipping and C. M. Bishop, "Mixtures of probabilistic principal component
    analyzers", Neural Computation 11, 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GMMScore
    >>> X = load_iris().data
    >>> est = GMMScore(n_components=3, random_state=0).fit(X)
    >>> est.sample(2, random_state=0).shape
    (2, 4)
    >>> est.responsibilities(X[:2], sigma=0.1).max(axis=1).round(2)
    array([1., 1.])
    >>> given = est.condition({2: 1.5, 3: 0.2})  # the sepal of a flower with this petal
    >>> given.score_samples([[5.0, 3.4]]).shape
    (1,)
    """

    def __init__(
        self,
        n_components=10,
        *,
        covariance_type="full",
        rank=None,
        init="kmeans",
        reg_covar="auto",
        shrinkage="auto",
        background="auto",
        n_init="auto",
        n_averaged=1,
        tol=1e-3,
        max_iter=100,
        max_components=20,
        warm_start=False,
        schedule="auto",
        sampler=None,
        sigma_min=None,
        sigma_max=None,
        verbose=False,
        random_state=None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.rank = rank
        self.init = init
        self.reg_covar = reg_covar
        self.shrinkage = shrinkage
        self.background = background
        self.n_init = n_init
        self.n_averaged = n_averaged
        self.tol = tol
        self.max_iter = max_iter
        self.max_components = max_components
        self.warm_start = warm_start
        self.schedule = schedule
        self.sampler = sampler
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.verbose = verbose
        self.random_state = random_state

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None):
        """Fit the mixture by expectation-maximisation.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows; NaN where a value is missing. Or a dask array or data frame without
            missing values: EM begins on at most 20,000 random rows, gathered once, and goes on by
            sums over the blocks.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            A weight of 2 equals a repeated row, a weight of 0 a removed one.

        Returns
        -------
        GMMScore

        Raises
        ------
        ValueError
            If ``X`` has no variance, a column has no value, or a parameter is out of its range.

        Warns
        -----
        ConvergenceWarning
            If EM did not converge in ``max_iter`` iterations.
        UserWarning
            If it was interrupted; the parameters reached are kept. If a few far rows decide the
            standard deviation of a column, there are as many components as distinct rows, or the
            covariance of the rows is singular and ``reg_covar`` is 1e-6 by default.
        """
        self._check_parameters()
        rng = as_generator(self.random_state)
        if is_lazy(X):
            per_column = FORMS[self.covariance_type].whitens_columns
            rows = LazyMixtureRows(LazyRows(self, X, sample_weight), per_column, rng)
            frame = rows.frame
        else:
            X = check_rows(self, X, reset=True, ensure_all_finite="allow-nan", ensure_min_samples=2)
            weights = check_weights(sample_weight, len(X))
            frame, rows = self._framed(X, weights)
            some = evenly_spaced(np.flatnonzero(weights), QUANTILE_ROWS)
            warn_of_far_rows(X[some], frame.deviations, FLOOR)
        self._fit_rows(frame, rows, rng)
        self._stepwise = None
        return self

    @available_if(_is_one_mixture)
    @whole_or_not_at_all
    def partial_fit(self, X, y=None, sample_weight=None):
        r"""Update the fit by a batch of rows: stepwise EM (Cappé & Moulines 2009).

        The first batch is fitted as by ``fit`` and sets the units; it begins anew after a ``fit``,
        which keeps no statistics of its rows. Later ones move the
        expected statistics by a step :math:`(W_b/W)^{0.7}`, :math:`W_b` the weight of the batch
        and :math:`W` that of all rows so far, and cost one pass over the batch. Only one mixture
        can be updated: there is no such method where ``n_averaged`` is more than 1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        GMMScore
        """
        self._check_parameters()
        first = getattr(self, "_stepwise", None) is None
        X = check_rows(
            self,
            X,
            reset=first,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if first else 1,
        )
        weights = check_weights(sample_weight, len(X))
        if first:
            frame, rows = self._framed(X, weights)
            run = self._fit_rows(frame, rows, as_generator(self.random_state))
            form = self._form(self.reg_covar_, self.shrinkage_, self.background_, rows.few)
            self._stepwise = Stepwise(frame, form, run.mixture, rows)
            return self
        self._stepwise = copy.copy(self._stepwise)  # the present one stays, should this fail
        log_likelihood = self._stepwise.update(X, weights)
        if log_likelihood is None:
            return self
        self.lower_bound_ = log_likelihood
        self.lower_bounds_ = [*self.lower_bounds_, log_likelihood]
        self.n_iter_ += 1
        return self._set_mixture(self._stepwise.model())

    @classmethod
    def from_parameters(cls, weights, means, covariances, **params):
        """A fitted estimator from known parameters.

        Parameters
        ----------
        weights : array-like of shape (k,)
        means : array-like of shape (k, d)
        covariances : array-like of shape (k,), (k, d) or (k, d, d), or sequence
            As in :class:`~skdiffusion.models.MixtureModel`; with ``covariance_type="tied"``
            a single matrix too.
        **params
            Constructor parameters.

        Returns
        -------
        GMMScore

        Raises
        ------
        ValueError
            If the parameters do not describe a mixture.

        Examples
        --------
        >>> est = GMMScore.from_parameters([0.5, 0.5], [[-1.0], [1.0]], [0.25, 0.25])
        >>> est.denoise([[0.3]], sigma=0.5).round(6)
        array([[0.418525]])
        """
        shape = np.shape(means)
        if params.get("covariance_type") == "tied" and np.shape(covariances) == shape[1:] * 2:
            covariances = [np.asarray(covariances, dtype=np.float64)] * shape[0]
        self = cls(**{"n_components": shape[0] if len(shape) else 1, **params})
        model = MixtureModel(weights, means, covariances)
        self._check_parameters()
        self.n_features_in_ = model.n_features
        self._stepwise = None
        return self._set_mixture(model)

    @classmethod
    def from_sklearn(cls, mixture, **params):
        """A fitted estimator from a fitted mixture of scikit-learn.

        Parameters
        ----------
        mixture : GaussianMixture or BayesianGaussianMixture
            Fitted.
        **params
            Constructor parameters.

        Returns
        -------
        GMMScore
        """
        check_is_fitted(mixture, "covariances_")
        kind = mixture.covariance_type
        covariances = mixture.covariances_
        if kind == "tied":
            covariances = [np.asarray(covariances, dtype=np.float64)] * len(mixture.weights_)
        params = {"covariance_type": kind, **params}
        self = cls.from_parameters(mixture.weights_, mixture.means_, covariances, **params)
        if hasattr(mixture, "feature_names_in_"):
            self.feature_names_in_ = np.array(mixture.feature_names_in_)
        return self

    # ------------------------------------------------------------------ inner workings

    def _check_parameters(self):
        super()._check_parameters()
        if isinstance(self.n_components, str):
            lookup(self.n_components, dict.fromkeys(CRITERIA), "n_components", "an integer")
        else:
            check_count(self.n_components, "n_components")
        lookup(self.covariance_type, FORMS, "covariance_type")
        if isinstance(self.init, str):
            lookup(self.init, dict.fromkeys(INITS), "init", "an array of means")
        for name in ("reg_covar", "shrinkage"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value == "auto"):
                check_number(value, name, least=0)
        if not isinstance(self.background, (bool, np.bool_)) and (
            not isinstance(self.background, str) or self.background != "auto"
        ):
            raise ValueError(f"background must be 'auto', True or False; got {self.background!r}.")
        check_flag(self.warm_start, "warm_start")
        if self._wants_background and self.covariance_type == "tied":
            raise ValueError(
                "a background is wider than the other components: covariance_type cannot be 'tied'."
            )
        if self.rank is not None:
            check_count(self.rank, "rank")
        if isinstance(self.n_init, str):
            lookup(self.n_init, {"auto": None}, "n_init", "an integer")
        else:
            check_count(self.n_init, "n_init")
        for name in ("n_averaged", "max_iter", "max_components"):
            check_count(getattr(self, name), name)
        check_number(self.tol, "tol", least=0)
        if self.n_averaged > 1 and not isinstance(self.init, str):
            raise ValueError(
                "mixtures that start from the same means are the same: init must be a name "
                "where n_averaged is more than 1."
            )

    @property
    def _wants_background(self):
        return not isinstance(self.background, str) and bool(self.background)

    def _form(self, floor, pull, background, rows):
        """The form of the covariances, with the background of these rows if there is to be one."""
        form = self._plain_form(rows.all_X.shape[1], floor, pull)
        form.background = background_of(form, rows) if background else None
        return form

    def _plain_form(self, d, floor, pull):
        rank = min(DEFAULT_RANK, d - 1) if self.rank is None else self.rank
        if self.covariance_type == "low_rank" and rank >= max(d, 2):
            raise ValueError(
                f"rank must be less than the number of columns, {d}; got {rank}: use "
                "covariance_type='full'."
            )
        return FORMS[self.covariance_type](floor, pull, rank)

    def _regularisation(self, d):
        """The additive share, the pseudo-rows, and whether there is a background."""
        floor = DEFAULT_REGULARISATION if self.reg_covar == "auto" else float(self.reg_covar)
        pull = (
            self._plain_form(d, floor, 0.0).enough(d)
            if self.shrinkage == "auto"
            else self.shrinkage
        )
        return floor, float(pull), self._wants_background

    def _framed(self, X, weights):
        """Units of the data and its standardised distinct rows, in canonical order."""
        X, weights = distinct_rows(X, weights)
        frame = Frame.of(X, weights, FORMS[self.covariance_type].whitens_columns)
        return frame, frame.rows(X, weights)

    def _fit_rows(self, frame, rows, rng):
        d = frame.n_features
        setting = self._regularisation(d)  # fails early on a wrong rank
        init = self.init if isinstance(self.init, str) else self._means(frame)
        k, selection = self.n_components, None
        n_init = self.n_init
        if n_init == "auto":
            n_init = 3 if len(rows.few.all_X) <= FEW_ROWS and self.n_averaged == 1 else 1
        with _em.Progress(self.verbose) as progress:
            options = {"tol": self.tol, "max_iter": self.max_iter, "progress": progress}
            goes_on = self.warm_start and hasattr(self, "model_")
            if goes_on and isinstance(k, str) and hasattr(self, "selection_"):
                selection = self.selection_
                k, *setting, _ = max(selection, key=lambda tried: tried[-1])
            elif isinstance(k, str):
                tunes_background = self.background == "auto" and self.covariance_type != "tied"
                k, *setting, selection = choose(
                    k,
                    self._form,
                    rows.few,
                    self.max_components,
                    rng,
                    init=init,
                    n_init=n_init,
                    tune=(self.reg_covar == "auto", self.shrinkage == "auto", tunes_background),
                    defaults=setting,
                    **options,
                )
            form = self._form(*setting, rows.few)
            if isinstance(self.reg_covar, str) and form.floor == DEFAULT_REGULARISATION:
                warn_of_singular_rows(self, frame.deviations == 0, rows.few, form)
            warn_of_many_components(k, rows.few)
            starts = [init] * self.n_averaged
            if goes_on:
                starts = [frame.mixture(part, form) for part in self._parts(d, k, setting[2])]
            runs = []
            while len(runs) < len(starts) and not (runs and runs[-1].interrupted):
                runs.append(self._run(form, rows, k, starts[len(runs)], n_init, rng, options))
        converged = all(run.converged for run in runs)
        if not (converged or runs[-1].interrupted) and self.tol > 0:
            warn_user(
                f"EM did not converge in {self.max_iter} iterations: increase max_iter or tol.",
                ConvergenceWarning,
            )
        jacobian = frame.log_jacobian(rows)
        mixtures, counts = distinct([run.mixture for run in runs])
        models = [frame.model(mixture, form) for mixture in mixtures]
        self._set_mixture(average(models, counts, setting[2]))
        self.reg_covar_, self.shrinkage_, self.background_ = setting
        self.lower_bound_ = float(np.mean([run.log_likelihood for run in runs])) + jacobian
        self.lower_bounds_ = [value + jacobian for value in runs[-1].history]
        self.n_iter_, self.converged_ = max(run.n_iter for run in runs), converged
        self.__dict__.pop("selection_", None)
        if selection is not None:
            self.selection_ = selection
        return runs[-1]

    def _parts(self, d, k, background):
        """The present mixtures, as many as are averaged."""
        parts = None
        if self.model_.n_features == d:
            parts = apart(self.model_, k, self.n_averaged, background)
        if parts is None:
            raise ValueError(
                "warm_start needs the number of columns and components of the last fit."
            )
        return parts

    def _run(self, form, rows, k, init, n_init, rng, options):
        """EM from the best of several starts."""
        if rows.few is not rows and isinstance(init, str):  # most of the way on a few
            init = _em.best_of(form, rows.few, k, init, n_init, rng, **options).mixture
        return _em.best_of(form, rows, k, init, n_init, rng, **options)

    def _means(self, frame):
        if isinstance(self.n_components, str):
            raise ValueError("init can be an array of means only with an integer n_components.")
        means = as_numbers(self.init)
        shape = (self.n_components, frame.n_features)
        if means.shape != shape or not np.isfinite(means).all():
            raise ValueError(
                f"init must be a name or finite means of shape {shape}; got shape {means.shape}."
            )
        return frame.inward(means)
