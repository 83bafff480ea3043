"""MobileNetV2."""

from torch import nn

from relearn.registry import Channels, register
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.models import Grouped, check_min_size, is_large

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"mobilenet_v2": ["stem", "stage1", "stage2", "stage3", "stage4", "head"]}
#: of each stage the runs of equal blocks: expansion, channels, how many blocks, stride of the first
STAGES = (
    ((1, 16, 1, 1), (6, 24, 2, 2)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)
STEM, LAST = 32, 1280  # channels of the first and of the last convolution


@register
def mobilenet_v2(num_classes: int, image_size: tuple[int, int], *, width: Channels = 32) -> Grouped:
    """MobileNetV2 of torchvision's inverted residuals, at stride 1 in the stem and the first stage.

    From 112 pixels a side it has stride 2 in both, as for ImageNet. `width` is the number of channels of the stem; all
    others change with it and are multiples of 8. There is no dropout. Raises UserError for images (H, W) of less than
    16 pixels a side. Sandler et al., 2018 (arXiv 1801.04381), table 2.
    """
    check_min_size(image_size, 16, "mobilenet_v2")
    block, large = torchvision().models.mobilenetv2.InvertedResidual, is_large(image_size)

    def channels(count: int) -> int:
        return max(8, 8 * round(count * width / STEM / 8))

    before = channels(STEM)
    groups: dict[str, nn.Module] = {"stem": _convolution(3, before, 3, 2 if large else 1)}
    published: dict[str, str] = {}  # torchvision's names of the blocks, which it counts through
    for k, runs in enumerate(STAGES):
        blocks = []
        for expansion, count, repeats, stride in runs:
            after = channels(count)
            for place in range(repeats):
                # the first stage shrinks only large images
                own = stride if place == 0 and (k > 0 or large) else 1
                blocks.append(block(before, after, own, expansion))
                before = after
                published[f"features.{len(published) + 1}"] = f"stage{k + 1}.{len(blocks) - 1}"
        groups[f"stage{k + 1}"] = nn.Sequential(*blocks)
    last = max(LAST, channels(LAST))
    linear = nn.Linear(last, num_classes)
    groups["head"] = nn.Sequential(_convolution(before, last, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    published |= {"features.0": "stem", f"features.{len(published) + 1}": "head.0", "classifier.1": "head.3"}
    return Grouped(groups, published=published)


def _convolution(before: int, after: int, side: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(before, after, side, stride, side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU6())
