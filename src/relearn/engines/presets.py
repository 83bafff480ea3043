"""Named params files."""

from pathlib import Path

from relearn import params
from relearn.engines import dvc
from relearn.errors import UserError
from relearn.registry import suggest
from relearn.runtime.files import write_text

FOLDER = Path("workflow/presets")


def names() -> list[str]:
    """The names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def install(name: str) -> None:
    """Write a preset to params.yaml, and its dvc.yaml; a params.yaml that is no preset is saved as params.yaml.bak."""
    if name not in names():
        raise UserError(f"unknown preset '{name}'; {suggest(name, names())}")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    checked = params.load(FOLDER / f"{name}.yaml")
    if params.FILE.exists():
        old = params.FILE.read_text(encoding="utf-8")
        if old not in [(FOLDER / f"{other}.yaml").read_text(encoding="utf-8") for other in names()]:
            write_text(params.FILE.with_suffix(".yaml.bak"), old)
    write_text(params.FILE, text)
    dvc.write(checked)
