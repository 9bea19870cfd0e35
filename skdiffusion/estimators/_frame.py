r"""Units of the data: EM runs on :math:`z = (x - b)/s`, the model is told in :math:`x`.

One scale per column for the forms that commute with it (full, tied, diagonal); one for
all where the form has an isotropic part (spherical, low rank). A column that does not vary
takes the typical scale of the others, so that its regularisation has their units.
"""

from __future__ import annotations

import numpy as np

from skdiffusion.estimators._em import Rows
from skdiffusion.estimators._mixture_forms import Mixture
from skdiffusion.estimators._seeding import canonical_key
from skdiffusion.models import MixtureModel

__all__ = ["Frame"]


class Frame:
    """Shift and scale of the columns.

    Parameters
    ----------
    mean, variances : ndarray of shape (d,)
        A variance is zero where a column does not vary.
    per_column : bool
        Whether each column has its own scale.

    Raises
    ------
    ValueError
        If no column varies.
    """

    def __init__(self, mean, variances, per_column: bool):
        self.n_features = len(mean)
        if not variances.any():
            raise ValueError("X has no variance: all of its rows are the same.")
        self.deviations = np.sqrt(variances)
        typical = np.sqrt(variances[variances > 0].mean())
        self.shift = mean
        self.scale = np.where(variances > 0, self.deviations, typical)
        if not per_column:
            self.scale = np.full(self.n_features, np.sqrt(variances.mean()))

    @classmethod
    def of(cls, X, weights, per_column: bool) -> Frame:
        """The frame of rows ``(n, d)`` with NaN where missing, and their positive weights.

        Raises
        ------
        ValueError
            If a column has no value at all, or no column varies.
        """
        X = X.astype(np.float64, copy=False)
        seen = ~np.isnan(X)
        masses = weights @ seen
        if not masses.all():
            raise ValueError(
                f"column {int(np.argmin(masses))} of X has no value that is not missing."
            )
        filled = X if seen.all() else np.where(seen, X, 0.0)
        mean = weights @ filled / masses
        centred = np.where(seen, filled - mean, 0.0) if not seen.all() else filled - mean
        # a second pass removes the rounding error of the first: constant columns stay so
        step = weights @ centred / masses
        mean = mean + step
        variances = np.einsum("n,nd,nd->d", weights, centred, centred) / masses - step**2
        rounding = 8 * np.finfo(np.float64).eps * np.abs(mean)
        return cls(mean, np.where(variances > rounding**2, variances, 0.0), per_column)

    def inward(self, X):
        """Standardised rows."""
        return (X - self.shift) / self.scale

    def rows(self, X, weights) -> Rows:
        """Standardised rows in the precision of ``X``, in an order that no unit changes."""
        z = self.inward(X).astype(X.dtype, copy=False)
        order = np.argsort(canonical_key(np.nan_to_num(z)), kind="stable")
        return Rows(z[order], weights[order])

    def log_jacobian(self, rows: Rows) -> float:
        """What to add to a mean log-likelihood of standardised rows for that of the data."""
        return -float(rows.seen @ np.log(self.scale)) / rows.total

    def model(self, mixture: Mixture, form) -> MixtureModel:
        """The mixture as a score model of the data."""
        means = self.shift + mixture.means * self.scale
        return MixtureModel(mixture.weights, means, form.covariances(mixture, self.scale))

    def mixture(self, model: MixtureModel, form) -> Mixture:
        """A score model of the data as parameters to start EM from."""
        spread = form.from_covariances(model.covariances, model.weights, self.scale)
        return Mixture(np.array(model.weights), self.inward(model.means), spread)
