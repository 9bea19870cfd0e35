r"""The default network: a residual multilayer perceptron.

.. math:: h_0 = W x + H z + E_0 e, \qquad h_{l+1} = h_l + B_l\,\phi(A_l\,\phi(h_l) + E_l e), \qquad
          F = V \phi(h_L),

with the features :math:`e` of noise and condition, and hints :math:`z` if there are any. Weights
start as He et al. (2015), those of ``V`` and ``H`` at zero: an untrained network adds nothing to
the skip connection around it, and follows no hint.
"""

from __future__ import annotations

import torch
from torch import nn

from skdiffusion.networks.dropout import dropout_layer
from skdiffusion.networks.embedding import Features
from skdiffusion.networks.initial import initialise
from skdiffusion.utils.validation import check_count

__all__ = ["ResidualMLP"]


class ResidualMLP(nn.Module):
    """Residual perceptron for rows.

    Parameters
    ----------
    n_features : int
        Columns of the rows.
    n_conditions : int
        Length of the condition vector.
    width : int
        Units of every layer.
    n_blocks : int
        Residual blocks of two layers.
    dropout : float
        Share of units left out in the middle of every block while training.
    n_hints : int
        Columns that follow those of the rows, which the network only looks at.
    """

    def __init__(
        self,
        n_features: int,
        n_conditions: int = 0,
        width: int = 128,
        n_blocks: int = 3,
        dropout: float = 0.0,
        n_hints: int = 0,
    ):
        super().__init__()
        check_count(width, "width")
        check_count(n_blocks, "n_blocks", 0)
        self.features = Features(n_conditions)
        self.embedding = nn.Linear(self.features.size, width * (n_blocks + 1))
        self.first = nn.Linear(n_features + n_hints, width)
        self.inward = nn.ModuleList(nn.Linear(width, width) for _ in range(n_blocks))
        self.outward = nn.ModuleList(nn.Linear(width, width) for _ in range(n_blocks))
        self.last = nn.Linear(width, n_features)
        self.dropout = dropout_layer(dropout)
        initialise(self, self.last)
        with torch.no_grad():
            self.first.weight[:, :n_features] *= (1 + n_hints / n_features) ** 0.5
            self.first.weight[:, n_features:] = 0

    def forward(self, x, noise, condition=None):
        """Rows, from ``x`` with hints, noise ``(n,)`` and condition ``(n, n_conditions)``."""
        embedded = self.embedding(self.features(noise, condition))
        shifts = embedded.chunk(len(self.inward) + 1, dim=1)
        hidden = self.first(x) + shifts[0]
        for inward, outward, shift in zip(self.inward, self.outward, shifts[1:], strict=True):
            inner = nn.functional.silu(inward(nn.functional.silu(hidden)) + shift)
            if self.dropout is not None:
                inner = self.dropout(inner)
            hidden = torch.add(hidden, outward(inner))
        return self.last(nn.functional.silu(hidden))
