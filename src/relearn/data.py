"""Splits of images: in memory, on disk, and stratified subsets of them."""

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from relearn.errors import NotFiniteError, UserError
from relearn.runtime import memory, structures
from relearn.runtime.files import atomic, existing, parsed_json
from relearn.runtime.hashing import settings_hash


@dataclass(frozen=True)
class Split:
    """Images (N, H, W, 3) uint8, labels (N,) int64, and the index (N,) int64 of each in its original dataset.

    `originals` is how many images that has, for a split that is a part of it; None for the whole.
    """

    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    originals: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, rows: torch.Tensor) -> "Split":
        """The images at `rows` (int64); all of them in order are not copied."""
        every = len(rows) == len(self) and torch.equal(rows, torch.arange(len(self)))
        images = self.images if every else self.images[rows]
        return Split(images, self.labels[rows], self.index[rows], self.originals or len(self))

    def to(self, device: str) -> "Split":
        """The same split on a device; images that would fill more than half of its memory stay where they are."""
        images = self.images.to(device) if memory.holds(self.images.nbytes, device) else self.images
        return Split(images, self.labels.to(device), self.index, self.originals)

    def with_images(self, images: torch.Tensor) -> "Split":
        """The same labels and index with other images."""
        return Split(images, self.labels, self.index, self.originals)


@dataclass(frozen=True)
class Dataset:
    """A training and a clean test split, and the names of the classes in label order.

    `files` names, for "train" and "test", the file of each image, where that is part of what the dataset is.
    """

    train: Split
    test: Split
    classes: list[str]
    files: dict[str, list[str]] = field(default_factory=dict)


def split(images: torch.Tensor, labels: torch.Tensor) -> Split:
    """A split whose index counts from 0. Raises ValueError on a wrong shape or dtype."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be uint8 (N, H, W, 3), found {images.dtype} {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be int64 ({len(images)},), found {labels.dtype} {tuple(labels.shape)}")
    return Split(images.contiguous(), labels.contiguous(), torch.arange(len(labels)))


def places(labels: torch.Tensor) -> Split:
    """A split of labels (N,) int64 whose images are their own numbers, to draw a subset of before any is read."""
    numbers = torch.arange(len(labels))
    return Split(numbers, labels, numbers)


def check_dataset(name: str, made: Dataset) -> None:
    """Raises UserError unless a network can be trained, tested and measured on the dataset.

    Two classes of different names, images of one size in both splits, labels of these classes, and of each class two
    training images (ACM sets the mean of a class by one and scores the other) and a test image.
    """
    train, test, classes = made.train, made.test, made.classes
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(isinstance(word, str) for word in classes):
        raise UserError(f"dataset {name}: {len(classes)} classes; it needs at least two, of different names")
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = [f"{part.images.shape[1]}x{part.images.shape[2]}" for part in (train, test)]
        raise UserError(f"dataset {name}: training images are {sizes[0]} but test images are {sizes[1]}")
    for part, words, least in ((train, "training", 2), (test, "test", 1)):
        counts = torch.bincount(part.labels.clamp(min=0), minlength=len(classes))
        if len(counts) > len(classes) or int(part.labels.min() if len(part) else 0) < 0:
            raise UserError(f"dataset {name}: {words} labels lie outside its {len(classes)} classes")
        few = [f"'{classes[k]}' has {int(counts[k])}" for k in torch.nonzero(counts < least).flatten().tolist()]
        if few:
            more = f" (and {len(few) - 3} more)" if len(few) > 3 else ""
            raise UserError(
                f"dataset {name}: class {', '.join(few[:3])}{more} {words} images, but {least} of each class are "
                "needed; add images, or leave the class out"
            )


def count_in_both(made: Dataset) -> int:
    """How many test images are also training images, byte for byte."""
    known = {_digest(image) for image in made.train.images}
    return sum(_digest(image) in known for image in made.test.images)


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W) float32 in [0, 1]; the memory stays channels-last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def levels(images: torch.Tensor) -> torch.Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W) float32 in 1/255; the memory stays channels-last."""
    return images.permute(0, 3, 1, 2).float()


def subset(whole: Split, per_class: int | None, generator: torch.Generator) -> Split:
    """`per_class` images of each class, drawn with `generator`, in the order of `whole`; all of them for None.

    Raises UserError when a class has fewer.
    """
    if per_class is None:
        return whole
    rows = []
    for label in whole.labels.unique().tolist():
        of_class = torch.nonzero(whole.labels == label).flatten()
        if len(of_class) < per_class:
            raise UserError(
                f"a subset of {per_class} images per class was asked for, but class {label} has {len(of_class)}"
            )
        rows.append(of_class[torch.randperm(len(of_class), generator=generator)[:per_class]])
    return whole.pick(torch.cat(rows).sort().values)


def draw_share(labels: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """A mask (N,) bool of a share `ratio` of every class, at least one image; a smaller share is part of a larger."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        of_class = torch.nonzero(labels == label).flatten()
        order = torch.randperm(len(of_class), generator=generator)
        chosen[of_class[order[: max(1, round(ratio * len(of_class)))]]] = True
    return chosen


def save_split(path: Path, content: Split, facts: dict, poisoned: torch.Tensor | None = None) -> None:
    """Write a split as safetensors with `facts` (class names, settings) as JSON in its header.

    `poisoned` (N,) bool says which images a poison has changed. `originals` joins the facts of a part of a dataset.
    """
    facts = facts if content.originals is None else facts | {"originals": content.originals}
    tensors = {"images": content.images, "labels": content.labels, "index": content.index}
    save_tensors(path, tensors if poisoned is None else tensors | {"poisoned": poisoned}, facts)


def load_split(path: Path) -> tuple[Split, dict]:
    """Read a split and its facts; images stay in the file until they are used. Raises UserError for another file."""
    tensors, facts = load_tensors(path, structures.SPLIT)
    originals = facts.get("originals")
    wrong = _split_error(tensors, len(facts["classes"]), originals)
    if wrong:
        raise UserError(f"{path} is not a split: {wrong}; delete it and run again")
    return Split(tensors["images"], tensors["labels"], tensors["index"], originals), facts


def load_beside(path: Path, settings: dict) -> tuple[Split, dict]:
    """Read a split that is used with files of these `settings`, as `load_split` does.

    Raises UserError as well when it was prepared with others: then it is not of their dataset.
    """
    found, facts = load_split(path)
    own, theirs = (settings_hash(known.get("dataset")) for known in (facts["settings"], settings))
    if own != theirs:
        raise UserError(
            f"{path} was prepared with other settings than what it is used with; run prepare and what follows again"
        )
    return found, facts


def _split_error(tensors: dict[str, torch.Tensor], classes: int, originals: object) -> str | None:
    """What keeps tensors from being a split of so many classes, and of so many originals if it is a part; or None."""
    missing = next((name for name in ("images", "labels", "index") if name not in tensors), None)
    if missing:
        return f"{missing} is missing"
    images, labels, index = tensors["images"], tensors["labels"], tensors["index"]
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        return f"images must be uint8 (N, H, W, 3), found {images.dtype} {tuple(images.shape)}"
    for name, tensor in (("labels", labels), ("index", index)):
        if tensor.dtype != torch.int64 or tensor.shape != images.shape[:1]:
            return f"{name} must be int64 ({len(images)},), found {tensor.dtype} {tuple(tensor.shape)}"
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels go from {int(labels.min())} to {int(labels.max())}, of {classes} classes"
    if not isinstance(originals, int | None) or index.min() < 0 or index.max() >= (originals or 2**62):
        return f"index goes from {int(index.min())} to {int(index.max())}, of {originals} originals"
    return None


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Write tensors as safetensors with `facts` as JSON in the header.

    Raises OSError for trouble with the disk, and NotFiniteError, before anything is written, for values that are not
    finite: no result has any.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NotFiniteError(f"{path} was not written: its '{name}' holds values that are not finite")
    with atomic(path) as temporary:
        try:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()},
                temporary,
                {"facts": json.dumps(facts, sort_keys=True)},
            )
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))  # the only place where it says which
            raise OSError(int(number[1]), os.strerror(int(number[1]))) if number else error from None


def load_tensors(
    path: Path, structure: structures.Structure = structures.WEIGHTS
) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what `save_tensors` wrote: tensors and facts. Raises UserError for a missing or corrupt file.

    So it does for facts of another structure than `structure`.
    """
    try:
        with safe_open(existing(path), framework="pt") as file:
            facts = parsed_json(path, (file.metadata() or {})["facts"], structure)
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118, it is no mapping
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is corrupt or not written by relearn ({error}); delete it and run again") from None
