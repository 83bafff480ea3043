"""Layer groups of any network, shallow to deep: found from one forward pass, or as the user lists them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from relearn.errors import UserError
from relearn.probing import metrics
from relearn.registry import suggest

ENOUGH = 4  # modules, or resolutions, before the head: a network with so many is cut there, as ResNets are into stages
MOST = 5  # groups before the head: as many as a ResNet has, with its stem

GroupList = Mapping | Iterable | None


@dataclass(frozen=True)
class Group:
    """The parameters a layer group owns, and the module whose output is its activation."""

    parameters: list[nn.Parameter]
    output: nn.Module


@dataclass
class Call:
    """What a forward pass showed of a module: the place of its first return, the number of calls, the output shape."""

    place: int
    times: int
    shape: tuple | None


def layer_groups(model: nn.Module, images: torch.Tensor, groups: GroupList = None) -> dict[str, Group]:
    """The layer groups of `model` by name, shallow to deep: a partition of its parameters, the last one being the head.

    `images` are a few images (N, C, H, W) as the model takes them, for one forward pass in evaluation mode. `groups`,
    if given, is a list with an entry per group, or a mapping of names to entries; an entry is a module, a module's
    name, or a list of these. A parameter of a module around the groups (a class token) goes to the first group in it,
    one that two groups share to the shallower. Raises UserError when `groups` is no partition in the order of the
    forward pass, or when none is found.
    """
    calls = _trace(model, images)
    names = {module: name for name, module in model.named_modules()}
    parts = _found(model, calls, names) if groups is None else _given(groups, names)
    outputs = {name: _output(name, part, calls, names) for name, part in parts.items()}
    places = [calls[module].place for module in outputs.values()]
    for name, after, here, there in zip(parts, list(parts)[1:], places, places[1:], strict=False):
        if here > there:
            raise UserError(
                f"groups: '{after}' returns before '{name}' in the forward pass; list them from shallow to deep"
            )
    return {name: Group(parameters, outputs[name]) for name, parameters in _owners(model, parts, names).items()}


def _trace(model: nn.Module, images: torch.Tensor) -> dict[nn.Module, Call]:
    calls: dict[nn.Module, Call] = {}

    def returned(module, _, out) -> None:
        shape = tuple(out.shape) if torch.is_tensor(out) else None
        call = calls.setdefault(module, Call(len(calls), 0, shape))
        call.times, call.shape = call.times + 1, shape

    hooks = [module.register_forward_hook(returned) for module in model.modules()]
    try:
        metrics.logits(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


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
        return [module for part in entry for module in resolve(part)]

    parts = [resolve(entry) for entry in (groups.values() if isinstance(groups, Mapping) else groups)]
    labels = list(groups) if isinstance(groups, Mapping) else [names[part[0]] if part else "" for part in parts]
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


# Groups that are found


def _found(model: nn.Module, calls: dict[nn.Module, Call], names: dict[nn.Module, str]) -> dict[str, list[nn.Module]]:
    """Open modules until there are enough, and merge those of one resolution, or else neighbours of few layers."""
    units = _inside(model, calls)
    while len(whole := [unit for unit in units if _learns(unit)]) == 1 and _opens(whole[0], calls):  # a wrapper
        units = _inside(whole[0], calls)
    if len(whole) < 2:
        raise UserError(
            f"no layer groups found in this {type(model).__name__}; "
            "give groups=[...], modules or their names from shallow to deep"
        )
    head = whole[-1]
    units = units[: units.index(head)]
    while sum(map(_learns, units)) < ENOUGH and (closed := [unit for unit in units if _opens(unit, calls)]):
        largest = units.index(max(closed, key=lambda unit: _layers(unit, calls)))
        units[largest : largest + 1] = _inside(units[largest], calls)
    stages: list[list[nn.Module]] = []
    for unit in units:
        if _learns(unit):
            stages.append([unit])
        elif stages and calls[unit].times == 1 and calls[unit].shape == calls[stages[-1][-1]].shape:
            stages[-1].append(unit)  # an activation function: what is measured is what the next group gets
    stages = [*_merged(stages, calls), [head]]
    return {names[max(stage, key=lambda unit: _layers(unit, calls))]: stage for stage in stages}


def _merged(stages: list[list[nn.Module]], calls: dict[nn.Module, Call]) -> list[list[nn.Module]]:
    runs: list[list[nn.Module]] = []
    for stage in stages:
        if runs and _resolution(runs[-1], calls) == _resolution(stage, calls):
            runs[-1] = runs[-1] + stage
        else:
            runs.append(stage)
    stages = runs if len(runs) >= ENOUGH else stages
    while len(stages) > MOST:
        layers = [sum(_layers(unit, calls) for unit in stage) for stage in stages]
        thinnest = min(range(len(stages) - 1), key=lambda k: layers[k] + layers[k + 1])
        stages = [*stages[:thinnest], stages[thinnest] + stages[thinnest + 1], *stages[thinnest + 2 :]]
    return stages


def _resolution(stage: list[nn.Module], calls: dict[nn.Module, Call]) -> tuple:
    shape = calls[stage[-1]].shape or ()
    return shape[1:2] if len(shape) == 3 else shape[2:]  # tokens (N, T, D), else (N, C, H, W)


def _inside(module: nn.Module, calls: dict[nn.Module, Call]) -> list[nn.Module]:
    """The outermost modules that are called inside `module`, in the order of the forward pass."""
    found = [unit for child in module.children() for unit in ([child] if child in calls else _inside(child, calls))]
    return sorted(dict.fromkeys(found), key=lambda unit: calls[unit].place)


def _learns(unit: nn.Module) -> bool:
    return any(True for _ in unit.parameters())


def _opens(unit: nn.Module, calls: dict[nn.Module, Call]) -> bool:
    """Whether `unit` can be split: what learns in it are modules called once each, and parameters of its own."""
    inside = [module for module in _inside(unit, calls) if _learns(module)]
    known = {parameter for module in inside for parameter in module.parameters()} | set(unit.parameters(recurse=False))
    return bool(inside) and all(calls[module].times == 1 for module in inside) and known == set(unit.parameters())


def _layers(unit: nn.Module, calls: dict[nn.Module, Call]) -> int:
    return sum(module in calls and any(True for _ in module.parameters(recurse=False)) for module in unit.modules())


# The activation and the parameters of a group


def _output(name: str, part: list[nn.Module], calls: dict[nn.Module, Call], names: dict[nn.Module, str]) -> nn.Module:
    """The module of `part` that returns last, among those that are called once and give a tensor."""
    measurable = [module for module in part if module in calls and calls[module].times == 1 and calls[module].shape]
    if measurable:
        return max(measurable, key=lambda module: calls[module].place)
    found = [f"'{names[module]}' is called {calls[module].times if module in calls else 0} times" for module in part]
    raise UserError(
        f"layer group '{name}': no module is called once and gives a tensor ({', '.join(found)}); "
        "give groups=[...] with other modules"
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
