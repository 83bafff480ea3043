"""The zero poison."""

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.registry import register


@register
def clean(train: Split, craft: CraftContext) -> Perturbation:
    """No perturbation: one row of zeros for every image; declared L-inf budget 0."""
    rows = torch.zeros(len(train), dtype=torch.int64)
    return Perturbation(torch.zeros(1, *train.images.shape[1:]), Budget("linf", 0.0), rows)
