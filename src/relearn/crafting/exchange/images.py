"""Folders of images, a folder per class: what lies in them, and the names of the files that are made from them."""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from relearn.errors import UserError
from relearn.runtime.image_files import image_suffixes, shown, visible


@dataclass(frozen=True)
class Files:
    """Image files, the label of each, and the names of the classes; one without a name if there are no folders."""

    files: list[Path]
    labels: list[int]
    classes: list[str]


def by_class(path: Path) -> Files:
    """The images of a folder of class folders, or of a folder of images alone; classes and files sorted by name.

    Raises UserError for a folder with anything else, or with nothing.
    """
    entries = _visible(path)
    folders = [entry for entry in entries if entry.is_dir()]
    if folders and len(folders) < len(entries):
        other = next(entry for entry in entries if not entry.is_dir())
        raise UserError(f"{shown(other)} lies beside folders; give a folder of class folders, or one of images alone")
    inside = {folder.name: _visible(folder) for folder in sorted(folders)} if folders else {"": entries}
    if not entries:
        raise UserError(f"{path} holds no images; put some there, or give another folder")
    files: list[Path] = []
    labels: list[int] = []
    for label, (name, found) in enumerate(inside.items()):
        wrong = next(
            (file for file in found if not file.is_file() or file.suffix.lower() not in image_suffixes()), None
        )
        if wrong is not None or not found:
            raise UserError(
                f"{shown(wrong or path / name)} {'is no image by its name' if wrong else 'holds no images'}; "
                "take it out of the folder"
            )
        files += found
        labels += [label] * len(found)
    return Files(files, labels, list(inside))


def _visible(path: Path) -> list[Path]:
    errors: list[str] = []
    found = visible(path, errors)
    if errors:
        raise UserError(errors[0])
    return found


def png_names(names: list[str]) -> list[str]:
    """The names of files as those of PNG files; where two would be one, `a.jpg` becomes `a.jpg.png`."""
    short = [str(PurePath(name).with_suffix(".png")) for name in names]
    counts = Counter(short)
    return [one if counts[one] == 1 else f"{name}.png" for one, name in zip(short, names, strict=True)]


def png_bytes(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 as the bytes of a PNG file: lossless, without any other data."""
    memory = io.BytesIO()
    Image.fromarray(image).save(memory, "PNG")
    return memory.getvalue()
