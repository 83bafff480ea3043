"""What lies in a file of others: recognised by its first bytes, read within bounds, and nothing in it is run."""

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from relearn.crafting import foreign
from relearn.crafting.exchange.pickles import PickledArray, read_pickle
from relearn.errors import UserError
from relearn.runtime import memory
from relearn.runtime.image_files import opened
from relearn.runtime.torch_files import load_plain

LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which torch files began before version 1.6
MOST_MEMBERS = 1000  # of a zip file
MOST_ROWS = 10_000_000
ERRORS = (*foreign.ERRORS, SafetensorError, RuntimeError, zipfile.BadZipFile, NotImplementedError, AttributeError)


@dataclass(frozen=True)
class Loaded:
    """An array (N, ...) in memory, or mapped into it, read like an array in a file."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape; the first dimension counts rows."""
        return self.values.shape

    @property
    def dtype(self) -> str:
        """The dtype, as numpy calls it, without its byte order."""
        return self.values.dtype.name

    def part(self, part: slice) -> torch.Tensor:
        """Adjacent rows."""
        values = self.values[part]
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))


def read(path: Path) -> tuple[str, object]:
    """What kind of file it is, and what it holds: arrays, lists, tuples, dicts, bytes and numbers.

    An array is a numpy array, a `PickledArray` in a pickle, an `Array` in a safetensors file. Raises UserError for a
    file of another kind, a damaged one, one that holds code, and one that does not fit into the memory.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    kind = next((kind for kind, begins in KINDS.items() if begins(head)), None)
    if kind is None:
        raise UserError(f"{path} is none of: {', '.join(READERS)}; convert it to one of these")
    if kind == "zip":
        kind = _kind_of_zip(path)
    memory.check(2 * path.stat().st_size, str(path), "import it on a machine with more memory")
    try:
        return kind, READERS[kind](path)
    except ERRORS as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path} is damaged or no plain {kind} file ({reason}); fetch it again") from None


def array(value: object) -> np.ndarray | None:
    """The array that a value is, or None."""
    if isinstance(value, PickledArray):
        return getattr(value, "array", None)
    return value if isinstance(value, np.ndarray) else None


def _kind_of_zip(path: Path) -> str:
    """Whether a zip file is one of torch or of numpy.

    Raises UserError for another, and for one that would not fit into the memory once unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except ERRORS as error:
        raise UserError(f"{path} is a damaged zip file ({error}); fetch it again") from None
    unpacked = sum(member.file_size for member in members)
    memory.check(2 * unpacked, f"{path}, unpacked,", "import it on a machine with more memory")
    names = [member.filename for member in members]
    if len(names) <= MOST_MEMBERS and names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.split("/", 1)[-1] == "data.pkl" for name in names):
        return "torch"
    raise UserError(f"{path} is a zip file, neither of torch nor of numpy; unpack it, and import the folder")


def _read_torch(path: Path) -> object:
    return _plain(path, load_plain(path))


def _plain(path: Path, value: object) -> object:
    """A value of a torch file with numpy arrays for tensors, at the depth at which layouts have them."""
    if isinstance(value, dict):
        return {key: _tensor(path, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(
            tuple(_tensor(path, part) for part in entry) if isinstance(entry, tuple) else _tensor(path, entry)
            for entry in value
        )
    return _tensor(path, value)


def _tensor(path: Path, value: object) -> object:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not plain or value.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
        raise UserError(f"{path} holds a tensor of {value.dtype} ({value.layout}); save it as float32 or uint8")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(f"{path} holds a tensor {tuple(value.shape)} that repeats fewer values; save it as a whole one")
    return value.numpy()


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        needed = 0
        for name in archive.zip.namelist():
            with archive.zip.open(name) as file:
                shape, _, dtype = foreign.HEADERS[np.lib.format.read_magic(file)](file)
                needed += math.prod(shape) * dtype.itemsize
        memory.check(2 * needed, str(path), "import it on a machine with more memory")
        return {name: archive[name] for name in archive.files}


def _read_npy(path: Path) -> np.ndarray:
    foreign.npy_header(path)
    return np.lib.format.open_memmap(path, mode="r")


def _read_parquet(path: Path) -> list[tuple[bytes, int]]:
    """Rows of a Hugging Face dataset: the bytes of an image file, and its label."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(f"{path} is a parquet file, which needs pyarrow; pip install 'relearn[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            about = file.metadata
            size = sum(about.row_group(k).total_byte_size for k in range(about.num_row_groups))
            memory.check(2 * size, str(path), "import it on a machine with more memory")
            columns = file.schema_arrow.names
            labels = next((name for name in ("label", "labels", "fine_label") if name in columns), None)
            images = next((name for name in ("image", "img", "images") if name in columns), None)
            if labels is None or images is None or about.num_rows > MOST_ROWS:
                raise UserError(f"{path} has the columns {', '.join(columns)[:200]}; it must have image and label")
            table = file.read(columns=[images, labels])
    except (OSError, ValueError, TypeError, NotImplementedError) as error:  # pyarrow's own are among these
        raise UserError(f"{path} is damaged or no parquet file ({error}); fetch it again") from None
    rows = zip(table.column(images).to_pylist(), table.column(labels).to_pylist(), strict=True)
    found = [(image.get("bytes") if isinstance(image, dict) else None, label) for image, label in rows]
    if not all(isinstance(image, bytes) and isinstance(label, int) for image, label in found):
        raise UserError(f"{path} must hold images as bytes of PNG files, and whole numbers as labels")
    return [(image, label) for image, label in found if isinstance(image, bytes)]


def read_image(path: Path, file: Path | bytes) -> np.ndarray:
    """An image file, or its bytes, as (H, W, 3) uint8. Raises UserError, which calls it `path`."""
    try:
        with opened(io.BytesIO(file) if isinstance(file, bytes) else file) as (image, _):
            return np.array(image)
    except Exception as error:  # damaged bytes raise almost anything: OSError, SyntaxError, struct.error, ...
        raise UserError(f"{path} cannot be read ({error}); make or fetch it again") from None


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 10**8


KINDS: dict[str, Callable[[bytes], bool]] = {
    "npy": lambda head: head.startswith(b"\x93NUMPY"),
    "zip": lambda head: head.startswith(b"PK\x03\x04"),
    "parquet": lambda head: head.startswith(b"PAR1"),
    "torch": lambda head: head.startswith(LEGACY_TORCH),
    "pickle": lambda head: head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"),
    "safetensors": _is_safetensors,
}
READERS: dict[str, Callable[[Path], object]] = {
    "npy": _read_npy,
    "npz": _read_npz,
    "torch": _read_torch,
    "pickle": read_pickle,
    "parquet": _read_parquet,
    "safetensors": foreign.safetensors_headers,
}
