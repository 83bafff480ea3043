"""What accuracy costs."""

import math

import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from relearn.registry import register
from relearn.reporting.rendering import PAPER, grid_of_panels, legend_handles, looks, sections, styled, tidy
from relearn.reporting.summaries import blocks, by_erm, clean_once, groups, names

COLUMNS = 4  #: at most so many panels side by side
HEADROOM = 1.15  #: the widest axis, over the most passes


@register
@styled
def accuracy_by_passes(records: pandas.DataFrame) -> Figure:
    """Clean test accuracy after the last epoch against passes: work in training, over that of erm; the mean of seeds.

    A panel per poison, and a section per dataset and architecture. A pretraining counts, crafting does not. A dotted
    line is erm on clean data.
    """
    styles = looks(names(records, "method"))
    panels = dict(blocks(records.assign(plain=by_erm(records))))  # of all, since a block alone does not tell
    counts = {title: block["poison"].nunique() for title, block in panels.items()}
    columns = grid_of_panels(counts.values(), COLUMNS)
    rows = {title: math.ceil(count / columns) for title, count in counts.items()}
    figure, parts = sections(
        {title: 0.6 + 1.3 * count for title, count in rows.items()}, width=min(PAPER, max(4, 0.5 + 2.0 * columns))
    )
    for part, (title, block) in zip(parts, panels.items(), strict=True):
        axes = part.subplots(rows[title], columns, sharex=True, sharey=True, squeeze=False)
        means = groups(block, ["poison", "method"])[["passes", "accuracy"]].mean().reset_index()
        plain = clean_once(block[block["plain"]])["accuracy"].mean()
        poisons = names(block, "poison")
        for axis, poison in zip(axes.flat, poisons, strict=False):
            for row in means[means["poison"] == poison].itertuples():
                style = {key: styles[row.method][key] for key in ("color", "marker")}
                # see-through, so that one point does not hide another
                axis.plot(row.passes, row.accuracy, linestyle="", markersize=5, alpha=0.8, label=row.method, **style)
            if pandas.notna(plain):
                axis.axhline(plain, color="0.35", linestyle=":", linewidth=1.1, label="erm on clean data")
            axis.set(ylim=(0, 100), xlim=(0, HEADROOM * means["passes"].max()))
            axis.set_title(poison)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        tidy(axes, len(poisons))
        part.supxlabel("passes over those of erm", fontsize=8)
        part.supylabel("test accuracy (%)", fontsize=8)
    handles = legend_handles(figure.axes)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns + 2)
    return figure
