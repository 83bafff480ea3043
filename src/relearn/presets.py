"""Named params files."""

from pathlib import Path

from relearn import params, stages
from relearn.errors import Fault
from relearn.records import write_text
from relearn.registry import nearest

FOLDER = Path("workflow/presets")


def names() -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def install(name: str) -> None:
    """Put a preset in place as params.yaml and write its grid; a params.yaml that is no preset is kept as params.yaml.bak."""
    if name not in names():
        raise Fault(f"unknown preset '{name}'; {nearest(name, names())}")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    checked = params.load(FOLDER / f"{name}.yaml")
    if params.FILE.exists():
        old = params.FILE.read_text(encoding="utf-8")
        if old not in [(FOLDER / f"{other}.yaml").read_text(encoding="utf-8") for other in names()]:
            write_text(params.FILE.with_suffix(".yaml.bak"), old)
    write_text(params.FILE, text)
    stages.write(checked)
