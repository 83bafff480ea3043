"""The published CIFAR archives: fetched, checked against their checksums, read."""

import contextlib
import fcntl
import http.client
import io
import os
import socket
import sys
from pathlib import Path

import torch

from relearn.data import Dataset, Split, split, subset
from relearn.errors import UserError
from relearn.runtime.torchvision_compat import torchvision

TIMEOUT = 30  # seconds without a byte; torchvision sets none and would wait for ever behind a silent firewall
FAILURES = (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException)


def cifar(name: str, root: Path, train_per_class: int | None, test_per_class: int | None, seed: int) -> Dataset:
    """torchvision's data set `name`, "CIFAR10" or "CIFAR100", or a subset of it, downloaded to `root` if it is not there.

    Images are (N, 32, 32, 3) uint8. Each split draws its subset with its own generator of the same `seed`, so the size of
    one does not move the other. With RELEARN_MIRROR set, the archive comes from that address; its checksum stays.
    Raises UserError, with the address, the md5 and the place, when the archive cannot be had or is damaged.
    """
    published = getattr(torchvision().datasets, name)
    mirror = os.environ.get("RELEARN_MIRROR")
    url = f"{mirror.rstrip('/')}/{published.filename}" if mirror else published.url
    source = type(name, (published,), {"url": url, "_check_integrity": _whole})
    root = Path(root)
    archive = root / source.filename
    # torchvision extracts the archive only once its md5 is right, and unpickles only files that `_whole` has compared with
    # their published md5: nothing of unknown origin is unpickled, and a half-extracted folder is extracted anew.
    try:
        with _alone(root), _patience():
            train, test = source(root, train=True, download=True), source(root, train=False)
    except FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot get {name} from {source.url} ({reason}){_found(archive, source.tgz_md5)}; "
            f"try again, or put the file with md5 {source.tgz_md5} at {archive}"
        ) from None
    return Dataset(_drawn(train, train_per_class, seed), _drawn(test, test_per_class, seed), list(train.classes))


def _whole(self) -> bool:
    # torchvision's own check leaves out the class names, so an extraction cut short before them would never be repeated.
    files = [*self.train_list, *self.test_list, (self.meta["filename"], self.meta["md5"])]
    return all(
        torchvision().datasets.utils.check_integrity(Path(self.root, self.base_folder, file), md5)
        for file, md5 in files
    )


def _drawn(part, per_class: int | None, seed: int) -> Split:
    whole = split(torch.from_numpy(part.data), torch.tensor(part.targets))
    return subset(whole, per_class, torch.Generator().manual_seed(seed))


def _found(archive: Path, md5: str) -> str:
    if not archive.is_file():
        return ""
    found = torchvision().datasets.utils.calculate_md5(archive)
    return "" if found == md5 else f"; the file there has md5 {found}"


@contextlib.contextmanager
def _alone(root: Path):
    """Let one process at a time fetch into `root`: two variants of a data set share one archive."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _patience():
    """Give up on a silent connection, and keep the progress bar out of logs."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
