"""A variational autoencoder that explains an image in two parts: the image, and a perturbation of its class.

Yu et al., 2024 (arXiv 2405.01460), "D-VAE".
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from relearn.training.models import initialise

GROUPS = 8  # of group norm; widths are multiples of it
LIMIT = 10.0  # of the logarithm of a variance, so that its exponential stays finite


@dataclass
class Explained:
    """Of images (B, 3, H, W): what is decoded, a perturbation, both of this shape in [0, 1] and in any range; the rate.

    The rate is the mean over images and places of the Kullback-Leibler divergence of the code from a standard normal
    distribution, summed over its channels, in nats.
    """

    image: torch.Tensor
    perturbation: torch.Tensor
    rate: torch.Tensor


class Residual(nn.Module):
    """Two 3x3 convolutions with group norm, added to their input."""

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input, changed."""
        return x + self.layers(x)


def _decoder(channels: int, width: int) -> nn.Sequential:
    """From a code at half the resolution to three channels at the whole."""
    shuffle = [nn.Conv2d(width, 4 * width, 3, padding=1, bias=False), nn.PixelShuffle(2), nn.GroupNorm(GROUPS, width)]
    last = nn.Conv2d(width, 3, 3, padding=1)
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), Residual(width), *shuffle, nn.ReLU(), last)


class Disentangling(nn.Module):
    """An encoder, a decoder of images, and one of perturbations that also gets an embedding of the class.

    The code has `latent` channels at half the resolution. With `spatial` a class has an embedding for each place, else
    one for all. Weights come from `generator`; at first the code says nothing, and the perturbation is 0.
    """

    def __init__(
        self, classes: int, size: tuple[int, int], *, width: int, latent: int, spatial: bool, generator: torch.Generator
    ):
        super().__init__()
        self.classes, self.size = classes, size
        self.places = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        self.latent, self.grid = latent, self.places if spatial else (1, 1)
        stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), Residual(width)]
        stem += [nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), Residual(width)]
        self.encoder = nn.Sequential(*stem, nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, 2 * latent, 1))
        self.embedding = nn.Linear(classes, latent * self.grid[0] * self.grid[1], bias=False)
        self.image, self.perturbation = _decoder(latent, width), _decoder(2 * latent, width)
        initialise(self, generator)
        for part in (self.encoder, self.image, self.perturbation):
            nn.init.zeros_(list(part.parameters())[-2])  # the weight of its last layer; the bias is 0 already

    def forward(self, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator | None = None) -> Explained:
        """Images (B, 3, H, W) in [0, 1] with labels (B,), explained; without a generator by the mean of the code."""
        mean, log_variance = self.encoder(x - 0.5).chunk(2, 1)
        log_variance = log_variance.clamp(-LIMIT, LIMIT)
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        code = mean
        if generator is not None:
            drawn = torch.randn(mean.shape, generator=generator, device=x.device)
            code = mean + drawn * (0.5 * log_variance).exp()
        chosen = (y[:, None] == torch.arange(self.classes, device=y.device)).float()
        embedding = self.embedding(chosen).reshape(len(x), self.latent, *self.grid)
        both = torch.cat([code, embedding.expand(len(x), self.latent, *self.places)], 1)
        height, width = self.size
        image, perturbation = (part(of)[..., :height, :width] for part, of in self._decoders(code, both))
        return Explained(image.sigmoid(), perturbation, rate)

    def _decoders(self, code: torch.Tensor, both: torch.Tensor) -> tuple[tuple[nn.Module, torch.Tensor], ...]:
        return (self.image, code), (self.perturbation, both)


def loss(found: Explained, x: torch.Tensor, *, rate: float, weight: float, least: float | None) -> torch.Tensor:
    """Both squared errors, and what the code tells beyond `rate` nats a place, times `weight`.

    The first error is that of the image, the second that of the image with the perturbation, cut off at 0 and 1. With
    `least`, a mean square of the perturbation beyond that is added.
    """
    total = F.mse_loss(found.image, x) + F.mse_loss((found.image + found.perturbation).clamp(0, 1), x)
    total = total + weight * found.rate.clamp_min(rate)
    return total if least is None else total + found.perturbation.square().mean().clamp_min(least)
