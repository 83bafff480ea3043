"""Example images of a poison beside the clean ones, read from the splits without torch."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import files, structures
from relearn.runtime.hashing import settings_hash

SHOWN = 10  # classes
TYPES = {"uint8": "U8", "int64": "I64"}  # as safetensors calls them


def of_poison(params: Params, dataset: str, poison: str) -> dict:
    """The first training image of each class (ten at most), clean and poisoned.

    `clean` and `poisoned` are (N, H, W, 3) uint8, `labels` the names of their classes, `use` what the poison is. Raises
    UserError for a file that is missing, corrupt, or not made from the other.
    """
    clean = grid.path("prepare", "train", dataset=dataset)
    poisoned = grid.path("poison", "train", dataset=dataset, poison=poison)
    info = grid.path("prepare", "info", dataset=dataset)
    prepared, used = (settings_hash(settings(path).get("dataset")) for path in (clean, poisoned))
    if prepared != used:
        raise UserError(f"{poisoned} is not made from {clean}: that has other settings; run poison again")
    labels, rows = np.unique(_read(clean, "labels", "int64", 1), return_index=True)
    labels, rows = labels[:SHOWN], rows[:SHOWN]
    names = files.read_json(info, structures.DATA_INFO)["classes"]
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(f"{clean} has labels that {info} does not name; run prepare again")
    images = {
        "clean": _read(clean, "images", "uint8", 4, rows),
        "poisoned": _read(poisoned, "images", "uint8", 4, rows),
    }
    if images["clean"].shape != images["poisoned"].shape:
        raise UserError(f"{poisoned} is not made from {clean}: its images differ in number or size; run poison again")
    return images | {"labels": [names[label] for label in labels], "use": params.entry("poisons", poison).name}


def settings(path: Path) -> dict:
    """The settings in the header of a split. Raises UserError for a missing or corrupt file."""
    try:
        with safe_open(files.existing(path), framework="numpy") as file:
            return files.parsed_json(path, (file.metadata() or {}).get("facts", ""), structures.SPLIT)["settings"]
    except SafetensorError as error:
        raise _corrupt(path, error) from None


def _read(path: Path, name: str, dtype: str, dimensions: int, rows: np.ndarray | None = None) -> np.ndarray:
    """A tensor of a safetensors file, or only these rows of it, without torch. Raises UserError for a corrupt file."""
    try:
        with safe_open(files.existing(path), framework="numpy") as file:
            part = file.get_slice(name)
            if part.get_dtype() != TYPES[dtype] or len(part.get_shape()) != dimensions:
                raise UserError(
                    f"{path}: {name} must be {dtype} of {dimensions} dimensions, "
                    f"found {part.get_dtype()} {part.get_shape()}; delete it and run again"
                )
            if rows is None:
                return file.get_tensor(name)
            return np.concatenate([part[int(row) : int(row) + 1] for row in rows])
    except SafetensorError as error:
        raise _corrupt(path, error) from None


def _corrupt(path: Path, error: SafetensorError) -> UserError:
    return UserError(f"{path} is corrupt or not written by relearn ({error}); delete it and run again")
