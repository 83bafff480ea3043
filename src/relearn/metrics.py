"""What is read from a model: predictions and accuracy."""

from typing import Callable

import torch

from relearn.augment import to_float

BATCH = 500  # images per forward pass


@torch.no_grad()
def logits(model, images: torch.Tensor, view: Callable = lambda x: x) -> torch.Tensor:
    """Logits (N, K) of images (N, H, W, 3) uint8 seen through `view`, in evaluation mode; the model's mode is kept."""
    training = model.training
    model.eval()
    result = torch.cat([model(view(to_float(part))).float() for part in images.split(BATCH)])
    model.train(training)
    return result


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of rows of `scores` (N, K) whose largest entry is the label, in percent."""
    return 100 * (scores.argmax(1) == labels).double().mean().item()
