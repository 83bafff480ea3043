"""Folders of others: images named by their index, images in a folder per class, slices of an array, parquet files."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relearn.crafting.exchange import containers
from relearn.crafting.exchange.containers import Loaded
from relearn.errors import UserError
from relearn.runtime import memory
from relearn.runtime.image_files import BESIDE, image_suffixes, shown, visible

SLICE = re.compile(r".*_sp(\d+)-(\d+)(_.*)?\.npy")  # SEP: the images from one place to another
INDEX = re.compile(r"(\d{1,9})\.png", re.IGNORECASE)


@dataclass(frozen=True)
class FoundFolder:
    """What a folder holds: images (N, H, W, 3) or an array of them, labels, index and classes where it says them."""

    layout: str
    values: Loaded
    files: Sequence[Path]
    labels: np.ndarray | None = None
    index: np.ndarray | None = None
    classes: list[str] | None = None


def read(path: Path) -> FoundFolder:
    """What a folder holds. Raises UserError for a folder of another layout, and names what is wrong in it."""
    entries = [entry for entry in _listed(path) if entry.name not in BESIDE]
    for name in ("data", "train"):  # the only folder in it
        if [entry.name for entry in entries] == [name] and entries[0].is_dir():
            inner = [entry for entry in _listed(entries[0]) if entry.name not in BESIDE]
            return _read(path, entries[0], inner)
    return _read(path, path, entries)


def _read(top: Path, path: Path, entries: list[Path]) -> FoundFolder:
    if entries and all(INDEX.fullmatch(entry.name) for entry in entries):
        return _by_index(top, entries)
    if entries and all(SLICE.fullmatch(entry.name) for entry in entries):
        return _slices(entries)
    if entries and all(entry.suffix == ".parquet" for entry in entries):
        return _parquet(path, entries)
    if entries and all(entry.is_dir() for entry in entries):
        return _by_class(entries)
    other = next((entry.name for entry in entries if not INDEX.fullmatch(entry.name)), None)
    raise UserError(
        f"{path} holds {shown(other) if other else 'nothing'}; known folders have images named by their index (0.png), "
        "a folder per class, slices of an array (..._sp0-5000_....npy), or parquet files"
    )


def _listed(path: Path) -> list[Path]:
    errors: list[str] = []
    found = visible(path, errors)
    if errors:
        raise UserError(errors[0])
    return found


def stacked(path: Path, files: Sequence[Path | bytes]) -> np.ndarray:
    """The images (N, H, W, 3) uint8 in files, or in their bytes. Raises UserError unless all are of one size."""
    first = containers.read_image(_name(path, files, 0), files[0])
    memory.check(
        2 * len(files) * first.nbytes, f"{path}: {len(files)} images", "import it on a machine with more memory"
    )
    images = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(files):
        image = containers.read_image(_name(path, files, row), file)
        if image.shape != first.shape:
            sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (image, first)]
            raise UserError(
                f"{_name(path, files, row)} is {sizes[0]}, and the images before it {sizes[1]}; "
                "images must be of one size"
            )
        images[row] = image
    return images


def _name(path: Path, files: Sequence[Path | bytes], row: int) -> Path:
    file = files[row]
    return file if isinstance(file, Path) else path.with_name(f"{path.name}, row {row}")


def _by_index(top: Path, entries: list[Path]) -> FoundFolder:
    """TAP, AR, EntF and APBench: an image is `<index>.png`, its place in the original dataset."""
    index = np.array([int(entry.stem) for entry in entries], np.int64)
    order = index.argsort(kind="stable")
    if len(np.unique(index)) < len(index):
        raise UserError(f"{entries[0].parent} has two images of one index, such as 1.png and 01.png; remove one")
    files = [entries[place] for place in order]
    index = index[order]
    labels = _labels(top / "labels.csv", index) if (top / "labels.csv").is_file() else None
    return FoundFolder("folder: images named by their index", Loaded(stacked(top, files)), files, labels, index)


def _labels(path: Path, index: np.ndarray) -> np.ndarray:
    """The labels (N,) of the images of this index, in the table `index,label` that an export writes."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if header != ["index", "label"]:
            raise ValueError("the columns are not index,label")
        found = {int(row[0]): int(row[1]) for row in rows}
        return np.array([found[int(place)] for place in index], np.int64)
    except (ValueError, IndexError, KeyError, OverflowError, csv.Error) as error:
        raise UserError(f"{path} is no table of index,label with a row per image ({error})") from None


def _by_class(entries: list[Path]) -> FoundFolder:
    """A folder per class, as torchvision and our dataset `folder` read it: classes and files sorted by name."""
    files, labels = [], []
    for label, folder in enumerate(sorted(entries)):
        inside = _listed(folder)
        wrong = [file for file in inside if not file.is_file() or file.suffix.lower() not in image_suffixes()]
        if wrong or not inside:
            raise UserError(f"{shown(folder)} holds {shown(wrong[0].name) if wrong else 'nothing'}, which is no image")
        files += inside
        labels += [label] * len(inside)
    words = "folder: a folder per class"
    values = Loaded(stacked(entries[0].parent, files))
    classes = [folder.name for folder in sorted(entries)]
    return FoundFolder(words, values, files, np.array(labels, np.int64), None, classes)


def _slices(entries: list[Path]) -> FoundFolder:
    """SEP: an array of images per slice of the dataset; the names say from where to where."""
    bounds = {}
    for entry in entries:
        matched = SLICE.fullmatch(entry.name)
        assert matched
        bounds[entry] = int(matched[1]), int(matched[2])
    files = sorted(entries, key=lambda entry: bounds[entry])
    found: list[np.ndarray] = []
    end = 0
    for file in files:
        kind, value = containers.read(file)
        values = containers.array(value)
        begin, stop = bounds[file]
        if values is None or values.ndim != 4 or begin != end or stop != begin + len(values):
            shape = kind if values is None else values.shape
            raise UserError(
                f"{file} holds {shape}, not {stop - begin} images from number {end} on; is a slice missing?"
            )
        if found and (values.shape[1:], values.dtype) != (found[0].shape[1:], found[0].dtype):
            raise UserError(f"{file} holds {values.shape} of {values.dtype}, unlike the slices before it")
        found.append(values)
        end = stop
    memory.check(2 * sum(values.nbytes for values in found), str(files[0].parent), "import it on a larger machine")
    return FoundFolder("folder: slices of an array", Loaded(np.concatenate(found)), files, None, np.arange(end))


def _parquet(path: Path, entries: list[Path]) -> FoundFolder:
    """The parquet files of a Hugging Face dataset, in the order of their names."""
    rows: list[tuple[bytes, int]] = []
    for entry in entries:
        kind, value = containers.read(entry)
        if kind != "parquet" or not isinstance(value, list):
            raise UserError(f"{entry} is no parquet file but {kind}; fetch it again")
        rows += value
    images = stacked(path, [image for image, _ in rows])
    labels = np.array([label for _, label in rows], np.int64)
    return FoundFolder("folder: parquet files of image and label", Loaded(images), entries, labels)
