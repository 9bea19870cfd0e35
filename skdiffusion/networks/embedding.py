r"""How networks read the noise level and the label.

The noise arrives as one number per row, :math:`c = \tfrac14\log\sigma`, some units wide. Its
sines and cosines at frequencies from a quarter to four resolve what changes over a factor of two
in the level; higher ones would teach the network to tell neighbouring levels apart, which a
score never does.

A condition arrives as a vector per row, the zero vector meaning "no label", and enters linearly.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["Embedding"]

FREQUENCIES = (0.25, 4.0)


class Embedding(nn.Module):
    """One vector per row for its noise level and its condition.

    Parameters
    ----------
    width : int
        Length of the vector.
    n_conditions : int
        Length of the condition vector; zero for unconditional networks.
    n_frequencies : int
        Number of frequencies of the noise level.
    """

    def __init__(self, width: int, n_conditions: int = 0, n_frequencies: int = 16):
        super().__init__()
        low, high = FREQUENCIES
        frequencies = torch.logspace(math.log10(low), math.log10(high), n_frequencies)
        self.register_buffer("frequencies", 2 * math.pi * frequencies)
        self.of_noise = nn.Linear(2 * n_frequencies, width)
        self.of_condition = nn.Linear(n_conditions, width, bias=False) if n_conditions else None
        self.mix = nn.Linear(width, width)

    def forward(self, noise, condition=None):
        """Embed ``noise`` of shape ``(n,)`` and ``condition`` of shape ``(n, n_conditions)``.

        Returns
        -------
        tensor of shape (n, width)
        """
        angles = noise[:, None] * self.frequencies
        hidden = self.of_noise(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.of_condition is not None and condition is not None:
            hidden = hidden + self.of_condition(condition)
        return self.mix(nn.functional.silu(hidden))
