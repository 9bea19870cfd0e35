r"""Where along the noise levels a law takes shape, from its variances alone.

Along the probability flow of a Gaussian, the axis of standard deviation :math:`r` has
:math:`x = \sqrt{r^2+\sigma^2}\,z` and :math:`D = r \cos\varphi\,z` with the angle
:math:`\varphi = \arctan(\sigma/r)`: the denoised point is an entire function of the angle, which
runs over a finite range, from zero to the far field. The **clock** of a covariance adds up
the angles of its axes, each weighted by its standard deviation,

.. math:: \Theta(\sigma) = \operatorname{tr}\!\big[C^{1/2} \arctan(\sigma\, C^{-1/2})\big],
          \qquad \Theta'(\sigma) = \operatorname{tr}\frac{C}{C + \sigma^2}:

its rate is the effective number of degrees of freedom at the level. Multistep samplers
interpolate denoised points in it, in the unit :math:`\operatorname{tr} C^{1/2}`.

**Levels.** A step of length :math:`\delta` in the angle, with a polynomial through :math:`p`
points, errs by :math:`r\,\delta^p |D^{(p)}|` for a time
:math:`d\sigma/\sigma = d\varphi/(\sin\varphi \cos\varphi)`, and what :math:`x` errs by is felt at
the data :math:`\cos\varphi` times: by :math:`r\,\delta^p |D^{(p)}| / \sin\varphi` per angle. The
sum over steps is least for a density of levels :math:`(|D^{(p)}| / \sin\varphi)^{1/(p+1)}`: for
order three uniform in the angle, a bell in :math:`\log\sigma` around :math:`r` with tails
:math:`(\sigma/r)^{\pm 1}`; for order four :math:`\cot^{1/5}\varphi`, with tails
:math:`(\sigma/r)^{0.8}` and :math:`(\sigma/r)^{-1.2}`. The bell :math:`[u(1-u)]^e`,
:math:`u = \sigma/(\sigma+r)`, has tails :math:`(\sigma/r)^{\pm e}`, and is that of a Beta law in
:math:`u`. Two thirds of the levels are shared by the axes in
proportion to their standard deviations, for small errors in the units of the data, and one third
equally, so that narrow axes come out with their own width: the share of levels below
:math:`\sigma` is

.. math:: N(\sigma) = \operatorname{tr}[W\, I_U(e, e)],
          \qquad U = \sigma (\sigma + C^{1/2})^{-1},
          \qquad W = \frac{2}{3} \frac{C^{1/2}}{\operatorname{tr} C^{1/2}} + \frac{1}{3d},

with :math:`I` the regularised incomplete beta function. One axis and :math:`e = 1` are the levels
of flow matching.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from scipy.special import betainc

from skdiffusion.utils.arrays import like, namespace
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["SpectralClock", "spectral_levels"]

TABLE = 1000
"""Points of the table in which the number of levels is inverted."""
MERGED = 0.05
"""Axes whose standard deviations differ by less than this factor count as one."""
TAIL = 0.85
"""The exponent :math:`e`, between one, of order three, and 0.8, of order four at its lower end."""
EQUAL_SHARE = 1 / 3
"""Of the levels, shared equally by the axes: a relative error for those that are narrow."""
STRETCH = 2.0
"""Of the clock's radii. For Gaussians of broad spectrum the error of a multistep method is flat
from 1.25 to 4 and rises below 1: a clock had better be too wide than too narrow."""


class SpectralClock:
    r"""The clock :math:`\Theta(\sigma) = \operatorname{tr}[C^{1/2}\arctan(\sigma C^{-1/2})]`.

    It is in the unit :math:`\operatorname{tr} C^{1/2}`, and so runs from zero to :math:`\pi/2`.

    Parameters
    ----------
    covariance : SpectralCovariance
    stretch : float
        Factor on the standard deviations.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models.covariance import SpectralCovariance
    >>> clock = SpectralClock(SpectralCovariance(np.array([1.0, 1.0, 4.0])), stretch=1.0)
    >>> clock(np.array([0.0, 1.0])).round(6)  # (2 pi/4 + 2 arctan(1/2)) / 4
    array([0.      , 0.624523])
    """

    def __init__(self, covariance: Any, stretch: float = STRETCH):
        radii, self.weights = _radii(covariance)
        self.radii = stretch * radii
        self.weights /= self.weights.sum()

    def __call__(self, level: Any):
        """The clock at an array of levels, elementwise."""
        level = 1.0 * level
        angle = namespace(level).atan(level[..., None] / like(self.radii, level))
        return angle @ like(self.weights, level)


def spectral_levels(covariance: Any, n_steps: int, sigma_min: float, sigma_max: float):
    """Decreasing noise levels, dense where the law takes shape.

    They divide the integral of the density of levels (see the module) from ``sigma_max``
    down to zero into equal parts, so the step to zero is one like the others: the
    last level is not ``sigma_min``, but above it.

    Parameters
    ----------
    covariance : SpectralCovariance
        Of the data.
    n_steps : int
        How many levels.
    sigma_min, sigma_max : float
        Lower bound of the levels, and the first of them.

    Returns
    -------
    ndarray of shape (n_steps,)

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.models.covariance import SpectralCovariance
    >>> spectral_levels(SpectralCovariance(np.ones(1)), 5, 0.002, 20.0).round(2)
    array([20.  ,  3.34,  1.31,  0.57,  0.19])
    """
    n_steps = check_count(n_steps, "n_steps")
    sigma_min = check_number(sigma_min, "sigma_min", above=0)
    sigma_max = check_number(sigma_max, "sigma_max", above=sigma_min)
    radii, weights = _radii(covariance)
    table, below = _numbers_of_levels(radii.tobytes(), weights.tobytes(), sigma_min, sigma_max)
    last = max(below[-1] / n_steps, below[0])
    levels = np.exp(np.interp(np.linspace(below[-1], last, n_steps), below, np.log(table)))
    levels[0] = sigma_max
    return levels


@functools.lru_cache(maxsize=16)  # milliseconds, that every call of a sampler would take again
def _numbers_of_levels(radii, weights, sigma_min, sigma_max):
    """Levels, and the share of all that lies below each, for arrays as their bytes."""
    radii, weights = np.frombuffer(radii), np.frombuffer(weights)
    counts = weights / radii
    weights = (1 - EQUAL_SHARE) * weights / weights.sum() + EQUAL_SHARE * counts / counts.sum()
    table = np.geomspace(sigma_min, sigma_max, TABLE)
    share = betainc(TAIL, TAIL, table[:, None] / (table[:, None] + radii))
    return table, share @ weights


def _radii(covariance):
    """Standard deviations along the axes, those within ``MERGED`` as one, and their sums."""
    radii, counts = np.sqrt(covariance.variances), np.ones(len(covariance.variances))
    if covariance.n_residual:
        radii = np.append(radii, np.sqrt(covariance.residual))
        counts = np.append(counts, covariance.n_residual)
    radii, counts = radii[radii > 0], counts[radii > 0]
    if not len(radii):
        raise ValueError("a law without variance takes shape at no noise level: it is a point.")
    _, group = np.unique(np.floor(np.log(radii) / MERGED), return_inverse=True)
    weights = np.bincount(group, radii * counts)
    return weights / np.bincount(group, counts), weights
