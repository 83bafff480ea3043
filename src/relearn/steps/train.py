"""train CELL: train a victim on poisoned images by a method."""

from relearn import device as devices
from relearn import grid, models, probe, records, registry
from relearn.data import load_split, load_tensors, save_tensors
from relearn.fit import fit
from relearn.methods import erm  # noqa: F401, every method is a difference from it, so its source belongs to this step
from relearn.params import Params
from relearn.seeding import Seeds, deterministic


def run(params: Params, dataset: str, poison: str, arch: str, method: str, seed: str) -> None:
    """Write the victim's weights, history.csv, ticks.csv, embeddings.csv, and train.json.

    train.json holds settings, work done, the verdict of the probe, and the rows struck out of the history.

    Initial weights, batches and probe set depend on data set, architecture and seed alone, so that poisons and methods
    are compared on common random numbers.
    """
    coords = {"dataset": dataset, "poison": poison, "arch": arch, "method": method, "seed": seed}
    cell = str(grid.Cell(dataset, poison, arch, method, int(seed)))
    deterministic(params.compute["threads"])
    device = devices.choose()
    train, facts = load_split(grid.path("poison", "train", dataset=dataset, poison=poison))
    test, _ = load_split(grid.path("prepare", "test", dataset=dataset))
    seeds = Seeds("train", dataset, arch, int(seed))
    out = {name: grid.path("train", name, **coords) for name in grid.STEPS["train"].outputs}
    own = grid.settings(params, "train", **coords)
    carried = facts["settings"] | {key: own[key] for key in ("compute", "train", "architecture", "method")}
    surrogate, taken_from = _surrogate(params, dataset, method)
    carried["method"] = carried["method"] | taken_from
    with records.provenance(grid.beside("train", "run.json", **coords), device) as notes:
        use, settings = params.architectures[arch]
        chosen = registry.load("methods", params.entry("methods", method).name)(**params.settings("methods", method))
        model = models.build(
            use,
            settings,
            images=train.images,
            classes=len(facts["classes"]),
            generator=seeds.generator("init"),
            device=device,
            size=chosen.seen(train.images.shape[1:3]),
        )
        chosen.initialise(model, surrogate)
        train, test = train.to(device), test.to(device)
        fitted = fit(
            model,
            chosen,
            train,
            test,
            params.recipe,
            seeds,
            probe=probe.Probe.draw(train, params.recipe["probe"], seeds.generator("probe")),
            precision=params.compute["precision"],
            label=f"train {cell}",
            resume=grid.beside("train", "checkpoint.safetensors", **coords),
            identity=records.settings_hash(carried),
        )
        notes["images"] = fitted.iterations * params.recipe["batch"]
        watch = probe.middle(fitted.reading)
        save_tensors(out["model"], models.weights(model), {"classes": facts["classes"], "settings": carried})
        records.write_rows(out["history"], fitted.history)
        records.write_rows(out["ticks"], fitted.ticks, header=("iterations", "step", "stage"))
        records.write_rows(
            out["embeddings"], [row | {"label": facts["classes"][row["label"]]} for row in fitted.embeddings]
        )
        verdict = {"watch": watch, "acm": fitted.reading.acm[watch], "probe_accuracy": fitted.reading.accuracy}
        verdict["trapped"] = probe.trapped(fitted.reading, watch)
        work = {"iterations": fitted.iterations, "steps": fitted.steps, "struck": fitted.struck}
        records.write_json(
            out["info"], {"cell": coords | {"seed": int(seed)}, "settings": carried, "verdict": verdict} | work
        )


def _surrogate(params: Params, dataset: str, method: str) -> tuple[dict, dict]:
    """The weights of the surrogate the method names and the settings they were made with; nothing for a method without one."""
    name = params.named("methods", method, "SurrogateName")
    if not name:
        return {}, {}
    tensors, made = load_tensors(grid.path("surrogate", "model", dataset=dataset, surrogate=name))
    return tensors, {"taken_from": made["settings"]}
