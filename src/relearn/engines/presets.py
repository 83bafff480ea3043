"""Named params files: those of the project in which a command runs, else those that came with the package."""

import itertools
import re
import sys
from pathlib import Path

from relearn import grid, params
from relearn.engines import dvc
from relearn.errors import UserError
from relearn.registry import PACKAGE, suggest
from relearn.registry.listing import split
from relearn.runtime.files import atomic, write_text

FOLDER = Path("workflow/presets")
SNAKEFILE = Path("Snakefile")  # where it is, a run can follow


def folder() -> Path:
    """Where the presets are: in this project, in the installed package, or in the clone that the package runs from."""
    places = (FOLDER, PACKAGE / "presets", PACKAGE.parents[1] / FOLDER)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise UserError(f"there are no presets, neither here in {FOLDER} nor with the package; install it again")
    return found


def names() -> list[str]:
    """The names of all presets. Raises UserError where none came with the package."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def summaries() -> dict[str, str]:
    """The first sentence of the comment at the head of each preset, by name."""
    return {name: split(_comment(name))[0] for name in names()}


def described(name: str) -> dict:
    """What a preset says of itself, its axes and the number of its cells and jobs, ready for JSON."""
    path = _path(name)
    checked, (summary, rest) = params.load(path), split(_comment(name))
    axes = {axis: checked.names(axis) for axis in params.AXES}
    counts = {"cells": len(grid.cells(checked)), "jobs": len(grid.jobs(checked))}
    return {"kind": "presets", "name": name, "summary": summary, "description": rest, **counts, **axes}


def install(name: str) -> str:
    """Write a preset to params.yaml, and its dvc.yaml where a Snakefile is; returns what was written and what is next.

    Where a params.yaml that is no preset was there, it is saved first, and standard error says so.
    """
    path = _path(name)
    text, checked = path.read_text(encoding="utf-8"), params.load(path)
    if params.FILE.exists():
        old = params.FILE.read_bytes()
        if old not in [_path(other).read_bytes() for other in names()]:
            _save(old)
    write_text(params.FILE, text)
    size = f"{len(grid.cells(checked))} cells, {len(grid.jobs(checked))} jobs"
    if not SNAKEFILE.exists():
        return (
            f"Wrote {params.FILE}, the preset {name}: {size}.\n"
            "There is no Snakefile here. relearn plan shows the cost; a run needs a clone of the project."
        )
    dvc.write(checked)
    return (
        f"Wrote {params.FILE} and {dvc.FILE}, the preset {name}: {size}.\n"
        "Next: relearn plan shows the cost; snakemake --cores 2 runs it."
    )


def _path(name: str) -> Path:
    if name not in names():
        raise UserError(f"unknown preset '{name}'; {suggest(name, names())}")
    return folder() / f"{name}.yaml"


def _comment(name: str) -> str:
    """The comment at the head of a preset."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), _path(name).read_text(encoding="utf-8").splitlines())
    return re.sub(r"\s+", " ", " ".join(line.removeprefix("#") for line in lines)).strip()


def _save(content: bytes) -> None:
    """Save a params.yaml as params.yaml.bak, or under the next number; what was saved before stays."""
    for number in itertools.count(1):
        path = params.FILE.with_suffix(".yaml.bak" if number == 1 else f".yaml.bak{number}")
        if not path.exists():
            with atomic(path) as temporary:
                temporary.write_bytes(content)
            print(f"relearn: saved {params.FILE}, which is not a preset, as {path}", file=sys.stderr)
        if path.read_bytes() == content:
            return
