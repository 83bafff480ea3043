"""Pickle files of others, read without running anything in them.

Only arrays, lists, tuples, dicts, texts, bytes and numbers can be built. The few names that a pickled array needs stand
for objects of this file, and operations that make other objects are unknown; so no function of any library is called.
"""

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from relearn.errors import UserError, shown

DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
#: operations that find or call things in other ways than those that an array needs
REFUSED = (
    *(pickle.PERSID, pickle.BINPERSID, pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX),
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
)
CORES = ("numpy.core", "numpy._core")  # before and since numpy 2


class _RefusedError(Exception):
    """The file holds something else than data."""


class _Stand:
    """What stands for a global name: nothing can be set on it, and calling it is refused unless a subclass says how."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> object:
        raise _RefusedError(f"it calls {type(self).__name__.strip('_').lower()}")


class _Ndarray(_Stand):
    __slots__ = ()


class _Dtype(_Stand):
    __slots__ = ()

    def __call__(self, *arguments: object) -> "_Kind":
        return _Kind(arguments[0] if arguments else None)


class _Reconstruct(_Stand):
    __slots__ = ()

    def __call__(self, *arguments: object) -> "PickledArray":
        return PickledArray()


class _Frombuffer(_Stand):
    __slots__ = ()

    def __call__(self, *arguments: object) -> "PickledArray":
        raw, kind, shape, order = arguments
        made = PickledArray()
        made.fill(shape, kind, order == "F", raw)
        return made


class _Scalar(_Stand):
    __slots__ = ()

    def __call__(self, *arguments: object) -> int | float | bool:
        kind, raw = arguments
        made = PickledArray()
        made.fill((), kind, False, raw)
        return made.array.item()


class _Encode(_Stand):
    """Bytes as protocols 0 to 2 spell them: text whose characters are below 256."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> bytes:
        text, encoding = arguments
        if not isinstance(text, str) or encoding != "latin1":
            raise _RefusedError(f"it encodes {shown(text)} as {shown(encoding)}")
        return text.encode("latin1")


class _Kind:
    """A dtype: its code, and the byte order that its state says."""

    __slots__ = ("dtype",)

    def __init__(self, code: object):
        if code not in DTYPES:
            raise _RefusedError(f"it has values of the type {shown(code)}")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise _RefusedError(f"it has values in the byte order {shown(order)}")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray:
    """An array as its pickle describes it; `array` is there once its state has come."""

    __slots__ = ("array",)
    array: np.ndarray

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("it holds an array of another kind")
        _, shape, kind, fortran, raw = state
        self.fill(shape, kind, bool(fortran), raw)

    def fill(self, shape: object, kind: object, fortran: bool, raw: object) -> None:
        """Take the values of the array from bytes. Raises _RefusedError unless all fits together."""
        if not isinstance(kind, _Kind) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
            raise _RefusedError("it holds an array of another kind")
        if not all(type(side) is int and 0 <= side < 2**40 for side in shape):
            raise _RefusedError(f"it holds an array of the shape {shown(shape)}")
        values = np.frombuffer(raw, kind.dtype)
        if len(shape) > 8 or values.size != _product(shape):
            raise _RefusedError(f"an array of the shape {shown(shape)} has {values.size} values")
        self.array = values.reshape(shape, order="F" if fortran else "C")


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


GLOBALS = {
    ("numpy", "ndarray"): _Ndarray(),
    ("numpy", "dtype"): _Dtype(),
    ("_codecs", "encode"): _Encode(),
    **{(f"{core}.multiarray", "_reconstruct"): _Reconstruct() for core in CORES},
    **{(f"{core}.multiarray", "scalar"): _Scalar() for core in CORES},
    **{(f"{core}.numeric", "_frombuffer"): _Frombuffer() for core in CORES},
}


class _Unpickler(pickle._Unpickler):
    """Python's own reader, in Python: its memo is a dict, so that a file cannot make it allocate what it lacks."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: read for code, read in pickle._Unpickler.dispatch.items() if bytes([code]) not in REFUSED
    }

    def find_class(self, module: str, name: str) -> _Stand:
        """What stands for a global name."""
        if (module, name) not in GLOBALS:
            raise _RefusedError(f"it asks for {shown(f'{module}.{name}')}")
        return GLOBALS[module, name]


def read_pickle(path: Path) -> object:
    """The data in a pickle file: lists, tuples, dicts, texts, bytes, numbers; an array is a `PickledArray`.

    Raises UserError for a file that holds anything else, or is damaged. Nothing in the file runs.
    """
    content = path.read_bytes()
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _RefusedError as error:
        raise UserError(
            f"{path} holds more than arrays and numbers ({error}), and is not read, since a pickle can run code; "
            "save its arrays as .npz where you trust it"
        ) from None
    except Exception as error:  # a damaged pickle raises almost anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path} is damaged, or no pickle of arrays and numbers ({reason}); fetch it again") from None
