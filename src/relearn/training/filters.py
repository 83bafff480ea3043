"""Filters that take fine detail from stored images. Images in and out are (N, H, W, 3) uint8, on any device."""

import io
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from relearn.data import to_float

CHUNK = 2**22  # values at a time, which bounds the memory that a filter needs beside its result

#: images (N, H, W, 3) uint8 -> the same, filtered
Filter = Callable[[torch.Tensor], torch.Tensor]


def jpeg(images: torch.Tensor, quality: int) -> torch.Tensor:
    """Every image compressed to a JPEG of `quality` (1 to 95) by Pillow, with its other defaults, and read again.

    The codec runs on the CPU, in as many threads as torch has.
    """
    pixels = images.cpu().numpy()
    changed = np.empty_like(pixels)

    def code(rows: range) -> None:
        for row in rows:
            stored = io.BytesIO()
            Image.fromarray(pixels[row]).save(stored, "JPEG", quality=quality)
            changed[row] = np.asarray(Image.open(stored))

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(code, [range(first, len(pixels), threads) for first in range(threads)]))
    return torch.from_numpy(changed).to(images.device)


def reduce_bits(images: torch.Tensor, bits: int) -> torch.Tensor:
    """The `bits` (1 to 8) highest bits of every value, the others 0."""
    return images & (256 - 2 ** (8 - bits))


def median(images: torch.Tensor) -> torch.Tensor:
    """The median of each value and its eight neighbours in its channel; beyond the border the outermost go on."""
    return torch.cat([_median(part) for part in _parts(images)])


def gaussian(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """A Gaussian blur of `sigma` pixels, cut off at three sigma, rounded; beyond the border the outermost go on."""
    radius = math.ceil(3 * sigma)
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-radius, radius + 1)]
    weights = [weight / sum(weights) for weight in weights]

    def along(x: torch.Tensor, dim: int) -> torch.Tensor:
        moved = [_shifted(x, k - radius, dim) * weight for k, weight in enumerate(weights)]
        return torch.stack(moved).sum(0)

    parts = [along(along(part.float(), 1), 2).add(0.5).floor().clamp(0, 255).byte() for part in _parts(images)]
    return torch.cat(parts)


def filtered_floats(x: torch.Tensor, change: Filter) -> torch.Tensor:
    """A batch (B, 3, H, W) float in [0, 1] rounded to stored images, changed by a filter, as float32 again."""
    stored = x.permute(0, 2, 3, 1).mul(255).add(0.5).floor().clamp(0, 255).byte()
    return to_float(change(stored.contiguous()))


def _parts(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The images, few enough at a time."""
    return images.split(max(1, CHUNK // images[0].numel()))


def _shifted(x: torch.Tensor, by: int, dim: int) -> torch.Tensor:
    """What lies `by` pixels further along a dimension; beyond the border the outermost pixel goes on."""
    places = torch.arange(by, by + x.shape[dim], device=x.device).clamp(0, x.shape[dim] - 1)
    return x.index_select(dim, places)


def _median(images: torch.Tensor) -> torch.Tensor:
    """Of three sorted columns: the median of the largest minimum, the median of medians, the smallest maximum."""
    low, middle, high = _sorted3(*(_shifted(images, by, 1) for by in (-1, 0, 1)))
    lows, middles, highs = ([_shifted(part, by, 2) for by in (-1, 0, 1)] for part in (low, middle, high))
    return _sorted3(_sorted3(*lows)[2], _sorted3(*middles)[1], _sorted3(*highs)[0])[1]


def _sorted3(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three tensors, sorted value by value."""
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.minimum(low, c), torch.maximum(low, torch.minimum(high, c)), torch.maximum(high, c)
