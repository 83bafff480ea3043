"""Whether two results are equal to the last byte, whatever the global random state was."""

import random

import numpy
import torch


def same(one, other) -> bool:
    """Whether two nested values are equal to the last byte, tensors included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def stir(seed: int) -> None:
    """Leave garbage in every global random state, of which no result may depend."""
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    random.seed(seed)
