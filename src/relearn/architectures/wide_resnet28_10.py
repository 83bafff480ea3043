"""Wide residual networks."""

import torch
import torch.nn.functional as F
from torch import nn

from relearn.errors import UserError
from relearn.registry import Channels, PositiveInt, register
from relearn.training.models import Grouped, check_min_size

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"wide_resnet28_10": ["stem", "stage1", "stage2", "stage3", "head"]}
STEM = 16  # channels
DEEPEST = 1000  # layers


@register
def wide_resnet28_10(
    num_classes: int, image_size: tuple[int, int], *, width: Channels = 160, depth: PositiveInt = 28
) -> Grouped:
    """WRN-28-10: a 3x3 convolution of 16 channels, and three stages of pre-activated blocks without dropout.

    `width` is the number of channels of the first stage, 16 times the factor in the network's name. `depth` counts
    layers and is 6n + 4 for n blocks a stage. The network is the same for every image size. Raises UserError for images
    (H, W) of less than 8 pixels a side, a width of less than 8, or another depth. Zagoruyko and Komodakis, 2016
    (arXiv 1605.07146), table 1.
    """
    check_min_size(image_size, 8, "wide_resnet28_10")
    if width < 8:  # torch 2.13 on a CPU writes outside its memory in the backward pass of a narrower shortcut
        raise UserError(f"wide_resnet28_10: width must be 8 or more, found {width}")
    blocks, rest = divmod(depth - 4, 6)
    if rest or not 10 <= depth <= DEEPEST:
        raise UserError(f"wide_resnet28_10: depth must be 6n + 4, such as 16, 28 or 40, found {depth}")
    groups: dict[str, nn.Module] = {"stem": nn.Conv2d(3, STEM, 3, 1, 1, bias=False)}
    before = STEM
    for k in range(3):
        after, stride = width * 2**k, 1 if k == 0 else 2
        stage: list[nn.Module] = [_Block(before, after, stride), *(_Block(after, after) for _ in range(blocks - 1))]
        if k == 2:
            stage += [nn.BatchNorm2d(after), nn.ReLU()]
        groups[f"stage{k + 1}"] = nn.Sequential(*stage)
        before = after
    groups["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))
    return Grouped(groups)


class _Block(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU; a shortcut that changes the shape begins after the ReLU."""

    def __init__(self, before: int, after: int, stride: int = 1):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        changes = before != after or stride != 1
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, before, H, W) to (B, after, H / stride, W / stride)."""
        inner = F.relu(self.norm1(x))
        across = x if self.shortcut is None else self.shortcut(inner)
        return across + self.conv2(F.relu(self.norm2(self.conv1(inner))))
