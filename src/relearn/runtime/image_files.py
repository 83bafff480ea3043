"""Image files of anyone's: which files of a folder are meant, and one image decoded to RGB within bounds."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not all of Pillow's: reading EPS would run Ghostscript
HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}  # left by desktops; so are names that begin with a dot
MAX_PIXELS = 50_000_000  # of an image once decoded; a file of some kilobytes can unpack to gigabytes
LARGE = 4_000_000  # pixels; such images are decoded one at a time
SHOWN = 100  # characters of a name in a message


def image_suffixes() -> set[str]:
    """The endings of image files that are read, in lower case."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}


def shown(name: object) -> str:
    """A name in a message: on one line and not too long, whatever it holds."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]}"


def visible(directory: Path, errors: list[str]) -> list[Path]:
    """The entries of a folder without what desktops leave there, with numbers in their names in numeric order."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        errors.append(f"{shown(directory)} cannot be read ({error.strerror})")
        return []
    kept = [name for name in names if not name.startswith(".") and name.lower() not in HIDDEN]
    return [directory / name for name in sorted(kept, key=lambda name: (natural_key(name), name))]


def natural_key(name: str) -> list:
    """A key that sorts names with numbers in numeric order."""
    return [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"(\d+)", name))]


_one_large = threading.Lock()


@contextlib.contextmanager
def decoded(file: Path | BinaryIO, least: int | None = None) -> Iterator[tuple[Image.Image, int]]:
    """The image in a file as RGB, upright, and the bits of a value in the file; large ones one at a time.

    A JPEG is decoded at a fraction of its size that is at least `least` pixels wide and high, if given. Transparency is
    laid on black; of an animation the first frame counts. Raises ValueError for values without a known range and for
    too many pixels, and whatever Pillow raises for damaged bytes.
    """
    with Image.open(file, formats=FORMATS) as image:
        if least is not None:
            image.draft(None, (least, least))
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
        if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
            raise ValueError("a TIFF of several pages; save the one that counts")
        with _one_large if pixels > LARGE else contextlib.nullcontext():
            bits = _bits(image)
            ImageOps.exif_transpose(image, in_place=True)
            yield _rgb(image, bits), bits


def _bits(image: Image.Image) -> int:
    """Bits of a value in the file, before Pillow reads it. Raises ValueError for values without a known range."""
    if image.mode == "F":
        raise ValueError("floating-point values have no known range")
    if isinstance(image, TiffImageFile):
        bits, kind = (max(image.tag_v2.get(tag, (1,))) for tag in (BITSPERSAMPLE, SAMPLEFORMAT))
        if bits > 16 or kind != 1:
            raise ValueError(f"{'signed ' if kind == 2 else ''}{bits}-bit values have no known range")
        return bits
    decoder = str(getattr(image, "tile", []))  # Pillow keeps only the upper 8 bits of colours of 16
    return 16 if image.mode.startswith("I") or ";16" in decoder or "65535" in decoder else 8


def _rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would cut 16-bit values off at 255
        values, top = np.asarray(image).astype(np.uint32), 2**bits - 1
        if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
            values = top - values  # 0 is white there, which Pillow knows of 8 bits only
        image = Image.fromarray(((values * 255 + top // 2) // top).astype(np.uint8))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.new("RGB", layers.size)
        image.paste(layers, mask=layers)
    return image if image.mode == "RGB" else image.convert("RGB")
