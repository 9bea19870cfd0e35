"""The state of a training run in a file: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["Checkpoint"]


class Checkpoint:
    """A file with the state of training after some round.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    ValueError
        If no file can be written there.
    """

    def __init__(self, path: Any):
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"checkpoint must be the path of a file; got {path!r}.")
        self.path = Path(path)
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise ValueError(f"checkpoint must be a file in a folder that exists; got {path!r}.")
        self.fingerprint: Any = None

    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return self.path.is_file()

    def seed(self) -> int:
        """Seed of the run that was interrupted."""
        return self._load()["seed"]

    def write(self, net: Any) -> None:
        """Store the state of a net."""
        seed = self.fingerprint["seed"]
        state = {"seed": seed, "fingerprint": self.fingerprint, **net.state()}
        unfinished = self.path.with_name(self.path.name + ".part")
        torch.save(state, unfinished)
        os.replace(unfinished, self.path)

    def read(self, net: Any) -> None:
        """Bring a net to the stored state, if there is one.

        Raises
        ------
        ValueError
            If the file belongs to another run.
        """
        if not self.exists():
            return
        state = self._load(net.device)
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"the checkpoint {self.path} belongs to a run with other data or parameters; "
                "remove it, or give another path."
            )
        net.return_to(state)

    def remove(self) -> None:
        """Forget the run."""
        self.path.unlink(missing_ok=True)

    def _load(self, device="cpu"):
        try:
            return torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # of anything else torch's reader may raise anything
            raise ValueError(
                f"{self.path} is no checkpoint of a training run: remove it, or give another path."
            ) from error
