"""Views of images for training stages that compare two of the same image: crops, colours, blur, brightness.

Functions of a batch (B, 3, H, W) float32 in [0, 1], on any device, with a generator of that device; every image gets
its own draws, and results stay in [0, 1] and channels-last.
"""

from dataclasses import dataclass

import torch

from relearn.errors import UserError
from relearn.probing.hiding import LUMA
from relearn.training.augment import mix_channels, random_convolution


@dataclass(frozen=True)
class View:
    """One view: crop and flip, new colours, a random 3x3 filter, brightness and contrast.

    A crop has a side from `smallest` to 1 of the image's. Colours are mixed at random with probability `mix`, by
    `strength`; else the image is gray, which a share `gray` of all images is; else they stay. `convolve` is the width
    of the filter's noise, `jitter` the most by which brightness and contrast change. The colours are what hides a
    perturbation. Raises UserError for shares of more than all images.
    """

    smallest: float = 0.5
    mix: float = 0.6
    strength: float = 0.5
    gray: float = 0.2
    convolve: float = 0.5
    jitter: float = 0.4

    def __post_init__(self) -> None:
        if self.mix + self.gray > 1 + 1e-9:
            raise UserError(
                f"mix {self.mix:g} and gray {self.gray:g} are shares of the same images; give at most 1 for both"
            )

    def of(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The view of each image of a batch."""
        x = random_resized_crop(x, self.smallest, True, generator)
        x = random_channel_mixing(x, self.mix, self.strength, generator, gray=self.gray)
        if self.convolve:
            x = random_convolution(x, self.convolve, generator)
        return brightness_contrast(x, self.jitter, generator)


def random_resized_crop(x: torch.Tensor, smallest: float, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """A crop of each image at a random place, enlarged again to its size; half are mirrored too, if `flip`.

    The share of the sides that is left is uniform in [`smallest`, 1]. Resampling is bilinear, one matrix per axis and
    image: unlike that of F.grid_sample its gradient is deterministic on a GPU.
    """
    count, device = len(x), x.device
    draws = torch.rand(count, 4, generator=generator, device=device)
    share = smallest + (1 - smallest) * draws[:, 0]
    mirrored = (draws[:, 1] < 0.5) & flip
    down = _resampling(x.shape[2], share, draws[:, 3], torch.zeros_like(mirrored))
    across = _resampling(x.shape[3], share, draws[:, 2], mirrored)
    cropped = down[:, None] @ x @ across[:, None].mT
    return cropped.contiguous(memory_format=torch.channels_last).clamp_(0, 1)


def _resampling(side: int, share: torch.Tensor, place: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Matrices (B, `side`, `side`): the part of an axis that begins at `place` of what is left over, enlarged to all.

    `share`, `place` (B,) are in [0, 1]; beyond the border the last pixel goes on.
    """
    pixels = torch.arange(side, device=share.device)
    centres = (pixels + 0.5) * share[:, None] + (place * (1 - share) * side)[:, None] - 0.5
    weights = (1 - (centres.clamp(0, side - 1)[:, :, None] - pixels).abs()).clamp_(min=0)
    return torch.where(mirrored[:, None, None], weights.flip(1), weights)


def random_channel_mixing(
    x: torch.Tensor, probability: float, strength: float, generator: torch.Generator, gray: float = 0.0
) -> torch.Tensor:
    """Mix the channels of an image, with `probability`, by a random 3x3 matrix whose rows sum to 1.

    Its values are normal, of standard deviation `strength`, less the mean of their row, plus 1/3: white stays white,
    and no colour is where it was. A share `gray` of all images, of those that are not mixed, is turned to grayscale.
    """
    count, device = len(x), x.device
    which = torch.rand(count, 1, 1, generator=generator, device=device)
    matrices = mixing_matrices(count, strength, generator, device)
    luma = torch.tensor(LUMA, device=device).expand(3, 3)
    others = torch.where(which < probability + gray, luma, torch.eye(3, device=device))
    return mix_channels(x, torch.where(which < probability, matrices, others)).clamp_(0, 1)


def mixing_matrices(count: int, strength: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Random matrices (`count`, 3, 3) whose rows sum to 1, as `random_channel_mixing` draws them."""
    noise = torch.randn(count, 3, 3, generator=generator, device=device) * strength
    return noise - noise.mean(2, keepdim=True) + 1 / 3


def brightness_contrast(x: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Multiply each image by a factor in 1 ± `strength`, then its distance from its mean by another such factor."""
    factors = 1 + strength * (2 * torch.rand(2, len(x), 1, 1, 1, generator=generator, device=x.device) - 1)
    x = x * factors[0]
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean).mul_(factors[1]).add_(mean)).clamp_(0, 1)
