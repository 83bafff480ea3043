"""A projector: two layers on the features of any network, which a loss on pairs of images sees in place of its scores.

Features are what enters the last linear layer. The projector is a part of the network while that is trained, so that
optimizers and snapshots cover it.
"""

import torch
from torch import nn

from relearn.errors import UserError
from relearn.training import models

NAME = "projector"  # of the part


def attach(model: nn.Module, hidden: int, out: int, generator: torch.Generator) -> None:
    """Give `model` a projector, initialised from `generator`, a CPU generator.

    Raises UserError for a model without a linear layer, or that has a part of this name.
    """
    if hasattr(model, NAME):
        raise UserError(f"the model has a part '{NAME}' already; give it another name")
    last = last_linear(model)
    device = last.weight.device

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(last.in_features, hidden), nn.ReLU(), nn.Linear(hidden, out))

    projector = models.constructed("a projector", make, device.type)
    models.initialise(projector, generator)
    model.add_module(NAME, projector.to(device))


def detach(model: nn.Module) -> None:
    """Take the projector away."""
    delattr(model, NAME)


def project(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The projections (B, out) float32 of a batch, by one forward pass of `model`, which has a projector.

    Raises UserError when its last linear layer does not get one vector of features per image.
    """
    seen: list[torch.Tensor] = []
    hook = last_linear(model).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        model(x)
    finally:
        hook.remove()
    if not seen or seen[-1].ndim != 2:
        found = f"{tuple(seen[-1].shape)}" if seen else "nothing"
        raise UserError(f"the last linear layer of the model gets {found}, not a vector of features for each image")
    with torch.autocast(x.device.type, enabled=False):
        return model.get_submodule(NAME)(seen[-1].float())


def last_linear(model: nn.Module) -> nn.Linear:
    """The last linear layer of a network, its projector aside. Raises UserError for a network without one."""
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(f"{NAME}.")
    ]
    if not found:
        raise UserError(f"{type(model).__name__} has no linear layer, before which features could be taken")
    return found[-1]
