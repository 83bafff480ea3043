"""surrogate DATASET/SURROGATE: train the model that poisons are crafted on, on clean images with the shared recipe."""

import math

from relearn import device as devices
from relearn import grid, models, records
from relearn.data import load_split, save_tensors
from relearn.fit import fit
from relearn.methods.erm import ERM
from relearn.params import Params
from relearn.probe import Probe
from relearn.seeding import Seeds, deterministic


def run(params: Params, dataset: str, surrogate: str) -> None:
    """Write the surrogate's weights, those of its earlier checkpoints, both with its settings, and surrogate.json with its accuracies."""
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
        method = _Remembering(kept_epochs(recipe["epochs"], own["checkpoints"]))
        fitted = fit(
            model,
            method,
            train.to(device),
            test.to(device),
            recipe,
            seeds,
            probe=probe,
            precision=params.compute["precision"],
            label=f"surrogate {dataset}/{surrogate}",
            resume=grid.beside("surrogate", "checkpoint.safetensors", **coords),
            identity=records.settings_hash(settings),
        )
        save_tensors(grid.path("surrogate", "model", **coords), models.weights(model), facts | {"settings": settings})
        save_tensors(grid.path("surrogate", "earlier", **coords), method.kept, facts | {"settings": settings})
        last = {key: fitted.history[-1][key] for key in ("epoch", "train_accuracy", "test_accuracy")}
        records.write_json(
            grid.path("surrogate", "info", **coords),
            {"settings": settings, "checkpoints": [*method.epochs, recipe["epochs"]]} | last,
        )


def kept_epochs(epochs: int, checkpoints: int) -> list[int]:
    """After which epochs a checkpoint is kept, evenly spread; the last epoch is not among them, it is the surrogate itself."""
    return sorted({math.ceil(epochs * k / checkpoints) for k in range(1, checkpoints)} - {epochs})


class _Remembering(ERM):
    """Plain training that keeps its weights after some epochs, under names "EPOCH:tensor"."""

    def __init__(self, epochs: list[int]):
        super().__init__()
        self.epochs, self.kept = epochs, {}

    def ticks(self, step: int, steps_per_epoch: int) -> bool:
        return step > 0 and step % steps_per_epoch == 0 and step // steps_per_epoch in self.epochs

    def on_tick(self, run) -> None:
        epoch = run.step // run.steps_per_epoch
        self.kept |= {
            f"{epoch:05}:{name}": tensor.clone() for name, tensor in models.weights(run.model).items()
        }  # training goes on in these

    def state(self) -> dict:
        return dict(self.kept)

    def load_state(self, state: dict) -> None:
        self.kept = {name: tensor.cpu() for name, tensor in state.items()}
