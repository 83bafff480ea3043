"""Shallow layers from a pretraining on the poisoned images, which learn no more."""

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import GroupCount, PretrainingName, group_count_error, register
from relearn.training.models import Normalised
from relearn.training.transfer import copy_groups


@register
class FrozenPretrained(ERM):
    """Plain training of the `full_rate_groups` deepest layer groups; the others are pretrained and stay frozen.

    The deep groups begin with the weights that every method of the cell's seed begins with. In the frozen ones neither
    parameters nor batch-norm statistics change, and these are used as they are.
    """

    stop_statistics = True

    def __init__(self, *, pretraining: PretrainingName, full_rate_groups: GroupCount = 3, **augmentation):
        super().__init__(**augmentation)
        self.pretraining, self.full_rate_groups = pretraining, full_rate_groups

    def initialise(
        self, model: Normalised, surrogate: dict[str, torch.Tensor], pretrained: dict[str, torch.Tensor]
    ) -> None:
        """Copy the pretrained weights into the shallow groups."""
        frozen = [group for group, rate in self.rates(list(model.layer_groups())).items() if not rate]
        copy_groups(model, frozen, pretrained, f"pretraining '{self.pretraining}'", "run pretrain again")

    def rates(self, groups: list[str]) -> dict[str, float]:
        """0 for the frozen groups, 1 for the others. Raises UserError when none would be frozen."""
        if error := group_count_error(self.full_rate_groups, groups):
            raise UserError(f"frozen_pretrained: full_rate_groups {error}")
        return {group: float(k >= len(groups) - self.full_rate_groups) for k, group in enumerate(groups)}
