"""The content of the user's own files and folders as SHA-256 sums, cheap to ask for again. Needs no torch.

Times and sizes say which files to read again, never that a result is current: engines and settings see only content.
"""

import functools
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from relearn.errors import UserError
from relearn.grid.paths import RESULTS
from relearn.params import Params
from relearn.runtime import files

CACHE = Path(RESULTS, "digests")  # a file per input: the sums of its files, with size, times and inode
HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}  # left by desktops; so are names that begin with a dot
RECENT = 2.0  # seconds; a file as young as this can change again without another time, so its sum is not kept
Sums = dict[str, str]  # SHA-256 by name within the input, "" for the input itself if it is a file


@functools.cache  # by the Params object: within one command the inputs are read once
def sums(params: Params, section: str, name: str) -> dict[str, Sums]:
    """The SHA-256 of every file in the user's files and folders that an entry names, by setting.

    Raises UserError for what does not exist, cannot be followed, or is neither a file nor a folder.
    """
    return {setting: _sums(path) for setting, path in params.paths(section, name).items()}


def digest(found: Sums) -> str:
    """One SHA-256 for an input: that of the file, or of the sums and names of all files in the folder."""
    return found[""] if "" in found else hashlib.sha256(manifest(found).encode()).hexdigest()


def manifest(found: Sums) -> str:
    """Sum and name of every file of an input, a line each, sorted by name."""
    return "".join(f"{found[name]}  {name}\n" for name in sorted(found))


def listing(params: Params, section: str, name: str) -> str:
    """Sum and name of every file of an entry, each name below that of its setting; what `relearn inputs` writes."""
    by_setting = sums(params, section, name)
    return manifest(
        {f"{key}/{file}".rstrip("/"): by_setting[key][file] for key in by_setting for file in by_setting[key]}
    )


def _sums(path: str) -> Sums:
    """The sums of a file, or of what lies in a folder, links followed; those of files that have not moved are kept."""
    root = os.path.abspath(path)
    cache = CACHE / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    known, kept, found = _read(cache), {}, {}
    for name, file, status in _walk(root, "", ()):
        state = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        old = known.get(name)
        now = time.time()
        kept_sum = old[1] if isinstance(old, list) and len(old) == 2 and old[0] == state else None
        found[name] = kept_sum if isinstance(kept_sum, str) else _sum(file)
        if now - max(status.st_mtime, status.st_ctime) > RECENT:
            kept[name] = [state, found[name]]
    if kept != known:
        _write(cache, kept)
    return found


def _walk(path: str, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str, os.stat_result]]:
    """Name within the input, path and status of every file at or below `path`."""
    try:
        status = os.stat(path)
    except ValueError:
        raise UserError(f"{path!r} is no path: it has a null character; correct it in params.yaml") from None
    except FileNotFoundError:
        what = "is a link to nothing; remove or correct it" if os.path.islink(path) else "does not exist"
        raise UserError(f"{path} {what}") from None
    if stat.S_ISREG(status.st_mode):
        yield name, path, status
        return
    if not stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is neither a file nor a folder; remove it, or name another input in params.yaml")
    key = (status.st_dev, status.st_ino)
    if key in above:
        raise UserError(f"{path} is a link to a folder around it, which has no end; remove the link")
    for entry in sorted(os.listdir(path)):
        if not entry.startswith(".") and entry.lower() not in HIDDEN:
            yield from _walk(os.path.join(path, entry), "/".join(filter(None, (name, _text(entry)))), (*above, key))


def _text(name: str) -> str:
    """A name as text of one line, whatever bytes it has."""
    text = os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _sum(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(cache: Path) -> dict:
    """What is known of an input; nothing if the file is missing or damaged, so that all is read again."""
    try:
        known = json.loads(cache.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(cache: Path, kept: dict) -> None:
    try:
        files.write_text(cache, json.dumps(kept))
    except OSError:  # a full or read-only disk: the job says so itself if it needs to write
        return
