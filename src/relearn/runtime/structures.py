"""The structure of each kind of file that relearn writes, declared once and checked wherever one is read.

A structure is a `Value`, a mapping with the keys that must be there, or a list with the structure of its entries.
Tables (`Columns`) are the columns that a CSV file must have; further ones hold numbers, or nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relearn.errors import UserError, shown


@dataclass(frozen=True)
class Value:
    """A single value: in words, whether one is accepted, and how the text of a CSV file becomes one."""

    words: str
    accepts: Callable[[Any], bool]
    parse: Callable[[str], Any] = str


Structure = Value | Mapping[str, Any] | list
Columns = dict[str, Value]

LARGEST = 2**63 - 1


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST and math.isfinite(value)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


TEXT = Value("text", lambda value: isinstance(value, str))
NUMBER = Value("a number", _is_number, float)
WHOLE = Value("a whole number, 0 or more", lambda value: _is_whole(value, 0), int)
COUNT = Value("a whole number, 1 or more", lambda value: _is_whole(value, 1), int)
SHARE = Value(
    "a number, or nothing", lambda value: value is None or _is_number(value), lambda text: float(text) if text else None
)
ANSWER = Value("a verdict", lambda value: value in ("trapped", "not trapped", "cannot tell"))
PRECISION = Value("a precision", lambda value: value in ("float32", "bfloat16"))
MAPPING: Structure = {}

CELL = {"dataset": TEXT, "poison": TEXT, "arch": TEXT, "method": TEXT, "seed": WHOLE}
USES = {"method_use": TEXT, "poison_use": TEXT}  # what a cell's method and poison are, whatever they are called
RESULT = {
    "accuracy": NUMBER,
    "oracle_accuracy": NUMBER,
    "oracle_epoch": COUNT,
    "passes": NUMBER,
    "acm": NUMBER,
    "kept": SHARE,
    "verdict": ANSWER,
}
VERDICT = {
    "group": TEXT,
    "acm": NUMBER,
    "probe_accuracy": NUMBER,
    "hidden_accuracy": NUMBER,
    "kept": SHARE,
    "verdict": ANSWER,
    "reason": TEXT,
}

# JSON
RECORD = {"cell": CELL, "result": RESULT, "settings": MAPPING, "settings_hash": TEXT}
TRAIN_INFO = {
    "cell": CELL,
    "settings": MAPPING,
    "precision": PRECISION,
    "verdict": VERDICT,
    "steps_taken": COUNT,
    "steps": COUNT,
    "passes": NUMBER,
    "rolled_back": [{"steps_taken": WHOLE, "probe_accuracy": NUMBER, "test_accuracy": NUMBER}],
}
DATA_INFO = {"classes": [TEXT], "settings": MAPPING}

# facts in the header of a safetensors file
SPLIT = {"classes": [TEXT], "settings": MAPPING}
WEIGHTS = {"settings": MAPPING}
CHECKPOINT = {"settings_hash": TEXT}  # when unpacked
RUN_STATE = {
    "history": [MAPPING],
    "embeddings": [MAPPING],
    "rolled_back": [MAPPING],
    "training": {
        "model": MAPPING,
        "optimizer": MAPPING,
        "extra": MAPPING,
        "rates": MAPPING,
        "stage": TEXT,
        "step": WHOLE,
        "steps": WHOLE,
        "steps_taken": WHOLE,
        "probes": [MAPPING],
    },
    "method": MAPPING,
}

# CSV
HISTORY: Columns = {
    "epoch": COUNT,
    "step": COUNT,
    "steps_taken": COUNT,
    "stage": TEXT,
    "train_loss": NUMBER,
    "train_accuracy": NUMBER,
    "test_accuracy": NUMBER,
    "probe_accuracy": NUMBER,
    "hidden_accuracy": NUMBER,
}
PROBES: Columns = {
    "steps_taken": WHOLE,
    "step": WHOLE,
    "stage": TEXT,
    "probe_accuracy": NUMBER,
    "hidden_accuracy": NUMBER,
    "kept": SHARE,
    "verdict": ANSWER,
    "next_step": WHOLE,
    "next_stage": TEXT,
    "steps": COUNT,
}
EMBEDDINGS: Columns = {"epoch": COUNT, "group": TEXT, "label": TEXT, "x": NUMBER, "y": NUMBER}
RECORDS: Columns = CELL | USES | RESULT
HISTORIES: Columns = CELL | USES | HISTORY


def checked(path: Path, content: Any, structure: Structure) -> Any:
    """`content`, read from `path`, itself. Raises UserError, with the place and the value, for another structure."""
    error = _error("", content, structure)
    if error:
        raise UserError(f"{path}: {error}; delete it and run again")
    return content


def _error(where: str, content: object, structure: Structure) -> str | None:
    if isinstance(structure, Value):
        return None if structure.accepts(content) else _wrong(where, structure.words, content)
    parts: Iterable[tuple[Any, object, Structure]]
    if isinstance(structure, list):
        if not isinstance(content, list):
            return _wrong(where, "a list", content)
        parts = ((place, entry, structure[0]) for place, entry in enumerate(content))
    else:
        if not isinstance(content, dict):
            return _wrong(where, "a mapping", content)
        missing = next((key for key in structure if key not in content), None)
        if missing is not None:
            return f"{where}{missing} is missing"
        parts = ((key, content[key], expected) for key, expected in structure.items())
    found = (_error(f"{where}{key}.", entry, expected) for key, entry, expected in parts)
    return next(filter(None, found), None)


def _wrong(where: str, words: str, content: object) -> str:
    return f"{where.rstrip('.') or 'its content'} must be {words}, found {shown(content)}"
