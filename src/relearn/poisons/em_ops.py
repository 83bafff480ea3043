"""EM and OPS together, as in CIFAR-10-S.

Wu et al., 2023, One-Pixel Shortcut (arXiv 2205.12141), section 4.
"""

from dataclasses import replace

from relearn.crafting import perturbation
from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.poisons.em import PASSES as EM_PASSES
from relearn.poisons.em import em
from relearn.poisons.ops import ops
from relearn.registry import ArchitectureName, Fraction, Levels, LinfBudget, Pad, PositiveInt, Seed, register

#: forward and backward passes per image, from settings and the number of images
PASSES = {"em_ops": EM_PASSES["em"]}


@register
def em_ops(
    train: Split,
    craft: CraftContext,
    *,
    arch: ArchitectureName = "resnet18",
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.8,
    steps: PositiveInt = 20,
    rounds: PositiveInt = 10,
    batches: PositiveInt = 10,
    batch: PositiveInt = 512,
    stop_error: Fraction | None = 0.01,
    crop_pad: Pad = 0,
    flip: bool = False,
    pixels: PositiveInt = 1,
    seed: Seed = 0,
) -> Perturbation:
    """Images poisoned by `em`, in which `ops` then sets `pixels` pixels: one shortcut survives what removes the other.

    L-inf `epsilon` (1/255) everywhere but in these pixels. The settings are those of the two.
    """
    noise = em(
        train,
        craft,
        arch=arch,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        rounds=rounds,
        batches=batches,
        batch=batch,
        stop_error=stop_error,
        crop_pad=crop_pad,
        flip=flip,
        seed=seed,
    )
    poisoned, _ = perturbation.apply(train.images, noise)
    shortcut = ops(train.with_images(poisoned), craft, pixels=pixels).delta
    changed = (shortcut != 0).any(3, keepdim=True)
    # a set pixel is set from the rounded image, so that it gets its colour exactly
    delta = noise.delta.where(~changed, shortcut + poisoned.float() - train.images.float())
    return replace(noise, delta=delta, budget=Budget("linf", epsilon, free=pixels))
