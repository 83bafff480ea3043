"""Cutout. DeVries and Taylor, 2017 (arXiv 1708.04552), section 3."""

import torch

from relearn.methods.erm import ERM
from relearn.registry import Side, register


@register
class Cutout(ERM):
    """Plain training with a square of `size` pixels of every training image hidden.

    Its centre is drawn from all pixels of the image, so that part of the square may lie outside. It is filled with the
    mean colour of the batch; the paper fills with that of the dataset.
    """

    def __init__(self, *, size: Side = 16, **augmentation):
        super().__init__(**augmentation)
        self.size = size

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The augmentation of plain training, then the squares."""
        x = super().augment(x, generator)
        count, _, height, width = x.shape
        rows = self._hidden(count, height, generator, x.device)[:, None, :, None]
        columns = self._hidden(count, width, generator, x.device)[:, None, None, :]
        return torch.where(rows & columns, x.mean((0, 2, 3), keepdim=True), x)

    def _hidden(self, count: int, side: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """Which pixels along an axis the square of each image covers, (B, `side`) bool."""
        first = torch.randint(0, side, (count, 1), generator=generator, device=device) - self.size // 2
        pixels = torch.arange(side, device=device)
        return (pixels >= first) & (pixels < first + self.size)
