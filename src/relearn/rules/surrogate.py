"""surrogate DATASET/SURROGATE: train, on clean images by the recipe, the model that poisons are crafted on."""

import math

import torch

from relearn import grid
from relearn.data import load_beside, load_split, save_tensors
from relearn.methods.erm import ERM
from relearn.params import Params
from relearn.probing.probe_set import ProbeSet
from relearn.runtime import device as devices
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash
from relearn.runtime.run_report import run_report
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models
from relearn.training.fit import fit
from relearn.training.state import TrainingState


def run(params: Params, dataset: str, surrogate: str) -> None:
    """Write the surrogate's weights, those of its earlier checkpoints, and surrogate.json with its accuracies."""
    names = {"dataset": dataset, "surrogate": surrogate}
    own = params.settings("surrogates", surrogate)
    recipe = params.recipe_of(own["arch"]) | ({"epochs": own["epochs"]} if own["epochs"] else {})
    deterministic(params.compute["threads"])
    device = devices.choose()
    precision = devices.precision(params.compute, device)
    train, facts = load_split(grid.path("prepare", "train", dataset=dataset))
    test, _ = load_beside(grid.path("prepare", "test", dataset=dataset), facts["settings"])
    seeds = Seeds("surrogate", dataset, surrogate, own["seed"])
    settings = grid.settings(params, "surrogate", inherited=facts["settings"], dataset=dataset, surrogate=surrogate)
    with run_report(grid.sidecar("surrogate", "run.json", **names), device, grid.path("surrogate", "info", **names)):
        model = models.build(
            *params.architectures[own["arch"]],
            images=train.images,
            classes=len(facts["classes"]),
            generator=seeds.generator("init"),
            device=device,
            precision=precision,
        )
        method = _KeepEarlier(earlier_epochs(recipe["epochs"], own["checkpoints"]))
        fitted = fit(
            model,
            method,
            train.to(device),
            test.to(device),
            recipe,
            seeds,
            probe_set=ProbeSet.draw(train.to(device), recipe["probe_size"], seeds.generator("probe")),
            label=f"surrogate {dataset}/{surrogate}",
            section=params.recipe_section(own["arch"]),
            checkpoint_path=grid.sidecar("surrogate", "checkpoint.safetensors", **names),
            settings_hash=settings_hash(settings | {"precision": precision}),  # one run, one precision
        )
        facts = facts | {"settings": settings}
        save_tensors(grid.path("surrogate", "model", **names), models.weights(model), facts)
        save_tensors(grid.path("surrogate", "earlier", **names), method.earlier, facts)
        last = {key: fitted.history[-1][key] for key in ("epoch", "train_accuracy", "test_accuracy")}
        info = {"settings": settings, "precision": precision, "checkpoints": [*method.epochs, recipe["epochs"]]} | last
        files.write_json(grid.path("surrogate", "info", **names), info)


def earlier_epochs(epochs: int, checkpoints: int) -> list[int]:
    """The epochs after which a checkpoint is stored, evenly spaced, without the last, which is the surrogate itself."""
    return sorted({math.ceil(epochs * k / checkpoints) for k in range(1, checkpoints)} - {epochs})


class _KeepEarlier(ERM):
    """Plain training that copies its weights after some epochs, under names "EPOCH:tensor"."""

    def __init__(self, epochs: list[int]):
        super().__init__()
        self.epochs = epochs
        self.earlier: dict[str, torch.Tensor] = {}

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        return step > 0 and step % steps_per_epoch == 0 and step // steps_per_epoch in self.epochs

    def on_probe(self, training: TrainingState) -> None:
        epoch = training.step // training.steps_per_epoch
        # copies, since training goes on in these tensors
        self.earlier |= {
            f"{epoch:05}:{name}": tensor.clone() for name, tensor in models.weights(training.model).items()
        }

    def state(self) -> dict:
        return dict(self.earlier)

    def load_state(self, state: dict) -> None:
        self.earlier = {name: tensor.cpu() for name, tensor in state.items()}
