"""A dataset for the tests of the PST library."""

import pytest
from torch.utils.data import TensorDataset

from helpers.images import coloured
from helpers.training import by_limit
from relearn.data import to_float
from relearn.training import staging


@pytest.fixture(scope="module")
def data() -> TensorDataset:
    train = coloured([8] * 10, (32, 32), seed=1)
    return TensorDataset(to_float(train.images).contiguous(), train.labels)


@pytest.fixture
def decided_by_limit(monkeypatch):
    """PST with `ALWAYS_TRAPPED` or `NEVER_TRAPPED` does as told, whatever its probes find."""
    monkeypatch.setattr(staging, "judge", by_limit)
