"""DUNE: noise and a colour shift per class against an ensemble (arXiv 2605.01718, ICML 2026).

This follows the authors' code; docs/poisons.md says what of it was available.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.crafting.pgd import descend, shifted
from relearn.data import Split, levels
from relearn.registry import (
    CheckpointCount,
    Levels,
    LinfBudget,
    NonNegativeInt,
    PositiveInt,
    Seed,
    SurrogateName,
    register,
)
from relearn.training.models import Normalised

#: forward and backward passes per image, from settings and the number of images; the search for colours, on samples,
#: is not counted
PASSES = {"dune": lambda s, images: s["models"] * s["steps"]}

START = 0.1 * 255  # particles begin within ± this, in 1/255
INERTIA = 0.5  # the part of its velocity that a particle retains in a move
OWN, COMMON = 0.3, 0.3  # its pull towards the best place of its own and of the swarm
MIN_PSNR, MIN_SSIM = 20.0, 0.8  # of an image against its clean original; a smaller value is penalised
PENALTY = 10.0  # of a shortfall relative to these minima, in units of the loss


@register
def dune(
    train: Split,
    craft: CraftContext,
    *,
    surrogate: SurrogateName,
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.5,
    steps: PositiveInt = 30,
    models: CheckpointCount = 5,
    shift: NonNegativeInt | None = None,
    particles: PositiveInt = 10,
    searches: PositiveInt = 10,
    sample: PositiveInt = 128,
    batch: PositiveInt = 512,
    seed: Seed = 0,
) -> Perturbation:
    """Noise, L-inf `epsilon` (1/255), and an unbounded colour shift per class: an ensemble then predicts another class.

    The noise: signed steps of `step_size` (1/255) along the gradient summed over `models` checkpoints of the
    surrogate, towards the class `shift` further (3, or half of the classes where they are fewer than 6). The shift: an
    offset of red, green and blue per class found by a swarm of `particles` in `searches` moves, on `sample` images of
    the class, that lowers the ensemble's loss of that label while PSNR stays at 20 and SSIM at 0.8. Raises UserError
    when the surrogate has fewer checkpoints, or `shift` aims at the true label.
    """
    ensemble = craft.ensemble(models)
    shift = min(3, craft.classes // 2) if shift is None else shift
    targets = shifted(train.labels, craft.classes, shift)

    def attack(images: torch.Tensor, _, rows: torch.Tensor) -> torch.Tensor:
        target = targets[rows].to(craft.device)
        losses = [lambda x, model=model: F.cross_entropy(model(x), target, reduction="sum") for model in ensemble]
        start = torch.zeros_like(images)
        return descend(losses, images, start, epsilon=epsilon, step_size=step_size, steps=steps, guard=craft.guard)

    delta = craft.map_batches(train, batch, attack)
    for label in train.labels.unique().tolist():
        generator = craft.generator("colour", seed, label)
        rows = torch.nonzero(train.labels == label).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)[:sample]]
        cost = partial(
            _cost,
            clean=levels(train.images[rows]).to(craft.device),
            noise=delta[rows].permute(0, 3, 1, 2).to(craft.device),
            target=targets[rows].to(craft.device),
            ensemble=ensemble,
        )
        offset, lowest = _swarm(cost, particles, searches, generator)
        craft.guard.check_number(lowest, "loss of the colour search", f"class {label}")
        delta[train.labels == label] += offset
    return Perturbation(delta, Budget("none", 255.0))


def _swarm(
    cost: Callable[[torch.Tensor], float], particles: int, moves: int, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """The offset (3,) float32 in 1/255 of the lowest `cost` that a particle swarm met, and that cost.

    Kennedy and Eberhart, 1995.
    """
    place, speed = (torch.rand(particles, 3, generator=generator) * 2 - 1) * START, torch.zeros(particles, 3)
    best, lowest = place.clone(), torch.tensor([cost(offset) for offset in place])
    for _ in range(moves):
        own, common = torch.rand(2, particles, 3, generator=generator)
        speed = INERTIA * speed + OWN * own * (best - place) + COMMON * common * (best[lowest.argmin()] - place)
        place = place + speed
        found = torch.tensor([cost(offset) for offset in place])
        best[found < lowest], lowest = place[found < lowest], torch.minimum(found, lowest)
    return best[lowest.argmin()], float(lowest.min())


@torch.no_grad()
def _cost(
    offset: torch.Tensor,
    clean: torch.Tensor,
    noise: torch.Tensor,
    target: torch.Tensor,
    ensemble: list[Normalised],
) -> float:
    """The ensemble's mean loss of the target label, plus a penalty for images that have changed too much."""
    poisoned = (clean + noise + offset.reshape(1, 3, 1, 1).to(clean.device)).clamp(0, 255)
    loss = sum(F.cross_entropy(model(poisoned / 255), target) for model in ensemble) / len(ensemble)
    psnr = 10 * torch.log10(255**2 / (poisoned - clean).square().mean((1, 2, 3)).clamp_min(1e-6))
    shortfall = (1 - psnr / MIN_PSNR).clamp_min(0) + (1 - ssim(poisoned, clean) / MIN_SSIM).clamp_min(0)
    return float(loss + PENALTY * shortfall.mean())


def ssim(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Structural similarity (B,) of images (B, 3, H, W) in 1/255, over flat windows of 7x7.

    Wang et al., 2004, section III.
    """
    window = min(7, *one.shape[2:])

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, window, 1)

    first, second = mean(one), mean(other)
    variances = mean(one.square()) - first.square() + mean(other.square()) - second.square()
    covariance = mean(one * other) - first * second
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # these constants make both quotients finite
    numerator = (2 * first * second + c1) * (2 * covariance + c2)
    return (numerator / ((first.square() + second.square() + c1) * (variances + c2))).mean((1, 2, 3))
