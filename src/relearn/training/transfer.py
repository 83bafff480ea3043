"""Layer groups of one network in the place of another's."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from relearn.errors import UserError
from relearn.training.models import Normalised


def copy_groups(
    model: Normalised, groups: Sequence[str], weights: Mapping[str, torch.Tensor], source: str, remedy: str
) -> None:
    """Copy parameters and batch-norm statistics of some layer groups from `weights` into `model`.

    `weights` are those of another model by name, and `source` says whose. Raises UserError, with the `remedy` and
    nothing changed, when a group of theirs differs from the model's in the name or shape of a tensor.
    """
    known, here = model.layer_groups(), model.state_dict()
    taken: dict[str, dict[str, torch.Tensor]] = {}
    for name in groups:
        inside = _inside(model, known[name])
        taken[name] = {key: tensor for key, tensor in weights.items() if inside(key)}
        own = {key: tensor for key, tensor in here.items() if inside(key)}
        found, needed = ({key: tuple(t.shape) for key, t in tensors.items()} for tensors in (taken[name], own))
        if found != needed:
            key = next(key for key in (*needed, *found) if found.get(key) != needed.get(key))
            raise UserError(
                f"layer group '{name}' of {source} does not fit the victim's "
                f"({key.partition(f'.{name}.')[2] or key}: {found.get(key, 'none')}, "
                f"the victim has {needed.get(key, 'none')}); {remedy}"
            )
    for name in groups:
        model.load_state_dict(taken[name], strict=False)


def _inside(model: nn.Module, group: nn.Module) -> Callable[[str], bool]:
    """Whether a tensor of this name belongs to a layer group of `model`.

    It does if it lies in the module of the group. Where the group is no module of the model, because it was found, it
    does if it lies in a module whose own parameters are the group's.
    """
    places = {module: name for name, module in model.named_modules()}
    if group in places:
        prefix = f"{places[group]}."
        return lambda key: key.startswith(prefix)
    owned = set(group.parameters())
    inside = {name for module, name in places.items() if owned.intersection(module.parameters(recurse=False))}
    return lambda key: key.rpartition(".")[0] in inside
