"""Controls: noise that was optimised for nothing, a draw per image or per class. Huang et al., 2021 (arXiv 2101.04898), section 4.1."""

import torch

from relearn.craft import Craft
from relearn.data import Split
from relearn.quantise import Budget, Perturbation
from relearn.registry import Index, Positive, register


@register
def random(train: Split, craft: Craft, *, epsilon: Positive = 8.0, seed: Index = 0) -> Perturbation:
    """Noise of its own for every image, uniform in ±`epsilon` (1/255)."""
    return Perturbation(_uniform(train.images.shape, epsilon, craft.generator("noise", seed)), Budget("linf", epsilon))


@register
def classwise_random(train: Split, craft: Craft, *, epsilon: Positive = 8.0, seed: Index = 0) -> Perturbation:
    """One pattern per class, uniform in ±`epsilon` (1/255)."""
    shape = (craft.classes, *train.images.shape[1:])
    return Perturbation(
        _uniform(shape, epsilon, craft.generator("noise", seed)), Budget("linf", epsilon), rows=train.labels
    )


def _uniform(shape, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1).mul_(epsilon)
