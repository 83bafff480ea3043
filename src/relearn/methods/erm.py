"""Empirical risk minimisation: plain training, and the hooks by which every other method says how it differs."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from relearn.data import Split
from relearn.errors import UserError
from relearn.registry import Fraction, NonNegative, PositiveInt, Side, register
from relearn.training import augment, degrade, views
from relearn.training.models import Normalised
from relearn.training.state import TrainingState

MIXING = 0.5  # strength of `mix`


@register
class ERM:
    """Plain training with the shared recipe, optionally with more augmentation. A method may override every hook.

    `gray` turns that share of the training images to grayscale, and test images too when it is 1. `jitter` changes
    brightness, contrast and saturation by factors of 1 ± `jitter` and the hue by a quarter of it, in four images of
    five. `downsample` averages squares of so many pixels a side into one, in training and test images. `convolve`
    filters every training image `convolutions` times with a random 3x3 kernel, 1 in the middle plus noise in ±
    `convolve`. `mix` mixes the colours of that share of the training images at random, `degrade` takes fine detail from
    that share (relearn.training.degrade), and `contrast` changes brightness and contrast of all by factors of 1 ±
    `contrast`. Raises UserError for several convolutions of width 0.
    """

    stop_statistics = False  # whether batch norm of stopped groups uses its statistics as they are, and leaves them so

    def __init__(
        self,
        *,
        gray: Fraction = 0.0,
        jitter: Fraction = 0.0,
        downsample: Side = 1,
        convolve: NonNegative = 0.0,
        convolutions: PositiveInt = 1,
        mix: Fraction = 0.0,
        degrade: Fraction = 0.0,
        contrast: Fraction = 0.0,
    ):
        if convolutions > 1 and not convolve:
            raise UserError(f"{convolutions} convolutions of width 0 change nothing; set convolve above 0")
        self.gray, self.jitter, self.downsample = gray, jitter, downsample
        self.convolve, self.convolutions = convolve, convolutions
        self.mix, self.degrade, self.contrast = mix, degrade, contrast

    def with_clean(self, train: Split, clean: Split, generator: torch.Generator) -> Split:
        """The training split of a method that is given clean images: one with a setting of type `CleanCount`.

        `clean` has the images of `train` (N of them) as they were before any poison.
        """
        return train

    def prepare(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The training images (N, H, W, 3) uint8, changed once before training; labels are (N,) int64."""
        return images

    def initialise(
        self, model: Normalised, surrogate: dict[str, torch.Tensor], pretrained: dict[str, torch.Tensor]
    ) -> None:
        """Change the initial weights; there are those of the surrogate and of the pretraining that the method names."""

    def rates(self, groups: list[str]) -> dict[str, float]:
        """The initial learning-rate multiplier of each layer group; 0 freezes it (batch-norm statistics stay live)."""
        return dict.fromkeys(groups, 1.0)

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A batch (B, 3, H, W) float32 in [0, 1] after crop and flip, augmented further."""
        if self.jitter:
            x = augment.colour_jitter(x, self.jitter, hue=self.jitter / 4, probability=0.8, generator=generator)
        if self.mix:
            x = views.random_channel_mixing(x, self.mix, MIXING, generator)
        if self.gray:
            x = augment.random_gray(x, self.gray, generator)
        x = augment.downsample(x, self.downsample)
        for _ in range(self.convolutions if self.convolve else 0):
            x = augment.random_convolution(x, self.convolve, generator)
        if self.degrade:
            x = degrade.degrade(x, self.degrade, generator)
        return views.brightness_contrast(x, self.contrast, generator) if self.contrast else x

    def eval_transform(self, x: torch.Tensor) -> torch.Tensor:
        """A batch as the model gets it outside training: of test images, and, if none is its own, of the probe set."""
        return augment.downsample(augment.gray(x) if self.gray == 1 else x, self.downsample)

    def probe_transform(self, x: torch.Tensor) -> torch.Tensor:
        """The same of training images, which `prepare` has changed already: those of the probe set."""
        return self.eval_transform(x)

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (H, W) at which the model gets images of `size`."""
        return size[0] // self.downsample, size[1] // self.downsample

    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch by `criterion`, and which answers are right, (B,) or a multiple of it, bool."""
        logits = model(x)
        return criterion(logits.float(), y), logits.argmax(1) == y

    def guessing(self, classes: int, batch: int) -> float:
        """The loss of guessing. Training that ends far above it has diverged."""
        return math.log(max(2, classes))

    def hold_out(self, train: Split, generator: torch.Generator) -> Split:
        """The images to train on: all, or all but a part that the method keeps for itself."""
        return train

    def on_epoch(self, training: TrainingState) -> None:
        """Act at the end of an epoch, before it is tested and written down."""

    def outcome(self) -> Mapping[str, float | str]:
        """What the method decided by itself, for train.json."""
        return {}

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        """Whether the method wants a probe after `step` steps of the schedule."""
        return False

    def on_probe(self, training: TrainingState) -> None:
        """Act on a probe: `training` offers measure, snapshot, restore, set_rates and stage."""

    def at_stage(self, stage: str) -> None:
        """Take images outside training as the network does that was trained up to `stage`."""

    def state(self) -> dict:
        """Everything that a resumed run needs: nested dicts and lists of tensors, numbers and texts."""
        return {}

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
