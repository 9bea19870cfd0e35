r"""IntrinsicDimensionEstimator: how many dimensions data have, here and overall.

Around a point of a smooth :math:`d`-dimensional manifold with density the noised law obeys

.. math:: \log p_\sigma(x) = (d - m) \log\sigma + O(1), \qquad \sigma \to 0,

so the score of the data at small noise knows their dimension, and every method here reads it off a
score model (:mod:`~skdiffusion.geometry._dimension_methods`,
:mod:`~skdiffusion.geometry._flow_jacobian`). A sample has no small noise: below the distance of
neighbours it is points. The default therefore reads the statistics of neighbours at several scales
and corrects them by what they were in simulated laws of known dimension
(:mod:`~skdiffusion.geometry._neighbour_dimension`).
"""

from __future__ import annotations

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skdiffusion.geometry._given import fitted_model
from skdiffusion.geometry._neighbour_dimension import NeighbourDimension
from skdiffusion.geometry._neighbourhood_statistics import Neighbours, typical_variances
from skdiffusion.geometry._plateaus import DimensionCurve, find_plateaus
from skdiffusion.geometry._score_dimension import METHODS, ScoreDimension, level_grid
from skdiffusion.models import EmpiricalModel, GaussianModel
from skdiffusion.models.base import check_columns
from skdiffusion.noising import FAR, check_spread
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_rows
from skdiffusion.utils.validation import as_numbers, check_count, check_flag, check_number, lookup
from skdiffusion.utils.warning import warn_user
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["IntrinsicDimensionEstimator"]

CURVE_ROWS, MOST_ROWS = 256, 10_000
"""Rows over which a curve is averaged, and rows that are enough to know the whole by."""
FEW_ROWS = 20
LOWEST = 1e-3
"""Lowest level, as a share of the width of the data, of a model that knows all levels."""
MIN_SCORED = 0.05
"""Dimension that a row of lower dimension is scored with: a point predicts no distances."""
SCORED_ROWS = 3
"""Distinct rows from which a row has two neighbours."""
STALLED = 0.1
"""Distance from the dimension of the linear span at which a learned score is suspect."""


class IntrinsicDimensionEstimator(TransformerMixin, Configurable):
    r"""Intrinsic dimension of data, overall and around each row.

    Parameters
    ----------
    method : str
        ``"auto"`` is ``"flipd"`` if a score model is given, and otherwise the calibrated
        statistics of neighbours. The others read the dimension off a score model:

        - ``"flow_jacobian"``: singular values of the probability flow that do not shrink with
          the noise (Horvat & Pfister 2024), unaffected by gauge fields;
        - ``"flipd"``: how fast the log-density falls with the level (Kamkari et al. 2024);
        - ``"lidl"``: the same by regression over levels (Tempczyk et al. 2022);
        - ``"normal_bundle"``: directions that the scores around a row do not span
          (Stanczuk et al. 2024);
        - ``"spectrum"``: large eigenvalues of the denoiser's Jacobian (Ventura et al. 2025);
        - ``"denoising_loss"``: how well the noise is recognised (Yeats et al. 2025);
        - ``"noise_posterior"``: how well the level of added noise can be told
          (Sahraee-Ardakan et al. 2026), as :meth:`MarginalEnergy.codimension` reads it.
    score_estimator : estimator or score model, optional
        What the score is learned with: a clone is fitted to ``X``. A model that is fitted already
        comes as ``FrozenEstimator(model)`` or as a score model. By default the empirical law of
        the rows, seen from each row without itself.
    sigma : "auto", float or array-like of shape (n_levels,)
        Noise level in the units of ``X``, or increasing levels among which a plateau is chosen;
        ``"auto"`` takes levels from the lowest that the model knows to the width of the data.
    n_noise : int, optional
        Noise draws per row of ``"normal_bundle"`` (four per column and at least 128; more than
        there are columns),
        ``"denoising_loss"`` (16) and ``"noise_posterior"`` (2), and probes of the trace of
        ``"flipd"`` above 128 columns (16).
    conservative_projection : bool
        Whether to replace the score that is given by its gradient part first
        (:class:`~skdiffusion.ConservativityDecomposer`). A gauge field changes neither
        samples nor densities, but adds to what all methods but the flow read.
    n_jobs : int, optional
        Threads that share the rows.
    random_state : None, int, Generator or RandomState
        Of landmarks, resampling and noise.

    Attributes
    ----------
    dimension_ : float
        Dimension of the whole: of a score model the mean over rows of what the method reads off,
        between zero and the number of columns.
    std_error_ : float
        Its standard error: of the mean over rows and, for ``"auto"``, of the calibration too.
    dimension_pw_ : ndarray of shape (n_samples,)
        Dimension around each row. What is read off a score model at a row can be below zero or
        above the number of columns, and counts as these here. Means take it as it is, up to ten
        spreads from the median (of the empirical law, by default, as here): they are not the means
        of these.
    method_ : str
        The method that was used; ``"neighbours"`` for the calibrated default.
    curve_ : DimensionCurve
        Mean dimension over ``levels`` of noise, with standard errors, before any calibration.
    plateaus_ : list of Plateau
        Ranges of levels where the curve stands still, from small scales to large ones. Several are
        several answers, at several scales; none means that the curve depends on scale throughout.
    sigma_ : float
        The level that ``dimension_pw_`` refers to; NaN for the calibrated default.
    span_ : int
        Dimension of the linear span of the rows.
    gauge_cost_ : float
        With ``conservative_projection``: what the mean over rows would have been without, minus
        what it is. It may be more than there are columns.
    model_ : BaseScoreModel
        The score model.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Warns
    -----
    UserWarning
        If the curve of a score model has no plateau; if a learned score gives the dimension of the
        linear span, where score matching stalls before it sees curvature; if there are fewer than
        20 distinct rows; if the mean over rows is no dimension, or rows are so far from the law
        of the score model that their answers were held back in it.

    Notes
    -----
    Dimension is a question of distances: columns in different units should be brought to one
    scale first. Equal rows count once, constant columns do not count.

    References
    ----------
    C. Horvat and J.-P. Pfister, "On Gauge Freedom, Conservativity and Intrinsic Dimensionality
    Estimation in Diffusion Models", ICLR 2024.

    Examples
    --------
    >>> from skdiffusion.datasets import make_sphere, make_swiss_roll
    >>> from skdiffusion.geometry import IntrinsicDimensionEstimator
    >>> X, model = make_swiss_roll(1000, random_state=0)
    >>> est = IntrinsicDimensionEstimator(random_state=0).fit(X)
    >>> round(est.dimension_), est.transform(X[:3]).shape
    (2, (3, 1))

    An exact score model is followed to small noise:

    >>> X, model = make_sphere(50, dimension=10, n_features=100, random_state=0)
    >>> est = IntrinsicDimensionEstimator("flow_jacobian", score_estimator=model, sigma=0.01)
    >>> est.fit(X[:20]).dimension_
    10.0
    """

    def __init__(
        self,
        method="auto",
        *,
        score_estimator=None,
        sigma="auto",
        n_noise=None,
        conservative_projection=False,
        n_jobs=None,
        random_state=None,
    ):
        self.method = method
        self.score_estimator = score_estimator
        self.sigma = sigma
        self.n_noise = n_noise
        self.conservative_projection = conservative_projection
        self.n_jobs = n_jobs
        self.random_state = random_state

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None):
        """Estimate the dimension of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows.
        y : ignored

        Returns
        -------
        IntrinsicDimensionEstimator

        Raises
        ------
        ValueError
            If ``X`` is not finite, has fewer than two rows, or is in units in which squares are no
            numbers, or a parameter is out of its range.
        """
        method, levels = self._check_parameters()
        X = self._check_rows(X, reset=True)
        rng = as_generator(self.random_state)
        _, first, copy_of = np.unique(X, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # as they came: sorted rows would be others in other axes
        first, copy_of = first[order], np.argsort(order)[copy_of.ravel()]
        rows = X[first]
        check_spread(float(np.ptp(rows, axis=0).max()))
        self.span_ = _span(_some(rows, max(MOST_ROWS, 2 * X.shape[1]), rng))
        if len(rows) < FEW_ROWS:
            warn_user(
                f"X has only {len(rows)} distinct rows: their dimension is little more than a "
                f"guess; {FEW_ROWS} are the least that say something.",
            )
        self.method_, self.sigma_, self.plateaus_ = method, np.nan, []
        vars(self).pop("gauge_cost_", None)  # of an earlier fit
        self._nearest = Neighbours(rows)
        if not self.span_ and self.score_estimator is None:
            return self._set_point(X)
        variances = self._set_score(rows, X, method, rng)
        levels = self._levels(levels, rows, variances, rng)
        some = _some(rows, CURVE_ROWS, rng)
        values = self._score.values(some, levels)
        self.curve_ = DimensionCurve.from_rows(levels, self._score.for_means(values))
        self.plateaus_ = find_plateaus(levels, self.curve_.dimension)
        if method == "neighbours":
            self._neighbours = NeighbourDimension(rows, self.span_, rng, self.n_jobs)
            self.dimension_ = self._neighbours.dimension
            self.std_error_ = self._neighbours.std_error
            self.dimension_pw_ = self._local(X)
            return self
        self.sigma_ = self._choose_level(levels)
        self._set_means(rows, first, copy_of)
        self._warn_if_stalled(variances)
        return self

    def _set_means(self, rows, first, copy_of):
        """Answers of a score model at its level: of each row, and of the whole."""
        level = np.array([self.sigma_])
        values = self._score.values(rows, level)
        kept = self._score.for_means(values)
        whole = DimensionCurve.from_rows(level, kept)
        mean, error = float(whole.dimension[0]), float(whole.std_error[0])
        self._warn_if_far(values[0], kept[0], first)
        self._warn_if_no_dimension(mean, error)
        self.dimension_pw_ = self._score.as_dimensions(values[0])[copy_of]
        self.dimension_, self.std_error_ = float(self._score.as_dimensions(mean)), error
        if self.conservative_projection:
            given = self._score.with_model(self._given)
            self.gauge_cost_ = float(given.for_means(given.values(rows, level)).mean() - mean)

    def _set_point(self, X):
        """All rows are the same: a point, whatever the method."""
        self._score, self.model_ = None, None
        self.curve_ = DimensionCurve(np.empty(0), np.empty(0), np.empty(0))
        self.dimension_, self.std_error_ = 0.0, 0.0
        self.dimension_pw_ = np.zeros(len(X))
        return self

    def _check_parameters(self):
        lookup(self.method, dict.fromkeys(["auto", *METHODS]), "method")
        if self.n_noise is not None:
            check_count(self.n_noise, "n_noise")
        check_flag(self.conservative_projection, "conservative_projection")
        method = self.method
        if method == "auto":
            method = "neighbours" if self.score_estimator is None else "flipd"
        if self.conservative_projection and self.score_estimator is None:
            raise ValueError(
                "conservative_projection needs a score_estimator: the default is a gradient."
            )
        if isinstance(self.sigma, str):
            return method, lookup(self.sigma, {"auto": None}, "sigma", "levels above zero")
        levels = as_numbers(self.sigma)
        if levels.ndim > 1 or not len(levels) or (np.diff(levels) <= 0).any():
            raise ValueError(
                "sigma must be 'auto', a number above zero, or increasing levels; "
                f"got {self.sigma!r}."
            )
        for level in levels:
            check_number(float(level), "sigma", above=0)
        return method, levels

    def _check_rows(self, X, reset):
        return check_rows(
            self, X, reset=reset, dtype=np.float64, ensure_min_samples=2 if reset else 1
        )

    def _set_score(self, rows, X, method, rng):
        """Set the score that is read; variances of the rows where its noise is isotropic."""
        given = self.score_estimator
        fitted = None
        if given is None:
            kept = _some(np.arange(len(rows)), MOST_ROWS if method == "neighbours" else np.inf, rng)
            self.model_ = EmpiricalModel(rows[kept])
        else:
            self.model_, fitted = fitted_model(given, X)
        check_columns(self.model_, X)
        if self.conservative_projection:
            self._given, self.model_ = self.model_, self._projected(X, rng)
        scale = np.broadcast_to(self.model_.noise_scale, rows.shape[1])
        variances = typical_variances(rows / scale)
        width = max(float(np.sqrt(variances.sum())), np.finfo(float).tiny)
        centre = GaussianModel(rows.mean(axis=0), width**2 / rows.shape[1] * scale**2)
        self._score = ScoreDimension(
            "flipd" if method == "neighbours" else method,
            self.model_,
            self.span_ if given is None else X.shape[1],
            getattr(fitted, "far_field_", centre),
            min(getattr(fitted, "sigma_max_", FAR * width), self.model_.sigma_range[1]),
            self.n_noise,
            int(rng.integers(2**31)),
            self.n_jobs,
        )
        low, high = self.model_.sigma_range
        self._range = (
            max(getattr(fitted, "sigma_min_", 0.0), low),
            min(getattr(fitted, "sigma_max_", np.inf), high),
        )
        return variances

    def _projected(self, X, rng):
        """The gradient part of the score that was given."""
        from skdiffusion.geometry.conservativity import ConservativityDecomposer

        seed = int(rng.integers(2**31))
        decomposer = ConservativityDecomposer(
            score_estimator=self.model_, n_jobs=self.n_jobs, random_state=seed
        )
        return decomposer.fit(X).as_score_model()

    def _levels(self, levels, rows, variances, rng):
        if levels is not None:
            return levels
        high = min(float(np.sqrt(variances[0])), self._range[1])
        if not high > 0:
            raise ValueError(
                "all rows of X are the same: give sigma, the level at which to ask score_estimator."
            )
        if self.score_estimator is None:
            # closer than its neighbours a row sees nothing
            low = float(np.median(self._nearest(_some(rows, CURVE_ROWS, rng), 1)[0])) / 2
        else:
            low = max(self._range[0], LOWEST * high)
        return level_grid(low, high)

    def _choose_level(self, levels):
        if len(levels) == 1:
            return float(levels[0])
        if self.plateaus_:
            return max(self.plateaus_, key=lambda p: p.high / p.low).sigma
        d = self.curve_.dimension
        best = int(np.argmin(np.abs(np.gradient(d, np.log(levels))) / np.maximum(d, 1)))
        warn_user(
            "the dimension changes with the noise level throughout: no plateau was found, and "
            f"dimension_ is that at sigma = {levels[best]:.3g}, where it changes least; see "
            "curve_.",
        )
        return float(levels[best])

    def _warn_if_far(self, values, kept, first):
        far = np.flatnonzero(values != kept)
        if self._score.is_leave_one_out or not len(far):
            return
        warn_user(
            f"{len(far)} of {len(values)} rows are far from the law of the score model, or it errs "
            f"there: at row {first[far[0]]} it answers {values[far[0]]:.3g}, which counts as "
            f"{kept[far[0]]:.3g} in the mean.",
        )

    def _warn_if_no_dimension(self, mean, error):
        nearest = float(self._score.as_dimensions(mean))
        if abs(mean - nearest) > max(3 * error, STALLED):
            warn_user(
                f"the mean over rows, {mean:.3g}, is no dimension: the score model errs, by a "
                "gauge field (see conservative_projection) or otherwise, or the rows are not of "
                f"its law; dimension_ is {nearest:g}.",
            )

    def _warn_if_stalled(self, variances):
        span = int((variances > self.sigma_**2).sum())
        if not self.model_.has_jacobian and abs(self.dimension_ - span) <= STALLED:
            warn_user(
                f"the dimension equals that of the linear span, {span}: score matching learns the "
                "covariance first and may have stalled there; train longer, with more noise, or "
                "compare with the default method.",
            )

    # ------------------------------------------------------------------ answers

    def predict(self, X, *, clip=True):
        """Dimension around each row, seen before or not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        clip : bool
            Whether what is read off a score model is cut off at zero and the number of columns.
            If not, it is the statistic of the method, which means are taken over.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self._local(self._check_rows(X, reset=False), clip)

    def transform(self, X):
        """Dimension around each row, as a column.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, 1)
        """
        return self.predict(X)[:, None]

    def get_feature_names_out(self, input_features=None):
        """Name of the column that :meth:`transform` returns.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of one str
        """
        check_is_fitted(self)
        return np.array(["dimension"], dtype=object)

    def _local(self, X, clip=True):
        if self._score is None:
            return np.zeros(len(X))
        if self.method_ == "neighbours":
            return self._neighbours.local(X)
        values = self._score.values(X, np.array([self.sigma_]))[0]
        return self._score.as_dimensions(values) if clip else values

    def tangent_basis(self, X, n_components=None):
        """Orthonormal basis of the tangent space at each row.

        The leading eigenvectors of the denoiser's Jacobian at ``sigma_``, or the principal axes of
        the neighbours for the calibrated default.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        n_components : int, optional
            How many; ``dimension_``, rounded, by default.

        Returns
        -------
        ndarray of shape (n_samples, n_features, n_components)

        Raises
        ------
        ValueError
            If all fitted rows are the same.
        """
        check_is_fitted(self)
        X = self._check_rows(X, reset=False)
        if self._score is None:
            raise ValueError("all fitted rows are the same: a point has no tangent space.")
        k = max(round(self.dimension_), 1) if n_components is None else n_components
        k = check_count(k, "n_components")
        if k > X.shape[1]:
            raise ValueError(f"n_components must be at most {X.shape[1]}; got {k}.")
        if self.method_ == "neighbours":
            return self._neighbours.tangents(X, k)
        return self._score.tangents(X, self.sigma_, k)

    def score(self, X, y=None):
        r"""How well the dimension around rows predicts their neighbours: larger is better.

        Where the density is even, the ratio :math:`\mu` of the distances to the two nearest fitted
        rows has density :math:`d \mu^{-d-1}` (Facco et al. 2017); this is its mean logarithm.
        Above ten dimensions the borders of a sample make it prefer answers that are too low.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If fewer than three distinct rows were fitted.

        References
        ----------
        E. Facco et al., "Estimating the intrinsic dimension of datasets by a minimal neighborhood
        information", Scientific Reports 2017.
        """
        check_is_fitted(self)
        if len(self._nearest.rows) < SCORED_ROWS:
            raise ValueError(
                f"score compares distances to neighbours among at least {SCORED_ROWS} distinct "
                f"rows; X had {len(self._nearest.rows)} at fit."
            )
        d = np.maximum(self.predict(X), MIN_SCORED)
        X = self._check_rows(X, reset=False)
        distances, _ = self._nearest(X, 2)
        log_ratio = np.log(distances[:, 1] / distances[:, 0])
        return float(np.mean(np.log(d) - (d + 1) * log_ratio))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def _span(rows):
    """Dimension of the linear span about the mean, to the rounding of the entries."""
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    return int((values > np.abs(rows).max() * np.finfo(float).eps * len(rows)).sum())


def _some(rows, n, rng):
    """``n`` of the rows at random, in order; all where there are not more."""
    return rows if len(rows) <= n else rows[np.sort(rng.choice(len(rows), n, replace=False))]
