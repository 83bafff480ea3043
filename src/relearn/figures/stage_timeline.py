"""What PST saw and did in the course of a run."""

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.training import schedule
from relearn.errors import UserError
from relearn.registry import CellName, register
from relearn.reporting.rendering import PALETTE, styled

PANELS = {
    "test accuracy (%)": 1.2,
    "ACM, accuracy\non the probe set": 1.4,
    "ratio r": 0.9,
    "learning rate": 1.0,
}  #: with heights in inches


@register
@styled
def stage_timeline(
    probes: pandas.DataFrame, histories: pandas.DataFrame, runs: dict, *, cells: list[CellName]
) -> Figure:
    """Runs of PST over the optimizer steps really taken, a column per cell: accuracy, measurements, learning rates.

    Red lines mark roll-backs, shades the stages; crosses are epochs that a roll-back undid. r is ACM of the watched
    layer group over the accuracy on the probe set. Dashed lines are the thresholds of the trigger, the dash-dotted one
    that of snapshots. The run did not know its test accuracy. Raises UserError for a cell that took no looks.
    """
    cells = list(dict.fromkeys(cells))
    figure = Figure(figsize=(2 + 3.4 * len(cells), 0.9 + 1.1 * sum(PANELS.values())), layout="constrained")
    axes = figure.subplots(
        len(PANELS), len(cells), sharex="col", sharey="row", height_ratios=list(PANELS.values()), squeeze=False
    )
    for column, cell in zip(axes.T, cells):
        looks, run = probes[probes["cell"] == cell].reset_index(drop=True), runs[cell]
        if looks.empty:
            raise UserError(f"stage_timeline: {cell} took no looks at the probe set; name cells of pst")
        trace = _trace(looks, histories, run)
        _accuracy(column[0], trace)
        _measurements(column[1], column[2], trace, run["settings"]["method"])
        _rates(column[3], looks, run)
        _stages(column, looks, run["steps_taken"])
        column[0].set_title("{method} on {poison}, {dataset}, {arch}, seed {seed}".format(**run["cell"]), pad=14)
        column[-1].set(xlabel="optimizer steps taken", xlim=(0, run["steps_taken"]))
    for line, label in zip(axes, PANELS):
        line[0].set_ylabel(label)
        handles = {label: handle for axis in line for handle, label in zip(*axis.get_legend_handles_labels())}
        line[-1].legend(handles.values(), handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _trace(looks: pandas.DataFrame, histories: pandas.DataFrame, run: dict) -> pandas.DataFrame:
    """All that was measured, at looks and at ends of epochs, in the order of time; `part` counts the roll-backs before it."""
    watch = f"acm_{run['settings']['method'].get('watch') or run['verdict']['watch']}"
    kept = histories[(histories[list(run["cell"])] == pandas.Series(run["cell"])).all(axis=1)]
    columns = ["steps_taken", watch, "probe_accuracy", "test_accuracy", "rolled_back"]
    rows = (
        kept.assign(rolled_back=False),
        pandas.DataFrame(run["rolled_back"]).assign(rolled_back=True),
        looks.assign(rolled_back=False),
    )
    trace = pandas.concat([frame.reindex(columns=columns) for frame in rows if len(frame)]).rename(
        columns={watch: "acm"}
    )
    returns = looks.loc[looks["next_step"] < looks["step"], "steps_taken"]
    trace["part"] = numpy.searchsorted(returns.to_numpy(), trace["steps_taken"].to_numpy())
    return trace.sort_values("steps_taken", kind="stable")


def _accuracy(axis: Axes, trace: pandas.DataFrame) -> None:
    epochs = trace.dropna(subset="test_accuracy")
    for _, part in epochs.groupby("part"):
        axis.plot(
            part["steps_taken"],
            part["test_accuracy"],
            color="black",
            marker="o",
            markersize=2.5,
            label="clean test images",
        )
    rolled_back = epochs[epochs["rolled_back"]]
    if len(rolled_back):
        axis.plot(
            rolled_back["steps_taken"],
            rolled_back["test_accuracy"],
            "x",
            color=PALETTE[0],
            markersize=6,
            label="undone by a roll-back",
        )
    axis.set(ylim=(0, 100))


def _measurements(upper: Axes, lower: Axes, trace: pandas.DataFrame, method: dict) -> None:
    """ACM and probe accuracy above, their ratio below, with the method's thresholds."""
    for _, part in trace.groupby("part"):
        upper.plot(
            part["steps_taken"], part["acm"], color=PALETTE[1], marker=".", markersize=3, label="ACM, watched group"
        )
        upper.plot(
            part["steps_taken"],
            part["probe_accuracy"],
            color=PALETTE[4],
            marker=".",
            markersize=3,
            label="accuracy of the network",
        )
        lower.plot(
            part["steps_taken"],
            part["acm"] / part["probe_accuracy"],
            color=PALETTE[2],
            marker=".",
            markersize=3,
            label="r = ACM / accuracy",
        )
    for axis, name, dashes in (
        (upper, "acm_trapped", "--"),
        (upper, "acm_clean", "-."),
        (lower, "ratio_trapped", "--"),
    ):
        if name in method:
            axis.axhline(
                method[name], color="0.45", linewidth=0.8, linestyle=dashes, label=f"{name} = {method[name]:g}"
            )
    upper.set(ylim=(0, 1.02))
    lower.set(ylim=(0, 1.6))  # above lies only the very beginning, where the network knows nothing yet


def _rates(axis: Axes, looks: pandas.DataFrame, run: dict) -> None:
    """The learning rate of each layer group; neighbours that always had the same share a line."""
    recipe, total = run["settings"]["train"], run["steps_taken"]
    groups = [name for name in looks if name.startswith("rate_") and looks[name].notna().any()]
    times, steps = [], []
    for begin, until, step in zip(looks["steps_taken"], [*looks["steps_taken"][1:], total], looks["next_step"]):
        taken = numpy.unique(numpy.linspace(begin, until, 50).astype(int))
        times.append(taken)
        steps.append(taken - begin + step)
    shares = [
        [recipe["lr"] * schedule.factor(step, run["steps"], recipe["warmup_steps"]) for step in piece]
        for piece in steps
    ]
    lines: dict[tuple, list[str]] = {}
    for group in groups:
        lines.setdefault(tuple(looks[group]), []).append(group.removeprefix("rate_"))
    shades = matplotlib.colormaps["viridis"](numpy.linspace(0, 0.8, len(lines)))
    for (rates, members), shade in zip(lines.items(), shades):
        values = numpy.concatenate([rate * numpy.array(share) for rate, share in zip(rates, shares)])
        label = members[0] if len(members) == 1 else f"{members[0]} to {members[-1]}"
        axis.plot(numpy.concatenate(times), values, color=shade, label=label)
    axis.set(ylim=(-0.04 * recipe["lr"], 1.04 * recipe["lr"]))


def _stages(column: numpy.ndarray, looks: pandas.DataFrame, end: int) -> None:
    """Shade the stages after the first and name them, and mark each roll-back."""
    begins = looks[looks["next_stage"] != looks["stage"]]
    spans = zip(begins["steps_taken"], [*begins["steps_taken"][1:], end], begins["next_stage"])
    for number, (begin, until, stage) in enumerate(spans):
        for axis in column:
            axis.axvspan(begin, until, color=PALETTE[1], alpha=0.08 * (number % 3 + 1), linewidth=0, zorder=0)
        column[0].text(begin, 1.02, f" {stage}", transform=column[0].get_xaxis_transform(), fontsize=6.5, va="bottom")
    for look in looks[looks["next_step"] < looks["step"]].itertuples():
        for axis in column:
            label = "roll-back" if axis is column[0] else None
            axis.axvline(look.steps_taken, color=PALETTE[0], linewidth=0.9, zorder=1, label=label)
