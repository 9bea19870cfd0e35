r"""What a network or a callable predicts, and how the denoiser is read off it.

On a path :math:`x_t = \alpha x_0 + \sigma \varepsilon` a prediction is a linear target
:math:`r = c\, x_0 + d\, \varepsilon`. Both equations together give

.. math:: x_0 = \frac{d\, x_t - \sigma\, r}{\alpha d - \sigma c}.

================ ======================== ============================
prediction       (c, d)                   note
================ ======================== ============================
``"noise"``      :math:`(0, 1)`           DDPM
``"data"``       :math:`(1, 0)`           denoiser
``"velocity"``   :math:`(\alpha', \sigma')` flow matching, any schedule
``"v"``          :math:`(-\sigma, \alpha)`  Salimans & Ho 2022
``"score"``      :math:`(0, -1/\sigma)`   Stein score
================ ======================== ============================
"""

from __future__ import annotations

from typing import Any

from skdiffusion.utils.validation import lookup

__all__ = ["PREDICTIONS", "denoised_from_prediction", "prediction_target"]


def _noise(alpha, sigma, rates):
    return 0.0 * sigma, 1.0 + 0.0 * sigma


def _data(alpha, sigma, rates):
    return 1.0 + 0.0 * sigma, 0.0 * sigma


def _velocity(alpha, sigma, rates):
    return rates


def _v(alpha, sigma, rates):
    return -sigma, alpha


def _score(alpha, sigma, rates):
    return 0.0 * sigma, -1.0 / sigma


PREDICTIONS = {
    "noise": _noise,
    "data": _data,
    "velocity": _velocity,
    "v": _v,
    "score": _score,
}


def prediction_target(prediction: str, alpha: Any, sigma: Any, rates: tuple[Any, Any]):
    """Coefficients ``(c, d)`` of the target ``c x_0 + d eps``.

    Parameters
    ----------
    prediction : {"noise", "data", "velocity", "v", "score"}
    alpha, sigma : float or array
        Coefficients of the path.
    rates : pair of float or array
        Their time derivatives.

    Raises
    ------
    ValueError
        If the prediction is unknown.

    Examples
    --------
    >>> prediction_target("velocity", 0.75, 0.25, (-1.0, 1.0))
    (-1.0, 1.0)
    """
    return lookup(prediction, PREDICTIONS, "prediction")(alpha, sigma, rates)


def denoised_from_prediction(
    prediction: str, output: Any, x_t: Any, alpha: Any, sigma: Any, rates: tuple[Any, Any]
):
    """Denoised points ``E[x_0 | x_t]`` from a prediction of any kind.

    Parameters
    ----------
    prediction : str
        A key of ``PREDICTIONS``.
    output, x_t : arrays of shape (n, d)
        What was predicted, and where.
    alpha, sigma, rates
        As in :func:`prediction_target`.
    """
    c, d = prediction_target(prediction, alpha, sigma, rates)
    return (d * x_t - sigma * output) / (alpha * d - sigma * c)
