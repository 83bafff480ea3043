"""Orthogonal projection. Sandoval-Segura et al., 2023 (arXiv 2305.19254), section 4.3."""

import torch

from relearn.methods.erm import ERM
from relearn.registry import Positive, PositiveInt, register
from relearn.training import projection


@register
class Oproj(ERM):
    """Plain training on images without the directions by which a linear classifier tells the poisoned classes apart.

    A logistic regression is fitted to the poisoned pixels for `linear_epochs` at `linear_lr`; what an image has of the
    space that its weights span is taken out. It answers perturbations shared by a class, not those of each image.
    Test images stay as they are, as in the paper. Ours: the mean image stays, since without it images are far darker
    and two values in five leave 0..255; what all images share says no class. The result is rounded and clipped to
    0..255, where the paper keeps floats, and the regression begins at 0, not at random.
    """

    def __init__(self, *, linear_epochs: PositiveInt = 20, linear_lr: Positive = 0.1, **augmentation):
        super().__init__(**augmentation)
        self.linear_epochs, self.linear_lr = linear_epochs, linear_lr

    def prepare(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The training images, projected."""
        weights = projection.linear_weights(images, labels, epochs=self.linear_epochs, lr=self.linear_lr)
        basis = projection.directions(weights).to(images.device)
        mean = projection.mean_image(images)
        parts = (projection.without(part, basis, mean) for part in images.split(projection.BATCH))
        return torch.cat([part.add(0.5).floor().clamp(0, 255).byte() for part in parts])
