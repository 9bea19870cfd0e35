"""Gaussians and mixtures of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.datasets._embed import random_rotation
from skdiffusion.models import GaussianModel, MixtureModel, SpectralCovariance
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_number

__all__ = ["make_gaussian", "make_gaussian_mixture"]


def make_gaussian(
    n_samples: int = 100,
    n_features: int = 2,
    *,
    mean: Any = None,
    covariance: Any = None,
    spectrum: Any = None,
    random_state: Any = None,
):
    r"""Draws of a normal law, and its score model.

    Parameters
    ----------
    n_samples, n_features : int
    mean : array-like of shape (n_features,), optional
        Zero by default.
    covariance : float, array-like of shape (d,) or (d, d), or SpectralCovariance, optional
        By default random axes with ``spectrum``.
    spectrum : array-like of shape (n_features,), optional
        Variances along random axes; :math:`\lambda_k = 1/k` by default, the slow decay of
        natural data.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    model : GaussianModel

    Examples
    --------
    >>> X, model = make_gaussian(5, 3, spectrum=[4.0, 1.0, 0.0], random_state=0)
    >>> X.shape, model.covariance.variances
    ((5, 3), array([4., 1., 0.]))
    """
    n_samples = check_count(n_samples, "n_samples")
    d, rng = check_count(n_features, "n_features"), as_generator(random_state)
    if covariance is None:
        variances = 1 / np.arange(1, d + 1) if spectrum is None else np.asarray(spectrum, float)
        if variances.shape != (d,):
            raise ValueError(f"spectrum must have shape ({d},); got {variances.shape}.")
        covariance = SpectralCovariance(variances, random_rotation(d, rng))
    elif spectrum is not None:
        raise ValueError("give a covariance or a spectrum, not both.")
    mean = np.zeros(d) if mean is None else np.asarray(mean, dtype=float)
    if mean.shape != (d,):
        raise ValueError(f"mean must have shape ({d},); got {mean.shape}.")
    model = GaussianModel(mean, covariance)
    return model.sample(n_samples, random_state=rng), model


def make_gaussian_mixture(
    n_samples: int = 100,
    n_components: int = 8,
    n_features: int = 2,
    *,
    radius: float = 4.0,
    std: float = 0.5,
    weights: Any = None,
    means: Any = None,
    covariances: Any = None,
    random_state: Any = None,
    return_labels: bool = False,
):
    """Draws of a Gaussian mixture, and its score model.

    By default eight equal isotropic components on a circle, a classic of the field.

    Parameters
    ----------
    n_samples : int
    n_components, n_features : int
        Used without ``means``; the circle lies in the first two columns.
    radius, std : float
        Of the circle of means, and of each component.
    weights : array-like of shape (k,), optional
        Equal by default.
    means : array-like of shape (k, d), optional
    covariances : as :class:`~skdiffusion.models.MixtureModel` takes them, optional
        By default isotropic of standard deviation ``std``.
    random_state : None, int, Generator or RandomState
    return_labels : bool
        Whether to return the component of each row too.

    Returns
    -------
    X : ndarray of shape (n_samples, d)
    model : MixtureModel
    labels : ndarray of shape (n_samples,)
        Only with ``return_labels``.

    Examples
    --------
    >>> X, model = make_gaussian_mixture(200, random_state=0)
    >>> X.shape, model.n_components
    ((200, 2), 8)
    """
    n_samples, rng = check_count(n_samples, "n_samples"), as_generator(random_state)
    if means is None:
        k = check_count(n_components, "n_components")
        d = check_count(n_features, "n_features", 2)
        angles = 2 * np.pi * np.arange(k) / k
        means = np.zeros((k, d))
        means[:, :2] = check_number(radius, "radius", least=0) * np.stack(
            [np.cos(angles), np.sin(angles)], axis=1
        )
    means = np.asarray(means, dtype=float)
    k = len(means)
    if covariances is None:
        covariances = np.full(k, check_number(std, "std", least=0) ** 2)
    model = MixtureModel(np.ones(k) if weights is None else weights, means, covariances)
    labels = rng.choice(k, size=n_samples, p=model.weights)
    X = np.empty((n_samples, model.n_features))
    for j, covariance in enumerate(model.covariances):
        rows = labels == j
        if rows.any():
            component = GaussianModel(model.means[j], covariance)
            X[rows] = component.sample(int(rows.sum()), random_state=rng)
    return (X, model, labels) if return_labels else (X, model)
