"""A projector: two layers on the features of any network, which a loss on pairs of images sees in place of its scores.

Features are what enters the last linear layer. While the network is trained the projector is a part of that layer, of
which the layer makes no use: so optimizers and snapshots cover it, and the network computes what it did.
"""

import torch
from torch import nn

from relearn.errors import UserError
from relearn.training import models

NAME = "projector"  # of the part


class Projector(nn.Sequential):
    """Vectors of `before` features to `out` numbers, by a hidden layer."""

    def __init__(self, before: int, hidden: int, out: int):
        super().__init__(nn.Linear(before, hidden), nn.ReLU(), nn.Linear(hidden, out))


def attach(model: nn.Module, hidden: int, out: int, generator: torch.Generator) -> None:
    """Give `model` a projector, initialised from `generator`, a CPU generator.

    Raises UserError for a model without a linear layer, or that has a projector.
    """
    if any(isinstance(module, Projector) for module in model.modules()):
        raise UserError(f"{type(model).__name__} has a projector already; detach that first")
    last = last_linear(model)
    device = last.weight.device
    made = models.constructed("a projector", lambda: Projector(last.in_features, hidden, out), device.type)
    models.initialise(made, generator)
    last.add_module(NAME, made.to(device))


def detach(model: nn.Module) -> None:
    """Take the projector away."""
    delattr(last_linear(model), NAME)


def project(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The projections (B, out) float32 of a batch, by one forward pass of `model`, which has a projector.

    Raises UserError when its last linear layer does not get one vector of features per image.
    """
    seen: list[torch.Tensor] = []
    last = last_linear(model)
    hook = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        model(x)
    finally:
        hook.remove()
    if not seen or seen[-1].ndim != 2:
        found = f"{tuple(seen[-1].shape)}" if seen else "nothing"
        raise UserError(f"the last linear layer of the model gets {found}, not a vector of features for each image")
    with torch.autocast(x.device.type, enabled=False):
        return last.get_submodule(NAME)(seen[-1].float())


def last_linear(model: nn.Module) -> nn.Linear:
    """The last linear layer of a network, its projector aside. Raises UserError for a network without one."""
    aside = {part for module in model.modules() if isinstance(module, Projector) for part in module.modules()}
    found = [module for module in model.modules() if isinstance(module, nn.Linear) and module not in aside]
    if not found:
        raise UserError(f"{type(model).__name__} has no linear layer, before which features could be taken")
    return found[-1]
