"""Plain training on images that a filter has changed once, to take a perturbation's fine detail away.

Liu et al., 2023 (arXiv 2301.13838), "Image Shortcut Squeezing", compares them.
"""

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import Bits, Positive, Quality, register
from relearn.training import filters


class Filtered(ERM):
    """Plain training on images filtered once before it; with `test`, test images are filtered as well.

    A filter overrides `change`. The probe set is drawn from the filtered images. Raises UserError for a filter that
    changes none of them: a record would call plain training a defence.
    """

    def __init__(self, *, test: bool = False, **augmentation):
        super().__init__(**augmentation)
        self.test = test

    def change(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, H, W, 3) uint8, filtered."""
        return images

    def prepare(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The training images, filtered."""
        images = super().prepare(images, labels)
        filtered = self.change(images)
        if torch.equal(filtered, images):
            raise UserError(f"{type(self).__name__} changes no training image with these settings; give stronger ones")
        return filtered

    def eval_transform(self, x: torch.Tensor) -> torch.Tensor:
        """Filtered too with `test`, then as in plain training."""
        return super().eval_transform(filters.filtered_floats(x, self.change) if self.test else x)

    def probe_transform(self, x: torch.Tensor) -> torch.Tensor:
        """As in plain training: training images are filtered already."""
        return super().eval_transform(x)


@register
class Jpeg(Filtered):
    """Plain training on images compressed to a JPEG of `quality`, 10 in the paper, by Pillow, with 4:2:0 chroma."""

    def __init__(self, *, quality: Quality = 10, **filtering):
        super().__init__(**filtering)
        self.quality = quality

    def change(self, images: torch.Tensor) -> torch.Tensor:
        """The JPEG round trip."""
        return filters.jpeg(images, self.quality)


@register
class Bdr(Filtered):
    """Plain training on images reduced to the `bits` highest bits of every value: bit-depth reduction, 2 in the paper.

    The other bits become 0, so images also turn darker.
    """

    def __init__(self, *, bits: Bits = 2, **filtering):
        super().__init__(**filtering)
        self.bits = bits

    def change(self, images: torch.Tensor) -> torch.Tensor:
        """Without the lower bits."""
        return filters.reduce_bits(images, self.bits)


@register
class Median(Filtered):
    """Plain training on images in which every value is the median of the 3x3 around it; single pixels disappear."""

    def __init__(self, **filtering):
        super().__init__(**filtering)

    def change(self, images: torch.Tensor) -> torch.Tensor:
        """The medians."""
        return filters.median(images)


@register
class GaussianBlur(Filtered):
    """Plain training on images blurred by a Gaussian of `sigma` pixels; the default is that of a 3x3 window."""

    def __init__(self, *, sigma: Positive = 0.8, **filtering):
        super().__init__(**filtering)
        self.sigma = sigma

    def change(self, images: torch.Tensor) -> torch.Tensor:
        """The blur."""
        return filters.gaussian(images, self.sigma)
