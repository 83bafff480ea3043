"""Random displacement of every pixel. Li et al., 2025: COIN (arXiv 2311.18403), section 4."""

import torch

from relearn.methods.erm import ERM
from relearn.registry import Positive, register


@register
class Coin(ERM):
    """Plain training on images whose every pixel shows what lies up to `alpha` pixels off, in either direction.

    Both displacements of each pixel are uniform in ± `alpha` and shared by the channels. Values between pixels are
    interpolated bilinearly, and the image goes on at the opposite border.
    """

    def __init__(self, *, alpha: Positive = 2.0, **augmentation):
        super().__init__(**augmentation)
        self.alpha = alpha

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The augmentation of plain training, then the displacement."""
        x = super().augment(x, generator)
        count, _, height, width = x.shape
        offsets = torch.rand(2, count, height, width, generator=generator, device=x.device) * 2 - 1
        return displaced(x, self.alpha * offsets[0], self.alpha * offsets[1])


def displaced(x: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Every pixel of a batch (B, C, H, W) shows what lies `down` and `right` of it, both (B, H, W) in pixels."""
    count, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    first = torch.arange(count, device=x.device).view(-1, 1, 1) * (height * width)
    row = torch.arange(height, device=x.device)[:, None] + down
    column = torch.arange(width, device=x.device) + right
    above, before = row.floor(), column.floor()
    along = ((row - above, above.long()), (column - before, before.long()))
    shown = torch.zeros_like(pixels)
    for lower in (0, 1):
        for later in (0, 1):
            weights = [part if far else 1 - part for (part, _), far in zip(along, (lower, later), strict=True)]
            place = (along[0][1] + lower) % height * width + (along[1][1] + later) % width
            weight = (weights[0] * weights[1]).reshape(-1, 1)
            shown.addcmul_(pixels.index_select(0, (first + place).reshape(-1)), weight)
    return shown.view(count, height, width, channels).permute(0, 3, 1, 2)
