"""A folder for others: what is in it, with checksums and a data card."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from relearn.errors import UserError
from relearn.runtime.files import rounded
from relearn.runtime.hashing import file_digest

MANIFEST, SUMS, CARD = "manifest.json", "SHA256SUMS", "README.md"


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well. Raises UserError when `out` holds anything."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; remove it, or choose another name")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.exists():
            out.rmdir()
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def describe(folder: Path, manifest: dict, card: str) -> None:
    """Write the data card, manifest.json, and the SHA-256 of every file as `sha256sum --check SHA256SUMS` reads it."""
    text = json.dumps(rounded(manifest), indent=2, sort_keys=True, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8", newline="\n")
    (folder / CARD).write_text(card, encoding="utf-8", newline="\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_digest(path, 'sha256')}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def card(title: str, facts: Mapping[str, object], text: str) -> str:
    """A data card in Markdown: a title, a table of facts, and a text."""
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    return f"# {title}\n\n{text}\n\n| | |\n|---|---|\n{rows}\nCheck the files with `sha256sum --check {SUMS}`.\n"
