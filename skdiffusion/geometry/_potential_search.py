r"""Which potential: the families that are asked for, compared out of fold.

Each family (a quadratic beside monomials, kernels of several widths, random features, networks)
is fitted at every strength of the ridge and in every fold. Of all of them the simplest is taken
whose mean loss :math:`E|v - \nabla\phi|^2` is within one standard error of the least.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from skdiffusion.geometry._families import Kernel, Polynomial, RandomFeatures, Units
from skdiffusion.geometry._potential import Potential
from skdiffusion.geometry._problem import Problem, conservative_fraction, simplest_of_the_best
from skdiffusion.geometry._projection import ALPHAS, cross_validate

__all__ = ["POTENTIALS", "PotentialSearch", "progress"]

POTENTIALS = ("auto", "linear", "polynomial", "kernel", "random_features", "neural")
WIDTHS = (0.5, 1.0, 2.0)
"""Widths of the kernel that are tried, in units of the data's root mean square radius."""
AUTO_MONOMIALS = 300
"""Number of monomials up to which ``"auto"`` tries them."""
FEATURES, UNITS = 256, 64
"""Default rows of a kernel or random features, and units of a hidden layer."""


class FoundPotential(NamedTuple):
    """A potential, its family and strength, and how well it did out of fold."""

    potential: Potential
    name: str
    fraction: float
    std_error: float
    out_of_fold: np.ndarray


@dataclass(frozen=True)
class PotentialSearch:
    """Search over families of potentials; parameters as of ``ConservativityDecomposer``."""

    potential: str
    alpha: Any
    degree: int
    n_components: int | None
    length_scale: float | None
    verbose: bool

    def best(self, problem: Problem, rng: np.random.Generator, known: Any = 0.0) -> FoundPotential:
        """Potential of the field without ``known``, a part of it that is a gradient already."""
        candidates = list(self._candidates(problem._replace(V=problem.V - known), rng))
        candidate, k = simplest_of_the_best(candidates, problem)
        potential = candidate.potential(k, problem.centre)
        shares = problem.weights / problem.weights.sum()
        potential.offset = float(shares @ potential.value(problem.X))
        fraction, error = conservative_fraction(candidate.losses[:, k], problem)
        name = candidate.name
        if candidate.features is not None and name != "neural":
            name = f"{name}, alpha {candidate.alphas[k]:.1e}"
        return FoundPotential(potential, name, fraction, error, candidate.out_of_fold(k))

    def _candidates(self, problem: Problem, rng: np.random.Generator) -> Iterator:
        """The families that are asked for, each with its out-of-fold losses."""
        X, V, weights, folds, _, _ = problem
        n, d = X.shape
        units = Units(X, weights)
        alphas = ALPHAS if self.alpha == "cv" else np.array([float(self.alpha)])
        fit = partial(cross_validate, centre=units.centre, X=X, V=V, weights=weights, folds=folds)
        auto = self.potential == "auto"
        if auto or self.potential == "linear":
            yield fit("linear", None, np.zeros(1))
        if self.potential == "neural":
            from skdiffusion.geometry._networks import cross_validate_networks

            width = self.n_components or UNITS
            bar = partial(progress, what="networks", verbose=self.verbose)
            yield cross_validate_networks(units, X, V, weights, folds, width, rng, bar)
        if self.potential == "polynomial" or (
            auto and Polynomial.count(d, self.degree) <= min(AUTO_MONOMIALS, n // 2)
        ):
            yield fit("polynomial", Polynomial(units, X, weights, self.degree), alphas)
        radius = float(np.sqrt(np.average((units.inward(X) ** 2).sum(axis=1), weights=weights)))
        m = self.n_components or FEATURES
        landmarks = X[np.sort(rng.permutation(n)[:m])]
        for width in WIDTHS if self.length_scale is None else (self.length_scale,):
            name = f"width {width:g}"
            width = width * (radius or 1.0)
            if auto or self.potential == "kernel":
                yield fit(f"kernel of {name}", Kernel(units, landmarks, width), alphas)
            if self.potential == "random_features":
                features = RandomFeatures(units, m, width, rng)
                yield fit(f"random features of {name}", features, alphas)


def progress(items: Iterable, what: str, verbose: bool) -> Iterable:
    """The items, with a bar if it is wanted."""
    if not verbose:
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc=what)
