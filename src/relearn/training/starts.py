"""What other jobs made that poisons and methods start from: weights of surrogates and pretrainings, and images."""

from pathlib import Path

import torch

from relearn import grid
from relearn.data import Split, load_beside, load_split, load_tensors
from relearn.params import Params

Weights = dict[str, torch.Tensor]


def load_surrogate(params: Params, section: str, name: str, dataset: str) -> tuple[Weights, dict]:
    """The weights of the surrogate that an entry of params.yaml names, and `starts` for `grid.settings`.

    Both are empty without a surrogate.
    """
    surrogate = params.named(section, name, "SurrogateName")
    if not surrogate:
        return {}, {}
    return _load("surrogate_settings", grid.path("surrogate", "model", dataset=dataset, surrogate=surrogate))


def load_pretrained(params: Params, cell: grid.Cell) -> tuple[Weights, dict]:
    """The same of the pretraining that the method of a cell names."""
    found = grid.pretrained(params, cell)
    return _load("pretraining_settings", grid.path("pretrain", "model", **found)) if found else ({}, {})


def load_mixed(params: Params, poison: str, dataset: str) -> tuple[dict[str, Split], dict]:
    """The poisoned training splits of the poisons that this one mixes, by name, and `starts` for `grid.settings`.

    Both are empty for a poison that mixes none.
    """
    splits, found = {}, {}
    for name in grid.mixed(params, poison):
        splits[name], facts = load_split(grid.path("poison", "train", dataset=dataset, poison=name))
        found[name] = facts["settings"]
    return splits, {"mixed_settings": found} if found else {}


def load_clean(params: Params, cell: grid.Cell, settings: dict) -> Split | None:
    """The clean training split, for a method that is given some of its images; None for every other.

    `settings` are those of the poisoned split. Raises UserError for a clean one that was prepared with others.
    """
    if not params.named("methods", cell.method, "CleanCount"):
        return None
    return load_beside(cell.path("prepare", "train"), settings)[0]


def _load(key: str, path: Path) -> tuple[Weights, dict]:
    """Weights, and the settings in their header under `key`."""
    weights, facts = load_tensors(path)
    return weights, {key: facts["settings"]}
