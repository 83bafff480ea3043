"""The embedded dataset: real handwriting in synthetic colours, made without a download."""

from pathlib import Path

import numpy as np
import torch

from relearn.data import Dataset, split
from relearn.errors import UserError
from relearn.registry import NonNegativeInt, Positive, PositiveInt, register

TEST_PER_CLASS = 50  # handwritten originals of each class in the test split; no original is in both splits


@register
def digits(
    root: Path,
    *,
    copies: PositiveInt = 3,
    size: PositiveInt = 32,
    contrast: Positive = 32.0,
    noise: Positive = 4.0,
    seed: NonNegativeInt = 0,
) -> Dataset:
    """The 1,797 handwritten digits of scikit-learn, each composed `copies` times into an RGB image of `size` x `size`.

    A digit is enlarged to seven eighths of the side, put at a random place, and painted in a random colour on a random
    smooth background; the two differ by at least `contrast` levels of brightness, either way, and `noise` is the
    standard deviation of the pixel noise (both in 1/255). Colour, brightness and place therefore say nothing about the
    class. Of each class the last 50 originals are the test split (one composition of each per copy too). Only sums,
    products and table lookups in float64: the same bytes on every machine. Raises UserError for a `size` of less
    than 10. Alpaydin and Kaynak, 1998 (Optical Recognition of Handwritten Digits).
    """
    from sklearn.datasets import load_digits

    if size < 10:
        raise UserError(f"digits: size is {size}; a handwritten digit of 8x8 pixels needs at least 10")
    bundle = load_digits()
    labels = bundle.target.astype(np.int64)
    rank = np.array([np.sum(labels[:k] == label) for k, label in enumerate(labels)])
    is_test = rank >= np.bincount(labels)[labels] - TEST_PER_CLASS
    parts = []
    for part, chosen in enumerate((~is_test, is_test)):
        random = np.random.Generator(np.random.PCG64([seed, part]))
        glyphs = np.repeat(bundle.images[chosen] / 16.0, copies, axis=0)
        images = _compose(glyphs, size, random, contrast, noise)
        parts.append(split(torch.from_numpy(images), torch.from_numpy(np.repeat(labels[chosen], copies))))
    train, test = parts
    return Dataset(train, test, classes=[str(k) for k in range(10)])


def _compose(glyphs: np.ndarray, size: int, random: np.random.Generator, contrast: float, noise: float) -> np.ndarray:
    """Images (N, size, size, 3) uint8 of glyphs (N, 8, 8) in 0..1."""
    count, side = len(glyphs), 7 * size // 8
    ink = _placed(_enlarged(glyphs, side), size, random.integers(0, size - side + 1, (2, count)))[..., None]
    ground = random.uniform(104, 152, (count, 1, 1, 3)) + _enlarged(random.uniform(-10, 10, (count, 4, 4, 3)), size)
    ink_colour = _contrasting(ground.mean((1, 2)), random, contrast)[:, None, None, :]
    pixels = ground + ink * (ink_colour - ground) + noise * random.standard_normal((count, size, size, 3))
    return np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)


def _contrasting(ground: np.ndarray, random: np.random.Generator, contrast: float) -> np.ndarray:
    """Colours (N, 3) whose mean is `contrast` or more from that of `ground` (N, 3), at random brighter or darker."""
    mean = ground.mean(1)
    sign = np.where(random.uniform(0, 1, len(mean)) < 0.5, -1.0, 1.0)
    target = mean + sign * contrast * random.uniform(1, 1.75, len(mean))
    tint = random.uniform(-20, 20, (len(mean), 3))
    return np.clip(target[:, None] + tint - tint.mean(1, keepdims=True), 0, 255)


def _enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlargement of (N, h, w, ...) to (N, size, size, ...), axis by axis."""
    for axis in (1, 2):
        before = images.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * before / size - 0.5, 0, before - 1)
        low = np.minimum(place.astype(int), before - 2)
        shape = [1] * images.ndim
        shape[axis] = size
        weight = (place - low).reshape(shape)
        images = np.take(images, low, axis) * (1 - weight) + np.take(images, low + 1, axis) * weight
    return images


def _placed(glyphs: np.ndarray, size: int, offset: np.ndarray) -> np.ndarray:
    """Glyphs (N, g, g) at `offset` (2, N) in empty images (N, size, size)."""
    bordered = np.pad(glyphs, ((0, 0), (size, size), (size, size)))
    rows = size + np.arange(size) - offset[0][:, None]
    columns = size + np.arange(size) - offset[1][:, None]
    return bordered[np.arange(len(glyphs))[:, None, None], rows[:, :, None], columns[:, None, :]]
