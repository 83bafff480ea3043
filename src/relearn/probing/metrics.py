"""What is read from a model: logits and accuracy."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from relearn.data import to_float
from relearn.errors import NotFiniteError, UserError

BATCH = 500  # images per forward pass
PIXELS = 5_000_000  # of them, for images of more than 100x100


@contextmanager
def evaluating(model: nn.Module, batch_statistics: bool = False) -> Iterator[None]:
    """Evaluation mode without gradients and without compiled code; afterwards every module is as it was.

    With `batch_statistics` batch norm takes the statistics of each batch, not those of training.
    """
    modes = {module: module.training for module in model.modules()}
    # compiled code would not call hooks that were registered after it was compiled
    compiled = any(hasattr(module, "_orig_mod") or module._compiled_call_impl for module in modes)
    model.eval()
    norms = [module for module in modes if isinstance(module, nn.modules.batchnorm._BatchNorm) and batch_statistics]
    before = [
        (norm, name, buffer, buffer.clone()) for norm in norms for name, buffer in norm.named_buffers(recurse=False)
    ]
    for norm in norms:
        if isinstance(norm, nn.SyncBatchNorm):  # in training mode it would wait for other processes
            norm.running_mean = norm.running_var = None
        else:
            norm.train()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, name, buffer, value in before:
            setattr(norm, name, buffer.copy_(value))


def logits(
    model: nn.Module,
    images: torch.Tensor,
    eval_transform: Callable = lambda x: x,
    batch_statistics: bool = False,
) -> torch.Tensor:
    """Logits (N, K) float32 of images after `eval_transform`, in evaluation mode; the model keeps its mode.

    Images are (N, H, W, 3) uint8, or floats (N, C, H, W) as the model takes them; those may lie on another device.
    They pass in batches of nearly equal size, at most `BATCH` images and `PIXELS` pixels; `batch_statistics` as for
    `evaluating`. Raises NotFiniteError for logits that are not finite: their largest would be no prediction.
    """
    device = next(model.parameters(), images).device
    with evaluating(model, batch_statistics):
        sides = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:]
        most = max(1, min(BATCH, PIXELS // max(1, math.prod(sides))))
        parts = (part.to(device) for part in images.tensor_split(max(1, -(-len(images) // most))))
        parts = (part if part.is_floating_point() else to_float(part) for part in parts)
        found = torch.cat([logits_of(model(eval_transform(part))).float() for part in parts])
    if not found.isfinite().all():
        raise NotFiniteError("the outputs of the network are not finite: its training has diverged")
    return found


def logits_of(output: object) -> torch.Tensor:
    """The logits (N, K) in what a model returns: itself, its `logits`, or its entry of this name.

    Raises UserError when there are none.
    """
    if not torch.is_tensor(output):
        found = getattr(output, "logits", output.get("logits") if isinstance(output, Mapping) else None)
        if not torch.is_tensor(found):
            raise UserError(
                f"the model returns a {type(output).__name__}, not logits: "
                "give one that returns a tensor (N, K), or an output with `logits`"
            )
        output = found
    if output.ndim != 2:
        raise UserError(f"logits must be (N, K), a row for each image, found {tuple(output.shape)}")
    return output


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of rows of `scores` (N, K) whose largest entry is the label, in percent."""
    return 100 * (scores.argmax(1) == labels).double().mean().item()
