"""ImageNet-mini, at 224 pixels, from a folder of the user's."""

import itertools
import os
from pathlib import Path

import torch
from PIL import Image

from relearn.data import Dataset, Split, draw_share, places
from relearn.errors import UserError
from relearn.registry import InputPath, PositiveFraction, PositiveInt, Seed, Side, register
from relearn.runtime import image_files
from relearn.runtime.files import expanded
from relearn.runtime.image_files import View, shown
from relearn.runtime.scratch import room

PARTS = ("train", "val")
MAX_ERRORS = 10  # errors named in a message


def _size(settings: dict) -> tuple[int, int, int] | None:
    """The size for `relearn plan`: a share of the files in the folder; None where there is none."""
    base = expanded(settings["path"]) / "train"
    if not base.is_dir():
        return None
    chosen = itertools.islice(sorted(entry for entry in base.iterdir() if entry.is_dir()), settings["classes"])
    counts = [sum(1 for _ in entry.iterdir()) for entry in chosen]
    return round(settings["share"] * sum(counts)), settings["size"], settings["size"]


SIZES = {"imagenet_mini": _size}


@register
def imagenet_mini(
    root: Path,
    *,
    path: InputPath,
    classes: PositiveInt | None = 100,
    share: PositiveFraction = 0.2,
    size: Side = 224,
    shorter: Side = 256,
    seed: Seed = 0,
) -> Dataset:
    """Images (N, size, size, 3) uint8 in `path`/train/CLASS and `path`/val/CLASS, the second as test split.

    The first `classes` folders by name, and of each a `share` of its training images, drawn with `seed`; all of its
    validation images. The defaults are the configuration of the authors of EM, for an ImageNet folder; `classes: null`
    and `share: 1` take all there is, as of Kaggle's ImageNet-mini. The shorter side becomes `shorter` (bilinear,
    antialiased), then the centre is cut out; other formats and rotation as for `folder`. The index of an image is its
    place among the files of these classes; `files` names them. Images that would fill half of the memory are kept in a
    file in `root` while they are made. Raises UserError that names what is wrong. Huang et al., 2021 (arXiv
    2101.04898).
    """
    base = expanded(path)
    if not os.path.isdir(base):
        raise UserError(f"imagenet_mini: '{shown(path)}' is not a folder; give one with train/CLASS/ and val/CLASS/")
    if size > shorter:
        raise UserError(f"imagenet_mini: size is {size}, more than shorter, {shorter}; give a smaller one")
    errors: list[str] = []
    listed = {part: image_files.class_files(base, part, errors, classes) for part in PARTS}
    errors += image_files.missing_classes(listed) + image_files.same_folders(base, listed)
    if classes is not None and 0 < len(listed["train"]) < classes:
        errors.append(f"train/ holds {len(listed['train'])} class folders, but classes is {classes}; null takes all")
    _refuse(path, errors)
    splits, files = {}, {}
    for name, part, of_each in zip(("train", "test"), PARTS, (share, 1.0), strict=True):
        drawn, chosen = _draw(listed[part], of_each, seed)
        images = room((len(chosen), size, size, 3), Path(root))
        _, unreadable = image_files.read(chosen, images.numpy(), View(size, shorter, Image.Resampling.BILINEAR))
        errors += [f"{shown(file.relative_to(base))} cannot be read ({reason})" for file, reason in unreadable]
        splits[name] = drawn.with_images(images)
        files[name] = [file.relative_to(base).as_posix() for file in chosen]
    _refuse(path, errors)
    return Dataset(splits["train"], splits["test"], list(listed["train"]), files)


def _refuse(path: str, errors: list[str]) -> None:
    if errors:
        more = f"; ... and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
        found = "; ".join(errors[:MAX_ERRORS])
        raise UserError(f"imagenet_mini: in '{shown(path)}', {found}{more}; correct or remove them")


def _draw(listed: dict[str, list[Path]], share: float, seed: int) -> tuple[Split, list[Path]]:
    """Labels and index of a share of the files of every class, and those files."""
    flat = [file for of_class in listed.values() for file in of_class]
    whole = places(torch.tensor([label for label, of_class in enumerate(listed.values()) for _ in of_class]))
    mask = draw_share(whole.labels, share, torch.Generator().manual_seed(seed))
    drawn = whole.pick(torch.nonzero(mask).flatten())
    return drawn, [flat[place] for place in drawn.index.tolist()]
