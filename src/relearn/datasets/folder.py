"""A folder of the user's own images."""

import os
from pathlib import Path

import numpy as np
import torch

from relearn.data import Dataset, Split, subset
from relearn.errors import UserError
from relearn.registry import InputPath, PositiveInt, Seed, Side, register
from relearn.runtime import image_files, memory
from relearn.runtime.files import expanded
from relearn.runtime.image_files import shown

PARTS = ("train", "test")
MAX_ERRORS = 10  # errors named in a message
DARK = 0.25  # of the range: 16-bit images that stay below it hold fewer bits, 14 at most


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
    listed = {part: image_files.class_files(base, part, errors) for part in PARTS}
    errors += image_files.missing_classes(listed) + image_files.same_folders(base, listed)
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
        images = np.zeros((len(chosen), size, size, 3), dtype=np.uint8)
        brightest, unreadable = image_files.read(chosen, images, image_files.View(size, size))
        errors += [f"{shown(file.relative_to(base))} cannot be read ({reason})" for file, reason in unreadable]
        errors += _dark_classes(part, classes, labelled.labels.numpy(), brightest)
        splits[part] = labelled.with_images(torch.from_numpy(images))
    _raise(path, errors)
    return Dataset(splits["train"], splits["test"], classes)


def class_files(base: Path, part: str = ".") -> dict[str, list[Path]]:
    """The image files in `base`/`part`/CLASS, by class, in the order of `folder`. Raises its UserError for others."""
    errors: list[str] = []
    found = image_files.class_files(base, part, errors)
    _raise(str(base), errors)
    return found


def read_images(base: Path, files: list[Path], labels: list[int], classes: list[str], size: int) -> torch.Tensor:
    """The images (N, size, size, 3) uint8 in files of the folder `base`, read as `folder` reads them.

    `labels` are their places in `classes`, for messages. Raises UserError for files that are no images, or too dark.
    """
    memory.check(2 * len(files) * size**2 * 3, f"{len(files)} images of {size}x{size} pixels", "choose fewer images")
    images = np.zeros((len(files), size, size, 3), dtype=np.uint8)
    brightest, unreadable = image_files.read(files, images, image_files.View(size, size))
    errors = [f"{shown(file.relative_to(base))} cannot be read ({reason})" for file, reason in unreadable]
    _raise(str(base), errors + _dark_classes(".", classes, np.array(labels), brightest))
    return torch.from_numpy(images)


def _raise(path: str, errors: list[str]) -> None:
    """One UserError of all errors found in the folder `path`, if there are any."""
    if errors:
        more = f"; ... and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
        raise UserError(f"folder: in '{shown(path)}', {'; '.join(errors[:MAX_ERRORS])}{more}; correct or remove them")


def _draw(files: list[list[Path]], per_class: int | None, seed: int) -> tuple[Split, list[Path]]:
    """Labels and index of the files that are drawn, of each class in label order, and those files."""
    flat = [file for of_class in files for file in of_class]
    labels = torch.tensor([label for label, of_class in enumerate(files) for _ in of_class], dtype=torch.int64)
    places = torch.arange(len(flat))
    drawn = subset(Split(places, labels, places), per_class, torch.Generator().manual_seed(seed))
    return drawn, [flat[place] for place in drawn.index.tolist()]


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
