"""HYPO: hypocritical perturbations. Tao et al., 2021, Better Safe Than Sorry (arXiv 2102.04716), P2 in section 5."""

import torch
import torch.nn.functional as F

from relearn.craft import Craft
from relearn.data import Split
from relearn.pgd import signed_steps
from relearn.quantise import Budget, Perturbation
from relearn.registry import Count, Positive, SurrogateName, register

#: forward and backward passes per image, from settings and the number of images
PASSES = {"hypo": lambda s, images: s["steps"]}


@register
def hypo(
    train: Split,
    craft: Craft,
    *,
    surrogate: SurrogateName,
    epsilon: Positive = 8.0,
    step_size: Positive = 0.8,
    steps: Count = 100,
    batch: Count = 256,
) -> Perturbation:
    """Sample-wise noise, L-inf `epsilon` (1/255), that lowers the loss of a surrogate trained on clean images.

    No random start, no augmentation. The authors bound the L2 norm by 0.5; comparisons in the literature use this
    L-inf ball, with `step_size` (1/255) a tenth of it.
    """
    model = craft.trained_surrogate()
    parts = []
    with craft.progress(len(train)) as progress:
        for rows in torch.arange(len(train)).split(batch):
            images = train.images[rows].to(craft.device).permute(0, 3, 1, 2).float()
            labels = train.labels[rows].to(craft.device)
            delta = signed_steps(
                lambda x, y=labels: F.cross_entropy(model(x), y, reduction="sum"),
                images,
                torch.zeros_like(images),
                epsilon=epsilon,
                step_size=step_size,
                steps=steps,
            )
            parts.append(delta.permute(0, 2, 3, 1).cpu())
            progress.to(int(rows[-1]) + 1)
    return Perturbation(torch.cat(parts).contiguous(), Budget("linf", epsilon))
