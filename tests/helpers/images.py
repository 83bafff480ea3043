"""Small images, and generators to draw with."""

import os

import torch

from relearn.data import Split, split

#: where the contract tests of poisons, methods and pretrainings compute: RELEARN_TEST_DEVICE=cuda:0 tries them on a GPU
DEVICE = os.environ.get("RELEARN_TEST_DEVICE", "cpu")


def coloured(counts: list[int], size: tuple[int, int], seed: int) -> Split:
    """`counts[k]` noisy images of class k, each around a colour of its own, in an order that mixes the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    colour = torch.randint(40, 216, (len(labels), 1, 1, 3), generator=generator)
    noise = torch.randint(-40, 41, (len(labels), *size, 3), generator=generator)
    return split((colour + noise).clamp(0, 255).to(torch.uint8), labels)


def noise(count: int, height: int, width: int) -> torch.Tensor:
    """Images (N, H, W, 3) uint8 of noise, none of it black."""
    return torch.randint(
        1, 256, (count, height, width, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )


def drawn(seed: int = 2) -> torch.Generator:
    """A new generator."""
    return torch.Generator().manual_seed(seed)
