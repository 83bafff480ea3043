"""PNG files of small images in rows, and perturbations made visible."""

import io

import numpy as np
from PIL import Image

GAP = 2  # pixels between images
FULL = 100  # levels that the largest difference becomes


def amplified(difference: np.ndarray) -> tuple[np.ndarray, float]:
    """A difference in levels (1/255) around middle gray, with the factor that makes its largest value `FULL`."""
    factor = FULL / max(1e-6, float(np.abs(difference).max()))
    return 127.5 + factor * difference, factor


def rows_png(rows: list[np.ndarray], enlarged: int = 1) -> bytes:
    """A PNG of rows of images, each (N, H, W, 3) in levels, rounded and clipped; a pixel becomes `enlarged` a side.

    What lies between the images is transparent.
    """
    count, high, wide, _ = rows[0].shape
    height, width = high + GAP, wide + GAP
    canvas = np.zeros((height * len(rows) - GAP, width * count - GAP, 4), dtype=np.uint8)
    for line, images in enumerate(rows):
        for place, image in enumerate(np.clip(np.round(images), 0, 255).astype(np.uint8)):
            top, left = line * height, place * width
            canvas[top : top + high, left : left + wide, :3] = image
            canvas[top : top + high, left : left + wide, 3] = 255
    picture = Image.fromarray(canvas)
    file = io.BytesIO()
    size = (picture.width * enlarged, picture.height * enlarged)
    picture.resize(size, Image.Resampling.NEAREST).save(file, format="PNG")
    return file.getvalue()
