"""pretrain DATASET/POISON/ARCH/PRETRAINING/SEED: train, on the poisoned images, the weights that methods start from."""

from typing import Any

from relearn import grid
from relearn.data import load_split, save_tensors
from relearn.params import Params
from relearn.pretraining import two_views  # noqa: F401, the base of all of them, so its source belongs to this rule
from relearn.probing.probe_set import ProbeSet
from relearn.runtime import device as devices
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash
from relearn.runtime.run_report import run_report
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models
from relearn.training.fit import fit
from relearn.training.objectives import VIEWS


def run(params: Params, dataset: str, poison: str, arch: str, pretraining: str, seed: int) -> None:
    """Write the weights, without what is thrown away, history.csv and pretrain.json.

    It begins with the weights of the cell that a method trains, and sees no test image. Batches, views and probe set
    depend on dataset, architecture and seed alone.
    """
    names: dict[str, Any] = {
        "dataset": dataset,
        "poison": poison,
        "arch": arch,
        "pretraining": pretraining,
        "seed": seed,
    }
    deterministic(params.compute["threads"])
    device = devices.choose()
    precision = devices.precision(params.compute, device)
    train, facts = load_split(grid.path("poison", "train", dataset=dataset, poison=poison))
    settings = grid.settings(params, "pretrain", inherited=facts["settings"], **names)
    seeds = Seeds("pretrain", dataset, arch, seed)
    checkpoint = grid.sidecar("pretrain", "checkpoint.safetensors", **names)
    history = grid.path("pretrain", "history", **names)
    with run_report(grid.sidecar("pretrain", "run.json", **names), device, history) as report:
        report["resumed"] = checkpoint.exists()  # then the seconds are not those of the whole job
        stage = params.build("pretraining", pretraining)
        recipe = stage.recipe(params.recipe_of(arch), len(train))
        model = models.build(
            *params.architectures[arch],
            images=train.images,
            classes=len(facts["classes"]),
            generator=Seeds("train", dataset, arch, seed).generator("init"),
            device=device,
            precision=precision,
        )
        stage.attach(model, seeds.generator("projector"))
        train = train.to(device)
        fitted = fit(
            model,
            stage,
            train,
            None,
            recipe,
            seeds,
            probe_set=ProbeSet.draw(train, recipe["probe_size"], seeds.generator("probe")),
            label=f"pretrain {grid.RULES['pretrain'].argument.format(**names)}",
            section=f"pretraining.{pretraining}",
            checkpoint_path=checkpoint,
            settings_hash=settings_hash(settings | {"precision": precision}),  # one run, one precision
        )
        stage.detach(model)
        report["images"] = VIEWS * fitted.steps_taken * recipe["batch"]
        save_tensors(
            grid.path("pretrain", "model", **names),
            models.weights(model),
            {"classes": facts["classes"], "settings": settings},
        )
        files.write_rows(history, [_row(row) for row in fitted.history])
        info = {"settings": settings, "precision": precision}
        work = {"steps": fitted.steps, "passes": VIEWS * recipe["epochs"]}
        files.write_json(grid.path("pretrain", "info", **names), info | work)


def _row(row: dict) -> dict:
    """What a row of the history says of a pretraining; `hits` is the percentage of views that its loss has right."""
    own = {"epoch": row["epoch"], "step": row["step"], "train_loss": row["train_loss"], "hits": row["train_accuracy"]}
    return own | {name: value for name, value in row.items() if name.startswith("acm_")}
