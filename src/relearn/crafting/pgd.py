"""Gradient steps on a perturbation inside a norm ball: of every optimised poison, and of adversarial training."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from relearn.errors import UserError
from relearn.training.divergence import FiniteGuard

Objective = Callable[[torch.Tensor], torch.Tensor]


def descend(
    objectives: Sequence[Objective],
    images: torch.Tensor,
    delta: torch.Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    guard: FiniteGuard | None,
    norm: Literal["linf", "l2"] = "linf",
    highest: float = 255.0,
    within: bool = False,
) -> torch.Tensor:
    """`delta` after `steps` descents of the sum of `objectives`; to ascend, negate them.

    `images` and `delta` are (B, 3, H, W) float32 in 1/255, as are `epsilon` and `step_size`. An objective takes
    poisoned images in [0, 1], clipped to the pixel range, and gives the sum of its loss over the batch; gradients are
    taken one objective at a time, so that an ensemble needs the memory of one model. In the L-inf ball a step follows
    the sign of the gradient, in the L2 ball its direction. Madry et al., 2018 (arXiv 1706.06083), section 2.1. `guard`
    notes the gradients: the sign of one that is not a number is 0, so that the noise would just stay where it is.
    `highest` is the level of a white pixel, 1 if all are given in [0, 1]; with `within` poisoned images stay among the
    pixels after every step.
    """
    direction, project = BALLS[norm]
    for step in range(1, steps + 1):
        delta = delta.detach().requires_grad_(True)
        gradient = torch.zeros_like(images)
        for objective in objectives:
            gradient += torch.autograd.grad(objective((images + delta).clamp(0, highest) / highest), delta)[0]
        if guard:
            guard.note(gradient, "gradient of the noise", f"step {step} of {steps}, step size {step_size:g}")
        delta = project(delta.detach() - step_size * direction(gradient), epsilon)
        if within:
            delta = (images + delta).clamp(0, highest) - images
    return delta.detach()


def _unit(gradient: torch.Tensor) -> torch.Tensor:
    return gradient / _lengths(gradient).clamp_min(1e-12)


def _shorten(delta: torch.Tensor, epsilon: float) -> torch.Tensor:
    return delta * (epsilon / _lengths(delta).clamp_min(epsilon))


def _lengths(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


def _clip(delta: torch.Tensor, epsilon: float) -> torch.Tensor:
    return delta.clamp(-epsilon, epsilon)


#: norm -> (direction of a step, projection on the ball)
BALLS: dict[str, tuple[Callable, Callable]] = {"linf": (torch.sign, _clip), "l2": (_unit, _shorten)}


def shifted(labels: torch.Tensor, classes: int, shift: int) -> torch.Tensor:
    """The target labels (int64) of an attack: each label plus `shift`, modulo the number of classes.

    Raises UserError when that changes no label.
    """
    if shift % classes == 0:
        raise UserError(
            f"shift is {shift}, which aims at the true label where there are {classes} classes; choose another"
        )
    return (labels + shift) % classes
