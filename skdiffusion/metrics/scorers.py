r"""Scorers: what makes a density or a sample good, for ``GridSearchCV`` and its kin.

Training losses of different schedules and parameterizations are not comparable; these are. Each
is a number to be maximised that depends on held-out rows in their own units:

- ``"log_likelihood"``: mean log-density, nats per row;
- ``"denoising"``: the denoising bound on it, which no model can push above the rows' entropy;
- ``"sliced_wasserstein"``, ``"mmd"``, ``"energy"``, ``"frechet"``, ``"c2st"``: minus the distance
  between the held-out rows and as many generated ones.

A distance needs only ``sample``: mixtures and kernel densities of scikit-learn can be scored too.
The same seed is used for every candidate, so that the noise of the comparison is in part common.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from skdiffusion.metrics.c2st import c2st
from skdiffusion.metrics.discrepancy import energy_distance, mmd
from skdiffusion.metrics.frechet import frechet_distance
from skdiffusion.metrics.wasserstein import sliced_wasserstein
from skdiffusion.utils.drawing import draw_rows
from skdiffusion.utils.validation import check_count, lookup

__all__ = ["DensityScorer", "SampleScorer", "get_scorer", "get_scorer_names"]


class DensityScorer:
    """A scorer of densities: mean log-likelihood or the denoising bound on it.

    Parameters
    ----------
    kind : {"log_likelihood", "denoising"}
    """

    def __init__(self, kind: str):
        lookup(kind, dict.fromkeys(("log_likelihood", "denoising")), "kind")
        self.kind = kind

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score of the rows ``X`` under a fitted estimator, larger is better.

        Given their labels, where the estimator knows labels.
        """
        if self.kind == "log_likelihood":
            method = estimator.score_samples
        elif hasattr(estimator, "denoising_bound"):
            method = estimator.denoising_bound
        else:
            raise TypeError(
                f"{type(estimator).__name__} has no denoising bound: a score estimator is needed."
            )
        # a Pipeline of scikit-learn hands no labels on
        takes_labels = _knows_labels(estimator) and "y" in inspect.signature(method).parameters
        found = method(X, y) if takes_labels else method(X)
        return float(np.mean(found) if self.kind == "log_likelihood" else found.score)

    def __repr__(self):
        return f"{type(self).__name__}({self.kind!r})"


def _knows_labels(estimator):
    """Whether the density, at the end of a pipeline or on its own, was fitted with labels."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return getattr(getattr(estimator, "model_", None), "is_conditional", False)


class SampleScorer:
    """A scorer of generators: minus a distance between held-out and generated rows.

    Parameters
    ----------
    distance : callable
        ``distance(real, generated)`` of two arrays, smaller is better; a module-level function,
        so that the scorer can be pickled.
    n_samples : int, optional
        Rows to generate; as many as are held out by default.
    random_state : int or None
        Of the generated rows, the same for every candidate.
    **options
        Further arguments of ``distance``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdiffusion import GMMScore
    >>> from skdiffusion.metrics import SampleScorer, mmd
    >>> scorer = SampleScorer(mmd, n_samples=500)
    >>> search = GridSearchCV(GMMScore(random_state=0), {"n_components": [1, 3]}, scoring=scorer)
    >>> search.fit(load_iris().data[::2]).best_params_
    {'n_components': 3}
    """

    def __init__(
        self,
        distance: Callable,
        *,
        n_samples: int | None = None,
        random_state: Any = 0,
        **options: Any,
    ):
        self.distance = distance
        self.n_samples = None if n_samples is None else check_count(n_samples, "n_samples", 2)
        self.random_state = random_state
        self.options = options

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score of a fitted estimator on the rows ``X``, larger is better."""
        generated = draw_rows(estimator, self.n_samples or len(X), self.random_state)
        return -float(self.distance(np.asarray(X), np.asarray(generated), **self.options))

    def __repr__(self):
        name = getattr(self.distance, "__name__", repr(self.distance))
        return f"{type(self).__name__}({name})"


_SCORERS = {
    "log_likelihood": lambda: DensityScorer("log_likelihood"),
    "denoising": lambda: DensityScorer("denoising"),
    "sliced_wasserstein": lambda: SampleScorer(sliced_wasserstein),
    "mmd": lambda: SampleScorer(mmd),
    "energy": lambda: SampleScorer(energy_distance),
    "frechet": lambda: SampleScorer(frechet_distance),
    "c2st": lambda: SampleScorer(c2st),
}


def get_scorer(name: str):
    """The scorer under a short name, to be given as ``scoring=``.

    scikit-learn's own registry of names is closed, so a name has to be looked up here:
    ``GridSearchCV(est, grid, scoring=get_scorer("c2st"))``; for several at once
    ``scoring={name: get_scorer(name) for name in names}``.

    Parameters
    ----------
    name : str
        One of :func:`get_scorer_names`.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None)``, larger is better; it can be pickled.

    Raises
    ------
    ValueError
        If there is no such name.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion import GaussianScore
    >>> from skdiffusion.metrics import get_scorer
    >>> X = load_iris().data
    >>> est = GaussianScore().fit(X)
    >>> round(get_scorer("log_likelihood")(est, X), 2)
    -2.53
    """
    return lookup(name, _SCORERS, "scorer")()


def get_scorer_names() -> list[str]:
    """Names that :func:`get_scorer` knows."""
    return sorted(_SCORERS)
