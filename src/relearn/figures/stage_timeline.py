"""What PST measured and did in the course of a run."""

from typing import Any

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from relearn.errors import UserError
from relearn.registry import CellName, register
from relearn.reporting.rendering import PALETTE, PAPER, legend_handles, styled
from relearn.training import schedule

#: panels, with heights in inches
PANELS = {
    "test accuracy (%)": 1.2,
    "ACM, accuracy\non the probe set": 1.4,
    "share of\naccuracy kept": 0.9,
    "learning rate": 1.0,
}
NAME = 0.2  # of the width of a panel, for the name of a stage


@register
@styled
def stage_timeline(
    probes: pandas.DataFrame, histories: pandas.DataFrame, runs: dict, *, cells: list[CellName]
) -> Figure:
    """Runs of PST over the optimizer steps really taken, a column per cell: accuracy, measurements, learning rates.

    Red lines mark roll-backs, shades the stages; crosses are epochs that a roll-back undid. The share kept is that of
    the accuracy above chance on the probe set, with perturbations hidden; below the dashed line, the network is
    trapped. The run did not know its test accuracy. Raises UserError for a cell without probes.
    """
    cells = list(dict.fromkeys(cells))
    size = (1.9 + max(1.55, min(3.4, (PAPER - 1.9) / len(cells))) * len(cells), 1.0 + 0.95 * sum(PANELS.values()))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        len(PANELS), len(cells), sharex="col", sharey="row", height_ratios=list(PANELS.values()), squeeze=False
    )
    for column, cell in zip(axes.T, cells, strict=True):
        of_cell, run = probes[probes["cell"] == cell].reset_index(drop=True), runs[cell]
        if of_cell.empty:
            raise UserError(f"stage_timeline: {cell} has no probes; name cells of a pst method in `cells`")
        trace = _trace(of_cell, histories, run)
        _accuracy(column[0], trace)
        _measurements(column[1], column[2], trace, run["settings"]["method"])
        _rates(column[3], of_cell, run)
        _stages(column, of_cell, run["steps_taken"])
        title = "{method} on {poison}\n{dataset}\n{arch}, seed {seed}".format(**run["cell"])
        column[0].set_title(title, pad=22, fontsize=7)
        column[-1].set(xlabel="optimizer steps taken", xlim=(0, run["steps_taken"]))
        column[-1].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for line, label in zip(axes, PANELS, strict=True):
        line[0].set_ylabel(label)
        handles = legend_handles(line)
        line[-1].legend(handles.values(), handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _trace(probes: pandas.DataFrame, histories: pandas.DataFrame, run: dict) -> pandas.DataFrame:
    """All measurements, at probes and ends of epochs, in the order of time; `part` counts the roll-backs so far."""
    middle = f"acm_{run['verdict']['group']}"
    epochs = histories[(histories[list(run["cell"])] == pandas.Series(run["cell"])).all(axis=1)]
    columns = ["steps_taken", middle, "probe_accuracy", "hidden_accuracy", "kept", "test_accuracy", "rolled_back"]
    rows = (
        epochs.assign(rolled_back=False),
        pandas.DataFrame(run["rolled_back"]).assign(rolled_back=True),
        probes.assign(rolled_back=False),
    )
    trace = pandas.concat([frame.reindex(columns=columns) for frame in rows if len(frame)])
    trace = trace.rename(columns={middle: "acm"})
    returns = probes.loc[probes["next_step"] < probes["step"], "steps_taken"]
    trace["part"] = numpy.searchsorted(returns.to_numpy(), trace["steps_taken"].to_numpy())
    return trace.sort_values("steps_taken", kind="stable", ignore_index=True)


def _accuracy(axis: Axes, trace: pandas.DataFrame) -> None:
    epochs = trace.dropna(subset="test_accuracy")
    line: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 2.5, "label": "clean test images"}
    for _, part in epochs.groupby("part"):
        axis.plot(part["steps_taken"], part["test_accuracy"], **line)
    undone = epochs[epochs["rolled_back"]]
    if len(undone):
        cross: dict[str, Any] = {"color": PALETTE[0], "markersize": 6, "label": "undone by a roll-back"}
        axis.plot(undone["steps_taken"], undone["test_accuracy"], "x", **cross)
    axis.set(ylim=(0, 100))


def _measurements(upper: Axes, lower: Axes, trace: pandas.DataFrame, method: dict) -> None:
    """ACM and both probe accuracies in the upper panel, the share kept in the lower one, with the method's limit."""
    for _, part in trace.groupby("part"):
        for axis, values, colour, label in (
            (upper, part["acm"], PALETTE[1], "ACM, middle group"),
            (upper, part["probe_accuracy"], PALETTE[4], "accuracy of the network"),
            (upper, part["hidden_accuracy"], PALETTE[3], "perturbations hidden"),
            (lower, part["kept"].dropna(), PALETTE[2], "share kept"),
        ):
            axis.plot(part["steps_taken"][values.index], values, color=colour, marker=".", markersize=3, label=label)
    if "kept_trapped" in method:
        label = f"kept_trapped = {method['kept_trapped']:g}"
        lower.axhline(method["kept_trapped"], color="0.45", linewidth=0.8, linestyle="--", label=label)
    upper.set(ylim=(0, 1.02))
    lower.set(ylim=(0, 1.2))


def _rates(axis: Axes, probes: pandas.DataFrame, run: dict) -> None:
    """The learning rate of each layer group; neighbours that always had the same one share a line."""
    recipe, total = run["settings"]["train"], run["steps_taken"]
    groups = [name for name in probes if name.startswith("rate_") and probes[name].notna().any()]
    ends = [*probes["steps_taken"][1:], total]
    times, steps = [], []
    for begin, end, step in zip(probes["steps_taken"], ends, probes["next_step"], strict=True):
        taken = numpy.unique(numpy.linspace(begin, end, 50).astype(int))
        times.append(taken)
        steps.append(taken - begin + step)
    scheduled = [
        [recipe["lr"] * schedule.factor(step, length, recipe["warmup_steps"], recipe["schedule"]) for step in piece]
        for piece, length in zip(steps, probes["steps"], strict=True)
    ]
    lines: dict[tuple, list[str]] = {}
    for group in groups:
        lines.setdefault(tuple(probes[group]), []).append(group.removeprefix("rate_"))
    shades = matplotlib.colormaps["viridis"](numpy.linspace(0, 0.8, len(lines)))
    for (rates, members), shade in zip(lines.items(), shades, strict=True):
        values = numpy.concatenate([rate * numpy.array(piece) for rate, piece in zip(rates, scheduled, strict=True)])
        label = members[0] if len(members) == 1 else f"{members[0]} to {members[-1]}"
        axis.plot(numpy.concatenate(times), values, color=shade, label=label)
    axis.set(ylim=(-0.04 * recipe["lr"], 1.04 * recipe["lr"]))


def _stages(column: numpy.ndarray, probes: pandas.DataFrame, end: int) -> None:
    """Shade the stages after the first and name them, and mark each roll-back."""
    begins = probes[probes["next_stage"] != probes["stage"]]
    spans = zip(
        begins["steps_taken"], [*begins["steps_taken"][1:], end], begins["next_stage"], strict=False
    )  # none begins if no stage did
    for number, (begin, until, stage) in enumerate(spans):
        for axis in column:
            axis.axvspan(begin, until, color=PALETTE[1], alpha=0.08 * (number % 3 + 1), linewidth=0, zorder=0)
        raised = 0.1 * (until - begin < NAME * end)  # the name of a short stage would lie on that of the next
        column[0].text(
            begin, 1.02 + raised, f" {stage}", transform=column[0].get_xaxis_transform(), fontsize=6.5, va="bottom"
        )
    for probe in probes[probes["next_step"] < probes["step"]].itertuples():
        for axis in column:
            label = "roll-back" if axis is column[0] else None
            axis.axvline(probe.steps_taken, color=PALETTE[0], linewidth=0.9, zorder=1, label=label)
