"""Image files of folders and archives: which there are, and what is in them as (H, W, 3) uint8."""

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not all of Pillow's: reading EPS would run Ghostscript
HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}  # left by desktops; so are names that begin with a dot
BESIDE = ("README.md", "manifest.json", "SHA256SUMS", "labels.csv")  # what protect and export put beside images
MAX_PIXELS = 50_000_000  # of an image once decoded; a file of some kilobytes can unpack to gigabytes
LARGE = 4_000_000  # pixels; such images are decoded one at a time
SHOWN = 100  # characters of a name in a message
TASK = 64  # images per task of the pool
THREADS = 2  # the result does not depend on it; more are no faster for small images


@dataclass(frozen=True)
class View:
    """How an image becomes a square of `size`: its shorter side becomes `shorter`, then the centre is cut out."""

    size: int
    shorter: int
    resample: Image.Resampling = Image.Resampling.BICUBIC


def image_suffixes() -> set[str]:
    """The endings of image files that are read, in lower case."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}


def shown(name: object) -> str:
    """A name in a message: on one line and not too long, whatever it holds."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]}"


def class_files(base: Path, part: str, errors: list[str], most: int | None = None) -> dict[str, list[Path]]:
    """The image files of each class of `part`, both in order; what is not one is added to `errors`.

    Of more than `most` classes it takes the first by name, and looks into no other. Files in `BESIDE` are passed over.
    """
    if not (base / part).is_dir():
        errors.append(f"{part}/ is missing")
        return {}
    suffixes = image_suffixes()
    found: dict[str, list[Path]] = {}
    entries = visible(base / part, errors)
    entries = [entry for entry in entries if entry.name not in BESIDE]
    for entry in entries if most is None else sorted(entries, key=lambda entry: entry.name)[:most]:
        words = shown(entry.relative_to(base))
        if not entry.is_dir():
            errors.append(f"{words} lies outside the folders of the classes")
            continue
        if not entry.name.isprintable():  # nor are bytes that are not UTF-8; the name goes into tables and figures
            errors.append(f"the name of {words} has characters that cannot be printed")
            continue
        files = found[entry.name] = []
        for file in visible(entry, errors):
            if not file.is_file():
                errors.append(f"{shown(file.relative_to(base))} is not a file")
            elif file.suffix and file.suffix.lower() not in suffixes:
                errors.append(f"{shown(file.relative_to(base))} is not an image by its name")
            else:
                files.append(file)
        if not files:
            errors.append(f"{part}/{entry.name} holds no images")
    if not found:
        errors.append(f"{part}/ holds no class folders")
    return dict(sorted(found.items()))


def missing_classes(listed: dict[str, dict[str, list[Path]]]) -> list[str]:
    """An error for each class that only one of the two parts has; none where a part has no classes at all."""
    one, other = listed
    if not (listed[one] and listed[other]):
        return []
    pairs = ((one, other), (other, one))
    return [
        f"class '{name}' is in {here}/ but not in {there}/"
        for here, there in pairs
        for name in listed[here]
        if name not in listed[there]
    ]


def same_folders(base: Path, listed: dict[str, dict[str, list[Path]]]) -> list[str]:
    """An error for each class folder that a link makes the same as one before: as a rule, test images in training."""
    errors, seen = [], dict[str, str]()
    for place in (f"{part}/{name}" for part in listed for name in listed[part]):
        other = seen.setdefault(os.path.realpath(base / place), place)
        if other != place:
            errors.append(f"{other} and {place} are the same folder")
    return errors


def visible(directory: Path, errors: list[str]) -> list[Path]:
    """The entries of a folder without what desktops leave there, with numbers in their names in numeric order."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        errors.append(f"{shown(directory)} cannot be read ({error.strerror})")
        return []
    visible = [name for name in names if not name.startswith(".") and name.lower() not in HIDDEN]
    return [directory / name for name in sorted(visible, key=lambda name: (_natural_key(name), name))]


def _natural_key(name: str) -> list:
    return [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"(\d+)", name))]


def read(files: list[Path], images: np.ndarray, view: View) -> tuple[np.ndarray, list[tuple[Path, str]]]:
    """Fill `images` (N, size, size, 3) uint8 with those of `files`, in order.

    Returns, (N,) float, for an image of more than 8 bits its brightest value as a share of the range, else NaN; and
    the files that are no images, each with the reason.
    """
    brightest = np.full(len(files), np.nan)

    def fill(begin: int) -> list[tuple[Path, str]]:
        unreadable = []
        for row, file in enumerate(files[begin : begin + TASK], begin):
            try:
                images[row], brightest[row] = _image(file, view)
            except Image.UnidentifiedImageError:
                unreadable.append((file, "not an image"))
            except Exception as error:  # damaged bytes raise almost anything: OSError, SyntaxError, struct.error, ...
                unreadable.append((file, shown(error) or type(error).__name__))
        return unreadable

    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # the bound before decoding, 89 million pixels
        unreadable = [found for task in pool.map(fill, range(0, len(files), TASK)) for found in task]
    return brightest, unreadable


def decoded(content: bytes, size: int) -> np.ndarray:
    """The image (size, size, 3) uint8 that the bytes of a file hold. Raises ValueError for one of another size."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if image.size != (size, size):
                raise ValueError(f"{image.width}x{image.height} pixels, not {size}x{size}")
            return np.asarray(_rgb(image, _bits(image)))
    except Image.UnidentifiedImageError:
        raise ValueError("not an image") from None
    except Exception as error:  # damaged bytes raise almost anything
        raise ValueError(shown(error) or type(error).__name__) from None


_one_large = threading.Lock()


@contextlib.contextmanager
def opened(file: Path | BinaryIO, least: int | None = None) -> Iterator[tuple[Image.Image, int]]:
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


def _image(file: Path, view: View) -> tuple[np.ndarray, float]:
    with opened(file, 2 * view.shorter) as (flat, bits):
        brightest = float(np.asarray(flat).max()) / 255 if bits > 8 else np.nan
        side = min(flat.size) * view.size / view.shorter
        left, top = (flat.width - side) / 2, (flat.height - side) / 2
        # resizing just the central square equals resizing all and cutting out the centre
        box = (left, top, left + side, top + side)
        square = flat.resize((view.size, view.size), view.resample, box=box)
        return np.asarray(square), brightest


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
