r"""What a network or a callable predicts, and how the denoiser is read off it.

On a path :math:`x_t = \alpha x_0 + \sigma \varepsilon` a prediction is a linear target
:math:`r = c\, x_0 + d\, \varepsilon`. Both equations together give

.. math:: x_0 = \frac{d\, x_t - \sigma\, r}{\alpha d - \sigma c}.

================ ============================== ============================
prediction       (c, d)                         note
================ ============================== ============================
``"noise"``      :math:`(0, 1)`                 DDPM
``"data"``       :math:`(1, 0)`                 denoiser
``"velocity"``   :math:`(\alpha', \sigma')`     flow matching, any schedule
``"v"``          :math:`(-\sigma, \alpha)`      Salimans & Ho 2022
``"score"``      :math:`(0, -1/\sigma)`         Stein score
================ ============================== ============================

A network is trained with a **parameterization**, which says how the denoiser is made of it
at noise level :math:`\sigma`, and how its errors count:

.. math:: D(x, \sigma) = c_{skip} x + c_{out}\, F(c_{in} x, c_{noise}), \qquad
          L = E\, w(\sigma)\, |D(x_0 + \sigma\varepsilon, \sigma) - x_0|^2 / c_{out}^2 .

The five predictions above are parameterizations on a schedule: with :math:`m = \alpha d - \sigma c`
they have :math:`c_{skip} = \alpha d/m,\ c_{out} = -\sigma/m`. A network predicts :math:`r_j/s_j`
in column :math:`j` of variance :math:`\lambda_j`,

.. math:: s_j^2 = \frac{c^2 \lambda_j + d^2}{c^2 + d^2} ,

so that the targets of all columns have the same variance :math:`c^2 + d^2`: a narrow column is
learned as well as a wide one. EDM's (Karras et al. 2022) gives
network inputs and targets unit variance at every level. The Gaussian one skips along every
principal axis by :math:`\lambda/(\lambda+\sigma^2)`, :math:`\lambda` its variance: the linear
denoiser, so that the network learns only what is not Gaussian (Wang & Vastola 2024). The
mixture's has the denoiser of a Gaussian mixture of the rows in the place of :math:`c_{skip} x`: it
explains more of what networks learn than the Gaussian does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sklearn.base import BaseEstimator

from skdiffusion.utils.validation import check_count, lookup

__all__ = [
    "PARAMETERIZATIONS",
    "PREDICTIONS",
    "Coefficients",
    "EDMParameterization",
    "GaussianParameterization",
    "MixtureParameterization",
    "Parameterization",
    "PredictionParameterization",
    "check_parameterization",
    "denoised_from_prediction",
    "prediction_target",
]


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


class Coefficients(NamedTuple):
    """What stands around the network at some noise levels; they broadcast against its points."""

    skip: Any
    out: Any
    input: Any
    weight: Any


class Parameterization(BaseEstimator):
    """Base class of the parameterizations: the coefficients around a network.

    A subclass implements :meth:`coefficients`. It is a scikit-learn ``BaseEstimator`` without
    ``fit``: it clones, prints, and can be searched.
    """

    def coefficients(self, sigma: Any, schedule: Any, variances: Any) -> Coefficients:
        """Coefficients at noise levels.

        Parameters
        ----------
        sigma : array of shape (n, 1)
            Noise levels.
        schedule : NoiseSchedule
            On whose path a prediction is defined.
        variances : array of shape (d,)
            Variances of the columns of the data, like ``sigma``.

        Returns
        -------
        Coefficients
            Arrays of shape (n, 1) or (n, d).
        """
        raise NotImplementedError

    def units(self, sigma: Any, schedule: Any, variances: Any) -> Any:
        """Units of a network's output in each column, in those of the coefficients: 1 by default.

        Parameters
        ----------
        sigma, schedule, variances
            As in :meth:`coefficients`.

        Returns
        -------
        float or array of shape (n, 1) or (n, d)
        """
        return 1.0


class PredictionParameterization(Parameterization):
    """The network predicts noise, data, velocity, v or the score on its schedule.

    Inputs have unit variance; errors of the prediction count alike at all levels, those of the
    score, which grow without bound at low noise, in units of the noise.

    Parameters
    ----------
    prediction : {"noise", "data", "velocity", "v", "score"}

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.schedules import EDMSchedule
    >>> found = PredictionParameterization("noise").coefficients(
    ...     np.array([[2.0]]), EDMSchedule(), np.ones(3))
    >>> found.skip.item(), found.out.item()  # D = x - 2 F
    (1.0, -2.0)
    """

    def __init__(self, prediction="noise"):
        self.prediction = prediction

    def coefficients(self, sigma, schedule, variances):  # noqa: D102
        time = schedule.time_of(sigma)
        alpha, noise = schedule.alpha(time), schedule.sigma(time)
        c, d = prediction_target(self.prediction, alpha, noise, schedule.rates(time))
        scale = alpha * d - noise * c
        one = 0 * sigma + 1.0
        weight = noise**2 if self.prediction == "score" else one
        total = sigma**2 + variances.mean()
        return Coefficients(
            alpha * d / scale * one, -noise / scale * one, total**-0.5, weight * one
        )

    def units(self, sigma, schedule, variances):  # noqa: D102
        time = schedule.time_of(sigma)
        alpha, noise = schedule.alpha(time), schedule.sigma(time)
        c, d = prediction_target(self.prediction, alpha, noise, schedule.rates(time))
        return ((c**2 * variances + d**2) / (c**2 + d**2)) ** 0.5


class EDMParameterization(Parameterization):
    """Unit variance of the network's inputs and targets at every level (Karras et al. 2022).

    Examples
    --------
    >>> import numpy as np
    >>> found = EDMParameterization().coefficients(np.array([[1.0]]), None, np.ones(2))
    >>> found.skip.item(), round(found.out.item() ** 2, 12)
    (0.5, 0.5)
    """

    def coefficients(self, sigma, schedule, variances):  # noqa: D102
        variance = variances.mean()
        total = sigma**2 + variance
        out = sigma * (variance / total) ** 0.5
        return Coefficients(variance / total, out, total**-0.5, 0 * sigma + 1.0)


class GaussianParameterization(Parameterization):
    """The network learns what the linear denoiser misses, axis by axis.

    Where the columns are principal axes the skip connection is the best linear denoiser. Errors
    count as shares of its expected error at the level, so that targets have unit variance. The
    network sees all axes on one scale: whitened, the narrow ones would be as loud as those that
    carry the structure. A perceptron of 8 columns or more sees, beside the point, its direction and
    distance in the noised Gaussian, which say how far to shrink rows that differ in scale.

    Examples
    --------
    >>> import numpy as np
    >>> found = GaussianParameterization().coefficients(
    ...     np.array([[1.0]]), None, np.array([1.0, 3.0]))
    >>> found.skip
    array([[0.5 , 0.75]])
    """

    def coefficients(self, sigma, schedule, variances):  # noqa: D102
        share = variances / (sigma**2 + variances)
        out = sigma * share.mean(-1)[..., None] ** 0.5
        total = sigma**2 + variances.mean()
        return Coefficients(share, out, total**-0.5, 0 * sigma + 1.0)


class MixtureParameterization(GaussianParameterization):
    """The network learns what a Gaussian mixture of the rows misses.

    ``NeuralScore`` fits the mixture to its training rows, at most 10,000 of them, and the network
    adds to its denoiser; with class labels, one to each class beside that of all rows. Errors count
    as with the Gaussian skip. A perceptron that need not be conservative sees what the mixture says
    beside the point, and can take it back where it is wrong; of columns whose own law is sharper
    than the mixture's, such as counts and rounded or bounded numbers, it also sees what that law
    says. Rows that were held out name these columns, say how much of what the network adds is kept,
    and then teach the mixture too. Densities and samples of tables are nearly always better, after
    fewer steps.

    Parameters
    ----------
    n_components : "auto", int or {"bic", "held_out"}
        Components of a mixture. ``"auto"`` is as many as held-out rows ask for, 20 at most, with
        the regularisation that they ask for; of more than 128 columns one for every fifty rows. The
        others choose as :class:`~skdiffusion.GMMScore` does.
    n_averaged : int
        Mixtures from different starts whose average is taken: a single one knows its rows too well
        for the network to see where it is wrong.

    Examples
    --------
    >>> MixtureParameterization(5).get_params()
    {'n_averaged': 5, 'n_components': 5}
    """

    def __init__(self, n_components="auto", n_averaged=5):
        self.n_components = n_components
        self.n_averaged = n_averaged


PARAMETERIZATIONS = {
    "gaussian": GaussianParameterization,
    "mixture": MixtureParameterization,
    "edm": EDMParameterization,
    **dict.fromkeys(PREDICTIONS, PredictionParameterization),
}

CHOSEN = ("auto", "bic", "held_out")

ELSEWHERE = {
    **dict.fromkeys(("epsilon", "eps"), "noise"),
    **dict.fromkeys(("x0", "sample", "denoiser"), "data"),
    **dict.fromkeys(("flow", "flow_prediction"), "velocity"),
    "v_prediction": "v",
}


def check_parameterization(parameterization: Any, or_else: str = "") -> Parameterization:
    """A parameterization from its short name or from itself.

    Parameters
    ----------
    parameterization : str or Parameterization
        ``"gaussian"``, ``"mixture"``, ``"edm"``, ``"noise"``, ``"data"``, ``"velocity"``, ``"v"``,
        ``"score"`` or an instance.
    or_else : str
        What else the caller accepts, for the error.

    Returns
    -------
    Parameterization

    Raises
    ------
    ValueError
        If the name is unknown, or a parameter of an instance is out of its range.

    Examples
    --------
    >>> check_parameterization("velocity")
    PredictionParameterization(prediction='velocity')
    """
    if isinstance(parameterization, PredictionParameterization):
        lookup(parameterization.prediction, PREDICTIONS, "prediction")
    if isinstance(parameterization, MixtureParameterization):
        n_components = parameterization.n_components
        if isinstance(n_components, str):
            lookup(n_components, dict.fromkeys(CHOSEN), "n_components", "an integer")
        else:
            check_count(n_components, "n_components")
        check_count(parameterization.n_averaged, "n_averaged")
    if isinstance(parameterization, Parameterization):
        return parameterization
    made = lookup(
        parameterization,
        PARAMETERIZATIONS,
        "parameterization",
        f"{or_else and or_else + ' or '}a Parameterization instance",
        ELSEWHERE,
    )
    return made(parameterization) if made is PredictionParameterization else made()
