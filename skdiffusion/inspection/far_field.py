r"""From which noise level on is a Gaussian enough? Answered from the data alone.

The Gaussian with the moments of the data is the best linear denoiser of any law. What a
perfect denoiser gains on it, :math:`E|D - D_G|^2 = \mathrm{lmmse}(\sigma) - \mathrm{mmse}(\sigma)`,
obeys two laws:

.. math::
    E|D - D_G|^2 = \frac{|\kappa_3|_F^2}{2 \sigma^4}
    + \frac{|\kappa_4|_F^2 / 6 - 2 \langle C \kappa_3, \kappa_3 \rangle}{\sigma^6}
    + O(\sigma^{-8}), \qquad
    |\kappa_3|_F^2 = E\, g^3, \quad
    |\kappa_4|_F^2 = E\, g^4 - 6\, E (y^\top C y)^2 + 3 (\operatorname{tr} C^2)^2
    + 6 \operatorname{tr} C^4,

the cumulants of the data at high noise, :math:`g = y^\top y'` of independent rows about the mean,
and the I-MMSE identity
:math:`\int_0^{1/\sigma^2} E|D - D_G|^2 d\gamma = 2\, \mathrm{KL}(p_\sigma \| N(\mu, C+\sigma^2))`.
Where the data lie symmetrically about their mean the fourth cumulant decides; the term that lowers
the excess is left out, so that a level is sufficient rather than just so.
For the data set itself, ``n`` points that carry at most :math:`\log n` nats, the second says that
a Gaussian must fail below the information level :math:`\sigma_I` of
:math:`\tfrac12 \sum_k \log(1 + \lambda_k/\sigma_I^2) = \log n`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.utils import gen_batches

from skdiffusion.utils.memory import rows_in_memory
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
    fourth_cumulant : float
        Frobenius norm of the fourth.
    information_level : float
        Level below which a Gaussian cannot be the law of these rows.
    sufficient_level : float
        Level from which on the excess error of the Gaussian denoiser is below ``tolerance``, by
        the law of the third and fourth cumulants, which is an upper bound at high noise: mostly up
        to a third higher than need be.
    tolerance : float
        Share of the Gaussian's own denoising error.
    """

    n_samples: int
    variances: np.ndarray = field(repr=False)
    third_cumulant: float
    fourth_cumulant: float
    information_level: float
    sufficient_level: float
    tolerance: float

    def linear_error(self, sigma: Any):
        """Mean squared error of the best linear denoiser, summed over columns."""
        sigma = np.asarray(sigma, dtype=np.float64)[..., None] ** 2
        return (self.variances * sigma / (self.variances + sigma)).sum(-1)

    def excess_error(self, sigma: Any):
        r"""Predicted :math:`E|D - D_G|^2` by the law of the cumulants; too large at low noise."""
        sigma = np.asarray(sigma, dtype=np.float64)
        third, fourth = self.third_cumulant / sigma**2, self.fourth_cumulant / sigma**3
        return third**2 / 2 + fourth**2 / 6

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
        Accepted excess of the Gaussian's denoising error, as a share of it: at most one.
    max_rows : int
        The cumulants take all pairs of at most this many rows, drawn at random.
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
      from sigma = 2.07 a Gaussian denoises within 1.0% of the best
      below sigma = 0.444 it cannot be the law of these rows
      (leading standard deviation: 0.836)
    """
    X = check_points(X, ensure_min_samples=2)
    tolerance = check_number(tolerance, "tolerance", above=0, most=1)
    max_rows = check_count(max_rows, "max_rows", 2)
    n, d = X.shape
    centred = X - X.mean(axis=0)
    variances = np.zeros(d)
    squared = np.linalg.svd(centred, compute_uv=False) ** 2 / n
    variances[: len(squared)] = squared
    if not variances[0] > 0:
        raise ValueError("X has no variance: all of its rows are the same.")
    unit = np.sqrt(variances[0])  # in which powers of squares are numbers
    shares = variances / variances[0]
    third, fourth = _cumulants(centred / unit, shares, max_rows, random_state)

    def information_gap(log_sigma):
        levels = np.exp(2 * log_sigma)
        return 0.5 * np.log1p(shares / levels).sum() - np.log(n)

    # at the low end the leading axis alone holds log n nats, at the high end all hold less
    low, high = -np.log(n) - 1, 0.5 * np.log(d) + 2
    information = float(np.exp(scipy.optimize.brentq(information_gap, low, high)))

    with np.errstate(divide="ignore"):
        heights = np.log([third / 2, fourth / 6])

    def excess_gap(log_sigma):
        sigma = np.exp(2 * log_sigma)
        linear = (shares * sigma / (shares + sigma)).sum()
        excess = np.logaddexp(heights[0] - 4 * log_sigma, heights[1] - 6 * log_sigma)
        return excess - np.log(tolerance) - np.log(linear)

    sufficient = 0.0
    if third or fourth:
        sufficient = float(np.exp(scipy.optimize.brentq(excess_gap, -200.0, 200.0)))
    return FarFieldReport(
        n_samples=n,
        variances=variances,
        third_cumulant=float(np.sqrt(third) * unit**3),
        fourth_cumulant=float(np.sqrt(fourth) * unit**4),
        information_level=float(information * unit),
        sufficient_level=float(sufficient * unit),
        tolerance=tolerance,
    )


def _cumulants(centred, variances, max_rows, random_state):
    """Squared norms of the third and fourth cumulant of the empirical law.

    Exact up to ``max_rows`` rows. Of a subsample the terms with themselves are given the weight
    they have in the whole, so that the estimates are unbiased.
    """
    n = len(centred)
    rows = centred
    if n > max_rows:
        rows = centred[as_generator(random_state).choice(n, max_rows, replace=False)]
    m, powers = len(rows), np.array([3, 4])[:, None]
    pairs = np.zeros(2)
    for batch in gen_batches(m, rows_in_memory(3 * m)):
        products = rows[batch] @ rows.T
        squares = products**2
        pairs += (squares * products).sum(), (squares**2).sum()
    own = ((rows**2).sum(axis=1) ** powers).mean(axis=1)
    others = (pairs - m * own) / (m * (m - 1))
    third, fourth = own / n + others * (1 - 1 / n)
    within = (np.linalg.multi_dot([centred, centred.T, centred]) * centred).sum(axis=1) / n
    gaussian = 6 * (within**2).mean() - 3 * (variances**2).sum() ** 2 - 6 * (variances**4).sum()
    return max(third, 0.0), max(fourth - gaussian, 0.0)
