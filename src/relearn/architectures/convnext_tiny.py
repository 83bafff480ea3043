"""ConvNeXt-T."""

from torch import nn

from relearn.registry import Channels, register
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.initialisation import TRANSFORMER, constant
from relearn.training.models import Grouped, check_min_size, is_large

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"convnext_tiny": ["stem", "stage1", "stage2", "stage3", "stage4", "head"]}
DEPTHS = (3, 3, 9, 3)
LAYER_SCALE = 1e-6  # what every block's output is scaled by at first
EPSILON = 1e-6  # of layer norm


@register
def convnext_tiny(num_classes: int, image_size: tuple[int, int], *, width: Channels = 96) -> Grouped:
    """ConvNeXt-T of torchvision's block, with a stem of 2x2 patches; it learns with `adamw` (`recipe`).

    From 112 pixels a side the stem has 4x4 patches, as for ImageNet. `width` is the number of channels of the first
    stage. There is no stochastic depth. Weights begin truncated normal, layer scales at 1e-6. Raises UserError for
    images (H, W) of less than 16 pixels a side. Liu et al., 2022 (arXiv 2201.03545), table 9.
    """
    check_min_size(image_size, 16, "convnext_tiny")
    parts, patch = torchvision().models.convnext, 4 if is_large(image_size) else 2

    def norm(channels: int) -> nn.Module:
        return parts.LayerNorm2d(channels, eps=EPSILON)

    groups: dict[str, nn.Module] = {"stem": nn.Sequential(nn.Conv2d(3, width, patch, patch), norm(width))}
    # torchvision's names: it counts stems and stages through, and has what shrinks a stage beside its blocks
    published = {"features.0": "stem", "classifier.0": "head.1", "classifier.2": "head.3"}
    channels = width
    for k, depth in enumerate(DEPTHS):
        layers: list[nn.Module] = []
        if k:
            layers += [norm(channels), nn.Conv2d(channels, 2 * channels, 2, 2)]
            channels *= 2
            published[f"features.{2 * k}"] = f"stage{k + 1}"
        published |= {f"features.{2 * k + 1}.{j}": f"stage{k + 1}.{len(layers) + j}" for j in range(depth)}
        layers += [parts.CNBlock(channels, LAYER_SCALE, 0.0) for _ in range(depth)]
        groups[f"stage{k + 1}"] = nn.Sequential(*layers)
    head = [nn.AdaptiveAvgPool2d(1), norm(channels), nn.Flatten(), nn.Linear(channels, num_classes)]
    groups["head"] = nn.Sequential(*head)
    return Grouped(groups, TRANSFORMER | {parts.CNBlock: constant(layer_scale=LAYER_SCALE)}, published)
