"""Discovery of everything registered, from the source text: nothing is imported, so no torch is needed.

A registered thing is a function, or a class (methods, pretrainings), marked with ``@register`` in one of the folders
of `KINDS`. Its name is the name in params.yaml (of a class in snake case). Its keyword-only arguments are its settings,
with their types and defaults. A class that passes ``**settings`` on to its base has the settings of the base too.
"""

import ast
import importlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from relearn.errors import UserError
from relearn.registry.settings import REQUIRED, Setting, suggest

PACKAGE = Path(__file__).resolve().parents[1]
#: what one entry of a section of params.yaml is called in paths and arguments -> the section
SECTIONS = {
    "dataset": "datasets",
    "poison": "poisons",
    "surrogate": "surrogates",
    "arch": "architectures",
    "purification": "purifications",
    "pretraining": "pretraining",
    "method": "methods",
    "table": "tables",
    "figure": "figures",
}
KINDS = tuple(section for section in SECTIONS.values() if section != "surrogates")  # sections whose entries are code

Registered = TypeVar("Registered")


@dataclass(frozen=True)
class Entry:
    """One registered thing: kind, name, name of the object, file, positional arguments, settings and docstring.

    `groups` are the layer groups of an architecture, shallow to deep, if its file declares them in `GROUPS`.
    """

    kind: str
    name: str
    object: str
    path: Path
    arguments: tuple[str, ...]
    settings: tuple[Setting, ...]
    doc: str
    groups: tuple[str, ...] = ()


def register(thing: Registered) -> Registered:
    """Mark a function or class as registered; the registry finds the mark in the source text."""
    return thing


@lru_cache
def entries(kind: str) -> dict[str, Entry]:
    """All things registered under `kind`, by name, in alphabetical order. Raises UserError on a duplicate."""
    found: dict[str, Entry] = {}
    for path in sorted((PACKAGE / kind).glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        groups = _groups(body)
        for definition in body:
            if not isinstance(definition, ast.FunctionDef | ast.ClassDef) or not _is_registered(definition):
                continue
            entry = _entry(kind, path, definition)
            entry = replace(entry, groups=tuple(groups.get(entry.name, ())))
            if entry.name in found:
                raise UserError(
                    f"{kind}: '{entry.name}' is registered twice, in {found[entry.name].path.name} and {path.name}"
                )
            found[entry.name] = entry
    return dict(sorted(found.items()))


def entry(kind: str, name: str) -> Entry:
    """The entry `name` of `kind`. Raises UserError, with the choices, if there is none."""
    known = entries(kind)
    if name not in known:
        raise UserError(f"unknown {kind.removesuffix('s')} '{name}'; {suggest(name, known)}")
    return known[name]


def load(kind: str, name: str):
    """The registered function or class itself; this imports its file."""
    return getattr(module(kind, name), entry(kind, name).object)


def module(kind: str, name: str) -> ModuleType:
    """The module that registers `name`; this imports it."""
    return importlib.import_module(f"relearn.{kind}.{entry(kind, name).path.stem}")


def _groups(body: list[ast.stmt]) -> dict[str, list[str]]:
    """What a file assigns to `GROUPS`: the layer groups of its architectures by name, a literal."""
    for statement in body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "GROUPS":
            return ast.literal_eval(statement.value)
    return {}


def _is_registered(definition: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).split("(")[0] == "register" for decorator in definition.decorator_list)


def _entry(kind: str, path: Path, definition: ast.FunctionDef | ast.ClassDef) -> Entry:
    function = _constructor(path, definition) if isinstance(definition, ast.ClassDef) else definition
    arguments = tuple(a.arg for a in function.args.args if a.arg != "self")
    inherited = _inherited(kind, definition) if isinstance(definition, ast.ClassDef) and function.args.kwarg else ()
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", definition.name).lower()
    settings = _settings(path, function) + inherited
    return Entry(kind, name, definition.name, path, arguments, settings, ast.get_docstring(definition) or "")


def _constructor(path: Path, definition: ast.ClassDef) -> ast.FunctionDef:
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement
    raise UserError(
        f"{path.name}: class {definition.name} needs an __init__; its keyword-only arguments are its settings"
    )


def _settings(path: Path, function: ast.FunctionDef) -> tuple[Setting, ...]:
    found = []
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if argument.annotation is None:
            raise UserError(f"{path.name}: setting '{argument.arg}' of {function.name} needs a type annotation")
        value = REQUIRED if default is None else ast.literal_eval(default)
        found.append(Setting(argument.arg, ast.unparse(argument.annotation), value))
    return tuple(found)


def _inherited(kind: str, definition: ast.ClassDef) -> tuple[Setting, ...]:
    """The settings of the base of a class, which another file of the same folder defines."""
    base = ast.unparse(definition.bases[0]) if definition.bases else ""
    for path in sorted((PACKAGE / kind).glob("*.py")):
        for base_class in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(base_class, ast.ClassDef) and base_class.name == base:
                function = _constructor(path, base_class)
                return _settings(path, function) + (_inherited(kind, base_class) if function.args.kwarg else ())
    raise UserError(
        f"{kind}: {definition.name} passes settings on to its base, but no file of this folder defines '{base}'"
    )
