"""Random displacement of every pixel. Li et al., 2025: COIN (arXiv 2311.18403), section 4."""

import torch

from relearn.methods.erm import ERM
from relearn.registry import Positive, register
from relearn.training.resampling import sampled


@register
class Coin(ERM):
    """Plain training on images whose pixels are displaced at random by up to `alpha` pixels in either direction.

    Both displacements of each pixel are uniform in ± `alpha` and shared by the channels. Values between pixels are
    interpolated bilinearly, and the image is continued periodically.
    """

    def __init__(self, *, alpha: Positive = 2.0, **augmentation):
        super().__init__(**augmentation)
        self.alpha = alpha

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The augmentation of plain training, then the displacement."""
        x = super().augment(x, generator)
        count, _, height, width = x.shape
        offsets = torch.rand(2, count, height, width, generator=generator, device=x.device) * 2 - 1
        rows = torch.arange(height, device=x.device)[:, None] + self.alpha * offsets[0]
        columns = torch.arange(width, device=x.device) + self.alpha * offsets[1]
        return sampled(x, rows, columns, wrap=True)
