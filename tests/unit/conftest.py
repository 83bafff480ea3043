"""What several files of unit tests use."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch.utils.data import TensorDataset

from helpers.folders import paint
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


@pytest.fixture
def put(tmp_path):
    """Writes an array as .npy, named ones as .safetensors; gives the path."""

    def write(array=None, **arrays) -> str:
        path = tmp_path / ("poison.safetensors" if arrays else "poison.npy")
        if arrays:
            save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)
        else:
            np.save(path, array)
        return str(path)

    return write


@pytest.fixture
def own(tmp_path) -> Path:
    """train/ and test/ with two classes of twelve images; the red of an image is its number times 10."""
    for part in ("train", "test"):
        for name in ("b", "a"):
            for number in range(1, 13):
                paint(tmp_path / "own" / part / name / f"{number}.png", (10 * number, 0, 0 if name == "a" else 255))
    return tmp_path / "own"
