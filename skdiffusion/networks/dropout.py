r"""Units that networks leave out while training."""

from __future__ import annotations

from torch import nn

from skdiffusion.utils.validation import check_number

__all__ = ["dropout_layer"]


def dropout_layer(share: float) -> nn.Dropout | None:
    """The layer that leaves out a share of its units while training; ``None`` for no share.

    Parameters
    ----------
    share : float

    Returns
    -------
    torch.nn.Dropout or None

    Raises
    ------
    ValueError
        If it is not at least 0 and below 1: what nothing goes through learns nothing, and speaks
        up after training.

    Examples
    --------
    >>> dropout_layer(0.0) is None, dropout_layer(0.4)
    (True, Dropout(p=0.4, inplace=False))
    """
    if check_number(share, "dropout", least=0, most=1) == 1:
        raise ValueError("dropout must be below 1, where no unit would be left to learn.")
    return nn.Dropout(share) if share else None
