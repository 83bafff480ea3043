"""CUDA and its one-dimensional kin: class-wise convolutions.

Sadasivan et al., 2023, CUDA: Convolution-based Unlearnable Datasets (arXiv 2303.04278); VUDA and HUDA: Li et al., 2025,
Detecting and Corrupting Convolution-based Unlearnable Examples (arXiv 2311.18403).
"""

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import CHUNK, Budget, Perturbation
from relearn.data import Split, levels
from relearn.errors import UserError
from relearn.registry import Fraction, Seed, Side, register


@register
def cuda(train: Split, craft: CraftContext, *, blur: Fraction = 0.3, kernel: Side = 3, seed: Seed = 0) -> Perturbation:
    """Every image convolved with its class's kernel and divided by its own maximum: its brightest value is 255, or 254.

    A kernel is `kernel` x `kernel`, shared by the colours: entries uniform in 0..`blur`, one of them, drawn, set to 1;
    zero padding. No norm bounds the change. The sum is truncated to whole levels, as published. An all-black image
    stays black. Raises UserError for a kernel larger than an image.
    """
    return _filtered("cuda", train, craft, (kernel, kernel), blur, seed)


@register
def vuda(train: Split, craft: CraftContext, *, blur: Fraction = 0.3, kernel: Side = 3, seed: Seed = 0) -> Perturbation:
    """As `cuda`, with kernels of one column: pixels mix with those above and below.

    The paper was not at hand in full: that kernels are vertical is the authors', their size and `blur` are ours.
    """
    return _filtered("vuda", train, craft, (kernel, 1), blur, seed)


@register
def huda(train: Split, craft: CraftContext, *, blur: Fraction = 0.3, kernel: Side = 3, seed: Seed = 0) -> Perturbation:
    """As `vuda`, with kernels of one row: pixels mix with those to the left and right."""
    return _filtered("huda", train, craft, (1, kernel), blur, seed)


def _filtered(
    name: str, train: Split, craft: CraftContext, shape: tuple[int, int], blur: float, seed: int
) -> Perturbation:
    """What kernels of `shape`, one per class, make of the images."""
    height, width = train.images.shape[1:3]
    if shape[0] > height or shape[1] > width:
        raise UserError(
            f"{name}: a kernel of {max(shape)} does not fit images of {height}x{width}; choose a smaller kernel"
        )
    generator, size = craft.generator("kernels", seed), shape[0] * shape[1]
    kernels = blur * torch.rand(craft.classes, size, generator=generator)
    kernels[torch.arange(craft.classes), torch.randint(size, (craft.classes,), generator=generator)] = 1
    delta = torch.empty(train.images.shape)
    for part in torch.arange(len(train)).split(CHUNK):
        images = levels(train.images[part])
        filtered = convolve(images, kernels[train.labels[part]].reshape(-1, *shape))
        filtered *= 255 / filtered.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
        delta[part] = (filtered - images).permute(0, 2, 3, 1)
    return Perturbation(delta, Budget("none", 255.0), rounding="truncate")


def convolve(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W), each correlated with its own kernel (B, h, w) in every channel.

    The images are padded with zeros, so that their size stays.
    One product and one sum at a time give the same bytes with any processor instructions, which a convolution does not.
    """
    height, width = images.shape[2:]
    rows, columns = kernels.shape[1:]
    padded = F.pad(images, ((columns - 1) // 2, columns // 2, (rows - 1) // 2, rows // 2))
    total = torch.zeros_like(images)
    for row in range(rows):
        for column in range(columns):
            weight = kernels[:, row, column].reshape(-1, 1, 1, 1)
            total += padded[:, :, row : row + height, column : column + width] * weight
    return total
