"""The activations of the middle layer group, early and late."""

import matplotlib
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.registry import CellName, register
from relearn.reporting.rendering import styled
from relearn.reporting.summaries import names


@register
@styled
def embedding(embeddings: pandas.DataFrame, histories: pandas.DataFrame, *, cells: list[CellName]) -> Figure:
    """Images of the probe set by their activations in the middle layer group, after the first and the last epoch.

    A row per cell. Axes are the two principal components of the class means of other images, own ones in each panel:
    what can be compared is whether the classes lie apart. The title gives ACM, which measures the same in all
    dimensions.
    """
    cells = list(dict.fromkeys(cells))
    # ten classes at most are in the file
    palette = dict(zip(names(embeddings, "label"), matplotlib.color_sequences["tab10"], strict=False))
    moments = [min, max]
    figure = Figure(figsize=(5.6, 0.5 + 2.3 * len(cells)), layout="constrained")
    axes = figure.subplots(len(cells), len(moments), squeeze=False)
    for line, cell in zip(axes, cells, strict=True):
        points = embeddings[embeddings["cell"] == cell]
        for axis, moment in zip(line, moments, strict=True):
            epoch = moment(points["epoch"])
            _panel(axis, points[points["epoch"] == epoch], palette)
            axis.set_title(f"epoch {epoch}{_acm(histories, cell, epoch, points['group'].iloc[0])}")
        dataset, poison, arch, method, seed = cell.split("/")
        line[0].set_ylabel(f"{method} on {poison}\n{dataset}, {arch}, seed {seed}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=5, markerscale=2, handletextpad=0.1, columnspacing=1
    )
    return figure


def _panel(axis: Axes, points: pandas.DataFrame, palette: dict) -> None:
    """Draw the images of one run at one moment, on equal scales."""
    for label in names(points, "label"):
        of_class = points[points["label"] == label]
        axis.scatter(of_class["x"], of_class["y"], s=7, color=palette[label], alpha=0.8, linewidths=0, label=label)
    axis.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axis.spines[:].set_visible(True)
    axis.spines[:].set_color("0.8")


def _acm(histories: pandas.DataFrame, cell: str, epoch: int, group: str) -> str:
    dataset, poison, arch, method, seed = cell.split("/")
    wanted = {"dataset": dataset, "poison": poison, "arch": arch, "method": method, "seed": int(seed), "epoch": epoch}
    row = histories[(histories[list(wanted)] == pandas.Series(wanted)).all(axis=1)].iloc[0]
    return f", ACM of {group} {row[f'acm_{group}']:.2f}"
