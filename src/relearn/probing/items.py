"""Items of a user's dataset: the image and the label in them, and labels as class numbers."""

from collections.abc import Mapping

import numpy
import torch

from relearn.errors import UserError

IMAGES = ("image", "pixel_values")  # what items that are mappings call their image
LABELS = ("label", "labels")


def image_and_label(item: object) -> tuple:
    """The two in an item: (image, label) and perhaps more, or a mapping with an entry of `IMAGES` and of `LABELS`.

    Raises UserError for an item of another kind.
    """
    if isinstance(item, Mapping):
        found = [next((item[name] for name in names if name in item), None) for names in (IMAGES, LABELS)]
        if all(part is not None for part in found):
            return found[0], found[1]
    elif isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    kind = type(item).__name__
    keys = f" of {', '.join(map(str, list(item)[:5]))}" if isinstance(item, Mapping) else ""
    raise UserError(
        f"items of the dataset must be (image, label), or have the keys {' or '.join(IMAGES)} and "
        f"{' or '.join(LABELS)}, found a {kind}{keys}"
    )


def class_numbers(labels) -> torch.Tensor:
    """Class numbers (N,) int64 of N labels: whole numbers from 0, alone or as columns of one, or one_hot rows.

    `labels` are a list, an array or a tensor. Raises UserError for labels of another kind.
    """
    rows = labels.tolist() if hasattr(labels, "tolist") else labels
    try:
        values = numpy.asarray([row.tolist() if hasattr(row, "tolist") else row for row in rows])
    except (TypeError, ValueError, OverflowError):
        raise _refused("labels of several shapes") from None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2):
        raise _refused(f"{values.ravel()[0].item()!r:.60}" if values.dtype.kind == "U" else f"labels {values.shape}")
    if values.ndim == 2:
        if not (((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all()):
            raise _refused(f"labels {values.shape} that are not one_hot")
        return torch.from_numpy(values.argmax(1)).long()
    if values.dtype.kind == "f" and len(values):
        raise _refused(str(values[0]))
    numbers = torch.from_numpy(values.astype(numpy.int64))
    if len(numbers) and numbers.min() < 0:
        raise _refused(str(numbers.min().item()))
    return numbers


def listed_classes(dataset) -> torch.Tensor | None:
    """The class numbers in `dataset.targets`, as torchvision's datasets have it; None where it does not fit."""
    try:
        numbers = class_numbers(dataset.targets)
    except (UserError, AttributeError, TypeError):
        return None
    return numbers if len(numbers) == len(dataset) else None


def _refused(found: str) -> UserError:
    return UserError(
        f"labels must be class numbers, whole and 0 or more, or one_hot, found {' '.join(found.split())}; "
        "give a dataset with one class for each image"
    )
