"""aggregate: gather the records and histories of every cell of the grid, and refuse what does not belong to it."""

import pandas as pd

from relearn import grid, records
from relearn.errors import Fault
from relearn.params import Params


def run(params: Params) -> None:
    """Write records.csv (a row per cell), histories.csv (a row per cell and epoch) and metrics.json (means, for DVC).

    Raises Fault that names missing cells, or cells whose settings are not those of params.yaml.
    """
    cells = grid.cells(params)
    missing = [str(cell) for cell in cells if not grid.path("evaluate", "record", **vars(cell)).exists()]
    if missing:
        raise Fault(f"{len(missing)} of {len(cells)} cells have no record: {_some(missing)}; run: snakemake --cores 8")
    found = {cell: records.read_json(grid.path("evaluate", "record", **vars(cell))) for cell in cells}
    stale = [str(cell) for cell, record in found.items() if record.get("settings_hash") != _expected(params, cell)]
    if stale:
        raise Fault(
            f"{len(stale)} cells were made with other settings than params.yaml now has: {_some(stale)}; "
            "delete their folders under results/runs and results/metrics, and their poisons, and run again"
        )
    rows = [
        vars(cell) | {"method_use": record["settings"]["method"]["use"]} | record["result"]
        for cell, record in found.items()
    ]
    frame = pd.DataFrame(rows)
    histories = pd.concat(
        [
            pd.read_csv(records.existing(grid.path("train", "history", **vars(cell)))).assign(**vars(cell))
            for cell in cells
        ]
    )
    coords = list(vars(cells[0]))
    histories = histories[[*coords, *(name for name in histories.columns if name not in coords)]]
    for name, content in (("records", frame), ("histories", histories)):
        text = content.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        records.write_text(grid.path("aggregate", name), text)
    records.write_json(grid.path("aggregate", "metrics"), _means(frame))


def _expected(params: Params, cell: grid.Cell) -> str:
    return records.settings_hash(grid.settings(params, "train", **vars(cell)))


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _means(frame: pd.DataFrame) -> dict:
    """Mean accuracy, oracle accuracy and number of seeds, nested by data set, poison, architecture and method."""
    result: dict = {}
    for coords, group in frame.groupby(["dataset", "poison", "arch", "method"], sort=False):
        inner = result
        for name in coords:
            inner = inner.setdefault(name, {})
        inner |= {name: float(group[name].mean()) for name in ("accuracy", "oracle_accuracy")} | {"n": len(group)}
    return result
