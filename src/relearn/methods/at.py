"""Adversarial training. Madry et al., 2018 (arXiv 1706.06083), section 2.1."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from relearn.crafting.pgd import BALLS, descend
from relearn.methods.erm import ERM
from relearn.registry import Levels, PositiveInt, register

#: forward and backward passes per image of a step: those of the attack, and that of training
PASSES_PER_STEP = {"at": lambda settings, epochs: settings["steps"] + 1}


@register
class At(ERM):
    """Training on adversarial examples: the loss of every image is raised by projected gradient ascent first.

    `steps` steps of `step_size` (null: a quarter of `epsilon`), both in 1/255, in the ball of `norm` and radius
    `epsilon` around the image, from a random start, within the range of pixels. In the L-inf ball a step follows the
    sign of the gradient, in the L2 ball its direction. The attack takes the network in evaluation mode and leaves it
    as it is; training takes its own batch statistics. Training accuracy is that on adversarial examples.
    """

    def __init__(
        self,
        *,
        norm: Literal["linf", "l2"] = "linf",
        epsilon: Levels = 8.0,
        step_size: Levels | None = None,
        steps: PositiveInt = 10,
        **augmentation,
    ):
        super().__init__(**augmentation)
        self.norm: Literal["linf", "l2"] = norm
        self.epsilon, self.steps = epsilon / 255, steps
        self.step_size = epsilon / 4 / 255 if step_size is None else step_size / 255

    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of adversarial examples, and which of them are recognised."""
        return super().loss(model, self.attacked(model, x, y, generator), y, generator, criterion)

    def attacked(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Adversarial examples of a batch (B, 3, H, W) in [0, 1]."""

        def certainty(attacked: torch.Tensor) -> torch.Tensor:
            return -F.nll_loss(model(attacked).float().log_softmax(1), y, reduction="sum")

        training = model.training
        model.eval()
        delta = descend(
            [certainty],
            x,
            self._start(x, generator),
            epsilon=self.epsilon,
            step_size=self.step_size,
            steps=self.steps,
            guard=None,  # the loss of training on the examples says when something is not finite
            norm=self.norm,
            highest=1.0,
            within=True,
        )
        model.train(training)
        return (x + delta).clamp(0, 1)

    def _start(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Uniform in the L-inf ball; in the L2 ball in a direction and at a distance drawn for each image."""
        if self.norm == "linf":
            return (torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1) * self.epsilon
        direction, _ = BALLS[self.norm]
        distance = self.epsilon * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
        return distance * direction(torch.randn(x.shape, generator=generator, device=x.device))
