"""All results at a glance."""

import fnmatch
import math
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from relearn.errors import UserError
from relearn.registry import register
from relearn.reporting.rendering import PAPER, readable_on, styled
from relearn.reporting.summaries import BLOCK, blocks, clean_reference, groups, mean_sd, names

COLOURS = "YlGnBu"  # from pale to dark, for colour-blind readers and in print too
GAP = 0.35  # of a row, above the poisons that stand apart
STEP = 10  # percent; the scale ends at multiples of it


@register
@styled
def accuracy_matrix(
    records: pandas.DataFrame,
    *,
    relative: bool = False,
    apart: list[str] = ["*_adaptive"],  # noqa: B006, read, never changed; defaults must be literals
) -> Figure:
    """Heat map of clean test accuracy after the last epoch, poisons by methods, with mean ± sd in each cell.

    `relative` gives it in percent of erm on clean data, the mean of its seeds; then only what has that is drawn.
    Poisons whose name matches a pattern of `apart` stand below the others. A panel per dataset and architecture; all
    share one scale, from the lowest to the highest value, and one size of cell. Raises UserError for `relative` without
    any erm on clean data.
    """
    frame = _of_clean(records) if relative else records.assign(value=records["accuracy"])
    panels = dict(blocks(frame))
    order = {title: _rows(names(block, "poison"), apart) for title, block in panels.items()}
    tall = [max(places.values()) + 1 for places in order.values()]
    widest = max(block["method"].nunique() for block in panels.values())
    cell = max(0.42, min(0.62, (PAPER - 2) / widest))  # narrower, its numbers would touch
    # One inch is for the names of the poisons, one for the scale; a panel needs half an inch for its names and title.
    size = (2 + cell * widest, max(1.5, sum(0.65 + 0.34 * count for count in tall)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=tall, squeeze=False)[:, 0]
    means = [groups(block, ["poison", "method"])["value"].mean() for block in panels.values()]
    low = STEP * math.floor(min(values.min() for values in means) / STEP)
    high = max(low + STEP, STEP * math.ceil(max(values.max() for values in means) / STEP))
    look = {"cmap": COLOURS, "vmin": low, "vmax": high, "edgecolor": "white", "linewidth": 1}
    for axis, (title, block) in zip(axes, panels.items(), strict=True):
        mesh = _panel(axis, block, order[title], look)
        axis.set(xlim=(0, widest))
        axis.set_title(title, fontweight="bold")
    label = "accuracy (% of erm on clean data)" if relative else "accuracy (%)"
    bar = figure.colorbar(mesh, ax=list(axes), shrink=min(1, 2 / size[1]), aspect=15, label=label)
    bar.outline.set_visible(False)
    return figure


def _of_clean(records: pandas.DataFrame) -> pandas.DataFrame:
    """The records whose dataset and architecture have erm on clean data; `value` is their accuracy in percent of it."""
    found = records.join(clean_reference(records), on=BLOCK)
    found = found[found["clean"].notna()]
    if found.empty:
        raise UserError(
            "accuracy_matrix: relative needs plain training on clean data, and the grid has none; "
            "add 'clean' and 'erm' to it, or leave relative out"
        )
    return found.assign(value=100 * found["accuracy"] / found["clean"])


def _rows(poisons: list[str], apart: list[str]) -> dict[str, float]:
    """Where each row begins, from the top: first the others, then after a gap those that match a pattern."""
    below = [name for name in poisons if any(fnmatch.fnmatchcase(name, pattern) for pattern in apart)]
    above = [name for name in poisons if name not in below]
    gap = GAP if above and below else 0
    return {name: place + gap * (place >= len(above)) for place, name in enumerate([*above, *below])}


def _panel(axis: Axes, block: pandas.DataFrame, rows: dict[str, float], look: dict[str, Any]) -> QuadMesh:
    """Draw one heat map and return its coloured mesh."""
    cells = groups(block, ["poison", "method"])["value"]
    means = cells.mean().unstack("method").loc[list(rows)]
    columns = list(means.columns)
    for (poison, top), values in zip(rows.items(), means.to_numpy(), strict=True):
        mesh = axis.pcolormesh(numpy.arange(len(columns) + 1), [top, top + 1], values[None], **look)
        for method, text in cells.apply(mean_sd).loc[poison].items():
            colour = readable_on(mesh.cmap(mesh.norm(means.loc[poison, method])))
            where = (columns.index(method) + 0.5, top + 0.5)
            words = text.replace(" ± ", "\n± ")
            axis.text(*where, words, ha="center", va="center", fontsize=6.5, linespacing=1.1, color=colour)
    axis.set_ylim(max(rows.values()) + 1, 0)
    axis.set_xticks(numpy.arange(len(columns)) + 0.5, columns, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks([top + 0.5 for top in rows.values()], list(rows))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return mesh
