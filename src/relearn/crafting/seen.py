"""What a surrogate sees of the images while a poison is crafted against a defence that would show them so.

An attack that knows the defence is called adaptive. Functions of a batch (B, 3, H, W) float32 in [0, 1], with a
generator of its device; gradients pass through all of them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from relearn.probing.hiding import gray
from relearn.training.degrade import quantise
from relearn.training.views import View

BLOCK = 2  # pixels a side that `coarse` averages


def coarse(x: torch.Tensor) -> torch.Tensor:
    """Each image at half its resolution, every pixel enlarged to a square again; its size stays.

    Squares at the border may be smaller. The gradient is deterministic on a GPU, unlike that of an interpolation.
    """
    means = F.avg_pool2d(x, BLOCK, ceil_mode=True, count_include_pad=False)
    count, channels, height, width = means.shape
    squares = means[:, :, :, None, :, None].expand(-1, -1, -1, BLOCK, -1, BLOCK)
    enlarged = squares.reshape(count, channels, height * BLOCK, width * BLOCK)
    return enlarged[:, :, : x.shape[2], : x.shape[3]].contiguous(memory_format=torch.channels_last)


def compressed(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image quantised as JPEG does, at a quality drawn per image (relearn.training.degrade).

    Rounding has no gradient; it passes as if there were none (Bengio et al., 2013, arXiv 1308.3432: straight-through).
    """
    with torch.no_grad():
        change = quantise(x, generator) - x
    return x + change


#: setting `through` of a poison -> what its surrogate sees
SEEN: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "crops": lambda x, _: x,
    "gray": lambda x, _: gray(x),
    "views": lambda x, generator: View().of(x, generator),
    "coarse": lambda x, _: coarse(x),
    "jpeg": compressed,
}
