"""The operations of RandAugment and TrivialAugment as functions of a batch, and which of them an image gets.

Definitions are PIL's. Batches are float32 (B, 3, H, W) in [0, 1]; levels (B,) float, one for each image. Generators are
of the device of the batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from relearn.probing.hiding import gray
from relearn.training.augment import convolved
from relearn.training.resampling import affine

SMOOTH = (1, 1, 1, 1, 5, 1, 1, 1, 1)  # the filter, over 13, that PIL calls SMOOTH
HIGHEST = 255  # level of a pixel
FARTHEST = 150 / 331  # share of a side that RandAugment translates by at most: 150 pixels of 331


def identity(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The images as they are."""
    return x


def shear_x(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Rows move sideways, by `level` pixels for each pixel of distance from the middle."""
    return affine(x, _matrices(x, right=level))


def shear_y(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Columns move up and down, by `level` pixels for each pixel of distance from the middle."""
    return affine(x, _matrices(x, down=level))


def translate_x(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The image moves sideways by `level`, a share of its width."""
    return affine(x, _matrices(x, column=level * x.shape[3]))


def translate_y(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The image moves up or down by `level`, a share of its height."""
    return affine(x, _matrices(x, row=level * x.shape[2]))


def rotate(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The image turns by `level` degrees."""
    angle = level * (math.pi / 180)
    return affine(x, _matrices(x, along=angle.cos(), right=angle.sin(), down=-angle.sin(), across=angle.cos()))


def brightness(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """1 + `level` times as bright."""
    return _enhanced(x, torch.zeros_like(x), level)


def colour(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """1 + `level` times as far from grayscale."""
    return _enhanced(x, gray(x), level)


def contrast(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """1 + `level` times as far from the mean luma of the image."""
    return _enhanced(x, gray(x).mean((1, 2, 3), keepdim=True), level)


def sharpness(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """1 + `level` times as far from the smoothed image; pixels of the border stay."""
    smooth = x.clone(memory_format=torch.preserve_format)
    inside = (..., slice(1, -1), slice(1, -1))
    smooth[inside] = convolved(x, torch.tensor(SMOOTH, device=x.device).expand(len(x), 9) / sum(SMOOTH))[inside]
    return _enhanced(x, smooth, level)


def posterize(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Only the highest bits of the level of a pixel, as many of 8 as the whole part of `level`."""
    step = 2 ** (8 - level.floor()).view(-1, 1, 1, 1)
    return (_levels(x) / step).floor() * step / HIGHEST


def solarize(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The negative of values of `level`, in [0, 1], or more."""
    return torch.where(x >= level.view(-1, 1, 1, 1), 1 - x, x)


def autocontrast(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Every channel stretched to [0, 1]; one of a single value stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-9), x)


def equalize(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Every channel with levels as evenly used as can be, by its histogram; one of almost a single value stays."""
    levels = _levels(x).long().flatten(2)
    values = torch.arange(HIGHEST + 1, device=x.device).expand(*levels.shape[:2], -1).contiguous()
    ordered = levels.sort(2).values
    below = torch.searchsorted(ordered, values)  # how many pixels have a lower level
    highest = ordered[..., -1:]
    step = below.gather(2, highest) // HIGHEST  # the pixels of the highest level do not count
    table = ((step // 2 + below) // step.clamp_min(1)).clamp(0, HIGHEST)
    equal = torch.where(step > 0, table.gather(2, levels), levels)
    return (equal.view(x.shape) / HIGHEST).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Operation:
    """An operation, and the levels that images get: uniform in `low` to `high`, half of them negative if `signed`."""

    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    low: float = 0.0
    high: float = 0.0
    signed: bool = False

    def apply(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The batch after the operation, with a level drawn for each image."""
        draws = torch.rand(2, len(x), generator=generator, device=x.device)
        level = self.low + (self.high - self.low) * draws[0]
        return self.function(x, torch.where(draws[1] < 0.5, -level, level) if self.signed else level)


def one_each(x: torch.Tensor, operations: Sequence[Operation], generator: torch.Generator) -> torch.Tensor:
    """Every image after one of the operations: each gets an equal part of the batch, and which images is drawn.

    So sizes are known without waiting for the device. In a batch of fewer images than operations that of each is drawn.
    """
    if len(x) < len(operations):  # equal parts would leave some operations out, always the same
        which = torch.randint(len(operations), (len(x), 1, 1, 1), generator=generator, device=x.device)
        changed = x
        for place, operation in enumerate(operations):
            changed = torch.where(which == place, operation.apply(x, generator), changed)
        return changed.clamp(0, 1)
    order = torch.rand(len(x), generator=generator, device=x.device).argsort()
    bounds = [round(len(x) * k / len(operations)) for k in range(len(operations) + 1)]
    changed = x.clone(memory_format=torch.preserve_format)
    for operation, begin, end in zip(operations, bounds, bounds[1:], strict=False):
        if begin < end:
            rows = order[begin:end]
            changed.index_copy_(0, rows, operation.apply(x.index_select(0, rows), generator))
    return changed.clamp_(0, 1)


def randaugment(strength: float) -> tuple[Operation, ...]:
    """The 14 operations of RandAugment at `strength` in [0, 1]. Cubuk et al., 2020 (arXiv 1909.13719), section 4."""
    most = {shear_x: 0.3, shear_y: 0.3, translate_x: FARTHEST, translate_y: FARTHEST, rotate: 30.0}
    most |= dict.fromkeys((brightness, colour, contrast, sharpness), 0.9)
    signed = [Operation(function, strength * level, strength * level, True) for function, level in most.items()]
    bits, threshold = 8.0 - round(4 * strength), 1 - strength
    plain = (Operation(identity), Operation(autocontrast), Operation(equalize))
    return (*plain, Operation(posterize, bits, bits), Operation(solarize, threshold, threshold), *signed)


#: TrivialAugment with the operations and ranges of the policy that UEraser uses
TRIVIAL = (
    Operation(autocontrast),
    Operation(equalize),
    Operation(rotate, 0, 30, True),
    Operation(posterize, 1, 5),
    Operation(solarize, 0, 1),
    Operation(contrast, 0, 0.9, True),
    Operation(brightness, 0, 0.9, True),
    Operation(sharpness, 0, 0.9, True),
    Operation(shear_x, 0, 0.3, True),
    Operation(shear_y, 0, 0.3, True),
    Operation(translate_x, 0, 0.5, True),
    Operation(translate_y, 0, 0.5, True),
)


def _matrices(x: torch.Tensor, **values: torch.Tensor) -> torch.Tensor:
    """Matrices (B, 2, 3) of `affine`: the identity, but for the values given."""
    one, zero = x.new_ones(len(x)), x.new_zeros(len(x))
    identical = {"along": one, "right": zero, "column": zero, "down": zero, "across": one, "row": zero}
    return torch.stack(list((identical | values).values()), 1).view(-1, 2, 3)


def _enhanced(x: torch.Tensor, plain: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """1 + `level` times as far from `plain`."""
    return (plain + (1 + level).view(-1, 1, 1, 1) * (x - plain)).clamp(0, 1)


def _levels(x: torch.Tensor) -> torch.Tensor:
    """The levels 0 to 255 of pixels, whole numbers as float32."""
    return (x * HIGHEST).round()
