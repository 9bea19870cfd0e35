r"""Pictures of a decomposed score: how much of it is a gradient, level by level."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

__all__ = ["ConservativityDisplay"]


class ConservativityDisplay:
    """Conservative fraction of a score against the noise level, with error bars.

    Parameters
    ----------
    levels : ndarray of shape (n_levels,)
    fraction, std_error : ndarray of shape (n_levels,)
        Out of fold, and over rows.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    errorbar_ : matplotlib ErrorbarContainer

    Examples
    --------
    >>> from skdiffusion import ConservativityDecomposer, GMMScore
    >>> from skdiffusion.inspection import ConservativityDisplay
    >>> from sklearn.datasets import load_iris
    >>> score = GMMScore(2, random_state=0)
    >>> dec = ConservativityDecomposer("linear", score_estimator=score, random_state=0)
    >>> display = ConservativityDisplay.from_estimator(dec.fit(load_iris().data))
    >>> display.ax_.get_xlabel()
    'noise level'
    """

    def __init__(self, *, levels: Any, fraction: Any, std_error: Any):
        self.levels = levels
        self.fraction = fraction
        self.std_error = std_error

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any):
        """From a fitted :class:`~skdiffusion.ConservativityDecomposer` of a score.

        Parameters
        ----------
        estimator : ConservativityDecomposer
        ax : matplotlib Axes, optional
        **kwargs : dict
            For ``Axes.errorbar``.

        Returns
        -------
        ConservativityDisplay
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "conservative_fraction_"):
            raise TypeError(
                f"a ConservativityDecomposer is needed; got {type(estimator).__name__}."
            )
        if not hasattr(estimator, "levels_"):
            raise ValueError("a field given by its values has no noise levels to show.")
        return cls(
            levels=estimator.levels_,
            fraction=np.atleast_1d(estimator.conservative_fraction_),
            std_error=np.atleast_1d(estimator.conservative_fraction_std_error_),
        ).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any):
        """Draw; bars are two standard errors.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        **kwargs : dict
            For ``Axes.errorbar``.

        Returns
        -------
        ConservativityDisplay
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        options = {"marker": "o", "capsize": 3, **kwargs}
        self.errorbar_ = ax.errorbar(self.levels, self.fraction, 2 * self.std_error, **options)
        ax.set(xscale="log", xlabel="noise level", ylabel="conservative fraction")
        self.ax_, self.figure_ = ax, ax.figure
        return self
