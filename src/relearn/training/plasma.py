"""Plasma: random maps that vary over the image at every scale, by the diamond-square algorithm; and their use.

Fournier, Fussell and Carpenter, 1982, the midpoint displacement; as augmentation Nicolaou et al., 2022 (arXiv
2204.03776). Batches are float32 (B, C, H, W) in [0, 1]; generators are of the device of the batch.
"""

import torch
import torch.nn.functional as F

FIRST = 3  # pixels along a side of the first square
STEEPEST = 4.0  # factor of contrast where a map is 1


def plasma(
    count: int, height: int, width: int, roughness: torch.Tensor, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Maps (`count`, `height`, `width`) in [0, 1].

    A square of 3x3 uniform values is doubled until it covers the map. The k-th doubling puts between pixels the mean of
    their neighbours and, with the weight `roughness`^k, (`count`,), a uniform value of their own.
    """
    square = torch.rand(count, FIRST, FIRST, generator=generator, device=device)
    weight = roughness.view(-1, 1, 1)
    while square.shape[1] < max(height, width):
        side = 2 * square.shape[1] - 1
        own = torch.rand(count, side, side, generator=generator, device=device)
        square = _doubled(square, own, weight)
        weight = weight * roughness.view(-1, 1, 1)
    return square[:, :height, :width]


def random_plasma(
    x: torch.Tensor, probability: float, roughness: tuple[float, float], intensity: tuple[float, float], generator
) -> torch.Tensor:
    """Brightness changed by one map for each channel, then contrast by another, each with `probability`.

    A map is drawn with a roughness from the range given. Brightness changes by its distance from 1/2, times 2 and times
    an intensity from its range. Contrast multiplies the distance of values from 1/2 by 4 times the map. After both
    values are clipped to [0, 1].
    """
    draws = torch.rand(5, len(x), 1, 1, 1, generator=generator, device=x.device)
    strength = intensity[0] + (intensity[1] - intensity[0]) * draws[0]
    brighter = (x + strength * (2 * _maps(x, roughness, draws[1], generator) - 1)).clamp(0, 1)
    x = torch.where(draws[2] < probability, brighter, x)
    steeper = ((x - 0.5) * (STEEPEST * _maps(x, roughness, draws[3], generator)) + 0.5).clamp(0, 1)
    return torch.where(draws[4] < probability, steeper, x)


def shuffle_channels(x: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """The channels of an image in a random order, with `probability`."""
    count, channels = x.shape[:2]
    order = torch.rand(count, channels, generator=generator, device=x.device).argsort(1)
    chosen = torch.rand(count, 1, generator=generator, device=x.device) < probability
    order = torch.where(chosen, order, torch.arange(channels, device=x.device))
    rows = torch.arange(count, device=x.device)[:, None]
    return x[rows, order].contiguous(memory_format=torch.channels_last)


def _maps(
    x: torch.Tensor, roughness: tuple[float, float], draws: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """A map for each channel of each image, as large as `x`."""
    count, channels, height, width = x.shape
    drawn = (roughness[0] + (roughness[1] - roughness[0]) * draws.flatten()).repeat_interleave(channels)
    return plasma(count * channels, height, width, drawn, generator, x.device).reshape(x.shape)


def _doubled(square: torch.Tensor, own: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Squares (N, S, S) at twice the resolution; pixels between theirs are means and `own` values, by `weight`."""
    pairs = square[:, :, :-1] + square[:, :, 1:]
    middle = torch.lerp((pairs[:, :-1] + pairs[:, 1:]) / 4, own[:, 1::2, 1::2], weight)
    fine = torch.empty_like(own)
    fine[:, ::2, ::2], fine[:, 1::2, 1::2] = square, middle
    fine[:, ::2, 1::2] = torch.lerp(_sides(square, middle), own[:, ::2, 1::2], weight)
    upright = _sides(square.mT, middle.mT).mT
    fine[:, 1::2, ::2] = torch.lerp(upright, own[:, 1::2, ::2], weight)
    return fine


def _sides(square: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """Means of the pixels left and right of a side and of the middles above and below, of which borders lack one."""
    around = F.pad(middle, (0, 0, 1, 0)) + F.pad(middle, (0, 0, 0, 1))
    present = torch.full((square.shape[1], 1), 4.0, device=square.device)
    present[0], present[-1] = 3.0, 3.0
    return (square[:, :, :-1] + square[:, :, 1:] + around) / present
