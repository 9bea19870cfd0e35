r"""From what neighbours tell to a dimension, as learned from laws of known dimension.

Every statistic of neighbours is biased: by the borders of a sample of :math:`n` rows in many
dimensions, by curvature, by uneven density, by noise. Their biases differ, so that together they
tell more. What they say together was learned once, from simulated laws whose dimension is known:
perceptrons :math:`f, g` of the vector :math:`v` of all statistics minimise

.. math:: E\, \frac{|\log d - f(v)|}{e^{g(v)}} + g(v),

so that :math:`e^f` is the median of what the dimension may be, and :math:`e^g` its relative error.
``benchmarks/dimension_calibration.py`` draws the laws, fits the perceptrons and writes their
weights into ``dimension_calibration.npz`` beside this file.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

__all__ = ["calibrated"]

WEIGHTS = Path(__file__).with_name("dimension_calibration.npz")


@functools.cache
def _weights():
    with np.load(WEIGHTS) as stored:
        return {name: stored[name].astype(np.float64) for name in stored.files}


def calibrated(summaries: np.ndarray):
    """Dimension and its relative error for each vector of statistics.

    Parameters
    ----------
    summaries : ndarray of shape (n, n_summaries)

    Returns
    -------
    dimension, relative_error : ndarray of shape (n,)
    """
    w = _weights()
    v = np.clip((summaries - w["mean"]) / w["scale"], -w["limit"], w["limit"])
    last = sum(name.startswith("bias") for name in w) - 1
    hidden = v
    for k in range(last):
        # one perceptron along the first axis
        before = hidden @ w[f"weight_{k}"] + w[f"bias_{k}"][:, None]
        hidden = before / (1 + np.exp(-before))
    outputs = hidden @ w[f"weight_{last}"] + v @ w["weight_skip"] + w[f"bias_{last}"][:, None]
    log_d, log_error = outputs.mean(axis=0).T
    # perceptrons that disagree do not know
    return np.exp(log_d), np.hypot(np.exp(log_error), outputs[:, :, 0].std(axis=0))
