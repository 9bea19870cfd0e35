r"""A pipeline of transformers and a density that is a density of the rows themselves.

scikit-learn's ``Pipeline.score_samples`` is the density of what comes *out* of the transformers.
Scale the columns down and it grows without bound; a search over scalers then prefers the smallest
units. With every step's Jacobian,

.. math:: \log p(x) = \log q(z_m) + \sum_{k=1}^m \log\big|\det \partial T_k / \partial z_{k-1}\big|,
          \qquad z_0 = x, \quad z_k = T_k(z_{k-1}),

it is nats in the units of ``X``, whatever the transformers.

A PCA that keeps k of d axes has no such determinant. With ``noise="residual"`` the directions it
drops are given a normal law of their common variance :math:`s^2`, as in probabilistic PCA (Tipping
& Bishop 1999), but with any density ``q`` for the axes kept:

.. math:: p(x) = q(z)\, N(r;\, 0,\, s^2 I_{d-k}), \qquad |r|^2 = |x - \mu|^2 - |W^\top (x-\mu)|^2 .
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skdiffusion.compose.columns import inverted
from skdiffusion.compose.conditions import by_position, pinned, translated
from skdiffusion.compose.jacobians import sized_log_det, sizes_of
from skdiffusion.compose.table import TableFormat, separate
from skdiffusion.utils.drawing import draw_rows
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_flag

__all__ = ["DensityPipeline", "make_density_pipeline"]

LOG_2PI = math.log(2 * math.pi)
SCALE_ROWS = 1000
"""Training rows, evenly spaced, from which the size of a column is taken where a step is
differentiated."""


def _final_has(name):
    def check(self):
        getattr(self.steps[-1][1], name)  # its own error if it has none
        return True

    return check


class DensityPipeline(Pipeline):
    """Transformers and a density estimator, with densities and samples in the units of ``X``.

    A scikit-learn ``Pipeline`` in everything else: parameters by ``step__name``, slices, memory,
    searches over steps.

    Parameters
    ----------
    steps : list of (str, estimator)
        Transformers and, last, anything with ``score_samples`` or ``sample``: a score estimator,
        or a mixture or kernel density of scikit-learn.
    noise : {None, "residual"}
        What happens to axes that a ``PCA`` drops: without, densities raise an error; ``"residual"``
        gives them a normal law of the variance that they had.
    round_integers : bool
        Whether samples are rounded in columns that held integers alone.
    clip : bool
        Whether samples are clipped to the range that each column had.
    transform_input, memory, verbose
        As in :class:`sklearn.pipeline.Pipeline`.

    Attributes
    ----------
    table_ : TableFormat
        What the training table looked like: samples look like it.

    See Also
    --------
    make_density_pipeline : names the steps for you.
    skdiffusion.compose.log_abs_det_jacobian : the Jacobians, and how to add one.

    Notes
    -----
    A ``QuantileTransformer`` is flat outside the rows it was fitted to, so that held-out rows there
    have density zero: use a ``PowerTransformer`` if a density is wanted.

    References
    ----------
    M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis", JRSS B 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skdiffusion import GaussianScore
    >>> X = load_iris().data
    >>> for units in (1.0, 1e-3):
    ...     scaler = MinMaxScaler(feature_range=(0, units))
    ...     pipeline = DensityPipeline([("scale", scaler), ("density", GaussianScore())])
    ...     print(round(pipeline.fit(X).score(X), 6))
    -2.532764
    -2.532764
    >>> pipeline.sample(3, random_state=0).shape
    (3, 4)
    """

    def __init__(
        self,
        steps,
        *,
        noise=None,
        round_integers=False,
        clip=False,
        transform_input=None,
        memory=None,
        verbose=False,
    ):
        super().__init__(steps, transform_input=transform_input, memory=memory, verbose=verbose)
        self.noise = noise
        self.round_integers = round_integers
        self.clip = clip

    def __getitem__(self, ind):
        """A step, or a pipeline of a slice of the steps, with the settings of this one."""
        part = super().__getitem__(ind)
        if isinstance(ind, slice):  # scikit-learn's own settings are handed on, but for the last
            own = ("noise", "round_integers", "clip", "transform_input")
            kept = (*own, "_sizes", *(() if ind.start else ("table_",)))
            vars(part).update({name: value for name, value in vars(self).items() if name in kept})
        return part

    # ------------------------------------------------------------------ fitting

    def fit(self, X, y=None, **params):
        """Fit the transformers in turn, and the density to what comes out of them.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
        **params
            As in :meth:`sklearn.pipeline.Pipeline.fit`.

        Returns
        -------
        DensityPipeline
        """
        if self.noise not in (None, "residual"):
            raise ValueError(f"noise must be None or 'residual'; got {self.noise!r}.")
        check_flag(self.round_integers, "round_integers")
        check_flag(self.clip, "clip")
        super().fit(X, y, **params)
        self.table_ = TableFormat(X)
        self._sizes = {}
        Z = X if hasattr(X, "__getitem__") else np.asarray(X)
        Z = Z[:: -(-len(Z) // SCALE_ROWS)]  # rows may be sorted
        for name, step in self._transformers():
            self._sizes[name] = sizes_of(step, Z)
            Z = step.transform(Z)
        return self

    @available_if(_final_has("transform"))
    def fit_transform(self, X, y=None, **params):
        """Fit, and the latent codes of the rows; arguments as in :meth:`fit`."""
        return self.fit(X, y, **params).transform(X)

    # ------------------------------------------------------------------ densities

    @available_if(_final_has("score_samples"))
    def score_samples(self, X, y=None):
        """Log-density of each row, in nats and in the units of ``X``.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Labels, of a density that was fitted with them: that of each row given its label.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If a step changes the number of columns or maps to discrete values.
        """
        Z, log_det = self._forward(X)
        labels = () if y is None else (y,)
        return self.steps[-1][1].score_samples(Z, *labels) + log_det

    @available_if(_final_has("score_samples"))
    def score(self, X, y=None, **params):
        """How likely the rows are, in nats per row and in the units of ``X``.

        The ``score`` of a score estimator, which for a learned denoiser is the denoising bound, or
        the mean of ``score_samples``; with the mean log-determinant added.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Labels, of a density that was fitted with them; ignored by others.
        **params
            Of the final estimator's ``score``.

        Returns
        -------
        float
        """
        Z, log_det = self._forward(X)
        final = self.steps[-1][1]
        if hasattr(final, "denoising_bound"):
            return float(final.score(Z, y, **params) + log_det.mean())
        return float((final.score_samples(Z) + log_det).mean())

    @available_if(_final_has("denoising_bound"))
    def denoising_bound(self, X, y=None, **options):
        """The final estimator's bound on the log-density, in the units of ``X``.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Labels, of a density that was fitted with them.
        **options
            ``n_noise`` and ``random_state``.

        Returns
        -------
        DenoisingBound
        """
        Z, log_det = self._forward(X)
        found = self.steps[-1][1].denoising_bound(Z, y, **options)
        return found._replace(bound=found.bound + log_det)

    def _forward(self, X):
        """What the density sees, and how much the way there stretched space."""
        check_is_fitted(self)
        log_det = np.zeros(len(X))
        for name, step in self._transformers():
            log_det += self._log_det(name, step, X)
            X = step.transform(X)
        return X, log_det

    def _log_det(self, name, step, X):
        if self._is_completed(step):
            return _residual_log_density(step, np.asarray(X, dtype=np.float64))
        return sized_log_det(step, X, self._sizes[name])

    # ------------------------------------------------------------------ samples

    @available_if(_final_has("sample"))
    def sample(self, n_samples=1, *, condition=None, random_state=None, **options):
        """Draw new rows, in the form of the table that the pipeline was fitted to.

        Parameters
        ----------
        n_samples : int
        condition : mapping or LinearMeasurement, optional
            What is known of the rows, in their own units, as in ``sample`` of a score estimator.
            Scalers and powers pass values and ranges, a square PCA values and measurements, a
            ``TableEncoder`` all of these and values of categories. Known numbers are exact in the
            rows, up to ``round_integers`` and ``clip``.
        random_state : None, int, Generator or RandomState
        **options
            Further arguments of the final estimator's ``sample``, such as ``sampler``.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Columns and types of a DataFrame as they were; integers stay floats unless
            ``round_integers``.

        Raises
        ------
        ValueError
            If a step has no inverse, or one to other columns, or cannot pass the condition.
        """
        check_is_fitted(self, "table_")
        if condition is not None:
            condition = by_position(condition, self.table_)
            options["condition"] = translated(condition, [step for _, step in self._transformers()])
        rng = as_generator(random_state)
        n_samples = check_count(n_samples, "n_samples")
        Z = draw_rows(self.steps[-1][1], n_samples, rng, **options)
        for _, step in reversed(self._transformers()):
            Z = inverted(step, Z)
            if self._is_completed(step):
                Z = _with_residual(step, np.asarray(Z), rng)
        columns = separate(Z)
        if len(columns) != len(self.table_.bounds):
            raise ValueError(
                f"the inverses of the steps give {len(columns)} columns, the rows had "
                f"{len(self.table_.bounds)}."
            )
        columns = pinned(columns, condition)
        return self.table_.restored(columns, rounded=self.round_integers, clipped=self.clip)

    # ------------------------------------------------------------------ inner workings

    def _transformers(self):
        return [
            (name, step)
            for name, step in self.steps[:-1]
            if step is not None and step != "passthrough"
        ]

    def _is_completed(self, step):
        return (
            self.noise == "residual"
            and isinstance(step, PCA)
            and step.n_components_ < step.n_features_in_
        )


def make_density_pipeline(
    *steps: Any, noise: str | None = None, round_integers: bool = False, clip: bool = False
) -> DensityPipeline:
    """A :class:`DensityPipeline` whose steps have the names of their classes.

    Parameters
    ----------
    *steps : estimators
        Transformers and, last, the density.
    noise, round_integers, clip
        As in :class:`DensityPipeline`.

    Returns
    -------
    DensityPipeline

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.datasets import load_digits
    >>> from skdiffusion import GMMScore
    >>> X = load_digits().data
    >>> pipeline = make_density_pipeline(
    ...     PCA(10), GMMScore(5, random_state=0), noise="residual", round_integers=True, clip=True
    ... )
    >>> digits = pipeline.fit(X).sample(2, random_state=0)
    >>> float(digits.min()), float(digits.max())
    (0.0, 16.0)
    """
    from sklearn.pipeline import make_pipeline

    named = make_pipeline(*steps).steps
    return DensityPipeline(named, noise=noise, round_integers=round_integers, clip=clip)


# --------------------------------------------------------------------- the axes a PCA drops


def _residual_variance(pca):
    """Variance per dropped axis; scikit-learn divides by axes that rows could fill."""
    fillable = min(pca.n_samples_, pca.n_features_in_)
    dropped = pca.n_features_in_ - pca.n_components_
    variance = pca.noise_variance_ * (fillable - pca.n_components_) / dropped
    if not variance > 0:
        raise ValueError(
            "the axes that the PCA drops have no variance in the training rows: the rows have no "
            "density in all columns."
        )
    return variance


def _residual_log_density(pca, X):
    """Log-density of the part of the rows that the PCA drops, and its stretch of the rest."""
    variance = _residual_variance(pca)
    dropped = pca.n_features_in_ - pca.n_components_
    centred = X - pca.mean_
    kept = centred @ pca.components_.T
    squares = ((centred - kept @ pca.components_) ** 2).sum(axis=1)
    log_det = -0.5 * np.log(pca.explained_variance_).sum() if pca.whiten else 0.0
    return log_det - 0.5 * (squares / variance + dropped * (LOG_2PI + np.log(variance)))


def _with_residual(pca, X, rng):
    """Rows in the plane of the axes kept, with the variance of the others added."""
    noise = rng.standard_normal(X.shape)
    noise -= noise @ pca.components_.T @ pca.components_
    return X + np.sqrt(_residual_variance(pca)) * noise
