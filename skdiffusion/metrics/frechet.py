r"""Fréchet distance between the Gaussians with the moments of two samples.

.. math:: d^2 = |\mu - \nu|^2 + \operatorname{tr}\big(A + B - 2 (A^{1/2} B A^{1/2})^{1/2}\big)

(Dowson & Landau 1982), the squared 2-Wasserstein distance of :math:`N(\mu, A)` and
:math:`N(\nu, B)`; on features of images it is known as FID. With :math:`A = R^\top R` and
:math:`B = S^\top S` the last trace is the nuclear norm of :math:`R S^\top`: singular values of a
product, without roots of matrices, and for singular covariances too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.metrics._frame import in_one_frame

__all__ = ["frechet_distance"]


def frechet_distance(real: Any, generated: Any, *, standardize: bool = True) -> float:
    """Squared Fréchet distance of two samples: how far their means and covariances are.

    Parameters
    ----------
    real : array-like of shape (n, d)
        At least two rows.
    generated : array-like of shape (m, d)
    standardize : bool
        Whether columns are scaled by the standard deviations of ``real``.

    Returns
    -------
    float

    References
    ----------
    D. C. Dowson and B. V. Landau, "The Fréchet distance between multivariate normal
    distributions", J. Multivariate Analysis 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import frechet_distance
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> round(frechet_distance(X, X + [1, 2, 2], standardize=False), 9)
    9.0
    """
    X, Y = in_one_frame(real, generated, standardize=standardize)
    R, S = _root(X), _root(Y)
    shift = X.mean(axis=0) - Y.mean(axis=0)
    overlap = np.linalg.svd(R @ S.T, compute_uv=False).sum()
    return float(max(shift @ shift + (R**2).sum() + (S**2).sum() - 2 * overlap, 0.0))


def _root(X):
    """A factor ``R`` of the unbiased covariance ``R' R``, no taller than wide."""
    return np.linalg.qr(X - X.mean(axis=0), mode="r") / np.sqrt(len(X) - 1)
