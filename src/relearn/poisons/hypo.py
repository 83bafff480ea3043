"""HYPO: hypocritical perturbations.

Tao et al., 2021, Better Safe Than Sorry (arXiv 2102.04716), P2 in section 5.
"""

from typing import Literal

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation, check_reachable
from relearn.crafting.pgd import descend
from relearn.data import Split
from relearn.registry import Levels, Positive, PositiveInt, SurrogateName, register

#: forward and backward passes per image, from settings and the number of images
PASSES = {"hypo": lambda s, images: s["steps"]}


@register
def hypo(
    train: Split,
    craft: CraftContext,
    *,
    surrogate: SurrogateName,
    norm: Literal["linf", "l2"] = "linf",
    epsilon: Positive = 8.0,
    step_size: Levels = 0.8,
    steps: PositiveInt = 100,
    batch: PositiveInt = 256,
) -> Perturbation:
    """Sample-wise noise of `norm` `epsilon` (1/255) that lowers the loss of a surrogate trained on clean images.

    No random start, no augmentation. The authors bound the L2 norm by 0.5 (127.5 here, steps of a fifth); comparisons
    in the literature use this L-inf ball, with `step_size` (1/255) a tenth of it. Raises UserError for an `epsilon`
    that no change of an image can reach.
    """
    check_reachable("hypo", norm, epsilon, train.images)
    model = craft.trained_surrogate()

    def attack(images: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        def loss(x: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(model(x), labels, reduction="sum")

        start = torch.zeros_like(images)
        return descend(
            [loss], images, start, epsilon=epsilon, step_size=step_size, steps=steps, guard=craft.guard, norm=norm
        )

    return Perturbation(craft.map_batches(train, batch, attack), Budget(norm, epsilon))
