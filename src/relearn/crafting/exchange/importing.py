"""Import: the poison in a file or folder of others, as one safetensors file that the poison `external` reads."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from relearn import grid
from relearn.crafting.exchange import layouts, order
from relearn.crafting.exchange.layouts import Found
from relearn.crafting.foreign import TOLERANCE, parts, units
from relearn.crafting.perturbation import ROUNDINGS, measure
from relearn.crafting.resemblance import check_images, check_perturbation
from relearn.data import Split, load_split, save_tensors
from relearn.errors import UserError
from relearn.runtime import memory
from relearn.runtime.hashing import file_digest

OPTION = "--{}"
AXES = {"last": (0, 1, 2, 3), "first": (0, 2, 3, 1)}


@dataclass(frozen=True)
class Choices:
    """What a user says of a file that the file does not: see `relearn import --help`. None or "auto": not said."""

    dataset: str | None = None
    labels: Path | None = None
    kind: str = "auto"
    unit: str = "auto"
    axes: str = "auto"
    rounding: str | None = None
    order: str = "auto"
    rest: str | None = None


@dataclass(frozen=True)
class _Values:
    """An array of a file that is understood: its axes, kind and scale to 1/255, and how it becomes whole levels."""

    name: str
    found: Found
    axes: str
    kind: str
    scale: float
    whole: bool
    rounding: str

    def part(self, part: slice) -> torch.Tensor:
        """Rows (B, H, W, 3) float in 1/255; of whole levels that a float only nearly holds, these."""
        values = self.found.values.part(part)
        values = values.to(torch.promote_types(values.dtype, torch.float32)) * self.scale
        values = values.permute(*AXES[self.axes])
        return values.round() if self.whole else values


def import_poison(path: Path, out: Path, choices: Choices) -> dict:
    """Write the poisoned images (N, H, W, 3) uint8 and labels (N,) int64 that lie in `path` to `out`; its manifest.

    With a dataset, images are brought into its order, and a perturbation is added to its images. Raises UserError for
    what cannot be understood, for what has to be said by an option, and for images that are not the dataset's.
    """
    found = layouts.recognise(path)
    train = None if choices.dataset is None else _dataset(choices.dataset)
    if choices.labels is not None:
        found = Found(**(vars(found) | {"labels": layouts.labels_in(choices.labels)}))
    if found.labels is not None and len(found.labels) != len_of(found):
        raise UserError(f"{path} has {len_of(found)} images, but {len(found.labels)} labels; give the labels of these")
    values = _understood(path, found, choices)
    if train is None:
        images, labels, ordered = _alone(values, choices)
    else:
        images, labels, ordered = _placed(values, train, choices)
    manifest = _manifest(path, values, choices, ordered)
    manifest["images"] = list(images.shape)
    if train is not None:
        manifest["measured"] = measure(train.images, images)
    save_tensors(out, {"images": images, "labels": labels}, {"manifest": manifest})
    return manifest


def len_of(found: Found) -> int:
    """The number of rows."""
    return found.values.shape[0]


def _dataset(name: str) -> Split:
    path = grid.path("prepare", "train", dataset=name)
    if not path.is_file():
        raise UserError(f"{path} does not exist; make the dataset first: relearn prepare {name}")
    return load_split(path)[0]


def _understood(path: Path, found: Found, choices: Choices) -> _Values:
    """Axes, kind, unit and rounding of an array. Raises UserError naming the option where the file does not tell."""
    shape = found.values.shape
    fits = [axes for axes, side in (("last", shape[3]), ("first", shape[1])) if side == 3]
    if choices.axes != "auto":
        fits = [axes for axes in fits if axes == choices.axes]
    if not fits:
        raise UserError(f"{path} holds {shape}; known: (N, H, W, 3) (--axes last) and (N, 3, H, W) (--axes first)")
    if len(fits) > 1:
        raise UserError(f"{shape} in {path} may have its channels first or last; say --axes first or --axes last")
    given = found.kind if choices.kind == "auto" else choices.kind
    if found.kind not in ("auto", given):
        raise UserError(f"{path} holds {found.kind} by its layout ({found.layout}), not --kind {given}")
    kind, scale = units(path, found.values, given, choices.unit, OPTION)
    whole, positive = _steps(found, scale)
    rounding = choices.rounding
    snapped = whole and rounding is None  # who names the rounding of a loader wants the very values that it gets
    if rounding == "em_legacy" and kind == "images":
        raise UserError("--rounding em_legacy is for perturbations; of images, half_up or truncate")
    asked = "half_up (to the nearest level), truncate" + (", em_legacy (EM's loader)" if kind == "perturbation" else "")
    if rounding is None and not whole:
        raise UserError(f"{path} holds {kind} between whole levels; say how its loader rounds, --rounding {asked}")
    if rounding is None and kind == "perturbation" and found.values.dtype != "int8" and not positive:
        raise UserError(
            f"{path} holds a perturbation in floats, of which EM's loader drops what is negative; "
            f"say what its loader does, --rounding {asked}"
        )
    return _Values(str(path), found, fits[0], kind, scale, snapped, rounding or "half_up")


def _steps(found: Found, scale: float) -> tuple[bool, bool]:
    """Whether all values are whole levels but for errors of rounding, and whether none is negative."""
    whole = positive = True
    for part in parts(len_of(found)):
        values = found.values.part(part).double() * scale
        whole = whole and float((values - values.round()).abs().max()) < TOLERANCE * 255 / 100
        positive = positive and float(values.min()) >= 0
    return whole, positive


def _alone(values: _Values, choices: Choices) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Images and labels as the file has them."""
    found = values.found
    for said, option in ((choices.order != "auto", "order"), (choices.rest is not None, "rest")):
        if said:
            raise UserError(f"--{option} compares with a dataset; give --dataset too")
    if values.kind == "perturbation":
        raise UserError(f"{values.name} holds a perturbation; say of which images, --dataset NAME")
    if found.labels is None:
        raise UserError(f"{values.name} holds images without labels; give --labels FILE, or --dataset NAME")
    return _levels(values), found.labels, "as in the file"


def _levels(values: _Values) -> torch.Tensor:
    """All images of a file as (M, H, W, 3) uint8."""
    count = len_of(values.found)
    first = values.part(slice(0, 1))
    memory.check(2 * count * first[0].numel(), values.name, "import it on a machine with more memory")
    images = torch.empty((count, *first.shape[1:]), dtype=torch.uint8)
    zero = torch.zeros(1)
    for part in parts(count):
        images[part] = ROUNDINGS[values.rounding](values.part(part), zero).clamp(0, 255).to(torch.uint8)
    return images


def _placed(values: _Values, train: Split, choices: Choices) -> tuple[torch.Tensor, torch.Tensor, str]:
    """The poisoned images of a dataset, in its order, its labels, and how the order was found."""
    first, size = values.part(slice(0, 1)), train.images.shape[1:]
    if first.shape[1:] != size:
        raise UserError(
            f"{values.name} holds {tuple(first.shape[1:])}, but images of {choices.dataset} are {tuple(size)}"
        )
    needed = 8 * train.images.numel()
    memory.check(needed, f"{len(train)} images of {choices.dataset}", "choose a subset of the dataset")
    shown = _levels(values) if values.kind == "images" else None
    rows, words = _rows(values, shown, train, choices)
    missing = int((rows < 0).sum())
    if missing and choices.rest is None:
        raise UserError(
            f"{values.name} has no row for {missing} of {len(train)} training images; "
            "say --rest clean to keep these as they are"
        )
    if missing == len(rows):
        raise UserError(f"{values.name} has no row for any training image; is it of this dataset?")
    per_class = words == BY_LABEL
    if values.found.labels is not None and not per_class:
        _check_labels(values, rows, train)
    images = train.images.clone()
    there = torch.nonzero(rows >= 0).flatten()
    if shown is not None:
        images[there] = shown[rows[there]]
        check_images(values.name, train, images.float().sub_(train.images))
    else:
        delta = torch.cat([values.part(part).float() for part in parts(len_of(values.found))])
        check_perturbation(values.name, train, delta)
        for some in there.split(512):
            added = ROUNDINGS[values.rounding](train.images[some].float(), delta[rows[some]])
            images[some] = added.clamp(0, 255).to(torch.uint8)
    if images.equal(train.images):
        raise UserError(f"{values.name} changes no pixel of {choices.dataset}; check --unit and --rounding")
    return images, train.labels, words


BY_LABEL = "a perturbation per class, by label"


def _rows(values: _Values, shown: torch.Tensor | None, train: Split, choices: Choices) -> tuple[torch.Tensor, str]:
    """The row of each training image, -1 for none, and how that was found out."""
    found, count, given = values.found, len_of(values.found), choices.order
    whole = train.originals or len(train)
    classes = int(train.labels.max()) + 1
    if shown is None and count == classes and count not in (len(train), whole) and given == "auto":
        return _of_classes(values, count)[train.labels], BY_LABEL
    if given == "class":
        return order.by_class(values.name, found.labels, count, train), "the k-th row of a class is its k-th image"
    if given == "match" and shown is None:
        raise UserError(
            f"{values.name} holds a perturbation, which has no images to match; say --order dataset or class"
        )
    if found.index is not None and given in ("auto", "dataset"):
        return order.by_index(found.index, train), "by the index in the names"
    in_order = {whole: train.index, len(train): torch.arange(len(train))}.get(count)
    if given == "dataset":
        if in_order is None:
            raise UserError(
                f"{values.name} has {count} rows, not the {whole} of the dataset; --order dataset cannot be"
            )
        return in_order, "that of the dataset, as given"
    if shown is None and in_order is None:
        raise UserError(
            f"{values.name} holds {count} perturbations, but {choices.dataset} has {whole} images of {classes} classes"
            "; choose the dataset that it was made for"
        )
    if shown is None:
        raise UserError(
            f"{values.name} holds {count} perturbations, whose order nothing tells; say --order dataset (k-th row, "
            "k-th image) or --order class (k-th row of a class, k-th image of the class)"
        )
    if given == "auto" and in_order is not None and order.is_in_order(shown[in_order], train):
        return in_order, "that of the dataset, by comparing the images"
    return order.matched(values.name, shown, found.labels, train), "matched with the nearest training images"


def _of_classes(values: _Values, classes: int) -> torch.Tensor:
    """The row of each class in a perturbation per class: that of its label if the file has labels, else the k-th."""
    labels = values.found.labels
    if labels is None:
        return torch.arange(classes)
    if not torch.equal(labels.sort().values, torch.arange(classes)):
        raise UserError(
            f"{values.name} holds {classes} perturbations, one per class, but its labels are not 0 to {classes - 1}, "
            "each once; correct them, or leave them out for the order of the classes"
        )
    return labels.argsort()


def _check_labels(values: _Values, rows: torch.Tensor, train: Split) -> None:
    there = torch.nonzero(rows >= 0).flatten()
    assert values.found.labels is not None
    labels = values.found.labels[rows[there]]
    differ = torch.nonzero(labels != train.labels[there]).flatten()
    if len(differ):
        row = int(there[differ[0]])
        raise UserError(
            f"{len(differ)} of {len(there)} labels in {values.name} are not those of the dataset, the first at image "
            f"{row}: {int(labels[differ[0]])} for {int(train.labels[row])}; correct --order, --labels or --dataset"
        )


def _manifest(path: Path, values: _Values, choices: Choices, ordered: str) -> dict:
    """What was recognised, and from where: the JSON text in the header of the file."""
    found = values.found
    sums = [f"{file_digest(file, 'sha256')}  {file.name}\n" for file in found.files]
    source = sums[0][:64] if path.is_file() else hashlib.sha256("".join(sums).encode()).hexdigest()
    labels = "the dataset" if found.labels is None else choices.labels.name if choices.labels else "the file"
    return {
        "source": {"name": path.name, "sha256": source, "files": len(found.files)},
        "layout": found.layout,
        "kind": values.kind,
        "dtype": found.values.dtype,
        "shape": list(found.values.shape),
        "axes": "channels last" if values.axes == "last" else "channels first",
        "unit": "1/255" if values.scale == 1 else "0 to 1",
        "rounding": choices.rounding or ("whole levels already" if values.whole else values.rounding),
        "order": ordered,
        "labels": labels if choices.dataset is None or found.labels is None else f"{labels}, equal to the dataset's",
        "dataset": choices.dataset,
        "classes": found.classes,
    }
