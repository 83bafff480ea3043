"""plot FIGURE: draw a figure of records, histories, images, or single runs."""

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.reporting.rendering import save_figure
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash


def run(params: Params, figure: str) -> None:
    """Write a figure as PNG and PDF; the positional arguments of its function say what it is given."""
    given = [GIVEN[name](params, figure, name) for name in params.entry("figures", figure).arguments]
    drawn = params.build("figures", figure, *given)
    for suffix in grid.RULES["plot"].outputs:
        save_figure(drawn, grid.path("plot", suffix, figure=figure))


def _gathered(params: Params, figure: str, name: str) -> pd.DataFrame:
    """Records (a row per cell) or histories (a row per cell and epoch) of the whole grid."""
    return pd.read_csv(files.existing(grid.path("aggregate", name)))


def _runs(params: Params, figure: str, name: str) -> dict:
    """The train.json of every cell that the figure names. Raises UserError for one made with other settings."""
    found = {}
    for cell in grid.plotted_cells(params, figure):
        found[str(cell)] = files.read_json(cell.path("train", "info"))
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
    cells = grid.plotted_cells(params, figure)
    found = {str(cell): pd.read_csv(files.existing(cell.path("train", name))) for cell in cells}
    return pd.concat(found, names=["cell", None]).reset_index("cell")


def _examples(params: Params, figure: str, name: str) -> dict:
    """For each dataset and poison the first training image of each class (ten at most), clean and poisoned."""
    examples: dict = {}
    for cell in grid.cells(params):
        if (cell.dataset, cell.poison) in examples:
            continue
        clean, poisoned = cell.path("prepare", "train"), cell.path("poison", "train")
        _, rows = np.unique(_read(clean, "labels"), return_index=True)
        rows = rows[:10]
        images = {"clean": _read(clean, "images", rows), "poisoned": _read(poisoned, "images", rows)}
        names = files.read_json(cell.path("prepare", "info"))["classes"]
        examples[cell.dataset, cell.poison] = images | {"labels": names[: len(rows)]}
    return examples


def _read(path: Path, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    """A tensor of a safetensors file, or only these rows of it, without torch. Raises UserError for a corrupt file."""
    try:
        with safe_open(files.existing(path), framework="numpy") as file:
            if rows is None:
                return file.get_tensor(name)
            part = file.get_slice(name)
            return np.concatenate([part[int(row) : int(row) + 1] for row in rows])
    except SafetensorError as error:
        raise UserError(f"{path} is corrupt or not written by relearn ({error}); delete it and run again") from None


# What a figure may ask for, by the names of its arguments. The last three are of the cells it names (`list[CellName]`).
GIVEN = {
    "records": _gathered,
    "histories": _gathered,
    "examples": _examples,
    "probes": _joined,
    "embeddings": _joined,
    "runs": _runs,
}
