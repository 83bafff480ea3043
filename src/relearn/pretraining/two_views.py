"""What pretrainings share: two views of every image, each its own draws and its own forward pass."""

import torch
from torch import nn

from relearn.methods.erm import ERM
from relearn.registry import Fraction, NonNegative, Positive, PositiveFraction, PositiveInt
from relearn.training.views import View


class TwoViews(ERM):
    """A training of its own `epochs`, `batch`, `lr` and `momentum` by two views of each image; the base of all others.

    The rate rises over the share `warmup` of the steps and falls to 0 linearly. The rest of the recipe is that of
    `train:`, but for `micro_batch`, crops and flips. `shared` means one training, of seed 0, for the cells of all
    seeds. `smallest`, `mix`, `strength`, `gray`, `convolve` and `jitter` are the views (relearn.training.views.View).
    """

    def __init__(
        self,
        *,
        epochs: PositiveInt = 2,
        batch: PositiveInt = 256,
        lr: Positive = 0.1,
        momentum: Fraction = 0.6,
        warmup: Fraction = 0.15,
        shared: bool = False,
        smallest: PositiveFraction = 0.5,
        mix: Fraction = 0.6,
        strength: NonNegative = 0.5,
        gray: Fraction = 0.2,
        convolve: NonNegative = 0.5,
        jitter: Fraction = 0.4,
    ):
        super().__init__()  # what ERM augments is left as it is: the views do it
        self.epochs, self.batch, self.lr, self.momentum, self.warmup = epochs, batch, lr, momentum, warmup
        self.shared = shared  # the grid reads it from params.yaml
        self.view = View(smallest, mix, strength, gray, convolve, jitter)

    def recipe(self, shared: dict, images: int) -> dict:
        """The recipe for so many `images`: that of `train:`, `shared`, with what a pretraining has of its own."""
        steps = images // self.batch * self.epochs
        own: dict[str, object] = {"epochs": self.epochs, "batch": self.batch, "lr": self.lr, "momentum": self.momentum}
        own |= {"schedule": "linear", "warmup_steps": int(self.warmup * steps)}
        # a part of a batch would be compared with itself alone; it is short, so every epoch is kept and written down
        own |= {"micro_batch": None, "test_epochs": 1, "checkpoint_epochs": 1}
        own |= {"crop_pad": 0, "flip": False}  # views crop and flip
        return shared | own | {"nesterov": shared["nesterov"] and self.momentum > 0}

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Add to the model what is trained with it and thrown away."""

    def detach(self, model: nn.Module) -> None:
        """Take away what `attach` has added."""

    def views(self, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Two views of a batch."""
        return self.view.of(x, generator), self.view.of(x, generator)
