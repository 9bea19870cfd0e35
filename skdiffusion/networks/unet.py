r"""A small U-Net for images given as rows.

Residual blocks at several resolutions, each half of the one above it, with the features of the
way down handed to the way up (Ronneberger et al. 2015, Ho et al. 2020):

.. math:: h \leftarrow h + B\,\phi\big((1 + a)\,N(A\,\phi(N h)) + b\big),

with convolutions ``A`` and ``B``, group normalisation ``N`` and a gain ``a`` and offset ``b``
linear in the embedding of noise and condition. At the lowest resolution every pixel also attends
to every other. A pixel of the coarser image is the mean of two by two (at an odd border: of
those there are), and hands its features back to the same ones: any height and width will do.

On a torus (``periodic=True``) all of this commutes with shifts by :math:`2^{\text{depth}}`
pixels; otherwise the border is filled with zeros, by which the network knows where it is.
Weights start as He et al. (2015), those of the last layer at zero.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from skdiffusion.networks.dropout import dropout_layer
from skdiffusion.networks.embedding import Embedding
from skdiffusion.networks.images import check_input_shape
from skdiffusion.networks.initial import initialise
from skdiffusion.utils.validation import check_count

__all__ = ["UNet"]

GROUP = 8
"""Channels normalised together."""


class UNet(nn.Module):
    """U-Net for rows that are images.

    Parameters
    ----------
    n_features : int
        Columns of the rows, the product of ``input_shape``.
    n_conditions : int
        Length of the condition vector.
    input_shape : tuple of int
        Channels, height and width of a row's image.
    width : int
        Channels at full resolution, a multiple of 8; doubled at each halving.
    depth : int
        How often the resolution is halved.
    n_blocks : int
        Residual blocks per resolution on the way down, and on the way up.
    periodic : bool
        Whether the image is a torus: its left border meets its right, its top its bottom.
    dropout : float
        Share of features left out in the middle of every block while training.

    Examples
    --------
    >>> import torch
    >>> network = UNet(64, input_shape=(1, 8, 8), width=16)
    >>> network(torch.zeros(2, 64), torch.zeros(2)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        n_features: int,
        n_conditions: int = 0,
        input_shape: tuple[int, int, int] | None = None,
        width: int = 32,
        depth: int = 2,
        n_blocks: int = 1,
        periodic: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.input_shape = check_input_shape(input_shape, n_features)
        if check_count(width, "width", GROUP) % GROUP:
            raise ValueError(f"width must be a multiple of {GROUP}; got {width}.")
        check_count(n_blocks, "n_blocks")
        widths = [width * 2**level for level in range(check_count(depth, "depth", 0) + 1)]
        options = {"n_embedded": 4 * width, "periodic": periodic, "dropout": dropout}

        def blocks(n_in, n_out):
            sizes = [n_in] + [n_out] * n_blocks
            return nn.ModuleList(_Block(a, b, **options) for a, b in pairwise(sizes))

        channels = self.input_shape[0]
        self.embedding = Embedding(4 * width, n_conditions)
        self.first = _convolution(channels, width, periodic)
        ends = list(zip([width, *widths[:-1]], widths, strict=True))
        self.down = nn.ModuleList(blocks(n_in, n_out) for n_in, n_out in ends)
        self.attention = _Attention(widths[-1])
        self.middle = _Block(widths[-1], widths[-1], **options)
        self.up = nn.ModuleList(blocks(2 * n_out, n_in) for n_in, n_out in reversed(ends))
        self.norm = _norm(width)
        self.last = _convolution(width, channels, periodic)
        initialise(self, self.last)

    def forward(self, x, noise, condition=None):
        """Rows like ``x`` from rows, noise ``(n,)`` and condition ``(n, n_conditions)``."""
        embedded = functional.silu(self.embedding(noise, condition))
        hidden = self.first(x.reshape(-1, *self.input_shape))
        passed = []
        for level, blocks in enumerate(self.down):
            if level:
                hidden = functional.avg_pool2d(hidden, 2, ceil_mode=True)
            for block in blocks:
                hidden = block(hidden, embedded)
            passed.append(hidden)
        hidden = self.middle(self.attention(hidden), embedded)
        for level, blocks in enumerate(self.up):
            other = passed.pop()
            if level:
                hidden = _doubled(hidden)[..., : other.shape[-2], : other.shape[-1]]
            hidden = torch.cat([hidden, other], dim=1)
            for block in blocks:
                hidden = block(hidden, embedded)
        return self.last(functional.silu(self.norm(hidden))).flatten(1)


class _Block(nn.Module):
    def __init__(self, n_in, n_out, n_embedded, periodic, dropout):
        super().__init__()
        self.norm_in, self.norm_out = _norm(n_in), _norm(n_out)
        self.inward = _convolution(n_in, n_out, periodic)
        self.outward = _convolution(n_out, n_out, periodic)
        self.embedded = nn.Linear(n_embedded, 2 * n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else None
        self.dropout = dropout_layer(dropout)

    def forward(self, hidden, embedded):
        inner = self.inward(functional.silu(self.norm_in(hidden)))
        gain, offset = self.embedded(embedded)[:, :, None, None].chunk(2, dim=1)
        inner = functional.silu((1 + gain) * self.norm_out(inner) + offset)
        if self.dropout is not None:
            inner = self.dropout(inner)
        if self.skip is not None:
            hidden = self.skip(hidden)
        # a sum of two equals would grow from block to block
        return (hidden + self.outward(inner)) * 0.5**0.5


class _Attention(nn.Module):
    """Every pixel looks at every other; spelt out, for fused kernels have no forward derivative."""

    def __init__(self, width):
        super().__init__()
        self.norm = _norm(width)
        self.inward = nn.Conv2d(width, 3 * width, 1)
        self.outward = nn.Conv2d(width, width, 1)

    def forward(self, hidden):
        query, key, value = self.inward(self.norm(hidden)).flatten(2).chunk(3, dim=1)
        weights = query.transpose(1, 2) @ key * query.shape[1] ** -0.5
        mixed = value @ weights.softmax(dim=2).transpose(1, 2)
        return (hidden + self.outward(mixed.reshape(hidden.shape))) * 0.5**0.5


def _doubled(hidden):
    """Every pixel as two by two.

    Not by ``functional.interpolate``, whose gradient is zero in bfloat16 when compiled for a
    processor (torch 2.13): everything below the highest resolution then learns nothing.
    """
    n, c, height, width = hidden.shape
    twice = hidden[:, :, :, None, :, None].expand(n, c, height, 2, width, 2)
    return twice.reshape(n, c, 2 * height, 2 * width)


def _convolution(n_in, n_out, periodic):
    mode = "circular" if periodic else "zeros"
    return nn.Conv2d(n_in, n_out, 3, padding=1, padding_mode=mode)


def _norm(width):
    return nn.GroupNorm(width // GROUP, width)
