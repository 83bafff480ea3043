"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): the published archives, downloaded, checked by their md5, and read."""

import contextlib
import http.client
import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from relearn.data import Dataset, Split, split, subset
from relearn.errors import UserError
from relearn.registry import PositiveInt, Seed, register
from relearn.runtime.torchvision_compat import torchvision

TIMEOUT = 30  # seconds without a byte; torchvision sets none and would wait for ever behind a silent firewall
ERRORS = (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException)

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
    """The dataset `name` of torchvision, "CIFAR10" or "CIFAR100", or a subset of it, downloaded to `root` if missing.

    Images are (N, 32, 32, 3) uint8. Each split draws its subset with its own generator of the same `seed`, so the size
    of one does not change the other. With RELEARN_MIRROR set, the archive comes from that address; its checksum stays.
    Raises UserError, with the address, the md5 and the path, when the archive cannot be downloaded or is damaged.
    """
    published = getattr(torchvision().datasets, name)
    mirror = os.environ.get("RELEARN_MIRROR")
    url = f"{mirror.rstrip('/')}/{published.filename}" if mirror else published.url
    source: Any = type(name, (published,), {"url": url, "_check_integrity": _is_complete})
    root = Path(root)
    archive = root / source.filename
    # torchvision extracts the archive only once its md5 is right, and unpickles only files that `_is_complete` has
    # compared with their published md5: nothing of unknown origin is unpickled, and a half-extracted folder is
    # extracted anew.
    try:
        with _lock(root), _timeout_without_progress_bar():
            train, test = source(root, train=True, download=True), source(root, train=False)
    except ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot get {name} from {source.url} ({reason}){_wrong_md5(archive, source.tgz_md5)}; "
            f"try again, or put the file with md5 {source.tgz_md5} at {archive}"
        ) from None
    return Dataset(_subset(train, train_per_class, seed), _subset(test, test_per_class, seed), list(train.classes))


def _is_complete(self: Any) -> bool:
    # torchvision's own check leaves out the class names, so an extraction cut short before them would never be repeated
    files = [*self.train_list, *self.test_list, (self.meta["filename"], self.meta["md5"])]
    return all(
        torchvision().datasets.utils.check_integrity(Path(self.root, self.base_folder, file), md5)
        for file, md5 in files
    )


def _subset(part: Any, per_class: int | None, seed: int) -> Split:
    whole = split(torch.from_numpy(part.data), torch.tensor(part.targets))
    return subset(whole, per_class, torch.Generator().manual_seed(seed))


def _wrong_md5(archive: Path, md5: str) -> str:
    """The part of a message that names the md5 of a damaged archive; empty where there is none."""
    if not archive.is_file():
        return ""
    found = torchvision().datasets.utils.calculate_md5(archive)
    return "" if found == md5 else f"; the file there has md5 {found}"


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Let one process at a time download to `root`, since several datasets of params.yaml may use one archive."""
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # A file system without locks gives an OSError, and the block runs without one: a marker file in place of the
        # lock would outlive a killed process.
        with contextlib.suppress(OSError):
            stack.enter_context(FileLock(root / ".lock", fallback_to_soft=False))
        yield


@contextlib.contextmanager
def _timeout_without_progress_bar() -> Iterator[None]:
    """Give up on a silent connection, and write no progress bar to logs."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
