"""The weights of surrogates, for the poisons and methods that name one."""

import torch

from relearn import grid
from relearn.data import load_tensors
from relearn.params import Params


def load_surrogate(
    params: Params, section: str, name: str, dataset: str
) -> tuple[dict[str, torch.Tensor], dict | None]:
    """The weights of the surrogate that an entry of params.yaml names, and the settings in their header.

    Without a surrogate there are no weights, and None.
    """
    surrogate = params.named(section, name, "SurrogateName")
    if not surrogate:
        return {}, None
    weights, facts = load_tensors(grid.path("surrogate", "model", dataset=dataset, surrogate=surrogate))
    return weights, facts["settings"]
