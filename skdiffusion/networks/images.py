r"""Rows that are images: :math:`(n, c\,h\,w)` seen as :math:`(n, c, h, w)` and back."""

from __future__ import annotations

from typing import Any

from skdiffusion.utils.validation import check_count

__all__ = ["check_input_shape"]


def check_input_shape(input_shape: Any, n_features: int) -> tuple[int, int, int]:
    """The shape ``(channels, height, width)`` of one row.

    Parameters
    ----------
    input_shape : sequence of three int
    n_features : int
        Columns of the rows: the product of ``input_shape``.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        If the shape is missing or does not fit the columns.

    Examples
    --------
    >>> check_input_shape((1, 8, 8), 64)
    (1, 8, 8)
    """
    shape = () if input_shape is None else tuple(input_shape)
    if len(shape) != 3:
        raise ValueError(
            f"input_shape must be (channels, height, width), for {n_features} columns in all; "
            f"got {input_shape!r}."
        )
    channels, height, width = (check_count(size, "input_shape") for size in shape)
    if channels * height * width != n_features:
        raise ValueError(
            f"input_shape {shape} holds {channels * height * width} numbers, "
            f"but the rows have {n_features} columns."
        )
    return channels, height, width
