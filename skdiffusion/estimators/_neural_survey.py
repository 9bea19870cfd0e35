r"""What a network has to know of the rows before it is trained on them.

Centre and scale: one scale for all columns where their ranges are within a factor of thirty of
each other (pixels, coordinates), so that noise stays isotropic in the units of ``X``; else the
standard deviation of each, and noise in proportion to it. Then principal axes, for networks
that see a row as a whole: along them the linear denoiser acts column by column.

Noise levels, in units of that scale, run from 0.002 to twenty times :math:`\sqrt d`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skdiffusion.estimators._far_rows import QUANTILE_ROWS, warn_of_far_rows
from skdiffusion.estimators._moments import (
    DiagonalMoments,
    FactorMoments,
    FullMoments,
    oas_share,
)
from skdiffusion.estimators._training_rows import Coordinates, read_rows
from skdiffusion.models import AffineModel, GaussianModel, SpectralCovariance
from skdiffusion.noising import check_spread, noise_range
from skdiffusion.utils.rows import evenly_spaced
from skdiffusion.utils.validation import check_number

__all__ = ["Survey", "survey"]

MOMENT_ROWS = 100_000
"""Rows, evenly spaced, from which moments are taken."""
BATCH_NUMBERS = 1_000_000
"""Numbers read at once."""
COMPARABLE = 30.0
"""Ratio of the columns' ranges up to which they share one scale."""
FULL_UP_TO = 1024
"""Columns up to which the whole covariance is formed; beyond, its leading axes."""
N_AXES = 256
FEW_ROWS = 5
"""Rows per column below which the covariance is shrunk."""


class Survey:
    """Facts about the rows, in their own units and in the network's coordinates.

    Attributes
    ----------
    far_field : GaussianModel
        In the units of ``X``.
    coordinates : Coordinates
    variances : ndarray of shape (d,)
        Variances of the columns in the network's coordinates, at least the square of ``low``.
    low, high : float
        Range of noise levels in the network's coordinates.
    unit : float
        What level one of the network's coordinates is in the units of ``X``.
    scale : float
        Root mean square of the columns' standard deviations, each over its scale in ``unit``s.
    """

    def __init__(self, far_field, coordinates, variances, low, high):
        self.far_field = far_field
        self.coordinates = coordinates
        self.low, self.high = low, high
        self.variances = np.maximum(variances, low**2)
        scale = coordinates.scale
        self.unit = float(np.exp(np.mean(np.log(scale)))) if scale.ndim else float(scale)
        self.scale = self.unit * float(np.sqrt(np.mean(variances)))

    def in_units_of_rows(self, model: Any) -> AffineModel:
        """The law of ``X`` when ``model`` knows that of the network's coordinates."""
        shift, scale, rotation = (
            self.coordinates.shift,
            self.coordinates.scale,
            self.coordinates.rotation,
        )
        if rotation is not None and scale.ndim:
            model, rotation = AffineModel(model, rotation=rotation), None
        return AffineModel(model, shift, scale, rotation)


def survey(
    X: Any,
    order: np.ndarray,
    weights: np.ndarray | None,
    *,
    scaling: str,
    rotate: bool,
    sigma_min: float | None,
    sigma_max: float | None,
    seed: int,
) -> Survey:
    """Look at the rows.

    Parameters
    ----------
    X : ndarray, memmap or Dataset
    order : ndarray of int
        Positions of the rows that count.
    weights : ndarray of shape (n,), optional
    scaling : {"auto", "global", "columns"}
    rotate : bool
        Whether to turn to principal axes.
    sigma_min, sigma_max : float, optional
        Range of noise levels asked for, in the units of ``X``.
    seed : int

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        If all rows are the same, or the range of noise levels is empty or holds levels whose
        squares are no numbers.

    Warns
    -----
    UserWarning
        If a few far rows decide the scale of a column.
    """
    moments, low, high = _moments(X, order, weights, seed)
    variances = moments.column_variances()
    warn_of_far_rows(
        read_rows(X, evenly_spaced(order, QUANTILE_ROWS)),
        np.sqrt(variances),
        "Noise levels are in proportion to it, and see little of the others",
    )
    if not variances.any():
        raise ValueError("X has no variance: all of its rows are the same.")
    check_spread(float(np.sqrt(variances.sum())))
    constant = variances == 0
    if scaling == "auto":
        ranges = (high - low)[~constant]
        scaling = "columns" if ranges.max() > COMPARABLE * ranges.min() else "global"
    typical = float(np.sqrt(variances[~constant].mean()))
    scale = np.float64(np.sqrt(variances.mean()))
    if scaling == "columns":
        scale = np.sqrt(variances)
        # a column without variance has no scale of its own
        scale[constant] = np.exp(np.log(scale[~constant]).mean()) if (~constant).any() else typical
    covariance = _covariance(moments, scale)
    coordinates = Coordinates(moments.mean, scale)
    far_field = GaussianModel(moments.mean, covariance)
    seen = far_field.covariance.diagonal / coordinates.scale**2
    if rotate and isinstance(covariance, np.ndarray):
        outer = np.outer(coordinates.scale, coordinates.scale) if scale.ndim else scale**2
        # rounded, as the other coordinates are: where rows span few directions, the axes of the
        # others would hang on the last digits of a sum
        seen = (covariance / outer).astype(np.float32).astype(np.float64)
        values, axes = np.linalg.eigh((seen + seen.T) / 2)
        spectrum = SpectralCovariance(np.maximum(values, 0), axes)
        coordinates.rotation, seen = spectrum.axes, spectrum.variances
    found = Survey(far_field, coordinates, seen, 1.0, 1.0)
    asked = [
        None if level is None else check_number(level, name, above=0) / found.unit
        for name, level in (("sigma_min", sigma_min), ("sigma_max", sigma_max))
    ]
    # one unit for all columns: the levels depend on the typical column, not on the narrowest
    _, low, high = noise_range(np.full(len(seen), seen.mean()), *asked, found.unit)
    return Survey(found.far_field, coordinates, seen, low, high)


def _moments(X, order, weights, seed):
    index = evenly_spaced(order, MOMENT_ROWS)
    first = read_rows(X, index[:1])
    d = first.shape[1]
    moments = FullMoments(d) if d <= FULL_UP_TO else FactorMoments(d, N_AXES, seed)
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    size = max(BATCH_NUMBERS // d, 1)
    for start in range(0, len(index), size):
        part = index[start : start + size]
        rows = read_rows(X, part).astype(np.float64)
        if not np.isfinite(rows).all():
            raise ValueError("X contains NaN or infinity: rows must be finite.")
        moments.update(rows, np.ones(len(part)) if weights is None else weights[part])
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    return moments, low, high


def _covariance(moments: DiagonalMoments | FullMoments, scale):
    """Of the rows; shrunk where they are too few to know every direction of it."""
    if not isinstance(moments, FullMoments):
        variances, axes = moments.spectrum()
        rest = max(float(moments.column_variances().sum() - variances.sum()), 0.0)
        n_rest = len(moments.mean) - len(variances)
        return SpectralCovariance(variances, axes, rest / n_rest if n_rest else 0.0)
    covariance, d = moments.covariance(), len(moments.mean)
    if moments.weight >= FEW_ROWS * d:
        return covariance
    # towards independent columns, as much as is best for normal rows (Chen et al. 2010)
    unit = np.broadcast_to(scale, d)
    seen = covariance / np.outer(unit, unit)
    share, mean = oas_share(seen, moments.weight), np.trace(seen) / d
    variances = np.where(covariance.diagonal() > 0, mean * unit**2, 0.0)
    return (1 - share) * covariance + share * np.diag(variances)
