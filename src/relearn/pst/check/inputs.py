"""What a check is given: a folder of images or a split file, listed first and read in part."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from relearn.data import Split, load_split
from relearn.datasets import folder
from relearn.errors import UserError
from relearn.runtime import files, image_files

SMALLEST, LARGEST = 32, 64  # pixels a side of the images that networks get
LOOKED_AT = 60  # files whose size is looked at
CHUNK = 500
PARTS = {"train", "test", "val", "valid", "validation"}  # what folders of parts are called; CIFAR-100 has trains


@dataclass(frozen=True)
class Source:
    """Labels (N,) int64 of all images, in their order, and `read`, which gives the images of some rows as uint8.

    `size` is what images are resized to, `found` what they have: shorter side in pixels, the median of some.
    """

    path: Path
    classes: list[str]
    labels: torch.Tensor
    size: int
    found: int
    read: Callable[[torch.Tensor], torch.Tensor]

    def split(self, rows: torch.Tensor) -> Split:
        """The images of some rows."""
        return Split(self.read(rows), self.labels[rows], rows, len(self.labels))


def open_source(given: str, part: str = "train", size: int | None = None) -> Source:
    """The images at a path: a folder with `part`/CLASS/ or CLASS/, or a file. `size` None for that of the images.

    Raises UserError for anything else.
    """
    path = files.expanded(given)
    if path.is_dir():
        return _folder(path, part if _is_part(path, part) else ".", size)
    if path.is_file():
        return _file(path, size)
    raise UserError(f"check: '{given}' is neither a folder nor a file; give images as FOLDER/CLASS/*, or a split file")


def read_file(path: Path) -> tuple[Split, list[str]]:
    """The split in a file that relearn wrote, and its classes: the one place where files are read."""
    if path.suffix != ".safetensors":
        raise UserError(
            f"check: {path} is no split of relearn (.safetensors); give a folder of images, or import the file first"
        )
    content, facts = load_split(path)
    return content, facts["classes"]


def aligned(source: Source, classes: list[str], what: str) -> torch.Tensor:
    """The labels of `source` by the order of `classes`. Raises UserError for classes that are not among them."""
    strange = [name for name in source.classes if name not in classes]
    if strange:
        known = ", ".join(map(str, classes[:5]))
        raise UserError(
            f"check: {what} has a class '{strange[0]}', which the images do not have; theirs are {known}"
            f"{', ...' if len(classes) > 5 else ''}; give the same folders of classes"
        )
    return torch.tensor([classes.index(name) for name in source.classes])[source.labels]


def stratified(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """All rows (int64) in an order of which every beginning has about the shares of classes that the whole has."""
    place = torch.empty(len(labels))
    for label in labels.unique().tolist():
        of_class = torch.nonzero(labels == label).flatten()
        ranks = torch.randperm(len(of_class), generator=generator)
        place[of_class] = (ranks + torch.rand(len(of_class), generator=generator)) / len(of_class)
    return place.argsort(stable=True)


def weights_like(labels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Weights (N,) float64, of mean 1, that give images of `labels` the class shares of `wanted`.

    Accuracies on two sets compare only if the classes have the same shares in both. A class that `wanted` lacks counts
    as if it had one image there.
    """
    many = int(torch.cat([labels, wanted]).max()) + 1
    has, wants = (torch.bincount(each, minlength=many).clamp_min(1).double() for each in (labels, wanted))
    weights = (wants / has)[labels]
    return weights / weights.mean()


def effective(weights: torch.Tensor) -> int:
    """How many images of equal weight an average with these `weights` (N,) is worth (Kish, 1965)."""
    return round(float(weights.sum() ** 2 / (weights**2).sum()))


def _is_part(base: Path, part: str) -> bool:
    """Whether `base`/`part` holds the classes, or is one: without folders in it, and beside others than the parts."""
    if not (base / part).is_dir():
        return False
    others = {entry.name for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith(".")} - PARTS
    return not others or any(entry.is_dir() for entry in (base / part).iterdir())


def _folder(base: Path, part: str, size: int | None) -> Source:
    if not any(entry.is_dir() for entry in (base / part).iterdir()):
        raise UserError(f"check: '{base / part}' holds no class folders; give the folder above those of the classes")
    listed = folder.class_files(base, part)
    classes = sorted(listed)
    flat = [file for name in classes for file in listed[name]]
    labels = torch.tensor([label for label, name in enumerate(classes) for _ in listed[name]])
    found = _median_side(flat)
    size = size or _size(found)

    def read(rows: torch.Tensor) -> torch.Tensor:
        chosen = rows.tolist()
        return folder.read_images(base, [flat[row] for row in chosen], labels[rows].tolist(), classes, size)

    return Source(base, classes, labels, size, found, read)


def _median_side(listed: list[Path]) -> int:
    """The median of the shorter sides of some images; those that cannot be read are found when they are."""
    sides = []
    for file in listed[:: max(1, len(listed) // LOOKED_AT)]:
        try:
            with Image.open(file, formats=image_files.FORMATS) as image:
                sides.append(min(image.size))
        except Exception:  # noqa: S112, damaged bytes raise almost anything, and reading will say so
            continue
    return sorted(sides)[len(sides) // 2] if sides else SMALLEST


def _file(path: Path, size: int | None) -> Source:
    content, classes = read_file(path)
    found = min(content.images.shape[1:3])
    size = size or _size(found)

    def read(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([_resized(content.images[part], size) for part in rows.split(CHUNK)])

    return Source(path, classes, content.labels, size, found, read)


def _size(side: int) -> int:
    """What images of this shorter side are resized to, in pixels: a multiple of 4."""
    return max(SMALLEST, min(LARGEST, side // 4 * 4))


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """The central squares of images (N, H, W, 3) uint8, at `size` pixels a side."""
    side = min(images.shape[1:3])
    top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
    square = images[:, top : top + side, left : left + side]
    if side == size:
        return square.contiguous()
    x = F.interpolate(square.permute(0, 3, 1, 2).float(), (size, size), mode="bicubic", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
