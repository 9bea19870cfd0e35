r"""From which noise level on is a Gaussian enough? Answered from the data alone.

The Gaussian with the moments of the data is the best linear denoiser of any law. What a
perfect denoiser gains on it, :math:`E|D - D_G|^2 = \mathrm{lmmse}(\sigma) - \mathrm{mmse}(\sigma)`,
obeys two laws:

.. math::
    E|D - D_G|^2 = \frac{|\kappa_3|_F^2}{2 \sigma^4} + O(\sigma^{-6}), \qquad
    |\kappa_3|_F^2 = E_{y, y'} \big[(y-\mu)^\top (y'-\mu)\big]^3,

the third cumulant of the data at high noise, and the I-MMSE identity
:math:`\int_0^{1/\sigma^2} E|D - D_G|^2 d\gamma = 2\, \mathrm{KL}(p_\sigma \| N(\mu, C+\sigma^2))`.
For the data set itself, ``n`` points that carry at most :math:`\log n` nats, the second says that
a Gaussian must fail below the information level :math:`\sigma_I` of
:math:`\tfrac12 \sum_k \log(1 + \lambda_k/\sigma_I^2) = \log n`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.optimize

from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_points
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["FarFieldReport", "far_field_report"]


@dataclass(frozen=True)
class FarFieldReport:
    """What the data say about their own far field.

    Attributes
    ----------
    n_samples : int
        Rows of the data.
    variances : ndarray of shape (d,)
        Eigenvalues of the covariance, largest first.
    third_cumulant : float
        Frobenius norm of the third cumulant tensor.
    information_level : float
        Level below which a Gaussian cannot be the law of these rows.
    sufficient_level : float
        Level from which on the excess error of the Gaussian denoiser is below ``tolerance``, by
        the law of the third cumulant. Rows that lie symmetrically about their mean, as rings do,
        have none: it is too low for them, by a factor of two for a ring, and zero for two points.
    tolerance : float
        Share of the Gaussian's own denoising error.
    """

    n_samples: int
    variances: np.ndarray = field(repr=False)
    third_cumulant: float
    information_level: float
    sufficient_level: float
    tolerance: float

    def linear_error(self, sigma: Any):
        """Mean squared error of the best linear denoiser, summed over columns."""
        sigma = np.asarray(sigma, dtype=np.float64)[..., None] ** 2
        return (self.variances * sigma / (self.variances + sigma)).sum(-1)

    def excess_error(self, sigma: Any):
        r"""Predicted :math:`E|D - D_G|^2` by the third-cumulant law; too large at low noise."""
        return self.third_cumulant**2 / (2 * np.asarray(sigma, dtype=np.float64) ** 4)

    def __str__(self):
        return (
            f"{self.n_samples} rows in {len(self.variances)} columns\n"
            f"  from sigma = {self.sufficient_level:.3g} a Gaussian denoises within "
            f"{self.tolerance:.1%} of the best\n"
            f"  below sigma = {self.information_level:.3g} it cannot be the law of these rows\n"
            f"  (leading standard deviation: {np.sqrt(self.variances[0]):.3g})"
        )


def far_field_report(
    X: Any, *, tolerance: float = 0.01, max_rows: int = 4000, random_state: Any = 0
) -> FarFieldReport:
    """From which noise level on a Gaussian suffices for a data set.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        At least two rows that are not all the same.
    tolerance : float
        Accepted excess of the Gaussian's denoising error, as a share of it.
    max_rows : int
        The third cumulant takes all pairs of at most this many rows, drawn at random.
    random_state : None, int, Generator or RandomState
        For that draw.

    Returns
    -------
    FarFieldReport

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdiffusion.inspection import far_field_report
    >>> print(far_field_report(load_digits().data / 16))
    1797 rows in 64 columns
      from sigma = 1.98 a Gaussian denoises within 1.0% of the best
      below sigma = 0.444 it cannot be the law of these rows
      (leading standard deviation: 0.836)
    """
    X = check_points(X, ensure_min_samples=2)
    tolerance = check_number(tolerance, "tolerance", above=0)
    max_rows = check_count(max_rows, "max_rows", 2)
    n, d = X.shape
    centred = X - X.mean(axis=0)
    variances = np.zeros(d)
    squared = np.linalg.svd(centred, compute_uv=False) ** 2 / n
    variances[: len(squared)] = squared
    if not variances[0] > 0:
        raise ValueError("X has no variance: all of its rows are the same.")
    unit = np.sqrt(variances[0])  # in which cubes of squares are numbers
    cumulant = _third_cumulant(centred / unit, max_rows, random_state)
    shares = variances / variances[0]

    def information_gap(log_sigma):
        levels = np.exp(2 * log_sigma)
        return 0.5 * np.log1p(shares / levels).sum() - np.log(n)

    # at the low end the leading axis alone holds log n nats, at the high end all hold less
    low, high = -np.log(n) - 1, 0.5 * np.log(d) + 2
    information = float(np.exp(scipy.optimize.brentq(information_gap, low, high)))

    def excess_gap(log_sigma):
        sigma = np.exp(2 * log_sigma)
        linear = (shares * sigma / (shares + sigma)).sum()
        return 2 * np.log(cumulant) - np.log(2) - 4 * log_sigma - np.log(tolerance * linear)

    if cumulant > 0:
        sufficient = float(np.exp(scipy.optimize.brentq(excess_gap, -20.0, 20.0)))
    else:
        sufficient = 0.0
    return FarFieldReport(
        n_samples=n,
        variances=variances,
        third_cumulant=float(cumulant * unit**3),
        information_level=float(information * unit),
        sufficient_level=float(sufficient * unit),
        tolerance=tolerance,
    )


def _third_cumulant(centred, max_rows, random_state):
    """Norm of the third cumulant of the empirical law, exact up to ``max_rows`` rows.

    Of a subsample the terms with themselves are given the weight they have in the whole, so
    that the estimate is unbiased.
    """
    n = len(centred)
    rows = centred
    if n > max_rows:
        rows = centred[as_generator(random_state).choice(n, max_rows, replace=False)]
    m = len(rows)
    cubes = (rows @ rows.T) ** 3
    own = cubes.diagonal().mean()
    others = (cubes.sum() - cubes.diagonal().sum()) / (m * (m - 1))
    return float(np.sqrt(max(own / n + others * (1 - 1 / n), 0.0)))
