"""Arrays in files of others, opened without unpickling and read row by row, and the unit of their values."""

import math
import os
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from relearn.crafting.perturbation import CHUNK
from relearn.errors import UserError
from relearn.registry import suggest

FLOATS = ("float16", "float32", "float64")
DTYPES = {"images": ("uint8", *FLOATS), "perturbation": ("int8", *FLOATS)}
TOLERANCE = 1e-3  # of the range: how far floats may leave it by rounding errors
SUFFIXES = (".safetensors", ".npy")
SAFETENSORS = {"U8": "uint8", "I8": "int8", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64"}
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# what a header made to mislead can raise, which numpy tokenizes and evaluates as a literal
ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    tokenize.TokenError,
    EOFError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
)
GAP = 4  # rows between two wanted ones that are rather read than skipped


class Rows(Protocol):
    """An array whose rows are read part by part: its shape, the name of its dtype in numpy, and adjacent rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape; the first dimension counts rows."""

    @property
    def dtype(self) -> str:
        """The dtype, as numpy calls it, without its byte order."""

    def part(self, part: slice) -> torch.Tensor:
        """Adjacent rows."""


@dataclass(frozen=True)
class Array:
    """An array in a file; `name` is "" in a .npy file, `dtype` that of numpy."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def part(self, part: slice) -> torch.Tensor:
        """Adjacent rows; the file is opened anew each time, or every page once read would stay in memory."""
        if self.path.suffix == ".npy":
            values = np.lib.format.open_memmap(self.path, mode="r")[part]
            return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice(self.name)[part]

    def rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows (N,) int64, in this order."""
        first, last = int(rows.min()), int(rows.max())
        if last - first < GAP * len(rows):
            return self.part(slice(first, last + 1))[rows - first]
        return torch.cat([self.part(slice(row, row + 1)) for row in rows.tolist()])


def open_arrays(path: Path) -> dict[str, Array]:
    """The arrays in the file by name, "" in a .npy file. Nothing is unpickled.

    Raises UserError for a file of another type, one that is damaged, or one whose header promises what it lacks.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} ends in '{path.suffix}'; known: {', '.join(SUFFIXES)}; convert it to one of these")
    if not os.path.isfile(path):  # unlike Path.is_file, also for a path that no system accepts
        raise UserError(f"{path} is not a file; set `file` to the poison, relative to the current folder")
    try:
        return {"": npy_header(path)} if path.suffix == ".npy" else safetensors_headers(path)
    except (*ERRORS, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged or not a plain {path.suffix} file ({reason}); fetch it again") from None


def npy_header(path: Path) -> Array:
    """The array of a .npy file. Raises one of `ERRORS` for a file whose header promises what it lacks."""
    with open(path, "rb") as file:
        shape, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    promised, found = math.prod(shape) * dtype.itemsize, path.stat().st_size - begin
    if min(shape, default=0) < 0 or promised != found:
        raise ValueError(f"its header promises {promised:,} bytes, but {found:,} follow")
    return Array(path, "", shape, dtype.name)


def safetensors_headers(path: Path) -> dict[str, Array]:
    """The arrays of a .safetensors file by name. Raises SafetensorError for a damaged one."""
    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, not a dict
        return {
            name: Array(path, name, tuple(part.get_shape()), SAFETENSORS.get(part.get_dtype(), part.get_dtype()))
            for name, part in slices.items()
        }


def parts(length: int) -> Iterator[slice]:
    """Slices of `CHUNK` rows that cover so many."""
    for begin in range(0, length, CHUNK):
        yield slice(begin, min(begin + CHUNK, length))


def units(path: Path, array: Rows, kind: str, unit: str, option: str = "`{}`") -> tuple[str, float]:
    """The kind, and the factor to 1/255, from the dtype and the range of the values.

    `kind` is images, perturbation or auto, `unit` is pixels (0..255), unit (0..1) or auto. Raises UserError for values
    of another dtype or range, for those that are not finite, and where auto cannot tell; `option` is how it then spells
    the name of the setting that says it.
    """
    known = DTYPES.get(kind, ("uint8", "int8", *FLOATS))
    if array.dtype not in known:
        raise UserError(f"{path} holds {array.dtype}; {suggest(array.dtype, known)} (kind: {kind})")
    low, high, whole = value_range(path, array)
    if unit == "auto":
        if array.dtype in FLOATS and whole and -1 <= low < 0 and high <= 1:
            raise UserError(
                f"{path} holds only whole numbers from {low:g} to {high:g}; "
                f"set {option.format('unit')} to say of what size"
            )
        unit = "unit" if array.dtype in FLOATS and max(-low, high) <= 1 + TOLERANCE else "pixels"
    top = 1 if unit == "unit" else 255
    if kind == "auto":
        if array.dtype in FLOATS and low >= 0 and high < top / 2:
            raise UserError(
                f"values in {path} go from {low:g} to {high:g}, which can be dark images or a perturbation; "
                f"set {option.format('kind')} to say which"
            )
        kind = "images" if low >= 0 and array.dtype != "int8" else "perturbation"
    bottom = 0 if kind == "images" else -top
    if low < bottom - top * TOLERANCE or high > top * (1 + TOLERANCE):
        raise UserError(
            f"{kind} in {path} range from {low:g} to {high:g}, outside {bottom} to {top} of unit: {unit}; "
            f"set {option.format('kind')} (images, perturbation) and {option.format('unit')} (pixels, unit) "
            "to what the file holds"
        )
    return kind, 255 / top


def value_range(path: Path, array: Rows) -> tuple[float, float, bool]:
    """The smallest and the largest value of the whole file, and whether all are whole numbers."""
    low, high, whole = float("inf"), float("-inf"), True
    for part in parts(array.shape[0]):
        values = array.part(part)
        finite = torch.isfinite(values)
        if not finite.all():
            row = part.start + int(torch.nonzero(~finite.flatten(1).all(1))[0])
            raise UserError(f"{path} has NaN or infinite values, the first at row {row}; make or fetch the file again")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        whole = whole and torch.equal(values, values.round()) if values.is_floating_point() else whole
    return low, high, whole
