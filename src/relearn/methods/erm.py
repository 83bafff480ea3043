"""Empirical risk minimisation: plain training, and the vocabulary in which every other method says how it differs."""

import torch
import torch.nn.functional as F

from relearn import augment
from relearn.registry import Count, Fraction, NonNegative, register


@register
class ERM:
    """Plain training with the shared recipe, optionally with more augmentation. Every hook below may be overridden.

    `gray` turns that share of the training images to grayscale, and test images too when it is 1; `jitter` changes
    brightness, contrast and saturation by factors of 1 ± `jitter` and the hue by a quarter of it, in four images of five;
    `shrink` averages squares of so many pixels a side into one, in training and test images; `convolve` filters every
    training image `convolutions` times with a random 3x3 kernel, the identity plus noise in ± `convolve`.
    """

    def __init__(
        self,
        *,
        gray: Fraction = 0.0,
        jitter: Fraction = 0.0,
        shrink: Count = 1,
        convolve: NonNegative = 0.0,
        convolutions: Count = 1,
    ):
        self.gray, self.jitter, self.shrink, self.convolve, self.convolutions = (
            gray,
            jitter,
            shrink,
            convolve,
            convolutions,
        )

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """The training images (N, H, W, 3) uint8, changed once before training."""
        return images

    def initialise(self, model, surrogate: dict[str, torch.Tensor]) -> None:
        """Change the freshly drawn weights; `surrogate` holds those of the surrogate the method names, nothing if it names none."""

    def rates(self, groups: list[str]) -> dict[str, float]:
        """The learning-rate multiplier of each layer group at the start; 0 freezes a group (batch-norm statistics stay live)."""
        return dict.fromkeys(groups, 1.0)

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A batch (B, 3, H, W) float32 in [0, 1] after crop and flip, augmented further."""
        if self.jitter:
            x = augment.colour_jitter(x, self.jitter, hue=self.jitter / 4, probability=0.8, generator=generator)
        if self.gray:
            x = augment.random_gray(x, self.gray, generator)
        x = augment.shrink(x, self.shrink)
        for _ in range(self.convolutions if self.convolve else 0):
            x = augment.random_convolution(x, self.convolve, generator)
        return x

    def view(self, x: torch.Tensor) -> torch.Tensor:
        """A batch as the model sees it outside training: on test images and on the probe set."""
        return augment.shrink(augment.gray(x) if self.gray == 1 else x, self.shrink)

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (H, W) at which the model sees images of `size`."""
        return size[0] // self.shrink, size[1] // self.shrink

    def loss(
        self, model, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch, and the logits by which training accuracy is counted."""
        scores = model(x)
        return F.cross_entropy(scores.float(), y), scores

    def ticks(self, step: int, steps_per_epoch: int) -> bool:
        """Whether the method wants a look after `step` steps of the schedule."""
        return False

    def on_tick(self, run) -> None:
        """The look: `run` (relearn.fit.Run) offers measure, snapshot, restore, set_rates and stage."""

    def state(self) -> dict:
        """Everything a resumed run needs: nested dicts and lists of tensors, numbers and texts."""
        return {}

    def load_state(self, state: dict) -> None:
        """Take back what `state` gave."""
