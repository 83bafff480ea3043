"""The weights of other jobs that poisons and methods start from: of surrogates and of pretrainings."""

from pathlib import Path

import torch

from relearn import grid
from relearn.data import load_tensors
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


def _load(key: str, path: Path) -> tuple[Weights, dict]:
    """Weights, and the settings in their header under `key`."""
    weights, facts = load_tensors(path)
    return weights, {key: facts["settings"]}
