"""What holds for every purification."""

import numpy as np
import pytest
import torch

from helpers.compare import stir
from helpers.images import DEVICE, noise
from helpers.registered import cheap, named
from relearn import registry
from relearn.crafting.craft import CraftContext
from relearn.runtime.seeding import Seeds

SETTINGS = {"latent": 8, "epochs": 3}  # of those that have them


def purified(name: str, train, tmp_path, **context) -> torch.Tensor:
    changed = (train.images.int() + noise(len(train), *train.images.shape[1:3]).int() // 25).clamp(0, 255)
    np.save(tmp_path / "images.npy", changed.byte().numpy())
    settings = cheap("purifications", name, str(tmp_path / "images.npy"))
    settings |= {
        setting.name: SETTINGS[setting.name]
        for setting in registry.entry("purifications", name).settings
        if setting.name in SETTINGS
    }
    craft = CraftContext("test", Seeds("test"), DEVICE, 10, **context)
    return registry.load("purifications", name)(train, craft, **settings)


@named("purifications")
def test_purifications(name, tiny, tmp_path):
    before = tiny.images.clone()
    stir(1)
    found = purified(name, tiny, tmp_path)
    stir(2)
    assert torch.equal(found, purified(name, tiny, tmp_path))
    assert found.shape == before.shape and found.dtype == torch.uint8 and found.device.type == "cpu"
    assert torch.equal(tiny.images, before)  # others read them too
    assert (found != before).float().mean() > 0.1


class KilledError(Exception):
    """Stands for a kill."""


@named("purifications")
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_purification_resumes_to_the_same_bytes(name, after, tiny, tmp_path, monkeypatch):
    """Killed after so many checkpoints, in either stage; of one that writes none the second run is like the first."""
    undisturbed = purified(name, tiny, tmp_path)
    monkeypatch.setattr("relearn.crafting.craft.CHECKPOINT_SECONDS", 0)
    how = {"checkpoint_path": tmp_path / "checkpoint", "settings_hash": "1"}
    save, count = CraftContext.save_checkpoint, []

    def killed(craft, *arguments, **options):
        save(craft, *arguments, **options)
        count.append(1)
        if len(count) == after:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(CraftContext, "save_checkpoint", killed)
        try:
            purified(name, tiny, tmp_path, **how)
        except KilledError:
            assert list(tmp_path.glob("checkpoint.*"))
    stir(3)
    noted = []
    note = type(CraftContext("", Seeds("test"), DEVICE, 10).guard).note
    monkeypatch.setattr(
        "relearn.training.divergence.FiniteGuard.note",
        lambda guard, *what: noted.append(what[1:]) or note(guard, *what),
    )
    assert torch.equal(purified(name, tiny, tmp_path, **how), undisturbed)
    if count:
        assert len(noted) == (6 - min(after, 3) - max(0, after - 4)) * 5  # 5 steps an epoch, none of them taken twice
    other = how | {"settings_hash": "2"}
    assert torch.equal(purified(name, tiny, tmp_path, **other), undisturbed)
