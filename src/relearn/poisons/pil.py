"""PIL: perturbation-induced linearisation, with a linear surrogate (arXiv 2601.19967, ICLR 2026).

This follows the authors' code; docs/poisons.md says what of it was available.
"""

import math

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split, to_float
from relearn.registry import Fraction, Levels, LinfBudget, Positive, PositiveInt, Seed, register


@register
def pil(
    train: Split,
    craft: CraftContext,
    *,
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.8,
    steps: PositiveInt = 30,
    weight: Fraction = 0.9,
    epochs: PositiveInt = 30,
    lr: Positive = 0.003,
    batch: PositiveInt = 512,
    seed: Seed = 0,
) -> Perturbation:
    """Noise, L-inf `epsilon` (1/255), from which a linear surrogate predicts the class, and without which it cannot.

    The surrogate is two linear maps without biases, pixels to classes to classes, trained `epochs` on clean images (SGD
    of rate `lr`, cosine to 0). From a uniform start, `steps` signed steps of `step_size` (1/255) lower
    `weight` * CE(f(noise), label) + (1 - `weight`) * KL(uniform || f(image - noise)). Published is the image minus the
    noise: the sign matters.
    """
    first, second = _surrogate(train, craft, epochs, lr, batch, seed)

    def attack(images: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        generator = craft.generator("start", seed, int(rows[0]))
        noise = ((torch.rand(images.shape, generator=generator) * 2 - 1) * epsilon).to(images.device)
        for step in range(1, steps + 1):
            noise.requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(noise, images, labels, first, second, weight), noise)
            craft.guard.note(gradient, "gradient of the noise", f"step {step} of {steps}, step size {step_size:g}")
            noise = (noise.detach() - step_size * gradient.sign()).clamp(-epsilon, epsilon)
        return -noise

    return Perturbation(craft.map_batches(train, batch, attack), Budget("linf", epsilon))


def objective(
    noise: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    weight: float,
) -> torch.Tensor:
    """The sum over a batch of the objective that the noise minimises.

    `noise` and `images` are (B, 3, H, W) float32 in 1/255, the maps `first` (D, K) and `second` (K, K).
    """
    of_noise = (noise / 255).flatten(1) @ first @ second
    of_image = ((images - noise) / 255).flatten(1) @ first @ second
    uniform = torch.full_like(of_image, 1 / of_image.shape[1])
    divergence = F.kl_div(F.log_softmax(of_image, 1), uniform, reduction="sum")
    return weight * F.cross_entropy(of_noise, labels, reduction="sum") + (1 - weight) * divergence


def _surrogate(
    train: Split, craft: CraftContext, epochs: int, lr: float, batch: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two maps (D, K) and (K, K), trained on clean images in one order drawn once."""
    images, labels = train.images.to(craft.device), train.labels.to(craft.device)
    sizes = (images[0].numel(), craft.classes), (craft.classes, craft.classes)
    maps = []
    for number, (before, after) in enumerate(sizes):
        bound = 1 / math.sqrt(before)
        drawn = torch.rand(before, after, generator=craft.generator("init", seed, number)) * 2 - 1
        maps.append((drawn * bound).to(craft.device).requires_grad_(True))
    optimizer = torch.optim.SGD(maps, lr=lr, momentum=0.9)
    order = torch.randperm(len(train), generator=craft.generator("order", seed)).to(craft.device).split(batch)
    with craft.progress(epochs) as progress:
        for step in range(epochs * len(order)):
            rows = order[step % len(order)]
            rate = lr * 0.5 * (1 + math.cos(math.pi * step / (epochs * len(order))))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(to_float(images[rows]).flatten(1) @ maps[0] @ maps[1], labels[rows])
            place = f"step {step + 1} of {epochs * len(order)}, learning rate {rate:g}"
            craft.guard.note(loss, "loss of the surrogate", place)
            loss.backward()
            optimizer.step()
            progress.advance_to((step + 1) // len(order))
    return maps[0].detach(), maps[1].detach()
