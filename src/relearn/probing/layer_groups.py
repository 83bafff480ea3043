"""Layer groups of any network, shallow to deep: found from one forward pass, or as the user lists them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from relearn.errors import UserError
from relearn.probing.found_groups import found_groups
from relearn.probing.trace import Calls, trace
from relearn.registry import suggest

GroupList = Mapping | Iterable | None


@dataclass(frozen=True)
class Group:
    """The parameters a layer group owns, and the module whose output is its activation."""

    parameters: list[nn.Parameter]
    output: nn.Module


def layer_groups(model: nn.Module, images: torch.Tensor, groups: GroupList = None) -> dict[str, Group]:
    """The layer groups of `model` by name, shallow to deep: a partition of its parameters, the last one being the head.

    `images` are a few images (N, C, H, W) as the model takes them, for one forward pass in evaluation mode. `groups`,
    if given, is a list with an entry per group, or a mapping of names to entries; an entry is a module, a module's
    name, or a list of these. A parameter of a module around the groups (a class token) goes to the first group in it,
    one that two groups share to the shallower. Warns when the groups it finds are uneven in depth. Raises UserError
    when `groups` is no partition in the order of the forward pass, when none is found, or when the model cannot take
    the images.
    """
    calls = trace(model, images)
    names = {module: name for name, module in model.named_modules()}
    parts, ends = found_groups(model, calls, names) if groups is None else (_given(groups, names), {})
    outputs = {name: ends.get(name) or _output(name, part, calls, names) for name, part in parts.items()}
    places = [calls[module].place for module in outputs.values()]
    for name, after, here, there in zip(parts, list(parts)[1:], places, places[1:], strict=False):
        if here > there:
            raise UserError(
                f"groups: '{after}' returns before '{name}' in the forward pass; list them from shallow to deep"
            )
    return {name: Group(parameters, outputs[name]) for name, parameters in _owners(model, parts, names).items()}


# Groups that the user lists


def _given(groups: Mapping | Iterable, names: dict[nn.Module, str]) -> dict[str, list[nn.Module]]:
    modules = {name: module for module, name in names.items()}

    def resolve(entry) -> list[nn.Module]:
        if isinstance(entry, nn.Module):
            if entry not in names:
                raise UserError(
                    f"groups: a {type(entry).__name__} is not a module of the model; "
                    "name modules as model.named_modules() does"
                )
            return [entry]
        if isinstance(entry, str):
            if entry not in modules:
                raise UserError(
                    f"groups: no module '{entry}' in the model; {suggest(entry, [name for name in modules if name])}"
                )
            return [modules[entry]]
        if not isinstance(entry, Iterable):
            raise UserError(f"groups: an entry is a module, its name, or a list of these, found {entry!r}")
        return [module for part in entry for module in resolve(part)]

    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise UserError(f"groups: must be a list or a mapping with an entry for each group, found {groups!r}")
    parts = [resolve(entry) for entry in (groups.values() if isinstance(groups, Mapping) else groups)]
    if len(parts) < 2 or not all(parts):
        raise UserError(f"groups: give two or more, each with a module, found {len(list(filter(None, parts)))}")
    labels = list(groups) if isinstance(groups, Mapping) else [names[part[0]] for part in parts]
    group_of: dict[nn.Module, str] = {}
    for label, part in zip(labels, parts, strict=True):
        for inner in (inner for module in part for inner in module.modules()):
            if inner in group_of:
                raise UserError(
                    f"groups: '{names[inner]}' is in '{group_of[inner]}' and again in '{label}'; "
                    "every module goes into one group"
                )
            group_of[inner] = label
    return dict(zip(labels, parts, strict=True))


# The activation and the parameters of a group


def _output(name: str, part: list[nn.Module], calls: Calls, names: dict[nn.Module, str]) -> nn.Module:
    """The module of `part` that returns last, among those that are called once and give a tensor."""
    measurable = [module for module in part if module in calls and calls[module].times == 1 and calls[module].shape]
    if measurable:
        return max(measurable, key=lambda module: calls[module].place)
    found = [
        f"'{names[module]}' is called {calls[module].times if module in calls else 0} times" for module in part[:3]
    ]
    more = f", and {len(part) - 3} more" if len(part) > 3 else ""
    raise UserError(
        f"layer group '{name}': no module is called once and gives a tensor with a row for each image "
        f"({', '.join(found)}{more}); give groups=[...] with other modules"
    )


def _owners(
    model: nn.Module, parts: dict[str, list[nn.Module]], names: dict[nn.Module, str]
) -> dict[str, list[nn.Parameter]]:
    owner: dict[nn.Parameter, str] = {}
    for group, part in parts.items():
        for parameter in (parameter for module in part for parameter in module.parameters()):
            owner.setdefault(parameter, group)
    for path, parameter in model.named_parameters():
        if parameter not in owner:  # it may hang on a module around groups
            around = path.rpartition(".")[0]
            within = [
                group
                for group, part in parts.items()
                for module in part
                if not around or names[module].startswith(f"{around}.")
            ]
            if not within:
                raise UserError(
                    f"parameter '{path}' is in no layer group; give groups=[...] with module '{around}' in one of them"
                )
            owner[parameter] = within[0]
    return {group: [parameter for parameter in model.parameters() if owner[parameter] == group] for group in parts}
