"""What PST is given: settings are checked, wrappers of model and optimizer taken off, and what does not fit refused."""

import dataclasses

import numpy
import torch
from torch import nn

from relearn import registry
from relearn.errors import UserError
from relearn.registry import Setting, suggest
from relearn.training.staging import Staging

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_FIELDS = {field.name for field in dataclasses.fields(Staging) if field.init}
#: the settings of the stages, as the method `pst` of the workflow declares them
SETTINGS = {setting.name: setting for setting in registry.entry("methods", "pst").settings if setting.name in _FIELDS}
WHOLE = {
    "steps_per_epoch": Setting("steps_per_epoch", "PositiveInt", registry.REQUIRED),
    "probe_size": Setting("probe_size", "PositiveInt", 2000),
    "seed": Setting("seed", "NonNegativeInt", 0),
    "epochs": Setting("epochs", "NonNegativeInt", registry.REQUIRED),
}


def checked(setting: Setting, value: object):
    """`value` in types of Python, not of numpy. Raises UserError when it is none for this setting."""
    value = _plain(value)
    if error := setting.error(value):
        raise UserError(f"pst: {setting.name}: {' '.join(error.split()):.200}")
    return setting.resolved({setting.name: value})


def _plain(value: object):
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, numpy.generic) else value


def whole(name: str, value: object) -> int:
    """`value` as the whole number `name` of `WHOLE`. Raises UserError when it is none, or too small."""
    number = checked(WHOLE[name], value)
    if number >= 2**63:
        raise UserError(f"pst: {name}: must be below 2**63, found {number}")
    return number


def staging(settings: dict) -> Staging:
    """The stages with these settings. Raises UserError for an unknown one, or a value that will not do."""
    for name in settings:
        if name not in SETTINGS:
            raise UserError(f"pst: no setting '{name}'; {suggest(name, SETTINGS)}")
    values = {name: checked(setting, settings.get(name, setting.default)) for name, setting in SETTINGS.items()}
    if values["max_snapshots"] < 1:
        raise UserError(f"pst: max_snapshots must be 1 or more, found {values['max_snapshots']}")
    return Staging([], **values | {"full_rate_groups": tuple(values["full_rate_groups"])})


def check_full_rate_groups(staging: Staging, groups: int) -> None:
    """Raises UserError unless there is a stage, and each slows at least one of so many groups."""
    if not staging.full_rate_groups or not all(1 <= count < groups for count in staging.full_rate_groups):
        raise UserError(
            f"pst: full_rate_groups says for each stage how many of the deepest groups stay at the full rate, "
            f"1 to {groups - 1} here, found {list(staging.full_rate_groups)}"
        )


def bare_model(model: object) -> nn.Module:
    """The module that torch.compile or data-parallel training wrapped: its names, and the hooks it calls.

    Raises UserError for what is no module, has no parameters, or trains in several processes.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"pst: the model must be a torch module, found {_kind(model)}")
    if isinstance(model, nn.parallel.DistributedDataParallel) and torch.distributed.get_world_size() > 1:
        raise UserError("pst: training in several processes is not supported; train in one")
    while (compiled := hasattr(model, "_orig_mod")) or isinstance(model, PARALLEL):
        model = model.get_submodule("_orig_mod" if compiled else "module")
    if next(model.parameters(), None) is None:
        raise UserError(f"pst: this {type(model).__name__} has no parameters to train")
    return model


def bare_optimizer(optimizer: object, model: nn.Module) -> torch.optim.Optimizer:
    """The torch optimizer that accelerate or another library wrapped.

    Raises UserError for what is none, or when it trains parameters that are not of `model`, or none.
    """
    found = optimizer
    while isinstance(inner := getattr(found, "optimizer", None), torch.optim.Optimizer):
        found = inner
    if not isinstance(found, torch.optim.Optimizer):
        raise UserError(f"pst: the optimizer must be one of torch, found {_kind(optimizer)}")
    known = set(model.parameters())
    trained = [parameter for group in found.param_groups for parameter in group["params"]]
    others = sum(parameter not in known for parameter in trained)
    if others:
        raise UserError(
            f"pst: {others} of the optimizer's {len(trained)} parameters are not of the model: a roll-back would not "
            "reach them; build the optimizer from model.parameters(), or give a module that holds all of them"
        )
    return found


def check_scheduler(scheduler: object, optimizer: torch.optim.Optimizer) -> None:
    """Raises UserError for a scheduler whose state cannot be kept, or that schedules another optimizer."""
    if scheduler is None:
        return
    if isinstance(scheduler, type) or not (hasattr(scheduler, "state_dict") and hasattr(scheduler, "load_state_dict")):
        raise UserError(f"pst: the scheduler needs state_dict and load_state_dict, found {_kind(scheduler)}")
    scheduled = getattr(getattr(scheduler, "scheduler", scheduler), "optimizer", None)
    while isinstance(inner := getattr(scheduled, "optimizer", None), torch.optim.Optimizer):
        scheduled = inner
    if isinstance(scheduled, torch.optim.Optimizer) and scheduled is not optimizer:
        raise UserError("pst: the scheduler is of another optimizer; build it from the one that pst gets")


def _kind(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
