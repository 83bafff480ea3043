"""RandAugment. Cubuk et al., 2020 (arXiv 1909.13719), section 3."""

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import NonNegative, PositiveInt, register
from relearn.training.operations import one_each, randaugment

HIGHEST = 30  # the magnitude that is full strength


@register
class Randaugment(ERM):
    """Plain training on images after `operations` random ones of 14 operations, at `magnitude` of 30.

    Raises UserError for a larger magnitude, and for more operations than there are.
    """

    def __init__(self, *, operations: PositiveInt = 2, magnitude: NonNegative = 9.0, **augmentation):
        super().__init__(**augmentation)
        if magnitude > HIGHEST:
            raise UserError(f"randaugment: magnitude is {magnitude:g}; give at most {HIGHEST}, the full strength")
        self.operations, self.kinds = operations, randaugment(magnitude / HIGHEST)
        if operations > len(self.kinds):
            raise UserError(f"randaugment: operations is {operations}; give at most {len(self.kinds)}, all there are")

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The augmentation of plain training, then the operations one after the other."""
        x = super().augment(x, generator)
        for _ in range(self.operations):
            x = one_each(x, self.kinds, generator)
        return x
