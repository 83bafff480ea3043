"""Names, settings and sources of everything registered, read from the source text: no import, no torch.

A registered thing is a function (a class for methods) marked with ``@register`` in one of the folders of `KINDS`.
Its name is the name in params.yaml (of a class in snake case); its keyword-only arguments are its settings, with their types and
defaults. A class that passes ``**settings`` on to its base has the base's settings too.
"""

import ast
import difflib
import importlib
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from relearn.errors import Fault

PACKAGE = Path(__file__).resolve().parent
KINDS = ("datasets", "poisons", "architectures", "methods", "tables", "figures")

# Names for the annotations of settings that say more than a Python type; `TYPES` holds what each accepts.
Positive = float  #: a finite number above 0
NonNegative = float  #: a finite number, 0 or more
Fraction = float  #: a number from 0 to 1
Share = float  #: a number above 0, 1 at most
Count = int  #: a whole number, 1 or more
Index = int  #: a whole number, 0 or more
ArchitectureName = str  #: an entry of `architectures:` in params.yaml
SurrogateName = str  #: an entry of `surrogates:` in params.yaml
CellName = (
    str  #: a cell of the grid, DATASET/POISON/ARCH/METHOD/SEED; a figure that has a list of them reads their runs
)
InputPath = str  #: a file or folder of the user's; both engines watch it


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


TYPES = {
    "int": ("a whole number", _whole),
    "float": ("a number", _number),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "str": ("a text", lambda v: isinstance(v, str)),
    "Positive": ("a number above 0", lambda v: _number(v) and v > 0),
    "NonNegative": ("a number, 0 or more", lambda v: _number(v) and v >= 0),
    "Fraction": ("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1),
    "Share": ("a number above 0, 1 at most", lambda v: _number(v) and 0 < v <= 1),
    "Count": ("a whole number, 1 or more", lambda v: _whole(v) and v >= 1),
    "Index": ("a whole number, 0 or more", lambda v: _whole(v) and v >= 0),
    "ArchitectureName": ("the name of an architecture", lambda v: isinstance(v, str)),
    "SurrogateName": ("the name of a surrogate", lambda v: isinstance(v, str)),
    "CellName": ("the name of a cell", lambda v: isinstance(v, str)),
    "InputPath": ("a path", lambda v: isinstance(v, str) and v != ""),
}

FLOATS = ("float", "Positive", "NonNegative", "Fraction", "Share")
REQUIRED = object()  # stands where a setting has no default


@dataclass(frozen=True)
class Setting:
    """One setting of a registered thing: its name, the source text of its annotation, its default or `REQUIRED`."""

    name: str
    annotation: str
    default: object

    def fault(self, value) -> str | None:
        """What is wrong with `value`, or None."""
        return _fault(ast.parse(self.annotation, mode="eval").body, value)

    def resolved(self, given: dict):
        """The value `given` has for this setting, or the default; a whole number as a float where the annotation is one."""
        value = given.get(self.name, self.default)
        return float(value) if self.kind in FLOATS and type(value) is int else value

    @property
    def kind(self) -> str:
        """The annotation without `| None`, to recognise names and paths."""
        return self.annotation.removesuffix("| None").strip()


@dataclass(frozen=True)
class Entry:
    """One registered thing: kind, name, name of the object, file, positional arguments and settings."""

    kind: str
    name: str
    object: str
    path: Path
    arguments: tuple[str, ...]
    settings: tuple[Setting, ...]
    doc: str


def register(thing):
    """Mark a function or class as registered; the registry finds the mark in the source text."""
    return thing


def nearest(name: str, choices) -> str:
    """The end of an error message: the choices, and the nearest one if one is near."""
    choices = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"known: {', '.join(choices) or 'none'}{hint}"


@lru_cache
def entries(kind: str) -> dict[str, Entry]:
    """All things registered under `kind`, by name, in alphabetical order. Raises Fault on a duplicate."""
    found: dict[str, Entry] = {}
    for path in sorted((PACKAGE / kind).glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            marked = any(ast.unparse(d).split("(")[0] == "register" for d in getattr(node, "decorator_list", []))
            if not marked:
                continue
            entry = _entry(kind, path, node)
            if entry.name in found:
                raise Fault(
                    f"{kind}: '{entry.name}' is registered twice, in {found[entry.name].path.name} and {path.name}"
                )
            found[entry.name] = entry
    return dict(sorted(found.items()))


def entry(kind: str, name: str) -> Entry:
    """The entry `name` of `kind`. Raises Fault, with the choices, if there is none."""
    known = entries(kind)
    if name not in known:
        raise Fault(f"unknown {kind.removesuffix('s')} '{name}'; {nearest(name, known)}")
    return known[name]


def load(kind: str, name: str):
    """The registered function or class itself; this imports its file."""
    return getattr(module(kind, name), entry(kind, name).object)


def module(kind: str, name: str):
    """The module that registers `name`; this imports it."""
    return importlib.import_module(f"relearn.{kind}.{entry(kind, name).path.stem}")


@lru_cache
def imports(path: Path) -> tuple[Path, ...]:
    """Files of this package that the file at `path` imports anywhere in its text."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "relearn":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "relearn"]
        else:
            continue
        for name in names:
            file = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
            if name != "relearn" and file.is_file():
                found.append(file)
    return tuple(dict.fromkeys(found))


@lru_cache
def sources(*paths: Path) -> tuple[Path, ...]:
    """`paths` and every file of this package they import, directly or not, sorted."""
    seen: set[Path] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(imports(path))
    return tuple(sorted(seen))


@lru_cache
def step_sources(step: str) -> tuple[Path, ...]:
    """The files every job of a step runs, sorted: its own and what that imports."""
    return sources(PACKAGE / "steps" / f"{step}.py")


@lru_cache
def relative(file: Path) -> str:
    """A source file as the engines name it, from the root of the project."""
    return file.relative_to(PACKAGE.parents[1]).as_posix()


def _entry(kind: str, path: Path, node) -> Entry:
    function = _constructor(path, node) if isinstance(node, ast.ClassDef) else node
    arguments = tuple(a.arg for a in function.args.args if a.arg != "self")
    settings = _settings(function) + (_inherited(kind, node) if function.args.kwarg else ())
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.name).lower()
    return Entry(kind, name, node.name, path, arguments, settings, ast.get_docstring(node) or "")


def _constructor(path: Path, node: ast.ClassDef) -> ast.FunctionDef:
    found = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    if found is None:
        raise Fault(
            f"{path.name}: class {node.name} needs its own __init__; its keyword-only arguments are its settings"
        )
    return found


def _settings(function: ast.FunctionDef) -> tuple[Setting, ...]:
    return tuple(
        Setting(a.arg, ast.unparse(a.annotation), REQUIRED if default is None else ast.literal_eval(default))
        for a, default in zip(function.args.kwonlyargs, function.args.kw_defaults)
    )


def _inherited(kind: str, node) -> tuple[Setting, ...]:
    """The settings of the base of a class, which another file of the same folder defines."""
    base = ast.unparse(node.bases[0]) if getattr(node, "bases", None) else ""
    for path in sorted((PACKAGE / kind).glob("*.py")):
        for other in ast.parse(path.read_text()).body:
            if isinstance(other, ast.ClassDef) and other.name == base:
                function = _constructor(path, other)
                return _settings(function) + (_inherited(kind, other) if function.args.kwarg else ())
    raise Fault(f"{kind}: {node.name} passes settings on, but its base '{base}' is in no file of this folder")


def _fault(annotation: ast.expr, value) -> str | None:
    if isinstance(annotation, ast.BinOp):  # X | None
        return None if value is None else _fault(annotation.left, value)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = (
            list(ast.literal_eval(annotation.slice))
            if isinstance(annotation.slice, ast.Tuple)
            else [ast.literal_eval(annotation.slice)]
        )
        return None if value in choices else f"found {value!r}; {nearest(value, choices)}"
    if isinstance(annotation, ast.Subscript):  # list[X]
        if not isinstance(value, list):
            return f"must be a list, found {value!r}"
        return next((fault for fault in (_fault(annotation.slice, item) for item in value) if fault), None)
    words, accepts = TYPES[ast.unparse(annotation)]
    return None if accepts(value) else f"must be {words}, found {value!r}"
