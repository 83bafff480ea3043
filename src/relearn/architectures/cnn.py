"""A small convolutional network for CPU grids."""

from torch import nn

from relearn.registry import Channels, register
from relearn.training.models import Grouped, check_min_size

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"cnn": ["block1", "block2", "block3", "block4", "head"]}


@register
def cnn(num_classes: int, image_size: tuple[int, int], *, width: Channels = 16) -> Grouped:
    """Four 3x3 convolution blocks (batch norm, ReLU) of 1, 2, 4 and 4 times `width` channels, halving the size thrice.

    Raises UserError for images (H, W) of less than 8 pixels a side.
    """
    check_min_size(image_size, 8, "cnn")

    def block(before: int, after: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())

    return Grouped(
        {
            "block1": block(3, width, 1),
            "block2": block(width, 2 * width, 2),
            "block3": block(2 * width, 4 * width, 2),
            "block4": block(4 * width, 4 * width, 2),
            "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)),
        }
    )
