"""The optimizers of the recipe. Each takes from `train:` what it uses, and scales its own rate by `lr`."""

from collections.abc import Callable

import torch
from torch import nn

REST = 2.0  # Muon: the learning rate of what is not orthogonalised (norms, head), over `lr`
ITERATIONS = 3  # of the Newton-Schulz iteration
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of its quintic polynomial, chosen by Jordan for the steepest slope at 0


def build(model: nn.Module, recipe: dict) -> torch.optim.Optimizer:
    """The optimizer that the recipe names, for the parameters of `model` that are to learn.

    Every parameter group holds `base_lr`, its learning rate before the schedule.
    """
    optimizer = OPTIMIZERS[recipe["optimizer"]](model, recipe)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer


def set_factor(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rates to `factor` times what they are before the schedule."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class Muon(torch.optim.Optimizer):
    """SGD with momentum whose step on a convolution is orthogonalised, so that all its directions are equally long.

    The filters of a convolution, flattened to a matrix (out, in), keep the Frobenius norm sqrt(out); a group with
    `orthogonal` false learns by plain SGD, weight decay in its gradient. Jordan et al., 2024 (kellerjordan.github.io,
    posts/muon); the fixed norm is from the CIFAR speed runs. torch.optim.Muon takes matrices only.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float, nesterov: bool, weight_decay: float):
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(groups, defaults | {"orthogonal": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None):
        """One step from the gradients as they stand."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                gradient = weight.grad
                if not group["orthogonal"] and group["weight_decay"]:
                    gradient = gradient.add(weight, alpha=group["weight_decay"])
                state = self.state[weight]
                velocity = state.setdefault("velocity", torch.zeros_like(gradient))
                velocity.mul_(group["momentum"]).add_(gradient)
                update = gradient.add(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
                if group["orthogonal"]:
                    weight.mul_(len(weight) ** 0.5 / weight.norm().clamp_min(1e-12))
                    update = orthogonalised(update.flatten(1)).view_as(update)
                weight.add_(update, alpha=-group["lr"])
        return loss


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with nearly the singular vectors of `matrix` (M, N) float32, all singular values between 0.5 and 1.5.

    So it is after `ITERATIONS` steps of a Newton-Schulz iteration, for singular values that are not tiny.
    """
    first, third, fifth = COEFFICIENTS
    x = matrix.T if len(matrix) > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = first * x + (third * square + fifth * square @ square) @ x
    return x.T if len(matrix) > matrix.shape[1] else x


def _sgd(model: nn.Module, recipe: dict) -> torch.optim.Optimizer:
    own = {name: recipe[name] for name in ("lr", "momentum", "nesterov", "weight_decay")}
    return torch.optim.SGD(model.parameters(), **own)


def _muon(model: nn.Module, recipe: dict) -> torch.optim.Optimizer:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [weight for weight in learning if weight.ndim == 4]},
        {"params": [weight for weight in learning if weight.ndim != 4], "orthogonal": False, "lr": REST * recipe["lr"]},
    ]
    own = {name: recipe[name] for name in ("lr", "momentum", "nesterov", "weight_decay")}
    return Muon([group for group in groups if group["params"]], **own)


def _adamw(model: nn.Module, recipe: dict) -> torch.optim.Optimizer:
    betas = (recipe["momentum"], 0.999)
    return torch.optim.AdamW(model.parameters(), lr=recipe["lr"], betas=betas, weight_decay=recipe["weight_decay"])


#: name -> the optimizer of a model, from the settings of `train:`
OPTIMIZERS: dict[str, Callable[[nn.Module, dict], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "muon": _muon,
    "adamw": _adamw,
}
