"""A folder of the user's own images."""

import contextlib
import os
import re
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from relearn.data import Dataset, Split, subset
from relearn.errors import UserError
from relearn.registry import InputPath, PositiveInt, Seed, Side, register
from relearn.runtime import memory
from relearn.runtime.files import expanded

PARTS = ("train", "test")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not all of Pillow's: reading EPS would run Ghostscript
HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}  # left by desktops; so are names that begin with a dot
MAX_ERRORS = 10  # errors named in a message
MAX_PIXELS = 50_000_000  # of an image once decoded; a file of some kilobytes can unpack to gigabytes
LARGE = 4_000_000  # pixels; such images are decoded one at a time
DARK = 0.25  # of the range: 16-bit images that stay below it hold fewer bits, 14 at most
SHOWN = 100  # characters of a name in a message
TASK = 64  # images per task of the pool
THREADS = 2  # the result does not depend on it; more are no faster for small images


@register
def folder(
    root: Path,
    *,
    path: InputPath,
    size: Side = 32,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: Seed = 0,
) -> Dataset:
    """The images in `path`/train/CLASS and `path`/test/CLASS, as (N, size, size, 3) uint8; `root` is not used.

    Classes are sorted by name, files by name with numbers in numeric order; the index of an image is its place in that
    full list. EXIF rotation is applied, transparency is laid on black, grey, palette, CMYK and 12- and 16-bit images
    become RGB; of an animation the first frame counts. The shorter side becomes `size` (bicubic, antialiased), then the
    centre is cut out; JPEGs of more than twice that size are first decoded at a fraction of theirs. A subset is drawn
    from the names, with `seed`, as for the other datasets: every name is checked, only drawn images are read. Raises
    one UserError that names what is wrong: folders, classes, names, files that cannot be read or whose values have no
    known range (32-bit, signed, floating-point, or 16 bits of which few are used), images too large for the memory.
    """
    base = expanded(path)
    if not os.path.isdir(base):  # unlike Path.is_dir, also for a path that no system accepts
        raise UserError(f"folder: '{_shown(path)}' is not a folder; give one with train/CLASS/ and test/CLASS/")
    errors: list[str] = []
    listed = {part: _classes(base, part, errors) for part in PARTS}
    errors += _missing_classes(listed) + _same_folders(base, listed)
    classes = sorted(listed["train"])
    drawn: dict[str, tuple[Split, list[Path]]] = {}
    for part, per_class in zip(PARTS, (train_per_class, test_per_class), strict=True):
        files = [listed[part].get(name, []) for name in classes]
        if per_class is not None:
            for name, of_class in zip(classes, files, strict=True):
                if 0 < len(of_class) < per_class:
                    errors.append(f"{part}/{name} has {len(of_class)} images, but {part}_per_class is {per_class}")
            per_class = min([per_class, *(len(of_class) for of_class in files if of_class)])
        drawn[part] = _draw(files, per_class, seed)
    count = sum(len(chosen) for _, chosen in drawn.values())
    needed = 2 * count * size**2 * 3  # twice, since writing a split copies it
    memory.check(needed, f"folder: {count} images of {size}x{size} pixels", "choose a smaller size or a subset")
    splits = {}
    for part, (labelled, chosen) in drawn.items():
        images, brightest, unreadable = _read(chosen, size)
        errors += [f"{_shown(file.relative_to(base))} cannot be read ({reason})" for file, reason in unreadable]
        errors += _dark_classes(part, classes, labelled.labels.numpy(), brightest)
        splits[part] = labelled.with_images(images)
    _raise(path, errors)
    return Dataset(splits["train"], splits["test"], classes)


def class_files(base: Path, part: str = ".") -> dict[str, list[Path]]:
    """The image files in `base`/`part`/CLASS, by class, in the order of `folder`. Raises its UserError for others."""
    errors: list[str] = []
    found = _classes(base, part, errors)
    _raise(str(base), errors)
    return found


def read_images(base: Path, files: list[Path], labels: list[int], classes: list[str], size: int) -> torch.Tensor:
    """The images (N, size, size, 3) uint8 in files of the folder `base`, read as `folder` reads them.

    `labels` are their places in `classes`, for messages. Raises UserError for files that are no images, or too dark.
    """
    memory.check(2 * len(files) * size**2 * 3, f"{len(files)} images of {size}x{size} pixels", "choose fewer images")
    images, brightest, unreadable = _read(files, size)
    errors = [f"{_shown(file.relative_to(base))} cannot be read ({reason})" for file, reason in unreadable]
    _raise(str(base), errors + _dark_classes(".", classes, np.array(labels), brightest))
    return images


def _raise(path: str, errors: list[str]) -> None:
    """One UserError of all errors found in the folder `path`, if there are any."""
    if errors:
        more = f"; ... and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
        raise UserError(f"folder: in '{_shown(path)}', {'; '.join(errors[:MAX_ERRORS])}{more}; correct or remove them")


def _shown(name: object) -> str:
    """A name in a message: on one line and not too long, whatever it holds."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]}"


def _classes(base: Path, part: str, errors: list[str]) -> dict[str, list[Path]]:
    """The image files of each class of `part`, both in order; what is not one is added to `errors`."""
    if not (base / part).is_dir():
        errors.append(f"{part}/ is missing")
        return {}
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    found: dict[str, list[Path]] = {}
    for entry in _visible(base / part, errors):
        shown = _shown(entry.relative_to(base))
        if not entry.is_dir():
            errors.append(f"{shown} lies outside the folders of the classes")
            continue
        if not entry.name.isprintable():  # nor are bytes that are not UTF-8; the name goes into tables and figures
            errors.append(f"the name of {shown} has characters that cannot be printed")
            continue
        files = found[entry.name] = []
        for file in _visible(entry, errors):
            if not file.is_file():
                errors.append(f"{_shown(file.relative_to(base))} is not a file")
            elif file.suffix and file.suffix.lower() not in suffixes:
                errors.append(f"{_shown(file.relative_to(base))} is not an image by its name")
            else:
                files.append(file)
        if not files:
            errors.append(f"{part}/{entry.name} holds no images")
    if not found:
        errors.append(f"{part}/ holds no class folders")
    return dict(sorted(found.items()))


def _missing_classes(listed: dict[str, dict[str, list[Path]]]) -> list[str]:
    """An error for each class that only one of the two parts has; none where a part has no classes at all."""
    train, test = listed["train"], listed["test"]
    if not (train and test):
        return []
    errors = [f"class '{name}' is in train/ but not in test/" for name in train if name not in test]
    return errors + [f"class '{name}' is in test/ but not in train/" for name in test if name not in train]


def _same_folders(base: Path, listed: dict[str, dict[str, list[Path]]]) -> list[str]:
    """An error for each class folder that a link makes the same as one before: as a rule, test images in training."""
    errors, seen = [], dict[str, str]()
    for place in (f"{part}/{name}" for part in PARTS for name in listed[part]):
        other = seen.setdefault(os.path.realpath(base / place), place)
        if other != place:
            errors.append(f"{other} and {place} are the same folder")
    return errors


def _visible(directory: Path, errors: list[str]) -> list[Path]:
    """The entries of a folder without what desktops leave there, with numbers in their names in numeric order."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        errors.append(f"{_shown(directory)} cannot be read ({error.strerror})")
        return []
    visible = [name for name in names if not name.startswith(".") and name.lower() not in HIDDEN]
    return [directory / name for name in sorted(visible, key=lambda name: (_natural_key(name), name))]


def _natural_key(name: str) -> list:
    return [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"(\d+)", name))]


def _draw(files: list[list[Path]], per_class: int | None, seed: int) -> tuple[Split, list[Path]]:
    """Labels and index of the files that are drawn, of each class in label order, and those files."""
    flat = [file for of_class in files for file in of_class]
    labels = torch.tensor([label for label, of_class in enumerate(files) for _ in of_class], dtype=torch.int64)
    places = torch.arange(len(flat))
    drawn = subset(Split(places, labels, places), per_class, torch.Generator().manual_seed(seed))
    return drawn, [flat[place] for place in drawn.index.tolist()]


def _read(files: list[Path], size: int) -> tuple[torch.Tensor, np.ndarray, list[tuple[Path, str]]]:
    """The images (N, size, size, 3) uint8 of `files`, in order, and the files that are none, each with the reason.

    Between them, (N,) float: for an image of more than 8 bits, its brightest value as a share of the range, else NaN.
    """
    images, brightest = np.zeros((len(files), size, size, 3), dtype=np.uint8), np.full(len(files), np.nan)

    def fill(begin: int) -> list[tuple[Path, str]]:
        unreadable = []
        for row, file in enumerate(files[begin : begin + TASK], begin):
            try:
                images[row], brightest[row] = _image(file, size)
            except Image.UnidentifiedImageError:
                unreadable.append((file, "not an image"))
            except Exception as error:  # damaged bytes raise almost anything: OSError, SyntaxError, struct.error, ...
                unreadable.append((file, _shown(error) or type(error).__name__))
        return unreadable

    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # the bound before decoding, 89 million pixels
        unreadable = [found for task in pool.map(fill, range(0, len(files), TASK)) for found in task]
    return torch.from_numpy(images), brightest, unreadable


def _dark_classes(part: str, classes: list[str], labels: np.ndarray, brightest: np.ndarray) -> list[str]:
    """An error for each class whose 16-bit images use so little of their range that they hold fewer bits."""
    errors = []
    for label, name in enumerate(classes):
        of_class = brightest[labels == label]
        top = max(of_class[~np.isnan(of_class)], default=0.0)
        if 0 < top <= DARK:
            errors.append(
                f"{part}/{name}: its 16-bit images reach only {top:.1%} of their range and would turn dark "
                "(12 bits? scale the values to 16 bits, or convert the images to 8)"
            )
    return errors


_one_large = threading.Lock()


def _image(file: Path, size: int) -> tuple[np.ndarray, float]:
    with Image.open(file, formats=FORMATS) as image:
        image.draft(None, (2 * size, 2 * size))
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
        if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
            raise ValueError("a TIFF of several pages; save the one that counts")
        with _one_large if pixels > LARGE else contextlib.nullcontext():
            bits = _bits(image)
            ImageOps.exif_transpose(image, in_place=True)
            flat = _rgb(image, bits)
            brightest = float(np.asarray(flat).max()) / 255 if bits > 8 else np.nan
            side = min(flat.size)
            left, top = (flat.width - side) / 2, (flat.height - side) / 2
            # resizing just the central square equals resizing all and cutting out the centre
            square = flat.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
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
