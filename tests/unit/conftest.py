"""A dataset for the tests of the PST library."""

import pytest
from torch.utils.data import TensorDataset

from helpers.images import coloured
from relearn.data import to_float


@pytest.fixture(scope="module")
def data() -> TensorDataset:
    train = coloured([8] * 10, (32, 32), seed=1)
    return TensorDataset(to_float(train.images).contiguous(), train.labels)
