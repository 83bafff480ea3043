"""aggregate: gather the records and histories of every cell of the grid, and refuse those that do not belong to it."""

import pandas as pd

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.reporting import seconds
from relearn.reporting.rendering import render
from relearn.runtime import files, structures
from relearn.runtime.hashing import settings_hash

TOLERANCE = 0.05  # percent; evaluate computes the accuracy again, and takes as much for the same


def run(params: Params) -> None:
    """Write records.csv (a row per cell), histories.csv (a row per cell and epoch) and metrics.json (means, for DVC).

    Beside them aggregate.seconds.csv and .md say what methods cost in seconds, as far as runs were made here; no engine
    tracks these, since they are not the same twice.
    Raises UserError that names missing cells, or cells whose settings are not those of params.yaml; and for a record
    that is of another cell, or does not fit the history of its run.
    """
    cells = grid.cells(params)
    missing = [str(cell) for cell in cells if not cell.path("evaluate", "record").exists()]
    if missing:
        count = f"{len(missing)} of {len(cells)} cells"
        raise UserError(f"{count} have no record: {_some(missing)}; run: snakemake --cores 8")
    found = {cell: files.read_json_of(vars(cell), cell.path("evaluate", "record"), structures.RECORD) for cell in cells}
    expected = {cell: settings_hash(grid.settings(params, "train", cell=cell)) for cell in cells}
    stale = [
        str(cell)
        for cell, record in found.items()
        if {record["settings_hash"], settings_hash(record["settings"])} != {expected[cell]}
    ]
    if stale:
        were = "cell was" if len(stale) == 1 else "cells were"
        raise UserError(
            f"{len(stale)} {were} made with other settings than params.yaml now has: {_some(stale)}; "
            "delete their folders under results/runs and results/metrics, and their poisons, and run again"
        )
    rows, epochs = [], []
    for cell, record in found.items():
        uses = {f"{kind}_use": record["settings"][kind]["use"] for kind in ("method", "poison")}
        rows.append(vars(cell) | uses | record["result"])
        epochs += [vars(cell) | uses | row for row in _history(cell, record["result"])]
    records, histories = pd.DataFrame(rows), pd.DataFrame(epochs)
    for name, frame in (("records", records), ("histories", histories)):
        text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        files.write_text(grid.path("aggregate", name), text)
    files.write_json(grid.path("aggregate", "metrics"), _means(records))
    _write_seconds(params, cells, records)


def _write_seconds(params: Params, cells: list[grid.Cell], records: pd.DataFrame) -> None:
    """Write what methods cost in seconds; nothing, and no old file either, where no run was made here."""
    runs = []
    for cell, (_, row) in zip(cells, records.iterrows(), strict=True):
        before = grid.pretrained(params, cell)
        reports = [grid.sidecar("train", "run.json", **vars(cell))]
        reports += [grid.sidecar("pretrain", "run.json", **before)] if before else []
        found = seconds.of_run(reports)
        runs += [row.to_dict() | found] if found else []
    table = render(seconds.of_methods(pd.DataFrame(runs))) if runs else {}
    for suffix in ("csv", "md"):
        path = grid.sidecar("aggregate", f"seconds.{suffix}")
        if suffix in table:
            files.write_text(path, table[suffix])
        else:
            path.unlink(missing_ok=True)


def _history(cell: grid.Cell, result: dict) -> list[dict]:
    """The history of a cell. Raises UserError when it is not that of its record."""
    rows = files.read_rows(cell.path("train", "history"), structures.HISTORY)
    accuracies = [row["test_accuracy"] for row in rows]
    same = abs(accuracies[-1] - result["accuracy"]) <= TOLERANCE
    if not same or abs(max(accuracies) - result["oracle_accuracy"]) > TOLERANCE:
        raise UserError(
            f"{cell.path('evaluate', 'record')} is not of the history beside the weights, which ends with "
            f"{accuracies[-1]:.2f} % and has {max(accuracies):.2f} % at best; delete it and run evaluate again"
        )
    return rows


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _means(records: pd.DataFrame) -> dict:
    """Mean accuracy, oracle accuracy and number of seeds, nested by dataset, poison, architecture and method."""
    result: dict = {}
    for names, group in records.groupby(["dataset", "poison", "arch", "method"], sort=False):
        inner = result
        for name in names:
            inner = inner.setdefault(name, {})
        inner |= {name: float(group[name].mean()) for name in ("accuracy", "oracle_accuracy")} | {"n": len(group)}
    return result
