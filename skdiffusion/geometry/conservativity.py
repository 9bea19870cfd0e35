r"""ConservativityDecomposer: which part of a field is a gradient, from samples alone.

Every field ``v`` in :math:`L^2(p)` splits in one way into a gradient and a gauge field,

.. math:: v = \nabla\phi + r, \qquad \nabla\cdot(p\,r) = 0, \qquad
          E_p|v|^2 = E_p|\nabla\phi|^2 + E_p|r|^2

(Horvat & Pfister 2024, theorem 1). For a learned score only the gradient part moves the marginals;
the rest turns the paths. :math:`\phi` is the least-squares fit of its gradient to ``v`` over rows
of ``p``: neither ``p`` nor its score need be known, and the orthogonal split is a regression.

Any curl-free interpolant fits a pure gauge field on isolated rows. So the strength of the penalty
and the family of potentials are chosen by cross-validation, the simplest whose mean loss is within
one standard error of the best, and the *conservative fraction*

.. math:: 1 - E|v - \nabla\phi|^2 / E|v|^2

is out of fold, always. Its expectation is below the true :math:`E|\nabla\phi|^2/E|v|^2` by the
estimation error of :math:`\phi`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from skdiffusion.geometry._given import fitted_model
from skdiffusion.geometry._potential import ProjectedModel
from skdiffusion.geometry._potential_search import POTENTIALS, PotentialSearch, progress
from skdiffusion.geometry._problem import Problem
from skdiffusion.models import AffineModel, BaseScoreModel, GaussianModel
from skdiffusion.models.wrapper import check_same_space
from skdiffusion.utils.arrays import as_levels
from skdiffusion.utils.params import Configurable
from skdiffusion.utils.random import as_generator, normal_by_row
from skdiffusion.utils.rows import check_rows, check_weights
from skdiffusion.utils.validation import check_count, check_levels, check_number, lookup
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["ConservativityDecomposer"]

LEVELS = (0.05, 5.0, 10)
"""Lowest and highest default noise level in units of the data's scale, and their number."""
ROWS_PER_LEVEL, MOST_COPIES = 2000, 16


class Decomposition(NamedTuple):
    """Gradient part and gauge part of a field, ``(n, d)`` each; they add up to it."""

    gradient: np.ndarray
    gauge: np.ndarray


class ConservativityDecomposer(OneToOneFeatureMixin, TransformerMixin, Configurable):
    r"""Split a vector field into the gradient of a potential and a gauge field.

    ``fit(X, V)`` regresses on the values V of a field at rows X of the law. With
    ``score_estimator``, ``fit(X)`` does so for its score at one or several noise levels, on rows
    with noise added.

    Parameters
    ----------
    potential : {"auto", "linear", "polynomial", "kernel", "random_features", "neural"}
        Family of potentials besides quadratics, which are always part of it and free of penalty:
        their gradients, the linear part of the field, are exact (a Lyapunov equation; singular
        covariances included). ``"auto"`` chooses among no more than that, cubics and kernels of
        three widths; ``"neural"`` trains small networks.
    score_estimator : estimator or BaseScoreModel, optional
        Whose score to decompose: a clone is fitted to X; a fitted one goes in as
        ``FrozenEstimator(est)``. Without one and without V: ``EmpiricalScore()``.
    sigma : float or array-like of shape (n_levels,), optional
        Noise levels of the score, in the units of X. By default ten, from a twentieth to
        five times the scale of the data.
    reference : estimator or BaseScoreModel, optional
        With a score estimator: a conservative score near it, such as ``GMMScore()``. It is its own
        gradient part, so only the rest has to be fitted. By default the Gaussian of the data.
    alpha : "cv" or float
        Strength of the ridge, in units of the mean squared gradient of a feature.
    cv : int or cross-validation splitter
        Folds that partition the rows. An int deals out distinct rows at random; copies of a row,
        with noise or without, stay together.
    degree : int
        Of ``"polynomial"``, at least 3.
    n_components : int, optional
        Rows of the kernel or random features (256), or units per hidden layer (64).
    length_scale : float, optional
        Width of the kernel in units of the data's root mean square radius; by default the best
        of 1/2, 1 and 2 out of fold.
    n_noise : int, optional
        Noised copies of each row per level; by default as many as make 2000, at most 16.
    n_jobs : int, optional
        Levels decomposed in parallel.
    random_state : None, int, Generator or RandomState
        Folds, noise, features.
    verbose : bool
        Whether to show progress.

    Attributes
    ----------
    conservative_fraction_ : float or ndarray of shape (n_levels,)
        Out of fold; negative where the fit is worse than no field at all.
    conservative_fraction_std_error_ : float or ndarray of shape (n_levels,)
        Over rows.
    potentials_ : list of Potential
        One per level: ``value``, ``gradient``, ``hessian`` at points; ``matrix`` of its quadratic.
        With a score estimator: what is added to the reference.
    chosen_ : list of str
        Family and strength chosen at each level.
    oof_gradient_ : ndarray of shape (n_samples, n_features)
        With V: the gradient part at each row, from the other folds (NaN for rows of weight zero).
    levels_ : ndarray of shape (n_levels,)
        With a score estimator: rising noise levels.
    score_model_, model_ : BaseScoreModel
        With a score estimator: the model that was decomposed, and its gradient part, a score model
        at all noise levels. ``as_score_model()`` returns it.
    far_field_ : GaussianModel
        With a score estimator: the Gaussian with the moments of X.
    n_features_in_, feature_names_in_
        As everywhere.

    Notes
    -----
    It has the methods of a multi-output regressor with V as its target, and works in
    ``cross_val_score`` and ``GridSearchCV``; it does not call itself one, as the common checks
    ask regressors for targets narrower than X. One-dimensional labels are ignored, as
    unsupervised estimators do.

    Two ways to be wrong: few rows beside columns, where the fraction comes out low by the
    estimation error (about (d + 1)/(2n) of the gauge's share for the linear part); and modes far
    apart, where potentials that are constant on each are hard to tell from noise.

    References
    ----------
    C. Horvat and J.-P. Pfister, "On gauge freedom, conservativity and intrinsic dimensionality
    estimation in diffusion models", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.geometry import ConservativityDecomposer
    >>> X = np.random.default_rng(0).normal(size=(2000, 2))
    >>> V = np.stack([X[:, 1] ** 2, 0 * X[:, 0]], axis=1)  # the gradient part is 5/9 of it
    >>> dec = ConservativityDecomposer("polynomial", random_state=0).fit(X, V)
    >>> bool(abs(dec.conservative_fraction_ - 5 / 9) < 0.05)
    True
    >>> dec.predict([[0.0, 0.0]]).round(1)  # (2/3, 0)
    array([[0.7, 0. ]])
    """

    def __init__(
        self,
        potential="auto",
        *,
        score_estimator=None,
        sigma=None,
        reference=None,
        alpha="cv",
        cv=5,
        degree=3,
        n_components=None,
        length_scale=None,
        n_noise=None,
        n_jobs=None,
        random_state=None,
        verbose=False,
    ):
        self.potential = potential
        self.score_estimator = score_estimator
        self.sigma = sigma
        self.reference = reference
        self.alpha = alpha
        self.cv = cv
        self.degree = degree
        self.n_components = n_components
        self.length_scale = length_scale
        self.n_noise = n_noise
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None, *, V=None):
        """Find the potential.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the law.
        y : array-like of shape (n_samples, n_features), optional
            V, as scikit-learn passes targets.
        sample_weight : array-like of shape (n_samples,), optional
        V : array-like of shape (n_samples, n_features), optional
            The field at each row. Without it the score of ``score_estimator`` is decomposed.

        Returns
        -------
        ConservativityDecomposer

        Raises
        ------
        ValueError
            If V is not of the shape of X or is given twice, or a parameter is out of its range.
        """
        self._check_parameters()
        X = check_rows(self, X, reset=True, dtype=np.float64, ensure_min_samples=2)
        V = _given_field(X, y, V)
        weights = check_weights(sample_weight, len(X))
        rng = as_generator(self.random_state)
        if V is None:
            return self._fit_score(X, weights, sample_weight is not None, rng)
        if self.score_estimator is not None:
            raise ValueError("give the values V of a field or a score_estimator, not both.")
        problem = Problem.of(X, V, weights, self.cv, rng)
        found = self._search().best(problem, rng)
        for name in ("levels_", "score_model_", "model_", "far_field_"):
            self.__dict__.pop(name, None)
        self._set([found])
        self.conservative_fraction_, self.conservative_fraction_std_error_ = found[2:4]
        gradient = np.vstack([found.out_of_fold, np.full(X.shape[1], np.nan)])
        self.oof_gradient_ = gradient[problem.index]
        return self

    def _fit_score(self, X, weights, weighted, rng):
        given = weights if weighted else None
        model = _score_model(self.score_estimator, X, given)
        # where the noise differs by column, fields are split in coordinates where it does not
        scale = np.broadcast_to(model.noise_scale, X.shape[1])
        problem = Problem.of(X / scale, None, weights, self.cv, rng)
        shares = problem.weights / problem.weights.sum()
        centred = problem.X - problem.centre
        covariance = centred.T @ (centred * shares[:, None])
        if not covariance.diagonal().any():
            raise ValueError("X has no variance: all of its rows are the same.")
        reference = GaussianModel(problem.centre, covariance)
        if np.ndim(model.noise_scale):
            reference = AffineModel(reference, scale=scale)
        if self.reference is not None:
            reference = _score_model(self.reference, X, given)
            check_same_space([model, reference])
            if not reference.is_conservative:
                raise ValueError("the score of the reference must be known to be a gradient.")
        levels = self._levels(float(np.sqrt(covariance.diagonal().mean())), model)
        copies = self.n_noise or int(np.clip(-(-ROWS_PER_LEVEL // len(problem.X)), 1, MOST_COPIES))
        seed = int(rng.integers(2**62))
        noise = normal_by_row(problem.X, copies, seed)
        search = self._search()

        def at(level):
            noised = problem.noised(level * noise)
            V, known = (scale * m.score(noised.X * scale, level) for m in (model, reference))
            return search.best(noised._replace(V=V), np.random.default_rng(seed), known)

        found = Parallel(n_jobs=self.n_jobs)(
            delayed(at)(level) for level in progress(levels, "levels", self.verbose)
        )
        self.__dict__.pop("oof_gradient_", None)
        self._set(found)
        self.levels_, self.score_model_ = levels, model
        self.model_ = ProjectedModel(reference, levels, self.potentials_)
        outer = np.outer(scale, scale)
        self.far_field_ = GaussianModel(problem.centre * scale, covariance * outer)
        if np.ndim(self.sigma) == 0 and self.sigma is not None:
            self.conservative_fraction_ = float(self.conservative_fraction_[0])
            self.conservative_fraction_std_error_ = float(self.conservative_fraction_std_error_[0])
        return self

    def _set(self, found):
        self.potentials_ = [one.potential for one in found]
        self.chosen_ = [one.name for one in found]
        self.conservative_fraction_ = np.array([one.fraction for one in found])
        self.conservative_fraction_std_error_ = np.array([one.std_error for one in found])

    def _check_parameters(self):
        lookup(self.potential, dict.fromkeys(POTENTIALS), "potential")
        if self.alpha != "cv":
            check_number(self.alpha, "alpha", above=0)
        check_count(self.degree, "degree", 3)
        for name in ("n_components", "n_noise"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        if self.length_scale is not None:
            check_number(self.length_scale, "length_scale", above=0)

    def _levels(self, scale, model):
        if self.sigma is None:
            low, high = model.sigma_range
            first, last, number = LEVELS
            levels = np.geomspace(first * scale, last * scale, number)
            return np.unique(np.clip(levels, low * 1.001, high / 1.001))
        said = "sigma must be a positive noise level or a list of them"
        return np.unique(check_levels(self.sigma, said))

    def _search(self):
        return PotentialSearch(
            self.potential,
            self.alpha,
            self.degree,
            self.n_components,
            self.length_scale,
            self.verbose,
        )

    # ------------------------------------------------------------------ what was found

    def predict(self, X: Any, sigma: Any = None) -> np.ndarray:
        r"""Gradient part :math:`\nabla\phi` of the field.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sigma : float or array-like of shape (n_samples,), optional
            Noise level, with a score estimator; by default the lowest of ``levels_``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, dtype=np.float64)
        return self._gradient(X, sigma)

    def transform(self, X: Any) -> np.ndarray:
        """Gradient part of the field at each row, as :meth:`predict`."""
        return self.predict(X)

    def potential_at(self, X: Any, sigma: Any = None) -> np.ndarray:
        r"""Potential :math:`\phi` whose gradient :meth:`predict` gives.

        Of a field it has mean zero over the rows that were fitted; of a score it is the log-density
        of the reference plus such a function.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sigma : float, optional
            One of ``levels_``, with a score estimator; by default the lowest.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, dtype=np.float64)
        if not hasattr(self, "levels_"):
            self._no_level(sigma)
            return self.potentials_[0].value(X)
        sigma = check_number(self.levels_[0] if sigma is None else sigma, "sigma", above=0)
        nearest = int(np.argmin(np.abs(np.log(self.levels_ / sigma))))
        level = float(self.levels_[nearest])
        if not np.isclose(level, sigma, rtol=1e-6):
            raise ValueError(
                f"there is a potential at the levels {self.levels_.round(4).tolist()} alone; "
                f"got {sigma!r}."
            )
        reference = self.model_.reference
        if not reference.has_log_prob:
            raise ValueError("the potential of the reference is not known in closed form.")
        added = self.potentials_[nearest].value(X / self.score_model_.noise_scale)
        return reference.log_prob(X, level) + added

    def gauge(self, X: Any, V: Any = None, sigma: Any = None) -> np.ndarray:
        """Gauge part of a field: what is left of V, or of the score, without its gradient part.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        V : array-like of shape (n_samples, n_features), optional
            The field at X; with a score estimator its score by default.
        sigma : float or array-like of shape (n_samples,), optional
            Noise level, with a score estimator; by default the lowest of ``levels_``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        return self.decompose(X, V, sigma).gauge

    def decompose(self, X: Any, V: Any = None, sigma: Any = None) -> Decomposition:
        """Both parts of a field, as :meth:`predict` and :meth:`gauge`.

        Returns
        -------
        Decomposition
            ``gradient`` and ``gauge``, which add up to the field.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, dtype=np.float64)
        gradient = self._gradient(X, sigma)
        return Decomposition(gradient, self._field(X, V, sigma) - gradient)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, V: Any = None) -> float:
        r"""Conservative fraction on other rows: :math:`1 - \sum|V - \nabla\phi|^2 / \sum|V|^2`.

        It is an uncentred :math:`R^2`, as constants are gradients too.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples, n_features), optional
            V, as scikit-learn passes targets.
        sample_weight : array-like of shape (n_samples,), optional
        V : array-like of shape (n_samples, n_features), optional
            The field at X. With a score estimator: left out, and the mean over ``levels_``
            of the fraction of its score on noised rows.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, dtype=np.float64)
        weights = check_weights(sample_weight, len(X))
        V = _given_field(X, y, V)
        if V is not None or not hasattr(self, "levels_"):
            return _explained(self._field(X, V, None), self._gradient(X, None), weights)
        scale = np.asarray(self.score_model_.noise_scale)
        noise = scale * normal_by_row(X, 1)[0]
        fractions = []
        for level in self.levels_:
            x = X + level * noise
            fields = [scale * m.score(x, float(level)) for m in (self.score_model_, self.model_)]
            fractions.append(_explained(*fields, weights))
        return float(np.mean(fractions))

    def as_score_model(self) -> BaseScoreModel:
        """The gradient part of the decomposed score, as a score model at all noise levels.

        Returns
        -------
        BaseScoreModel
            ``model_``: what samplers, flows and densities take, beside ``far_field_``.

        Raises
        ------
        ValueError
            If a field was fitted that belongs to no noise level.
        """
        check_is_fitted(self)
        if not hasattr(self, "levels_"):
            raise ValueError(
                "the values V of a field make no score model: fit with score_estimator= instead."
            )
        return self.model_

    def _gradient(self, X, sigma):
        if hasattr(self, "levels_"):
            sigma = self.levels_[0] if sigma is None else sigma
            as_levels(sigma, X, allow_zero=False)
            return self.model_.score(X, sigma)
        self._no_level(sigma)
        return self.potentials_[0].gradient(X)

    def _field(self, X, V, sigma):
        if V is not None:
            return _as_field(V, X)
        if not hasattr(self, "levels_"):
            raise ValueError(f"V is needed: the field at the rows of X, shape {X.shape}.")
        return self.score_model_.score(X, self.levels_[0] if sigma is None else sigma)

    def _no_level(self, sigma):
        if sigma is not None:
            raise ValueError(
                "a field given by its values V has no noise level: sigma must be None."
            )


def _explained(V, gradient, weights):
    energy = weights @ (V**2).sum(axis=1)
    if energy == 0:
        return 1.0
    return float(1 - weights @ ((V - gradient) ** 2).sum(axis=1) / energy)


def _given_field(X, y, V):
    """The field under either of its names; None for none, and for labels in ``y``."""
    if y is not None and _are_labels(np.asarray(y)):
        check_consistent_length(X, y)
        y = None
    if V is None:
        V = y
    elif y is not None:
        raise ValueError("the field was given twice: give its values as V or as y, not as both.")
    return None if V is None else _as_field(V, X)


def _are_labels(y):
    return y.ndim < 2 and type_of_target(y, raise_unknown=True) in ("binary", "multiclass")


def _as_field(V, X):
    """V as an array of the shape of X."""
    V = check_array(V, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name="V")
    if V.shape != X.shape:
        raise ValueError(
            f"V must hold the field at each row of X, shape {X.shape}; got shape {V.shape}."
        )
    return V


def _score_model(estimator, X, weights):
    """The score model of an estimator, fitted to X unless it is one that holds or is a model."""
    if estimator is None:
        from skdiffusion.estimators.empirical import EmpiricalScore

        estimator = EmpiricalScore()
    model, _ = fitted_model(estimator, X, weights)
    if model.n_features != X.shape[1]:
        raise ValueError(f"the score model has {model.n_features} features, X has {X.shape[1]}.")
    return model
