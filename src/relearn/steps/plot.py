"""plot FIGURE: draw a figure of records, histories or images."""

import numpy as np
import pandas as pd
from safetensors import safe_open

from relearn import grid, records, registry
from relearn.params import Params
from relearn.rendering import save_figure


def run(params: Params, figure: str) -> None:
    """Write a figure as PNG and PDF; the function's positional arguments say what it is given."""
    entry = params.entry("figures", figure)
    given = [_examples(params) if name == "examples" else pd.read_csv(grid.path("aggregate", name)) for name in entry.arguments]
    drawn = registry.load("figures", entry.name)(*given, **params.settings("figures", figure))
    for suffix in grid.STEPS["plot"].outputs:
        save_figure(drawn, grid.path("plot", suffix, figure=figure))


def _examples(params: Params) -> dict:
    """For each data set and poison of the grid the first training image of each class (ten at most), clean and poisoned."""
    examples = {}
    for cell in grid.cells(params):
        if (cell.dataset, cell.poison) in examples:
            continue
        with safe_open(grid.path("prepare", "train", dataset=cell.dataset), framework="numpy") as file:
            _, rows = np.unique(file.get_tensor("labels"), return_index=True)
            rows = rows[:10]
            clean = file.get_slice("images")
            clean = np.concatenate([clean[int(row) : int(row) + 1] for row in rows])
        with safe_open(grid.path("poison", "train", dataset=cell.dataset, poison=cell.poison), framework="numpy") as file:
            images = file.get_slice("images")
            poisoned = np.concatenate([images[int(row) : int(row) + 1] for row in rows])
        names = records.read_json(grid.path("prepare", "info", dataset=cell.dataset))["classes"]
        examples[cell.dataset, cell.poison] = {"clean": clean, "poisoned": poisoned, "labels": names[: len(rows)]}
    return examples
