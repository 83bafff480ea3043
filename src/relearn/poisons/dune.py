"""DUNE: a spatial and a colour branch (authors' code of 2026; docs/poisons.md says what was at hand)."""

import torch
import torch.nn.functional as F

from relearn.augment import levels
from relearn.craft import Craft
from relearn.data import Split
from relearn.pgd import descend, shifted
from relearn.quantise import Budget, Perturbation
from relearn.registry import Count, Index, Positive, SurrogateName, register

#: forward and backward passes per image, from settings and the number of images; the search for colours, on samples, is not counted
PASSES = {"dune": lambda s, images: s["models"] * s["steps"]}

START = 0.1 * 255  # particles begin within ± this, in 1/255
INERTIA, OWN, COMMON = (
    0.5,
    0.3,
    0.3,
)  # what a particle keeps of its velocity, and its pull towards its own and the common best
LEAST_PSNR, LEAST_SSIM = 20.0, 0.8  # of an image against its clean self; a particle that falls short pays
PRICE = 10.0  # of a shortfall as a share of what is asked, in units of the loss


@register
def dune(
    train: Split,
    craft: Craft,
    *,
    surrogate: SurrogateName,
    epsilon: Positive = 8.0,
    step_size: Positive = 0.5,
    steps: Count = 30,
    models: Count = 5,
    shift: Index | None = None,
    particles: Count = 10,
    searches: Count = 10,
    sample: Count = 128,
    batch: Count = 512,
    seed: Index = 0,
) -> Perturbation:
    """Noise, L-inf `epsilon` (1/255), and a colour shift per class without a bound, that make an ensemble see another class.

    The noise: signed steps of `step_size` (1/255) along the gradient summed over `models` checkpoints of the
    surrogate, towards the class `shift` further (3, or half of the classes where they are fewer than 6). The shift: an
    offset of red, green and blue per class found by a swarm of `particles` in `searches` moves, on `sample` images of
    the class, that lowers the ensemble's loss of that label while PSNR stays at 20 and SSIM at 0.8. Raises Fault when the
    surrogate has fewer checkpoints, or `shift` aims at the true label.
    """
    ensemble = craft.ensemble(models)
    shift = min(3, craft.classes // 2) if shift is None else shift
    aims = shifted(train.labels, craft.classes, shift)

    def attack(images: torch.Tensor, _, rows: torch.Tensor) -> torch.Tensor:
        target = aims[rows].to(craft.device)
        losses = [lambda x, model=model: F.cross_entropy(model(x), target, reduction="sum") for model in ensemble]
        return descend(losses, images, torch.zeros_like(images), epsilon=epsilon, step_size=step_size, steps=steps)

    delta = craft.each(train, batch, attack)
    for label in train.labels.unique().tolist():
        generator = craft.generator("colour", seed, label)
        rows = torch.nonzero(train.labels == label).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)[:sample]]
        clean, noise = levels(train.images[rows]).to(craft.device), delta[rows].permute(0, 3, 1, 2).to(craft.device)
        target = aims[rows].to(craft.device)
        colour = _swarm(lambda offset: _cost(offset, clean, noise, target, ensemble), particles, searches, generator)
        delta[train.labels == label] += colour
    return Perturbation(delta, Budget("none", 255.0))


def _swarm(cost, particles: int, moves: int, generator: torch.Generator) -> torch.Tensor:
    """The offset (3,) float32 in 1/255 of the lowest `cost` that a particle swarm met. Kennedy and Eberhart, 1995."""
    place, speed = (torch.rand(particles, 3, generator=generator) * 2 - 1) * START, torch.zeros(particles, 3)
    best, lowest = place.clone(), torch.tensor([cost(offset) for offset in place])
    for _ in range(moves):
        own, common = torch.rand(2, particles, 3, generator=generator)
        speed = INERTIA * speed + OWN * own * (best - place) + COMMON * common * (best[lowest.argmin()] - place)
        place = place + speed
        found = torch.tensor([cost(offset) for offset in place])
        best[found < lowest], lowest = place[found < lowest], torch.minimum(found, lowest)
    return best[lowest.argmin()]


@torch.no_grad()
def _cost(
    offset: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, target: torch.Tensor, ensemble: list
) -> float:
    """The ensemble's mean loss of the label aimed at, and the price of images that have changed too much."""
    shown = (clean + noise + offset.view(1, 3, 1, 1).to(clean.device)).clamp(0, 255)
    loss = sum(F.cross_entropy(model(shown / 255), target) for model in ensemble) / len(ensemble)
    psnr = 10 * torch.log10(255**2 / (shown - clean).square().mean((1, 2, 3)).clamp_min(1e-6))
    shortfall = (1 - psnr / LEAST_PSNR).clamp_min(0) + (1 - ssim(shown, clean) / LEAST_SSIM).clamp_min(0)
    return float(loss + PRICE * shortfall.mean())


def ssim(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Structural similarity (B,) of images (B, 3, H, W) in 1/255, over flat windows of 7x7. Wang et al., 2004, section III."""
    window = min(7, *one.shape[2:])

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, window, 1)

    first, second = mean(one), mean(other)
    spread = mean(one.square()) - first.square() + mean(other.square()) - second.square()
    shared = mean(one * other) - first * second
    steady, rough = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # keep both quotients finite
    alike = (2 * first * second + steady) * (2 * shared + rough)
    return (alike / ((first.square() + second.square() + steady) * (spread + rough))).mean((1, 2, 3))
