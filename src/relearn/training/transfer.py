"""Layer groups of one network in the place of another's."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import torch
from torch import nn

from relearn.errors import UserError
from relearn.training.models import Normalised

AROUND = ("module.", "network.")  # before names in checkpoints: of models in parallel, and of ours
Weights = dict[str, torch.Tensor]


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


def match_published(model: Normalised, weights: Mapping[str, torch.Tensor]) -> tuple[Weights, dict[str, str]]:
    """Which of the `weights`, of a checkpoint that others published, fit the network of `model`, and what finds none.

    The first are tensors by their name in `model`, of its dtypes. They fit by name, ours or the one that the network
    says is `published`, and by shape. The others are names in `model`, each with the reason. How many batches a batch
    norm has seen may be absent, as from older checkpoints.
    """
    here = model.network.state_dict()
    given = {_our_name(name, here, model.network.published): tensor for name, tensor in weights.items()}
    taken: Weights = {}
    lacking: dict[str, str] = {}
    for name, own in here.items():
        found = given.get(name)
        if found is not None and found.shape == own.shape and found.is_floating_point() == own.is_floating_point():
            taken[f"network.{name}"] = found.to(own.dtype)
        elif not name.endswith("num_batches_tracked"):
            is_there = "not in the file" if found is None else f"{tuple(found.shape)} in the file"
            lacking[f"network.{name}"] = f"{is_there}, {tuple(own.shape)} here"
    return taken, lacking


def inside(model: Normalised, group: str, names: Iterable[str]) -> list[str]:
    """Those of the tensors that belong to a layer group of `model`, by name."""
    return [name for name in names if _inside(model, model.layer_groups()[group])(name)]


def _our_name(name: str, ours: Container[str], published: Mapping[str, str]) -> str:
    """The name in our network of a tensor of a checkpoint; as it is where no module is known."""
    for around in AROUND:
        name = name.removeprefix(around)
    if name in ours:
        return name
    ends = [k for k, sign in enumerate(name) if sign == "."]
    for end in reversed(ends):  # the longest known module first
        if name[:end] in published:
            return published[name[:end]] + name[end:]
    if name in published:  # a parameter of the network itself
        return published[name]
    return f"{published['']}.{name}" if "" in published else name


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
