r"""A small transformer for images given as rows (DiT, Peebles & Xie 2023).

The image is cut into square patches, each a token that knows its place by sines and cosines of
its two coordinates. Every block reads noise and condition through what its normalisations and
residuals are multiplied by,

.. math::
    h \leftarrow h + g_1\, \mathrm{attention}\big((1 + a_1) N h + b_1\big), \qquad
    h \leftarrow h + g_2\, \mathrm{mlp}\big((1 + a_2) N h + b_2\big),

with :math:`(a, b, g)` linear in the embedding and zero at first: an untrained block is the
identity. Weights start as He et al. (2015), those of the last layer at zero too. Images whose
sides are no multiples of the patch are filled up with zeros.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from skdiffusion.networks.dropout import dropout_layer
from skdiffusion.networks.embedding import Embedding
from skdiffusion.networks.images import check_input_shape
from skdiffusion.networks.initial import initialise
from skdiffusion.utils.validation import check_count

__all__ = ["DiT"]

MAX_PATCHES = 64
"""Number of patches that the default patch size keeps to: attention costs its square."""


class DiT(nn.Module):
    """Transformer for rows that are images.

    Parameters
    ----------
    n_features : int
        Columns of the rows, the product of ``input_shape``.
    n_conditions : int
        Length of the condition vector.
    input_shape : tuple of int
        Channels, height and width of a row's image.
    width : int
        Numbers per token, a multiple of ``n_heads`` and of 4.
    n_blocks : int
        Blocks of attention and perceptron.
    n_heads : int
        Attention heads.
    patch : int, optional
        Side of a patch in pixels; by default the smallest from 2 that leaves 64 patches or less.
    dropout : float
        Share of the perceptrons' units left out while training.

    Examples
    --------
    >>> import torch
    >>> network = DiT(64, input_shape=(1, 8, 8), width=32, n_blocks=2)
    >>> network(torch.zeros(2, 64), torch.zeros(2)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        n_features: int,
        n_conditions: int = 0,
        input_shape: tuple[int, int, int] | None = None,
        width: int = 128,
        n_blocks: int = 4,
        n_heads: int = 4,
        patch: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.input_shape = check_input_shape(input_shape, n_features)
        channels, height, width_of_image = self.input_shape
        n_heads = check_count(n_heads, "n_heads")
        if check_count(width, "width") % math.lcm(4, n_heads):
            raise ValueError(f"width must be a multiple of 4 and of n_heads; got {width}.")
        self.patch = _default_patch(height, width_of_image) if patch is None else patch
        check_count(self.patch, "patch")
        self.grid = math.ceil(height / self.patch), math.ceil(width_of_image / self.patch)
        n_inputs = channels * self.patch**2
        self.embedding = Embedding(width, n_conditions)
        self.register_buffer("positions", _positions(*self.grid, width))
        self.first = nn.Linear(n_inputs, width)
        self.blocks = nn.ModuleList(
            _Block(width, n_heads, dropout) for _ in range(check_count(n_blocks, "n_blocks"))
        )
        self.modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, n_inputs)
        initialise(self, self.last, self.modulation, *(block.modulation for block in self.blocks))

    def forward(self, x, noise, condition=None):
        """Rows like ``x`` from rows, noise ``(n,)`` and condition ``(n, n_conditions)``."""
        embedded = functional.silu(self.embedding(noise, condition))[:, None, :]
        tokens = self.first(self._cut(x)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, embedded)
        gain, offset = self.modulation(embedded).chunk(2, dim=-1)
        return self._paste(self.last((1 + gain) * _norm(tokens) + offset))

    def _cut(self, x):
        """Patches ``(n, n_patches, channels * patch**2)`` of rows."""
        channels, height, width = self.input_shape
        (rows, columns), p = self.grid, self.patch
        images = x.reshape(-1, channels, height, width)
        images = functional.pad(images, (0, columns * p - width, 0, rows * p - height))
        images = images.reshape(-1, channels, rows, p, columns, p)
        return images.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows * columns, channels * p * p)

    def _paste(self, tokens):
        """Rows from patches: inverse of :meth:`_cut`."""
        channels, height, width = self.input_shape
        (rows, columns), p = self.grid, self.patch
        images = tokens.reshape(-1, rows, columns, channels, p, p).permute(0, 3, 1, 4, 2, 5)
        images = images.reshape(-1, channels, rows * p, columns * p)
        return images[..., :height, :width].flatten(1)


class _Block(nn.Module):
    def __init__(self, width, n_heads, dropout):
        super().__init__()
        self.n_heads = n_heads
        self.modulation = nn.Linear(width, 6 * width)
        self.attend_in = nn.Linear(width, 3 * width)
        self.attend_out = nn.Linear(width, width)
        self.inward = nn.Linear(width, 4 * width)
        self.outward = nn.Linear(4 * width, width)
        self.dropout = dropout_layer(dropout)

    def forward(self, tokens, embedded):
        gain, offset, gate, mlp_gain, mlp_offset, mlp_gate = self.modulation(embedded).chunk(6, -1)
        tokens = tokens + gate * self._attention((1 + gain) * _norm(tokens) + offset)
        inner = functional.silu(self.inward((1 + mlp_gain) * _norm(tokens) + mlp_offset))
        if self.dropout is not None:
            inner = self.dropout(inner)
        return tokens + mlp_gate * self.outward(inner)

    def _attention(self, tokens):
        """Every token looks at every other; fused kernels have no forward derivative."""
        n, length, width = tokens.shape
        heads = self.attend_in(tokens).reshape(n, length, 3, self.n_heads, width // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        weights = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        mixed = (weights.softmax(dim=-1) @ value).transpose(1, 2).reshape(n, length, width)
        return self.attend_out(mixed)


def _norm(tokens):
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


def _default_patch(height, width):
    patch = 2
    while math.ceil(height / patch) * math.ceil(width / patch) > MAX_PATCHES:
        patch += 1
    return patch


def _positions(n_rows, n_columns, width):
    """Sines and cosines of both coordinates, at wavelengths from a patch to the whole image."""
    longest = max(n_rows, n_columns, 2)
    wavelengths = torch.logspace(math.log10(2), math.log10(2 * longest), width // 4)
    waves = []
    for n, of_rows in ((n_rows, True), (n_columns, False)):
        angles = 2 * math.pi * torch.arange(n)[:, None] / wavelengths
        angles = angles[:, None] if of_rows else angles[None]
        waves += [angles.sin(), angles.cos()]
    waves = [wave.expand(n_rows, n_columns, -1) for wave in waves]
    return torch.cat(waves, dim=-1).reshape(n_rows * n_columns, width)
