"""VGG-19 with batch normalisation for small images."""

from torch import nn

from relearn.registry import Channels, register
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.models import Grouped, check_min_size

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"vgg19_bn": ["block1", "block2", "block3", "block4", "block5", "head"]}


@register
def vgg19_bn(num_classes: int, image_size: tuple[int, int], *, width: Channels = 64) -> Grouped:
    """The sixteen convolutions of VGG-19 in torchvision's layout, one layer group per resolution, and a linear head.

    `width` is the number of channels of the first group. The head is a single linear layer after average pooling, as is
    usual for 32x32 images. Raises UserError for images (H, W) of less than 32 pixels a side. Simonyan and Zisserman,
    2015 (arXiv 1409.1556), table 1, column E.
    """
    check_min_size(image_size, 32, "vgg19_bn")
    channels = [width, 2 * width, 4 * width, 8 * width, 8 * width]
    depths = (2, 2, 4, 4, 4)
    layout = [item for count, depth in zip(channels, depths, strict=True) for item in [*[count] * depth, "M"]]
    groups: dict[str, nn.Module] = {}
    layers: list[nn.Module] = []
    published: dict[str, str] = {}  # torchvision's names of the layers, which it counts through
    for number, layer in enumerate(torchvision().models.vgg.make_layers(layout, batch_norm=True)):
        published[f"features.{number}"] = f"block{len(groups) + 1}.{len(layers)}"
        layers.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            groups[f"block{len(groups) + 1}"] = nn.Sequential(*layers)
            layers = []
    groups["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes))
    return Grouped(groups, published=published)
