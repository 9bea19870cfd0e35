r"""How networks begin: He et al. (2015), and nothing at the end.

Weights are normal with variance :math:`2/n_{in}`, offsets zero; the layers that add to what the
network is built around start at zero, so that untrained it adds nothing.
"""

from __future__ import annotations

from torch import nn

__all__ = ["initialise"]


def initialise(network: nn.Module, *silent: nn.Module) -> None:
    """Draw the weights of all linear and convolutional layers; those of ``silent`` are zero."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in silent:
        nn.init.zeros_(layer.weight)
