"""Perturbations of jobs: added to images, clipped, rounded and measured here alone, where the budget is enforced."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from relearn.errors import UserError

CHUNK = 512  # images handled at once: their temporary values stay in the caches (4096: four times slower)
SLACK = 1e-3  # allowance of every norm for floating-point error, in the unit of the norm


@dataclass(frozen=True)
class Budget:
    """What a poison promises never to exceed, per image, outside the `free` pixels of an image that change most.

    `norm` is "linf" or "l2" of the change in 1/255, "l0" the number of changed pixels (all three channels count as
    one), or "none" for a poison without a bound, whose value is the whole range, 255.
    """

    norm: Literal["linf", "l2", "l0", "none"]
    value: float
    free: int = 0  # pixels that a bound in "linf" leaves out, for a poison that also sets single pixels


@dataclass(frozen=True)
class Perturbation:
    """What a poison adds: `delta` (M, H, W, 3) float32 in 1/255, and which row each image gets.

    `rows` (N,) int64 maps images to rows of `delta`; None means the k-th image gets the k-th row. `rounding` is a name
    of `ROUNDINGS`.
    """

    delta: torch.Tensor
    budget: Budget
    rows: torch.Tensor | None = None
    rounding: Literal["half_up", "truncate", "em_legacy"] = "half_up"


#: whole levels from images and a perturbation: the closest one; the sum truncated, as many released poisons were
#: published; the sum truncated after negative noise was dropped, as the published loader of EM does it
ROUNDINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "half_up": lambda images, delta: torch.floor(images + delta + 0.5),
    "truncate": lambda images, delta: torch.trunc(images + delta),
    "em_legacy": lambda images, delta: torch.trunc(images + delta.clamp_min(0)),
}


def apply(
    images: torch.Tensor, perturbation: Perturbation, poisoned: torch.Tensor | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """The poisoned images (N, H, W, 3) uint8, in `poisoned` if it is given, and the measured size of the change.

    An L-inf bound is enforced exactly: rounding never leaves it. Rounding moves each value by at most one level, so an
    L2 bound is checked before rounding as it stands, and after it with that allowance.
    Raises UserError for a wrong shape, a non-finite value, a change over the budget, or no visible change.
    """
    delta, budget = perturbation.delta, perturbation.budget
    rows = perturbation.rows if perturbation.rows is not None else torch.arange(len(delta))
    _check_shape(images, delta, rows)
    chunk = _chunk(images)
    bad = sum(int((~torch.isfinite(part)).sum()) for part in delta.split(chunk))
    if bad:
        raise UserError(f"the perturbation has {bad} values that are not finite")
    largest = max(float(norms(part, budget.norm, budget.free).max()) for part in delta.split(chunk))
    _check_budget(largest, budget, SLACK, "before rounding")
    poisoned = torch.empty_like(images) if poisoned is None else poisoned
    clipped, largest = 0, 0.0
    for begin in range(0, len(images), chunk):
        part = slice(begin, begin + chunk)
        clean, own = images[part].float(), delta[rows[part]]
        clipped += int(((clean + own < 0) | (clean + own > 255)).sum())
        poisoned[part] = added(clean, own, perturbation).to(torch.uint8)
        largest = max(largest, float(norms(poisoned[part].float() - clean, budget.norm, budget.free).max()))
    measured = measure(images, poisoned)
    measured["clipped_share"] = clipped / images.numel()
    slack = math.sqrt(images[0].numel()) if budget.norm == "l2" else 0.0
    _check_budget(largest, budget, slack, "after rounding")
    if budget.value > 0 and torch.equal(images, poisoned):
        raise UserError(
            f"the perturbation changes no pixel after rounding (declared budget: {budget.norm} {budget.value}); "
            "check its units, 1/255"
        )
    return poisoned, measured


def added(clean: torch.Tensor, delta: torch.Tensor, perturbation: Perturbation) -> torch.Tensor:
    """Images (..., H, W, 3) float32 in 0..255 with `delta` added, rounded and clipped as `perturbation` says.

    Rounding never leaves the ball of an L-inf budget; a free pixel lies outside it before, and stays there.
    """
    budget = perturbation.budget
    rounded = ROUNDINGS[perturbation.rounding](clean, delta)
    if budget.norm == "linf":
        inside, most = delta.abs() <= budget.value + SLACK, math.floor(budget.value)
        rounded = torch.where(inside, clean + (rounded - clean).clamp(-most, most), rounded)
    return rounded.clamp(0, 255)


def check_reachable(poison: str, norm: str, epsilon: float, images: torch.Tensor) -> None:
    """Raises UserError for a bound that no change of an image (N, H, W, 3) can reach, so that it bounds nothing."""
    largest = {"linf": 255.0, "l2": 255.0 * math.sqrt(images[0].numel())}[norm]
    if epsilon > largest:
        raise UserError(
            f"{poison}: an {norm} bound of {epsilon:g} is beyond {largest:g}, the largest change of an image; "
            "epsilon is in 1/255; choose a smaller one"
        )


def norms(delta: torch.Tensor, norm: str, free: int = 0) -> torch.Tensor:
    """The norm (N,) float32 of each change (N, H, W, 3): "linf", "l2", "l0" (pixels); a single 0 for "none".

    For "linf", `free` of the pixels that change most are left out.
    """
    if norm == "linf":
        return delta.abs().amax(3).flatten(1).topk(free + 1).values[:, -1] if free else delta.abs().flatten(1).amax(1)
    if norm == "l2":
        return delta.flatten(1).norm(dim=1)
    if norm == "l0":
        return (delta != 0).any(dim=3).flatten(1).sum(1).float()
    return torch.zeros(1)


def measure(clean: torch.Tensor, poisoned: torch.Tensor) -> dict[str, float]:
    """Mean and maximum over images of L-inf, L2 (in 1/255) and L0 (pixels) of the change, and the share changed."""
    chunk = _chunk(clean)
    # filled in place: small tensors that stay, made between the large ones of each chunk, can break up the free memory
    found = {norm: torch.empty(len(clean)) for norm in ("linf", "l2", "l0")}
    for begin in range(0, len(clean), chunk):
        change = poisoned[begin : begin + chunk].float() - clean[begin : begin + chunk].float()
        for norm, values in found.items():
            values[begin : begin + chunk] = norms(change, norm)
    result: dict[str, float] = {}
    for norm, values in found.items():
        result |= {f"{norm}_mean": float(values.double().mean()), f"{norm}_max": float(values.max())}
    result["changed_share"] = float((found["linf"] > 0).double().mean())
    return result


def _chunk(images: torch.Tensor) -> int:
    """How many of these images are handled at once: as many values as `CHUNK` images of 32x32 have."""
    return max(1, CHUNK * 32 * 32 * 3 // max(1, math.prod(images.shape[1:])))


def _check_shape(images: torch.Tensor, delta: torch.Tensor, rows: torch.Tensor) -> None:
    if delta.dtype != torch.float32 or delta.shape[1:] != images.shape[1:] or len(rows) != len(images):
        raise UserError(
            f"a perturbation of {tuple(delta.shape)} {delta.dtype} for {len(rows)} images does not fit images of "
            f"{tuple(images.shape)}; it must be float32 (N or classes, {', '.join(map(str, images.shape[1:]))})"
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= len(delta)):
        wrong = int(rows.min() if rows.min() < 0 else rows.max())
        raise UserError(f"the perturbation has {len(delta)} rows, but an image refers to row {wrong}")


def _check_budget(largest: float, budget: Budget, slack: float, when: str) -> None:
    if budget.norm != "none" and largest > budget.value + slack:
        unit = "pixels" if budget.norm == "l0" else "1/255"
        raise UserError(
            f"the {budget.norm} norm {when} is {largest:.3f}, above the declared {budget.value:.3f} ({unit})"
        )
