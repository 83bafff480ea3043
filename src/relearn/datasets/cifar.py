"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): the published archives, downloaded, checked by their md5, and read."""

import contextlib
import hashlib
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from relearn.data import Dataset, split, subset
from relearn.errors import UserError
from relearn.registry import PositiveInt, Seed, register
from relearn.runtime.download import download
from relearn.runtime.torchvision_compat import torchvision

BYTES = {"CIFAR10": 170_498_071, "CIFAR100": 169_001_437}  # of the archives, in bytes; torchvision knows only their md5

SIZES = {  # see relearn plan
    name: lambda settings, classes=classes: (classes * (settings["train_per_class"] or 50_000 // classes), 32, 32)
    for name, classes in (("cifar10", 10), ("cifar100", 100))
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


def _load(name: str, root: Path, train_per_class: int | None, test_per_class: int | None, seed: int) -> Dataset:
    """The dataset `name` of torchvision, "CIFAR10" or "CIFAR100", or a subset; `root` is the place of its archive.

    Images are (N, 32, 32, 3) uint8. Each split draws its subset with its own generator of the same `seed`, so the size
    of one does not change the other. With RELEARN_MIRROR set, the archive comes from that address; its checksum stays.
    Raises UserError, with the address, the md5 and the path, when the archive cannot be downloaded or is damaged.
    """
    source = getattr(torchvision().datasets, name)
    files = _files(source, Path(root)) or _members(source, _archive(source, Path(root), BYTES[name]))
    parts = []
    for listed, per_class in ((source.train_list, train_per_class), (source.test_list, test_per_class)):
        batches = [_unpickled(files[file]) for file, _ in listed]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = [label for batch in batches for label in batch["labels" if "labels" in batch else "fine_labels"]]
        whole = split(torch.from_numpy(np.ascontiguousarray(pixels)), torch.tensor(labels))
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


def _archive(source: Any, root: Path, size: int) -> Path:
    """The path of the archive in `root`, downloaded unless it is there whole."""
    archive, mirror, there = root / source.filename, os.environ.get("RELEARN_MIRROR"), ""
    url = f"{mirror.rstrip('/')}/{source.filename}" if mirror else source.url
    try:
        if _file_md5(archive) == source.tgz_md5:
            return archive
        with _lock(root):
            if _file_md5(archive) != source.tgz_md5:  # another process may have brought it
                download(url, archive, size, source.tgz_md5)
    except (UserError, OSError) as error:
        with contextlib.suppress(OSError):
            there = _file_md5(archive)
        wrong = f"; the file there has md5 {there}" if there else ""
        raise UserError(
            f"cannot get {source.__name__} from {url} ({error}){wrong}; "
            f"try again, or put the file with md5 {source.tgz_md5} at {archive}"
        ) from None
    return archive


def _file_md5(path: Path) -> str:
    """The md5 of a file; empty where there is none."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Let one process at a time download to `root`, since several datasets of params.yaml may use one archive."""
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # A file system without locks gives an OSError or NotImplementedError, and the block runs without one: a marker
        # file in place of the lock would outlive a killed process.
        with contextlib.suppress(OSError, NotImplementedError):
            stack.enter_context(FileLock(root / ".lock", fallback_to_soft=False))
        yield
