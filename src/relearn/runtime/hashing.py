"""Hashes of settings and of files."""

import hashlib
import json
from pathlib import Path

from relearn.runtime.files import rounded


def settings_hash(settings) -> str:
    """The first 16 hex digits of the SHA-256 of `settings` as canonical JSON."""
    return hashlib.sha256(json.dumps(rounded(settings), sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path, algorithm: str) -> str | None:
    """The checksum of a file's content in hex digits; None where there is no file."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
