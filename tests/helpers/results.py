"""Results of a small grid, as its jobs would have written them, without any training."""

from collections.abc import Iterable
from pathlib import Path

import torch

from helpers.images import drawn
from relearn import data, grid, params
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash

PARAMS = """\
compute: {threads: 1}
train: {epochs: 3, batch: 64}
datasets:
  digits: {copies: 1}
poisons:
  clean: {}
  lsp: {epsilon: 6}
  tap_4: {use: lsp, epsilon: 8}
architectures:
  cnn: {width: 4}
methods:
  erm: {}
  pst: {}
grid:
  main: {datasets: [digits], poisons: all, architectures: [cnn], methods: all, seeds: [0, 1]}
tables:
  accuracy: {}
  oracle: {}
  relative: {}
  clean_cost: {}
  summary: {}
  benchmark: {}
  paired: {}
figures:
  gallery: {}
"""
# accuracies after each epoch; by hand, of the last: lsp/erm 30.0 ± 2.8, lsp/pst 100.0 ± 0.0, tap_4/erm 9.5 ± 0.7,
# tap_4/pst 61.0 ± 1.4
CURVES = {
    ("clean", "erm"): [(50.0, 80.0, 91.0), (52.0, 82.0, 93.0)],
    ("clean", "pst"): [(50.0, 80.0, 90.0), (50.0, 80.0, 92.0)],
    ("lsp", "erm"): [(20.0, 35.0, 32.0), (20.0, 30.0, 28.0)],
    ("lsp", "pst"): [(40.0, 90.0, 100.0), (40.0, 90.0, 100.0)],
    ("tap_4", "erm"): [(30.0, 15.0, 10.0), (30.0, 15.0, 9.0)],
    ("tap_4", "pst"): [(30.0, 50.0, 60.0), (30.0, 50.0, 62.0)],
}
CLASSES = ["zero", "one", "two", "three"]


def make(classes: list[str] = CLASSES, text: str = PARAMS, skip: Iterable[str] = ()) -> list[grid.Cell]:
    """Write params.yaml and all results but those of the cells in `skip` to the current folder."""
    Path("params.yaml").write_text(text)
    checked = params.load()
    made = [cell for cell in grid.cells(checked) if str(cell) not in skip]
    images = torch.randint(60, 180, (12, 8, 8, 3), generator=drawn(1), dtype=torch.uint8)
    split = data.split(images, torch.arange(12) % len(classes))
    facts = {"classes": classes, "settings": grid.settings(checked, "prepare", dataset="digits")}
    for part in ("train", "test"):
        data.save_split(grid.path("prepare", part, dataset="digits"), split, facts)
    files.write_json(grid.path("prepare", "info", dataset="digits"), facts)
    for place, poison in enumerate(dict.fromkeys(cell.poison for cell in made)):
        _poison(checked, poison, split, 4 * place, classes)
    for cell in made:
        write_cell(checked, cell, CURVES[cell.poison, cell.method][cell.seed])
    return made


def write_cell(checked: params.Params, cell: grid.Cell, accuracies: Iterable[float]) -> None:
    """Write the record, the history and the run report of a cell with these accuracies after its epochs."""
    accuracies, settings = list(accuracies), grid.settings(checked, "train", cell=cell)
    best = max(accuracies)
    result = {"accuracy": accuracies[-1], "oracle_accuracy": best, "oracle_epoch": accuracies.index(best) + 1}
    result |= {"passes": 1.0, "acm": 0.5, "kept": 0.9 if cell.seed else None, "verdict": "cannot tell"}
    record = {"cell": vars(cell), "result": result, "settings": settings, "settings_hash": settings_hash(settings)}
    files.write_json(cell.path("evaluate", "record"), record)
    rows = [
        {"epoch": epoch, "step": epoch, "steps_taken": epoch, "stage": "early", "train_loss": 1.0}
        | {"train_accuracy": 50.0, "test_accuracy": accuracy, "probe_accuracy": 0.5, "hidden_accuracy": 0.5}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]
    files.write_rows(cell.path("train", "history"), rows)
    report = {"device": "cpu", "torch": "2.0", "commit": "c0ffee", "seconds": 1.0, "finished": 86_400 * cell.seed}
    files.write_json(grid.sidecar("train", "run.json", **vars(cell)), report)


def _poison(checked: params.Params, name: str, split: data.Split, levels: int, classes: list[str]) -> None:
    """Write a poison that makes the images brighter by so many levels (1/255)."""
    facts = {"classes": classes, "settings": grid.settings(checked, "poison", dataset="digits", poison=name)}
    brighter = split.with_images(split.images + levels)
    data.save_split(grid.path("poison", "train", dataset="digits", poison=name), brighter, facts)
    measured = {"linf_mean": float(levels), "l2_mean": 2.0, "l0_mean": 64.0}
    files.write_json(grid.path("poison", "info", dataset="digits", poison=name), {"measured": measured})
