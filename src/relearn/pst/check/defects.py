"""What is wrong with images before any network sees them: exact duplicates, near-constant images, small classes."""

import hashlib
from dataclasses import dataclass

import torch

from relearn.data import Split

CONSTANT = 2.0  # levels of 255: an image whose values deviate less from their mean, per channel, shows nothing
SMALL = 20  # images of a class


@dataclass(frozen=True)
class Defects:
    """How many images are duplicates of another of their class, or of another class; and near-constant.

    `small` are the classes of fewer than `SMALL` images, with how many they have.
    """

    within: int
    across: int
    constant: int
    small: dict[str, int]


def defects(data: Split, classes: list[str], counts: torch.Tensor) -> Defects:
    """What is wrong with images (N, H, W, 3) uint8, duplicates by their pixels; `counts` are of the whole set.

    An image that is twice there, under two labels, counts as one across classes, and so does each further one.
    """
    seen: dict[bytes, set[int]] = {}
    within = across = 0
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        labels = seen.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), set())
        within += label in labels
        across += bool(labels - {label})
        labels.add(label)
    flat = torch.empty(len(data.images))
    for images, part in zip(data.images.split(500), flat.split(500), strict=True):
        part.copy_(images.flatten(1, 2).float().std(1).amax(1))
    small = {name: count for name, count in zip(classes, counts.tolist(), strict=True) if count < SMALL}
    return Defects(within, across, int((flat < CONSTANT).sum()), small)
