"""surrogate DATASET/SURROGATE: train the model that poisons are crafted on, on clean images with the shared recipe."""

from relearn import device as devices
from relearn import grid, models, records
from relearn.data import load_split, save_tensors
from relearn.fit import fit
from relearn.methods.erm import ERM
from relearn.params import Params
from relearn.probe import Probe
from relearn.seeding import Seeds, deterministic


def run(params: Params, dataset: str, surrogate: str) -> None:
    """Write the surrogate's weights, with its settings in the header, and surrogate.json with its accuracies."""
    coords = {"dataset": dataset, "surrogate": surrogate}
    own = params.settings("surrogates", surrogate)
    recipe = params.recipe | ({"epochs": own["epochs"]} if own["epochs"] else {})
    deterministic(params.compute["threads"])
    device = devices.choose()
    train, facts = load_split(grid.path("prepare", "train", dataset=dataset))
    test, _ = load_split(grid.path("prepare", "test", dataset=dataset))
    seeds = Seeds("surrogate", dataset, surrogate, own["seed"])
    settings = grid.settings(params, "surrogate", **coords) | facts["settings"]  # what was read says how it was made
    with records.provenance(grid.beside("surrogate", "run.json", **coords), device):
        model = models.build(
            *params.architectures[own["arch"]],
            images=train.images,
            classes=len(facts["classes"]),
            generator=seeds.generator("init"),
            device=device,
        )
        probe = Probe.draw(train.to(device), recipe["probe"], seeds.generator("probe"))
        fitted = fit(
            model, ERM(), train.to(device), test.to(device), recipe, seeds,
            probe=probe, precision=params.compute["precision"], label=f"surrogate {dataset}/{surrogate}",
            resume=grid.beside("surrogate", "checkpoint.safetensors", **coords),
            identity=records.settings_hash(settings),
        )  # fmt: skip
        save_tensors(grid.path("surrogate", "model", **coords), models.weights(model), facts | {"settings": settings})
        last = {key: fitted.history[-1][key] for key in ("epoch", "train_accuracy", "test_accuracy")}
        records.write_json(grid.path("surrogate", "info", **coords), {"settings": settings} | last)
