"""poison DATASET/POISON: craft a perturbation and write the poisoned training set."""

from relearn import device as devices
from relearn import grid, models, quantise, records, registry
from relearn.craft import Craft
from relearn.data import load_split, load_tensors, save_split
from relearn.params import Params
from relearn.seeding import Seeds, deterministic


def run(params: Params, dataset: str, poison: str) -> None:
    """Write the poisoned training split (uint8, canonical) and poison.json: declared and measured budget, settings."""
    deterministic(params.compute["threads"])
    device = devices.choose()
    train, facts = load_split(grid.path("prepare", "train", dataset=dataset))
    own, name = params.settings("poisons", poison), params.entry("poisons", poison).name
    surrogate, crafted_on = _surrogate(params, dataset, poison, train, facts, device)
    # what was read says how it was made; params.yaml says the rest
    settings = facts["settings"] | {"poison": grid.settings(params, "poison", dataset=dataset, poison=poison)["poison"] | crafted_on}
    with records.provenance(grid.beside("poison", "run.json", dataset=dataset, poison=poison), device):
        craft = Craft(
            label=f"poison {dataset}/{poison}",
            seeds=Seeds("poison", dataset, name),
            device=device,
            classes=len(facts["classes"]),
            architectures=params.architectures,
            surrogate=surrogate,
        )
        perturbation = registry.load("poisons", name)(train, craft, **own)
        images, measured = quantise.apply(train.images, perturbation)
        save_split(grid.path("poison", "train", dataset=dataset, poison=poison), train.with_images(images), facts | {"settings": settings})
        budget = {"declared": vars(perturbation.budget), "measured": measured, "rounding": perturbation.rounding}
        records.write_json(grid.path("poison", "info", dataset=dataset, poison=poison), budget | {"settings": settings})


def _surrogate(params: Params, dataset: str, poison: str, train, facts: dict, device: str):
    """The surrogate the poison names and the settings it was made with; None and nothing for a poison without one."""
    name = params.named("poisons", poison, "SurrogateName")
    if not name:
        return None, {}
    tensors, made = load_tensors(grid.path("surrogate", "model", dataset=dataset, surrogate=name))
    use, settings = params.architectures[params.settings("surrogates", name)["arch"]]
    model = models.rebuild(use, settings, tensors, classes=len(facts["classes"]), size=train.images.shape[1:3], device=device)
    return model, {"crafted_on": made["settings"]}
