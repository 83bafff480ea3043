"""aggregate: gather the records and histories of every cell of the grid, and refuse those that do not belong to it."""

import pandas as pd

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.reporting import gathering, seconds
from relearn.reporting.rendering import render
from relearn.reporting.summaries import by_erm
from relearn.runtime import files


def run(params: Params) -> None:
    """Write records.csv (a row per cell), histories.csv (a row per cell and epoch) and metrics.json (means, for DVC).

    Beside them aggregate.seconds.csv and .md say what methods cost in seconds, as far as runs were made here; no engine
    tracks these, since they are not the same twice.
    Raises UserError that names missing cells, or cells whose settings are not those of params.yaml; and for a record
    that is of another cell, or does not fit the history of its run.
    """
    cells = grid.cells(params)
    missing = [str(cell) for cell in gathering.without_record(params)]
    if missing:
        count = f"{len(missing)} of {len(cells)} cells"
        raise UserError(f"{count} have no record: {gathering.some(missing)}; run: snakemake --cores 8")
    found = gathering.records(params, cells)
    rows = [gathering.row(cell, record) for cell, record in found.items()]
    epochs = [row for cell, record in found.items() for row in gathering.epochs(cell, record)]
    records, histories = pd.DataFrame(rows), pd.DataFrame(epochs)
    for name, frame in (("records", records), ("histories", histories)):
        text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        files.write_text(grid.path("aggregate", name), text)
    files.write_json(grid.path("aggregate", "metrics"), _means(records))
    _write_seconds(params, cells, records)


def _write_seconds(params: Params, cells: list[grid.Cell], records: pd.DataFrame) -> None:
    """Write what methods cost in seconds; nothing, and no old file either, where no run was made here."""
    runs = []
    records = records.assign(plain=by_erm(records))  # of all, since plain training may not have run here
    for cell, (_, row) in zip(cells, records.iterrows(), strict=True):
        before = grid.pretrained(params, cell)
        rule, made = grid.trained_on(params, cell)
        reports = [grid.sidecar("train", "run.json", **vars(cell))]
        reports += [grid.sidecar("pretrain", "run.json", **before)] if before else []
        reports += [grid.sidecar("purify", "run.json", **made)] if rule == "purify" else []
        found = seconds.of_run(reports)
        runs += [row.to_dict() | found] if found else []
    table = render(seconds.of_methods(pd.DataFrame(runs))) if runs else {}
    for suffix in ("csv", "md"):
        path = grid.sidecar("aggregate", f"seconds.{suffix}")
        if suffix in table:
            files.write_text(path, table[suffix])
        else:
            path.unlink(missing_ok=True)


def _means(records: pd.DataFrame) -> dict:
    """Mean accuracy, oracle accuracy and number of seeds, nested by dataset, poison, architecture and method."""
    result: dict = {}
    for names, group in records.groupby(["dataset", "poison", "arch", "method"], sort=False):
        inner = result
        for name in names:
            inner = inner.setdefault(name, {})
        inner |= {name: float(group[name].mean()) for name in ("accuracy", "oracle_accuracy")} | {"n": len(group)}
    return result
