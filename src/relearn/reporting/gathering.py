"""The records and histories of a grid's cells, and the refusal of those that do not belong to it. Needs no torch."""

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import files, structures
from relearn.runtime.hashing import settings_hash

#: percent; evaluate computes the accuracy again, and takes as much for the same, by the precision of training
TOLERANCES = {"float32": 0.05, "bfloat16": 0.5}


def without_record(params: Params) -> list[grid.Cell]:
    """The cells of the grid that have no record yet, in its order."""
    return [cell for cell in grid.cells(params) if not cell.path("evaluate", "record").exists()]


def records(params: Params, cells: list[grid.Cell]) -> dict[grid.Cell, dict]:
    """The record of each of these cells.

    Raises UserError for one that is missing or damaged, of another cell, or made with settings other than those of
    params.yaml.
    """
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
            f"{len(stale)} {were} made with other settings than params.yaml now has: {some(stale)}; "
            "delete their folders under results/runs and results/metrics, and their poisons, and run again"
        )
    return found


def row(cell: grid.Cell, record: dict) -> dict:
    """The row of a cell in records.csv."""
    return vars(cell) | _uses(record) | record["result"]


def epochs(cell: grid.Cell, record: dict) -> list[dict]:
    """The rows of a cell in histories.csv. Raises UserError when its history is missing, or not that of its record."""
    rows = files.read_rows(cell.path("train", "history"), structures.HISTORY)
    accuracies, result = [row["test_accuracy"] for row in rows], record["result"]
    tolerance = TOLERANCES[record["settings"]["compute"]["precision"]]
    same = abs(accuracies[-1] - result["accuracy"]) <= tolerance
    if not same or abs(max(accuracies) - result["oracle_accuracy"]) > TOLERANCES["float32"]:
        raise UserError(
            f"{cell.path('evaluate', 'record')} is not of the history beside the weights, which ends with "
            f"{accuracies[-1]:.2f} % and has {max(accuracies):.2f} % at best; delete it and run evaluate again"
        )
    return [vars(cell) | _uses(record) | row for row in rows]


def some(names: list[str], most: int = 5) -> str:
    """Names in a row, the first `most` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _uses(record: dict) -> dict:
    return {f"{kind}_use": record["settings"][kind]["use"] for kind in ("method", "poison")}
