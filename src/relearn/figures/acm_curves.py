"""How the trap shows inside the network."""

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.errors import UserError
from relearn.registry import Seed, register
from relearn.reporting.rendering import PAPER, legend_handles, sections, styled
from relearn.reporting.summaries import blocks, by_erm, clean_once, names, only, present_methods

FIRST_STAGE = "early"  # what every run begins in
USUAL = ["erm", "pst"]
COLUMNS = 4  #: at most so many panels side by side, those of a poison's methods together
LAST = "acm_head"  # in the columns of several architectures the head of the first comes before groups of the second


@register
@styled
def acm_curves(
    histories: pandas.DataFrame,
    *,
    methods: list[str] | None = None,
    poisons: list[str] | None = None,
    seed: Seed | None = None,
) -> Figure:
    """ACM of every layer group over epochs, from shallow (dark) to deep (light), for one seed: the first unless given.

    A panel for each of `methods` (null: erm and pst, if both ran) on each of `poisons` (null: all); dotted lines repeat
    erm on clean data; numbered vertical lines mark the stages of PST. A section per dataset and architecture. Raises
    UserError for poisons, methods or a seed that the grid does not have.
    """
    if methods is None:
        methods = present_methods(histories, USUAL)
    seed = _seed(histories, seed)
    histories = histories.assign(plain=by_erm(histories))  # of all, since a block alone does not tell
    rows, of_methods = histories[histories["seed"] == seed], only(histories, "method", methods)
    panels = dict(blocks(only(of_methods[of_methods["seed"] == seed], "poison", poisons)))
    clean = {title: clean_once(block[block["plain"]]) for title, block in blocks(rows)}
    places = {title: _places(block, methods) for title, block in panels.items()}
    shapes = {title: numpy.array(list(of_block.values())).max(0) + 1 for title, of_block in places.items()}
    heights = {f"{title}, seed {seed}": 0.75 + 1.2 * shapes[title][0] for title in panels}
    most = max(columns for _, columns in shapes.values())
    figure, parts = sections(heights, width=min(PAPER, max(4, 0.4 + 2.9 * most)))
    for part, (title, block) in zip(parts, panels.items(), strict=True):
        axes = part.subplots(shapes[title][0], most, sharex=True, sharey=True, squeeze=False)
        groups = [name for name in block if name.startswith("acm_") and block[name].notna().any()]
        groups.sort(key=lambda name: name == LAST)
        for (poison, method), place in places[title].items():
            axis = axes[place]
            run = block[(block["poison"] == poison) & (block["method"] == method)]
            _panel(axis, run, groups, clean[title])
            axis.set_title(f"{poison}, {method}", pad=10, fontsize=7)  # leaves room for the numbers of the stages
            axis.set(ylim=(0, 1.02))
        for place, axis in numpy.ndenumerate(axes):
            if place not in places[title].values():
                axis.remove()
            elif (place[0] + 1, place[1]) not in places[title].values():
                axis.tick_params(labelbottom=True)
                axis.set_xlabel("epoch")
        handles = legend_handles(part.axes)
        part.legend(handles.values(), handles, loc="outside lower center", ncols=2 * most)
        part.supylabel("ACM", fontsize=8)
    return figure


def _places(block: pandas.DataFrame, methods: list[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Row and column of each poison and method that ran: the methods of a poison, and poisons as fit, side by side."""
    ran = set(zip(block["poison"], block["method"], strict=True))
    poisons, methods = names(block, "poison"), [method for method in methods if method in names(block, "method")]
    across = max(1, COLUMNS // len(methods))
    return {
        (poison, method): (number // across, number % across * len(methods) + place)
        for number, poison in enumerate(poisons)
        for place, method in enumerate(methods)
        if (poison, method) in ran
    }


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
