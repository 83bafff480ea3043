"""Fixtures of the tests of PST in a loop of one's own."""

import pytest
from torch.utils.data import TensorDataset

from helpers.images import coloured
from relearn.training import augment


@pytest.fixture(scope="module")
def data() -> TensorDataset:
    train = coloured([8] * 10, (32, 32), seed=1)
    return TensorDataset(augment.to_float(train.images).contiguous(), train.labels)
