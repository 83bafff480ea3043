"""Files written whole or not at all, and JSON and CSV with a fixed format: the same content is the same bytes."""

import contextlib
import csv
import io
import json
import os
import shutil
from pathlib import Path

from relearn.errors import UserError


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


def read_json(path: Path) -> dict:
    """Read a JSON file. Raises UserError when it is missing or not JSON."""
    try:
        return json.loads(Path(existing(path)).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run again") from None


def write_rows(path: Path, rows: list[dict], header: tuple[str, ...] = ()) -> None:
    """Write rows with equal keys as CSV, floats with six decimals; `header` has the columns for no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else header, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file. Raises UserError when it is missing."""
    with open(existing(path), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
