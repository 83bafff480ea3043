"""Error-maximising augmentation: UEraser. Qin et al., 2023 (arXiv 2303.15127), section 3; three variants."""

import math

import torch
from torch import nn

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import Fraction, PositiveInt, register
from relearn.training.operations import TRIVIAL, one_each
from relearn.training.plasma import random_plasma, shuffle_channels
from relearn.training.state import TrainingState

ROUGHNESS, INTENSITY = (0.3, 0.7), (0.5, 1.0)  # of plasma
MOST_COPIES = 64  # all of them pass through the network at once

ROUNDED = 1e-9  # how far below a share it counts as reached: 0.07 * 100 is a little more than 7

#: forward and backward passes per image of a step, on average over the epochs of the recipe
PASSES_PER_STEP = {
    "ueraser": lambda settings, epochs: 1 + (settings["copies"] - 1) * _first(settings, epochs) / epochs,
    "ueraser_max": lambda settings, epochs: settings["copies"],
}


def _first(settings: dict, epochs: int) -> int:
    """The epochs of several copies."""
    return math.ceil((settings["first"] - ROUNDED) * epochs)


@register
class UeraserLite(ERM):
    """Plain training on strongly augmented images: plasma brightness and contrast, channel shuffle, TrivialAugment.

    Each of the first three changes an image with `probability`; of the 12 operations of TrivialAugment every image gets
    one.
    """

    def __init__(self, *, probability: Fraction = 0.5, **augmentation):
        super().__init__(**augmentation)
        self.probability = probability

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The augmentation of plain training, then the strong one."""
        return self.strong(super().augment(x, generator), generator)

    def strong(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A batch (B, 3, H, W), strongly augmented."""
        x = random_plasma(x, self.probability, ROUGHNESS, INTENSITY, generator)
        return one_each(shuffle_channels(x, self.probability, generator), TRIVIAL, generator)


@register
class UeraserMax(UeraserLite):
    """Training on the worst of `copies` strongly augmented copies of every image, the one of the largest loss.

    All copies pass through the network as one batch. The worst is chosen by cross-entropy; its loss is that of the
    recipe. Raises UserError for more than 64 copies.
    """

    def __init__(self, *, copies: PositiveInt = 5, **augmentation):
        super().__init__(**augmentation)
        if copies > MOST_COPIES:
            raise UserError(f"ueraser: copies is {copies}; give at most {MOST_COPIES}, since they are one batch")
        self.copies = copies

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The augmentation of plain training; the strong one follows for each copy."""
        return ERM.augment(self, x, generator)

    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of the worst copies, and which of them are recognised."""
        logits = model(self.strong(x.repeat(self.copies, 1, 1, 1), generator)).float().view(self.copies, len(x), -1)
        with torch.no_grad():
            certainty = logits.log_softmax(2).gather(2, y.expand(self.copies, -1)[..., None])
            chosen = (certainty.argmin(0) == torch.arange(self.copies, device=x.device)).T[..., None]
        # a product in place of an index, whose gradient would add up in no fixed order on a GPU
        worst = torch.where(chosen, logits, 0.0).sum(0)
        return criterion(worst, y), worst.argmax(1) == y


@register
class Ueraser(UeraserMax):
    """As `ueraser_max` for the share `first` of the epochs, rounded up to whole ones, as `ueraser_lite` after them."""

    def __init__(self, *, first: Fraction = 0.25, copies: PositiveInt = 5, **augmentation):
        super().__init__(copies=copies, **augmentation)
        self.first, self.lite = first, first == 0

    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of the worst copies, later of a single one."""
        if self.lite:
            return ERM.loss(self, model, self.strong(x, generator), y, generator, criterion)
        return super().loss(model, x, y, generator, criterion)

    def on_epoch(self, training: TrainingState) -> None:
        """Go on with single copies after the first epochs."""
        self.lite = training.step / training.steps >= self.first - ROUNDED

    def state(self) -> dict:
        """Whether single copies have begun."""
        return {"lite": self.lite}

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        self.lite = state["lite"]
