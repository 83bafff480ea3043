"""What CraftContext offers to poisons."""

import torch

from relearn.crafting import craft as crafting
from relearn.crafting.craft import CraftContext
from relearn.runtime.seeding import Seeds


def test_a_run_killed_after_its_last_batch_resumes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(crafting, "CHECKPOINT_SECONDS", 0.0)
    attacked: list[int] = []

    def attack(images, labels, rows):
        attacked.extend(rows.tolist())
        return images * 0 + labels.reshape(-1, 1, 1, 1)

    def context() -> CraftContext:
        return CraftContext("test", Seeds("test"), "cpu", 10, checkpoint_path=tmp_path / "checkpoint")

    first = context().map_batches(tiny, 32, attack)
    again = context().map_batches(tiny, 32, attack)  # the checkpoint of the last batch is still there
    assert torch.equal(first, again)
    assert attacked == list(range(len(tiny)))
