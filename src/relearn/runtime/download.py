"""Downloads over HTTP of known size and checksum: never more bytes, and no file unless they are the right ones."""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from relearn.errors import UserError
from relearn.runtime.files import atomic

TIMEOUT = 30  # seconds without a byte
PATIENCE = 60  # seconds before the average speed counts
SLOWEST = 10_000  # bytes per second; a slower server might never end
CHUNK = 2**16
ERRORS = (OSError, ValueError, http.client.HTTPException)  # URLError is an OSError; a strange address is a ValueError


@dataclass(frozen=True)
class Published:
    """A file that someone published: a name for messages, its address, its size in bytes and its md5."""

    title: str
    url: str
    size: int
    md5: str

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


def fetched(published: Published, root: Path, filename: str = "") -> Path:
    """The path of the file in `root`, downloaded unless it is there whole; `filename` in place of that of the address.

    With RELEARN_MIRROR set it comes from that address; its checksum stays. Raises UserError, with the address, the md5
    and the path, when it cannot be downloaded or is damaged.
    """
    name, mirror, there = filename or published.filename, os.environ.get("RELEARN_MIRROR"), ""
    path, url = root / name, f"{mirror.rstrip('/')}/{name}" if mirror else published.url
    try:
        if _md5(path) == published.md5:
            return path
        with _lock(root):
            if _md5(path) != published.md5:  # another process may have brought it
                download(url, path, published.size, published.md5)
    except (UserError, OSError) as error:
        with contextlib.suppress(OSError):
            there = _md5(path)
        wrong = f"; the file there has md5 {there}" if there else ""
        raise UserError(
            f"cannot get {published.title} from {url} ({error}){wrong}; "
            f"try again, or put the file with md5 {published.md5} at {path}"
        ) from None
    return path


def _md5(path: Path) -> str:
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


def download(url: str, path: Path, size: int, md5: str) -> None:
    """Write what lies at `url`, `size` bytes with this md5, to `path`.

    Raises UserError when it cannot be read over HTTP, is longer or shorter, or has another md5; there is no file then.
    """
    digest, read, begin = hashlib.md5(usedforsecurity=False), 0, time.monotonic()
    with atomic(path) as temporary, open(temporary, "wb") as file:
        for chunk in _chunks(url):
            read += len(chunk)
            if read > size:
                raise UserError(f"it sends more than the {size:,} bytes that the file has")
            seconds = time.monotonic() - begin
            if seconds > PATIENCE and read < SLOWEST * seconds:
                raise UserError(f"it sent {read:,} of {size:,} bytes in {seconds:.0f} seconds")
            digest.update(chunk)
            file.write(chunk)
        if read < size:
            raise UserError(f"it sent {read:,} of {size:,} bytes")
        if digest.hexdigest() != md5:
            raise UserError(f"it sent a file with md5 {digest.hexdigest()}")


def _chunks(url: str):
    """What `url` sends, piece by piece; it may redirect to HTTP only, and not to a file of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    try:
        with opener.open(urllib.request.Request(url, headers={"User-Agent": "relearn"}), timeout=TIMEOUT) as response:
            while chunk := response.read1(CHUNK):
                yield chunk
    except ERRORS as error:
        reason = " ".join(str(error).split())[:200]  # the server chooses its words
        raise UserError(reason or type(error).__name__) from None
