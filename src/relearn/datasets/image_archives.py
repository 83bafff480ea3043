"""Tiny ImageNet and CINIC-10: published archives of image files, downloaded, checked by their md5, read in place."""

import re
from pathlib import Path

import torch

from relearn.data import Dataset, Split, places, subset
from relearn.errors import UserError
from relearn.registry import PositiveInt, Seed, register
from relearn.runtime import archives
from relearn.runtime.download import Published, fetched
from relearn.runtime.image_files import decoded
from relearn.runtime.scratch import room

TINY = Published(
    "Tiny ImageNet",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    248_100_043,
    "90528d7ca1a48142e341f4ef8d21d0de",
)
CINIC = Published(
    "CINIC-10",
    "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
    687_544_992,
    "6ee4d0c996905fe93221de577967a372",
)
BOUNDS = archives.Bounds(each=2**22, all=2**32)  # all members are small
TINY_TRAIN = re.compile(r"tiny-imagenet-200/train/([^/]+)/images/[^/]+_(\d+)\.JPEG")
TINY_TEST = "tiny-imagenet-200/val/images/"
TINY_ANSWERS = "tiny-imagenet-200/val/val_annotations.txt"
CINIC_IMAGE = re.compile(r"(?:\./|CINIC-10/)*(train|test)/([^/]+)/[^/.][^/]*\.png")

SIZES = {
    "tiny_imagenet": lambda settings: (200 * (settings["train_per_class"] or 500), 64, 64),
    "cinic10": lambda settings: (10 * (settings["train_per_class"] or 9000), 32, 32),
}

Listed = list[tuple[str, str]]  # name of a member, name of its class


@register
def tiny_imagenet(
    root: Path,
    *,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: Seed = 0,
) -> Dataset:
    """Tiny ImageNet: 100,000 training images (N, 64, 64, 3) uint8 of 200 classes, named by WordNet number, to `root`.

    The test split is the 10,000 validation images: the answers of the test images were never published, so these are
    left out. Training images come by class, then by number; test images by number. `train_per_class` and
    `test_per_class` draw stratified subsets with `seed`, independently of each other. Raises UserError when the archive
    cannot be downloaded or is damaged, and when a class has fewer images. Le and Yang, 2015 (Tiny ImageNet Challenge).
    """
    path = fetched(TINY, Path(root))
    members = archives.names(path, BOUNDS)
    matches = [match for match in map(TINY_TRAIN.fullmatch, members) if match]
    matches.sort(key=lambda match: (match[1], int(match[2]), match[0]))
    train = [(match[0], match[1]) for match in matches]
    test = _answers(path, set(members))
    return _dataset(path, 64, {"train": train, "test": test}, (train_per_class, test_per_class), seed)


@register
def cinic10(
    root: Path,
    *,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: Seed = 0,
) -> Dataset:
    """CINIC-10: 90,000 training and 90,000 test images (N, 32, 32, 3) uint8 of the ten classes of CIFAR-10, to `root`.

    They are CIFAR-10's and, for the greater part, ImageNet's, reduced. The 90,000 validation images of the archive are
    left out. Images come by class, then by name. `train_per_class` and `test_per_class` draw stratified subsets with
    `seed`, independently of each other. Raises UserError when the archive cannot be downloaded or is damaged, and when
    a class has fewer images. Darlow et al., 2018 (arXiv 1810.03505).
    """
    path = fetched(CINIC, Path(root))
    parts: dict[str, Listed] = {"train": [], "test": []}
    for match in filter(None, map(CINIC_IMAGE.fullmatch, archives.names(path, BOUNDS))):
        parts[match[1]].append((match[0], match[2]))
    parts = {part: sorted(listed, key=lambda entry: entry[::-1]) for part, listed in parts.items()}
    return _dataset(path, 32, parts, (train_per_class, test_per_class), seed)


def _answers(path: Path, members: set[str]) -> Listed:
    """The validation images of Tiny ImageNet with their classes, by number: lines of file, class, and a box."""
    text = dict(archives.contents(path, BOUNDS, {TINY_ANSWERS})).get(TINY_ANSWERS, b"").decode("utf-8", "replace")
    rows = [line.split("\t")[:2] for line in text.splitlines()]
    found = {TINY_TEST + row[0]: row[1] for row in rows if len(row) == 2}
    if not found or not members.issuperset(found):
        raise UserError(f"{path}: {TINY_ANSWERS} names images that are not there; delete it and run again")
    return sorted(found.items(), key=lambda entry: [int(number) for number in re.findall(r"\d+", entry[0])])


def _dataset(
    path: Path, size: int, parts: dict[str, Listed], per_class: tuple[int | None, int | None], seed: int
) -> Dataset:
    """The dataset of members of an archive; only images that are drawn are decoded."""
    classes = sorted({label for _, label in parts["train"]})
    strange = {label for _, label in parts["test"]} ^ set(classes)
    if not classes or strange:
        what = f"the class {min(strange)} lacks training or test images" if strange else "it has no training images"
        raise UserError(f"{path} is not as published: {what}; delete it and run again")
    number = {label: place for place, label in enumerate(classes)}
    drawn: dict[str, Split] = {}
    for (part, listed), most in zip(parts.items(), per_class, strict=True):
        whole = places(torch.tensor([number[label] for _, label in listed]))
        drawn[part] = subset(whole, most, torch.Generator().manual_seed(seed))
    rooms = {part: room((len(chosen), size, size, 3), path.parent) for part, chosen in drawn.items()}
    where = {
        parts[part][place][0]: rooms[part][row].numpy()
        for part, chosen in drawn.items()
        for row, place in enumerate(chosen.images.tolist())
    }
    for name, content in archives.contents(path, BOUNDS, where):
        try:
            where[name][:] = decoded(content, size)
        except ValueError as error:
            raise UserError(f"{path}: {name} cannot be read ({error}); delete it and run again") from None
    train, test = (chosen.with_images(rooms[part]) for part, chosen in drawn.items())
    return Dataset(train, test, classes)
