"""CUDA: class-wise convolutions.

Sadasivan et al., 2023, CUDA: Convolution-based Unlearnable Datasets (arXiv 2303.04278).
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
    """Every image convolved with its class's kernel and divided by its own maximum, so that its brightest value is 255.

    A kernel is `kernel` x `kernel`, shared by the colours: entries uniform in 0..`blur`, one of them, drawn, set to 1;
    zero padding. No norm bounds the change. The sum is truncated to whole levels, as published. An all-black image
    stays black. Raises UserError for a kernel larger than an image.
    """
    height, width = train.images.shape[1:3]
    if kernel > min(height, width):
        raise UserError(f"cuda: a kernel of {kernel} does not fit images of {height}x{width}; choose a smaller kernel")
    generator = craft.generator("kernels", seed)
    kernels = blur * torch.rand(craft.classes, kernel * kernel, generator=generator)
    kernels[torch.arange(craft.classes), torch.randint(kernel * kernel, (craft.classes,), generator=generator)] = 1
    delta = torch.empty(train.images.shape)
    for part in torch.arange(len(train)).split(CHUNK):
        images = levels(train.images[part])
        filtered = convolve(images, kernels[train.labels[part]].reshape(-1, kernel, kernel))
        filtered *= 255 / filtered.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
        delta[part] = (filtered - images).permute(0, 2, 3, 1)
    return Perturbation(delta, Budget("none", 255.0), rounding="truncate")


def convolve(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W), each correlated with its own kernel (B, k, k) in every channel.

    The images are padded with zeros, so that their size stays.
    One product and one sum at a time give the same bytes with any processor instructions, which a convolution does not.
    """
    height, width = images.shape[2:]
    size = kernels.shape[-1]
    low, high = (size - 1) // 2, size // 2
    padded = F.pad(images, (low, high, low, high))
    total = torch.zeros_like(images)
    for row in range(size):
        for column in range(size):
            weight = kernels[:, row, column].reshape(-1, 1, 1, 1)
            total += padded[:, :, row : row + height, column : column + width] * weight
    return total
