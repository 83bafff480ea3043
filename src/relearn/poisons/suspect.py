"""The user's own training images, which may carry a perturbation already."""

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.registry import register


@register
def suspect(train: Split, craft: CraftContext) -> Perturbation:
    """No perturbation is added: the images may carry one already; one row of zeros, declared L-inf budget 0.

    The same bytes as `clean`, but without its promise: no table or figure compares with them as clean data.
    """
    rows = torch.zeros(len(train), dtype=torch.int64)
    return Perturbation(torch.zeros(1, *train.images.shape[1:]), Budget("linf", 0.0), rows)
