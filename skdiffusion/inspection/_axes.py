"""Where pictures are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["pair_of_axes"]


def pair_of_axes(ax: Any, figsize: tuple[float, float]) -> np.ndarray:
    """Two axes: those that were given, or side by side in a new figure.

    Raises
    ------
    ValueError
        If other than two were given.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(1, 2, figsize=figsize, layout="constrained")[1]
    axes = np.ravel(ax)
    if len(axes) != 2:
        raise ValueError(f"ax must be a pair of axes; got {len(axes)}.")
    return axes
