"""The shallow-layer study: a victim that gets its shallow layers from a model trained on clean images."""

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import PositiveInt, SurrogateName, register


@register
class Transplant(ERM):
    """Plain training on top of the `groups` shallowest layer groups of a surrogate, which stay frozen.

    A diagnostic, not a defence: the surrogate has seen clean images. It asks where the trap is learned; `random_frozen`
    asks the same of shallow groups that have learned nothing. Parameters and batch-norm statistics are copied. As in
    every frozen group, the parameters then stay as they are, while normalisation goes on with the victim's own batches:
    poisoned ones in training, their running statistics in evaluation. Input is normalised as the victim's always is.
    """

    def __init__(self, *, surrogate: SurrogateName, groups: PositiveInt = 1, **augmentation):
        super().__init__(**augmentation)
        self.surrogate, self.groups = surrogate, groups

    def initialise(self, model, surrogate: dict[str, torch.Tensor]) -> None:
        places = {module: name for name, module in model.named_modules()}
        for name, group in list(model.layer_groups().items())[: self.groups]:
            prefix = f"{places[group]}."
            taken = {key.removeprefix(prefix): tensor for key, tensor in surrogate.items() if key.startswith(prefix)}
            found, wanted = (
                {key: tuple(tensor.shape) for key, tensor in weights.items()} for weights in (taken, group.state_dict())
            )
            if found != wanted:
                key = next(key for key in (*wanted, *found) if found.get(key) != wanted.get(key))
                raise UserError(
                    f"transplant: layer group '{name}' of surrogate '{self.surrogate}' does not fit the victim's "
                    f"({key}: {found.get(key, 'none')}, the victim has {wanted.get(key, 'none')}); give a surrogate of the victim's architecture"
                )
            group.load_state_dict(taken)

    def rates(self, groups: list[str]) -> dict[str, float]:
        if self.groups >= len(groups):
            raise UserError(
                f"transplant: groups: {self.groups} leaves nothing to train; the architecture has {len(groups)}: {', '.join(groups)}"
            )
        return {group: float(k >= self.groups) for k, group in enumerate(groups)}
