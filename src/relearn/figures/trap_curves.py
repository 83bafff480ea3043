"""The trap over time."""

import math
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from relearn.registry import register
from relearn.reporting.rendering import PAPER, grid_of_panels, looks, sections, styled, tidy
from relearn.reporting.summaries import blocks, by_erm, clean_once, names, on_clean, only, value_range

COLUMNS = 4  #: at most so many panels side by side
DASH = 2.5  # widths of a line, of each piece of a curve that others equal
REFERENCE: dict[str, Any] = {"color": "0.35", "linestyle": ":", "linewidth": 1.1, "label": "erm on clean data"}
CHANCE: dict[str, Any] = {"color": "0.6", "linestyle": "-", "linewidth": 0.6, "label": "chance"}
TWO: dict[str, Any] = {"color": "0.1", "gapcolor": "0.65", "linestyle": (0, (DASH, DASH)), "label": "equal curves"}


@register
@styled
def trap_curves(histories: pandas.DataFrame, classes: dict, *, methods: list[str] | None = None) -> Figure:
    """Clean test accuracy over epochs: the mean of the seeds, and a band from the lowest to the highest.

    A panel per poison, a section per dataset and architecture. `methods` are those to draw (null: all). Curves that are
    equal take turns, piece by piece. A dotted line repeats erm on clean data in every panel, a thin one is chance, one
    over the number of classes. Raises UserError for methods that the grid does not have.
    """
    every = names(histories, "method")
    histories = histories.assign(reference=on_clean(histories) & by_erm(histories))
    styles = looks(every)  # by all methods, so that a subset keeps its colours
    panels = dict(blocks(only(histories, "method", methods)))
    clean = {title: _clean(block) for title, block in blocks(histories)}
    counts = {title: block["poison"].nunique() for title, block in panels.items()}
    columns = grid_of_panels(counts.values(), COLUMNS)
    rows = {title: math.ceil(count / columns) for title, count in counts.items()}
    figure, parts = sections(
        {title: 0.6 + 1.3 * count for title, count in rows.items()}, width=min(PAPER, max(4, 0.5 + 2.2 * columns))
    )
    equal = False
    for part, (title, block) in zip(parts, panels.items(), strict=True):
        axes = part.subplots(rows[title], columns, sharex=True, sharey=True, squeeze=False)
        for axis, poison in zip(axes.flat, names(block, "poison"), strict=False):
            equal |= _panel(axis, block[block["poison"] == poison], styles)
            _lines(axis, clean[title], classes.get(block["dataset"].iloc[0]))
        tidy(axes, counts[title])
        part.supxlabel("epoch", fontsize=8)
        part.supylabel("test accuracy (%)", fontsize=8)
    drawn = {label for axis in figure.axes for label in axis.get_legend_handles_labels()[1]}
    handles = [Line2D([], [], **_line(styles[name]), label=name) for name in every if name in drawn]
    handles += [Line2D([], [], **line) for line in (REFERENCE, CHANCE) if line["label"] in drawn]
    handles += [Line2D([], [], **TWO)] if equal else []
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), columns + 2))
    return figure


def _clean(block: pandas.DataFrame) -> pandas.Series:
    """Mean test accuracy per epoch of erm on clean data; empty where the grid has no such cell."""
    return clean_once(block[block["reference"]]).groupby("epoch")["test_accuracy"].mean()


def _panel(axis: Axes, rows: pandas.DataFrame, styles: dict[str, dict]) -> bool:
    """Draw the curves of one poison; True if some of them are equal."""
    methods = names(rows, "method")
    epochs = {method: rows[rows["method"] == method].groupby("epoch")["test_accuracy"] for method in methods}
    means = {method: epochs[method].mean() for method in methods}
    alike = {method: [other for other in methods if _equal(means[method], means[other])] for method in methods}
    for method in methods:
        line, same = _line(styles[method]), alike[method]
        if len(same) > 1:  # pieces in turn, each curve's in the gaps of the others
            line["linestyle"] = (DASH * same.index(method), (DASH, DASH * (len(same) - 1)))
        low, high = epochs[method].min(), epochs[method].max()
        axis.fill_between(means[method].index, low, high, color=line["color"], alpha=0.2, linewidth=0)
        axis.plot(means[method], label=method, **line)
    seeds = rows.groupby("method")["seed"].nunique()
    axis.set_title(f"{rows['poison'].iloc[0]} (n = {value_range(seeds)})")
    return any(len(same) > 1 for same in alike.values())


def _equal(one: pandas.Series, other: pandas.Series) -> bool:
    return one.index.equals(other.index) and bool(numpy.allclose(one, other, rtol=0, atol=1e-6))


def _line(style: dict) -> dict[str, Any]:
    """Colour and line of a method, without its marker."""
    return {key: style[key] for key in ("color", "linestyle")}


def _lines(axis: Axes, clean: pandas.Series, classes: int | None) -> None:
    """Draw what every panel repeats, and set its scales."""
    if len(clean):
        axis.plot(clean, zorder=1.5, **REFERENCE)
    if classes:
        axis.axhline(100 / classes, zorder=0, **CHANCE)
    axis.set(ylim=(0, 100))
    axis.locator_params(axis="x", integer=True)
