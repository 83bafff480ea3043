"""poison DATASET/POISON: craft a perturbation and write the poisoned training set."""

import sys
from pathlib import Path

import torch

from relearn import grid
from relearn.crafting import perturbation as perturbations
from relearn.crafting.craft import CraftContext
from relearn.data import Split, draw_share, load_split, load_tensors, save_split
from relearn.errors import UserError
from relearn.params import Params
from relearn.rules.planning import cost
from relearn.runtime import device as devices
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash
from relearn.runtime.run_report import run_report
from relearn.runtime.scratch import room
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models
from relearn.training.starts import load_mixed, load_surrogate


def run(params: Params, dataset: str, poison: str) -> None:
    """Write the poisoned training split (uint8, canonical) and poison.json: declared and measured budget, settings.

    With a `ratio` of less than 1, a share of every class is poisoned, as if it were the whole set; `poisoned` in the
    split says which images. The share is the same for every poison, and a smaller one is part of a larger.
    """
    names = {"dataset": dataset, "poison": poison}
    deterministic(params.compute["threads"])
    device = devices.choose()
    precision = devices.precision(params.compute, device)
    whole, facts = load_split(grid.path("prepare", "train", dataset=dataset))
    ratio = params.settings("poisons", poison)["ratio"]
    mask = draw_share(whole.labels, ratio, Seeds("poison", dataset).generator("ratio"))
    rows = torch.nonzero(mask).flatten()
    train = whole.pick(rows)
    weights, starts = load_surrogate(params, "poisons", poison, dataset)
    mixed, more = load_mixed(params, poison, dataset)
    settings = grid.settings(params, "poison", inherited=facts["settings"], starts=starts | more, **names)
    print(cost.cost_message(params, poison, train, precision), file=sys.stderr, flush=True)
    with run_report(grid.sidecar("poison", "run.json", **names), device, grid.path("poison", "info", **names)):
        craft = CraftContext(
            label=f"poison {dataset}/{poison}",
            seeds=Seeds("poison", dataset, params.entry("poisons", poison).name),
            device=device,
            classes=len(facts["classes"]),
            architectures=params.architectures,
            precision=precision,
            whole=whole,
            mixed={name: part.pick(rows) for name, part in mixed.items()},
            checkpoint_path=grid.sidecar("poison", "checkpoint", **names),
            settings_hash=settings_hash(settings | {"precision": precision}),  # one run, one precision
        )
        if weights:
            craft.surrogate, craft.load_earlier = _surrogate(params, dataset, poison, weights, whole, craft)
        perturbation, changed, measured = _crafted(params, names, train, craft)
        published = _replace(whole, mask, changed, grid.path("poison", "train", **names).parent)
        save_split(grid.path("poison", "train", **names), published, facts | {"settings": settings}, mask)
        budget = {"declared": vars(perturbation.budget), "measured": measured, "rounding": perturbation.rounding}
        info = budget | {"images": len(whole), "poisoned": len(train), "precision": precision, "settings": settings}
        files.write_json(grid.path("poison", "info", **names), info)
        craft.delete_checkpoint()


def _crafted(params: Params, names: dict[str, str], train: Split, craft: CraftContext):
    """The perturbation, the changed images, and what was measured; no checkpoint stays that leads to a refusal."""
    try:
        perturbation = params.build("poisons", names["poison"], train, craft)
        craft.guard.check()
        poisoned = room(tuple(train.images.shape), grid.path("poison", "train", **names).parent)
        return perturbation, *perturbations.apply(train.images, perturbation, poisoned)
    except UserError:
        craft.delete_checkpoint()
        raise


def _replace(whole: Split, mask: torch.Tensor, changed: torch.Tensor, folder: Path) -> Split:
    """The whole set with the images of `mask` replaced by the changed ones; a large one in a file of `folder`."""
    if mask.all():
        return whole.with_images(changed)
    images = room(tuple(whole.images.shape), folder).copy_(whole.images)
    images[mask] = changed
    return whole.with_images(images)


def _surrogate(
    params: Params, dataset: str, poison: str, weights: dict[str, torch.Tensor], train: Split, craft: CraftContext
):
    """The surrogate that the poison names, and a function that loads its earlier checkpoints."""
    name = params.named("poisons", poison, "SurrogateName")
    arch, settings = params.architectures[params.settings("surrogates", name)["arch"]]

    def rebuild(tensors: dict[str, torch.Tensor]) -> models.Normalised:
        size = tuple(train.images.shape[1:3])
        how = {"device": craft.device, "precision": craft.precision}
        return models.rebuild(arch, settings, tensors, classes=craft.classes, size=size, **how)

    def load_earlier() -> list[models.Normalised]:
        tensors, _ = load_tensors(grid.path("surrogate", "earlier", dataset=dataset, surrogate=name))
        by_epoch: dict[str, dict[str, torch.Tensor]] = {}
        for key in sorted(tensors):
            epoch, _, tensor_name = key.partition(":")
            by_epoch.setdefault(epoch, {})[tensor_name] = tensors[key]
        return [rebuild(of_epoch) for of_epoch in by_epoch.values()]

    return rebuild(weights), load_earlier
