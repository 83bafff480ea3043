"""Controls: noise that was optimised for nothing, a draw per image or per class.

Huang et al., 2021 (arXiv 2101.04898), section 4.1.
"""

from collections.abc import Sequence

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.registry import LinfBudget, Seed, register


@register
def random(train: Split, craft: CraftContext, *, epsilon: LinfBudget = 8.0, seed: Seed = 0) -> Perturbation:
    """Noise of its own for every image, uniform in ±`epsilon` (1/255)."""
    return Perturbation(_uniform(train.images.shape, epsilon, craft.generator("noise", seed)), Budget("linf", epsilon))


@register
def classwise_random(train: Split, craft: CraftContext, *, epsilon: LinfBudget = 8.0, seed: Seed = 0) -> Perturbation:
    """One pattern per class, uniform in ±`epsilon` (1/255)."""
    delta = _uniform((craft.classes, *train.images.shape[1:]), epsilon, craft.generator("noise", seed))
    return Perturbation(delta, Budget("linf", epsilon), rows=train.labels)


def _uniform(shape: Sequence[int], epsilon: float, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1).mul_(epsilon)
