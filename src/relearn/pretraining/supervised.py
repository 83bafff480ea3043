"""The control of `contrastive`: the same views and passes, with labels."""

import torch
from torch import nn

from relearn.pretraining.two_views import TwoViews
from relearn.registry import register


@register
class Supervised(TwoViews):
    """Learn the labels from two views of each image: as `contrastive`, with another loss."""

    def __init__(self, **training):
        super().__init__(**training)

    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss of both views by `criterion`, and which of all views, (2B,) bool, are recognised."""
        logits = [model(view).float() for view in self.views(x, generator)]
        loss = sum(criterion(scores, y) for scores in logits) / len(logits)
        return loss, torch.cat([scores.argmax(1) == y for scores in logits])
