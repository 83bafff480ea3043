"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): the published archives, downloaded, checked by their md5, and read."""

import contextlib
import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from relearn.data import Dataset, split, subset
from relearn.errors import UserError
from relearn.registry import PositiveInt, Seed, register
from relearn.runtime.download import Published, fetched
from relearn.runtime.torchvision_compat import torchvision

BYTES = {"CIFAR10": 170_498_071, "CIFAR100": 169_001_437}  # of the archives, in bytes; torchvision knows only their md5

SIZES = {  # see relearn plan
    name: lambda settings, classes=classes: (classes * (settings["train_per_class"] or 50_000 // classes), 32, 32)
    for name, classes in (("cifar10", 10), ("cifar10_jpeg", 10), ("cifar100", 100))
}


@register
def cifar10(
    root: Path,
    *,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: Seed = 0,
) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images (N, 32, 32, 3) uint8 of 10 classes, downloaded to `root`.

    `train_per_class` and `test_per_class` draw stratified subsets with `seed`, independently of each other.
    Raises UserError when the archive cannot be downloaded or is damaged, and when a class has fewer images.
    """
    return _load("CIFAR10", root, train_per_class, test_per_class, seed)


@register
def cifar100(
    root: Path,
    *,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: Seed = 0,
) -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test images (N, 32, 32, 3) uint8 of 100 classes, downloaded to `root`.

    `train_per_class` and `test_per_class` draw stratified subsets with `seed`, independently of each other.
    Raises UserError when the archive cannot be downloaded or is damaged, and when a class has fewer images.
    """
    return _load("CIFAR100", root, train_per_class, test_per_class, seed)


@register
def cifar10_jpeg(
    root: Path,
    *,
    quality: PositiveInt = 75,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: Seed = 0,
) -> Dataset:
    """CIFAR-10 after JPEG of `quality` (1 to 95, as Pillow counts it; colour at half the resolution): (N, 32, 32, 3).

    The archive of `cifar10`, each image encoded and decoded by Pillow, in the order that `folder` gives the images of
    train/CLASS/NUMBER.jpg: by class, then as in the archive; the index is the place in that order. Bytes depend on the
    JPEG library that Pillow has. `train_per_class` and `test_per_class` draw stratified subsets with `seed`, as for
    `folder`. Raises UserError as `cifar10` does, and for another quality.
    """
    if quality > 95:
        raise UserError(f"cifar10_jpeg: quality is {quality}; Pillow counts from 1 to 95")
    plain = _load("CIFAR10", root, train_per_class, test_per_class, seed, by_class=True)
    train, test = (part.with_images(_compressed(part.images, quality)) for part in (plain.train, plain.test))
    return Dataset(train, test, plain.classes)


def _compressed(images: torch.Tensor, quality: int) -> torch.Tensor:
    """Images (N, H, W, 3) uint8 as they are after JPEG."""
    found = np.empty(images.shape, dtype=np.uint8)
    for row, image in enumerate(images.numpy()):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found[row] = np.asarray(Image.open(file, formats=["JPEG"]))
    return torch.from_numpy(found)


def _load(
    name: str, root: Path, train_per_class: int | None, test_per_class: int | None, seed: int, by_class: bool = False
) -> Dataset:
    """The dataset `name` of torchvision, "CIFAR10" or "CIFAR100", or a subset; `root` is the place of its archive.

    Images are (N, 32, 32, 3) uint8, in the order of the archive, or by class and then in that order. Each split draws
    its subset with its own generator of the same `seed`, so the size of one does not change the other. With
    RELEARN_MIRROR set, the archive comes from that address; its checksum stays.
    Raises UserError, with the address, the md5 and the path, when the archive cannot be downloaded or is damaged.
    """
    source = getattr(torchvision().datasets, name)
    files = _files(source, Path(root)) or _members(source, fetched(_archive(source, BYTES[name]), Path(root)))
    parts = []
    for listed, per_class in ((source.train_list, train_per_class), (source.test_list, test_per_class)):
        batches = [_unpickled(files[file]) for file, _ in listed]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = [label for batch in batches for label in batch["labels" if "labels" in batch else "fine_labels"]]
        order = np.argsort(labels, kind="stable") if by_class else np.arange(len(labels))
        whole = split(torch.from_numpy(np.ascontiguousarray(pixels[order])), torch.tensor(labels)[order])
        parts.append(subset(whole, per_class, torch.Generator().manual_seed(seed)))
    train, test = parts
    return Dataset(train, test, _unpickled(files[source.meta["filename"]])[source.meta["key"]])


def _published(source: Any) -> dict[str, str]:
    """The md5 of every file of the archive that is read."""
    return dict([*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])])


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _unpickled(content: bytes) -> dict:
    return pickle.loads(content, encoding="latin1")  # only of bytes whose published md5 was checked: nothing else runs


def _archive(source: Any, size: int) -> Published:
    return Published(source.__name__, source.url, size, source.tgz_md5)


def _files(source: Any, root: Path) -> dict[str, bytes]:
    """The files of an extracted archive in `root`, by name; none unless all are there and have their published md5."""
    found = {}
    for name, md5 in _published(source).items():
        with contextlib.suppress(OSError):
            found[name] = (root / source.base_folder / name).read_bytes()
        if name not in found or _md5(found[name]) != md5:
            return {}
    return found


def _members(source: Any, archive: Path) -> dict[str, bytes]:
    """The same files out of the archive, whose md5 was checked; nothing is extracted to the disk."""
    wanted = {f"{source.base_folder}/{name}": name for name in _published(source)}
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name in wanted and member.isreg():
                    found[wanted[member.name]] = tar.extractfile(member).read()  # type: ignore[union-attr]
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be read ({' '.join(str(error).split())}); delete it and run again") from None
    damaged = [name for name, md5 in _published(source).items() if _md5(found.get(name, b"")) != md5]
    if damaged:
        raise UserError(f"{archive} lacks {', '.join(damaged)} as published; delete it and run again")
    return found
