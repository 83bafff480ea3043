"""Downloads over HTTP of known size and checksum: never more bytes, and no file unless they are the right ones."""

import hashlib
import http.client
import time
import urllib.request
from pathlib import Path

from relearn.errors import UserError
from relearn.runtime.files import atomic

TIMEOUT = 30  # seconds without a byte
PATIENCE = 60  # seconds before the average speed counts
SLOWEST = 10_000  # bytes per second; a slower server might never end
CHUNK = 2**16
ERRORS = (OSError, ValueError, http.client.HTTPException)  # URLError is an OSError; a strange address is a ValueError


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
