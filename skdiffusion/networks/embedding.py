r"""How networks read the noise level and the label.

The noise arrives as one number per row, :math:`c = \tfrac14\log\sigma`, some units wide. Its
sines and cosines at frequencies from a quarter to four resolve what changes over a factor of two
in the level; higher ones would teach the network to tell neighbouring levels apart, which a
score never does.

A condition arrives as a vector per row, the zero vector meaning "no label", and is used as it is.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["Embedding", "Features"]

FREQUENCIES = (0.25, 4.0)


class Features(nn.Module):
    """Sines and cosines of the noise level beside the condition.

    Parameters
    ----------
    n_conditions : int
        Length of the condition vector; zero for unconditional networks.
    n_frequencies : int
        Number of frequencies of the noise level.

    Attributes
    ----------
    size : int
        Number of features.
    """

    def __init__(self, n_conditions: int = 0, n_frequencies: int = 16):
        super().__init__()
        low, high = FREQUENCIES
        frequencies = torch.logspace(math.log10(low), math.log10(high), n_frequencies)
        self.register_buffer("frequencies", 2 * math.pi * frequencies)
        self.n_conditions = n_conditions
        self.size = 2 * n_frequencies + n_conditions

    def forward(self, noise, condition=None):
        """Features ``(n, size)`` of noise ``(n,)`` and condition ``(n, n_conditions)``."""
        angles = noise[:, None] * self.frequencies
        features = [angles.sin(), angles.cos()]
        if self.n_conditions:
            if condition is None:
                condition = noise.new_zeros((len(noise), self.n_conditions))
            features.append(condition)
        return torch.cat(features, dim=1)


class Embedding(nn.Module):
    """One learned vector per row for its noise level and its condition.

    Parameters
    ----------
    width : int
        Length of the vector.
    n_conditions, n_frequencies : int
        As in :class:`Features`.
    """

    def __init__(self, width: int, n_conditions: int = 0, n_frequencies: int = 16):
        super().__init__()
        self.features = Features(n_conditions, n_frequencies)
        self.inward = nn.Linear(self.features.size, width)
        self.outward = nn.Linear(width, width)

    def forward(self, noise, condition=None):
        """Embed ``noise`` of shape ``(n,)`` and ``condition`` of shape ``(n, n_conditions)``.

        Returns
        -------
        tensor of shape (n, width)
        """
        hidden = self.inward(self.features(noise, condition))
        return self.outward(nn.functional.silu(hidden))
