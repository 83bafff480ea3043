"""Types of settings: what an annotation such as ``PositiveInt`` accepts, and how a value is checked against it."""

import ast
import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
    return f"known: {', '.join(known) or 'none'}{hint}"


def _error(annotation: ast.expr, value: object) -> str | None:
    if isinstance(annotation, ast.BinOp):  # X | None
        return None if value is None else _error(annotation.left, value)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        listed = ast.literal_eval(annotation.slice)
        choices = list(listed) if isinstance(listed, tuple) else [listed]
        return None if value in choices else f"found {value!r}; {suggest(value, choices)}"
    if isinstance(annotation, ast.Subscript):  # list[X]
        if not isinstance(value, list):
            return f"must be a list, found {value!r}"
        return next((error for error in (_error(annotation.slice, entry) for entry in value) if error), None)
    words, accepts = TYPES[ast.unparse(annotation)]
    return None if accepts(value) else f"must be {words}, found {value!r}"
