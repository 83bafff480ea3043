"""Files written whole or not at all, and JSON and CSV with a fixed format: the same content is the same bytes."""

import contextlib
import csv
import io
import json
import math
import os
import shutil
from pathlib import Path

from relearn.errors import UserError, shown
from relearn.runtime import structures

MOST_DEPTH = 50  # levels of JSON; ours has a handful


@contextlib.contextmanager
def atomic(path: Path):
    """Give a temporary path for `path`, renamed to it when the block ends well and removed when it does not.

    It lies in a folder of its own beside `path`, `.NAME.PID.tmp`, with whatever a library leaves there while it writes
    (safetensors does). An OSError of writing names `path`.
    """
    path = Path(path)
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / path.name
        yield temporary
        temporary.chmod(
            folder.stat().st_mode & 0o666
        )  # what the umask gives; safetensors lets no one but the owner read
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None or Path(error.filename).is_relative_to(folder):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rounded(value):
    """The same nested value with every float at ten significant digits, so that text is the same everywhere."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(entry) for entry in value]
    return value


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends under a temporary name, then rename."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: dict) -> None:
    """Write JSON with sorted keys, two spaces and ten significant digits."""
    write_text(path, json.dumps(rounded(content), indent=2, sort_keys=True, allow_nan=False) + "\n")


def existing(path: Path) -> Path:
    """The path itself. Raises UserError when nothing is there."""
    if not Path(path).exists():
        raise UserError(f"{path} does not exist; the job before this one makes it")
    return path


def expanded(path: str) -> Path:
    """A path of the user's, `~` followed. Raises UserError for the home of an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"no one knows the home folder in '{path}'; write the whole path") from None


def read_json(path: Path, structure: structures.Structure = structures.MAPPING) -> dict:
    """Read a JSON file of the structure of its kind. Raises UserError when it is missing, not JSON or of another."""
    with open(existing(path), "rb") as file:
        return parsed_json(path, file.read(), structure)


def read_json_of(cell: dict, path: Path, structure: structures.Structure) -> dict:
    """Read the JSON file of a cell, which names it. Raises UserError as well when it is that of another cell."""
    found = read_json(path, structure)
    if found["cell"] != cell:
        other = "/".join(str(found["cell"][name]) for name in structures.CELL)
        raise UserError(f"{path} is of {other}, not of the cell in its path; delete it and run again")
    return found


def parsed_json(path: Path, content: str | bytes, structure: structures.Structure) -> dict:
    """JSON found in `path`, of this structure. Raises UserError when it is not JSON or of another structure."""
    try:
        found = json.loads(content)
        if _depth(found) > MOST_DEPTH:
            raise RecursionError
    except RecursionError:
        raise UserError(f"{path} is not JSON of ours (nested too deep); delete it and run again") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run again") from None
    return structures.checked(path, found, structure)


def _depth(value: object) -> int:
    """How deep a value is nested, as far as matters."""
    level, depth = [value], 0
    while level and depth <= MOST_DEPTH:
        inner = (
            entry.values() if isinstance(entry, dict) else entry for entry in level if isinstance(entry, dict | list)
        )
        level, depth = [part for entries in inner for part in entries], depth + 1
    return depth


def write_rows(path: Path, rows: list[dict], header: tuple[str, ...] = ()) -> None:
    """Write rows with equal keys as CSV, floats with six decimals; `header` has the columns for no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else header, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def read_rows(path: Path, columns: structures.Columns, empty: bool = False) -> list[dict]:
    """Read a CSV file of a kind: a row per line, each value as its column declares; an undeclared one is a float.

    Nothing in an undeclared column is NaN. Raises UserError when the file is missing, lacks a column, has no rows
    (unless `empty`), or holds a value of another kind.
    """
    try:
        with open(existing(path), encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; delete it and run again") from None
    except csv.Error as error:
        raise UserError(f"{path} is not CSV ({error}); delete it and run again") from None
    missing = next((name for name in columns if name not in header), None)
    wrong = (
        "has no rows"
        if not lines and not (empty and header)
        else f"has no column {missing}"
        if missing is not None and lines
        else "has two columns of one name"
        if len(set(header)) < len(header)
        else None
    )
    if wrong:
        raise UserError(f"{path} {wrong}; delete it and run again")
    return [_row(path, number, header, line, columns) for number, line in enumerate(lines, 1)]


def _row(path: Path, number: int, header: list[str], line: list[str], columns: structures.Columns) -> dict:
    if len(line) != len(header):
        raise UserError(
            f"{path}: row {number} has {len(line)} values for {len(header)} columns; delete it and run again"
        )
    row: dict = {}
    for name, text in zip(header, line, strict=True):
        kind = columns.get(name, structures.NUMBER)
        if name not in columns and not text:
            row[name] = math.nan
            continue
        try:
            row[name] = kind.parse(text)
            accepted = kind.accepts(row[name])
        except ValueError:
            accepted = False
        if not accepted:
            found = shown(text)
            raise UserError(
                f"{path}: row {number}: {name} must be {kind.words}, found {found}; delete it and run again"
            )
    return row
