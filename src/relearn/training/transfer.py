"""Layer groups of one network in the place of another's."""

from collections.abc import Mapping, Sequence

import torch

from relearn.errors import UserError
from relearn.training.models import Normalised


def copy_groups(
    model: Normalised, groups: Sequence[str], weights: Mapping[str, torch.Tensor], source: str, remedy: str
) -> None:
    """Copy parameters and batch-norm statistics of some layer groups from `weights` into `model`.

    `weights` are those of another model by name, and `source` says whose. Raises UserError, with the `remedy` and
    nothing changed, when a group of theirs differs from the model's in the name or shape of a tensor.
    """
    places = {module: name for name, module in model.named_modules()}
    known, taken = model.layer_groups(), {}
    for name in groups:
        prefix = f"{places[known[name]]}."
        taken[name] = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
        own = known[name].state_dict()
        found, needed = ({key: tuple(t.shape) for key, t in tensors.items()} for tensors in (taken[name], own))
        if found != needed:
            key = next(key for key in (*needed, *found) if found.get(key) != needed.get(key))
            raise UserError(
                f"layer group '{name}' of {source} does not fit the victim's ({key}: {found.get(key, 'none')}, "
                f"the victim has {needed.get(key, 'none')}); {remedy}"
            )
    for name in groups:
        known[name].load_state_dict(taken[name])
