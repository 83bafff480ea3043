"""Named params files."""

import itertools
import sys
from pathlib import Path

from relearn import params
from relearn.engines import dvc
from relearn.errors import UserError
from relearn.registry import suggest
from relearn.runtime.files import atomic, write_text

FOLDER = Path("workflow/presets")


def names() -> list[str]:
    """The names of all presets. Raises UserError in a folder that has none, such as one outside a project."""
    if not FOLDER.is_dir():
        raise UserError(f"there are no presets here, in {FOLDER}; run this in the root of a clone of the project")
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def install(name: str) -> None:
    """Write a preset to params.yaml, and its dvc.yaml; says so where a params.yaml that is no preset is saved first."""
    if name not in names():
        raise UserError(f"unknown preset '{name}'; {suggest(name, names())}")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    checked = params.load(FOLDER / f"{name}.yaml")
    if params.FILE.exists():
        old = params.FILE.read_bytes()
        if old not in [(FOLDER / f"{other}.yaml").read_bytes() for other in names()]:
            _save(old)
    write_text(params.FILE, text)
    dvc.write(checked)


def _save(content: bytes) -> None:
    """Save a params.yaml as params.yaml.bak, or under the next number; what was saved before stays."""
    for number in itertools.count(1):
        path = params.FILE.with_suffix(".yaml.bak" if number == 1 else f".yaml.bak{number}")
        if not path.exists():
            with atomic(path) as temporary:
                temporary.write_bytes(content)
            print(f"relearn: saved {params.FILE}, which is no preset, as {path}", file=sys.stderr)
        if path.read_bytes() == content:
            return
