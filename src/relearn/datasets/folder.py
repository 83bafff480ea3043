"""A folder of the user's own images."""

import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from relearn.data import Dataset, Split, subset
from relearn.errors import UserError
from relearn.registry import InputPath, PositiveInt, Seed, Side, register
from relearn.runtime import memory

PARTS = ("train", "test")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not all of Pillow's: reading EPS would run Ghostscript
HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}  # left by desktops; so are names that begin with a dot
MAX_ERRORS = 10  # errors named in a message
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
    full list. EXIF rotation is applied, transparency is laid on black, grey, palette, CMYK and 16-bit images become
    RGB; of an animation the first frame counts. The shorter side becomes `size` (bicubic, antialiased), then the centre
    is cut out; JPEGs of more than twice that size are first decoded at a fraction of theirs. A subset is drawn from the
    names, with `seed`, as for the other datasets: every name is checked, only drawn images are read. Raises one
    UserError that names what is wrong: folders, classes, names, unreadable files.
    """
    base = Path(path).expanduser()
    if not base.is_dir():
        raise UserError(f"folder: '{path}' is not a folder; give one with train/CLASS/ and test/CLASS/")
    errors: list[str] = []
    listed = {part: _classes(base, part, errors) for part in PARTS}
    errors += _missing_classes(listed)
    classes = sorted(listed["train"])
    splits = []
    for part, setting, per_class in zip(
        PARTS, ("train_per_class", "test_per_class"), (train_per_class, test_per_class), strict=True
    ):
        files = [listed[part].get(name, []) for name in classes]
        if per_class is not None:
            for name, of_class in zip(classes, files, strict=True):
                if 0 < len(of_class) < per_class:
                    errors.append(f"{part}/{name} has {len(of_class)} images, but {setting} is {per_class}")
            per_class = min([per_class, *(len(of_class) for of_class in files if of_class)])
        drawn, chosen = _draw(files, per_class, seed)
        images, unreadable = _read(chosen, size)
        errors += [f"{file.relative_to(base)} cannot be read ({reason})" for file, reason in unreadable]
        splits.append(drawn.with_images(images))
    if errors:
        more = f"; ... and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
        raise UserError(f"folder: in '{path}', {'; '.join(errors[:MAX_ERRORS])}{more}; correct or remove them")
    train, test = splits
    return Dataset(train, test, classes)


def _classes(base: Path, part: str, errors: list[str]) -> dict[str, list[Path]]:
    """The image files of each class of `part`, both in order; what is not one is added to `errors`."""
    if not (base / part).is_dir():
        errors.append(f"{part}/ is missing")
        return {}
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    found: dict[str, list[Path]] = {}
    for entry in _visible(base / part):
        if not entry.is_dir():
            errors.append(f"{entry.relative_to(base)} lies outside the folders of the classes")
            continue
        files = found[entry.name] = []
        for file in _visible(entry):
            if not file.is_file():
                errors.append(f"{file.relative_to(base)} is not a file")
            elif file.suffix and file.suffix.lower() not in suffixes:
                errors.append(f"{file.relative_to(base)} is not an image by its name")
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


def _visible(directory: Path) -> list[Path]:
    """The entries of a folder without what desktops leave there, with numbers in their names in numeric order."""
    names = (entry.name for entry in directory.iterdir())
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


def _read(files: list[Path], size: int) -> tuple[torch.Tensor, list[tuple[Path, str]]]:
    """The images (N, size, size, 3) uint8 of `files`, in order, and the files that are none, each with the reason."""
    needed = 3 * len(files) * size**2
    memory.check(needed, f"folder: {len(files)} images of {size}x{size} pixels", "choose a smaller size or a subset")
    images = np.zeros((len(files), size, size, 3), dtype=np.uint8)

    def fill(begin: int) -> list[tuple[Path, str]]:
        unreadable = []
        for row, file in enumerate(files[begin : begin + TASK], begin):
            try:
                images[row] = _image(file, size)
            except Image.UnidentifiedImageError:
                unreadable.append((file, "not an image"))
            except Exception as error:  # damaged bytes raise almost anything: OSError, SyntaxError, struct.error, ...
                unreadable.append((file, " ".join(str(error).split()) or type(error).__name__))
        return unreadable

    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # of a small file that unpacks to gigabytes
        unreadable = [found for task in pool.map(fill, range(0, len(files), TASK)) for found in task]
    return torch.from_numpy(images), unreadable


def _image(file: Path, size: int) -> np.ndarray:
    with Image.open(file, formats=FORMATS) as image:
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        flat = _rgb(image)
        side = min(flat.size)
        left, top = (flat.width - side) / 2, (flat.height - side) / 2
        # resizing just the central square equals resizing all and cutting out the centre
        return np.asarray(flat.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would cut 16-bit values off at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"values from {values.min()} to {values.max()}, beyond 16 bits")
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point values have no known range")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.new("RGB", layers.size)
        image.paste(layers, mask=layers)
    return image.convert("RGB")
