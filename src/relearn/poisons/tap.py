"""TAP: targeted adversarial poisoning.

Fowl et al., 2021, Adversarial Examples Make Strong Poisons (arXiv 2106.10807).
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import CHUNK, Budget, Perturbation
from relearn.crafting.pgd import descend, shifted
from relearn.crafting.seen import SEEN
from relearn.data import Split, levels
from relearn.registry import Levels, LinfBudget, Pad, PositiveInt, Seed, SurrogateName, register
from relearn.training.augment import shift_and_flip
from relearn.training.models import Normalised

#: forward and backward passes per image, from settings and the number of images
PASSES = dict.fromkeys(("tap", "tap_untargeted"), lambda s, images: s["restarts"] * s["steps"])


@register
def tap(
    train: Split,
    craft: CraftContext,
    *,
    surrogate: SurrogateName,
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.4,
    steps: PositiveInt = 250,
    restarts: PositiveInt = 8,
    shift: PositiveInt = 1,
    crop_pad: Pad = 8,
    flip: bool = True,
    through: Literal["crops", "gray", "views", "coarse", "jpeg"] = "crops",
    batch: PositiveInt = 512,
    seed: Seed = 0,
) -> Perturbation:
    """Sample-wise noise, L-inf `epsilon` (1/255), that makes a surrogate trained on clean images predict another class.

    That is the class `shift` further. Signed steps of `step_size` (1/255) from Gaussian noise of standard deviation
    `epsilon`, clipped to the ball, through a random crop and flip drawn anew in every step, one for the batch. Of
    `restarts` runs over the whole set the one with the lowest mean loss is taken. `through` lets the surrogate see the
    crops in grayscale, by the views of contrastive learning (the idea of AAP; Wang et al., 2024, arXiv 2402.04010), at
    half the resolution, or quantised as by JPEG, one draw per image and step. Raises UserError when `shift` aims at the
    true label.
    """
    return _best(
        train,
        craft,
        craft.trained_surrogate(),
        shifted(train.labels, craft.classes, shift),
        1.0,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        restarts=restarts,
        crop_pad=crop_pad,
        flip=flip,
        through=through,
        batch=batch,
        seed=seed,
    )


@register
def tap_untargeted(
    train: Split,
    craft: CraftContext,
    *,
    surrogate: SurrogateName,
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.4,
    steps: PositiveInt = 250,
    restarts: PositiveInt = 8,
    crop_pad: Pad = 8,
    flip: bool = True,
    through: Literal["crops", "gray", "views", "coarse", "jpeg"] = "crops",
    batch: PositiveInt = 512,
    seed: Seed = 0,
) -> Perturbation:
    """As `tap`, away from the true class: the noise raises the surrogate's loss of the true label.

    The authors call it brittle.
    """
    return _best(
        train,
        craft,
        craft.trained_surrogate(),
        train.labels,
        -1.0,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        restarts=restarts,
        crop_pad=crop_pad,
        flip=flip,
        through=through,
        batch=batch,
        seed=seed,
    )


def _best(
    train: Split,
    craft: CraftContext,
    model: Normalised,
    targets: torch.Tensor,
    sign: float,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    restarts: int,
    crop_pad: int,
    flip: bool,
    through: str,
    batch: int,
    seed: int,
) -> Perturbation:
    """The perturbation of the restart whose `sign` times mean loss of the labels `targets` is lowest.

    That loss is measured without augmentation.
    """
    best = craft.load_checkpoint("best") or {"restart": -1, "loss": float("inf")}
    for restart in range(best["restart"] + 1, restarts):

        def attack(x: torch.Tensor, _, rows: torch.Tensor, restart: int = restart) -> torch.Tensor:
            generator, target = craft.generator("attack", seed, restart, int(rows[0])), targets[rows].to(craft.device)
            seeing = craft.generator("views", seed, restart, int(rows[0]), device=craft.device)
            start = (epsilon * torch.randn(x.shape, generator=generator)).clamp(-epsilon, epsilon)

            def loss(poisoned: torch.Tensor) -> torch.Tensor:
                seen = SEEN[through](shift_and_flip(poisoned, crop_pad, flip, generator), seeing)
                logits = model(seen)
                return sign * F.cross_entropy(logits, target, reduction="sum")

            return descend(
                [loss], x, start.to(craft.device), epsilon=epsilon, step_size=step_size, steps=steps, guard=craft.guard
            )

        delta = craft.map_batches(train, batch, attack, part=f"restart{restart}")
        mean_loss = _loss(model, train.images, delta, targets, craft.device) * sign
        craft.guard.check_number(mean_loss, "mean loss", f"restart {restart + 1} of {restarts}")
        if mean_loss < best["loss"]:
            best = {"restart": restart, "loss": mean_loss, "delta": delta}
        best["restart"] = restart
        if restarts > 1:
            craft.save_checkpoint("best", partial(dict, best), always=True)
            craft.delete_checkpoint(f"restart{restart}")
    return Perturbation(best["delta"].cpu(), Budget("linf", epsilon))


@torch.no_grad()
def _loss(model: Normalised, images: torch.Tensor, delta: torch.Tensor, labels: torch.Tensor, device: str) -> float:
    """The mean loss of poisoned images, from images and perturbation (N, H, W, 3)."""
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.arange(len(images)).split(CHUNK):
        x = (levels(images[rows]) + delta[rows].permute(0, 3, 1, 2)).clamp(0, 255) / 255
        total += F.cross_entropy(model(x.to(device)), labels[rows].to(device), reduction="sum").cpu()
    return float(total / len(images))
