"""All results at a glance."""

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from relearn.registry import register
from relearn.reporting.rendering import styled
from relearn.reporting.summaries import blocks, groups, mean_sd


@register
@styled
def accuracy_matrix(records: pandas.DataFrame) -> Figure:
    """Heat map of clean test accuracy after the last epoch, poisons by methods, with mean ± sd in each cell.

    A panel per dataset and architecture; all share one scale, 0 to 100 percent, and one size of cell.
    """
    panels = dict(blocks(records))
    rows = [block["poison"].nunique() for block in panels.values()]
    widest = max(block["method"].nunique() for block in panels.values())
    # One inch is for the names of the poisons, one for the scale; a panel needs half an inch for its names and title.
    size = (2 + 0.62 * widest, max(1.5, sum(0.65 + 0.36 * count for count in rows)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=rows, squeeze=False)[:, 0]
    for axis, (title, block) in zip(axes, panels.items(), strict=True):
        mesh = _panel(axis, block)
        axis.set(xlim=(0, widest))
        axis.set_title(title, fontweight="bold")
    bar = figure.colorbar(mesh, ax=list(axes), shrink=min(1, 2 / size[1]), aspect=15, label="accuracy (%)")
    bar.outline.set_visible(False)
    return figure


def _panel(axis: Axes, block: pandas.DataFrame) -> QuadMesh:
    """Draw one heat map and return its coloured mesh."""
    cells = groups(block, ["poison", "method"])["accuracy"]
    means = cells.mean().unstack("method")
    mesh = axis.pcolormesh(means.to_numpy(), cmap="Blues", vmin=0, vmax=100, edgecolor="white", linewidth=1)
    axis.invert_yaxis()
    for (poison, method), text in cells.apply(mean_sd).items():
        x, y = means.columns.get_loc(method) + 0.5, means.index.get_loc(poison) + 0.5
        colour = "white" if means.loc[poison, method] > 60 else "black"
        axis.text(
            x, y, text.replace(" ± ", "\n± "), ha="center", va="center", fontsize=6.5, linespacing=1.1, color=colour
        )
    axis.set_xticks(
        numpy.arange(means.shape[1]) + 0.5, list(means.columns), rotation=30, ha="right", rotation_mode="anchor"
    )
    axis.set_yticks(numpy.arange(means.shape[0]) + 0.5, list(means.index))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return mesh
