r"""Density ridges: the curves and surfaces along which the data concentrate.

A ``k``-dimensional ridge of the law smoothed by noise of level :math:`\sigma` is the set of points
that are modes in their normal directions (Ozertem & Erdogmus 2011; He, Qiu & Tao 2026),

.. math:: R_\sigma = \{ y : (I - T T^\top)\, (D(y,\sigma) - y) = 0, \; r_{k+1}(y) < 1 \},

with :math:`T(y)` the ``k`` leading eigenvectors of the denoiser's Jacobian and :math:`r_j` its
eigenvalues. Every score model has ridges: the kernel density of the rows, a mixture, a network.
:mod:`skdiffusion.geometry._tangent_spaces` finds :math:`T`, :mod:`skdiffusion.geometry._scms`
moves points.

Near data of spacing :math:`\Delta` the ridge of the empirical law is undefined below some
:math:`\sigma = \Delta / 4.5`: there the gap :math:`r_k - r_{k+1}` underflows and eigenvectors
are arbitrary. So the gap is looked at first, and levels without one are refused.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._bandwidth import merge_rows
from skdiffusion.geometry._curve import RidgeCurve
from skdiffusion.geometry._given import fitted_model
from skdiffusion.geometry._plane import Plane
from skdiffusion.geometry._ridge import Ridge
from skdiffusion.geometry._ridge_level import defined_level, ridge_dimension
from skdiffusion.geometry._ridge_results import RidgeDiagnostics, RidgeTrace
from skdiffusion.geometry._tangent_spaces import ROUTES
from skdiffusion.geometry.directional import Sphere
from skdiffusion.models import EmpiricalModel
from skdiffusion.models.base import check_columns
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.rows import check_points, check_rows, check_weights
from skdiffusion.utils.validation import check_count, check_levels, check_number, lookup
from skdiffusion.utils.warning import warn_user
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["RidgeProjector"]

BANDWIDTHS = {"loo": 2.0, "silverman": 1.0, "knn": 1.5}
"""Rules, and the multiples of their choice that recover noisy curves best."""
METRICS = ("euclidean", "haversine")
SOLVERS = ("newton", "scms")
PROBES = 256
"""Rows at which a fit looks for the gap, evenly spaced."""
SPECTRUM = 20
"""Leading ratios among which ``n_components="auto"`` looks for the largest drop."""


class RidgeProjector(OneToOneFeatureMixin, TransformerMixin, Configurable):
    r"""Project points on the ridge of a density: denoised curves, filaments, surfaces.

    Parameters
    ----------
    n_components : int or "auto"
        Dimension of the ridge: 0 for modes (mean shift), 1 for curves, 2 for surfaces.
        ``"auto"`` takes the largest relative drop in the median spectrum of ratios at the data
        and twice the level, between 1 and ``n_features - 1``.
    bandwidth : {"loo", "silverman", "knn"} or float
        Noise level at which the density is looked at, in the units of ``X``: of largest
        leave-one-out likelihood, by Silverman's rule, the mean distance of ten neighbours, or
        given. The kernel is isotropic: scale columns of different units first. A rule's choice
        is raised where the ridge would be numerically undefined at more than a tenth of the rows
        (few rows in many columns); a number is refused where it would be at most of them.
    bandwidth_scale : float, optional
        What a bandwidth chosen by name is multiplied by; by default 2 for ``"loo"``, 1 for
        ``"silverman"``, 1.5 for ``"knn"``. A ridge takes derivatives, and so more smoothing than
        a density.
    score_estimator : estimator or score model, optional
        A score estimator, of which a clone is fitted to ``X``; a fitted one in a
        ``FrozenEstimator``. By default the ridge is that of the kernel density of the rows.
    sigma : float, optional
        Noise level of the ridge of ``score_estimator``; by default the bandwidth.
    metric : {"euclidean", "haversine"}
        ``"haversine"`` takes two columns, latitude and longitude in degrees, and ridges on
        the sphere; all lengths are then in degrees of a great circle.
    solver : {"newton", "scms"}
        Newton's step in the normal space, or the mean shift itself.
    eigen_solver : {"auto", "dense", "gram", "lanczos"}
        How tangent spaces are found: from the whole Jacobian (up to 64 columns by default), from
        the Gram matrix of the rows that matter to a point (where these are few), or by products
        with the Jacobian.
    max_iter : int
    tol : float
        Normal part of the mean shift, in units of the level, at which a point has arrived.
    gap_tol : float
        Least difference of the ratios on the two sides of the tangent space. A point where it
        is smaller stays where it is and is flagged.
    support_factor : float
        A mean shift longer than this many times :math:`\sigma\sqrt{n\_features}` at the
        projection says that there are no data near.
    n_jobs : int, optional
        Threads for blocks of points.
    verbose : bool
        Whether to show the progress of blocks.

    Attributes
    ----------
    bandwidth_ : float
        Noise level of the ridge.
    n_components_ : int
        Dimension of the ridge.
    model_ : BaseScoreModel
        The model whose ridge it is.
    score_estimator_ : estimator or None
        Fitted, if one was given as ``score_estimator``.
    ridge_ : Ridge
        The ridge at its level: projections with their tangent frames, at this or other levels.
    training_points_ : ndarray
        The rows, as points of the space of the ridge.
    ratios_ : ndarray
        Median leading ratios at projected rows, descending: near 1 along the ridge, small across.
    gap_ : float
        Median gap between the ratios along and across, at the rows.
    n_iter_ : int
        Most steps that any of some 256 rows took to the ridge.

    Warns
    -----
    UserWarning
        If ``transform`` could not bring some of the points to the ridge; :meth:`diagnostics`
        says which and why.

    Notes
    -----
    Projections follow rotations, shifts and changes of the common unit of all columns, not
    changes of the unit of one. The limit of the mean shift is close to, but not exactly, the
    nearest point of the ridge.

    References
    ----------
    U. Ozertem and D. Erdogmus, "Locally Defined Principal Curves and Surfaces", JMLR 2011.

    Y. Zhang and Y.-C. Chen, "Linear Convergence of the Subspace Constrained Mean Shift Algorithm:
    from Euclidean to Directional Data", Information and Inference 2023.

    Y. He, Y. Qiu and M. Tao, arXiv:2602.06021, 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.datasets import make_ring
    >>> from skdiffusion.geometry import RidgeProjector
    >>> X, _ = make_ring(500, noise=0.1, random_state=0)
    >>> ridge = RidgeProjector(bandwidth=0.2).fit(X)
    >>> radius = np.linalg.norm(ridge.transform(X), axis=1)
    >>> bool(np.linalg.norm(X, axis=1).std() > 4 * radius.std())
    True
    >>> ridge.normal_distance([[1.5, 0.0]]).round(1)
    array([0.5])
    """

    def __init__(
        self,
        n_components=1,
        *,
        bandwidth="loo",
        bandwidth_scale=None,
        score_estimator=None,
        sigma=None,
        metric="euclidean",
        solver="newton",
        eigen_solver="auto",
        max_iter=200,
        tol=1e-6,
        gap_tol=1e-3,
        support_factor=3.0,
        n_jobs=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.bandwidth_scale = bandwidth_scale
        self.score_estimator = score_estimator
        self.sigma = sigma
        self.metric = metric
        self.solver = solver
        self.eigen_solver = eigen_solver
        self.max_iter = max_iter
        self.tol = tol
        self.gap_tol = gap_tol
        self.support_factor = support_factor
        self.n_jobs = n_jobs
        self.verbose = verbose

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None):
        """Choose the level and the dimension of the ridge, and see whether there is one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            A weight of 2 equals a repeated row, a weight of 0 its absence.

        Returns
        -------
        RidgeProjector

        Raises
        ------
        ValueError
            If a parameter is out of its range, ``X`` has no variance, or at most of the rows the
            ridge is numerically undefined; it then says at which level it is defined.
        """
        self._check_parameters()
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        weights = check_weights(sample_weight, len(X))
        n_features = X.shape[1]
        if self.n_components != "auto" and self.n_components > n_features:
            raise ValueError(
                f"n_components must be at most the number of columns, {n_features}; "
                f"got {self.n_components}."
            )
        self._space = Sphere.of(X) if self.metric == "haversine" else Plane()
        points = self._space.embed(X)
        self._fit_model(X, points, weights)
        rows = points[weights > 0]
        rows = rows[:: -(-len(rows) // PROBES)]
        self._choose_dimension(rows, n_features)
        self._look_for_a_gap(rows)
        found = self.ridge_.project(rows)
        self.ratios_ = np.median(found.ratios, axis=0)
        self.n_iter_ = max(int(found.n_iter.max()), 1)
        self._curve = None
        self.training_points_ = points
        return self

    def _check_parameters(self):
        if self.n_components != "auto":
            if isinstance(self.n_components, str):
                lookup(self.n_components, {"auto": 0}, "n_components", "an integer")
            check_count(self.n_components, "n_components", 0)
        if isinstance(self.bandwidth, str):
            lookup(self.bandwidth, BANDWIDTHS, "bandwidth", "a positive number")
        else:
            check_number(self.bandwidth, "bandwidth", above=0)
        for name in ("bandwidth_scale", "sigma"):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, above=0)
        lookup(self.metric, dict.fromkeys(METRICS), "metric")
        lookup(self.solver, dict.fromkeys(SOLVERS), "solver")
        lookup(self.eigen_solver, dict.fromkeys(("auto", *ROUTES)), "eigen_solver")
        check_count(self.max_iter, "max_iter")
        for name in ("tol", "support_factor"):
            check_number(getattr(self, name), name, above=0)
        check_number(self.gap_tol, "gap_tol", least=0)
        if self.score_estimator is not None and self.metric != "euclidean":
            raise ValueError(
                "metric='haversine' takes the kernel density on the sphere; score_estimator must "
                "be None."
            )
        if self.score_estimator is None and self.sigma is not None:
            raise ValueError(
                "sigma is the level of score_estimator, which is None; without one the level is "
                "the bandwidth."
            )

    def _fit_model(self, X, points, weights):
        """The model, and the level at which to look at it."""
        self.bandwidth_ = self._bandwidth(X, weights) if self.sigma is None else float(self.sigma)
        self._level = self.bandwidth_ * self._space.unit
        if self.score_estimator is None:
            self.model_ = EmpiricalModel(*merge_rows(points, weights)[:2])
            self.score_estimator_ = None
            return
        given = None if (weights == 1).all() else weights
        self.model_, self.score_estimator_ = fitted_model(self.score_estimator, X, given)
        check_columns(self.model_, X)
        if np.ndim(self.model_.noise_scale):
            raise ValueError(
                "the noise of score_estimator has one scale per column, and a ridge needs the "
                "same noise in every direction: scale the columns of X first."
            )
        if self.eigen_solver == "gram":
            raise ValueError("eigen_solver='gram' is for the kernel density: score_estimator=None.")

    def _bandwidth(self, X, weights):
        if not isinstance(self.bandwidth, str):
            return float(self.bandwidth)
        width = self._space.bandwidth(self.bandwidth, X, weights)
        scale = self.bandwidth_scale
        return float(width * (BANDWIDTHS[self.bandwidth] if scale is None else scale))

    def _choose_dimension(self, rows, n_features):
        if self.n_components != "auto":
            self.n_components_ = int(self.n_components)
            return
        if n_features == 1:
            self.n_components_ = 0
            return
        most = min(n_features - 1, SPECTRUM)
        # at the level itself a row sees few others, of which some direction always leads
        wide = self._ridge(most).at(2 * self._level)
        self.n_components_ = ridge_dimension(wide.ratios(rows)[:, : most + 1])

    def _look_for_a_gap(self, rows):
        by_rule = self.sigma is None and isinstance(self.bandwidth, str)
        ridge = defined_level(self.ridge_, rows, by_rule)
        if ridge.level != self._level:
            self._level, self.bandwidth_ = ridge.level, float(ridge.level / self._space.unit)
        self.gap_ = float(np.median(ridge.gaps(rows)))

    # ------------------------------------------------------------------ projections

    def transform(self, X):
        """Projection of each row on the ridge.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the training set or new ones.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            A row that could not be projected is where it stopped, and counted in a warning.
        """
        X, points = self._rows(X)
        found, _ = self._projected(points)
        return self._rows_of(found.points, X)

    def normal_distance(self, X):
        """Distance from each row to its projection, in the units of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Infinite for rows that could not be projected.
        """
        _, points = self._rows(X)
        found, arrived = self._projected(points)
        return np.where(arrived, self._space.distance(points, found.points), np.inf)

    def diagnostics(self, X) -> RidgeDiagnostics:
        """Projections with everything that says whether to trust them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        RidgeDiagnostics
        """
        X, points = self._rows(X)
        ridge = self.ridge_
        found = ridge.project(points)
        return RidgeDiagnostics(
            points=self._rows_of(found.points, X),
            distance=self._space.distance(points, found.points),
            residual=found.residual / self._space.unit,
            ratios=found.ratios,
            gap=found.gap,
            defined=found.gap >= self.gap_tol,
            concave=ridge.concave(found),
            supported=ridge.supported(found),
            stable=ridge.stable(found),
            converged=found.converged,
            n_iter=found.n_iter,
        )

    def trace(self, X, sigmas) -> RidgeTrace:
        """Follow rows along the ridges of a family of noise levels.

        Rows are projected on the ridge of the first level, from there on that of the second, and
        so on: from coarse to fine a tree of filaments, and the ridges that a diffusion model
        passes on its way.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sigmas : array-like of shape (n_levels,)
            Levels in the order in which to follow them, usually decreasing.

        Returns
        -------
        RidgeTrace
        """
        X, points = self._rows(X)
        levels = check_levels(sigmas, "sigmas must be a sequence of positive levels, at least one")
        shape = len(levels), len(points)
        path, gap, on_ridge = (
            np.empty((*shape, X.shape[1])),
            np.full(shape, np.nan),
            np.zeros(shape, bool),
        )
        alive = np.arange(len(points))
        for i, level in enumerate(levels * self._space.unit):
            ridge = self.ridge_.at(level)
            found = ridge.project(points[alive])
            arrived = ridge.arrived(found)
            gap[i, alive] = found.gap
            alive = alive[arrived]
            points[alive] = found.points[arrived]
            on_ridge[i, alive] = True
            path[i] = self._rows_of(points, X)
        return RidgeTrace(levels, path, gap, on_ridge)

    # ------------------------------------------------------------------ tangent and normal

    def tangent_basis(self, X):
        """Orthonormal basis of the tangent space at each row as it is, not projected.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_features, n_components)
            Under ``metric="haversine"`` in components to the north and to the east.
        """
        X, points = self._rows(X)
        return self._space.components(X, self.ridge_.axes(points))

    def decompose(self, X, vectors):
        """Tangential and normal part of a vector at each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        vectors : array-like of shape (n_samples, n_features)
            Such as errors of a learned score; to the north and to the east under
            ``metric="haversine"``.

        Returns
        -------
        tangential, normal : ndarrays of shape (n_samples, n_features)
            Orthogonal, and their sum is ``vectors``.
        """
        basis = self.tangent_basis(X)
        vectors = check_points(vectors, name="vectors")
        if vectors.shape != basis.shape[:2]:
            raise ValueError(
                f"vectors must hold one vector per row of X, shape {basis.shape[:2]}; "
                f"got shape {vectors.shape}."
            )
        tangential = np.einsum("ndk,nk->nd", basis, np.einsum("ndk,nd->nk", basis, vectors))
        return tangential, vectors - tangential

    def arc_coordinates(self, X):
        """Position of each row along a one-dimensional ridge, as arc length.

        The ridge is the projected training rows, in the order of the longest path in their
        minimum spanning tree; a row counts from the start of that path to the projection's
        nearest place on it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            In the units of ``X``.

        Raises
        ------
        ValueError
            If the ridge is not one-dimensional, or not one curve without branches.
        """
        _, points = self._rows(X)
        if self.n_components_ != 1:
            raise ValueError(
                f"arc_coordinates needs a curve, n_components=1; this ridge has dimension "
                f"{self.n_components_}."
            )
        if self._curve is None:
            ridge = self.ridge_
            found = ridge.project(self.training_points_)
            self._curve = RidgeCurve(found.points[ridge.arrived(found)], self._level)
        found, _ = self._projected(points)
        return self._curve.position(found.points) / self._space.unit

    # ------------------------------------------------------------------ scores

    def score_samples(self, X):
        """Log-density of each row under the smoothed law, in nats.

        Per unit of volume of ``X``; per steradian under ``metric="haversine"``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        X, points = self._rows(X)
        if not self.model_.has_log_prob and self.score_estimator_ is not None:
            return self.score_estimator_.log_density(points, self._level)
        return self._space.log_density(self.model_, points, self._level)

    def score(self, X, y=None):
        """Mean log-density of the rows: compares bandwidths and score estimators.

        It says nothing about ``n_components``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        float
        """
        return float(np.mean(self.score_samples(X)))

    # ------------------------------------------------------------------ inner workings

    def _rows(self, X):
        """Rows as given, and as points of the space in which the ridge lies."""
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        return X, self._space.embed(X)

    def _rows_of(self, points, X):
        return self._space.rows(points, X).astype(X.dtype, copy=False)

    @property
    def ridge_(self) -> Ridge:
        """The ridge that was found, to be asked at points of its space."""
        return self._ridge(self.n_components_)

    def _ridge(self, k):
        return Ridge(
            self._space,
            self.model_,
            self._level,
            k,
            route=self.eigen_solver,
            newton=self.solver == "newton",
            max_iter=self.max_iter,
            tol=self.tol,
            gap_tol=self.gap_tol,
            support_factor=self.support_factor,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def _projected(self, points):
        """Projections, and which points arrived; a warning counts the others."""
        ridge = self.ridge_
        found = ridge.project(points)
        arrived = ridge.arrived(found)
        if not arrived.all():
            warn_user(
                f"{(~arrived).sum()} of {len(points)} rows are not on the ridge (no gap, no data "
                "near, or not converged); diagnostics(X) says which and why.",
            )
        return found, arrived

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
