"""A poison made elsewhere, read from a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import CHUNK, Budget, Perturbation, norms
from relearn.data import Split
from relearn.errors import UserError
from relearn.registry import InputPath, Positive, register, suggest

SUFFIXES = (".safetensors", ".npy")
FLOATS = ("float16", "float32", "float64")
DTYPES = {"images": ("uint8", *FLOATS), "perturbation": ("int8", *FLOATS)}
SAFETENSORS = {"U8": "uint8", "I8": "int8", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64"}
TOLERANCE = 1e-3  # of the range: how far floats may leave it by rounding errors
SAMPLE = 1000  # images compared with their neighbours


@register
def external(
    train: Split,
    craft: CraftContext,
    *,
    file: InputPath,
    kind: Literal["auto", "images", "perturbation"] = "auto",
    unit: Literal["auto", "pixels", "unit"] = "auto",
    norm: Literal["linf", "l2", "l0", "none"] = "linf",
    epsilon: Positive = 8.0,
    rounding: Literal["half_up", "truncate", "em_legacy"] = "half_up",
) -> Perturbation:
    """The poisoned images or the perturbation in a .safetensors or .npy file.

    Images are uint8 or float, one per training image and in their order. A perturbation is int8 or float, one per
    image, or one per class in the order of the labels; with as many classes as images it is one per image. Both are (N,
    H, W, 3) or (N, 3, H, W), in `unit` pixels (0..255) or unit (0..1); "auto" takes integers for pixels, floats up to 1
    for unit. A .safetensors file calls its array `images` or `perturbation`, and may add `labels` (N,) int64, which are
    compared. In a .npy file "auto" takes floats with negative values for a perturbation, and those that reach half of
    the range for images. `epsilon` is in 1/255, for l0 in pixels; norm none ignores it, and only requires that images
    are closer to their own training images than to others. Raises UserError for a file that cannot be read, does not
    fit the training images, or is not in their order.
    """
    path = Path(file).expanduser()
    arrays = _open(path)
    array, content = _choose(path, arrays, kind)
    _check_labels(path, arrays.get("labels"), train)
    channels_first, per_class, content = _layout(path, array, content, train)
    content, scale = _units(path, array, content, unit)
    delta = torch.empty((array.shape[0], *train.images.shape[1:]))
    for part in _parts(len(delta)):
        values = array.rows(part)
        # float32 stays float32, so that truncation gets the very products that the usual loaders of such files get
        values = values.to(torch.promote_types(values.dtype, torch.float32)) * scale
        values = values.permute(0, 2, 3, 1) if channels_first else values
        delta[part] = values - train.images[part] if content == "images" else values
        if content == "images" and norm == "l0":
            # k * (1 / 255) * 255 misses k by a rounding error, which is no changed pixel
            delta[part][delta[part].abs() < TOLERANCE] = 0
    if content == "images":
        _check_order(path, delta, train, norm, epsilon)
    return Perturbation(delta, Budget(norm, epsilon), train.labels if per_class else None, rounding)


@dataclass(frozen=True)
class _Array:
    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def rows(self, part: slice) -> torch.Tensor:
        """Rows of the array; the file is opened anew each time, or every page once read would stay in memory."""
        if self.path.suffix == ".npy":
            values = np.lib.format.open_memmap(self.path, mode="r")[part]
            return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice(self.name)[part]


def _parts(length: int) -> list[slice]:
    return [slice(begin, min(begin + CHUNK, length)) for begin in range(0, length, CHUNK)]


def _open(path: Path) -> dict[str, _Array]:
    """The arrays in the file by name, "" in a .npy file. Nothing is unpickled."""
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"external: {path} ends in '{path.suffix}'; known: {', '.join(SUFFIXES)}; convert it to one of these"
        )
    if not path.is_file():
        raise UserError(f"external: {path} is not a file; set `file` to the poison, relative to the current folder")
    try:
        if path.suffix == ".npy":
            found = np.lib.format.open_memmap(path, mode="r")
            return {"": _Array(path, "", found.shape, found.dtype.name)}
        with safe_open(path, framework="pt") as file:
            headers = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, not a dict
            dtypes = {name: SAFETENSORS.get(header.get_dtype(), header.get_dtype()) for name, header in headers.items()}
            return {
                name: _Array(path, name, tuple(header.get_shape()), dtypes[name]) for name, header in headers.items()
            }
    except (OSError, ValueError, SyntaxError, EOFError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"external: {path} is damaged or not a plain {path.suffix} file ({reason}); fetch it again"
        ) from None


def _choose(path: Path, arrays: dict[str, _Array], kind: str) -> tuple[_Array, str]:
    """The array of the poison, and its kind as far as its name tells it."""
    if path.suffix == ".npy":
        return arrays[""], kind
    wanted = [name for name in (DTYPES if kind == "auto" else [kind]) if name in arrays]
    unknown = [name for name in arrays if name not in (*DTYPES, "labels")]
    if len(wanted) != 1 or unknown:
        found = ", ".join(arrays) or "nothing"
        raise UserError(
            f"external: {path} holds {found}; it must hold one of 'images' or 'perturbation' (kind: {kind}), "
            "with or without 'labels'"
        )
    return arrays[wanted[0]], wanted[0]


def _check_labels(path: Path, labels: _Array | None, train: Split) -> None:
    if labels is None:
        return
    if labels.dtype != "int64" or labels.shape != (len(train),):
        raise UserError(
            f"external: labels in {path} are {labels.dtype} {labels.shape}; they must be int64 ({len(train)},)"
        )
    found = labels.rows(slice(0, len(train)))
    differ = torch.nonzero(found != train.labels).flatten()
    if len(differ):
        row = int(differ[0])
        same_counts = found.sort()[0].equal(train.labels.sort()[0])
        permuted = "; each class is as frequent in both, so are they permuted?" if same_counts else ""
        raise UserError(
            f"external: {len(differ)} of {len(train)} labels in {path} are not the training set's, the first at {row}: "
            f"{int(found[row])} for {int(train.labels[row])}{permuted}; put the file in the order of the training set"
        )


def _layout(path: Path, array: _Array, kind: str, train: Split) -> tuple[bool, bool, str]:
    """Whether channels come first, whether rows are classes, and the kind if that tells it."""
    height, width = train.images.shape[1:3]
    classes = int(train.labels.max()) + 1
    last, first = array.shape[1:] == (height, width, 3), array.shape[1:] == (3, height, width)
    counts = {} if kind == "images" else {classes: "one per class"}
    counts[len(train)] = "one per training image"
    if not (last or first) or array.shape[0] not in counts:
        rows = " or ".join(f"{count} ({meaning})" for count, meaning in counts.items())
        raise UserError(
            f"external: {path} holds {array.shape}; known: (N, {height}, {width}, 3), (N, 3, {height}, {width}), "
            f"where N is {rows}"
        )
    if last and first:
        raise UserError(
            f"external: {array.shape} in {path} is ambiguous: channels may come first or last; "
            "use images of another size"
        )
    per_class = array.shape[0] != len(train)
    return first, per_class, "perturbation" if per_class else kind


def _units(path: Path, array: _Array, kind: str, unit: str) -> tuple[str, float]:
    """The kind, and the factor to 1/255, from the dtype and the range of the values."""
    known = DTYPES.get(kind, ("uint8", "int8", *FLOATS))
    if array.dtype not in known:
        raise UserError(f"external: {path} holds {array.dtype}; {suggest(array.dtype, known)} (kind: {kind})")
    low, high = _range(path, array)
    if unit == "auto":
        unit = "unit" if array.dtype in FLOATS and max(-low, high) <= 1 + TOLERANCE else "pixels"
    top = 1 if unit == "unit" else 255
    if kind == "auto":
        if array.dtype in FLOATS and low >= 0 and high < top / 2:
            raise UserError(
                f"external: values in {path} go from {low:g} to {high:g}, which can be dark images or a perturbation; "
                "set `kind` to say which"
            )
        kind = "images" if low >= 0 and array.dtype != "int8" else "perturbation"
    bottom = 0 if kind == "images" else -top
    if low < bottom - top * TOLERANCE or high > top * (1 + TOLERANCE):
        raise UserError(
            f"external: {kind} in {path} range from {low:g} to {high:g}, outside {bottom} to {top} of unit: {unit}; "
            "set kind (images, perturbation) and unit (pixels, unit) to what the file holds"
        )
    return kind, 255 / top


def _range(path: Path, array: _Array) -> tuple[float, float]:
    low, high = float("inf"), float("-inf")
    for part in _parts(array.shape[0]):
        values = array.rows(part)
        finite = torch.isfinite(values)
        if not finite.all():
            row = part.start + int(torch.nonzero(~finite.flatten(1).all(1))[0])
            raise UserError(
                f"external: {path} has NaN or infinite values, the first at row {row}; make or fetch the file again"
            )
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _check_order(path: Path, delta: torch.Tensor, train: Split, norm: str, epsilon: float) -> None:
    if norm == "none":  # every norm is then 0, and none of them over the budget
        rows = torch.linspace(0, len(train) - 1, min(SAMPLE, len(train))).long()
        own = delta[rows].abs().mean()
        other = (delta[rows] + train.images[rows] - train.images[rows.roll(1)]).abs().mean()
        if len(rows) > 1 and own > 0.9 * other:
            raise UserError(
                f"external: images in {path} are as far from their own training images ({own:.1f}/255 on average) as "
                f"from others ({other:.1f}), so their order seems to differ; put them in the order of the training set"
            )
    found = torch.cat([norms(delta[part], norm) for part in _parts(len(delta))])
    over = found > epsilon + TOLERANCE
    if over.any():
        row, unit = int(found.argmax()), "pixels" if norm == "l0" else "1/255"
        raise UserError(
            f"external: {int(over.sum())} of {len(train)} images in {path} exceed epsilon {epsilon:g} "
            f"({norm}, {unit}), most of all image {row} with {found[row]:.1f}; put them in the order of the training "
            "set, or set norm and epsilon to what the images promise"
        )
