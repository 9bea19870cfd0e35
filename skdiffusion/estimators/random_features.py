r"""RandomFeatureScore: a denoiser trained in closed form, at every training time.

With features drawn at random and only the last layer trained
(:mod:`skdiffusion.models.random_features`), denoising is linear least squares. Its moments are
exact, as if every row had infinitely many draws of noise, and one eigendecomposition
:math:`U = Q \Lambda Q^\top` of the features' second moments gives the network after any training
time :math:`\tau` and under any penalty (:mod:`skdiffusion.estimators._random_moments`): what is
along eigenvector ``k`` is learned in time :math:`1/(2\lambda_k)`.

The error of the trained network splits exactly: in any direction ``v``, with ``D`` the exact
denoiser of the rows,

.. math:: E\big(v\cdot(D_{A(\tau)} - D)\big)^2 = E\big(v\cdot(D_{A_*} - D)\big)^2
          + v^\top (A(\tau) - A_*)\, U\, (A(\tau) - A_*)^\top v ,

what the features cannot express, and what training has not reached, or has passed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._far_rows import QUANTILE_ROWS, warn_of_far_rows
from skdiffusion.estimators._moments import FullMoments, gathered
from skdiffusion.estimators._random_errors import (
    ErrorDecomposition,
    architecture_part,
    optimisation_part,
)
from skdiffusion.estimators._random_setting import WEIGHTS, equations_of, new_setting
from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.models import AffineModel, GaussianModel
from skdiffusion.models._feature_maps import FEATURE_MAPS
from skdiffusion.models.random_features import RandomFeatureModel
from skdiffusion.parameterizations import MixtureParameterization, check_parameterization
from skdiffusion.utils.lazy_rows import LazyRows, is_lazy
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_rows, check_weights, evenly_spaced
from skdiffusion.utils.validation import check_count, check_flag, check_number, lookup
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["ErrorDecomposition", "RandomFeatureScore"]

FAR_ROWS = "Noise levels and features are in proportion to it, and see little of the others"


class RandomFeatureScore(BaseScoreEstimator):
    r"""Score model linear in random features, trained exactly and in closed form.

    Parameters
    ----------
    n_features : int
        Number of random features.
    feature_map : {"cos", "relu"}
        Cosines with uniform phases (random Fourier features), or a hidden layer of ReLUs.
    length_scale : "auto" or float
        Frequencies are standard normal vectors over this length, on points that are scaled to
        unit variance at every level. ``"auto"`` is a sixth of ``n_features_in_``, but at most its
        square root, the typical distance from the mean: the more columns, the fewer details.
    joint : bool
        Whether one matrix serves all noise levels, with features of point and level, as in a
        network; by default every level of a grid has its own.
    level_scale : float
        Length scale of the features of a joint model in the logarithm of the noise level: what is
        learned at one level is felt up to levels this many factors of ``e`` away. Levels of
        training should be closer to each other than that.
    n_levels : int
        Noise levels of training, uniform in the logarithm from ``sigma_min_`` to ``sigma_max_``.
    parameterization : str or Parameterization
        What the features predict: ``"gaussian"`` (what the best linear denoiser misses),
        ``"data"``, ``"noise"``, ``"score"``, ... (:mod:`skdiffusion.parameterizations`, all but
        ``"mixture"``).
    weight : "auto", {"data", "noise", "score"} or callable
        Weight of a level in the loss: errors of the prediction count alike, or those of the
        denoiser, of the noise (denoiser over :math:`\sigma^2`), of the score (over
        :math:`\sigma^4`); or ``weight(levels)`` on squared errors of the denoiser. Weights have
        mean one over the levels, in terms of the prediction. Without ``joint`` they only say how
        fast a level learns, and how much ``alpha`` weighs there.
    alpha : float
        Penalty on squared coefficients, beside a loss that is summed over rows, as in
        scikit-learn's ``Ridge``.
    flow_time : float, optional
        Training time of gradient flow; by default until it stands still.
    init_scale : float
        Standard deviation of the prediction before training.
    likelihood : {"denoising", "ode"}
        What ``score`` is: the denoising bound, or the mean log-density along the flow.
    schedule, sampler, sigma_min, sigma_max
        As in :class:`GaussianScore`.
    random_state : None, int, Generator or RandomState
        Features and initial coefficients.

    Attributes
    ----------
    model_ : AffineModel of RandomFeatureModel
        The fitted score model.
    coefficients_ : ndarray of shape (n_columns, n_features) or (n_levels, ...)
        Trained matrix, or one per level, in coordinates of the principal axes.
    spectrum_ : ndarray of shape (n_matrices, n_features)
        Eigenvalues of the features' second moments, largest first; one row per level, or one row.
    timescales_ : ndarray of shape (n_matrices, n_features)
        Time in which gradient flow learns along each eigenvector; infinite where there is nothing
        to learn.
    levels_ : ndarray of shape (n_levels,)
        Noise levels of training, in the units of ``X``.
    scale_, sigma_min_, sigma_max_ : float
        Scale of the data and range of noise levels.
    far_field_ : GaussianModel
        The Gaussian with the moments of the data.

    See Also
    --------
    sklearn.kernel_approximation.RBFSampler : the same features for other tasks.

    References
    ----------
    Y. He, Y. Qiu and M. Tao, on the ridge manifold of diffusion models, arXiv:2602.06021, 2026.

    A. Rahimi and B. Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import RandomFeatureScore
    >>> X = load_iris().data
    >>> est = RandomFeatureScore(100, n_levels=16, random_state=0).fit(X)
    >>> est.sample(2, random_state=0).shape
    (2, 4)
    >>> early, late = est.path([0.1, 100.0])  # the same network after other training times
    """

    def __init__(
        self,
        n_features=300,
        *,
        feature_map="cos",
        length_scale="auto",
        joint=False,
        level_scale=1.0,
        n_levels=32,
        parameterization="gaussian",
        weight="auto",
        alpha=1.0,
        flow_time=None,
        init_scale=0.0,
        likelihood="denoising",
        schedule="auto",
        sampler=None,
        sigma_min=None,
        sigma_max=None,
        random_state=None,
    ):
        self.n_features = n_features
        self.feature_map = feature_map
        self.length_scale = length_scale
        self.joint = joint
        self.level_scale = level_scale
        self.n_levels = n_levels
        self.parameterization = parameterization
        self.weight = weight
        self.alpha = alpha
        self.flow_time = flow_time
        self.init_scale = init_scale
        self.likelihood = likelihood
        self.schedule = schedule
        self.sampler = sampler
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.random_state = random_state

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None):
        """Draw the features and train their coefficients.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            At least two rows. Or a dask array or data frame: its blocks are summed where they lie.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            A weight of 2 equals a repeated row.

        Returns
        -------
        RandomFeatureScore

        Raises
        ------
        ValueError
            If ``X`` is not finite, has fewer than two rows or no variance, or a parameter is out
            of its range.

        Warns
        -----
        UserWarning
            If a few far rows decide the standard deviation of a column.
        """
        self._check_parameters()
        if is_lazy(X):
            return self._fit_lazy(LazyRows(self, X, sample_weight))
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        weights = check_weights(sample_weight, len(X))
        moments = FullMoments(X.shape[1]).update(X, weights)
        setting = new_setting(self, moments)
        some = evenly_spaced(np.flatnonzero(weights), QUANTILE_ROWS)
        warn_of_far_rows(X[some], np.sqrt(setting.column_variances), FAR_ROWS, shared=True)
        return self._train(setting, moments, equations_of(X, weights, setting))

    @whole_or_not_at_all
    def partial_fit(self, X, y=None, sample_weight=None):
        """Add a batch of rows to the normal equations and solve them anew.

        Coordinates, features and noise levels are those of the first batch, so that it should be
        a fair sample; given these, batches are as exact as all rows at once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            At least two rows in the first batch.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        RandomFeatureScore
        """
        if not hasattr(self, "_setting"):
            return self.fit(X, sample_weight=sample_weight)
        self._check_parameters()
        X = check_rows(self, X, reset=False, dtype=np.float64)
        weights = check_weights(sample_weight, len(X))
        equations = equations_of(X, weights, self._setting) + self._spectrum.equations(
            self._moments.weight, self._second
        )
        moments = self._moments + FullMoments(X.shape[1]).update(X, weights)
        return self._train(self._setting, moments, equations)

    def _fit_lazy(self, rows):
        moments = rows.total(gathered, FullMoments(rows.n_features))
        if moments.n_rows < 2:
            raise ValueError(f"X must have at least 2 rows; got {moments.n_rows}.")
        setting = new_setting(self, moments)
        return self._train(setting, moments, rows.total(equations_of, setting))

    def _check_parameters(self):
        super()._check_parameters()
        check_count(self.n_features, "n_features")
        check_count(self.n_levels, "n_levels", 2)
        lookup(self.feature_map, FEATURE_MAPS, "feature_map")
        if isinstance(check_parameterization(self.parameterization), MixtureParameterization):
            raise ValueError(
                "parameterization='mixture' is NeuralScore's alone: random features add to no "
                "mixture; take 'gaussian'."
            )
        if isinstance(self.length_scale, str):
            lookup(self.length_scale, {"auto": None}, "length_scale", "a positive number")
        else:
            check_number(self.length_scale, "length_scale", above=0)
        if not callable(self.weight):
            lookup(self.weight, {"auto": None, **WEIGHTS}, "weight", "a callable of the levels")
        check_flag(self.joint, "joint")
        check_number(self.level_scale, "level_scale", above=0)
        check_number(self.alpha, "alpha", least=0)
        check_number(self.init_scale, "init_scale", least=0)
        if self.flow_time is not None:
            check_number(self.flow_time, "flow_time", least=0)

    def _train(self, setting, moments, equations):
        spectrum = equations.spectrum()
        trained = self._coefficients(setting, spectrum, moments.weight, self.flow_time)
        self._set_model(
            self._model(setting, trained),
            GaussianModel(moments.mean, moments.covariance()),
            setting.column_variances,
        )
        self._setting, self._moments, self._spectrum = setting, moments, spectrum
        self._second = equations.second
        self.levels_ = setting.levels * setting.scale
        self.spectrum_ = spectrum.values[:, ::-1]
        with np.errstate(divide="ignore"):
            self.timescales_ = 0.5 / self.spectrum_
        return self

    def _coefficients(self, setting, spectrum, total, time):
        time = np.inf if time is None else time
        return spectrum.coefficients(time, self.alpha / total, setting.start)

    def _model(self, setting, coefficients):
        levels = setting.levels
        inner = RandomFeatureModel(
            setting.features,
            coefficients[0] if setting.joint else coefficients,
            None if setting.joint else levels,
            (levels[0], levels[-1]),
        )
        return AffineModel(inner, setting.shift, setting.scale, setting.axes)

    # ------------------------------------------------------------------ training time

    @property
    def coefficients_(self) -> np.ndarray:
        """Trained matrix, or one per level, in coordinates of the principal axes."""
        check_is_fitted(self)
        return self.model_.model.coefficients

    def path(self, times: Any) -> list[AffineModel]:
        """The score model after each of several training times, from one eigendecomposition.

        Parameters
        ----------
        times : array-like of shape (n_times,)
            Training times, at least zero; infinity is allowed.

        Returns
        -------
        list of AffineModel

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> est = RandomFeatureScore(50, n_levels=8, random_state=0).fit(X)
        >>> untrained, trained = est.path([0.0, np.inf])
        >>> bool(np.all(trained.score(X, 1.0) == est.model_.score(X, 1.0)))
        True
        """
        check_is_fitted(self)
        return [self._model(self._setting, coefficients) for coefficients in self._along(times)]

    def denoising_loss(self, X: Any, times: Any = None) -> Any:
        """Exact loss on rows with infinitely many draws of noise: training and test curves.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Training rows give the training loss, others the test loss.
        times : array-like of shape (n_times,), optional
            Training times; by default that of the fit.

        Returns
        -------
        float or ndarray of shape (n_times,)
            Weighted squared error of what the features predict, summed over columns, averaged
            over rows, noise and levels.
        """
        equations = equations_of(*self._counted(X), self._setting)
        if times is None:
            return equations.loss(self.coefficients_.reshape(self._setting.start.shape))
        return np.array([equations.loss(coefficients) for coefficients in self._along(times)])

    def error_decomposition(
        self,
        X: Any,
        directions: Any = None,
        *,
        times: Any = None,
        n_noise: int = 8,
        random_state: Any = 0,
    ) -> ErrorDecomposition:
        r"""What keeps the model from the exact denoiser of rows, in given directions.

        The excess of the loss in a direction is the sum of two parts: the least that any
        coefficients could reach on these rows (architecture), and how far the trained ones are
        from those (optimisation: training time, penalty, and for rows other than the training
        rows the difference between the two).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            Rows whose exact denoiser is the aim.
        directions : array-like of shape (n_directions, n_columns), optional
            By default the columns.
        times : array-like of shape (n_times,), optional
            Training times; by default that of the fit.
        n_noise : int
            Pairs of opposite noise per row and level for the architecture part. The optimisation
            part needs none.
        random_state : None, int, Generator or RandomState
            Seed of the noise, which is keyed by the rows.

        Returns
        -------
        ErrorDecomposition
            In the units of the loss: for ``parameterization="data"`` squared errors of the
            denoiser over ``scale_**2``.
        """
        X, weights = self._counted(X)
        setting = self._setting
        if directions is None:
            directions = np.eye(X.shape[1])
        directions = np.asarray(directions, dtype=np.float64)
        if directions.ndim != 2 or directions.shape[1] != X.shape[1]:
            raise ValueError(
                f"directions must have shape (n_directions, {X.shape[1]}); got {directions.shape}."
            )
        if not np.isfinite(directions).all():
            raise ValueError("directions must be finite.")
        turned = directions @ setting.axes
        equations = equations_of(X, weights, setting)
        best = equations.spectrum().coefficients(np.inf, 0.0, setting.start)
        if times is None:
            trained = self.coefficients_.reshape(best.shape)
        else:
            trained = np.stack(list(self._along(times)))
        seed = int(as_generator(random_state).integers(2**62))
        n_noise = check_count(n_noise, "n_noise")
        return ErrorDecomposition(
            architecture_part(setting, setting.inward(X), best, turned, n_noise, seed),
            optimisation_part(equations, trained, best, turned),
            None if setting.joint else self.levels_,
        )

    def _along(self, times):
        times = np.asarray(times, dtype=np.float64)
        if times.ndim != 1 or not (times >= 0).all():
            raise ValueError("times must be a one-dimensional array of numbers of at least zero.")
        fitted = self._setting, self._spectrum, self._moments.weight
        return (self._coefficients(*fitted, time) for time in times)

    def _counted(self, X):
        X = self._rows(X, dtype=np.float64)
        return X, np.ones(len(X))
