"""A folder of the user's own images."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from relearn.data import Dataset, Split, subset
from relearn.errors import UserError
from relearn.registry import InputPath, PositiveInt, Seed, Side, register
from relearn.runtime import memory
from relearn.runtime.files import expanded
from relearn.runtime.image_files import decoded, image_suffixes, shown, visible

PARTS = ("train", "test")
MAX_ERRORS = 10  # errors named in a message
DARK = 0.25  # of the range: 16-bit images that stay below it hold fewer bits, 14 at most
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
        raise UserError(f"folder: '{shown(path)}' is not a folder; give one with train/CLASS/ and test/CLASS/")
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
        errors += [f"{shown(file.relative_to(base))} cannot be read ({reason})" for file, reason in unreadable]
        errors += _dark_classes(part, classes, labelled.labels.numpy(), brightest)
        splits[part] = labelled.with_images(images)
    if errors:
        more = f"; ... and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
        raise UserError(f"folder: in '{shown(path)}', {'; '.join(errors[:MAX_ERRORS])}{more}; correct or remove them")
    return Dataset(splits["train"], splits["test"], classes)


def _classes(base: Path, part: str, errors: list[str]) -> dict[str, list[Path]]:
    """The image files of each class of `part`, both in order; what is not one is added to `errors`."""
    if not (base / part).is_dir():
        errors.append(f"{part}/ is missing")
        return {}
    suffixes = image_suffixes()
    found: dict[str, list[Path]] = {}
    for entry in visible(base / part, errors):
        place = shown(entry.relative_to(base))
        if not entry.is_dir():
            errors.append(f"{place} lies outside the folders of the classes")
            continue
        if not entry.name.isprintable():  # nor are bytes that are not UTF-8; the name goes into tables and figures
            errors.append(f"the name of {place} has characters that cannot be printed")
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
                unreadable.append((file, shown(error) or type(error).__name__))
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


def _image(file: Path, size: int) -> tuple[np.ndarray, float]:
    with decoded(file, 2 * size) as (flat, bits):
        brightest = float(np.asarray(flat).max()) / 255 if bits > 8 else np.nan
        side = min(flat.size)
        left, top = (flat.width - side) / 2, (flat.height - side) / 2
        # resizing just the central square equals resizing all and cutting out the centre
        square = flat.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        return np.asarray(square), brightest
