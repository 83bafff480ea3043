"""Everything registered, and settings under which each of them runs in a moment."""

import pytest

from relearn import registry

EVERYTHING = [(kind, name) for kind in registry.KINDS for name in registry.entries(kind)]

# their archives are faked in unit/test_cifar.py; elsewhere only what they promise
DOWNLOADED = {"cifar10": 10, "cifar100": 100}

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
}
POISONS = ["one", "two"]  # what a poison that mixes others mixes
NAMES = {"ArchitectureName": "cnn", "SurrogateName": "surrogate", "PretrainingName": "pretraining"}


def named(kind: str):
    """A test of everything of one kind, by its name."""
    return pytest.mark.parametrize("name", registry.entries(kind))


def cheap(kind: str, name: str, path: str = "") -> dict:
    """Settings under which a registered thing runs in a moment; `path` is what its InputPath gets."""
    found = {}
    for setting in registry.entry(kind, name).settings:
        if setting.kind == "InputPath":
            found[setting.name] = path
        elif setting.kind == "list[PoisonName]":
            found[setting.name] = POISONS
        elif setting.kind in NAMES:
            found[setting.name] = NAMES[setting.kind]
        elif setting.name in CHEAP:
            found[setting.name] = CHEAP[setting.name]
    return found
