"""ResNet-18 for small images."""

from torch import nn

from relearn.errors import UserError
from relearn.registry import Channels, register
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.models import Grouped, check_min_size

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"resnet18": ["stem", "layer1", "layer2", "layer3", "layer4", "head"]}


@register
def resnet18(num_classes: int, image_size: tuple[int, int], *, width: Channels = 64) -> Grouped:
    """ResNet-18 with the CIFAR stem (3x3 convolution, stride 1, no pooling) and torchvision's basic block.

    `width` is the number of channels of the first stage. Raises UserError for images (H, W) of less than 16 pixels a
    side, or a width of less than 8. He et al., 2016 (arXiv 1512.03385), sections 3.3 and 4.2.
    """
    check_min_size(image_size, 16, "resnet18")
    if width < 8:  # torch 2.13 on a CPU writes outside its memory in the backward pass of a narrower shortcut
        raise UserError(f"resnet18: width must be 8 or more, found {width}")
    basic_block = torchvision().models.resnet.BasicBlock

    def stage(before: int, after: int, stride: int) -> nn.Module:
        shortcut = None
        if before != after or stride != 1:
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        return nn.Sequential(basic_block(before, after, stride, shortcut), basic_block(after, after))

    return Grouped(
        {
            "stem": nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            "layer1": stage(width, width, 1),
            "layer2": stage(width, 2 * width, 2),
            "layer3": stage(2 * width, 4 * width, 2),
            "layer4": stage(4 * width, 8 * width, 2),
            "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes)),
        }
    )
