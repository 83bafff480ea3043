"""DenseNet-121."""

from torch import nn

from relearn.errors import UserError
from relearn.registry import Channels, register
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.models import Grouped, check_min_size, stem

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"densenet121": ["stem", "block1", "block2", "block3", "block4", "head"]}
DEPTHS = (6, 12, 24, 16)
BOTTLENECK = 4  # channels of the 1x1 convolution of a layer, over the growth rate


@register
def densenet121(num_classes: int, image_size: tuple[int, int], *, width: Channels = 64) -> Grouped:
    """DenseNet-121 of torchvision's layers, with a stem of one 3x3 convolution of stride 1.

    From 112 pixels a side it has the stem of ImageNet (7x7 convolution and max-pooling, each of stride 2). `width` is
    the number of channels of the stem, twice the growth rate. A block ends with the transition to the next. Raises
    UserError for images (H, W) of less than 16 pixels a side, or an odd width. Huang et al., 2017 (arXiv 1608.06993),
    table 1.
    """
    check_min_size(image_size, 16, "densenet121")
    if width % 2:
        raise UserError(f"densenet121: width must be even, twice the growth rate, found {width}")
    parts, growth, channels = torchvision().models.densenet, width // 2, width
    groups: dict[str, nn.Module] = {"stem": stem(width, image_size)}
    for k, depth in enumerate(DEPTHS):
        layers = [parts._DenseBlock(depth, channels, BOTTLENECK, growth, 0.0)]
        channels += depth * growth
        if k + 1 < len(DEPTHS):
            layers.append(parts._Transition(channels, channels // 2))
            channels //= 2
        else:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        groups[f"block{k + 1}"] = nn.Sequential(*layers)
    groups["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    return Grouped(groups, published=_published())


def _published() -> dict[str, str]:
    """Names of modules in torchvision's checkpoint, which has `norm.1` where its network has `norm1`, and ours."""
    found = {
        "features.conv0": "stem.0",
        "features.norm0": "stem.1",
        "features.norm5": "block4.1",
        "classifier": "head.2",
    }
    for k, depth in enumerate(DEPTHS):
        theirs, ours = f"features.denseblock{k + 1}", f"block{k + 1}.0"
        found |= {theirs: ours, f"features.transition{k + 1}": f"block{k + 1}.1"}
        for layer in range(1, depth + 1):
            for kind in ("norm", "conv"):
                for number in (1, 2):
                    found[f"{theirs}.denselayer{layer}.{kind}.{number}"] = f"{ours}.denselayer{layer}.{kind}{number}"
    return found
