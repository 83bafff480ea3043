"""Layouts in which poisons are published, told apart by what a file or folder holds, not by its name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from relearn.crafting.exchange import containers, folders
from relearn.crafting.exchange.containers import Loaded, array
from relearn.crafting.foreign import Array, Rows
from relearn.errors import UserError, shown
from relearn.runtime import memory

CONTENT = {"data": "auto", "images": "images", "perturbation": "perturbation"}  # names of arrays, and their kinds
LABELS = ("labels", "targets", "label")
FEW = 5  # names shown in a message
KNOWN = "docs/formats.md has the layouts that are known"


@dataclass(frozen=True)
class Found:
    """What was recognised: the layout in words, an array (N, ...) of images or perturbations, and its labels if any.

    `index` (N,) int64 is the place of each row in its original dataset, where the layout says it; `classes` the names
    of the classes, where it has them; `kind` is images, perturbation or auto; `files` are those that were read.
    """

    layout: str
    values: Rows
    kind: str = "auto"
    labels: torch.Tensor | None = None
    index: torch.Tensor | None = None
    classes: list[str] | None = None
    files: Sequence[Path] = ()


def recognise(path: Path) -> Found:
    """What a file or folder holds. Raises UserError for a layout that is not known, or one that is damaged."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder; correct the name")
    kind, value = containers.read(path)
    for recogniser in RECOGNISERS:
        found = recogniser(path, kind, value)
        if found:
            return Found(**(vars(found) | {"files": (path,)}))
    raise UserError(f"{path} ({kind}) holds {_words(value)}, which is no layout of a poison; {KNOWN}")


def labels_in(path: Path) -> torch.Tensor:
    """Labels (N,) int64 in a file: whole numbers, or rows (N, K) of zeros and a single one.

    Raises UserError for anything else.
    """
    kind, value = containers.read(path)
    values = array(value)
    if values is None and isinstance(value, list):
        values = np.array(value) if all(type(entry) is int for entry in value) else None
    if values is not None and values.ndim == 2:
        rows = np.asarray(values)
        if rows.shape[1] < 2 or not (((rows == 0) | (rows == 1)).all() and (rows.sum(1) == 1).all()):
            raise UserError(
                f"{path} holds rows of {rows.shape[1]} values that are not one 1 and zeros; it must be labels"
            )
        return torch.from_numpy(rows.argmax(1).astype(np.int64))
    found = _labels(values)
    if found is None:
        raise UserError(
            f"{path} ({kind}) holds {_words(value)}; labels are whole numbers (N,), or rows (N, K) with a single 1"
        )
    return found


def _labels(values: object) -> torch.Tensor | None:
    """Values as labels (N,) int64, if they are whole numbers from 0."""
    found = array(values)
    if found is None and isinstance(values, list | tuple) and values and all(type(entry) is int for entry in values):
        found = np.array(values) if max(values) < 2**31 else None
    if found is None or found.ndim != 1 or not len(found) or found.dtype.kind not in "iuf":
        return None
    whole = found.astype(np.int64) if np.isfinite(found).all() and abs(found).max() < 2**31 else None
    return torch.from_numpy(whole) if whole is not None and (whole == found).all() and whole.min() >= 0 else None


def _is_stack(values: object) -> bool:
    found = array(values)
    return found is not None and found.ndim == 4 and found.size > 0


def _stack(values: object) -> Loaded:
    found = array(values)
    assert found is not None
    return Loaded(found)


def _bare(path: Path, kind: str, value: object) -> Found | None:
    """An array alone: EM, TUE, AUE and PUE in torch files, REM and SEM in pickles, TAP, OPS and NTGA in .npy files."""
    if not _is_stack(value):
        return None
    return Found(f"{kind}: an array", _stack(value))


def _pair(path: Path, kind: str, value: object) -> Found | None:
    """(images, labels), as HYPO writes them."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not _is_stack(value[0]):
        return None
    labels = _labels(value[1])
    if labels is None:
        return None
    return Found(f"{kind}: a pair of an array and labels", _stack(value[0]), labels=labels)


def _named(path: Path, kind: str, value: object) -> Found | None:
    """Arrays by name: PIL in torch files (data, labels), AVATAR in .npz (data, targets), ours (images, labels)."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return None
    content = [name for name in value if name in CONTENT]
    labels = [name for name in value if name in LABELS]
    if len(content) != 1 or len(labels) > 1 or len(value) > len(content) + len(labels):
        return None
    values = value[content[0]]
    if isinstance(values, Array) and len(values.shape) == 4 and 0 not in values.shape:
        stack: Rows = values
        named = _named_labels(value[labels[0]]) if labels else None
    elif _is_stack(values):
        stack, named = _stack(values), value[labels[0]] if labels else None
    else:
        return None
    found = _labels(named)
    if labels and found is None:
        raise UserError(f"'{labels[0]}' in {path} are not labels, whole numbers from 0 in one row")
    words = f"{kind}: {' and '.join([*content, *labels])}"
    return Found(words, stack, kind=CONTENT[content[0]], labels=found)


def _named_labels(values: Array) -> np.ndarray | None:
    """Labels in a safetensors file, or None for what can be none: other types have no like in numpy."""
    return values.part(slice(None)).numpy() if values.dtype == "int64" and len(values.shape) == 1 else None


def _items(path: Path, kind: str, value: object) -> Found | None:
    """A list of (image, label): DUNE (arrays), ECLIPSE and COIN (raw RGB bytes), Hugging Face (bytes of PNG files)."""
    if not isinstance(value, list) or not value or not all(isinstance(item, tuple | list) for item in value):
        return None
    numbers = [_number(item[1]) if len(item) == 2 else None for item in value]
    if any(number is None for number in numbers):
        return None
    labels = _labels(numbers)
    if labels is None:
        raise UserError(f"{path} has labels below 0 or too large to be labels; make or fetch it again")
    first = value[0][0]
    if isinstance(first, bytes):
        if not all(isinstance(item[0], bytes) for item in value):
            return None
        if kind == "parquet":
            stack = folders.stacked(path, [item[0] for item in value])
            return Found("parquet: image and label", Loaded(stack), "images", labels)
        stack = _raw(path, [item[0] for item in value])
        return Found(f"{kind}: a list of (raw RGB bytes, label)", Loaded(stack), "images", labels)
    arrays = [array(item[0]) for item in value]
    if arrays[0] is None or arrays[0].ndim != 3:
        return None
    memory.check(2 * len(arrays) * arrays[0].nbytes, str(path), "import it on a machine with more memory")
    same = [one for one in arrays if one is not None and one.shape == arrays[0].shape and one.dtype == arrays[0].dtype]
    if len(same) < len(arrays):
        raise UserError(
            f"{path}: {len(arrays) - len(same)} of {len(arrays)} images are not like the first in shape or type"
        )
    return Found(f"{kind}: a list of (array, label)", Loaded(np.stack(same)), "images", labels)


def _number(value: object) -> int | None:
    """The whole number that a value is, or None."""
    found = array(value)
    if found is not None:
        return int(found) if found.ndim == 0 and found.dtype.kind in "iu" else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _raw(path: Path, items: list[bytes]) -> np.ndarray:
    """Square images (N, S, S, 3) uint8 of their bytes, row by row."""
    sizes = {len(item) for item in items}
    size = sizes.pop()
    side = math.isqrt(size // 3)
    if sizes or 3 * side**2 != size or not side:
        raise UserError(f"{path} holds bytes of {size} and other lengths, which are no square RGB images of one size")
    return np.frombuffer(b"".join(items), np.uint8).reshape(-1, side, side, 3)


def _folder(path: Path) -> Found:
    found = folders.read(path)
    labels = None if found.labels is None else torch.from_numpy(found.labels)
    index = None if found.index is None else torch.from_numpy(found.index)
    return Found(found.layout, found.values, "images", labels, index, found.classes, found.files)


def _words(value: object) -> str:
    """What a value is, in a few words."""
    found = array(value)
    if found is not None:
        return f"an array {found.shape} of {found.dtype.name}"
    if isinstance(value, dict):
        names = ", ".join(shown(name) for name in list(value)[:FEW])
        return f"{len(value)} entries by name ({names}{', ...' if len(value) > FEW else ''})"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}{f', the first {_words(value[0])}' if value else ''}"
    return f"{type(value).__name__} {shown(value)}"


RECOGNISERS: tuple[Callable[[Path, str, object], Found | None], ...] = (_bare, _pair, _named, _items)
