"""A stage without labels. Chen et al., 2020 (arXiv 2002.05709): SimCLR."""

import math

import torch
from torch import nn

from relearn.pretraining.two_views import TwoViews
from relearn.registry import Channels, Positive, register
from relearn.training import projector
from relearn.training.objectives import nt_xent


@register
class Contrastive(TwoViews):
    """Learn without labels to find the other view of an image among all views of the batch.

    The loss is NT-Xent at `temperature`, of what a projector makes of the features before the last linear layer, by
    layers of width `hidden` and `out`; the head does not learn. A perturbation that goes by the label has nothing to be
    linked to, and the views change the colours and details that it is made of.
    """

    def __init__(self, *, temperature: Positive = 0.2, hidden: Channels = 128, out: Channels = 64, **training):
        super().__init__(**training)
        self.temperature, self.hidden, self.out = temperature, hidden, out

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Add the projector."""
        projector.attach(model, self.hidden, self.out, generator)

    def detach(self, model: nn.Module) -> None:
        """Take the projector away."""
        projector.detach(model)

    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """NT-Xent of two views of the batch, and which of all views, (2B,) bool, are nearest to their partner."""
        projections = [projector.project(model, view) for view in self.views(x, generator)]
        return nt_xent(torch.cat(projections), self.temperature)

    def guessing(self, classes: int, batch: int) -> float:
        """The loss where all other views are alike, and the partner at a right angle to them."""
        return math.log(2 * batch) + 1 / self.temperature
