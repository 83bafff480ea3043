"""A network of the family of the CIFAR speed runs: fast to train, and close to a ResNet's accuracy."""

import torch
from torch import nn

from relearn.registry import Channels, register
from relearn.training.models import Grouped, check_min_size

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"speednet": ["whitening", "block1", "block2", "block3", "head"]}

PATCH = 2  # pixels a side of a whitened patch
SMALLEST = 5e-4  # added to the variance of every direction, so that noise is not blown up
MOMENTUM = 0.4  # of batch norm, whose statistics must follow a training of few epochs


class Speednet(Grouped):
    """Layer groups whose first one whitens patches of the images that the network is to be trained on."""

    fit_images = 2000

    @torch.no_grad()
    def fit_to(self, x: torch.Tensor) -> None:
        """End the initialisation: set the filters of the whitening from `x` (N, 3, H, W) float32, as the model gets it.

        The filters are the eigenvectors of the covariance of all patches, each over the square root of its eigenvalue,
        and the negatives of these, since ReLU follows.
        """
        whitening = self.get_submodule("whitening")[0]  # type: ignore[index]
        patches = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH**2)
        values, vectors = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
        filters = (vectors / (values + SMALLEST).sqrt()).T.flip(0).reshape(-1, 3, PATCH, PATCH).to(x.dtype)
        whitening.weight.copy_(torch.cat([filters, -filters]))


@register
def speednet(num_classes: int, image_size: tuple[int, int], *, width: Channels = 64) -> Grouped:
    """A frozen whitening of 2x2 patches, and three blocks of two 3x3 convolutions of 1, 4 and 4 times `width` channels.

    A block halves the size after its first convolution. The whitening is set from the images that the network is built
    for. Raises UserError for images (H, W) of less than 10 pixels a side. After Page, 2018 (ResNet-9) and Jordan, 2024
    (arXiv 2404.00498), section 3; ReLU in place of GELU.
    """
    check_min_size(image_size, 10, "speednet")
    whitened = 2 * 3 * PATCH**2
    whitening = nn.Conv2d(3, whitened, PATCH, bias=False)
    whitening.weight.requires_grad_(False)

    def block(before: int, after: int) -> nn.Module:
        layers = [
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(after, momentum=MOMENTUM),
        ]
        layers += [nn.ReLU(), nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after, momentum=MOMENTUM)]
        return nn.Sequential(*layers, nn.ReLU())

    return Speednet(
        {
            "whitening": nn.Sequential(whitening, nn.ReLU()),
            "block1": block(whitened, width),
            "block2": block(width, 4 * width),
            "block3": block(4 * width, 4 * width),
            "head": nn.Sequential(_GlobalMax(), nn.Linear(4 * width, num_classes, bias=False)),
        }
    )


class _GlobalMax(nn.Module):
    """The largest value of each channel; unlike AdaptiveMaxPool2d it is deterministic on a GPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C)."""
        return x.amax((2, 3))
