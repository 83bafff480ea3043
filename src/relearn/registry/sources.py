"""The source files behind a job: what a file of this package imports, directly or not, read from the source text."""

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from relearn.errors import UserError
from relearn.registry.discovery import PACKAGE


@lru_cache
def imports(path: Path) -> tuple[Path, ...]:
    """Files of this package that the file at `path` imports anywhere in its text.

    Importing a module runs the ``__init__.py`` of each package around it, so these belong to it. That of the whole
    package holds only the version and is left out: a new version alone runs nothing again.
    """
    found: list[Path] = []
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            names = [statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)]
        elif isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            continue
        found += [file for name in names for file in _files(name) if file != path]
    return tuple(dict.fromkeys(found))


@lru_cache
def sources(*paths: Path) -> tuple[Path, ...]:
    """`paths` and every file of this package they import, directly or not, sorted."""
    found: set[Path] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo.extend(imports(path))
    return tuple(sorted(found))


@lru_cache
def rule_sources(rule: str) -> tuple[Path, ...]:
    """The files that every job of a rule runs, sorted: its own and what that imports."""
    return sources(PACKAGE / "rules" / f"{rule}.py")


def source_digest(rule: str, more: Iterable[str]) -> str:
    """The SHA-256 of what is now in the source files of a rule, and in `more`, named as by `relative`."""
    total = hashlib.sha256()
    for file in (*rule_sources(rule), *(PACKAGE.parents[1] / name for name in more)):
        content = file.read_bytes() if file.exists() else b""  # it may be deleted at any time
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def check_package() -> None:
    """Raises UserError in the root of a project whose ./src/relearn is not the package that is imported.

    Engines watch and record the files in ./src/relearn; results made by other code would pass for theirs. A folder
    without it is no project, and any installed package will do.
    """
    here = Path("src", PACKAGE.name)
    if here.is_dir() and not here.samefile(PACKAGE):
        raise UserError(
            f"this would run the code in {PACKAGE}, but record that in {here.absolute()}; "
            "use the environment of this project (make install), or set PYTHONPATH=src"
        )


@lru_cache
def relative(file: Path) -> str:
    """A source file as the engines name it, from the root of the project."""
    return file.relative_to(PACKAGE.parents[1]).as_posix()


def _files(name: str) -> list[Path]:
    """The files that importing the dotted `name` runs; none if it is not a module of this package."""
    top, *parts = name.split(".")
    if top != PACKAGE.name:
        return []
    packages = [PACKAGE.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    module = PACKAGE.joinpath(*parts).with_suffix(".py")
    return [file for file in (*packages, module) if parts and file.is_file()]
