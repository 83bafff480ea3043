"""Types of settings: what an annotation such as ``PositiveInt`` accepts, and how a value is checked against it."""

import ast
import difflib
import itertools
import math
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from relearn.errors import shown

# Names for annotations that say more than a Python type; `TYPES` holds what each accepts.
Positive = float  #: a finite number above 0
NonNegative = float  #: a finite number, 0 or more
Fraction = float  #: a number from 0 to 1
PositiveFraction = float  #: a number above 0, at most 1
PositiveInt = int  #: a whole number, 1 or more
NonNegativeInt = int  #: a whole number, 0 or more
ArchitectureName = str  #: an entry of `architectures:` in params.yaml
SurrogateName = str  #: an entry of `surrogates:` in params.yaml
CellName = (
    str  #: a cell of the grid, DATASET/POISON/ARCH/METHOD/SEED; a figure that has a list of them reads their runs
)
InputPath = str  #: a file or folder of the user's; both engines watch it


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


#: annotation -> (the same in words, a check of a value)
TYPES: dict[str, tuple[str, Callable]] = {
    "int": ("a whole number", _is_whole),
    "float": ("a number", _is_number),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "str": ("text", _is_text),
    "Positive": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "NonNegative": ("a number, 0 or more", lambda v: _is_number(v) and v >= 0),
    "Fraction": ("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
    "PositiveFraction": ("a number above 0, at most 1", lambda v: _is_number(v) and 0 < v <= 1),
    "PositiveInt": ("a whole number, 1 or more", lambda v: _is_whole(v) and v >= 1),
    "NonNegativeInt": ("a whole number, 0 or more", lambda v: _is_whole(v) and v >= 0),
    "ArchitectureName": ("the name of an architecture", _is_text),
    "SurrogateName": ("the name of a surrogate", _is_text),
    "CellName": ("the name of a cell", _is_text),
    "InputPath": ("a path", lambda v: _is_text(v) and v != ""),
}

FLOATS = ("float", "Positive", "NonNegative", "Fraction", "PositiveFraction")
LARGEST = 2**63 - 1  # what 64 bits hold: more overflows in torch and numpy
LONGEST_LIST = 160  # characters of the choices that a message names
LONGEST_PATH = 1000  # characters
REQUIRED = object()  # stands where a setting has no default


@dataclass(frozen=True)
class Setting:
    """One setting of a registered thing: its name, the source text of its annotation, its default or `REQUIRED`."""

    name: str
    annotation: str
    default: object

    def error(self, value: object) -> str | None:
        """What is wrong with `value`, or None."""
        return _error(ast.parse(self.annotation, mode="eval").body, value)

    def resolved(self, given: dict):
        """The value of this setting in `given`, else the default; a whole number becomes a float if declared so."""
        value = given.get(self.name, self.default)
        return float(value) if self.kind in FLOATS and type(value) is int else value

    @property
    def kind(self) -> str:
        """The annotation without `| None`, to recognise names and paths."""
        return self.annotation.removesuffix("| None").strip()


def suggest(name: object, choices: Iterable) -> str:
    """The end of an error message: the choices, and the most similar one if there is any."""
    known = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    fit = sum(length <= LONGEST_LIST for length in itertools.accumulate(len(choice) + 2 for choice in known))
    more = f" and {len(known) - fit} more" if fit < len(known) else ""
    return f"known: {', '.join(known[:fit]) or 'none'}{more}{hint}"


def _error(annotation: ast.expr, value: object) -> str | None:
    if isinstance(annotation, ast.BinOp):  # X | None
        return None if value is None else _error(annotation.left, value)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        listed = ast.literal_eval(annotation.slice)
        choices = list(listed) if isinstance(listed, tuple) else [listed]
        return None if value in choices else f"found {shown(value)}; {suggest(value, choices)}"
    if isinstance(annotation, ast.Subscript):  # list[X]
        if not isinstance(value, list):
            return f"must be a list, found {shown(value)}"
        return next((error for error in (_error(annotation.slice, entry) for entry in value) if error), None)
    kind = ast.unparse(annotation)
    words, accepts = TYPES[kind]
    if type(value) is int and abs(value) > LARGEST:
        return f"must be at most {LARGEST}, found {shown(value)}"
    if not accepts(value):
        return f"must be {words}, found {shown(value)}"
    return _path_error(str(value)) if kind == "InputPath" else None


def _path_error(path: str) -> str | None:
    """Why a path cannot be a file or folder that both engines watch, or None."""
    if len(path) > LONGEST_PATH:
        return f"must be a path of at most {LONGEST_PATH:,} characters, found {shown(path)}"
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in path):
        return f"must be a path without line breaks and control characters, in UTF-8, found {shown(path)}; rename it"
    if "{" in path or "}" in path:
        return f"must be a path without braces, which the engines read as their own, found {shown(path)}; rename it"
    try:
        Path(path).expanduser()
    except RuntimeError:
        return f"no one knows the home folder in {shown(path)}; write the whole path"
    return None
