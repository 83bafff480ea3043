"""Training on mixtures of two images: `mixup` blends them, `cutmix` pastes a part of one into the other."""

import torch
from torch import nn

from relearn.methods.erm import ERM
from relearn.registry import Positive, register


@register
class Mixup(ERM):
    """Plain training on a blend of every image with another of its batch, and with the same blend of their labels.

    The first has the share λ, drawn for each image from the distribution Beta(`alpha`, `alpha`). Zhang et al., 2018
    (arXiv 1710.09412), section 2. Training accuracy counts the label of the larger share.
    """

    def __init__(self, *, alpha: Positive = 1.0, **augmentation):
        super().__init__(**augmentation)
        self.alpha = alpha

    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of the mixtures, and which of their larger parts are recognised."""
        partners = torch.rand(len(x), generator=generator, device=x.device).argsort()
        share = beta(len(x), self.alpha, generator, x.device)
        mixed, share = self.mixture(x, x.index_select(0, partners), share, generator)
        other, logits = y.index_select(0, partners), model(mixed).float()
        classes = torch.arange(logits.shape[1], device=y.device)
        weight = share[:, None]
        labels = weight * (y[:, None] == classes) + (1 - weight) * (other[:, None] == classes)
        # a criterion of soft labels is linear in them, so this is the mean of both losses, by their shares
        return criterion(logits, labels), logits.argmax(1) == torch.where(share >= 0.5, y, other)

    def mixture(
        self, x: torch.Tensor, other: torch.Tensor, share: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mixtures of two batches (B, 3, H, W), and what share of each is of the first, (B,)."""
        return other.lerp(x, share.view(-1, 1, 1, 1)), share


@register
class Cutmix(Mixup):
    """Plain training on every image with a rectangle of another of its batch in it; labels are mixed by area.

    The rectangle has the share 1 - λ of the image and its proportions; λ is drawn for each image from
    Beta(`alpha`, `alpha`). Its centre is drawn from all of the image, and the label's share is what is left after what
    lies outside is cut off. Yun et al., 2019 (arXiv 1905.04899), section 3. All images are mixed; the authors' code for
    CIFAR mixes half of the batches.
    """

    def __init__(self, *, alpha: Positive = 1.0, **augmentation):
        super().__init__(alpha=alpha, **augmentation)

    def mixture(
        self, x: torch.Tensor, other: torch.Tensor, share: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first batch with rectangles of the second, and what share of each image stayed, (B,)."""
        height, width = x.shape[2:]
        side = (1 - share).sqrt()
        rows = _inside(height, side, generator)
        columns = _inside(width, side, generator)
        mixed = torch.where(rows[:, None, :, None] & columns[:, None, None, :], other, x)
        return mixed, 1 - rows.float().mean(1) * columns.float().mean(1)


def beta(count: int, alpha: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Draws (`count`,) from the distribution Beta(`alpha`, `alpha`), for every `alpha` above 0.

    X / (X + Y) of X and Y from Gamma(α). That is the product of one from Gamma(α + 1) and U^(1/α), U uniform; by
    logarithms neither overflows nor ends in 0 / 0.
    """
    gamma = torch._standard_gamma(torch.full((2, count), alpha + 1.0, device=device), generator=generator)
    uniform = 1 - torch.rand(2, count, generator=generator, device=device)  # in (0, 1]
    logs = gamma.log() + uniform.log() / alpha
    return (logs[0] - logs[1]).sigmoid()


def _inside(pixels: int, share: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Which `pixels` of an axis lie in a piece of this share of it, around a random centre; (B, `pixels`) bool."""
    centre = torch.randint(0, pixels, share.shape, generator=generator, device=share.device)
    length = (share * pixels).floor()
    first = centre - (length / 2).floor()
    places = torch.arange(pixels, device=share.device)
    return (places >= first[:, None]) & (places < (first + length)[:, None])
