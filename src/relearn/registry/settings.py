"""Types of settings: what an annotation such as ``PositiveInt`` accepts, and how a value is checked against it."""

import ast
import difflib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relearn.errors import shown

# Names for annotations that say more than a Python type; `TYPES` holds what each accepts. All numbers have bounds: a
# value beyond them is a typing error, and would lead to an overflow, a job without end or no free memory.
Positive = float  #: a number above 0
NonNegative = float  #: a number, 0 or more
Fraction = float  #: a number from 0 to 1
PositiveFraction = float  #: a number above 0, at most 1
Levels = float  #: a change of pixel values in 1/255, above 0
Radius = float  #: the same, 0 or more
LinfBudget = float  #: an L-inf bound in 1/255; one of less than 1 would change no pixel
PositiveInt = int  #: a whole number, 1 or more
NonNegativeInt = int  #: a whole number, 0 or more
Seed = int  #: what random draws derive from
Channels = int  #: the width of a network
Side = int  #: pixels along a side
Pad = int  #: the same, 0 or more
Bits = int  #: bits of a pixel value
Quality = int  #: of a JPEG, as Pillow counts it
Threads = int  #: CPU threads
GroupCount = int  #: a number of layer groups, less than the architecture has
CleanCount = int  #: a number of clean training images, which a method that has it gets to see
CheckpointCount = int  #: a number of checkpoints, at most what the surrogate that the entry names stores
ArchitectureName = str  #: an entry of `architectures:` in params.yaml
SurrogateName = str  #: an entry of `surrogates:` in params.yaml
PretrainingName = str  #: an entry of `pretraining:` in params.yaml
PurificationName = str  #: an entry of `purifications:` in params.yaml
PoisonName = str  #: an entry of `poisons:` in params.yaml; a poison that has a list of them reads their images
CellName = (
    str  #: a cell of the grid, DATASET/POISON/ARCH/METHOD/SEED; a figure that has a list of them reads their runs
)
RecipeSettings = dict  #: some settings of `train:`
InputPath = str  #: a file or folder of the user's; both engines watch it
Checksum = str  #: the SHA-256 of the file that the same entry names, whole or its first digits


def _number(least: float, most: float, words: str = "") -> tuple[str, Callable]:
    def accepts(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

    return words or f"a number from {least:g} to {most:g}", accepts


def _whole(least: int, most: int) -> tuple[str, Callable]:
    def accepts(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return f"a whole number from {least:,} to {most:,}", accepts


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_checksum(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{8,64}", value) is not None


#: annotation -> (the same in words, a check of a value)
TYPES: dict[str, tuple[str, Callable]] = {
    "int": _whole(-(2**31), 2**31 - 1),
    "float": _number(-1e9, 1e9),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "str": ("text", _is_text),
    "Positive": _number(1e-9, 1e9, "a number above 0, from 1e-9 to 1e9"),
    "NonNegative": _number(0, 1e9, "a number from 0 to 1e9"),
    "Fraction": _number(0, 1),
    "PositiveFraction": _number(1e-9, 1, "a number above 0, at most 1"),
    "Levels": _number(1e-9, 255, "a number above 0, at most 255"),
    "Radius": _number(0, 255),
    "LinfBudget": _number(1, 255),
    "PositiveInt": _whole(1, 1_000_000),
    "NonNegativeInt": _whole(0, 1_000_000),
    "Seed": ("a whole number, 0 or more, below 2^63", _whole(0, 2**63 - 1)[1]),
    "Channels": _whole(1, 4096),
    "Side": _whole(1, 1024),
    "Pad": _whole(0, 1024),
    "Bits": _whole(1, 8),
    "Quality": _whole(1, 95),
    "Threads": _whole(1, 1024),
    "GroupCount": _whole(1, 1000),
    "CheckpointCount": _whole(1, 1000),
    "CleanCount": _whole(1, 1_000_000),
    "ArchitectureName": ("the name of an architecture", _is_text),
    "SurrogateName": ("the name of a surrogate", _is_text),
    "PretrainingName": ("the name of a pretraining", _is_text),
    "PurificationName": ("the name of a purification", _is_text),
    "PoisonName": ("the name of a poison", _is_text),
    "CellName": ("the name of a cell", _is_text),
    "RecipeSettings": ("a mapping of settings of train:", lambda v: isinstance(v, dict)),
    "InputPath": ("a path", lambda v: _is_text(v) and v != ""),
    "Checksum": ("the first 8 to 64 hexadecimal digits of a SHA-256, in quotes", _is_checksum),
}

#: annotation -> the section of params.yaml that must have an entry of this name
NAMED = {
    "ArchitectureName": "architectures",
    "SurrogateName": "surrogates",
    "PurificationName": "purifications",
    "PretrainingName": "pretraining",
    "PoisonName": "poisons",
}
FLOATS = ("float", "Positive", "NonNegative", "Fraction", "PositiveFraction", "Levels", "Radius", "LinfBudget")
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


def group_count_error(count: int, groups: Sequence[str]) -> str | None:
    """What is wrong with a `GroupCount` for an architecture with these layer groups, or None."""
    if count < len(groups):
        return None
    return f"must be less than {len(groups)}, the number of layer groups ({', '.join(groups)}), found {count}"


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
        if not value:
            return "must be a list of at least one, found []"
        return next((error for error in (_error(annotation.slice, entry) for entry in value) if error), None)
    kind = ast.unparse(annotation)
    words, accepts = TYPES[kind]
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
