"""LSP: linearly separable perturbations.

Yu et al., 2022, Availability Attacks Create Shortcuts (arXiv 2111.00898).
"""

import math

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.errors import UserError
from relearn.registry import Levels, Positive, Seed, Side, register
from relearn.runtime import memory


@register
def lsp(
    train: Split,
    craft: CraftContext,
    *,
    epsilon: Levels = 6.0,
    patch: Side = 8,
    separation: Positive = 10.0,
    seed: Seed = 0,
) -> Perturbation:
    """Gaussian clusters, one per class, at corners of a hypercube, enlarged to blocks of `patch` pixels.

    Each perturbation has the L2 norm `epsilon` * sqrt(3 H W), in 1/255: `epsilon` (1/255) is its root mean square, not
    an L-inf bound. The clusters follow the construction the authors take from scikit-learn: unit variance, corners
    2 * `separation` apart, then a random linear map within each cluster; drawn here from our own generator, so that
    bytes do not depend on a library's version, and for every image on its own, so that classes may be of any size.
    Raises UserError when an image is smaller than a patch or there are more classes than corners.
    """
    height, width = train.images.shape[1:3]
    rows, columns = math.ceil(height / patch), math.ceil(width / patch)
    dimensions = 3 * rows * columns
    classes = int(train.labels.max()) + 1
    if patch > min(height, width):
        raise UserError(f"lsp: a patch of {patch} does not fit images of {height}x{width}; choose a smaller patch")
    if classes > 2 ** min(dimensions, 40):
        raise UserError(f"lsp: {classes} classes need more than {dimensions} block values; choose a smaller patch")
    needed = 8 * (classes * dimensions**2 + 2 * len(train) * dimensions)
    memory.check(needed, f"lsp with patches of {patch} pixels", "choose a larger patch")
    corners = _corners(classes, dimensions, craft.generator("corners", seed)) * separation
    points = torch.randn(len(train), dimensions, generator=craft.generator("points", seed), dtype=torch.float64)
    shape = (classes, dimensions, dimensions)
    mix = torch.rand(shape, generator=craft.generator("mix", seed), dtype=torch.float64) * 2 - 1
    for label in range(classes):
        of_class = train.labels == label
        points[of_class] = points[of_class] @ mix[label] + corners[label]
    blocks = points.reshape(-1, 3, rows, columns).float()
    delta = F.interpolate(blocks, scale_factor=patch, mode="nearest")[:, :, :height, :width]
    norm = epsilon * math.sqrt(3 * height * width)
    delta = delta * (norm / delta.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    return Perturbation(delta.permute(0, 2, 3, 1).contiguous(), Budget("l2", norm))


def _corners(count: int, dimensions: int, generator: torch.Generator) -> torch.Tensor:
    """`count` different corners (count, dimensions) float64 of the hypercube [-1, 1]."""
    found: dict[tuple, None] = {}
    while len(found) < count:
        found[tuple(torch.randint(0, 2, (dimensions,), generator=generator).tolist())] = None
    return torch.tensor(list(found), dtype=torch.float64) * 2 - 1
