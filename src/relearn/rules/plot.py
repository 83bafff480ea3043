"""plot FIGURE: draw a figure of records, histories, images, or single runs."""

import pandas as pd

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.reporting import examples
from relearn.reporting.rendering import save_figure
from relearn.runtime import files, structures
from relearn.runtime.hashing import settings_hash


def run(params: Params, figure: str) -> None:
    """Write a figure as PNG and PDF; the positional arguments of its function say what it is given."""
    given = [GIVEN[name](params, figure, name) for name in params.entry("figures", figure).arguments]
    drawn = params.build("figures", figure, *given)
    for suffix in grid.RULES["plot"].outputs:
        save_figure(drawn, grid.path("plot", suffix, figure=figure))


def _gathered(params: Params, figure: str, name: str) -> pd.DataFrame:
    """Records (a row per cell) or histories (a row per cell and epoch) of the whole grid."""
    return pd.DataFrame(files.read_rows(grid.path("aggregate", name), GATHERED[name]))


def _runs(params: Params, figure: str, name: str) -> dict:
    """The train.json of every cell that the figure names. Raises UserError for one made with other settings."""
    found = {}
    for cell in grid.plotted_cells(params, figure):
        found[str(cell)] = files.read_json_of(vars(cell), cell.path("train", "info"), structures.TRAIN_INFO)
        expected = grid.settings(params, "train", cell=cell)
        if settings_hash(found[str(cell)]["settings"]) != settings_hash(expected):
            raise UserError(
                f"{cell} was made with other settings than params.yaml now has; "
                "delete its folder under results/runs and run again"
            )
    return found


def _joined(params: Params, figure: str, name: str) -> pd.DataFrame:
    """A CSV file of every cell that the figure names, one after the other; the column `cell` says whose a row is."""
    _runs(params, figure, name)  # raises for stale ones
    rows = [
        {"cell": str(cell)} | row
        for cell in grid.plotted_cells(params, figure)
        for row in files.read_rows(cell.path("train", name), JOINED[name], empty=name == "probes")
    ]
    return pd.DataFrame(rows, columns=None if rows else ["cell", *JOINED[name]])


def _examples(params: Params, figure: str, name: str) -> dict:
    """For each dataset and poison of the grid what `examples.of_poison` gives."""
    pairs = dict.fromkeys((cell.dataset, cell.poison) for cell in grid.cells(params))
    return {pair: examples.of_poison(params, *pair) for pair in pairs}


def _networks(params: Params, figure: str, name: str) -> dict:
    """Where the weights of every cell that the figure names are, and what it takes to build its network."""
    found = {}
    _runs(params, figure, name)  # raises for stale ones
    for cell in grid.plotted_cells(params, figure):
        method = params.build("methods", cell.method)
        method.at_stage(files.read_rows(cell.path("train", "history"), structures.HISTORY)[-1]["stage"])
        found[str(cell)] = {
            "cell": cell,
            "arch": params.architectures[cell.arch],
            "method": method,
            "classes": len(files.read_json(cell.path("prepare", "info"), structures.DATA_INFO)["classes"]),
            "threads": params.compute["threads"],
            "model": cell.path("train", "model"),
            "clean": cell.path("prepare", "train"),
            "poisoned": cell.path("poison", "train"),
        }
    return found


def _classes(params: Params, figure: str, name: str) -> dict[str, int]:
    """How many classes each dataset of the grid has."""
    found = {cell.dataset: cell.path("prepare", "info") for cell in grid.cells(params)}
    return {name: len(files.read_json(path, structures.DATA_INFO)["classes"]) for name, path in found.items()}


GATHERED = {"records": structures.RECORDS, "histories": structures.HISTORIES}
JOINED = {"probes": structures.PROBES, "embeddings": structures.EMBEDDINGS}
# What a figure may ask for, by the names of its arguments. The last four are of the cells that it names
# (`list[CellName]`).
GIVEN = {
    "records": _gathered,
    "histories": _gathered,
    "classes": _classes,
    "examples": _examples,
    "probes": _joined,
    "embeddings": _joined,
    "runs": _runs,
    "networks": _networks,
}
