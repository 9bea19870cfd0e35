r"""Which features of the data appear first while a sample forms? Large variances first.

Along the probability flow of a Gaussian of variances :math:`\lambda_k` on the axes :math:`u_k`,
what the denoiser sees of an axis grows to its final size as

.. math:: \frac{u_k^\top (D(x_\sigma) - \mu)}{u_k^\top (x_0 - \mu)}
          = \frac{1}{\sqrt{1 + \sigma^2/\lambda_k}},

a sigmoid in :math:`\log\sigma`: half of it has emerged at :math:`\sigma = \sqrt{3\lambda_k}`, and
for a clock uniform in :math:`\sigma^{1/\rho}` it changes fastest at the **critical level**
:math:`\sigma^2 = \lambda_k (2\rho-1)/(\rho+1)` (Wang & Vastola 2024, section 2). A power law
:math:`\lambda_k \propto k^{-a}` emerges at :math:`\sigma_k \propto k^{-a/2}`.

Here the same is measured on the trajectories of any model: along each axis the slope of what the
denoiser sees on what is there at the end, over paths,
:math:`\langle c_\sigma, c_0\rangle / \langle c_0, c_0\rangle`. Errors of a network, which may
well exceed a narrow axis at high noise, average out where they have nothing to do with the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats

from skdiffusion.inspection._paths import as_paths
from skdiffusion.models import GaussianModel
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["FeatureEmergence", "feature_emergence"]

FINAL = 0.1
"""Noise level, in standard deviations of an axis, at which the axis has its final size."""


@dataclass(frozen=True)
class FeatureEmergence:
    r"""When each principal axis emerges; ``r`` axes in the order of the spectrum.

    Attributes
    ----------
    variances : ndarray of shape (r,)
        Of the axes whose predicted level was visited.
    levels : ndarray of shape (m,)
        Noise levels of the denoised points, falling.
    amplitude : ndarray of shape (m, r)
        Share of what is there at the end of each axis that the denoiser sees.
    fraction : float
        Share that counts as emerged.
    observed : ndarray of shape (r,)
        Level below which the share is kept.
    predicted : ndarray of shape (r,)
        The same for the Gaussian with the moments of the data.
    n_paths : int
    """

    variances: np.ndarray = field(repr=False)
    levels: np.ndarray = field(repr=False)
    amplitude: np.ndarray = field(repr=False)
    fraction: float
    observed: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    n_paths: int

    @property
    def predicted_amplitude(self) -> np.ndarray:
        """``amplitude`` of the Gaussian, ``(m, r)``."""
        return 1 / np.sqrt(1 + self.levels[:, None] ** 2 / self.variances)

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of the variances with the observed levels: one if in order."""
        if not np.ptp(self.observed):  # all at once
            return 0.0
        return float(scipy.stats.spearmanr(self.variances, self.observed).statistic)

    def critical_levels(self, rho: float = 7.0) -> np.ndarray:
        r"""Level at which each axis changes fastest, by a clock uniform in :math:`\sigma^{1/\rho}`.

        Parameters
        ----------
        rho : float
            1 is linear in the level, 7 the EDM grid, ``inf`` logarithmic.

        Returns
        -------
        ndarray of shape (r,)
        """
        return self._gaussian.emergence_levels(rho=rho)

    @property
    def _gaussian(self):
        return GaussianModel(np.zeros(len(self.variances)), self.variances)

    def __str__(self):
        ratio = self.observed / self.predicted
        low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
        return (
            f"{len(self.variances)} axes on {self.n_paths} paths: rank correlation of variance "
            f"and order of emergence {self.rank_correlation:.4f}\n"
            f"  {self.fraction:.0%} of an axis at {middle:.2f} times the level of a Gaussian "
            f"(80% of the axes: {low:.2f} to {high:.2f})"
        )


def feature_emergence(
    source: Any,
    levels: Any = None,
    *,
    far_field: Any = None,
    fraction: float = 0.5,
    n_axes: int | None = None,
    n_samples: int = 500,
    n_steps: int | None = None,
    sampler: Any = None,
    random_state: Any = 0,
) -> FeatureEmergence:
    r"""Order in which the principal axes of the data emerge on sampling trajectories.

    Parameters
    ----------
    source : fitted estimator, score model or array-like of shape (n_levels, n_samples, n_features)
        What draws the trajectories, or the trajectories; of these the denoised points are read
        off the steps.
    levels : array-like of shape (n_levels,), optional
        Falling noise levels of given trajectories, or of those of a model.
    far_field : GaussianModel, optional
        Moments of the data. By default those of the end points for given trajectories, and for a
        model those that it knows.
    fraction : float in (0, 1)
        Share of its final size at which an axis counts as emerged; one half is reached at
        :math:`\sqrt{3\lambda}` by a Gaussian.
    n_axes : int, optional
        How many of the widest axes to look at; all by default.
    n_samples, n_steps, sampler, random_state
        How an estimator draws; 64 levels by default.

    Returns
    -------
    FeatureEmergence

    Raises
    ------
    ValueError
        If fewer than two axes emerge at the levels visited, or as in
        :func:`~skdiffusion.inspection.trajectory_geometry`.

    References
    ----------
    B. Wang and J. J. Vastola, TMLR 2024.

    Examples
    --------
    >>> from skdiffusion import GaussianScore
    >>> from skdiffusion.datasets import make_gaussian
    >>> from skdiffusion.inspection import feature_emergence
    >>> X, _ = make_gaussian(500, 3, spectrum=[9.0, 1.0, 0.25], random_state=0)
    >>> found = feature_emergence(GaussianScore().fit(X))
    >>> found.rank_correlation
    1.0
    >>> bool(abs(found.observed / found.predicted - 1).max() < 0.05)
    True
    """
    fraction = check_number(fraction, "fraction", above=0)
    paths = as_paths(
        source,
        levels,
        far_field,
        n_samples=n_samples,
        n_steps=n_steps,
        sampler=sampler,
        random_state=random_state,
    )
    covariance = paths.far_field.covariance
    predicted = paths.far_field.emergence_levels(fraction=fraction)
    denoised, levels = paths.denoised()
    final = levels[-1] < FINAL * np.sqrt(covariance.variances)
    if n_axes is not None:
        widest = np.argsort(-covariance.variances, kind="stable")
        final[widest[check_count(n_axes, "n_axes", 2) :]] = False
    seen = final & (levels[-1] < predicted) & (predicted < levels[0])
    if len(np.unique(covariance.variances[seen])) < 2:
        raise ValueError(
            f"{len(np.unique(covariance.variances[seen]))} different variances emerge between the "
            f"noise levels {levels[0]:.3g} and {levels[-1]:.3g}; an order needs at least two."
        )
    centred = denoised - paths.far_field.mean
    along = centred if covariance.axes is None else centred @ covariance.axes
    along = along[:, :, seen]
    size = np.maximum((along[-1] ** 2).sum(axis=0), np.finfo(float).tiny)
    amplitude = np.einsum("tnk,nk->tk", along, along[-1]) / size
    return FeatureEmergence(
        variances=covariance.variances[seen],
        levels=levels,
        amplitude=amplitude,
        fraction=fraction,
        observed=_reached_for_good(amplitude, levels, fraction),
        predicted=predicted[seen],
        n_paths=denoised.shape[1],
    )


def _reached_for_good(amplitude, levels, fraction):
    """Level below which each column stays above a share, linear in the logarithm of the level."""
    n = len(levels)
    before = n - 1 - (amplitude[::-1] < fraction).argmax(axis=0)  # the last one below the share
    before = np.where((amplitude < fraction).any(axis=0), np.minimum(before, n - 2), 0)
    column = np.arange(amplitude.shape[1])
    low, high = amplitude[before, column], amplitude[before + 1, column]
    rise = np.where(high > low, high - low, 1.0)
    share = np.clip((fraction - low) / rise, 0, 1)
    logs = np.log(levels)
    return np.exp(logs[before] + share * (logs[before + 1] - logs[before]))
