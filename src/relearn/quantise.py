"""The only place that adds a perturbation to images, clips, rounds, and measures and enforces the budget."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from relearn.errors import Fault

CHUNK = 512  # images handled at once: their temporary values stay in the caches (4096: four times slower)
SLACK = 1e-3  # of a norm in floating point


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


#: levels from images and a perturbation: the nearest one; the one below, as many released poisons were published; the one
#: below after negative noise was dropped, as the published loader of EM does it
ROUNDINGS = {
    "half_up": lambda images, delta: torch.floor(images + delta + 0.5),
    "truncate": lambda images, delta: torch.trunc(images + delta),
    "em_legacy": lambda images, delta: torch.trunc(images + delta.clamp_min(0)),
}


def apply(images: torch.Tensor, perturbation: Perturbation) -> tuple[torch.Tensor, dict]:
    """The poisoned images (N, H, W, 3) uint8 and the measured size of the change.

    An L-inf bound is kept exactly: rounding never leaves it. Rounding moves each value by at most one level, so an L2
    bound is checked before rounding as it stands, and after it with that allowance.
    Raises Fault for a wrong shape, a non-finite value, a change over the budget, or no visible change.
    """
    delta, budget = perturbation.delta, perturbation.budget
    rows = perturbation.rows if perturbation.rows is not None else torch.arange(len(delta))
    if delta.dtype != torch.float32 or delta.shape[1:] != images.shape[1:] or len(rows) != len(images):
        raise Fault(
            f"a perturbation of {tuple(delta.shape)} {delta.dtype} for {len(rows)} images does not fit images of {tuple(images.shape)}; "
            f"it must be float32 (N or classes, {', '.join(map(str, images.shape[1:]))})"
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= len(delta)):
        raise Fault(
            f"the perturbation has {len(delta)} rows, but an image asks for row {int(rows.min() if rows.min() < 0 else rows.max())}"
        )
    bad = sum(int((~torch.isfinite(part)).sum()) for part in delta.split(CHUNK))
    if bad:
        raise Fault(f"the perturbation has {bad} values that are not finite")
    _check(
        max(float(norms(part, budget.norm, budget.free).max()) for part in delta.split(CHUNK)),
        budget,
        SLACK,
        when="before rounding",
    )
    poisoned = torch.empty_like(images)
    clipped, found, most = 0, 0.0, math.floor(budget.value)
    for begin in range(0, len(images), CHUNK):
        part = slice(begin, begin + CHUNK)
        clean, own = images[part].float(), delta[rows[part]]
        clipped += int(((clean + own < 0) | (clean + own > 255)).sum())
        levels = ROUNDINGS[perturbation.rounding](clean, own)
        if budget.norm == "linf":  # a free pixel lies outside the ball before rounding too, and stays there
            inside = own.abs() <= budget.value + SLACK
            levels = torch.where(inside, clean + (levels - clean).clamp(-most, most), levels)
        poisoned[part] = levels.clamp(0, 255).to(torch.uint8)
        found = max(found, float(norms(poisoned[part].float() - clean, budget.norm, budget.free).max()))
    measured = measure(images, poisoned)
    measured["clipped_share"] = clipped / images.numel()
    slack = math.sqrt(images[0].numel()) if budget.norm == "l2" else 0.0
    _check(found, budget, slack, "after rounding")
    if budget.value > 0 and torch.equal(images, poisoned):
        raise Fault(
            f"the perturbation changes no pixel after rounding (declared budget: {budget.norm} {budget.value}); check its units, 1/255"
        )
    return poisoned, measured


def norms(delta: torch.Tensor, norm: str, free: int = 0) -> torch.Tensor:
    """The norm of each change (N,) float32 of changes (N, H, W, 3): "linf", "l2", "l0" (pixels); a single 0 for "none".

    For "linf", `free` of the pixels that change most are left out.
    """
    if norm == "linf":
        return delta.abs().amax(3).flatten(1).topk(free + 1).values[:, -1] if free else delta.abs().flatten(1).amax(1)
    if norm == "l2":
        return delta.flatten(1).norm(dim=1)
    if norm == "l0":
        return (delta != 0).any(dim=3).flatten(1).sum(1).float()
    return torch.zeros(1)


def measure(clean: torch.Tensor, poisoned: torch.Tensor) -> dict:
    """L-inf and L2 (in 1/255) and L0 (pixels) of the change per image: mean and maximum, and the share of images changed."""
    linf, l2, l0 = [], [], []
    for begin in range(0, len(clean), CHUNK):
        change = poisoned[begin : begin + CHUNK].float() - clean[begin : begin + CHUNK].float()
        linf.append(norms(change, "linf"))
        l2.append(norms(change, "l2"))
        l0.append(norms(change, "l0"))
    result = {}
    for name, parts in (("linf", linf), ("l2", l2), ("l0", l0)):
        values = torch.cat(parts)
        result |= {f"{name}_mean": float(values.double().mean()), f"{name}_max": float(values.max())}
    result["changed_share"] = float((torch.cat(linf) > 0).double().mean())
    return result


def _check(found: float, budget: Budget, slack: float, when: str) -> None:
    if budget.norm != "none" and found > budget.value + slack:
        unit = "pixels" if budget.norm == "l0" else "1/255"
        raise Fault(f"the {budget.norm} norm {when} is {found:.3f}, above the declared {budget.value:.3f} ({unit})")
