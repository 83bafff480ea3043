"""What PST is given: settings are checked, wrappers of model and optimizer taken off, and what does not fit refused."""

from collections.abc import Iterable

import numpy
import torch
from torch import nn

from relearn import registry
from relearn.errors import UserError
from relearn.methods import pst as workflow
from relearn.pretraining.two_views import TwoViews
from relearn.pst.processes import wrappers
from relearn.pst.views import Normalisation
from relearn.registry import Setting, suggest

#: the settings of the method `pst` of the workflow, but for the pretraining, which is an object here
SETTINGS = {
    setting.name: setting for setting in registry.entry("methods", "pst").settings if setting.name != "pretraining"
}
#: those of them that change images
AUGMENTATION = [setting.name for setting in registry.entry("methods", "erm").settings]
#: modules and parameters of torch that hold a part of what a layer has
SHARDED = {"FullyShardedDataParallel", "DTensor"}
WHOLE = {
    "steps_per_epoch": Setting("steps_per_epoch", "PositiveInt", registry.REQUIRED),
    "probe_size": Setting("probe_size", "PositiveInt", 2000),
    "pretraining_images": Setting("pretraining_images", "PositiveInt", 50_000),
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


def method(settings: dict, pretraining: TwoViews | None) -> workflow.PST:
    """The method of the workflow with these settings.

    Raises UserError for an unknown one, a value that will not do, or one that a loop of a user's own cannot have.
    """
    for name in settings:
        if name not in SETTINGS:
            raise UserError(f"pst: no setting '{name}'; {suggest(name, SETTINGS)}")
    values = {name: checked(setting, settings.get(name, setting.default)) for name, setting in SETTINGS.items()}
    if values["max_snapshots"] < 1:
        raise UserError(f"pst: max_snapshots must be 1 or more, found {values['max_snapshots']}")
    if values["staged_epochs"] is not None:
        raise UserError(
            f"pst: staged_epochs is {values['staged_epochs']}, but in your own loop stages run for the "
            "epochs of pst.epochs(); leave it out"
        )
    if values["downsample"] > 1:
        raise UserError(
            f"pst: downsample is {values['downsample']}, which would change the size of your images; "
            "resize them in the dataset's transform"
        )
    return workflow.PST(**values, pretraining=None if pretraining is None else type(pretraining).__name__)


def normalisation(mean: object, std: object, settings: dict, pretraining: TwoViews | None) -> Normalisation | None:
    """By what images are normalised, None if that is not needed. Raises UserError when it is, and not given."""
    augmented = [name for name in AUGMENTATION if settings.get(name, SETTINGS[name].default) != SETTINGS[name].default]
    needed = augmented or ["pretraining"] * (pretraining is not None)
    if mean is None and std is None and not needed:
        return None
    missing = [name for name, value in (("mean", mean), ("std", std)) if value is None]
    if missing:
        why = f"{needed[0]} needs" if needed else "give"
        raise UserError(
            f"pst: {why} both mean and std, by which the images are normalised, found no {' and no '.join(missing)}; "
            "give those of the dataset's transform, 0 and 1 per channel if it has none"
        )
    return Normalisation(mean, std)


def check_pretraining(pretraining: object) -> None:
    """Raises UserError for what is no pretraining, or one with a setting that will not do."""
    if pretraining is None:
        return
    if not isinstance(pretraining, TwoViews):
        raise UserError(f"pst: pretraining must be an object such as Contrastive(epochs=2), found {_kind(pretraining)}")
    known = registry.entries("pretraining").values()
    declared = next((entry.settings for entry in known if entry.object == type(pretraining).__name__), ())
    for setting in declared:
        holder = pretraining.view if hasattr(pretraining.view, setting.name) else pretraining
        if error := setting.error(_plain(getattr(holder, setting.name))):
            raise UserError(f"pst: pretraining: {setting.name}: {' '.join(error.split()):.200}")


def check_full_rate_groups(counts: tuple[int, ...], groups: int) -> None:
    """Raises UserError unless there is a stage, and each of `counts` slows at least one of so many groups."""
    if not counts or not all(1 <= count < groups for count in counts):
        raise UserError(
            f"pst: full_rate_groups must give for each stage how many of the deepest groups keep the full rate, "
            f"1 to {groups - 1} here, found {list(counts)}"
        )


def bare_model(model: object) -> nn.Module:
    """The module that torch.compile or data-parallel training wrapped: its names, and the hooks it calls.

    Raises UserError for what is no module, has no parameters, or whose parameters lie in parts in several processes.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"pst: the model must be a torch module, found {_kind(model)}")
    *_, model = wrappers(model)
    if next(model.parameters(), None) is None:
        raise UserError(f"pst: this {type(model).__name__} has no parameters to train")
    kinds = {type(part).__name__ for part in (*model.modules(), *model.parameters())}
    if sharded := kinds & SHARDED:
        raise UserError(
            f"pst: this model is sharded ({min(sharded)}), so that no process has all of a layer; "
            "use DistributedDataParallel"
        )
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


def check_learning(parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Raises UserError when the optimizer lacks some of `parameters`, which an earlier PST had stopped."""
    known = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    if lacking := sum(parameter not in known for parameter in parameters):
        raise UserError(
            f"pst: the optimizer lacks {lacking} parameters that an earlier PST of this model had stopped; they may "
            "learn again now: build the optimizer anew"
        )


def _kind(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
