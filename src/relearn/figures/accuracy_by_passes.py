"""What accuracy costs."""

import math

import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from relearn.registry import register
from relearn.reporting.rendering import colours, legend_handles, sections, styled
from relearn.reporting.summaries import blocks, groups, names, on_clean

COLUMNS = 4  #: at most so many panels side by side
HEADROOM = 1.15  #: the widest axis, over the most passes


@register
@styled
def accuracy_by_passes(records: pandas.DataFrame) -> Figure:
    """Clean test accuracy after the last epoch against passes: work in training, over that of erm; the mean of seeds.

    A panel per poison, and a section per dataset and architecture. A pretraining counts, crafting does not. A dotted
    line is erm on clean data.
    """
    palette = colours(names(records, "method"))
    panels = dict(blocks(records))
    most = max(block["poison"].nunique() for block in panels.values())
    columns = math.ceil(most / math.ceil(most / COLUMNS))
    rows = {title: math.ceil(block["poison"].nunique() / columns) for title, block in panels.items()}
    figure, parts = sections(
        {title: 0.7 + 1.6 * count for title, count in rows.items()}, width=max(4, 0.5 + 2.0 * columns)
    )
    for part, (title, block) in zip(parts, panels.items(), strict=True):
        axes = part.subplots(rows[title], columns, sharex=True, sharey=True, squeeze=False)
        means = groups(block, ["poison", "method"])[["passes", "accuracy"]].mean().reset_index()
        plain = block[on_clean(block) & (block["method_use"] == "erm") & (block["passes"] == 1)]["accuracy"].mean()
        poisons = names(block, "poison")
        for axis, poison in zip(axes.flat, poisons, strict=False):
            for row in means[means["poison"] == poison].itertuples():
                axis.plot(row.passes, row.accuracy, "o", color=palette[row.method], markersize=5, label=row.method)
            if pandas.notna(plain):
                axis.axhline(plain, color="0.35", linestyle=":", linewidth=1.1, label="erm on clean data")
            axis.set(ylim=(0, 100), xlim=(0, HEADROOM * means["passes"].max()))
            axis.set_title(poison)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axis in axes.flat[len(poisons) :]:
            axis.remove()
        part.supxlabel("passes over those of erm", fontsize=8)
        part.supylabel("test accuracy (%)", fontsize=8)
    handles = legend_handles(figure.axes)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2 * columns)
    return figure
