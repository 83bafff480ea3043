"""What is read from a model: predictions and accuracy."""

from contextlib import contextmanager, nullcontext
from typing import Callable

import torch

from relearn.augment import to_float

BATCH = 500  # images per forward pass


@contextmanager
def evaluating(model):
    """Evaluation mode without gradients and without compiled code; afterwards every module has the mode it had."""
    modes = {module: module.training for module in model.modules()}
    # compiled code would not call hooks that were registered after it was compiled
    compiled = any(hasattr(module, "_orig_mod") or module._compiled_call_impl for module in modes)
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def logits(model, images: torch.Tensor, view: Callable = lambda x: x) -> torch.Tensor:
    """Logits (N, K) float32 of images seen through `view`, in evaluation mode; the model's mode is kept.

    Images are (N, H, W, 3) uint8, or floats (N, C, H, W) as the model takes them; those may lie on another device.
    """
    device = next(model.parameters(), images).device
    with evaluating(model):
        parts = (part.to(device) for part in images.split(BATCH))
        return torch.cat([model(view(part if part.is_floating_point() else to_float(part))).float() for part in parts])


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of rows of `scores` (N, K) whose largest entry is the label, in percent."""
    return 100 * (scores.argmax(1) == labels).double().mean().item()
