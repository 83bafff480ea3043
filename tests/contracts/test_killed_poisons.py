"""Every poison that is killed in the middle resumes and ends in the same bytes."""

import pytest
import torch

from helpers.registered import cheap, named
from relearn import registry
from relearn.crafting import craft as crafting


class Killed(Exception):  # noqa: N818, it stands for no error
    """Stands for a kill right after the state was written."""


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """What poisons make that are not killed, each made once."""
    return {}


@named("poisons")
@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_killed_poison_resumes_to_the_same_bytes(name, when, tiny, craft, whole, tmp_path, monkeypatch):
    if name == "external":
        return
    monkeypatch.setattr(crafting, "CHECKPOINT_SECONDS", 0.0)
    make, own, save, count = (
        registry.load("poisons", name),
        cheap("poisons", name),
        crafting.CraftContext.save_checkpoint,
        [],
    )

    def run(settings_hash: str, path) -> torch.Tensor:
        made = craft(name, tiny)
        made.checkpoint_path, made.settings_hash = path, settings_hash
        return make(tiny, made, **own).delta

    def dying(self, *arguments, **options) -> None:
        save(self, *arguments, **options)
        count.append(None)
        if len(count) == when:
            raise Killed

    if name not in whole:
        whole[name] = run("one", None)
    monkeypatch.setattr(crafting.CraftContext, "save_checkpoint", dying)
    try:
        run("one", tmp_path / "checkpoint")
    except Killed:
        monkeypatch.setattr(crafting.CraftContext, "save_checkpoint", save)
        assert list(tmp_path.iterdir())
        assert torch.equal(run("one", tmp_path / "checkpoint"), whole[name])
    models = any(s.kind in ("SurrogateName", "ArchitectureName") for s in registry.entry("poisons", name).settings)
    assert when > 1 or count or not models  # what takes long saves its state at least once
