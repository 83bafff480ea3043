"""Members of tar and zip archives, read where they are: nothing is extracted, and nothing grows without bound."""

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Container, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from relearn.errors import UserError, shown

MOST_MEMBERS = 1_000_000
ERRORS = (OSError, EOFError, ValueError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error)

Member = tuple[str, int, Callable[[], bytes]]  # name, size in bytes, what reads it


@dataclass(frozen=True)
class Bounds:
    """Bytes that one member, and all of them together, may unpack to."""

    each: int
    all: int


def names(path: Path, bounds: Bounds) -> list[str]:
    """The names of the files in an archive, in its order. Raises UserError as `contents` does."""
    return [name for name, _ in _checked(path, bounds, ())]


def contents(path: Path, bounds: Bounds, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files that are `wanted`, in the order of the archive.

    Raises UserError for an archive that is damaged, that unpacks to more than `bounds`, or with a member that is a
    link, lies outside, or is there twice.
    """
    return ((name, content) for name, content in _checked(path, bounds, wanted) if content is not None)


def _checked(path: Path, bounds: Bounds, wanted: Container[str]) -> Iterator[tuple[str, bytes | None]]:
    seen, unpacked = set[str](), 0
    try:
        with contextlib.closing((_zipped if zipfile.is_zipfile(path) else _tarred)(path)) as members:
            for name, size, read in members:
                unpacked += size
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                    raise ValueError(f"the member {shown(name)} lies outside")
                if name in seen or len(seen) == MOST_MEMBERS:
                    raise ValueError(f"the member {shown(name)} is there twice, or one too many")
                if size > bounds.each or unpacked > bounds.all:
                    raise ValueError(
                        f"with the member {shown(name)} it unpacks to {unpacked:,} bytes, "
                        f"beyond {bounds.each:,} each or {bounds.all:,} in all"
                    )
                seen.add(name)
                yield name, read() if name in wanted else None
    except ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); delete it and run again") from None


def _tarred(path: Path) -> Generator[Member, None, None]:
    with tarfile.open(path, "r:*") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined] # it would keep them all
            if member.isdir():
                continue
            if not member.isreg():
                raise ValueError(f"the member {shown(member.name)} is a link or no file")
            yield member.name, member.size, lambda member=member: tar.extractfile(member).read()  # type: ignore


def _zipped(path: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, member.file_size, lambda member=member: archive.read(member)  # type: ignore
