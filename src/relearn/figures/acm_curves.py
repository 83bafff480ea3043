"""How the trap shows inside the network."""

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.errors import UserError
from relearn.registry import Seed, register
from relearn.reporting.rendering import legend_handles, sections, styled
from relearn.reporting.summaries import blocks, by_erm, names, on_clean, present_methods

FIRST_STAGE = "early"  # what every run begins in


@register
@styled
def acm_curves(
    histories: pandas.DataFrame,
    *,
    methods: list[str] = ["erm", "pst"],  # noqa: B006, read, never changed; defaults must be literals
    seed: Seed | None = None,
) -> Figure:
    """ACM of every layer group over epochs, from shallow (dark) to deep (light), for one seed: the first unless given.

    Rows are poisons, columns are methods; dotted lines repeat erm on clean data; numbered vertical lines mark the
    stages of PST. A section per dataset and architecture. Raises UserError for methods or a seed that the grid does not
    have.
    """
    methods = present_methods(histories, methods)
    seed = _seed(histories, seed)
    rows = histories[histories["seed"] == seed]
    panels = dict(blocks(rows[rows["method"].isin(methods)]))
    clean = {title: block[on_clean(block) & by_erm(block)] for title, block in blocks(rows)}
    heights = {f"{title}, seed {seed}": 0.75 + 1.45 * block["poison"].nunique() for title, block in panels.items()}
    figure, parts = sections(heights, width=max(4, 0.4 + 2.9 * len(methods)))
    for part, (title, block) in zip(parts, panels.items(), strict=True):
        poisons = names(block, "poison")
        axes = part.subplots(len(poisons), len(methods), sharex=True, sharey=True, squeeze=False)
        columns = [name for name in block if name.startswith("acm_") and block[name].notna().any()]
        for (row, column), axis in numpy.ndenumerate(axes):
            run = block[(block["poison"] == poisons[row]) & (block["method"] == methods[column])]
            _panel(axis, run, columns, clean[title])
            axis.set_title(f"{poisons[row]}, {methods[column]}", pad=12)  # leaves room for the numbers of the stages
            axis.set(ylim=(0, 1.02), xlabel="epoch" if row == len(poisons) - 1 else "")
        handles = legend_handles(axes.flat)
        part.legend(
            handles.values(), handles, loc="outside lower center", ncols=3 * len(methods) + 1, columnspacing=1.2
        )
        part.supylabel("ACM", fontsize=8)
    return figure


def _seed(histories: pandas.DataFrame, seed: int | None) -> int:
    seeds = names(histories, "seed")
    if seed is not None and seed not in seeds:
        raise UserError(f"acm_curves: no cell of the grid has seed {seed}; known: {', '.join(map(str, seeds))}")
    return seeds[0] if seed is None else seed


def _panel(axis: Axes, run: pandas.DataFrame, columns: list[str], clean: pandas.DataFrame) -> None:
    """Draw the groups of one run, dotted those of the run on clean data; a run without measurements says so."""
    if not run[columns].notna().any(axis=None):
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="0.5")
        return
    shades = matplotlib.colormaps["viridis"](numpy.linspace(0, 0.9, len(columns)))
    for place, (name, shade) in enumerate(zip(columns, shades, strict=True)):
        measured = run[["epoch", name]].dropna()
        axis.plot(measured["epoch"], measured[name], color=shade, label=name.removeprefix("acm_"))
        if len(clean):
            label = None if place else "erm on clean data"  # once in the legend, for all groups
            axis.plot(clean["epoch"], clean[name], color=shade, linestyle=":", linewidth=0.9, alpha=0.8, label=label)
    stages = run["stage"].fillna("").replace("", FIRST_STAGE)  # of a method without stages
    begins = run[stages != stages.shift(fill_value=FIRST_STAGE)]  # also those that begin in the first epoch
    for epoch, stage in zip(begins["epoch"], begins["stage"], strict=True):
        axis.axvline(epoch, color="0.6", linewidth=0.7, linestyle="--", zorder=0, label="stage begins")
        number = stage.removeprefix("stage ")
        axis.text(
            epoch,
            1.02,
            number,
            transform=axis.get_xaxis_transform(),
            fontsize=6,
            color="0.35",
            ha="center",
            va="bottom",
        )
