r"""Where networks compute."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["check_device", "home"]


def check_device(device: Any) -> torch.device:
    """The torch device of a name; ``"auto"`` is the GPU where there is one.

    Parameters
    ----------
    device : str or torch.device

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If there is no such device, or not on this machine.

    Examples
    --------
    >>> check_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda' or another torch device; got {device!r}."
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} is not on this machine, where torch sees "
            f"{torch.cuda.device_count()} GPUs: take 'auto' or 'cpu'."
        )
    return found


def home(device: Any) -> torch.device:
    """Where a fitted network answers: the device that was asked for, if this machine has it."""
    try:
        return check_device(device)
    except ValueError:
        return torch.device("cpu")
