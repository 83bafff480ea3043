"""The shallow-layer study: a victim that gets its shallow layers from a model trained on clean images."""

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import GroupCount, SurrogateName, register
from relearn.training.models import Normalised
from relearn.training.transfer import copy_groups


@register
class Transplant(ERM):
    """Plain training on top of the `groups` shallowest layer groups of a surrogate, which stay frozen.

    A diagnostic, not a defence: the surrogate was trained on clean images. It shows where the trap is learned;
    `random_frozen` shows the same with shallow groups that have learned nothing. Parameters and batch-norm statistics
    are copied. As in every frozen group, the parameters then stay as they are, while normalisation uses the victim's
    own batches: poisoned ones in training, their running statistics in evaluation. Input is normalised as the victim's
    always is. Raises UserError when the surrogate's groups do not fit the victim's, or nothing is left to train.
    """

    def __init__(self, *, surrogate: SurrogateName, groups: GroupCount = 1, **augmentation):
        super().__init__(**augmentation)
        self.surrogate, self.groups = surrogate, groups

    def initialise(
        self, model: Normalised, surrogate: dict[str, torch.Tensor], pretrained: dict[str, torch.Tensor]
    ) -> None:
        """Copy the surrogate's weights into the shallow groups."""
        shallow = list(model.layer_groups())[: self.groups]
        remedy = "give a surrogate of the victim's architecture"
        copy_groups(model, shallow, surrogate, f"surrogate '{self.surrogate}'", remedy)

    def rates(self, groups: list[str]) -> dict[str, float]:
        """0 for the transplanted groups, 1 for the others."""
        if self.groups >= len(groups):
            raise UserError(
                f"transplant: groups: {self.groups} leaves nothing to train; the architecture has {len(groups)}: "
                f"{', '.join(groups)}; give a smaller number"
            )
        return {group: float(k >= self.groups) for k, group in enumerate(groups)}
