"""The trap over time."""

import math

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.registry import register
from relearn.reporting.rendering import colours, legend_handles, sections, styled
from relearn.reporting.summaries import blocks, by_erm, names, on_clean, present_methods, value_range

COLUMNS = 4  #: at most so many panels side by side


@register
@styled
def trap_curves(
    histories: pandas.DataFrame,
    *,
    methods: list[str] = ["erm", "pst"],  # noqa: B006, read, never changed; defaults must be literals
) -> Figure:
    """Clean test accuracy over epochs: the mean of the seeds, and a band from the lowest to the highest.

    A panel per poison. A dotted line repeats erm on clean data in every panel. A section per dataset and architecture.
    Raises UserError when the grid has none of `methods`.
    """
    methods = present_methods(histories, methods)
    histories = histories.assign(reference=on_clean(histories) & by_erm(histories))
    palette = colours(names(histories, "method"))  # by all methods, so that a subset keeps its colours
    panels = dict(blocks(histories[histories["method"].isin(methods)]))
    clean = {title: _clean(block) for title, block in blocks(histories)}
    most = max(block["poison"].nunique() for block in panels.values())
    columns = math.ceil(most / math.ceil(most / COLUMNS))  # the narrowest that needs no more rows
    rows = {title: math.ceil(block["poison"].nunique() / columns) for title, block in panels.items()}
    figure, parts = sections(
        {title: 0.7 + 1.7 * count for title, count in rows.items()}, width=max(4, 0.5 + 2.2 * columns)
    )
    for part, (title, block) in zip(parts, panels.items(), strict=True):
        axes = part.subplots(rows[title], columns, sharex=True, sharey=True, squeeze=False)
        for axis, poison in zip(axes.flat, names(block, "poison"), strict=False):
            _panel(axis, block[block["poison"] == poison], palette)
            if len(clean[title]):
                axis.plot(clean[title], color="0.35", linestyle=":", linewidth=1.1, label="erm on clean data")
            axis.set(ylim=(0, 100))
            axis.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axes, block["poison"].nunique())
        part.supxlabel("epoch", fontsize=8)
        part.supylabel("test accuracy (%)", fontsize=8)
    handles = legend_handles(figure.axes)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2 * columns + 1)
    return figure


def _clean(block: pandas.DataFrame) -> pandas.Series:
    """Mean test accuracy per epoch of erm on clean data; empty where the grid has no such cell."""
    return block[block["reference"]].groupby("epoch")["test_accuracy"].mean()


def _panel(axis: Axes, rows: pandas.DataFrame, palette: dict[str, str]) -> None:
    """Draw the curves of one poison."""
    for method in names(rows, "method"):
        epochs = rows[rows["method"] == method].groupby("epoch")["test_accuracy"]
        axis.fill_between(
            epochs.mean().index, epochs.min(), epochs.max(), color=palette[method], alpha=0.2, linewidth=0
        )
        axis.plot(epochs.mean(), color=palette[method], label=method)
    seeds = rows.groupby("method")["seed"].nunique()
    axis.set_title(f"{rows['poison'].iloc[0]} (n = {value_range(seeds)})")


def _tidy(axes: numpy.ndarray, used: int) -> None:
    """Remove the panels after the first `used`, and number the epochs of those above a removed one."""
    for axis in axes.flat[used:]:
        axis.remove()
    for axis in axes.flat[max(0, used - axes.shape[1]) : used]:
        axis.tick_params(labelbottom=True)
