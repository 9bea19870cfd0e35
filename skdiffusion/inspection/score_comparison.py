r"""How much of a learned score do simple laws explain? Level by level.

At points :math:`x` of a noise level, with the denoisers :math:`D` of the model and :math:`D_r` of a
reference, the fraction of the model's score that the reference leaves unexplained is

.. math:: \mathrm{FUV}(\sigma) = \frac{E\,|s - s_r|^2}{E\,|s|^2}
          = \frac{E\,|D - D_r|^2}{E\,|D - x|^2}

(Wang & Vastola 2024, section 4; there as a mean of ratios, ``average="per_sample"``). At high noise
every score is :math:`-x/\sigma^2` and explained by anything; ``target="denoiser"`` divides by
:math:`E|D - \bar x|^2` instead, and shows what is left.

Whether the model or the reference is right where they differ, rows that neither was fitted to
decide. With :math:`e = D(x_0 + \sigma\varepsilon) - x_0` and the perfect denoiser :math:`D^*`, the
conditional mean,

.. math:: E\,|e_r|^2 - E\,|e|^2 = E\,|D_r - D^*|^2 - E\,|D - D^*|^2 ,

so the **gap** between the errors of a reference and of a perfect model is their squared
**distance**, exactly. It is more than that where a model has gone only part of the way from the
reference to the truth, less where it differs for the worse, negative where the reference is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from skdiffusion.estimators import GMMScore
from skdiffusion.estimators.mixture import DEFAULT_REGULARISATION
from skdiffusion.inspection._probes import Probes
from skdiffusion.models import EmpiricalModel, GaussianModel, as_score_model
from skdiffusion.models.wrapper import check_same_space
from skdiffusion.noising import noise_range
from skdiffusion.utils.covariance import covariance_of
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import as_generator
from skdiffusion.utils.rows import check_points
from skdiffusion.utils.validation import check_count, check_flag, check_levels, lookup

__all__ = ["ScoreComparison", "compare_scores", "score_references"]

TARGETS = ("score", "denoiser")
AVERAGES = ("pooled", "per_sample")
LEVELS = 16
MODEL = "model"


@dataclass(frozen=True)
class ScoreComparison:
    r"""What references explain of a model, and how well all of them denoise.

    Arrays are by rising noise level. Errors, gaps and distances are mean squares per column in the
    units of the data, columns over their ``noise_scale`` where the models have one. Those that need
    noised rows are ``None`` at probes of another kind.

    Attributes
    ----------
    sigmas : ndarray of shape (n_levels,)
    unexplained : dict of str to ndarray of shape (n_levels,)
        Fraction of the model that each reference leaves unexplained; may exceed one.
    distance : dict of str to ndarray of shape (n_levels,)
        Mean squared difference between the denoisers of reference and model.
    error, error_std_error : dict of str to ndarray of shape (n_levels,), or None
        Denoising error of each reference and, as ``"model"``, of the model; standard error over
        rows.
    gap, gap_std_error : dict of str to ndarray of shape (n_levels,), or None
        Error of each reference less that of the model at the same points: positive where the
        model denoises better. Equal to ``distance`` for a perfect model.
    target, average : str
        What the fraction is of.
    """

    sigmas: np.ndarray
    unexplained: dict[str, np.ndarray] = field(repr=False)
    distance: dict[str, np.ndarray] = field(repr=False)
    error: dict[str, np.ndarray] | None = field(repr=False)
    error_std_error: dict[str, np.ndarray] | None = field(repr=False)
    gap: dict[str, np.ndarray] | None = field(repr=False)
    gap_std_error: dict[str, np.ndarray] | None = field(repr=False)
    target: str
    average: str

    @property
    def explained(self) -> dict[str, np.ndarray]:
        """Fraction of the model that each reference explains."""
        return {name: 1 - values for name, values in self.unexplained.items()}

    @property
    def best(self) -> list[str] | None:
        """Name of what denoises best at each level, the model among them."""
        if self.error is None:
            return None
        names = list(self.error)
        return [names[k] for k in np.argmin([self.error[name] for name in names], axis=0)]

    @property
    def excess(self) -> dict[str, np.ndarray] | None:
        """Denoising errors relative to the best at each level, less one."""
        if self.error is None:
            return None
        lowest = np.min(list(self.error.values()), axis=0)
        return {name: values / lowest - 1 for name, values in self.error.items()}

    def __str__(self):
        names = list(self.unexplained)
        width = max(10, *(len(name) for name in names))
        lines = [
            f"fraction of the {self.target} left unexplained ({self.average}):",
            "     sigma" + "".join(f"  {name:>{width}}" for name in names),
        ]
        for k, sigma in enumerate(self.sigmas):
            cells = "".join(f"  {self.unexplained[name][k]:>{width}.2e}" for name in names)
            lines.append(f"{sigma:>10.3g}{cells}")
        if self.error is not None:
            lines += [
                "denoising error per column, and the best:",
                "     sigma" + "".join(f"  {name:>{width}}" for name in self.error),
            ]
            for k, sigma in enumerate(self.sigmas):
                cells = "".join(f"  {self.error[name][k]:>{width}.3e}" for name in self.error)
                lines.append(f"{sigma:>10.3g}{cells}  {self.best[k]}")
        return "\n".join(lines)


def compare_scores(
    model: Any,
    references: Any,
    X: Any,
    *,
    y: Any = None,
    sigmas: Any = None,
    target: str = "score",
    average: str = "pooled",
    reverse: bool = False,
    probes: Any = "noised",
    n_noise: int = 2,
    random_state: Any = 0,
) -> ScoreComparison:
    r"""Compare a model with references at every noise level.

    Parameters
    ----------
    model : score model or fitted estimator
        The learned score; anything that :func:`~skdiffusion.as_score_model` takes.
    references : mapping of str to score model or fitted estimator, or one of these
        What it is compared with, by name; :func:`score_references` makes the usual ones.
    X : array-like of shape (n_samples, n_features)
        Clean rows, which neither model nor references were fitted to: at noised training rows the
        law of the training rows knows the answer, and seems to explain more than it does.
    y : array-like of shape (n_samples,), optional
        Labels, for those models that are conditional.
    sigmas : float or array-like of shape (n_levels,), optional
        Rising noise levels; by default 16, where the rows have structure.
    target : {"score", "denoiser"}
        Whether the fraction is of the score or of the denoiser less the mean of ``X``.
    average : {"pooled", "per_sample"}
        Ratio of the means over points, or mean of the ratios.
    reverse : bool
        Whether to divide by the size of the reference's score in place of the model's.
    probes : {"noised", "far_field"} or array-like of shape (n_levels, n_points, n_features)
        Where the fields are compared: at noised rows, at draws from the Gaussian with their
        moments, or at given points per level, such as those that a sampler visits.
    n_noise : int
        Pairs of opposite noise per row, one draw for all levels.
    random_state : None, int, Generator or RandomState
        Seed of the noise, which is keyed by the rows.

    Returns
    -------
    ScoreComparison

    Raises
    ------
    ValueError
        If the models live on other columns or other noise, a level lies outside their range, or an
        argument is none of those above.

    References
    ----------
    B. Wang and J. J. Vastola, "The Unreasonable Effectiveness of Gaussian Score Approximation for
    Diffusion Models and its Applications", TMLR 2024.

    Examples
    --------
    >>> from skdiffusion.datasets import make_gaussian_mixture
    >>> from skdiffusion.inspection import compare_scores
    >>> X, law = make_gaussian_mixture(500, random_state=0)
    >>> found = compare_scores(law, {"gaussian": law.gaussian()}, X, sigmas=[0.1, 10.0])
    >>> bool(found.explained["gaussian"][1] > 0.99)  # far out every law is Gaussian
    True
    >>> found.best[0]
    'model'
    """
    model, named = as_score_model(model), _named(references)
    models = {MODEL: model, **named}
    check_same_space(list(models.values()))
    X = check_points(X, model.n_features, ensure_min_samples=2)
    lookup(target, dict.fromkeys(TARGETS), "target")
    lookup(average, dict.fromkeys(AVERAGES), "average")
    check_flag(reverse, "reverse")
    n_noise = check_count(n_noise, "n_noise")
    seed = int(as_generator(random_state).integers(2**62))
    sigmas = _levels(sigmas, X, models)
    points = Probes(probes, X, y, model.noise_scale, len(sigmas), n_noise, seed)
    found = [
        _at_level(models, points, k, sigma, target, average, reverse)
        for k, sigma in enumerate(sigmas)
    ]
    by_name = {
        key: {name: np.array([at[key][name] for at in found]) for name in found[0][key]}
        for key in found[0]
    }
    if not points.are_noised_rows:
        by_name |= dict.fromkeys(("error", "error_std_error", "gap", "gap_std_error"))
    return ScoreComparison(sigmas=sigmas, target=target, average=average, **by_name)


def score_references(X: Any, *, n_components: int = 10, random_state: Any = None) -> dict[str, Any]:
    """The laws that a learned score is usually compared with, fitted to its training rows.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Training rows.
    n_components : int
        Of the mixture.
    random_state : None, int, Generator or RandomState
        Of the mixture's start.

    Returns
    -------
    dict of str to BaseScoreModel
        ``"isotropic"``, ``"gaussian"``, ``"mixture"`` and ``"rows"``, the empirical law of the
        rows: what a network learns that nothing stops.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdiffusion.inspection import score_references
    >>> list(score_references(load_iris().data, n_components=3, random_state=0))
    ['isotropic', 'gaussian', 'mixture', 'rows']
    """
    X = check_points(X, ensure_min_samples=2)
    rng = as_generator(random_state)
    # the default, named: rows in a subspace are what the Gaussian beside it shows
    seed = int(rng.integers(2**31))
    mixture = GMMScore(n_components, reg_covar=DEFAULT_REGULARISATION, random_state=seed)
    return {
        "isotropic": GaussianModel(X.mean(axis=0), float(X.var(axis=0).mean())),
        "gaussian": GaussianModel(X.mean(axis=0), covariance_of(X)),
        "mixture": mixture.fit(X).model_,
        "rows": EmpiricalModel(X),
    }


def _named(references):
    if not isinstance(references, Mapping):
        references = {"reference": references}
    if not references or MODEL in references:
        raise ValueError(
            "references must be a non-empty mapping from names to score models, none of them named "
            f"{MODEL!r}; got the names {list(references)}."
        )
    return {str(name): as_score_model(reference) for name, reference in references.items()}


def _levels(sigmas, X, models):
    low = max(model.sigma_range[0] for model in models.values())
    high = min(model.sigma_range[1] for model in models.values())
    if sigmas is None:
        variances = X.var(axis=0)
        if not variances.any():
            raise ValueError("X has no variance: all of its rows are the same; give sigmas=.")
        scale, lowest, highest = noise_range(variances)
        # below a fiftieth of the scale every denoiser returns x, beyond ten spreads the mean
        first = max(lowest, 0.02 * scale, low)
        last = min(highest, 10 * np.sqrt(variances.sum()), high)
        return np.geomspace(first, last, LEVELS)
    return check_levels(sigmas, "sigmas must be positive noise levels, rising", slope=1)


def _at_level(models, probes, k, sigma, target, average, reverse):
    """All that is known of one level: mean squares are of columns in units of their noise."""
    n, d = probes.n_rows * probes.draws, probes.X.shape[1]
    difference, size, error = ({name: np.empty(n) for name in models} for _ in range(3))
    for rows in gen_batches(probes.n_rows, rows_in_memory(8 * d * len(models) * probes.draws)):
        x, clean, y = probes.batch(k, sigma, rows)
        points = slice(rows.start * probes.draws, rows.start * probes.draws + len(x))
        labels = {} if y is None else {"y": y}
        seen = {}
        for name, model in models.items():
            condition = labels if model.is_conditional else {}
            seen[name] = model.denoise(x, float(sigma), **condition)
            if not np.isfinite(seen[name]).all():
                raise FloatingPointError(
                    f"{name!r} denoises to values that are not finite at noise level {sigma:g}."
                )
        origin = x if target == "score" else probes.center
        for name, denoised in seen.items():
            difference[name][points] = _squares(denoised - seen[MODEL], probes.scale)
            size[name][points] = _squares(denoised - origin, probes.scale)
            if clean is not None:
                error[name][points] = _squares(denoised - clean, probes.scale)
    unexplained = {}
    for name in list(models)[1:]:
        whole = size[name] if reverse else size[MODEL]
        unexplained[name] = _ratio(difference[name], whole, average)
    result = {
        "unexplained": unexplained,
        "distance": {name: difference[name].mean() / d for name in unexplained},
    }
    if probes.are_noised_rows:
        by_row = {name: e.reshape(-1, probes.draws).mean(axis=1) / d for name, e in error.items()}
        gaps = {name: by_row[name] - by_row[MODEL] for name in unexplained}
        result |= {
            "error": {name: e.mean() for name, e in by_row.items()},
            "error_std_error": {name: _std_error(e) for name, e in by_row.items()},
            "gap": {name: e.mean() for name, e in gaps.items()},
            "gap_std_error": {name: _std_error(e) for name, e in gaps.items()},
        }
    return result


def _squares(vectors, scale):
    vectors = vectors / scale
    return np.einsum("ij,ij->i", vectors, vectors)


def _ratio(part, whole, average):
    tiny = np.finfo(float).tiny  # where the score vanishes, equal scores leave nothing unexplained
    if average == "pooled":
        return part.mean() / max(whole.mean(), tiny)
    return (part / np.maximum(whole, tiny)).mean()


def _std_error(values):
    return values.std(ddof=1) / np.sqrt(len(values))
