"""poison DATASET/POISON: craft a perturbation and write the poisoned training set."""

import sys

import torch

from relearn import cost, grid, models, quantise, records, registry
from relearn import device as devices
from relearn.craft import Craft
from relearn.data import Split, load_split, load_tensors, save_split, share
from relearn.params import Params
from relearn.seeding import Seeds, deterministic


def run(params: Params, dataset: str, poison: str) -> None:
    """Write the poisoned training split (uint8, canonical) and poison.json: declared and measured budget, settings.

    With a `ratio` below 1 a share of every class is poisoned, and crafted, as if it were the whole set; `poisoned` in the
    split says which. That share is the same for every poison, and a smaller one is part of a larger.
    """
    deterministic(params.compute["threads"])
    device = devices.choose()
    whole, facts = load_split(grid.path("prepare", "train", dataset=dataset))
    own, name = params.settings("poisons", poison), params.entry("poisons", poison).name
    chosen = share(whole.labels, own.pop("ratio"), Seeds("poison", dataset).generator("ratio"))
    train = whole.pick(torch.nonzero(chosen).flatten())
    surrogate, earlier, crafted_on = _surrogate(params, dataset, poison, whole, facts, device)
    # what was read says how it was made; params.yaml says the rest
    settings = facts["settings"] | {
        "poison": grid.settings(params, "poison", dataset=dataset, poison=poison)["poison"] | crafted_on
    }
    print(cost.announced(params, poison, train), file=sys.stderr, flush=True)
    with records.provenance(grid.beside("poison", "run.json", dataset=dataset, poison=poison), device):
        craft = Craft(
            label=f"poison {dataset}/{poison}",
            seeds=Seeds("poison", dataset, name),
            device=device,
            classes=len(facts["classes"]),
            architectures=params.architectures,
            surrogate=surrogate,
            earlier=earlier,
            memory=grid.beside("poison", "checkpoint", dataset=dataset, poison=poison),
            identity=records.settings_hash(settings),
        )
        perturbation = registry.load("poisons", name)(train, craft, **own)
        changed, measured = quantise.apply(train.images, perturbation)
        save_split(
            grid.path("poison", "train", dataset=dataset, poison=poison),
            _published(whole, chosen, changed),
            facts | {"settings": settings},
            chosen,
        )
        budget = {"declared": vars(perturbation.budget), "measured": measured, "rounding": perturbation.rounding}
        count = {"images": len(whole), "poisoned": len(train)}
        records.write_json(
            grid.path("poison", "info", dataset=dataset, poison=poison), budget | count | {"settings": settings}
        )
        craft.forget()


def _published(whole: Split, chosen: torch.Tensor, changed: torch.Tensor) -> Split:
    """The whole set with the chosen images changed."""
    if chosen.all():
        return whole.with_images(changed)
    images = whole.images.clone()
    images[chosen] = changed
    return whole.with_images(images)


def _surrogate(params: Params, dataset: str, poison: str, train: Split, facts: dict, device: str):
    """The surrogate the poison names, what loads its earlier checkpoints, and the settings it was made with; nothing for none."""
    name = params.named("poisons", poison, "SurrogateName")
    if not name:
        return None, list, {}
    use, settings = params.architectures[params.settings("surrogates", name)["arch"]]

    def rebuilt(tensors: dict[str, torch.Tensor]):
        return models.rebuild(
            use, settings, tensors, classes=len(facts["classes"]), size=train.images.shape[1:3], device=device
        )

    def earlier() -> list:
        tensors, _ = load_tensors(grid.path("surrogate", "earlier", dataset=dataset, surrogate=name))
        epochs = dict.fromkeys(key.partition(":")[0] for key in sorted(tensors))
        return [
            rebuilt(
                {
                    key.removeprefix(f"{epoch}:"): tensor
                    for key, tensor in tensors.items()
                    if key.startswith(f"{epoch}:")
                }
            )
            for epoch in epochs
        ]

    tensors, made = load_tensors(grid.path("surrogate", "model", dataset=dataset, surrogate=name))
    return rebuilt(tensors), earlier, {"crafted_on": made["settings"]}
