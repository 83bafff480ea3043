"""Everything registered, and settings under which each of them runs in a moment."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from relearn import registry
from relearn.runtime.hashing import file_digest

EVERYTHING = [(kind, name) for kind in registry.KINDS for name in registry.entries(kind)]

# their archives are faked in unit/test_cifar.py and unit/test_image_archives.py; elsewhere only what they promise:
# settings besides those of a subset
DOWNLOADED: dict[str, set[str]] = {"cifar10": set(), "cifar10_jpeg": {"quality"}, "cifar100": set()}
DOWNLOADED |= {"svhn": set(), "tiny_imagenet": set(), "cinic10": set()}

# What is given for settings that cost time, wherever a registered thing has one of these names. A width below 8 would
# do, but torch 2.13 on a CPU corrupts memory in the backward pass of a 1x1 convolution of stride 2 with fewer input
# channels.
CHEAP = {"copies": 1, "width": 8, "rounds": 2, "steps": 2, "batches": 3, "batch": 16, "epochs": 1, "probe_steps": 2}
CHEAP |= {
    "restarts": 2,
    "models": 3,
    "train_steps": 3,
    "samples": 2,
    "attack_steps": 2,
    "block": 24,
    "validation": 16,
    "particles": 3,
    "searches": 2,
    "sample": 4,
    "depth": 10,
    "name": "test_efficientnet",  # of timm
    "classes": 2,
}
POISONS = ["one", "two"]  # what a poison that mixes others mixes
NAMES = {"ArchitectureName": "cnn", "SurrogateName": "surrogate", "PretrainingName": "pretraining"}
NAMES |= {"PurificationName": "purification"}


# what needs a package that not everyone has
OPTIONAL = {"timm": "timm"}


def named(kind: str):
    """A test of everything of one kind, by its name; what needs a package that is not here is skipped."""
    return pytest.mark.parametrize("name", [_marked(name) for name in registry.entries(kind)])


def _marked(name: str):
    package = OPTIONAL.get(name, "pytest")
    missing = pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")
    return pytest.param(name, marks=missing)


def cheap(kind: str, name: str, path: str = "") -> dict:
    """Settings under which a registered thing runs in a moment; `path` is what its InputPath gets."""
    found = {}
    for setting in registry.entry(kind, name).settings:
        if setting.kind == "InputPath":
            found[setting.name] = path
        elif setting.kind == "Checksum":
            found[setting.name] = file_digest(Path(path), "sha256") or "0" * 64
        elif setting.kind == "list[PoisonName]":
            found[setting.name] = POISONS
        elif setting.kind in NAMES:
            found[setting.name] = NAMES[setting.kind]
        elif setting.name in CHEAP:
            found[setting.name] = CHEAP[setting.name]
    return found


def cheap_method(name: str, weights: dict[str, torch.Tensor], folder: Path) -> dict:
    """The same of a method, and `weights` as a file in `folder` for one that begins with weights of the user's."""
    file = folder / "checkpoint.safetensors"
    save_file(weights, file)
    return cheap("methods", name, str(file))
