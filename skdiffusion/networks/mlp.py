r"""The default network: a residual multilayer perceptron.

.. math:: h_0 = W x + e, \qquad h_{l+1} = h_l + B_l\,\phi(A_l\,\phi(h_l) + E_l e), \qquad
          F = V \phi(h_L),

with the embedding :math:`e` of noise and condition. Weights start as He et al. (2015), those
of ``V`` at zero: an untrained network adds nothing to the skip connection around it.
"""

from __future__ import annotations

import torch
from torch import nn

from skdiffusion.networks.embedding import Embedding

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
    """

    def __init__(
        self,
        n_features: int,
        n_conditions: int = 0,
        width: int = 128,
        n_blocks: int = 3,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.embedding = Embedding(width, n_conditions)
        self.first = nn.Linear(n_features, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(n_blocks))
        self.last = nn.Linear(width, n_features)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.last.weight)

    def forward(self, x, noise, condition=None):
        """Rows like ``x``, from ``x``, noise ``(n,)`` and condition ``(n, n_conditions)``."""
        embedded = self.embedding(noise, condition)
        hidden = self.first(x) + embedded
        for block in self.blocks:
            hidden = block(hidden, embedded)
        return self.last(nn.functional.silu(hidden))


class _Block(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.inward = nn.Linear(width, width)
        self.embedded = nn.Linear(width, width)
        self.outward = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout) if dropout else None

    def forward(self, hidden, embedded):
        inner = self.inward(nn.functional.silu(hidden)) + self.embedded(embedded)
        inner = nn.functional.silu(inner)
        if self.dropout is not None:
            inner = self.dropout(inner)
        return torch.add(hidden, self.outward(inner))
