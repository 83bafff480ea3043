"""Several poisons in one training set: what a defence made for one of them does not expect."""

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.errors import UserError
from relearn.registry import PoisonName, Seed, register


@register
def mixture(train: Split, craft: CraftContext, *, poisons: list[PoisonName], seed: Seed = 0) -> Perturbation:
    """Every image with the perturbation of one of several other `poisons` of params.yaml, drawn for each image.

    All are equally likely. The authors of BridgePure (NeurIPS 2025) test defences on five poisons mixed at random. Each
    keeps its own budget, so none is declared for all; `poison.json` has the measured norms. Raises UserError when a
    poison was made of other images than these.
    """
    which = torch.randint(len(poisons), (len(train),), generator=craft.generator("which", seed))
    delta = torch.empty(train.images.shape)
    for place, name in enumerate(poisons):
        rows = which == place
        delta[rows] = _images(train, craft, name)[rows].float() - train.images[rows].float()
    return Perturbation(delta, Budget("none", 255.0))


def _images(train: Split, craft: CraftContext, name: str) -> torch.Tensor:
    part = craft.mixed[name]
    same = part.images.shape == train.images.shape and torch.equal(part.index, train.index)
    if not (same and torch.equal(part.labels, train.labels)):
        raise UserError(f"{craft.label}: {name} was made from other images; run its poison job again")
    return part.images
