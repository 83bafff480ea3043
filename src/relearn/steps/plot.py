"""plot FIGURE: draw a figure of records, histories, images, or single runs."""

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from relearn import grid, records, registry
from relearn.errors import Fault
from relearn.params import Params
from relearn.rendering import save_figure


def run(params: Params, figure: str) -> None:
    """Write a figure as PNG and PDF; the function's positional arguments say what it is given."""
    entry = params.entry("figures", figure)
    given = [GIVEN[name](params, figure, name) for name in entry.arguments]
    drawn = registry.load("figures", entry.name)(*given, **params.settings("figures", figure))
    for suffix in grid.STEPS["plot"].outputs:
        save_figure(drawn, grid.path("plot", suffix, figure=figure))


def _gathered(params: Params, figure: str, name: str) -> pd.DataFrame:
    """Records (a row per cell) or histories (a row per cell and epoch) of the whole grid."""
    return pd.read_csv(records.existing(grid.path("aggregate", name)))


def _runs(params: Params, figure: str, name: str) -> dict:
    """The train.json of every cell the figure names. Raises Fault for one made with other settings than those of params.yaml."""
    found = {}
    for cell in grid.drawn_cells(params, figure):
        found[str(cell)] = records.read_json(grid.path("train", "info", **vars(cell)))
        expected = grid.settings(params, "train", **vars(cell))
        if records.settings_hash(found[str(cell)]["settings"]) != records.settings_hash(expected):
            raise Fault(
                f"{cell} was made with other settings than params.yaml now has; delete its folder under results/runs and run again"
            )
    return found


def _joined(params: Params, figure: str, name: str) -> pd.DataFrame:
    """A CSV file of every cell the figure names, one below the other; the column `cell` says whose a row is."""
    found = {
        cell: pd.read_csv(records.existing(grid.path("train", name, **vars(grid.cell(cell)))))
        for cell in _runs(params, figure, name)
    }
    return pd.concat(found, names=["cell", None]).reset_index("cell")


def _examples(params: Params, figure: str, name: str) -> dict:
    """For each data set and poison of the grid the first training image of each class (ten at most), clean and poisoned."""
    examples = {}
    for cell in grid.cells(params):
        coords = {"dataset": cell.dataset, "poison": cell.poison}
        if (cell.dataset, cell.poison) in examples:
            continue
        clean, poisoned = grid.path("prepare", "train", dataset=cell.dataset), grid.path("poison", "train", **coords)
        _, rows = np.unique(_read(clean, "labels"), return_index=True)
        rows = rows[:10]
        images = {"clean": _read(clean, "images", rows), "poisoned": _read(poisoned, "images", rows)}
        names = records.read_json(grid.path("prepare", "info", dataset=cell.dataset))["classes"]
        examples[cell.dataset, cell.poison] = images | {"labels": names[: len(rows)]}
    return examples


def _read(path, name: str, rows=None) -> np.ndarray:
    """A tensor of a safetensors file, or only these rows of it, without torch. Raises Fault for a missing or broken file."""
    try:
        with safe_open(records.existing(path), framework="numpy") as file:
            if rows is None:
                return file.get_tensor(name)
            part = file.get_slice(name)
            return np.concatenate([part[int(row) : int(row) + 1] for row in rows])
    except SafetensorError as error:
        raise Fault(f"{path} is broken or not ours ({error}); delete it and run again") from None


# What a figure may ask for, by the names of its arguments. The last three are of the cells it names (`list[CellName]`) only.
GIVEN = {
    "records": _gathered,
    "histories": _gathered,
    "examples": _examples,
    "ticks": _joined,
    "embeddings": _joined,
    "runs": _runs,
}
