"""plot FIGURE: draw a figure of records, histories or images."""

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
    given = [_examples(params) if name == "examples" else pd.read_csv(records.existing(grid.path("aggregate", name))) for name in entry.arguments]
    drawn = registry.load("figures", entry.name)(*given, **params.settings("figures", figure))
    for suffix in grid.STEPS["plot"].outputs:
        save_figure(drawn, grid.path("plot", suffix, figure=figure))


def _examples(params: Params) -> dict:
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
