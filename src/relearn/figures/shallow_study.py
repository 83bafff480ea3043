"""Where in the network the trap is learned."""

import math

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.errors import UserError
from relearn.registry import register
from relearn.reporting.rendering import PALETTE, PAPER, grid_of_panels, legend_handles, sections, styled, tidy
from relearn.reporting.summaries import BLOCK, blocks, by_erm, clean_once, names, only

COLUMNS = 4  #: at most so many panels side by side
LINES = {"transplant": "from a clean model, frozen", "random_frozen": "random, frozen"}  #: of methods, by what they use
CELL = [*BLOCK, "poison", "method", "seed"]


@register
@styled
def shallow_study(
    records: pandas.DataFrame, histories: pandas.DataFrame, *, methods: list[str] | None = None
) -> Figure:
    """Clean test accuracy against the number of shallow layer groups that are frozen from the first step.

    A panel per poison. One line for groups of a clean model (`transplant`), one for groups as initialised
    (`random_frozen`): means over seeds, and a band from the lowest to the highest. Both begin at erm, where nothing is
    frozen; a dotted line is erm on clean data. `methods` are the variants to draw (null: all of those two). A section
    per dataset and architecture. Raises UserError for methods that the grid does not have, for none of those two, and
    for two variants that freeze the same groups.
    """
    frozen = _frozen(records, histories, methods)
    panels = dict(blocks(frozen))
    counts = {title: block["poison"].nunique() for title, block in panels.items()}
    columns = grid_of_panels(counts.values(), COLUMNS)
    rows = {title: math.ceil(count / columns) for title, count in counts.items()}
    figure, parts = sections(
        {title: 0.7 + 1.5 * count for title, count in rows.items()}, width=min(PAPER, max(4.2, 0.6 + 2.4 * columns))
    )
    everything = dict(blocks(records.assign(plain=by_erm(records))))
    for part, (title, block) in zip(parts, panels.items(), strict=True):
        axes = part.subplots(rows[title], columns, sharex=True, sharey=True, squeeze=False)
        for axis, poison in zip(axes.flat, names(block, "poison"), strict=False):
            _panel(axis, block[block["poison"] == poison], everything[title])
        tidy(axes, counts[title])
        part.supxlabel("frozen layer groups, from the shallow end", fontsize=8)
        part.supylabel("test accuracy (%)", fontsize=8)
    handles = legend_handles(figure.axes)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2 if columns < 3 else 4)
    return figure


def _frozen(records: pandas.DataFrame, histories: pandas.DataFrame, methods: list[str] | None) -> pandas.DataFrame:
    """The records of the methods to draw; `frozen` counts the layer groups whose rate was 0 in the first epoch."""
    chosen = only(records, "method", methods)
    wanted = chosen[chosen["method_use"].isin(LINES)]
    if wanted.empty:
        among = f" and is one of {methods}" if methods else ""
        raise UserError(
            f"shallow_study: no cell of the grid uses {' or '.join(LINES)}{among}; "
            "add one, or take 'shallow_study' out of 'figures' in params.yaml"
        )
    first = histories[histories["epoch"] == histories["epoch"].min()]
    rates = [name for name in histories if name.startswith("rate_")]
    counted = first[CELL].assign(frozen=(first[rates] == 0).sum(axis=1))
    frozen = wanted.merge(counted, on=CELL)
    duplicates = frozen[frozen.duplicated([*BLOCK, "poison", "method_use", "frozen", "seed"], keep=False)]
    if len(duplicates):
        pair = ", ".join(names(duplicates, "method"))
        raise UserError(
            f"shallow_study: {pair} freeze the same layer groups in the same way; give `methods:` with those to draw"
        )
    return frozen


def _panel(axis: Axes, rows: pandas.DataFrame, block: pandas.DataFrame) -> None:
    """Draw the lines of one poison; `block` has all records of this dataset and architecture."""
    poison = rows["poison"].iloc[0]
    erm = block[block["plain"]]
    plain, clean = erm[erm["poison"] == poison].assign(frozen=0), clean_once(erm)["accuracy"]
    for colour, (use, label) in zip(PALETTE[1:], LINES.items(), strict=False):
        drawn = rows[rows["method_use"] == use]
        if drawn.empty:
            continue  # the point of erm alone would be called by a method that did not run
        points = pandas.concat([plain, drawn]).groupby("frozen")["accuracy"]
        axis.fill_between(points.mean().index, points.min(), points.max(), color=colour, alpha=0.2, linewidth=0)
        axis.plot(points.mean(), color=colour, marker="o", markersize=3.5, label=label)
    if len(plain):
        axis.plot(
            0, plain["accuracy"].mean(), "o", color=PALETTE[0], markersize=5, label="erm, nothing frozen", zorder=3
        )
    if len(clean):
        axis.axhline(clean.mean(), color="0.35", linestyle=":", linewidth=1.1, label="erm on clean data")
    axis.set(ylim=(0, 100), title=poison)
    axis.locator_params(axis="x", integer=True)
