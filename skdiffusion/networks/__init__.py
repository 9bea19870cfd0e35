"""Torch networks for rows: ``forward(x, noise, condition=None)`` of points, noise and labels.

Loaded only when a neural estimator is fitted: nothing else of the package needs torch.
"""

from importlib import import_module

from skdiffusion.utils.validation import lookup

__all__ = ["NETWORKS", "check_network"]

NETWORKS = {
    "mlp": "skdiffusion.networks.mlp:ResidualMLP",
    "unet": "skdiffusion.networks.unet:UNet",
    "dit": "skdiffusion.networks.transformer:DiT",
}
"""Short names of the networks and where they live."""


def check_network(module):
    """The class of a network from its short name or from itself.

    Parameters
    ----------
    module : str or type
        A key of ``NETWORKS`` or a subclass of ``torch.nn.Module`` with the constructor arguments
        ``n_features`` and ``n_conditions`` and ``forward(x, noise, condition=None)``.

    Returns
    -------
    type

    Raises
    ------
    ValueError
        If the name is unknown or the object is not a class of torch modules.
    """
    if isinstance(module, str):
        home, name = lookup(module, NETWORKS, "module", "a class of torch modules").split(":")
        return getattr(import_module(home), name)
    from torch.nn import Module

    if not (isinstance(module, type) and issubclass(module, Module)):
        raise ValueError(
            f"module must be one of {', '.join(map(repr, NETWORKS))} or a class of torch modules "
            f"(its parameters are given as module__name); got {module!r}."
        )
    return module
