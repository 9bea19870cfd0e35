r"""Dimension from a score model: one method, a range of noise levels, and where to read it off.

Levels run from the lowest at which the model may be asked to the width of the data. The curve over
them is a mean over rows; its plateaus are the answers, the widest one the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import gen_batches

from skdiffusion.geometry._codimension import noise_posterior
from skdiffusion.geometry._dimension_methods import (
    MIN_NORMALS,
    LeaveOneOutModel,
    denoising_loss,
    flipd,
    lidl,
    normal_bundle,
    projector,
    spectrum,
)
from skdiffusion.geometry._flow_jacobian import flow_spectrum
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import EmpiricalModel
from skdiffusion.utils.memory import rows_in_memory
from skdiffusion.utils.random import row_keys

__all__ = ["METHODS", "ScoreDimension", "level_grid"]

METHODS = {
    "flow_jacobian": flow_spectrum,
    "flipd": flipd,
    "normal_bundle": normal_bundle,
    "spectrum": spectrum,
    "denoising_loss": denoising_loss,
    "lidl": lidl,
    "noise_posterior": noise_posterior,
}
ABOVE = 3.0
"""Where a flow ends at least, in units of the highest level that is asked for."""
PER_E_FOLD = 4
"""Levels per factor of e."""


def level_grid(low: float, high: float) -> np.ndarray:
    """Noise levels evenly spaced in the logarithm; one where the range is empty."""
    if not high > low:
        return np.array([low])
    return np.geomspace(low, high, max(int(np.ceil(PER_E_FOLD * np.log(high / low))) + 1, 3))


class ScoreDimension:
    """One method on one score model.

    Parameters
    ----------
    method : str
        A key of ``METHODS``.
    model : BaseScoreModel
        Of an :class:`EmpiricalModel` of several points each is asked without itself.
    most : int
        Dimension that no answer exceeds.
    far_field : GaussianModel
        Where log-densities along the flow end, for models that have none.
    sigma_max : float
        Where flows end, or above the highest level that is asked for.
    n_noise : int, optional
        Noise draws or probes per row; each method has its default.
    seed : int
    n_jobs : int, optional
    """

    def __init__(
        self, method, model, most, far_field, sigma_max, n_noise=None, seed=0, n_jobs=None
    ):
        self.method, self.model, self.most = method, model, most
        self.far_field, self.sigma_max = far_field, sigma_max
        self.n_noise, self.seed, self.n_jobs = n_noise, seed, n_jobs
        self.keys = None
        if isinstance(model, EmpiricalModel) and len(model.points) > 1:  # without itself: nothing
            keys = row_keys(model.points)
            self.order = np.argsort(keys)
            self.keys = keys[self.order]

    def with_model(self, model: Any) -> ScoreDimension:
        """The same method on another model."""
        return ScoreDimension(
            self.method,
            model,
            self.most,
            self.far_field,
            self.sigma_max,
            self.n_noise,
            self.seed,
            self.n_jobs,
        )

    def _own(self, rows):
        """Index of each row among the points of the model, -1 for none."""
        keys = row_keys(rows)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.order[place], -1)

    def _model_for(self, rows):
        if self.keys is None:
            return self.model
        return LeaveOneOutModel(self.model, self._own(rows))

    def curve(self, rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Dimension of each row at each level, ``(n_levels, n)``, between zero and ``most``."""
        # a network copies itself to double precision when first asked, not under a derivative
        self.model.denoise(rows[:1], float(levels[0]))
        batches = gen_batches(len(rows), self._batch(rows.shape[1]))
        parts = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(self._values)(rows[batch], levels) for batch in batches
        )
        return np.clip(np.concatenate(parts, axis=1), 0, self.most)

    def _batch(self, d):
        numbers = {
            "normal_bundle": max(4 * d, MIN_NORMALS) * 4 * d,
            "spectrum": 4 * d * d,
            "flow_jacobian": 12 * d * d,
        }.get(self.method, 64 * d)
        return min(rows_in_memory(numbers), 1024)

    def _values(self, rows, levels):
        model = self._model_for(rows)
        if self.method == "flow_jacobian":
            highest = min(ABOVE * float(levels[-1]), model.sigma_range[1])
            slopes = flow_spectrum(model, rows, levels, max(self.sigma_max, highest)).slopes
            return (slopes < 0.5).sum(axis=2).astype(float)
        method, options = METHODS[self.method], self._options(model)
        return np.stack([method(model, rows, float(level), **options) for level in levels])

    def _options(self, model):
        if self.method == "spectrum":
            return {}
        if self.method == "lidl":
            return {"log_prob": self._flow_log_prob(model)}
        options = {"random_state": self.seed}
        if self.n_noise is not None:
            options["n_noise"] = self.n_noise
        return options

    def _flow_log_prob(self, model) -> Callable | None:
        if model.has_log_prob:
            return None
        return lambda x, sigma: (
            flow_log_prob(model, x, self.far_field, sigma, self.sigma_max).log_prob
        )

    def tangents(self, rows: np.ndarray, sigma: float, n_components: int) -> np.ndarray:
        """Leading eigenvectors of the denoiser's Jacobian, ``(n, d, n_components)``."""
        parts: list[Any] = []
        for batch in gen_batches(len(rows), self._batch(rows.shape[1])):
            model = self._model_for(rows[batch])
            axes = np.linalg.eigh(projector(model, rows[batch], sigma))[1]
            parts.append(axes[:, :, ::-1][:, :, :n_components])
        return np.concatenate(parts)
