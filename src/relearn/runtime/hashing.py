"""Hashes of settings and of files."""

import hashlib
import json
from pathlib import Path

from relearn.errors import UserError
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


def check_sum(path: Path | str, found: str | None, expected: str) -> None:
    """Raises UserError when the SHA-256 of a file is not the one that params.yaml gives, or begins otherwise."""
    if found is None or not found.startswith(expected.lower()):
        raise UserError(
            f"{path} is another file than params.yaml expects: its SHA-256 is {found or 'that of no file'}, expected "
            f"{expected}{'...' if len(expected) < 64 else ''}; fetch the file again, or correct the checksum"
        )
