"""train CELL: train a victim on poisoned images by a method."""

from relearn import grid
from relearn.data import load_beside, load_split, save_tensors
from relearn.methods import erm  # noqa: F401, every method is a difference from it, so its source belongs to this rule
from relearn.params import Params
from relearn.probing.probe_set import ProbeSet
from relearn.probing.verdict import judge, middle_group
from relearn.rules.planning import cost
from relearn.runtime import device as devices
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash
from relearn.runtime.run_report import run_report
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models
from relearn.training.fit import fit
from relearn.training.objectives import VIEWS
from relearn.training.starts import load_clean, load_pretrained, load_surrogate
from relearn.training.state import Fitted


def run(params: Params, cell: grid.Cell) -> None:
    """Write the victim's weights, history.csv, probes.csv, embeddings.csv, and train.json.

    Initial weights, batches and probe set depend on dataset, architecture and seed alone, so that poisons and methods
    are compared on common random numbers.
    """
    deterministic(params.compute["threads"])
    device = devices.choose()
    precision = devices.precision(params.compute, device)
    rule, made = grid.trained_on(params, cell)
    train, facts = load_split(grid.path(rule, "train", **made))
    test, _ = load_beside(cell.path("prepare", "test"), facts["settings"])
    seeds = Seeds("train", cell.dataset, cell.arch, cell.seed)
    surrogate, starts = load_surrogate(params, "methods", cell.method, cell.dataset)
    pretrained, more = load_pretrained(params, cell)
    settings = grid.settings(params, "train", inherited=facts["settings"], starts=starts | more, cell=cell)
    checkpoint = grid.sidecar("train", "checkpoint.safetensors", **vars(cell))
    with run_report(grid.sidecar("train", "run.json", **vars(cell)), device, cell.path("train", "history")) as report:
        report["resumed"] = checkpoint.exists()  # then the seconds are not those of the whole job
        arch, arch_settings = params.architectures[cell.arch]
        method = params.build("methods", cell.method)
        clean = load_clean(params, cell, facts["settings"])
        train = train if clean is None else method.with_clean(train, clean, seeds.generator("clean"))
        train, test = train.to(device), test.to(device)
        train = train.with_images(method.prepare(train.images, train.labels))
        model = models.build(
            arch,
            arch_settings,
            images=train.images,
            classes=len(facts["classes"]),
            generator=seeds.generator("init"),
            device=device,
            size=method.input_size(tuple(train.images.shape[1:3])),
            transform=method.probe_transform,
            precision=precision,
        )
        method.initialise(model, surrogate, pretrained)
        recipe = params.recipe_of(cell.arch, cell.method)
        fitted = fit(
            model,
            method,
            train,
            test,
            recipe,
            seeds,
            probe_set=ProbeSet.draw(train, recipe["probe_size"], seeds.generator("probe")),
            label=f"train {cell}",
            section=params.recipe_section(cell.arch),
            checkpoint_path=checkpoint,
            settings_hash=settings_hash(settings | {"precision": precision}),  # one run, one precision
        )
        report["images"] = fitted.steps_taken * recipe["batch"]
        known = {"classes": facts["classes"], "settings": settings}
        save_tensors(cell.path("train", "model"), models.weights(model), known)
        _write_rows(cell, fitted, facts["classes"])
        epochs = fitted.steps_taken / (len(train) // recipe["batch"])
        work = {"steps_taken": fitted.steps_taken, "steps": fitted.steps, "rolled_back": fitted.rolled_back}
        work |= {"passes": _passes(params, cell, epochs, more, len(train)), "outcome": method.outcome()}
        info = {"cell": vars(cell), "settings": settings, "precision": precision, "verdict": _verdict(fitted)} | work
        files.write_json(cell.path("train", "info"), info)


def _passes(params: Params, cell: grid.Cell, epochs: float, pretrained: dict, images: int) -> float:
    """Forward and backward passes per image, over those of plain training; pretraining and purification count."""
    before = pretrained["pretraining_settings"]["pretraining"]["epochs"] * VIEWS if pretrained else 0
    if purification := params.named("methods", cell.method, "PurificationName"):
        before += cost.passes(params, "purifications", purification, images)
    own = epochs * cost.passes_per_step(params, cell.arch, cell.method)
    return (own + before) / params.recipe_of(cell.arch)["epochs"]


def _write_rows(cell: grid.Cell, fitted: Fitted, classes: list[str]) -> None:
    files.write_rows(cell.path("train", "history"), fitted.history)
    files.write_rows(cell.path("train", "probes"), fitted.probes, header=("steps_taken", "step", "stage"))
    embeddings = [row | {"label": classes[row["label"]]} for row in fitted.embeddings]
    files.write_rows(cell.path("train", "embeddings"), embeddings)


def _verdict(fitted: Fitted) -> dict:
    """What the last probe says, by the default limit, and the ACM of the middle layer group."""
    result = fitted.last_probe
    found, middle = judge(result), middle_group(result)
    accuracies = {"probe_accuracy": result.accuracy, "hidden_accuracy": result.hidden_accuracy}
    answer = {"verdict": found.answer, "reason": found.reason, "kept": found.kept}
    return {"group": middle, "acm": result.acm[middle]} | accuracies | answer
