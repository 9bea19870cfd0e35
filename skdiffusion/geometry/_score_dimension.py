r"""Dimension from a score model: one method, a range of noise levels, and where to read it off.

Levels run from the lowest at which the model may be asked to the width of the data. The curve over
them is a mean over rows; its plateaus are the answers, the widest one the first of them.

What the methods read off at a row is a statistic whose *mean* is the dimension: single values lie
below zero and above the number of columns, and cutting them off there would bias the mean. For
rows of a noised law FLIPD has mean :math:`m`, with half of its values beyond. So means hold back
only what no row of the law comes near: beyond ten spreads from the median, where the spread is
the rows' own or, if that is larger, the :math:`\sqrt{2m}` of the squared length of noise. The
empirical law is another matter: to a row that it has lost, an isolated one, it answers by the
distance of the next, so that its answers are cut off one by one.
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
FAR_ROWS = 10.0
"""Spreads from the median beyond which the answer at a row is held back in means."""


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
        Largest dimension that there can be.
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

    @property
    def is_leave_one_out(self) -> bool:
        """Whether rows are asked of an empirical law without themselves."""
        return self.keys is not None

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
        if not self.is_leave_one_out:
            return self.model
        return LeaveOneOutModel(self.model, self._own(rows))

    def values(self, rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """What the method reads off at each row and level, ``(n_levels, n)``."""
        # a network copies itself to double precision when first asked, not under a derivative
        self.model.denoise(rows[:1], float(levels[0]))
        batches = gen_batches(len(rows), self._batch(rows.shape[1]))
        parts = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(self._values)(rows[batch], levels) for batch in batches
        )
        return np.concatenate(parts, axis=1)

    def as_dimensions(self, values: np.ndarray) -> np.ndarray:
        """Values as the dimension around single rows: between zero and ``most``."""
        return np.clip(values, 0, self.most)

    def for_means(self, values: np.ndarray) -> np.ndarray:
        """Values ``(n_levels, n)`` as means over rows take them, those far from the law held back.

        Of the empirical law: as dimensions.
        """
        if self.is_leave_one_out:
            return self.as_dimensions(values)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1, keepdims=True)
        reach = FAR_ROWS * np.maximum(high - low, np.sqrt(2 * self.most))
        return np.clip(values, middle - reach, middle + reach)

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
        """Leading eigenvectors of the denoiser's Jacobian, ``(n, d, n_components)``.

        Where the noise differs by column, an orthonormal basis of their span in the rows' units.
        """
        parts: list[Any] = []
        for batch in gen_batches(len(rows), self._batch(rows.shape[1])):
            model = self._model_for(rows[batch])
            axes = np.linalg.eigh(projector(model, rows[batch], sigma))[1]
            axes = axes[:, :, ::-1][:, :, :n_components]
            if np.ndim(model.noise_scale):
                axes = np.linalg.qr(model.noise_scale[:, None] * axes)[0]
            parts.append(axes)
        return np.concatenate(parts)
