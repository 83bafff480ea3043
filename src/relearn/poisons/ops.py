"""OPS: one-pixel shortcuts.

Wu et al., 2023, One-Pixel Shortcut (arXiv 2205.12141), section 3.
"""

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import CHUNK, Budget, Perturbation
from relearn.data import Split
from relearn.errors import UserError
from relearn.registry import PositiveInt, register

#: (8, 3), the corners of the colour cube
COLOURS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)


@register
def ops(train: Split, craft: CraftContext, *, pixels: PositiveInt = 1) -> Perturbation:
    """For each class the `pixels` positions and colours that change its images most and most evenly.

    They are set in all images of the class. A candidate scores mean / standard deviation, over images and channels of
    the class, of |colour - value| at its position (the authors' code; their text divides by the variance); the position
    and colour of an earlier class is not taken again. Declared: an L0 budget of `pixels`, of any amplitude. Draws
    nothing. Raises UserError for more pixels than an image has, or than are left for a class.
    """
    height, width = train.images.shape[1:3]
    if pixels > height * width:
        raise UserError(f"ops: pixels is {pixels}, an image has {height * width}; choose fewer")
    taken = torch.zeros(height * width, len(COLOURS), dtype=torch.bool)
    delta = torch.zeros(train.images.shape)
    for label in train.labels.unique().tolist():
        rows = torch.nonzero(train.labels == label).flatten()
        images = train.images[rows].reshape(len(rows), height * width, 3)
        places, colours = _best(scores(images).masked_fill(taken, 0.0), pixels)
        if taken[places, colours].any():
            raise UserError(
                f"ops: no positions and colours are left for class {label}, with {pixels} pixels for each class before "
                "it; choose fewer"
            )
        taken[places, colours] = True
        change = 255 * COLOURS[colours].float() - images[:, places].float()
        delta[rows[:, None], (places // width)[None], (places % width)[None]] = change
    return Perturbation(delta, Budget("l0", float(pixels)))


def scores(images: torch.Tensor) -> torch.Tensor:
    """The score (P, 8) float64 of each position and each of `COLOURS` for one class's images (N, P, 3) uint8."""
    total, squares = torch.zeros(2, *images.shape[1:], dtype=torch.float64)
    for part in images.split(CHUNK):  # sums of whole numbers, so that their order does not matter
        values = part.to(torch.float64)
        total += values.sum(0)
        squares += values.square_().sum(0)
    mean, square = total[:, None] / (255 * len(images)), squares[:, None] / (255**2 * len(images))  # (P, 1, 3)
    high = COLOURS[None] == 1
    mean, square = torch.where(high, 1 - mean, mean), torch.where(high, 1 - 2 * mean + square, square)
    mean, square = mean.mean(2), square.mean(2)
    return mean / (square - mean.square()).clamp_min(1e-12).sqrt()


def _best(found: torch.Tensor, pixels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `pixels` best positions, each once, and the colour of each."""
    score, colours = found.max(1)
    places = score.argsort(descending=True, stable=True)[:pixels]
    return places, colours[places]
