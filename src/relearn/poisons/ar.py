"""AR: autoregressive perturbations.

Sandoval-Segura et al., 2022, Autoregressive Perturbations for Data Poisoning (arXiv 2206.03693).
"""

import math

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation, check_reachable
from relearn.data import Split
from relearn.errors import UserError
from relearn.registry import NonNegative, Positive, PositiveInt, Seed, register

MARGIN = 4  # rows and columns of a field that are dropped: the process has to forget its start
NEIGHBOURS = [(row, column) for row in range(3) for column in range(3)][:-1]  # all but the last place of a 3x3 window
TRIALS = 3  # fields by which a process is judged
SIDE = 32  # pixels a side of a trial field
LARGEST = 50.0  # the L2 norm up to which one counts as stable
FAR = 48  # pixels a side of images beyond which a process that hardly grows there can explode
CANDIDATES = 64  # processes tried at once
ATTEMPTS = 400  # rounds of so many candidates before the search fails
PATIENCE = 8  # rounds without a new process before the oldest one is dropped: all others may be close to it


@register
def ar(
    train: Split,
    craft: CraftContext,
    *,
    epsilon: Positive = 255.0,
    gap: NonNegative | None = None,
    batch: PositiveInt = 10_000,
    seed: Seed = 0,
) -> Perturbation:
    """One autoregressive process per class and colour; every image gets a field of its own.

    A process is a 3x3 window of eight weights that sum to 1. A field starts as Gaussian noise with a margin of 4
    pixels; row by row each value becomes the weighted sum of its eight predecessors in the window; the margin is
    dropped. The perturbation has the L2 norm `epsilon` (1/255) on 32x32 images, and in proportion to the side on
    others. Processes are drawn until one is stable, on 32x32 pixels and, beyond 48 a side, at the size of images,
    and the others of the set respond to it by at least `gap` (10 for up to 10 classes, 3 for more, unless given).
    Raises UserError when none is found.
    """
    count, height, width, _ = train.images.shape
    gap = (10.0 if craft.classes <= 10 else 3.0) if gap is None else gap
    larger = craft.generator("larger", seed)
    weights = processes(craft.classes, gap, craft.generator("processes", seed), (height, width), larger)
    norm = epsilon * math.sqrt(height * width / 1024)
    check_reachable("ar", "l2", norm, train.images)
    delta = torch.empty(train.images.shape)
    with craft.progress(count) as progress:
        for rows in torch.arange(count).split(batch):
            drawn = fields(weights[train.labels[rows]], height, width, craft.generator("fields", seed, int(rows[0])))
            delta[rows] = drawn * (norm / drawn.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
            progress.advance_to(int(rows[-1]) + 1)
    return Perturbation(delta, Budget("l2", norm))


def fields(weights: torch.Tensor, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Fields (B, H, W, C) float32 of the processes (B, C, 8), position by position for all images at once."""
    count, channels, _ = weights.shape
    rows, columns = height + MARGIN, width + MARGIN
    field = _normal(rows, columns, count * channels, generator=generator)
    weights = weights.permute(2, 0, 1).reshape(8, count * channels).contiguous()
    for row in range(rows - 2):
        for column in range(columns - 2):
            value = field[row + 2, column + 2].zero_()
            for (down, right), weight in zip(NEIGHBOURS, weights, strict=True):
                value += field[row + down, column + right] * weight  # not fused: the same bytes with any instructions
    return field[MARGIN:, MARGIN:].reshape(height, width, count, channels).permute(2, 0, 1, 3)


def _normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers in float32, drawn in float64.

    What torch draws in float32 depends on the processor's instructions.
    """
    return torch.randn(shape, generator=generator, dtype=torch.float64).float()


def response(field: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """How far fields (B, H, W, C) are from following the processes (P, C, 8): the L2 norm (B, P) of the residual."""
    height, width = field.shape[1:3]
    windows = [field[:, down : height - 2 + down, right : width - 2 + right] for down, right in NEIGHBOURS]
    predicted = torch.einsum("bhwck,pck->bhwpc", torch.stack(windows, -1), weights)
    return (field[:, 2:, 2:, None] - predicted).square().sum((1, 2, 4)).sqrt()


def _tried(weights: torch.Tensor, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Fields (B, TRIALS, H, W) of processes of one colour (B, 1, 8)."""
    return fields(weights.repeat_interleave(TRIALS, 0), *size, generator).reshape(len(weights), TRIALS, *size)


def _stable(tried: torch.Tensor) -> torch.Tensor:
    """Whether all fields (B, TRIALS, H, W) of a process are small for their size; one that is not finite is not."""
    largest = LARGEST * math.sqrt(tried[0, 0].numel()) / SIDE
    return (tried.flatten(2).norm(dim=2) <= largest).all(1)


def processes(
    classes: int,
    gap: float,
    generator: torch.Generator,
    size: tuple[int, int] = (SIDE, SIDE),
    larger: torch.Generator | None = None,
) -> torch.Tensor:
    """Weights (K, 3, 8) float32 of `classes` processes, each stable, each far from all before it in both directions.

    For images whose `size` (H, W) is beyond `FAR` they have to be stable on fields of that size too, drawn from
    `larger`. Raises UserError when too few are found.
    """
    found, trials, without_success = torch.zeros(0, 3, 8), torch.zeros(0, SIDE, SIDE, 3), 0
    for _ in range(ATTEMPTS):
        if without_success == PATIENCE:
            found, trials, without_success = found[1:], trials[TRIALS:], 0
        without_success += 1
        # one colour each: stable processes are too rare to draw three colours at a time
        drawn = _normal(CANDIDATES, 1, 8, generator=generator)
        drawn /= drawn.sum(2, keepdim=True)
        tried = _tried(drawn, (SIDE, SIDE), generator)
        stable = torch.nonzero(_stable(tried)).flatten()
        if larger is not None and max(size) > FAR and len(stable):
            stable = stable[_stable(_tried(drawn[stable], size, larger))]
        for colours in stable[: len(stable) // 3 * 3].reshape(-1, 3):
            weight, own = drawn[colours, 0][None], tried[colours].permute(1, 2, 3, 0)
            if (response(own, found) >= gap).all() and (response(trials, weight) >= gap).all():
                found, trials, without_success = torch.cat([found, weight]), torch.cat([trials, own]), 0
            if len(found) == classes:
                return found
    raise UserError(
        f"ar: found {len(found)} processes for {classes} classes that are {gap:g} apart; give a smaller gap"
    )
