"""Ways of taking fine detail from images at random: coarse quantisation, or half the resolution.

Batches are float32 (B, 3, H, W) in [0, 1], channels-last; generators are of the device of the batch.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

SIDE = 8  # pixels of a block of JPEG
COARSEST = 6.0  # times the table below: quality 8 of JPEG
FINEST = 1.5  # quality 33
#: the quantisation table of luminance, from annex K of the JPEG standard (ITU-T T.81)
TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def degrade(x: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """A `share` of the batch degraded, half of it quantised and half halved; which images is drawn.

    Where that is less than an image for either way, what is done to each image is drawn.
    """
    if share * len(x) < len(WAYS):  # rounded parts would leave a way out, always the same
        draw, degraded = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device), x
        for k, way in enumerate(WAYS):
            low, high = share * k / len(WAYS), share * (k + 1) / len(WAYS)
            degraded = torch.where((draw >= low) & (draw < high), way(x, generator), degraded)
        return degraded
    order = torch.rand(len(x), generator=generator, device=x.device).argsort()
    bounds = [round(share * len(x) * k / len(WAYS)) for k in range(len(WAYS) + 1)]
    degraded = x.clone(memory_format=torch.preserve_format)
    for way, begin, end in zip(WAYS, bounds, bounds[1:], strict=False):
        rows = order[begin:end]
        degraded.index_copy_(0, rows, way(x.index_select(0, rows), generator))
    return degraded


def quantise(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The cosine coefficients of 8x8 blocks rounded to multiples of JPEG's table, times a factor drawn per image.

    That is `FINEST` to `COARSEST`. All three channels take the table of luminance, without JPEG's change of colours.
    Images whose sides are no multiples of 8 are continued by reflection.
    """
    count, channels, height, width = x.shape
    down, right = -height % SIDE, -width % SIDE
    padded = F.pad(x, (0, right, 0, down), mode="reflect") if down or right else x
    rows, columns = padded.shape[2] // SIDE, padded.shape[3] // SIDE
    blocks = (255 * padded - 128).reshape(count, channels, rows, SIDE, columns, SIDE).transpose(3, 4)
    matrix, table = cosines(SIDE, x.device), torch.tensor(TABLE, device=x.device, dtype=x.dtype)
    factor = FINEST + (COARSEST - FINEST) * torch.rand(count, 1, 1, 1, 1, 1, generator=generator, device=x.device)
    coefficients = matrix @ blocks @ matrix.T
    rounded = (coefficients / (factor * table)).round() * (factor * table)
    restored = (matrix.T @ rounded @ matrix).transpose(3, 4).reshape(padded.shape)
    return ((restored[:, :, :height, :width] + 128) / 255).clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def halve(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The means of 2x2 squares, enlarged again bilinearly; the same for every image."""
    coarse = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    return F.interpolate(coarse, size=x.shape[2:], mode="bilinear", align_corners=False)


WAYS: tuple[Callable[[torch.Tensor, torch.Generator], torch.Tensor], ...] = (quantise, halve)


def cosines(side: int, device: torch.device) -> torch.Tensor:
    """The matrix (`side`, `side`) of the orthonormal cosine transform (DCT-II)."""
    frequency, place = torch.arange(side, device=device)[:, None], torch.arange(side, device=device)
    waves = (math.pi * (2 * place + 1) * frequency / (2 * side)).cos() * math.sqrt(2 / side)
    return torch.where(frequency == 0, math.sqrt(1 / side), waves)
