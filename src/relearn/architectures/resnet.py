"""ResNet-18 and ResNet-50."""

from torch import nn

from relearn.errors import UserError
from relearn.registry import Channels, register
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.models import Grouped, check_min_size, stem

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {
    "resnet18": ["stem", "layer1", "layer2", "layer3", "layer4", "head"],
    "resnet50": ["stem", "layer1", "layer2", "layer3", "layer4", "head"],
}
PUBLISHED = {"conv1": "stem.0", "bn1": "stem.1", "fc": "head.2"}  # torchvision's names; the stages have the same


@register
def resnet18(num_classes: int, image_size: tuple[int, int], *, width: Channels = 64) -> Grouped:
    """ResNet-18 of torchvision's basic block, with the CIFAR stem (3x3 convolution, stride 1, no pooling).

    From 112 pixels a side it has the stem of ImageNet (7x7 convolution and max-pooling, each of stride 2). `width` is
    the number of channels of the first stage. Raises UserError for images (H, W) of less than 16 pixels a side, or a
    width of less than 8. He et al., 2016 (arXiv 1512.03385), sections 3.3 and 4.2.
    """
    block = torchvision().models.resnet.BasicBlock
    return _resnet("resnet18", block, (2, 2, 2, 2), num_classes, image_size, width)


@register
def resnet50(num_classes: int, image_size: tuple[int, int], *, width: Channels = 64) -> Grouped:
    """ResNet-50 of torchvision's bottleneck, stride in its 3x3 convolution, with the CIFAR stem.

    From 112 pixels a side it has the stem of ImageNet (7x7 convolution and max-pooling, each of stride 2). `width` is
    the number of channels of the stem; a stage puts out four times its own. Raises UserError for images (H, W) of less
    than 16 pixels a side, or a width of less than 8. He et al., 2016 (arXiv 1512.03385), table 1.
    """
    block = torchvision().models.resnet.Bottleneck
    return _resnet("resnet50", block, (3, 4, 6, 3), num_classes, image_size, width)


def _resnet(
    name: str, block, depths: tuple[int, ...], num_classes: int, image_size: tuple[int, int], width: int
) -> Grouped:
    """Four stages of `depths` blocks between the stem that fits the images and a linear head."""
    check_min_size(image_size, 16, name)
    if width < 8:  # torch 2.13 on a CPU writes outside its memory in the backward pass of a narrower shortcut
        raise UserError(f"{name}: width must be 8 or more, found {width}")
    groups: dict[str, nn.Module] = {"stem": stem(width, image_size)}
    before = width
    for k, depth in enumerate(depths):
        inner, stride = width * 2**k, 1 if k == 0 else 2
        after = block.expansion * inner
        shortcut = None
        if before != after or stride != 1:
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        blocks = [block(before, inner, stride, shortcut), *(block(after, inner) for _ in range(depth - 1))]
        groups[f"layer{k + 1}"] = nn.Sequential(*blocks)
        before = after
    groups["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))
    return Grouped(groups, published=PUBLISHED)
