r"""A mixture for every class, and one for rows of any.

.. math:: D(x, \sigma, y) = E[x_0 \mid x, y] \;\text{under}\; p_0(\cdot \mid y) =
          \textstyle\sum_k w_{yk} N(\mu_{yk}, C_{yk}), \qquad D(x, \sigma) \;\text{under}\; p_0 .

Rows are told apart by their codes (:class:`~skdiffusion.models.labels.LabelCode`): the unit vector
of a class, or zero without a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skdiffusion.models.mixture import MixtureModel
from skdiffusion.utils.arrays import is_torch, namespace, to_numpy

__all__ = ["LabelledMixture"]


class LabelledMixture:
    """Denoiser of one mixture or of one per class.

    Parameters
    ----------
    law : MixtureModel
        Of rows without a label.
    classes : sequence of MixtureModel
        In the order of their codes; none if ``law`` is that of every row.

    Examples
    --------
    >>> import numpy as np
    >>> left, right = (MixtureModel([1.0], [[m]], [1.0]) for m in (-1.0, 1.0))
    >>> both = MixtureModel([0.5, 0.5], [[-1.0], [1.0]], [1.0, 1.0])
    >>> x, sigma = np.zeros((3, 1)), np.ones(3)
    >>> codes = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> LabelledMixture(both, [left, right]).denoise(x, sigma, codes).ravel()
    array([-0.5,  0.5,  0. ])
    """

    def __init__(self, law: MixtureModel, classes: Sequence[MixtureModel] = ()):
        self.law = law
        self.classes = tuple(classes)

    def denoise(self, x: Any, sigma: Any, codes: Any = None):
        """Denoiser at points ``(n, d)``, levels ``(n,)`` and codes ``(n, n_classes)``."""
        if not self.classes or codes is None:
            return self.law.denoise(x, sigma)
        codes = to_numpy(codes)
        laws = [*self.classes, self.law]
        which = np.where(codes.any(axis=1), codes.argmax(axis=1), len(laws) - 1)
        order, xp = np.argsort(which, kind="stable"), namespace(x)
        ends = np.searchsorted(which[order], np.arange(len(laws) + 1))
        parts = []
        for law, start, end in zip(laws, ends[:-1], ends[1:], strict=True):
            if end > start:
                rows = _index(order[start:end], x)
                parts.append(law.denoise(x[rows], sigma[rows]))
        return xp.concat(parts, axis=0)[_index(np.argsort(order), x)]


def _index(rows, x):
    """Positions as ``x`` takes them, whatever device it is on."""
    if not is_torch(x):
        return rows
    import torch

    return torch.as_tensor(rows, device=x.device)
