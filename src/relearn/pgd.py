"""The inner loop of every optimised poison: signed gradient steps on a perturbation inside an L-inf ball."""

from typing import Callable

import torch


def signed_steps(
    objective: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    delta: torch.Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
) -> torch.Tensor:
    """`delta` after `steps` descents of `objective`; to ascend, negate it.

    `images` and `delta` are (B, 3, H, W) float32 in 1/255, as are `epsilon` and `step_size`. `objective` takes poisoned
    images in [0, 1], clipped to the pixel range, and gives the sum of the loss over the batch. Madry et al., 2018
    (arXiv 1706.06083), section 2.1.
    """
    for _ in range(steps):
        delta = delta.detach().requires_grad_(True)
        poisoned = (images + delta).clamp(0, 255) / 255
        (gradient,) = torch.autograd.grad(objective(poisoned), delta)
        delta = (delta.detach() - step_size * gradient.sign()).clamp(-epsilon, epsilon)
    return delta.detach()
