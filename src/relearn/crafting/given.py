"""Poisoned or purified images made elsewhere, or a perturbation, read from a file that executes nothing."""

import sys
from pathlib import Path

import torch

from relearn.crafting.foreign import DTYPES, TOLERANCE, Array, open_arrays, parts, units
from relearn.crafting.perturbation import Budget, Perturbation, norms
from relearn.crafting.resemblance import check_images, check_perturbation
from relearn.data import Split
from relearn.errors import UserError
from relearn.runtime import files, memory


def read_given(
    file: str, train: Split, whole: Split, *, kind: str, unit: str, budget: Budget, rounding, what: str
) -> Perturbation:
    """The images or the perturbation in a file, as a perturbation of `train`; messages begin with `what`.

    `kind`, `unit` and the file are as the poison `external` describes them; `whole` is the training set that `train` is
    a share of. Raises UserError for a file that cannot be read or does not fit the training images.
    """
    try:
        return _read(files.expanded(file), train, whole, kind, unit, budget, rounding, what)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def _read(
    path: Path, train: Split, whole: Split, kind: str, unit: str, budget: Budget, rounding, what: str
) -> Perturbation:
    arrays = open_arrays(path)
    array, content = _choose(path, arrays, kind)
    counts = _counts(train, whole)
    _check_labels(path, arrays.get("labels"), train, counts)
    channels_first, per_class, content = _layout(path, array, content, train, counts, "labels" in arrays)
    content, scale = units(path, array, content, unit)
    if content == "images" and rounding == "em_legacy":
        raise UserError(
            f"{path} holds images, of which em_legacy would take back all that is darker than the clean ones; "
            "it is for perturbations; set `rounding` to half_up or truncate"
        )
    rows = torch.arange(array.shape[0]) if per_class else counts[array.shape[0]][1]
    needed = 6 * len(rows) * train.images[0].numel()  # the perturbation in float32, images before and after
    memory.check(needed, f"{len(rows)} rows of {path}", "choose a subset of the dataset")
    delta = torch.empty((len(rows), *train.images.shape[1:]))
    for part in parts(len(rows)):
        values = array.rows(rows[part])
        # float32 stays float32, so that truncation gets the very products that the usual loaders of such files get
        values = values.to(torch.promote_types(values.dtype, torch.float32)) * scale
        values = values.permute(0, 2, 3, 1) if channels_first else values
        delta[part] = values - train.images[part] if content == "images" else values
        if content == "images" and budget.norm == "l0":
            # k * (1 / 255) * 255 misses k by a rounding error, which is no changed pixel
            delta[part][delta[part].abs() < TOLERANCE] = 0
    if content == "images":
        check_images(str(path), train, delta)
        _check_budget(path, delta, budget)
    else:
        check_perturbation(str(path), train, delta)
    empty = sum(int((delta[part] == 0).flatten(1).all(1).sum()) for part in parts(len(delta)))
    if empty:
        print(f"{what}: {empty} of {len(delta)} rows of {path} change nothing", file=sys.stderr, flush=True)
    return Perturbation(delta, budget, train.labels if per_class else None, rounding)


def _counts(train: Split, whole: Split) -> dict[int, tuple[str, torch.Tensor]]:
    """How many rows a file with a row for each image can have: in words, and the rows of the training images in it."""
    order = whole.index.argsort()
    place = order[torch.searchsorted(whole.index[order], train.index)]
    counts = {whole.originals or len(whole): ("one per image of the original dataset", train.index)}
    counts[len(whole)] = ("one per training image", place)
    meaning = "one per training image" if len(train) == len(whole) else "one per poisoned image"
    return counts | {len(train): (meaning, torch.arange(len(train)))}


def _choose(path: Path, arrays: dict[str, Array], kind: str) -> tuple[Array, str]:
    """The array of the poison, and its kind as far as its name tells it."""
    if path.suffix == ".npy":
        return arrays[""], kind
    wanted = [name for name in (DTYPES if kind == "auto" else [kind]) if name in arrays]
    unknown = [name for name in arrays if name not in (*DTYPES, "labels")]
    if len(wanted) != 1 or unknown:
        listed = sorted(name if name.isprintable() else ascii(name) for name in arrays)
        found = ", ".join(name[:40] for name in listed[:5]) + (f" and {len(listed) - 5} more" if listed[5:] else "")
        raise UserError(
            f"{path} holds {found or 'nothing'}; it must hold one of 'images' or 'perturbation' (kind: {kind}), "
            "with or without 'labels'"
        )
    return arrays[wanted[0]], wanted[0]


def _check_labels(path: Path, labels: Array | None, train: Split, counts: dict) -> None:
    if labels is None:
        return
    if labels.dtype != "int64" or len(labels.shape) != 1 or labels.shape[0] not in counts:
        known = " or ".join(f"({count},)" for count in counts)
        raise UserError(f"labels in {path} are {labels.dtype} {labels.shape}; they must be int64 {known}")
    found = labels.rows(counts[labels.shape[0]][1])
    differ = torch.nonzero(found != train.labels).flatten()
    if len(differ):
        row = int(differ[0])
        same_counts = found.sort()[0].equal(train.labels.sort()[0])
        permuted = "; each class is as frequent in both, so are they permuted?" if same_counts else ""
        raise UserError(
            f"{len(differ)} of {len(train)} labels in {path} are not the training set's, the first at {row}: "
            f"{int(found[row])} for {int(train.labels[row])}{permuted}; put the file in the order of the training set"
        )


def _layout(path: Path, array: Array, kind: str, train: Split, counts: dict, labelled: bool) -> tuple[bool, bool, str]:
    """Whether channels come first, whether rows are classes, and the kind if that tells it."""
    height, width = train.images.shape[1:3]
    classes = int(train.labels.max()) + 1
    last, first = array.shape[1:] == (height, width, 3), array.shape[1:] == (3, height, width)
    known = {} if kind == "images" else {classes: "one per class"}
    known |= {count: meaning for count, (meaning, _) in counts.items()}
    if not (last or first) or array.shape[0] not in known:
        rows = " or ".join(f"{count} ({meaning})" for count, meaning in known.items())
        raise UserError(
            f"{path} holds {array.shape}; known: (N, {height}, {width}, 3), (N, 3, {height}, {width}), "
            f"where N is {rows}"
        )
    if last and first:
        raise UserError(
            f"{array.shape} in {path} is ambiguous: channels may come first or last; use images of another size"
        )
    per_class = array.shape[0] not in counts
    in_order = torch.equal(train.labels, torch.arange(len(train)))
    if array.shape[0] == classes and not (per_class or labelled or in_order or kind == "images"):
        raise UserError(
            f"{classes} rows in {path} are ambiguous, one per class or one per image; add `labels` of the images to it"
        )
    return first, per_class, "perturbation" if per_class else kind


def _check_budget(path: Path, delta: torch.Tensor, budget: Budget) -> None:
    found = torch.empty(len(delta))
    for part in parts(len(delta)):
        found[part] = norms(delta[part], budget.norm)
    over = found > budget.value + TOLERANCE
    if over.any():
        row, unit = int(found.argmax()), "pixels" if budget.norm == "l0" else "1/255"
        raise UserError(
            f"{int(over.sum())} of {len(delta)} images in {path} exceed epsilon {budget.value:g} "
            f"({budget.norm}, {unit}), most of all image {row} with {found[row]:.1f}; set norm and epsilon to what the "
            "images promise, or put them in the order of the training set"
        )
