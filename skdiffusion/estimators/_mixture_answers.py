r"""What a fitted mixture answers, whichever way its parameters were found.

With :math:`\gamma_k` the responsibilities at a noise level, rows of which only a part ``o`` was
observed are judged by the marginals of the components,

.. math:: \log p(x_o) = \log \sum_k w_k N(x_o; \mu_{k,o}, C_{k,oo}), \qquad
          E[x_m \mid x_o] = \sum_k \gamma_k(x_o)
          \big[\mu_{k,m} + C_{k,mo} C_{k,oo}^{-1} (x_o - \mu_{k,o})\big],

and conditioning on known columns gives a mixture again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._condition import column_index
from skdiffusion.estimators._missing import completed
from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.utils.arrays import as_levels
from skdiffusion.utils.rows import check_rows

__all__ = ["MixtureAnswers"]


class MixtureAnswers(BaseScoreEstimator):
    """The answers of a fitted mixture; a subclass finds ``model_``."""

    def responsibilities(self, X, sigma=0.0):
        """Probability of each component given a row at a noise level.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing.
        sigma : float or array-like of shape (n_samples,)
            Noise level; zero needs a mixture with a density.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        X = self._rows_with_gaps(X)
        levels = as_levels(sigma, X)

        def one(model, X, index):
            return model.responsibilities(X, levels[index, 0] if np.ndim(levels) else levels)

        return self._by_pattern(
            X, one, np.broadcast_to(self.weights_, (len(X), len(self.weights_)))
        )

    def predict(self, X):
        """Most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of int of shape (n_samples,)
        """
        return self.responsibilities(X).argmax(axis=1)

    def score_samples(self, X):
        """Log-density of each row, in nats and in the units of ``X``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing: then the log-density of what was observed.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        X = self._rows_with_gaps(X)
        if not self.model_.has_density:
            return super().score_samples(X)
        return self._by_pattern(X, lambda model, X, _: model.log_prob(X, 0.0), np.zeros(len(X)))

    def transform(self, X):
        """Latent code of each row: where the probability flow takes it; standard normal if right.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            NaN where a value is missing: it is completed by its expectation first.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        rows = self._rows(X, ensure_all_finite="allow-nan")
        if np.isnan(rows).any():
            rows = completed(self.model_, rows)
        return self._codes(rows)

    def condition(self, values, *, noise=0.0):
        """The exact law of the other columns when some are known, as a fitted estimator.

        Parameters
        ----------
        values : mapping
            From columns, by name or index, to their known values.
        noise : float
            Standard deviation of the error of the known values.

        Returns
        -------
        GMMScore
            On the remaining columns, in their order.

        Raises
        ------
        ValueError
            If this is no mapping, a column is unknown or given twice, a value is not finite,
            nothing is left, or the known columns have a singular covariance and ``noise`` is zero.
        """
        check_is_fitted(self)
        if not isinstance(values, Mapping):
            raise ValueError(
                f"values must be a mapping from columns to their known values; got {values!r}."
            )
        indices = [column_index(self, column) for column in values]
        if len(set(indices)) < len(indices):
            raise ValueError("condition was given the same column by name and by index.")
        model = self.model_.condition(dict(zip(indices, values.values(), strict=True)), noise=noise)
        params = self.get_params(deep=False)
        if not isinstance(params["init"], str):
            params["init"] = "kmeans"
        result = type(self)(**params)
        result.n_features_in_ = model.n_features
        result._stepwise = None
        if hasattr(self, "feature_names_in_"):
            kept = np.setdiff1d(np.arange(self.n_features_in_), indices)
            result.feature_names_in_ = self.feature_names_in_[kept]
        return result._set_mixture(model)

    @property
    def covariances_(self):
        """Covariances of the components, in the shape of ``covariance_type``."""
        check_is_fitted(self)
        covariances = self.model_.covariances
        if self.covariance_type == "tied" and self.n_averaged == 1:
            return covariances[0].to_matrix()
        if self.covariance_type == "diag" and all(c.axes is None for c in covariances):
            return np.stack([c.variances for c in covariances])
        if self.covariance_type == "spherical" and all(c.axes is None for c in covariances):
            return np.array([c.variances[0] for c in covariances])
        return np.stack([c.to_matrix() for c in covariances])

    # ------------------------------------------------------------------ inner workings

    def _set_mixture(self, model):
        far_field = model.gaussian()
        self._set_model(model, far_field, far_field.covariance.diagonal)
        self.weights_, self.means_ = model.weights, model.means
        self.n_components_ = model.n_components
        return self

    def _rows_with_gaps(self, X):
        check_is_fitted(self)
        return check_rows(self, X, reset=False, dtype=np.float64, ensure_all_finite="allow-nan")

    def _by_pattern(self, X, function, blank):
        """``function(model, rows, index)`` of the marginals that rows were observed in."""
        missing = np.isnan(X)
        if not missing.any():
            return function(self.model_, X, slice(None))
        result = np.array(blank, dtype=np.float64)
        patterns, labels = np.unique(missing, axis=0, return_inverse=True)
        for p, pattern in enumerate(patterns):
            index, seen = np.flatnonzero(np.reshape(labels, -1) == p), np.flatnonzero(~pattern)
            if len(seen):
                model = self.model_ if len(seen) == X.shape[1] else self.model_.marginal(seen)
                result[index] = function(model, X[np.ix_(index, seen)], index)
        return result

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
