"""SEP: self-ensemble protection.

Chen et al., 2023, Self-Ensemble Protection (arXiv 2211.12005), section 3.
"""

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.crafting.pgd import descend, shifted
from relearn.data import Split
from relearn.registry import CheckpointCount, Levels, LinfBudget, NonNegativeInt, PositiveInt, SurrogateName, register

#: forward and backward passes per image, from settings and the number of images
PASSES = {"sep": lambda s, images: s["models"] * s["steps"]}


@register
def sep(
    train: Split,
    craft: CraftContext,
    *,
    surrogate: SurrogateName,
    epsilon: LinfBudget = 2.0,
    step_size: Levels = 1.0,
    steps: PositiveInt = 30,
    models: CheckpointCount = 30,
    shift: NonNegativeInt | None = None,
    batch: PositiveInt = 512,
) -> Perturbation:
    """Sample-wise noise, L-inf `epsilon` (1/255), that makes all checkpoints of one training predict another class.

    That is the class `shift` further. Signed steps of `step_size` (1/255) along the gradient summed over `models` of
    the checkpoints of the surrogate (its setting `checkpoints`); `shift` is half of the classes unless given, 5 of 10
    with the authors. No random start, no augmentation. Raises UserError when the surrogate has fewer checkpoints, or
    `shift` aims at the true label.
    """
    ensemble = craft.ensemble(models)
    targets = shifted(train.labels, craft.classes, craft.classes // 2 if shift is None else shift)

    def attack(images: torch.Tensor, _, rows: torch.Tensor) -> torch.Tensor:
        target = targets[rows].to(craft.device)
        losses = [lambda x, model=model: F.cross_entropy(model(x), target, reduction="sum") for model in ensemble]
        start = torch.zeros_like(images)
        return descend(losses, images, start, epsilon=epsilon, step_size=step_size, steps=steps, guard=craft.guard)

    return Perturbation(craft.map_batches(train, batch, attack), Budget("linf", epsilon))
