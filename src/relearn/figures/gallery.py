"""Clean and poisoned images side by side."""

import textwrap

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.errors import UserError
from relearn.registry import Positive, PositiveInt, register
from relearn.reporting.rendering import sections, styled


@register
@styled
def gallery(examples: dict, *, amplify: Positive = 10.0, classes: PositiveInt = 6) -> Figure:
    """Images of every poison, a column per class: clean, poisoned, and their difference times `amplify` on mid-grey.

    A section per dataset; `classes` columns at most. The difference is clipped to what an image can show. Raises
    UserError for a grid that has only clean data.
    """
    poisons = [key for key, example in examples.items() if example["use"] != "clean"]
    if not poisons:
        raise UserError(
            "gallery: the grid has no poison but 'clean'; add one, or take 'gallery' out of 'figures' in params.yaml"
        )
    datasets = {dataset: [poison for name, poison in poisons if name == dataset] for dataset, _ in poisons}
    columns = min(classes, max(len(examples[key]["clean"]) for key in poisons))
    height = 3 * 0.62  # inches for the three rows of a poison
    figure, parts = sections(
        {name: 0.6 + (height + 0.3) * len(found) for name, found in datasets.items()}, width=1.5 + 0.62 * columns
    )
    for part, (dataset, found) in zip(parts, datasets.items(), strict=True):
        axes = part.subplots(len(found), 1, squeeze=False)[:, 0]
        for axis, poison in zip(axes, found, strict=True):
            _panel(axis, examples[dataset, poison], amplify, columns)
            axis.set_title(poison, loc="left", fontweight="bold")
            axis.tick_params(labeltop=axis is axes[0])
    return figure


def _panel(axis: Axes, example: dict, amplify: float, columns: int) -> None:
    """Draw the three rows of one poison as a single image."""
    clean, poisoned = (example[name][:columns].astype(float) for name in ("clean", "poisoned"))
    difference = numpy.clip(128 + amplify * (poisoned - clean), 0, 255)
    count, high, wide, _ = clean.shape
    edge = max(1, high // 16)  # pixels of white around each image
    framed = numpy.pad(
        [clean, poisoned, difference], ((0, 0), (0, 0), (0, edge), (0, edge), (0, 0)), constant_values=255
    )
    # (row, column, y, x, rgb) becomes one image: rows beside y, columns beside x.
    mosaic = framed.transpose(0, 2, 1, 3, 4).reshape(3 * (high + edge), count * (wide + edge), 3)
    axis.imshow(mosaic[:-edge, :-edge].astype("uint8"), interpolation="nearest")
    labels = ["\n".join(textwrap.wrap(label.replace("_", " "), 10)[:2]) for label in example["labels"][:columns]]
    axis.set_xticks(wide / 2 - 0.5 + numpy.arange(count) * (wide + edge), labels)
    axis.set_yticks(
        high / 2 - 0.5 + numpy.arange(3) * (high + edge), ["clean", "poisoned", f"difference × {amplify:g}"]
    )
    axis.tick_params(length=0, labelbottom=False)
    axis.spines[:].set_visible(False)
