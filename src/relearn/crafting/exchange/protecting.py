"""Protect: a folder of images poisoned in one command, without params.yaml.

A poison is made for images of one size, and images of a folder have any. So each image is made small, as a network sees
it, the poison is crafted on the small images, and what it adds is enlarged to the image, block by block: a network that
is trained on the images made small again finds it there.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from relearn import registry
from relearn.crafting.craft import CraftContext
from relearn.crafting.exchange import images, publishing
from relearn.crafting.exchange.containers import read_image
from relearn.crafting.perturbation import Perturbation, added, apply
from relearn.data import Split, split
from relearn.errors import UserError, shown
from relearn.runtime import memory
from relearn.runtime.progress import ProgressBar
from relearn.runtime.seeding import Seeds, deterministic

NEEDS_MORE = (
    "ArchitectureName",
    "SurrogateName",
    "PretrainingName",
    "list[PoisonName]",
    "InputPath",
)  # what only params.yaml can name
NOTHING = ("clean", "suspect")  # poisons that add nothing
SIZE = 32  # the side for which the settings of the poisons are made


def without_model() -> list[str]:
    """The names of the poisons that need no network, and so nothing but the images."""
    known = registry.entries("poisons")
    return [
        name
        for name, entry in known.items()
        if name not in NOTHING and not any(s.kind in NEEDS_MORE for s in entry.settings)
    ]


def protect(path: Path, poison: str, out: Path, size: int = SIZE, given: tuple[str, ...] = ()) -> dict:
    """Write the images of a folder, poisoned, as PNG files of the same names to a new folder; returns its manifest.

    `path` holds a folder per class, or images of one class. The poison is crafted at `size` x `size` pixels; `given`
    are settings of it as NAME=VALUE. Raises UserError for a poison that needs a network, for wrong settings, and for
    what is no image.
    """
    settings = _settings(poison, given)
    if out.resolve().is_relative_to(path.resolve()):
        raise UserError(f"{out} lies in the folder that it is made of; choose another place")
    found = images.by_class(path)
    if len(found.classes) < 2:
        print(
            f"protect: {path} has no class folders, so all images get the perturbation of one class; a network falls "
            "for it only where its other classes look otherwise",
            file=sys.stderr,
        )
    with publishing.new_folder(out) as folder:
        small = _small(found, size)
        perturbation = _crafted(poison, settings, small, len(found.classes))
        measured = _write(found, path, folder, perturbation)
        manifest = {
            "poison": poison,
            "settings": settings,
            "size": size,
            "images": len(found.files),
            "classes": found.classes,
            "declared": vars(perturbation.budget) | {"at": f"{size}x{size} pixels"},
            "measured": measured,
            "rounding": perturbation.rounding,
        }
        publishing.describe(folder, manifest, _card(path, manifest))
    return manifest


def _settings(poison: str, given: tuple[str, ...]) -> dict[str, Any]:
    """All settings of a poison; those that are given as texts, checked. Raises UserError for what is wrong in them."""
    known = without_model()
    if poison not in known:
        raise UserError(f"--with '{poison}' {_why_not(poison)}; {registry.suggest(poison, known)}")
    declared = {setting.name: setting for setting in registry.entry("poisons", poison).settings}
    values = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or name not in declared:
            raise UserError(f"--set '{text}' is no NAME=VALUE of {poison}; {registry.suggest(name, declared)}")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {name}: {shown(value)} is no value") from None
        error = declared[name].error(values[name])
        if error:
            raise UserError(f"--set {name}: {error}")
    return {name: setting.resolved(values) for name, setting in declared.items()}


def _why_not(poison: str) -> str:
    """Why images cannot be protected with this."""
    if poison not in registry.entries("poisons"):
        return "is no poison"
    if poison in NOTHING:
        return "adds nothing to images"
    return "needs a network, a file or other poisons, which `poisons:` of params.yaml names"


def _small(found: images.Files, size: int) -> Split:
    """The images at `size` x `size`, whatever their shape."""
    needed = 8 * len(found.files) * 3 * size**2
    memory.check(needed, f"{len(found.files)} images of {size}x{size} pixels", "choose a smaller --size")
    small = np.empty((len(found.files), size, size, 3), np.uint8)
    for row, file in enumerate(found.files):
        image = Image.fromarray(read_image(file, file))
        small[row] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    return split(torch.from_numpy(small), torch.tensor(found.labels))


def _crafted(poison: str, settings: dict[str, Any], small: Split, classes: int) -> Perturbation:
    deterministic(torch.get_num_threads())
    craft = CraftContext(f"protect with {poison}", Seeds("protect", poison), "cpu", classes)
    made = registry.load("poisons", poison)(small, craft, **settings)
    craft.guard.check()
    apply(small.images, made)  # it holds its budget, and changes something
    return made


def _write(found: images.Files, path: Path, folder: Path, perturbation: Perturbation) -> dict[str, float]:
    """Write the poisoned images below `folder`, and measure what they changed, over images: L-inf, root mean square."""
    names = images.png_names([file.relative_to(path).as_posix() for file in found.files])
    linf, rms = [], []
    with ProgressBar(len(names), "protect") as progress:
        for row, (file, name) in enumerate(zip(found.files, names, strict=True)):
            clean = torch.from_numpy(read_image(file, file)).float()
            own = row if perturbation.rows is None else int(perturbation.rows[row])
            delta = _enlarged(perturbation.delta[own], clean.shape[0], clean.shape[1])
            poisoned = added(clean, delta, perturbation)
            change = poisoned - clean
            linf.append(float(change.abs().max()))
            rms.append(float(change.square().mean().sqrt()))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(images.png_bytes(poisoned.to(torch.uint8).numpy()))
            progress.advance_to(row + 1)
    return {
        "linf_mean": sum(linf) / len(linf),
        "linf_max": max(linf),
        "root_mean_square_mean": sum(rms) / len(rms),
        "root_mean_square_max": max(rms),
    }


def _enlarged(delta: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A perturbation (S, S, 3) at the size of an image, every value a block: no value is larger than before."""
    if delta.shape[:2] == (height, width):
        return delta
    return F.interpolate(delta.permute(2, 0, 1)[None], (height, width), mode="nearest-exact")[0].permute(1, 2, 0)


def _card(path: Path, manifest: dict) -> str:
    measured = manifest["measured"]
    facts = {
        "images": manifest["images"],
        "poison": f"`{manifest['poison']}`, crafted at {manifest['size']}x{manifest['size']} pixels",
        "settings": ", ".join(f"{name}={value}" for name, value in manifest["settings"].items()),
        "L-inf of the change (mean, 1/255)": f"{measured['linf_mean']:.2f}",
        "root mean square of the change (mean, 1/255)": f"{measured['root_mean_square_mean']:.2f}",
    }
    text = (
        "The images of a folder with a perturbation that is meant to keep networks from learning from them. No such "
        "perturbation is safe: training methods are known that undo it, and JPEG compression weakens it."
    )
    return publishing.card("Protected images", facts, text)
