"""aggregate: gather the records and histories of every cell of the grid, and refuse those that do not belong to it."""

import pandas as pd

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash


def run(params: Params) -> None:
    """Write records.csv (a row per cell), histories.csv (a row per cell and epoch) and metrics.json (means, for DVC).

    Raises UserError that names missing cells, or cells whose settings are not those of params.yaml.
    """
    cells = grid.cells(params)
    missing = [str(cell) for cell in cells if not cell.path("evaluate", "record").exists()]
    if missing:
        count = f"{len(missing)} of {len(cells)} cells"
        raise UserError(f"{count} have no record: {_some(missing)}; run: snakemake --cores 8")
    found = {cell: files.read_json(cell.path("evaluate", "record")) for cell in cells}
    stale = [
        str(cell)
        for cell, record in found.items()
        if record.get("settings_hash") != settings_hash(grid.settings(params, "train", cell=cell))
    ]
    if stale:
        raise UserError(
            f"{len(stale)} cells were made with other settings than params.yaml now has: {_some(stale)}; "
            "delete their folders under results/runs and results/metrics, and their poisons, and run again"
        )
    rows = [
        vars(cell) | {"method_use": record["settings"]["method"]["use"]} | record["result"]
        for cell, record in found.items()
    ]
    records = pd.DataFrame(rows)
    histories = pd.concat(
        [pd.read_csv(files.existing(cell.path("train", "history"))).assign(**vars(cell)) for cell in cells]
    )
    names = list(vars(cells[0]))
    histories = histories[[*names, *(column for column in histories.columns if column not in names)]]
    for name, frame in (("records", records), ("histories", histories)):
        text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        files.write_text(grid.path("aggregate", name), text)
    files.write_json(grid.path("aggregate", "metrics"), _means(records))


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
