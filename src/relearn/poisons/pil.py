"""PIL: perturbation-induced linearisation, with a linear surrogate (authors' code of 2026; docs/poisons.md says what was at hand)."""

import math

import torch
import torch.nn.functional as F

from relearn.augment import to_float
from relearn.craft import Craft
from relearn.data import Split
from relearn.quantise import Budget, Perturbation
from relearn.registry import Count, Fraction, Index, Positive, register


@register
def pil(
    train: Split,
    craft: Craft,
    *,
    epsilon: Positive = 8.0,
    step_size: Positive = 0.8,
    steps: Count = 30,
    weight: Fraction = 0.9,
    epochs: Count = 30,
    lr: Positive = 0.003,
    batch: Count = 512,
    seed: Index = 0,
) -> Perturbation:
    """Noise, L-inf `epsilon` (1/255), that alone tells the class to a linear surrogate, which without it is left clueless.

    The surrogate is two linear maps without biases, pixels to classes to classes, trained `epochs` on clean images (SGD of
    rate `lr`, cosine to 0). From a uniform start, `steps` signed steps of `step_size` lower `weight` * CE(f(noise), label) +
    (1 - `weight`) * KL(uniform || f(image - noise)). Published is the image minus the noise: the sign matters.
    """
    first, second = _surrogate(train, craft, epochs, lr, batch, seed)

    def attack(images: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        generator = craft.generator("start", seed, int(rows[0]))
        noise = ((torch.rand(images.shape, generator=generator) * 2 - 1) * epsilon).to(images.device)
        for _ in range(steps):
            noise.requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(noise, images, labels, first, second, weight), noise)
            noise = (noise.detach() - step_size * gradient.sign()).clamp(-epsilon, epsilon)
        return -noise

    return Perturbation(craft.each(train, batch, attack), Budget("linf", epsilon))


def objective(
    noise: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    weight: float,
) -> torch.Tensor:
    """The sum over a batch of what the noise makes small; noise and images (B, 3, H, W) float32 in 1/255, the maps (D, K) and (K, K)."""
    told = (noise / 255).flatten(1) @ first @ second
    left = ((images - noise) / 255).flatten(1) @ first @ second
    uniform = torch.full_like(left, 1 / left.shape[1])
    return weight * F.cross_entropy(told, labels, reduction="sum") + (1 - weight) * F.kl_div(
        F.log_softmax(left, 1), uniform, reduction="sum"
    )


def _surrogate(
    train: Split, craft: Craft, epochs: int, lr: float, batch: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two maps (D, K) and (K, K), trained on clean images in one order drawn once."""
    images, labels = train.images.to(craft.device), train.labels.to(craft.device)
    sizes = (images[0].numel(), craft.classes), (craft.classes, craft.classes)
    maps = []
    for number, (before, after) in enumerate(sizes):
        bound = 1 / math.sqrt(before)
        drawn = torch.rand(before, after, generator=craft.generator("init", seed, number)) * 2 - 1
        maps.append((drawn * bound).to(craft.device).requires_grad_(True))
    optimiser = torch.optim.SGD(maps, lr=lr, momentum=0.9)
    order = torch.randperm(len(train), generator=craft.generator("order", seed)).to(craft.device).split(batch)
    with craft.progress(epochs) as progress:
        for step in range(epochs * len(order)):
            rows = order[step % len(order)]
            optimiser.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / (epochs * len(order))))
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(to_float(images[rows]).flatten(1) @ maps[0] @ maps[1], labels[rows]).backward()
            optimiser.step()
            progress.to((step + 1) // len(order))
    return maps[0].detach(), maps[1].detach()
