"""purify DATASET/POISON/PURIFICATION: make another training set of the poisoned one, before any method trains on it."""

from typing import Any

import torch

from relearn import grid
from relearn.crafting.craft import CraftContext
from relearn.data import Split, load_split, load_tensors, save_split
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import device as devices
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash
from relearn.runtime.run_report import run_report
from relearn.runtime.seeding import Seeds, deterministic


def run(params: Params, dataset: str, poison: str, purification: str) -> None:
    """Write the purified training split (uint8) and purify.json: how far images moved, settings.

    It sees the poisoned images and their labels alone: no clean image, no test image, not which images are poisoned.
    """
    names: dict[str, Any] = {"dataset": dataset, "poison": poison, "purification": purification}
    deterministic(params.compute["threads"])
    device = devices.choose()
    source = grid.path("poison", "train", dataset=dataset, poison=poison)
    train, facts = load_split(source)
    poisoned = load_tensors(source)[0].get("poisoned")
    settings = grid.settings(params, "purify", inherited=facts["settings"], **names)
    checkpoint = grid.sidecar("purify", "checkpoint", **names)
    moved = grid.path("purify", "info", **names)
    with run_report(grid.sidecar("purify", "run.json", **names), device, moved) as report:
        # then the seconds are not those of the whole job
        report["resumed"] = any(checkpoint.parent.glob(f"{checkpoint.name}.*"))
        craft = CraftContext(
            label=f"purify {dataset}/{poison}/{purification}",
            seeds=Seeds("purify", dataset, params.entry("purifications", purification).name),
            device=device,
            classes=len(facts["classes"]),
            checkpoint_path=checkpoint,
            settings_hash=settings_hash(settings),
        )
        images = _purified(params, purification, train, craft)
        made = facts | {"settings": settings}
        save_split(grid.path("purify", "train", **names), train.with_images(images), made, poisoned)
        info = {"images": len(train), **_moved(train.images, images), "settings": settings}
        files.write_json(moved, info)
        craft.delete_checkpoint()


def _purified(params: Params, purification: str, train: Split, craft: CraftContext) -> torch.Tensor:
    """The purified images (N, H, W, 3) uint8 on the CPU; no checkpoint stays that leads to a refusal."""
    try:
        images = params.build("purifications", purification, train, craft)
        craft.guard.check()
    except UserError:
        craft.delete_checkpoint()
        raise
    if torch.equal(images, train.images):
        raise UserError(f"{craft.label} changes no image; a method without it gives the same")
    return images


def _moved(before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
    """How far images moved: the mean over all values, and the share of images that did not."""
    means = torch.empty(len(before), dtype=torch.float64)  # filled in place: parts kept would hold the memory apart
    for new, old, part in zip(after.split(500), before.split(500), means.split(500), strict=True):
        part.copy_((new.int() - old.int()).abs().flatten(1).double().mean(1))
    return {"mean_change": means.mean().item(), "unchanged": (means == 0).double().mean().item()}
