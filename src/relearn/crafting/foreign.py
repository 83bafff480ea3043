"""Arrays in files of others, .npy and .safetensors: opened without unpickling, read row by row."""

import math
import os
import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from relearn.errors import UserError

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
        return {"": _header(path)} if path.suffix == ".npy" else _headers(path)
    except (*ERRORS, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged or not a plain {path.suffix} file ({reason}); fetch it again") from None


def _header(path: Path) -> Array:
    with open(path, "rb") as file:
        shape, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    promised, found = math.prod(shape) * dtype.itemsize, path.stat().st_size - begin
    if min(shape, default=0) < 0 or promised != found:
        raise ValueError(f"its header promises {promised:,} bytes, but {found:,} follow")
    return Array(path, "", shape, dtype.name)


def _headers(path: Path) -> dict[str, Array]:
    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, not a dict
        return {
            name: Array(path, name, tuple(part.get_shape()), SAFETENSORS.get(part.get_dtype(), part.get_dtype()))
            for name, part in slices.items()
        }
